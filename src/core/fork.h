/* SPDX-License-Identifier: Apache-2.0
 *
 * Forks. This is the only file that asks to be told of them.
 *
 * What has locks registers here, once, with the rank of its locks: before a fork they are taken by rank, in the parent they are
 * released, and in the child each part puts itself right. A fork that runs no handlers (_Fork, clone) is noticed at the child's
 * next call, by a page that such a child finds empty.
 */
#ifndef DZ_FORK_H
#define DZ_FORK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/lock.h"

struct fork_part {
  enum lock_rank rank;
  void (*prepare)(void);    /* takes the locks: no malloc, no driver call, no wait for anything but these locks */
  void (*parent)(void);     /* releases them */
  void (*child)(bool held); /* makes them new; held: prepare has run, so what they protect is whole. Only memory is touched */
  struct fork_part *next;
};

/* Registers a part, which lives as long as the process; from a constructor, or under a once. */
void dz_fork_register(struct fork_part *part);

/* Whether this process has nothing to do that a fork left for its next call. */
extern __attribute__((visibility("hidden"))) atomic_int *dz_fork_cell;
enum { DZ_FORK_QUIET = 1, DZ_FORK_PENDING = 2 };
static inline bool dz_fork_quiet(void) {
  return atomic_load_explicit(dz_fork_cell, memory_order_relaxed) == DZ_FORK_QUIET;
}

/* The same, and whether it is of a generation: what a call asks that has no time for more. */
extern __attribute__((visibility("hidden"))) atomic_uint_fast64_t dz_fork_number;
static inline bool dz_fork_quiet_since(uint64_t generation) {
  return dz_fork_quiet() && atomic_load_explicit(&dz_fork_number, memory_order_relaxed) == generation;
}

/* From a part's child: there is something for the next call. dz_fork_settle() then says so, once. */
void dz_fork_pend(void);
bool dz_fork_settle(void);

/* This process's generation: never twice the same along a line of forks. Notices a fork that ran no handlers. What carries
 * another generation was inherited. */
uint64_t dz_fork_generation(void);

#endif
