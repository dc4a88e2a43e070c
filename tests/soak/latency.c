/* SPDX-License-Identifier: Apache-2.0
 *
 * Times that something took, and what they were like.
 */
#include "latency.h"

#include <stdio.h>
#include <stdlib.h>

void latency_add(struct latency *latency, double ms) {
  if (latency->count == latency->room) {
    latency->room = latency->room == 0 ? 1024 : latency->room * 2;
    latency->ms = realloc(latency->ms, latency->room * sizeof *latency->ms);
    if (latency->ms == NULL) abort();
  }
  latency->ms[latency->count++] = (float)ms;
}

void latency_merge(struct latency *latency, struct latency *other) {
  for (size_t i = 0; i < other->count; i++) latency_add(latency, (double)other->ms[i]);
  latency_end(other);
}

static int compare(const void *left, const void *right) {
  float a = *(const float *)left, b = *(const float *)right;
  return (a > b) - (a < b);
}

static double at(const struct latency *latency, double fraction) {
  return (double)latency->ms[(size_t)(fraction * (double)(latency->count - 1))];
}

void latency_print(struct latency *latency, const char *name) {
  if (latency->count == 0) {
    printf("%-22s none\n", name);
    return;
  }
  qsort(latency->ms, latency->count, sizeof *latency->ms, compare);
  printf("%-22s %zu: ms p50 %.3f, p90 %.3f, p99 %.3f, p99.9 %.3f, most %.3f\n", name, latency->count, at(latency, 0.5),
         at(latency, 0.9), at(latency, 0.99), at(latency, 0.999), at(latency, 1));
}

void latency_end(struct latency *latency) {
  free(latency->ms);
  *latency = (struct latency){0};
}
