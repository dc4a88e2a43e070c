/* SPDX-License-Identifier: Apache-2.0
 *
 * The copy pipeline: what lies in a row on both sides, and what only seems to. The program is linked so that mappings for backups
 * come here (--wrap).
 */
#include "fixture.h"

#include "backup/pages.h"

/* Chunks of the arena get what is left of one mapping, from its end on downwards, so that each ends where the one before begins. */
static uint64_t room_base, room_bytes;

int __real_dz_pages_map(uint64_t bytes, int numa_node, uint64_t *base);
int __wrap_dz_pages_map(uint64_t bytes, int numa_node, uint64_t *base);
int __wrap_dz_pages_map(uint64_t bytes, int numa_node, uint64_t *base) {
  if (bytes > room_bytes) return __real_dz_pages_map(bytes, numa_node, base);
  room_bytes -= bytes;
  *base = room_base + room_bytes;
  return 0;
}

/* The first block's backup is at the end of one chunk, the second's at the beginning of the next. */
START_TEST(neighbours_in_two_chunks_are_no_row) {
  ck_assert_int_eq(__real_dz_pages_map(6 * MIB, -1, &room_base), 0);
  room_bytes = 6 * MIB;
  start();
  (void)alloc_tag("b", 2 * MIB);
  ck_ok(sleep_tag("b", DROWSE_OFFLOAD));
  ck_ok(wake_tag("b"));
  char *first = alloc_tag("a", 4 * MIB), *second = alloc_tag("a", 2 * MIB);
  ck_assert_ptr_eq(second, first + 4 * MIB);
  write_pattern(first, 4 * MIB, 1);
  write_pattern(second, 2 * MIB, 2);
  ck_ok(sleep_tag("a", DROWSE_OFFLOAD));
  ck_assert_uint_eq(room_bytes, 0);
  ck_assert(has_pattern(first, 4 * MIB, 1) && has_pattern(second, 2 * MIB, 2));
  ck_ok(wake_tag("a"));
  ck_assert(has_pattern(first, 4 * MIB, 1) && has_pattern(second, 2 * MIB, 2));
  close_heap();
}
END_TEST

int main(void) {
  Suite *suite = suite_create("copy");
  HARNESS_TEST(suite, neighbours_in_two_chunks_are_no_row);
  return harness_run(suite);
}
