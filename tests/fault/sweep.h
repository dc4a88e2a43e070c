/* SPDX-License-Identifier: Apache-2.0
 *
 * The sweep: fail every call, one at a time, and look at everything each time.
 *
 * A scenario is a call in a state. It runs once without a fault, which counts the calls that it makes of each point. Then call 1
 * of a point fails, then call 2, until a run has none that does: once, with all later calls of the point, and with all later
 * calls of every point; and in each way that it can fail. Each run is a process of its own, which has never used the library
 * before.
 *
 *   int main(int argc, char **argv) {
 *     return sweep_main(argc, argv, scenarios, sizeof scenarios / sizeof *scenarios);
 *   }
 *
 *   PROGRAM [SCENARIO...]                                       sweeps them, or all; with DROWSE_DEEP=1 in every way, from every
 *                                                               call on, which takes many times longer
 *   DROWSE_FAULT=POINT PROGRAM [SCENARIO...]                    ... that point alone
 *   DROWSE_FAULT=POINT:K[:MODE[:VARIANT]] PROGRAM SCENARIO      runs that one case
 */
#ifndef SWEEP_H
#define SWEEP_H

#include "drowse.h"
#include "fault/expect.h"
#include "fault/fault.h"

/* A set of statuses. */
#define SWEEP_BIT(status) (UINT64_C(1) << -(DROWSE_##status))

struct scenario {
  const char *name;
  void (*set_up)(void);                /* NULL: nothing */
  drowse_status (*call)(void);         /* what is swept. After a failure it is made again */
  void (*check)(drowse_status status); /* what is to be looked at beside world_check(); NULL: nothing */
  uint64_t statuses;                   /* with which the header says it may fail */
  unsigned flags;
};

enum {
  SWEEP_CALLS_NOTHING = 1, /* it makes no call that could fail: that is looked at */
  SWEEP_FRESH = 2,         /* its thread has not used the library before */
  SWEEP_SHORT = 4,         /* of memory: what keeps it from being found is told as the want of it */
  SWEEP_BRIEF = 8,         /* much like another one: later calls fail, too, from some of its calls on only, unless it is deep */
  SWEEP_FINDS_LOSS = 16,   /* a model, in which the sweep is to find that bytes are lost */
  SWEEP_FINDS_EXIT = 32,   /* ... that the process ends */
  SWEEP_MODEL = 64,        /* ... that nothing is wrong */
  SWEEP_HOST = 128         /* for the host device: a GPU need not have what it takes */
};

int sweep_main(int argc, char **argv, const struct scenario *scenarios, size_t count);

/* What is known of the case that runs. */
const struct fault_case *sweep_case(void);

/* Whether what puts the calling thread's context back may have failed again and again. */
bool sweep_is_about_context(void);

#endif
