/* SPDX-License-Identifier: Apache-2.0
 *
 * Trimming the arena: no unused page is left, no used byte changes, and what is left is pinned as far as the driver lets.
 */
#include "arena_fixture.h"

/* A space and the number that its bytes were made of. */
struct filled {
  struct range *space;
  uint64_t seed;
};

static void fill(struct filled *filled, struct range *space, uint64_t seed) {
  *filled = (struct filled){space, seed};
  ck_ok(dz_arena_wait(&arena, space, space->bytes));
  uint64_t *words = dz_space_memory(space);
  for (uint64_t i = 0; i < space->bytes / sizeof *words; i++) words[i] = seed * UINT64_C(0x9e3779b97f4a7c15) + i;
}

static void ck_filled(const struct filled *filled) {
  const uint64_t *words = dz_space_memory(filled->space);
  for (uint64_t i = 0; i < filled->space->bytes / sizeof *words; i++) {
    if (words[i] != filled->seed * UINT64_C(0x9e3779b97f4a7c15) + i) ck_abort_msg("byte %d of a space", (int)(i * sizeof *words));
  }
}

/* ---- whole chunks */

START_TEST(what_is_unused_goes_whole) {
  static const uint64_t sizes[] = {4096, 3 * MIB, PIECE + MIB};
  uint64_t bases[3];
  struct range *spaces[3];
  for (int i = 0; i < 3; i++) {
    spaces[i] = grow(sizes[i]);
    bases[i] = spaces[i]->base;
    ck_ok(dz_arena_wait(&arena, spaces[i], sizes[i]));
  }
  ck_ok(dz_arena_trim(&arena, 0));
  ck_stats(PIECE + 4 * MIB + 4096, PIECE + 4 * MIB + 4096, PIECE + 4 * MIB + 4096, 0); /* all is used */
  for (int i = 0; i < 3; i++) dz_arena_give(&arena, spaces[i]);
  ck_ok(dz_arena_trim(&arena, UINT64_MAX));
  ck_stats(PIECE + 4 * MIB + 4096, 0, PIECE + 4 * MIB + 4096, 0);
  ck_ok(dz_arena_trim(&arena, 0));
  ck_stats(0, 0, 0, 0);
  for (int i = 0; i < 3; i++) ck_assert(!is_mapped(bases[i]) && !is_mapped(bases[i] + sizes[i] - 1));
  ck_assert_ptr_null(dz_arena_take(&arena, 512));
  ck_assert_ptr_null(arena.chunks);
}
END_TEST

static void *give_and_trim(void *space) {
  (void)device.driver.CtxSetCurrent(context);
  dz_arena_give(&arena, space);
  drowse_status status = dz_arena_trim(&arena, 0);
  (void)device.driver.CtxSetCurrent(NULL);
  return (void *)(intptr_t)status;
}

static atomic_bool gate_open;

static CUresult await_gate(void *host, size_t bytes, unsigned int flags) {
  while (!gate_open) (void)sched_yield();
  return device.driver.MemHostRegister(host, bytes, flags);
}

START_TEST(growth_ends_first) {
  pthread_t trimmer;
  void *status;
  gate_open = false;
  driver.MemHostRegister = await_gate;
  struct range *space = grow(4 * MIB);
  uint64_t base = space->base;
  ck_assert_int_eq(pthread_create(&trimmer, NULL, give_and_trim, space), 0);
  gate_open = true;
  ck_assert_int_eq(pthread_join(trimmer, &status), 0);
  ck_assert_int_eq((drowse_status)(intptr_t)status, DROWSE_OK);
  ck_stats(0, 0, 0, 0);
  ck_assert(!is_mapped(base));
}
END_TEST

/* ---- parts of chunks */

/* A chunk of five parts, of which the first, the third and the last are used. */
static struct filled first, third, last;
static uint64_t gap_base, gap_end, other_base, other_end;

static void make_holes(uint64_t used, uint64_t unused) {
  struct range *space = grow(3 * used + 2 * unused);
  struct range *gap = dz_arena_cut(&arena, space, used), *middle = dz_arena_cut(&arena, gap, unused);
  struct range *other = dz_arena_cut(&arena, middle, used), *end = dz_arena_cut(&arena, other, unused);
  if (end->bytes > used) dz_arena_give(&arena, dz_arena_cut(&arena, end, used));
  fill(&first, space, 1);
  fill(&third, middle, 3);
  fill(&last, end, 5);
  gap_base = gap->base;
  gap_end = middle->base;
  other_base = other->base;
  other_end = end->base;
  dz_arena_give(&arena, gap);
  dz_arena_give(&arena, other);
}

static void ck_holes_filled(void) {
  ck_filled(&first);
  ck_filled(&third);
  ck_filled(&last);
}

/* The pages of a gap: all that lie in it whole. */
static void ck_gap(uint64_t base, uint64_t end) {
  uint64_t page = dz_page_bytes(), at = dz_round_up(base, page);
  for (; at + page <= end; at += page) ck_assert(!is_mapped(at));
  ck_assert(is_mapped(base - 1) && is_mapped(end));
}

static void use_up(struct filled *filled) {
  dz_arena_give(&arena, filled->space);
  filled->space = NULL;
}

START_TEST(unused_parts_go_and_used_ones_are_left_as_they_were) {
  make_holes(MIB, 2 * MIB);
  ck_stats(7 * MIB, 3 * MIB, 7 * MIB, 0);
  ck_ok(dz_arena_trim(&arena, 0));
  ck_stats(3 * MIB, 3 * MIB, 3 * MIB, 0);
  ck_gap(gap_base, gap_end);
  ck_gap(other_base, other_end);
  ck_holes_filled();
  ck_assert(dz_space_is_pinned(first.space, 0) && dz_space_is_pinned(third.space, 0) && dz_space_is_pinned(last.space, MIB - 1));
  ck_assert_uint_eq(dz_space_piece(first.space, 512), MIB - 512);
  ck_assert_uint_eq(dz_space_piece(third.space, 0), MIB);
  ck_ok(dz_arena_trim(&arena, 0)); /* nothing more */
  ck_stats(3 * MIB, 3 * MIB, 3 * MIB, 0);
  use_up(&third);
  ck_ok(dz_arena_wait(&arena, last.space, MIB)); /* ready as before */
  ck_ok(dz_arena_trim(&arena, 0));
  ck_filled(&first);
  ck_filled(&last);
  use_up(&first);
  use_up(&last);
  ck_ok(dz_arena_trim(&arena, 0));
  ck_stats(0, 0, 0, 0);
  ck_assert_ptr_null(arena.chunks);
}
END_TEST

/* Gaps that do not begin and end at pages: pages of which a part is used stay, and their free parts can still be had. */
START_TEST(pages_that_are_used_in_part_stay) {
  uint64_t page = dz_page_bytes();
  make_holes(5 * 512, 2 * page);
  uint64_t mapped = arena.mapped_bytes;
  ck_ok(dz_arena_trim(&arena, 0));
  ck_holes_filled();
  ck_gap(gap_base, gap_end);
  ck_gap(other_base, other_end);
  ck_stats(mapped - 2 * page, 15 * 512, mapped - 2 * page, 0);
  uint64_t free_bytes = arena.free_bytes, found = 0;
  for (struct range *part; (part = dz_arena_take(&arena, 512)) != NULL; found += 512) memset(dz_space_memory(part), 9, 512);
  ck_assert_uint_eq(found, free_bytes);
  ck_holes_filled();
}
END_TEST

/* A gap across three pieces, the middle one wholly in it. */
START_TEST(gaps_lie_across_pieces) {
  make_holes(PIECE / 2, 2 * PIECE);
  ck_ok(dz_arena_trim(&arena, 0));
  ck_stats(PIECE / 2 * 3, PIECE / 2 * 3, PIECE / 2 * 3, 0);
  ck_assert(!is_mapped(gap_base) && !is_mapped(gap_end - 1) && !is_mapped(other_base) && !is_mapped(other_end - 1));
  ck_holes_filled();
  for (uint64_t at = 0; at < PIECE / 2; at += dz_space_piece(third.space, at)) ck_assert(dz_space_is_pinned(third.space, at));
}
END_TEST

/* Each in its turn is made a hole's neighbour again: joins must not go across what is gone. */
START_TEST(what_is_given_back_beside_a_gap_is_not_joined_across) {
  make_holes(MIB, 2 * MIB);
  ck_ok(dz_arena_trim(&arena, 0));
  use_up(&first);
  use_up(&third);
  use_up(&last);
  ck_assert_ptr_null(dz_arena_take(&arena, MIB + 512));
  for (int i = 0; i < 3; i++) {
    struct range *space = dz_arena_take(&arena, MIB);
    ck_assert_ptr_nonnull(space);
    memset(dz_space_memory(space), 1, MIB);
  }
  ck_assert_ptr_null(dz_arena_take(&arena, 512));
}
END_TEST

START_TEST(as_much_as_is_to_be_kept_is_kept) {
  static const uint64_t keeps[] = {9 * MIB, 8 * MIB, 7 * MIB + 512, 3 * MIB, 3 * MIB, 4096, 511, 0};
  make_holes(MIB, 4 * MIB);
  uint64_t before = arena.free_bytes;
  for (size_t i = 0; i < sizeof keeps / sizeof *keeps; i++) {
    uint64_t kept = keeps[i] < before ? dz_round_down(keeps[i], dz_page_bytes()) : before;
    ck_ok(dz_arena_trim(&arena, keeps[i]));
    ck_assert_uint_eq(arena.free_bytes, kept);
    ck_stats(3 * MIB + kept, 3 * MIB, 3 * MIB + kept, 0);
    ck_holes_filled();
  }
}
END_TEST

/* ---- against an oracle: of every page is known whether it is used */

enum { SPACES = 300, TRIMS = 12 };
static struct filled many[SPACES];

static bool is_page_used(uint64_t page) {
  for (int i = 0; i < SPACES; i++) {
    const struct range *space = many[i].space;
    if (space != NULL && space->base < page + dz_page_bytes() && page < dz_range_end(space)) return true;
  }
  return false;
}

static void ck_pages(uint64_t base, uint64_t bytes) {
  uint64_t used = 0;
  for (uint64_t at = base; at < base + bytes; at += dz_page_bytes()) {
    bool is_used = is_page_used(at);
    if (is_used) used += dz_page_bytes();
    if (is_used != is_mapped(at))
      ck_abort_msg("page %d is %s", (int)((at - base) / dz_page_bytes()), is_used ? "used" : "unused");
  }
  ck_assert_uint_eq(arena.mapped_bytes, used);
  ck_stats(used, arena.used_bytes, used, 0);
}

START_TEST(no_unused_page_is_left_and_no_used_byte_changes) {
  uint64_t state = 1, base = 0, bytes;
  struct range *rest = grow(8 * MIB);
  base = rest->base;
  bytes = rest->bytes;
  for (int i = 0; i < SPACES; i++) {
    struct range *space = rest;
    ck_assert_ptr_nonnull(rest = dz_arena_cut(&arena, space, (1 + random_below(&state, i % 4 == 0 ? 120 : 12)) * 512));
    fill(&many[i], space, (unsigned)i + 1);
  }
  dz_arena_give(&arena, rest);
  for (int trims = 0; trims < TRIMS; trims++) {
    for (int i = 0; i < SPACES; i++) {
      if (many[i].space == NULL || random_below(&state, 4) != 0) continue;
      use_up(&many[i]);
    }
    ck_ok(dz_arena_trim(&arena, 0));
    ck_pages(base, bytes);
    for (int i = 0; i < SPACES; i++) {
      if (many[i].space != NULL) ck_filled(&many[i]);
    }
  }
}
END_TEST

/* ---- what is refused */

START_TEST(what_the_driver_does_not_unpin_stays) {
  make_holes(MIB, 2 * MIB);
  driver.MemHostUnregister = refuse_to_unpin;
  ck_status(dz_arena_trim(&arena, 0), DROWSE_ERR_DRIVER);
  ck_stats(7 * MIB, 3 * MIB, 7 * MIB, 0);
  ck_assert(is_mapped(gap_base) && is_mapped(other_base));
  ck_holes_filled();
  struct range *space = dz_arena_take(&arena, 2 * MIB); /* and serves on */
  ck_assert_ptr_nonnull(space);
  dz_arena_give(&arena, space);
  driver.MemHostUnregister = device.driver.MemHostUnregister;
  ck_ok(dz_arena_trim(&arena, 0));
  ck_stats(3 * MIB, 3 * MIB, 3 * MIB, 0);
  ck_holes_filled();
}
END_TEST

static void *stubborn; /* one that is not unpinned */

static CUresult refuse_to_unpin_one(void *host) {
  return host == stubborn ? CUDA_ERROR_INVALID_VALUE : device.driver.MemHostUnregister(host);
}

/* The gap lies in two pieces, of which one is unpinned, and then pinned again. */
START_TEST(a_piece_that_is_not_unpinned_keeps_its_gaps_alone) {
  struct range *space = grow(3 * PIECE), *gap = dz_arena_cut(&arena, space, PIECE - MIB),
               *end = dz_arena_cut(&arena, gap, 2 * MIB);
  fill(&first, space, 1);
  fill(&last, end, 5);
  stubborn = (void *)(uintptr_t)(space->base + PIECE);
  dz_arena_give(&arena, gap);
  dz_arena_give(&arena, grow(MIB));
  driver.MemHostUnregister = refuse_to_unpin_one;
  ck_status(dz_arena_trim(&arena, 0), DROWSE_ERR_DRIVER);
  ck_stats(3 * PIECE, 3 * PIECE - 2 * MIB, 3 * PIECE, 0);
  ck_filled(&first);
  ck_filled(&last);
  driver.MemHostUnregister = device.driver.MemHostUnregister;
  ck_ok(dz_arena_trim(&arena, 0));
  ck_stats(3 * PIECE - 2 * MIB, 3 * PIECE - 2 * MIB, 3 * PIECE - 2 * MIB, 0);
}
END_TEST

START_TEST(what_cannot_be_pinned_anew_is_pageable) {
  listen();
  make_holes(MIB, 2 * MIB);
  driver.MemHostRegister = refuse_to_pin;
  ck_ok(dz_arena_trim(&arena, 0));
  ck_stats(3 * MIB, 3 * MIB, 0, 3 * MIB);
  ck_assert_uint_gt(warnings, 0);
  ck_assert(!dz_space_is_pinned(first.space, 0) && !dz_space_is_pinned(third.space, 0));
  ck_holes_filled();
  driver.MemHostRegister = device.driver.MemHostRegister;
  use_up(&third);
  ck_ok(dz_arena_trim(&arena, 0)); /* what is pageable goes as well */
  ck_stats(2 * MIB, 2 * MIB, 0, 2 * MIB);
}
END_TEST

START_TEST(what_the_kernel_does_not_unmap_stays) {
  make_holes(MIB, 2 * MIB);
  unmap_refused = true;
  ck_status(dz_arena_trim(&arena, 0), DROWSE_ERR_SYSTEM);
  unmap_refused = false;
  ck_stats(7 * MIB, 3 * MIB, 7 * MIB, 0);
  ck_holes_filled();
  ck_ok(dz_arena_trim(&arena, 0));
  ck_stats(3 * MIB, 3 * MIB, 3 * MIB, 0);
}
END_TEST

/* All nodes of the slab's first page are taken, and there is no second one. */
START_TEST(without_memory_for_metadata_nothing_goes) {
  struct range *unused = grow(MIB), *space = grow(16 * MIB);
  ck_ok(dz_arena_wait(&arena, space, space->bytes));
  refused_size = 4096;
  while (dz_arena_cut(&arena, space, space->bytes - 512) != NULL) continue;
  fill(&first, space, 1);
  dz_arena_give(&arena, unused);
  ck_status(dz_arena_trim(&arena, 0), DROWSE_ERR_NO_HOST_MEMORY);
  ck_stats(17 * MIB, 16 * MIB, 17 * MIB, 0);
  refused_size = 0;
  ck_ok(dz_arena_trim(&arena, 0));
  ck_stats(16 * MIB, 16 * MIB, 16 * MIB, 0);
  ck_filled(&first);
}
END_TEST

static atomic_int unpins_allowed;

static CUresult unpin_some(void *host) {
  return atomic_fetch_sub(&unpins_allowed, 1) > 0 ? device.driver.MemHostUnregister(host) : CUDA_ERROR_INVALID_VALUE;
}

/* Whatever call is refused: nothing that is used changes, and the next trim takes all. */
START_TEST(refusals_one_after_another) {
  for (int allowed = 0; allowed < 6; allowed++) {
    make_holes(PIECE / 2, PIECE / 2);
    unpins_allowed = allowed;
    driver.MemHostUnregister = unpin_some;
    drowse_status status = dz_arena_trim(&arena, 0);
    ck_assert_int_eq(status == DROWSE_OK, unpins_allowed >= 0);
    ck_holes_filled();
    driver.MemHostUnregister = device.driver.MemHostUnregister;
    ck_ok(dz_arena_trim(&arena, 0));
    ck_stats(PIECE / 2 * 3, PIECE / 2 * 3, PIECE / 2 * 3, 0);
    ck_holes_filled();
    use_up(&first);
    use_up(&third);
    use_up(&last);
    ck_ok(dz_arena_trim(&arena, 0));
    ck_stats(0, 0, 0, 0);
  }
}
END_TEST

/* ---- huge pages that are cut are counted no longer */

START_TEST(cut_huge_pages_are_not_counted) {
  struct arena_stats stats;
  struct range *space = grow(8 * MIB), *gap = dz_arena_cut(&arena, space, MIB), *end = dz_arena_cut(&arena, gap, 2 * MIB);
  fill(&first, space, 1);
  fill(&last, end, 5);
  uint64_t base = space->base;
  dz_arena_give(&arena, gap);
  ck_ok(dz_arena_trim(&arena, 0));
  dz_arena_stats(&arena, &stats);
  ck_assert_uint_eq(stats.huge_bytes, proc_bytes("/proc/self/smaps", "AnonHugePages", base, base + 8 * MIB));
  ck_assert_uint_le(stats.huge_bytes, 4 * MIB);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("trim");
  BACKUP_TEST(suite, what_is_unused_goes_whole, start);
  BACKUP_TEST(suite, growth_ends_first, start);
  BACKUP_TEST(suite, unused_parts_go_and_used_ones_are_left_as_they_were, start);
  BACKUP_TEST(suite, pages_that_are_used_in_part_stay, start);
  BACKUP_TEST(suite, gaps_lie_across_pieces, start);
  BACKUP_TEST(suite, what_is_given_back_beside_a_gap_is_not_joined_across, start);
  BACKUP_TEST(suite, as_much_as_is_to_be_kept_is_kept, start);
  BACKUP_TEST(suite, no_unused_page_is_left_and_no_used_byte_changes, start);
  BACKUP_TEST(suite, what_the_driver_does_not_unpin_stays, start);
  BACKUP_TEST(suite, a_piece_that_is_not_unpinned_keeps_its_gaps_alone, start);
  BACKUP_TEST(suite, what_cannot_be_pinned_anew_is_pageable, start);
  BACKUP_TEST(suite, what_the_kernel_does_not_unmap_stays, start);
  BACKUP_TEST(suite, without_memory_for_metadata_nothing_goes, start);
  BACKUP_TEST(suite, refusals_one_after_another, start);
  BACKUP_TEST(suite, cut_huge_pages_are_not_counted, start);
  return harness_run(suite);
}
