/* SPDX-License-Identifier: Apache-2.0
 *
 * Sealed tags: what is copied and what is not, which backups are kept and when they go.
 */
#include "fixture.h"

enum { BYTES = 3 * 1024 * 1024 + 512 };

static void *block, *second;
static uint64_t copied_bytes; /* from the device */

static CUresult count_copies(void *to, CUdeviceptr from, size_t bytes, CUstream stream) {
  copied_bytes += bytes;
  return dz_host_driver.MemcpyDtoHAsync(to, from, bytes, stream);
}

static void start_tag(void) {
  start();
  write_pattern(block = alloc_tag("a", BYTES), BYTES, 1);
  write_pattern(second = alloc_tag("a", BYTES), BYTES, 2);
}

/* How many bytes a sleep copies. */
static uint64_t sleep_and_count(void) {
  copied_bytes = 0;
  heap->device.driver.MemcpyDtoHAsync = count_copies;
  ck_ok(sleep_tag("a", DROWSE_OFFLOAD));
  heap->device.driver = dz_host_driver;
  ck_state("a", DROWSE_ASLEEP);
  return copied_bytes;
}

static void ck_whole(void) {
  ck_assert(has_pattern(block, BYTES, 1));
  ck_assert(has_pattern(second, BYTES, 2));
}

/* It is awake, and all of it has a backup. */
static void seal_with_backup(void) {
  ck_ok(drowse_seal(heap, "a"));
  ck_ok(sleep_tag("a", DROWSE_OFFLOAD));
  ck_ok(wake_tag("a"));
}

START_TEST(without_a_seal_each_sleep_copies) {
  for (int i = 0; i < 2; i++) {
    ck_assert_uint_eq(sleep_and_count(), 2 * BYTES);
    ck_ok(wake_tag("a"));
    ck_assert_uint_eq(stats_of("a").backup_bytes, 0);
  }
  ck_assert(!stats_of("a").sealed);
}
END_TEST

START_TEST(a_second_sleep_copies_nothing) {
  ck_ok(drowse_seal(heap, "a"));
  ck_assert(stats_of("a").sealed);
  ck_assert_uint_eq(sleep_and_count(), 2 * BYTES);
  for (int i = 0; i < 3; i++) {
    ck_ok(wake_tag("a"));
    ck_assert_uint_eq(stats_of("a").backup_bytes, 2 * BYTES);
    ck_whole();
    ck_assert_uint_eq(sleep_and_count(), 0);
    ck_whole();
    ck_assert_uint_eq(device_free_bytes(), 64 * MIB);
  }
}
END_TEST

START_TEST(sealed_while_it_sleeps) {
  ck_ok(sleep_tag("a", DROWSE_OFFLOAD));
  ck_ok(drowse_seal(heap, "a"));
  ck_ok(wake_tag("a"));
  ck_assert_uint_eq(sleep_and_count(), 0);
  ck_ok(drowse_unseal(heap, "a"));
  ck_ok(wake_tag("a"));
  ck_assert_uint_eq(stats_of("a").backup_bytes, 0);
  ck_whole();
  ck_assert_uint_eq(sleep_and_count(), 2 * BYTES);
}
END_TEST

START_TEST(what_it_keeps_can_be_read_where_it_is) {
  unsigned char expected[100];
  void *host;
  seal_with_backup();
  ck_ok(drowse_backup_get(heap, block, BYTES, &host));
  fill_pattern(expected, sizeof expected, 1);
  ck_assert_mem_eq(host, expected, sizeof expected);
  ck_ok(drowse_copy_in(heap, block, "x", 1)); /* not what it has any more */
  ck_status(drowse_backup_get(heap, block, BYTES, &host), DROWSE_ERR_NOT_FOUND);
  ck_says("awake");
  ck_ok(drowse_backup_get(heap, second, BYTES, &host));
}
END_TEST

START_TEST(unsealed_it_drops_the_backup) {
  ck_ok(drowse_seal(heap, "a"));
  seal_with_backup();
  ck_ok(drowse_unseal(heap, "a"));
  ck_ok(drowse_unseal(heap, "a"));
  ck_assert_uint_eq(stats_of("a").backup_bytes, 0);
  ck_ok(drowse_backup_trim(heap, 0));
  ck_assert_uint_eq(stats_of(NULL).host_bytes, 0);
  ck_whole();
  ck_assert_uint_eq(sleep_and_count(), 2 * BYTES);
}
END_TEST

START_TEST(what_is_written_is_copied_again) {
  seal_with_backup();
  write_pattern(second, 100, 3);
  ck_assert_uint_eq(stats_of("a").backup_bytes, BYTES);
  ck_assert_uint_eq(sleep_and_count(), BYTES);
  ck_ok(wake_tag("a"));
  ck_assert(has_pattern(block, BYTES, 1));
  ck_assert(has_pattern(second, 100, 3));
  ck_assert_uint_eq(sleep_and_count(), 0);
}
END_TEST

START_TEST(written_while_it_sleeps_it_keeps_the_seal) {
  ck_ok(drowse_seal(heap, "a"));
  ck_ok(sleep_tag("a", DROWSE_OFFLOAD));
  write_pattern(second, BYTES, 3); /* a trainer updates weights */
  ck_ok(wake_tag("a"));
  ck_assert(has_pattern(second, BYTES, 3));
  ck_assert_uint_eq(sleep_and_count(), 0);
  ck_ok(wake_tag("a"));
  ck_assert(has_pattern(second, BYTES, 3));
  ck_assert(has_pattern(block, BYTES, 1));
}
END_TEST

START_TEST(new_blocks_are_copied) {
  seal_with_backup();
  void *third = alloc_tag("a", MIB);
  write_pattern(third, MIB, 3);
  ck_assert_uint_eq(sleep_and_count(), MIB);
  ck_ok(wake_tag("a"));
  ck_whole();
  ck_assert(has_pattern(third, MIB, 3));
}
END_TEST

START_TEST(freed_blocks_give_their_backup_back) {
  seal_with_backup();
  ck_ok(drowse_free(heap, block));
  ck_assert_uint_eq(stats_of("a").backup_bytes, BYTES);
  /* Whoever gets its memory has none. */
  void *again = alloc_tag("a", BYTES);
  ck_assert_ptr_eq(again, block);
  write_pattern(again, BYTES, 1);
  ck_assert_uint_eq(sleep_and_count(), BYTES);
  ck_ok(drowse_free(heap, second));
  ck_assert_uint_eq(stats_of("a").backup_bytes, BYTES);
  ck_ok(wake_tag("a"));
  ck_assert(has_pattern(again, BYTES, 1));
  ck_ok(drowse_tag_clear(heap, "a"));
  ck_assert_uint_eq(stats_of("a").backup_bytes, 0);
}
END_TEST

START_TEST(other_streams_use_it_too) {
  CUstream stream = make_stream();
  seal_with_backup();
  ck_ok(drowse_record_stream(heap, block, stream));
  ck_ok(drowse_free(heap, block));
  ck_assert_uint_eq(stats_of("a").backup_bytes, BYTES);
  ck_ok(drowse_record_stream(heap, second, stream));
  ck_assert_uint_eq(sleep_and_count(), 0);
  ck_ok(wake_tag("a"));
  ck_assert(has_pattern(second, BYTES, 2));
  ck_ok(drowse_free(heap, second));
  ck_assert_uint_eq(stats_of("a").backup_bytes, 0);
  drop_stream(stream);
}
END_TEST

START_TEST(discarded_it_is_sealed_no_more) {
  seal_with_backup();
  ck_ok(sleep_tag("a", DROWSE_DISCARD));
  ck_assert(!stats_of("a").sealed);
  ck_assert_uint_eq(stats_of("a").backup_bytes, 0);
  ck_ok(wake_tag("a"));
  write_pattern(block, BYTES, 1);
  ck_assert_uint_eq(sleep_and_count(), 2 * BYTES);
}
END_TEST

static CUresult refuse_to_copy(void *to, CUdeviceptr from, size_t bytes, CUstream stream) {
  (void)to, (void)from, (void)bytes, (void)stream;
  return CUDA_ERROR_INVALID_VALUE;
}

START_TEST(a_sleep_that_fails_keeps_the_backups_that_were_there) {
  seal_with_backup();
  write_pattern(second, BYTES, 2);
  heap->device.driver.MemcpyDtoHAsync = refuse_to_copy;
  ck_status(sleep_tag("a", DROWSE_OFFLOAD), DROWSE_ERR_DRIVER);
  heap->device.driver = dz_host_driver;
  ck_state("a", DROWSE_AWAKE);
  ck_assert_uint_eq(stats_of("a").backup_bytes, BYTES);
  ck_whole();
  ck_assert_uint_eq(sleep_and_count(), BYTES);
  ck_ok(wake_tag("a"));
  ck_whole();
}
END_TEST

START_TEST(bad_seals) {
  ck_status(drowse_seal(heap, "b"), DROWSE_ERR_NOT_FOUND);
  ck_status(drowse_seal(heap, NULL), DROWSE_ERR_INVALID);
  ck_status(drowse_seal(NULL, "a"), DROWSE_ERR_INVALID);
  ck_status(drowse_unseal(heap, "b"), DROWSE_ERR_NOT_FOUND);
  ck_status(drowse_unseal(heap, NULL), DROWSE_ERR_INVALID);
  ck_status(drowse_unseal(NULL, "a"), DROWSE_ERR_INVALID);
  drowse_op *op;
  ck_ok(drowse_hold(heap, "a", 0));
  ck_ok(drowse_sleep_start(heap, &(drowse_rule){.action = DROWSE_OFFLOAD}, 1, NULL, &op));
  ck_status(drowse_seal(heap, "a"), DROWSE_ERR_BUSY);
  ck_status(drowse_unseal(heap, "a"), DROWSE_ERR_BUSY);
  ck_ok(drowse_unhold(heap, "a"));
  ck_ok(drowse_op_wait(op, -1));
  drowse_op_release(op);
}
END_TEST

/* ---- the promise, looked at */

static void start_checked(void) {
  ck_assert_int_eq(setenv("DROWSE_DEBUG_SEAL", "1", 1), 0);
  start_tag();
  ck_assert_int_eq(unsetenv("DROWSE_DEBUG_SEAL"), 0);
  seal_with_backup();
}

START_TEST(a_broken_promise_is_noticed) {
  ck_ok(sleep_tag("a", DROWSE_OFFLOAD)); /* kept so far */
  ck_ok(wake_tag("a"));
  ck_cu(MemsetD8Async((CUdeviceptr)(uintptr_t)second + BYTES - 1, 0x5a, 1, NULL));
  ck_status(sleep_tag("a", DROWSE_OFFLOAD), DROWSE_ERR_CORRUPT);
  ck_error_tag("a");
  ck_says("sealed");
  ck_state("a", DROWSE_AWAKE);
  ck_assert_uint_eq(stats_of("a").backup_bytes, 2 * BYTES);
  ck_assert(has_pattern(block, BYTES, 1));
  /* Written by drowse_copy_in() it is right again. */
  write_pattern(second, BYTES, 2);
  ck_ok(sleep_tag("a", DROWSE_OFFLOAD));
  ck_whole();
}
END_TEST

static void ck_progress(void *context, const drowse_progress *progress) {
  uint64_t *done_bytes = context;
  ck_assert_uint_le(progress->done_bytes, progress->total_bytes);
  *done_bytes = progress->done_bytes;
}

START_TEST(looking_is_no_copying) {
  uint64_t done_bytes = 0;
  write_pattern(second, BYTES, 2);
  drowse_sleep_options options = {.struct_size = sizeof options, .progress = ck_progress, .context = &done_bytes};
  ck_ok(drowse_sleep(heap, &(drowse_rule){.tag = "a", .action = DROWSE_OFFLOAD}, 1, &options));
  ck_assert_uint_eq(done_bytes, BYTES);
}
END_TEST

START_TEST(nobody_looks_unless_asked_to) {
  seal_with_backup();
  ck_cu(MemsetD8Async((CUdeviceptr)(uintptr_t)second, 0x5a, 1, NULL));
  ck_assert_uint_eq(sleep_and_count(), 0);
  ck_whole(); /* as it was when it was backed up */
}
END_TEST

#define TAG_TEST(suite, test) HARNESS_FIXTURE_TEST(suite, test, start_tag, finish)

int main(void) {
  Suite *suite = suite_create("seal");
  TAG_TEST(suite, without_a_seal_each_sleep_copies);
  TAG_TEST(suite, a_second_sleep_copies_nothing);
  TAG_TEST(suite, sealed_while_it_sleeps);
  TAG_TEST(suite, what_it_keeps_can_be_read_where_it_is);
  TAG_TEST(suite, unsealed_it_drops_the_backup);
  TAG_TEST(suite, what_is_written_is_copied_again);
  TAG_TEST(suite, written_while_it_sleeps_it_keeps_the_seal);
  TAG_TEST(suite, new_blocks_are_copied);
  TAG_TEST(suite, freed_blocks_give_their_backup_back);
  TAG_TEST(suite, other_streams_use_it_too);
  TAG_TEST(suite, discarded_it_is_sealed_no_more);
  TAG_TEST(suite, a_sleep_that_fails_keeps_the_backups_that_were_there);
  TAG_TEST(suite, bad_seals);
  HARNESS_FIXTURE_TEST(suite, a_broken_promise_is_noticed, start_checked, finish);
  HARNESS_FIXTURE_TEST(suite, looking_is_no_copying, start_checked, finish);
  TAG_TEST(suite, nobody_looks_unless_asked_to);
  return harness_run(suite);
}
