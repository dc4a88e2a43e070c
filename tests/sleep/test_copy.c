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

/* ---- many small blocks with gaps between them */

enum { SCATTERED = 1000, SCATTERED_BYTES = 8 << 10 };

static void *scattered[SCATTERED];
static atomic_uint single_copies, batches, copies_in_batches;

static CUresult count_out(void *to, CUdeviceptr from, size_t bytes, CUstream stream) {
  single_copies++;
  return dz_host_driver.MemcpyDtoHAsync(to, from, bytes, stream);
}

static CUresult count_in(CUdeviceptr to, const void *from, size_t bytes, CUstream stream) {
  single_copies++;
  return dz_host_driver.MemcpyHtoDAsync(to, from, bytes, stream);
}

static CUresult count_batch(CUdeviceptr *to, CUdeviceptr *from, size_t *bytes, size_t count, CUmemcpyAttributes *attributes,
                            size_t *attributes_from, size_t attributes_count, CUstream stream) {
  batches++;
  copies_in_batches += (unsigned)count;
  return dz_host_driver.MemcpyBatchAsync(to, from, bytes, count, attributes, attributes_from, attributes_count, stream);
}

static void count_copies(void) {
  single_copies = batches = copies_in_batches = 0;
  heap->device.driver.MemcpyDtoHAsync = count_out;
  heap->device.driver.MemcpyHtoDAsync = count_in;
}

static void scatter(void) {
  void *between[SCATTERED];
  for (int i = 0; i < SCATTERED; i++) {
    scattered[i] = alloc_tag("a", SCATTERED_BYTES);
    between[i] = alloc_tag("a", 512);
    write_pattern(scattered[i], SCATTERED_BYTES, (uint64_t)i);
  }
  for (int i = 0; i < SCATTERED; i++) ck_ok(drowse_free(heap, between[i]));
}

static void ck_scattered(void) {
  for (int i = 0; i < SCATTERED; i++) ck_assert(has_pattern(scattered[i], SCATTERED_BYTES, (uint64_t)i));
}

START_TEST(small_blocks_with_gaps_between_them_are_gathered) {
  start();
  scatter();
  count_copies();
  heap->device.driver.MemcpyBatchAsync = count_batch;
  ck_ok(sleep_tag("a", DROWSE_OFFLOAD));
  ck_assert_uint_eq(copies_in_batches + single_copies, SCATTERED);
  ck_assert_uint_eq(batches + single_copies, 4); /* of 256 each */
  ck_ok(wake_tag("a"));
  ck_assert_uint_eq(copies_in_batches + single_copies, 2 * SCATTERED);
  ck_assert_uint_eq(batches + single_copies, 8);
  ck_scattered();
  close_heap();
}
END_TEST

START_TEST(without_a_call_for_many_each_has_its_own) {
  start();
  scatter();
  count_copies();
  heap->device.driver.MemcpyBatchAsync = dz_driver_unsupported.MemcpyBatchAsync;
  ck_ok(sleep_tag("a", DROWSE_OFFLOAD));
  ck_assert_uint_eq(single_copies, SCATTERED);
  ck_ok(wake_tag("a"));
  ck_assert_uint_eq(single_copies, 2 * SCATTERED);
  ck_scattered();
  close_heap();
}
END_TEST

static CUresult refuse_batch(CUdeviceptr *to, CUdeviceptr *from, size_t *bytes, size_t count, CUmemcpyAttributes *attributes,
                             size_t *attributes_from, size_t attributes_count, CUstream stream) {
  (void)dz_host_driver.MemcpyBatchAsync(to, from, bytes, count / 2, attributes, attributes_from, attributes_count, stream);
  return ++batches == 2 ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

/* Half of each batch is copied, and the second one fails. */
START_TEST(a_call_for_many_that_fails_changes_nothing) {
  start();
  scatter();
  count_copies();
  heap->device.driver.MemcpyBatchAsync = refuse_batch;
  ck_status(sleep_tag("a", DROWSE_OFFLOAD), DROWSE_ERR_DRIVER);
  ck_state("a", DROWSE_AWAKE);
  ck_scattered();
  heap->device.driver.MemcpyBatchAsync = dz_host_driver.MemcpyBatchAsync;
  ck_ok(sleep_tag("a", DROWSE_OFFLOAD));
  batches = 0;
  heap->device.driver.MemcpyBatchAsync = refuse_batch;
  ck_status(wake_tag("a"), DROWSE_ERR_DRIVER);
  ck_state("a", DROWSE_ASLEEP);
  heap->device.driver.MemcpyBatchAsync = dz_host_driver.MemcpyBatchAsync;
  ck_ok(wake_tag("a"));
  ck_scattered();
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
  HARNESS_TEST(suite, small_blocks_with_gaps_between_them_are_gathered);
  HARNESS_TEST(suite, without_a_call_for_many_each_has_its_own);
  HARNESS_TEST(suite, a_call_for_many_that_fails_changes_nothing);
  HARNESS_TEST(suite, what_the_host_refuses_goes_to_the_file);
  return harness_run(suite);
}
