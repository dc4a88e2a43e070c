/* SPDX-License-Identifier: Apache-2.0
 *
 * Ranges and bins against an oracle that looks at everything: one span, divided at random.
 */
#include "core/range.h"

#include <string.h>

#include "harness.h"

enum { RANGES = 4096, SPAN_UNITS = 1 << 20, ROUNDS = 60000, LOOKED_AT = 16 };

static struct range nodes[RANGES];
static bool used[RANGES]; /* the node is part of the span */
static struct range *first;
static struct bins bins;

static uint64_t random_state;

static uint64_t next_random(void) {
  random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  return random_state >> 20;
}

static struct range *new_node(void) {
  for (int i = 0; i < RANGES; i++) {
    if (used[i]) continue;
    used[i] = true;
    memset(&nodes[i], 0, sizeof nodes[i]);
    return &nodes[i];
  }
  return NULL;
}

static void give_node(struct range *range) {
  used[range - nodes] = false;
}

static bool in_bin(const struct range *range) {
  return range->bin_before != NULL;
}

/* The sizes that share the bin of bytes: from low up to, not with, high. */
static void bin_bounds(uint64_t bytes, uint64_t *low, uint64_t *high) {
  uint64_t units = bytes / DZ_UNIT, step = 1;
  while (units / step >= 2 * DZ_BIN_STEPS) step *= 2;
  *low = units / step * step * DZ_UNIT;
  *high = *low + step * DZ_UNIT;
}

/* What a search must find: anything from a larger bin fits, and of its own bin all are looked at if they are few. */
static void check_find(uint64_t bytes) {
  uint64_t low, high, tightest = UINT64_MAX;
  unsigned own = 0;
  bool larger = false;
  bin_bounds(bytes, &low, &high);
  for (const struct range *at = first; at != NULL; at = at->after) {
    if (!in_bin(at) || at->bytes < low) continue;
    if (at->bytes >= high) {
      larger = true;
      continue;
    }
    own++;
    if (at->bytes >= bytes && at->bytes < tightest) tightest = at->bytes;
  }
  const struct range *found = dz_bins_find(&bins, bytes);
  if (found != NULL) {
    ck_assert(in_bin(found));
    ck_assert_uint_ge(found->bytes, bytes);
  }
  if (larger) ck_assert_ptr_nonnull(found);
  if (own <= LOOKED_AT && tightest != UINT64_MAX) {
    ck_assert_ptr_nonnull(found);
    ck_assert_uint_eq(found->bytes, tightest);
  }
  if (!larger && tightest == UINT64_MAX) ck_assert_ptr_null(found);
}

/* The list covers the span without gaps, both ways. */
static void check_list(void) {
  uint64_t at = 0;
  const struct range *before = NULL;
  for (const struct range *range = first; range != NULL; before = range, range = range->after) {
    if (range->base != at || range->bytes == 0 || range->before != before) ck_abort_msg("the list breaks at %llu", at + 0ull);
    at = dz_range_end(range);
  }
  ck_assert_uint_eq(at, SPAN_UNITS * DZ_UNIT);
}

/* As a heap does: finds one, cuts off what it wants, puts the rest back. */
static void take(uint64_t bytes) {
  struct range *range = dz_bins_find(&bins, bytes), *rest = new_node();
  if (range == NULL || rest == NULL) {
    if (rest != NULL) give_node(rest);
    return;
  }
  dz_bins_drop(&bins, range);
  if (in_bin(range)) ck_abort_msg("dropped, and still in a bin");
  if (range->bytes == bytes) {
    give_node(rest);
    return;
  }
  uint64_t end = dz_range_end(range);
  dz_range_split(range, range->base + bytes, rest);
  if (range->bytes != bytes || dz_range_end(rest) != end) ck_abort_msg("cut wrong");
  dz_bins_put(&bins, rest);
}

static void give(struct range *range) {
  struct range *after = range->after, *before = range->before;
  if (after != NULL && in_bin(after)) {
    dz_bins_drop(&bins, after);
    dz_range_join(range, after);
    give_node(after);
  }
  if (before != NULL && in_bin(before)) {
    dz_bins_drop(&bins, before);
    dz_range_join(before, range);
    give_node(range);
    range = before;
  }
  dz_bins_put(&bins, range);
}

/* Sizes of every order, as bins are by powers of two. */
static uint64_t random_bytes(void) {
  return (1 + (next_random() & ((UINT64_C(1) << next_random() % 15) - 1))) * DZ_UNIT;
}

START_TEST(random_operations_agree_with_the_oracle) {
  random_state = (uint64_t)_i + 1;
  first = new_node();
  first->bytes = SPAN_UNITS * DZ_UNIT;
  dz_bins_put(&bins, first);
  for (int round = 0; round < ROUNDS; round++) {
    uint64_t bytes = random_bytes();
    if (round % 64 == 0) check_find(bytes);
    struct range *some = &nodes[next_random() % RANGES];
    if (used[some - nodes] && !in_bin(some) && next_random() % 2 == 0) {
      give(some);
    } else if (next_random() % 3 != 0) {
      take(bytes);
    }
    if (round % 256 == 0) check_list();
  }
  for (int i = 0; i < RANGES; i++) {
    if (used[i] && !in_bin(&nodes[i])) give(&nodes[i]);
  }
  ck_assert_ptr_null(first->after);
  ck_assert_uint_eq(first->bytes, SPAN_UNITS * DZ_UNIT);
  dz_bins_drop(&bins, first);
  ck_assert_uint_eq(bins.classes, 0);
  for (int class = 0; class < DZ_BIN_CLASSES; class ++) ck_assert_uint_eq(bins.steps[class], 0);
  give_node(first);
}
END_TEST

START_TEST(nothing_is_found_in_empty_bins) {
  struct bins empty = {0};
  for (unsigned shift = 9; shift < 63; shift++) ck_assert_ptr_null(dz_bins_find(&empty, UINT64_C(1) << shift));
}
END_TEST

START_TEST(every_size_is_found_again) {
  struct bins some = {0};
  for (unsigned shift = 9; shift < 62; shift++) {
    for (int off = -1; off <= 1; off++) {
      struct range range = {.bytes = (UINT64_C(1) << shift) + (uint64_t)((int64_t)off * (int64_t)DZ_UNIT)};
      if (range.bytes == 0) continue;
      dz_bins_put(&some, &range);
      ck_assert_ptr_eq(dz_bins_find(&some, range.bytes), &range);
      ck_assert_ptr_eq(dz_bins_find(&some, DZ_UNIT), &range);
      ck_assert_ptr_null(dz_bins_find(&some, range.bytes + DZ_UNIT));
      dz_bins_drop(&some, &range);
      ck_assert_ptr_null(dz_bins_find(&some, DZ_UNIT));
    }
  }
}
END_TEST

START_TEST(rounding) {
  ck_assert_uint_eq(dz_round_up(0, 512), 0);
  ck_assert_uint_eq(dz_round_up(1, 512), 512);
  ck_assert_uint_eq(dz_round_up(512, 512), 512);
  ck_assert_uint_eq(dz_round_down(1023, 512), 512);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("range");
  TCase *random_case = tcase_create("random_operations_agree_with_the_oracle");
  tcase_set_timeout(random_case, 120);
  tcase_add_loop_test(random_case, random_operations_agree_with_the_oracle, 0, 4);
  suite_add_tcase(suite, random_case);
  HARNESS_TEST(suite, nothing_is_found_in_empty_bins);
  HARNESS_TEST(suite, every_size_is_found_again);
  HARNESS_TEST(suite, rounding);
  return harness_run(suite);
}
