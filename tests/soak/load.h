/* SPDX-License-Identifier: Apache-2.0
 *
 * Load: threads that ask at random, break off, put the server to sleep and wake it, and take its memory away.
 */
#ifndef SOAK_LOAD_H
#define SOAK_LOAD_H

#include "expect.h"
#include "latency.h"

struct totals {
  uint64_t requests; /* all */
  uint64_t ranges, aborts, sleeps, wakes, refusals, failures, naps, stops;
  uint64_t wrong_bytes, wrong_answers;
  struct latency latency, first; /* of ranges that were answered; of the first after each sleep */
};

struct amount {
  uint64_t requests; /* 0: by time */
  double seconds;
};

/* Runs it with so many threads, and adds what has happened to totals. */
void load_run(const struct target *target, unsigned threads, struct amount amount, uint64_t seed, struct totals *totals);

#endif
