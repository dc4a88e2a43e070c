/* SPDX-License-Identifier: Apache-2.0
 *
 * What a process has of the system, as /proc says.
 */
#ifndef SOAK_WATCH_H
#define SOAK_WATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct figures {
  size_t resident_kib, threads, files;
};

/* False: there is no such process. */
bool watch_look(pid_t pid, struct figures *figures);

/* Looks until threads and files stay the same for some time: what the process gives back it gives back when it likes. */
bool watch_settle(pid_t pid, struct figures *figures);

#endif
