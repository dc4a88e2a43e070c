/* SPDX-License-Identifier: Apache-2.0
 *
 * What the tests of the arena share: one, and a look at what is left when it ends.
 */
#ifndef TESTS_ARENA_H
#define TESTS_ARENA_H

#include <semaphore.h>

#include "backup/arena.h"
#include "fixture.h"

/* What grow.c pins, and touches, at a time. */
#define PIECE (256 * MIB)
#define SLICE (16 * MIB)

static struct arena arena;
static uint64_t ends_at; /* what is mapped there must be gone when the arena has ended; 0: nowhere */

static inline void start_with(uint64_t limit, int node) {
  open_device();
  ends_at = 0;
  ck_assert_int_eq(dz_arena_init(&arena, &driver, limit, context, node), 0);
}

static inline void start(void) {
  start_with(0, -1);
}

static inline void finish(void) {
  ck_assert(dz_arena_end(&arena));
  if (ends_at != 0) ck_assert(!is_mapped(ends_at));
  close_device();
}

static inline struct range *grow(uint64_t bytes) {
  struct range *space = NULL;
  ck_ok(dz_arena_grow(&arena, bytes, &space));
  ck_assert_ptr_nonnull(space);
  return space;
}

/* What the arena says that it has, beside what the driver says. */
static inline void ck_stats(uint64_t mapped, uint64_t used, uint64_t pinned, uint64_t pageable) {
  struct arena_stats stats;
  dz_arena_stats(&arena, &stats);
  ck_assert_uint_eq(stats.mapped_bytes, mapped);
  ck_assert_uint_eq(stats.used_bytes, used);
  ck_assert_uint_eq(stats.pinned_bytes, pinned);
  ck_assert_uint_eq(stats.pageable_bytes, pageable);
  ck_assert_uint_le(stats.huge_bytes, pinned + pageable);
  ck_assert_uint_eq(registered_bytes(), pinned);
}

/* ---- a gate, to which an arena's thread comes before it touches anything, and before it pins anything */

static sem_t arrived, passed;

static inline void stand(void) {
  (void)sem_post(&arrived);
  while (sem_wait(&passed) != 0) continue;
}

static inline void await_arrival(void) {
  while (sem_wait(&arrived) != 0) continue;
}

static inline void let_pass(void) {
  (void)sem_post(&passed);
}

static inline CUresult stand_before_touching(CUcontext wanted) {
  stand();
  return device.driver.CtxSetCurrent(wanted);
}

static inline CUresult stand_before_pinning(void *host, size_t bytes, unsigned int flags) {
  stand();
  return device.driver.MemHostRegister(host, bytes, flags);
}

static inline void start_gated(uint64_t limit) {
  ck_assert_int_eq(sem_init(&arrived, 0, 0), 0);
  ck_assert_int_eq(sem_init(&passed, 0, 0), 0);
  start_with(limit, -1);
}

static inline void start_at_gate(void) {
  start_gated(0);
}

static inline uint64_t random_below(uint64_t *state, uint64_t bound) {
  *state = *state * UINT64_C(6364136223846793005) + 1;
  return (*state >> 33) % bound;
}

#endif
