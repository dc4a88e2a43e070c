/* SPDX-License-Identifier: Apache-2.0
 *
 * What is left when every heap has been closed: invariant 8. Nothing may be but what was there before, and what the library has
 * for ever: names, and records of the thread that asks.
 */
#ifndef FAULT_LEFT_H
#define FAULT_LEFT_H

#include "fault/expect.h"
#include "fault/fault.h"

struct left {
  struct fault_live live;
  uint64_t files, threads;
};

/* How many threads there are. A sanitizer may make one of its own along with the first one, so there is one before they are
 * counted. */
uint64_t left_threads(void);

/* Looks, once there are no more threads than so many; 0: nobody knows how many the driver has. */
struct left left_look(uint64_t most_threads);

/* unmapped: munmap() has not failed. */
void left_check(const struct left *before, const struct left *now, bool unmapped);

/* What the fault has kept the library from giving back to the host device goes with the context. */
void left_end_contexts(void);

/* Of the host device. excused: the driver may have kept what was given back, until its context went. */
void left_check_device(bool excused);

#endif
