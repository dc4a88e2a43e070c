/* SPDX-License-Identifier: Apache-2.0
 *
 * What one round of drowse cycle has measured, and showing it.
 */
#ifndef DZ_REPORT_H
#define DZ_REPORT_H

#include <jansson.h>

#include "job.h"

struct tag_result {
  uint64_t mapped_before, mapped_asleep, mapped_after; /* device memory of the tag */
  uint64_t backup_bytes;                               /* host memory, asleep */
  double wake_seconds;
  bool slept; /* asleep after the sleep, with nothing left mapped; a kept tag: awake and still mapped */
  size_t bad_blocks;
};

struct round {
  unsigned number, count; /* 1 of count */
  char device[64];
  uint64_t total_bytes, free_before, free_asleep, free_after; /* the device's memory */
  double sleep_seconds;                                       /* of the call: it takes all tags or none */
  struct tag_result *tags;                                    /* as many as the job has */
};

/* "whole", "writable" for a discarded tag, or what is wrong. */
const char *dz_verdict(const struct tag *tag, const struct tag_result *result);

/* Whether nothing is wrong with any tag. */
bool dz_round_whole(const struct job *job, const struct round *round);

/* Prints the round as a table; false, and says so, if it cannot. */
bool dz_round_print(const struct job *job, const struct round *round);

/* The round as JSON; NULL: no memory. */
json_t *dz_round_json(const struct job *job, const struct round *round);

#endif
