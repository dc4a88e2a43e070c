/* SPDX-License-Identifier: Apache-2.0
 *
 * What a call may say after a fault.
 */
#ifndef PROMISE_H
#define PROMISE_H

#include "fault/sweep.h"

/* The calling thread's last failure. */
struct promise_error {
  drowse_error detail;
  char text[512];
};
void promise_take_error(struct promise_error *error);

/* Success, if the library can do without: what was to be done is looked at by others. Or the status that the failure of such a
 * call is, which must be one that the header has, with its code and a text. */
void promise_check(const struct fault_case *wanted, const struct scenario *scenario, drowse_status status,
                   const struct promise_error *error);

/* Leaves a failure to the thread that is no scenario's; whoever succeeds leaves it alone. */
void promise_begin(void);

#endif
