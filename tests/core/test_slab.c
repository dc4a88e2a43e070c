/* SPDX-License-Identifier: Apache-2.0
 *
 * Nodes, taken, given back and reserved.
 */
#include "core/slab.h"

#include <stdint.h>
#include <string.h>

#include "harness.h"

enum { NODE = 40, MANY = 20000 };

static struct slab slab;

static bool holds(const unsigned char *node, unsigned char value) {
  for (unsigned at = 0; at < NODE; at++) {
    if (node[at] != value) return false;
  }
  return true;
}

static void start(void) {
  dz_slab_init(&slab, NODE);
}

static void finish(void) {
  dz_slab_end(&slab);
  ck_assert_ptr_null(slab.pages);
}

START_TEST(nodes_are_apart_aligned_and_zero) {
  static unsigned char *nodes[MANY];
  for (unsigned i = 0; i < MANY; i++) {
    nodes[i] = dz_slab_take(&slab);
    if (nodes[i] == NULL || (uintptr_t)nodes[i] % 16 != 0 || !holds(nodes[i], 0)) ck_abort_msg("node %u", i);
    memset(nodes[i], (int)(i % 251 + 1), NODE);
  }
  for (unsigned i = 0; i < MANY; i++) {
    if (!holds(nodes[i], (unsigned char)(i % 251 + 1))) ck_abort_msg("node %u is another's too", i);
    dz_slab_give(&slab, nodes[i]);
  }
  unsigned char *again = dz_slab_take(&slab);
  ck_assert(holds(again, 0));
  dz_slab_give(&slab, again);
}
END_TEST

static size_t at_hand(void) {
  return slab.free_count + slab.fresh_count;
}

START_TEST(reserved_nodes_are_left_alone) {
  ck_assert(dz_slab_reserve(&slab, 100));
  size_t reserved = at_hand();
  ck_assert_uint_ge(reserved, 100);
  for (size_t i = 0; i < reserved; i++) {
    if (dz_slab_take(&slab) == NULL || at_hand() < 100) ck_abort_msg("take %zu: %zu are left", i, at_hand());
  }
  const struct slab_page *pages = slab.pages;
  for (int i = 0; i < 100; i++) ck_assert_ptr_nonnull(dz_slab_take_reserved(&slab));
  ck_assert_uint_eq(slab.kept, 0);
  ck_assert_ptr_eq(slab.pages, pages); /* they were there: nothing had to be mapped */
}
END_TEST

START_TEST(reservations_add_up) {
  ck_assert(dz_slab_reserve(&slab, 3));
  ck_assert(dz_slab_reserve(&slab, 50000));
  ck_assert_uint_eq(slab.kept, 50003);
  ck_assert_uint_ge(at_hand(), 50003);
  const struct slab_page *pages = slab.pages;
  for (int i = 0; i < 50003; i++) {
    if (dz_slab_take_reserved(&slab) == NULL) ck_abort_msg("take %d", i);
  }
  ck_assert_uint_eq(slab.kept, 0);
  ck_assert_ptr_eq(slab.pages, pages);
}
END_TEST

#define SLAB_TEST(suite, test)                           \
  do {                                                   \
    TCase *test_case = tcase_create(#test);              \
    tcase_add_checked_fixture(test_case, start, finish); \
    tcase_set_timeout(test_case, 120);                   \
    tcase_add_test(test_case, test);                     \
    suite_add_tcase(suite, test_case);                   \
  } while (0)

int main(void) {
  Suite *suite = suite_create("slab");
  SLAB_TEST(suite, nodes_are_apart_aligned_and_zero);
  SLAB_TEST(suite, reserved_nodes_are_left_alone);
  SLAB_TEST(suite, reservations_add_up);
  return harness_run(suite);
}
