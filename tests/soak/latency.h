/* SPDX-License-Identifier: Apache-2.0
 *
 * Times that something took, and what they were like.
 */
#ifndef SOAK_LATENCY_H
#define SOAK_LATENCY_H

#include <stddef.h>

struct latency {
  float *ms;
  size_t count, room;
};

void latency_add(struct latency *latency, double ms);

/* Adds all of another one's, and empties that. */
void latency_merge(struct latency *latency, struct latency *other);

/* One line: how many, and percentiles. Sorts them. */
void latency_print(struct latency *latency, const char *name);

void latency_end(struct latency *latency);

#endif
