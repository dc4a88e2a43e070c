/* SPDX-License-Identifier: Apache-2.0
 *
 * The copy pipeline: what lies in a row on both sides, and what only seems to. The program is linked so that mappings for backups
 * come here (--wrap).
 */
#include "fixture.h"

#include <errno.h>
#include <unistd.h>

#include "backup/pages.h"

/* Chunks of the arena get what is left of one mapping, from its end on downwards, so that each ends where the one before begins.
 */
static uint64_t room_base, room_bytes;

static uint64_t refused_bytes; /* mappings of just this size fail */

int __real_dz_pages_map(uint64_t bytes, int numa_node, uint64_t *base);
int __wrap_dz_pages_map(uint64_t bytes, int numa_node, uint64_t *base);
int __wrap_dz_pages_map(uint64_t bytes, int numa_node, uint64_t *base) {
  if (bytes == refused_bytes) return ENOMEM;
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

/* The limit and the machine have room, and still the memory is not to be had. */
START_TEST(what_the_host_refuses_goes_to_the_file) {
  char directory[] = "drowse-test-XXXXXX";
  ck_assert_ptr_nonnull(mkdtemp(directory));
  start();
  void *block = alloc_tag("a", 3 * MIB);
  write_pattern(block, 3 * MIB, 1);
  refused_bytes = 3 * MIB;
  drowse_sleep_options options = {.struct_size = sizeof options, .backup = DROWSE_BACKUP_HOST_THEN_FILE, .directory = directory};
  ck_ok(drowse_sleep(heap, &(drowse_rule){.action = DROWSE_OFFLOAD}, 1, &options));
  refused_bytes = 0;
  ck_assert_uint_eq(stats_of("a").file_bytes, 3 * MIB);
  ck_ok(wake_tag("a"));
  ck_assert(has_pattern(block, 3 * MIB, 1));
  close_heap();
  ck_assert_int_eq(rmdir(directory), 0);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("copy");
  HARNESS_TEST(suite, neighbours_in_two_chunks_are_no_row);
  HARNESS_TEST(suite, what_the_host_refuses_goes_to_the_file);
  return harness_run(suite);
}
