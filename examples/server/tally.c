/* SPDX-License-Identifier: Apache-2.0
 *
 * What has been answered, and how long the first request after a sleep had to wait.
 */
#include "tally.h"

void tally_make(struct tally *tally) {
  *tally = (struct tally){.counts = {.answers = 0}};
  (void)pthread_mutex_init(&tally->lock, NULL);
}

void tally_end(struct tally *tally) {
  (void)pthread_mutex_destroy(&tally->lock);
}

void tally_answer(struct tally *tally, unsigned status) {
  (void)pthread_mutex_lock(&tally->lock);
  tally->counts.answers++;
  if (status == 503)
    tally->counts.refusals++;
  else if (status >= 500)
    tally->counts.failures++;
  (void)pthread_mutex_unlock(&tally->lock);
}

void tally_first(struct tally *tally, int64_t waited_ns) {
  double ms = (double)waited_ns / 1e6;
  (void)pthread_mutex_lock(&tally->lock);
  struct counts *counts = &tally->counts;
  counts->firsts++;
  counts->first_last_ms = ms;
  counts->first_sum_ms += ms;
  if (ms > counts->first_most_ms) counts->first_most_ms = ms;
  (void)pthread_mutex_unlock(&tally->lock);
}

struct counts tally_look(struct tally *tally) {
  (void)pthread_mutex_lock(&tally->lock);
  struct counts counts = tally->counts;
  (void)pthread_mutex_unlock(&tally->lock);
  return counts;
}
