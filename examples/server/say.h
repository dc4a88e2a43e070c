/* SPDX-License-Identifier: Apache-2.0
 *
 * Sentences on stderr.
 */
#ifndef SERVER_SAY_H
#define SERVER_SAY_H

#include "drowse.h"

/* Prints "server: " and the sentence. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Why this thread's last call returned status: the library's own words, which name what was wrong, if they are about that. Valid
 * until the thread's next failing call. */
const char *reason(drowse_status status);

#endif
