/* SPDX-License-Identifier: Apache-2.0
 *
 * What has been answered, and how long the first request after a sleep had to wait.
 */
#ifndef SERVER_TALLY_H
#define SERVER_TALLY_H

#include <pthread.h>
#include <stdint.h>

/* Counts since the start. */
struct counts {
  uint64_t answers, refusals, failures; /* all; of which "try again later", and what should not happen */
  uint64_t firsts;                      /* requests that found the weights asleep, began to wake them and got them */
  double first_last_ms, first_most_ms, first_sum_ms;
};

struct tally {
  pthread_mutex_t lock;
  struct counts counts;
};

void tally_make(struct tally *tally);
void tally_end(struct tally *tally);

/* Counts an answer by its HTTP status. */
void tally_answer(struct tally *tally, unsigned status);

/* Counts a first request, which waited so long. */
void tally_first(struct tally *tally, int64_t waited_ns);

struct counts tally_look(struct tally *tally);

#endif
