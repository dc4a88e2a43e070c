/* SPDX-License-Identifier: Apache-2.0
 *
 * What the tests of the arena share: one, and a look at what is left when it ends.
 */
#ifndef TESTS_ARENA_H
#define TESTS_ARENA_H

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
  ck_assert_uint_eq(dz_arena_pinned_bytes(&arena), pinned);
  ck_assert_uint_eq(registered_bytes(), pinned);
}

static inline uint64_t random_below(uint64_t *state, uint64_t bound) {
  *state = *state * UINT64_C(6364136223846793005) + 1;
  return (*state >> 33) % bound;
}

#endif
