/* SPDX-License-Identifier: Apache-2.0
 *
 * What a heap tells about itself: statistics, tags, blocks.
 */
#include "fixture.h"

START_TEST(statistics_of_a_tag) {
  drowse_stats zero = {.struct_size = sizeof zero};
  drowse_stats stats = stats_of(NULL);
  ck_assert_uint_gt(stats.metadata_bytes, 0);
  stats.metadata_bytes = 0;
  ck_assert_mem_eq(&stats, &zero, sizeof zero);
  (void)alloc_tag("a", 1);
  (void)alloc_tag("a", 513);
  (void)alloc_tag("a", 3 * MIB);
  stats = stats_of("a");
  ck_assert_uint_eq(stats.live_bytes, 512 + 1024 + 3 * MIB);
  ck_assert_uint_eq(stats.live_blocks, 3);
  ck_assert_uint_eq(stats.mapped_bytes, 2 * MIB + 4 * MIB); /* small ones have an extent of their own */
  ck_assert_uint_eq(stats.mapped_bytes, 64 * MIB - device_free_bytes());
  ck_assert_uint_eq(stats.reserved_bytes, 2 * 64 * MIB);
  ck_assert_uint_eq(stats.backup_bytes, 0);
  ck_assert_int_eq(stats.state, DROWSE_AWAKE);
}
END_TEST

START_TEST(statistics_through_sleep_and_wake) {
  (void)alloc_tag("a", 5 * MIB);
  (void)alloc_tag("b", 3 * MIB);
  ck_ok(drowse_sleep(heap, (drowse_rule[]){{.tag = "a", .action = DROWSE_OFFLOAD}, {.tag = "b", .action = DROWSE_DISCARD}}, 2,
                     NULL));
  drowse_stats a = stats_of("a"), b = stats_of("b"), sum = stats_of(NULL);
  ck_assert_int_eq(a.state, DROWSE_ASLEEP);
  ck_assert_uint_eq(a.mapped_bytes, 0);
  ck_assert_uint_eq(a.live_bytes, 5 * MIB);
  ck_assert_uint_eq(a.backup_bytes, 5 * MIB);
  ck_assert_uint_eq(a.discarded_bytes, 0);
  ck_assert_uint_eq(a.sleeps, 1);
  ck_assert_uint_eq(b.backup_bytes, 0);
  ck_assert_uint_eq(b.discarded_bytes, 3 * MIB);
  ck_assert_uint_eq(sum.backup_bytes, 5 * MIB);
  ck_assert_uint_eq(sum.discarded_bytes, 3 * MIB);
  ck_assert_uint_ge(sum.pinned_bytes, 5 * MIB);
  ck_assert_uint_eq(a.pinned_bytes, 0);
  ck_assert_uint_eq(sum.sleeps, 1);
  ck_assert_int_eq(sum.state, DROWSE_ASLEEP);
  ck_ok(sleep_tag("a", DROWSE_OFFLOAD)); /* asleep already */
  ck_ok(sleep_tag("a", DROWSE_DISCARD)); /* only the backup goes */
  ck_assert_uint_eq(stats_of("a").sleeps, 1);
  ck_assert_uint_eq(stats_of("a").discarded_bytes, 5 * MIB);
  ck_assert_uint_eq(stats_of(NULL).sleeps, 1);
  ck_ok(wake_all_tags());
  ck_ok(wake_all_tags());
  a = stats_of("a");
  sum = stats_of(NULL);
  ck_assert_uint_eq(a.mapped_bytes, 6 * MIB);
  ck_assert_uint_eq(a.backup_bytes + a.discarded_bytes, 0);
  ck_assert_uint_eq(a.wakes, 1);
  ck_assert_uint_eq(sum.wakes, 1);
  ck_assert_int_eq(sum.state, DROWSE_AWAKE);
  ck_assert_uint_eq(sum.backup_bytes, 0);
}
END_TEST

START_TEST(holds_are_counted) {
  (void)alloc_tag("a", 1);
  (void)alloc_tag("b", 1);
  for (int i = 0; i < 3; i++) ck_ok(drowse_hold(heap, "a", -1));
  ck_ok(drowse_hold(heap, "b", 0));
  ck_assert_uint_eq(stats_of("a").holds, 3);
  ck_assert_uint_eq(stats_of(NULL).holds, 4);
  ck_ok(drowse_unhold(heap, "a"));
  ck_assert_uint_eq(stats_of("a").holds, 2);
}
END_TEST

START_TEST(statistics_are_cut_to_the_caller_s_size) {
  drowse_stats stats;
  (void)alloc_tag("a", 1);
  memset(&stats, 0x5a, sizeof stats);
  stats.struct_size = offsetof(drowse_stats, mapped_bytes);
  ck_ok(drowse_stats_get(heap, "a", &stats));
  ck_assert_uint_eq(stats.live_blocks, 1);
  ck_assert_uint_eq(stats.mapped_bytes, UINT64_C(0x5a5a5a5a5a5a5a5a));
  stats.struct_size = 0;
  ck_status(drowse_stats_get(heap, "a", &stats), DROWSE_ERR_INVALID);
  ck_status(drowse_stats_get(heap, "a", NULL), DROWSE_ERR_INVALID);
  stats.struct_size = sizeof stats;
  ck_status(drowse_stats_get(NULL, "a", &stats), DROWSE_ERR_INVALID);
  ck_status(drowse_stats_get(heap, "b", &stats), DROWSE_ERR_NOT_FOUND);
  ck_says("\"b\"");
  ck_assert_ptr_nonnull(drowse_tag_get("c"));
  ck_status(drowse_stats_get(heap, "c", &stats), DROWSE_ERR_NOT_FOUND); /* a name, but not of this heap */
  ck_status(drowse_stats_get(heap, "", &stats), DROWSE_ERR_NOT_FOUND);
}
END_TEST

/* ---- tags */

struct seen {
  int count, stop_at;
  char names[128];
  drowse_stats sum;
};

static int see(void *context, const char *tag, const drowse_stats *stats) {
  struct seen *seen = context;
  drowse_stats again = stats_of(tag); /* it may call drowse */
  ck_assert_mem_eq(stats, &again, sizeof again);
  (void)strncat(seen->names, tag, sizeof seen->names - strlen(seen->names) - 1);
  seen->sum.live_bytes += stats->live_bytes;
  seen->sum.live_blocks += stats->live_blocks;
  seen->sum.mapped_bytes += stats->mapped_bytes;
  seen->sum.reserved_bytes += stats->reserved_bytes;
  seen->sum.backup_bytes += stats->backup_bytes;
  return ++seen->count == seen->stop_at;
}

START_TEST(tags_come_in_the_order_of_their_first_allocation) {
  struct seen seen = {.count = 0};
  ck_ok(drowse_tags(heap, see, &seen));
  ck_assert_int_eq(seen.count, 0);
  for (int round = 0; round < 2; round++) {
    (void)alloc_tag("z", MIB);
    (void)alloc_tag("a", 2 * MIB);
    (void)alloc_tag("m", 3 * MIB);
  }
  ck_ok(sleep_tag("a", DROWSE_OFFLOAD));
  ck_ok(drowse_tags(heap, see, &seen));
  ck_assert_str_eq(seen.names, "zam");
  drowse_stats sum = stats_of(NULL);
  ck_assert_uint_eq(seen.sum.live_bytes, sum.live_bytes);
  ck_assert_uint_eq(seen.sum.live_blocks, sum.live_blocks);
  ck_assert_uint_eq(seen.sum.mapped_bytes, sum.mapped_bytes);
  ck_assert_uint_eq(seen.sum.reserved_bytes, sum.reserved_bytes);
  ck_assert_uint_eq(seen.sum.backup_bytes, sum.backup_bytes);
  ck_assert_uint_eq(sum.mapped_bytes, 64 * MIB - device_free_bytes());
  seen = (struct seen){.stop_at = 2};
  ck_ok(drowse_tags(heap, see, &seen));
  ck_assert_str_eq(seen.names, "za");
  ck_status(drowse_tags(heap, NULL, NULL), DROWSE_ERR_INVALID);
  ck_status(drowse_tags(NULL, see, &seen), DROWSE_ERR_INVALID);
}
END_TEST

START_TEST(many_tags) {
  char name[32];
  for (int i = 0; i < 600; i++) {
    (void)snprintf(name, sizeof name, "tag %d", i);
    ck_ok(drowse_free(heap, alloc_tag(name, 1)));
    ck_ok(drowse_trim(heap, 0));
  }
  struct seen seen = {.count = 0};
  ck_ok(drowse_tags(heap, see, &seen));
  ck_assert_int_eq(seen.count, 600);
  ck_ok(drowse_sleep(heap, &(drowse_rule){.action = DROWSE_OFFLOAD}, 1, NULL));
  ck_ok(wake_all_tags());
}
END_TEST

/* ---- blocks */

START_TEST(a_block_is_found_by_any_address_inside) {
  CUstream stream = make_stream();
  char *ptr = alloc_on("a", 1000, stream), local;
  drowse_block block = {.struct_size = sizeof block};
  static const size_t inside[] = {0, 1, 512, 999};
  for (size_t i = 0; i < sizeof inside / sizeof *inside; i++) {
    ck_ok(drowse_block_get(heap, ptr + inside[i], &block));
    ck_assert_ptr_eq(block.base, ptr);
    ck_assert_uint_eq(block.bytes, 1000);
    ck_assert_str_eq(block.tag, "a");
    ck_assert_ptr_eq(block.stream, stream);
    ck_assert_int_eq(block.state, DROWSE_AWAKE);
  }
  ck_status(drowse_block_get(heap, ptr - 1, &block), DROWSE_ERR_NOT_FOUND);
  ck_status(drowse_block_get(heap, ptr + 1024, &block), DROWSE_ERR_NOT_FOUND);
  ck_status(drowse_block_get(heap, &local, &block), DROWSE_ERR_NOT_FOUND);
  ck_status(drowse_block_get(heap, NULL, &block), DROWSE_ERR_NOT_FOUND);
  ck_status(drowse_block_get(heap, ptr, NULL), DROWSE_ERR_INVALID);
  ck_status(drowse_block_get(NULL, ptr, &block), DROWSE_ERR_INVALID);
  ck_ok(sleep_tag("a", DROWSE_OFFLOAD));
  ck_ok(drowse_block_get(heap, ptr, &block));
  ck_assert_int_eq(block.state, DROWSE_ASLEEP);
  memset(&block, 0x5a, sizeof block);
  block.struct_size = offsetof(drowse_block, bytes);
  ck_ok(drowse_block_get(heap, ptr, &block));
  ck_assert_ptr_eq(block.base, ptr);
  ck_assert_uint_eq(block.bytes, UINT64_C(0x5a5a5a5a5a5a5a5a));
  block.struct_size = sizeof block;
  ck_ok(drowse_free(heap, ptr));
  ck_status(drowse_block_get(heap, ptr, &block), DROWSE_ERR_NOT_FOUND);
  drop_stream(stream);
}
END_TEST

START_TEST(where_a_block_ends_the_next_begins) {
  char *ptrs[8];
  drowse_block block = {.struct_size = sizeof block};
  for (int i = 0; i < 8; i++) ptrs[i] = alloc_tag("a", 512);
  for (int i = 0; i < 8; i++) {
    ck_ok(drowse_block_get(heap, ptrs[i] + 511, &block));
    ck_assert_ptr_eq(block.base, ptrs[i]);
  }
  ck_ok(drowse_free(heap, ptrs[3]));
  ck_status(drowse_block_get(heap, ptrs[3] + 1, &block), DROWSE_ERR_NOT_FOUND);
  ck_ok(drowse_block_get(heap, ptrs[4], &block));
}
END_TEST

int main(void) {
  Suite *suite = suite_create("stats");
  HEAP_TEST(suite, statistics_of_a_tag);
  HEAP_TEST(suite, statistics_through_sleep_and_wake);
  HEAP_TEST(suite, holds_are_counted);
  HEAP_TEST(suite, statistics_are_cut_to_the_caller_s_size);
  HEAP_TEST(suite, tags_come_in_the_order_of_their_first_allocation);
  HEAP_TEST(suite, many_tags);
  HEAP_TEST(suite, a_block_is_found_by_any_address_inside);
  HEAP_TEST(suite, where_a_block_ends_the_next_begins);
  return harness_run(suite);
}
