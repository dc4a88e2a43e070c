/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading and writing blocks from the host: ranges, and that copies come after the work on the block's stream.
 */
#include "fixture.h"

static CUdeviceptr address(const void *ptr) {
  return (CUdeviceptr)(uintptr_t)ptr;
}

START_TEST(any_range_inside_a_block) {
  enum { BYTES = 3 * 1024 * 1024 + 5 };
  static unsigned char expected[BYTES], found[BYTES];
  uint64_t random = 1;
  unsigned char *ptr = alloc_tag("a", BYTES);
  fill_pattern(expected, BYTES, 1);
  ck_ok(drowse_copy_in(heap, ptr, expected, BYTES));
  for (int i = 0; i < 200; i++) {
    size_t at = random_below(&random, BYTES), bytes = random_below(&random, (i % 2 == 0 ? 100 : BYTES) + 1);
    if (bytes > BYTES - at) bytes = BYTES - at;
    fill_pattern(expected + at, bytes, (uint64_t)i);
    ck_ok(drowse_copy_in(heap, ptr + at, expected + at, bytes));
    at = random_below(&random, BYTES);
    bytes = random_below(&random, BYTES - at + 1);
    memset(found, 0, bytes);
    ck_ok(drowse_copy_out(heap, found, ptr + at, bytes));
    ck_assert(memcmp(found, expected + at, bytes) == 0);
  }
}
END_TEST

START_TEST(what_leaves_the_block_is_refused) {
  unsigned char *ptr = alloc_tag("a", 1000), *neighbour = alloc_tag("a", 1000), byte[2000] = {0};
  write_pattern(ptr, 1000, 1);
  write_pattern(neighbour, 1000, 2);
  ck_status(drowse_copy_in(heap, ptr, byte, 1001), DROWSE_ERR_INVALID);
  ck_status(drowse_copy_out(heap, byte, ptr, 1001), DROWSE_ERR_INVALID);
  ck_status(drowse_copy_in(heap, ptr + 999, byte, 2), DROWSE_ERR_INVALID);
  ck_status(drowse_copy_in(heap, ptr + 1, byte, SIZE_MAX), DROWSE_ERR_INVALID);
  ck_status(drowse_copy_out(heap, byte, ptr + 1001, 1), DROWSE_ERR_INVALID); /* in what it was rounded up to */
  ck_status(drowse_copy_out(heap, byte, ptr, 1025), DROWSE_ERR_INVALID);
  ck_ok(drowse_copy_out(heap, byte, ptr + 999, 1));
  ck_ok(drowse_copy_in(heap, ptr, byte, 0));
  ck_ok(drowse_copy_in(heap, ptr + 1000, byte, 0));
  ck_ok(drowse_copy_in(heap, ptr, NULL, 0));
  ck_status(drowse_copy_in(heap, ptr, NULL, 1), DROWSE_ERR_INVALID);
  ck_status(drowse_copy_out(heap, NULL, ptr, 1), DROWSE_ERR_INVALID);
  ck_status(drowse_copy_in(NULL, ptr, byte, 1), DROWSE_ERR_INVALID);
  ck_assert(has_pattern(ptr, 1000, 1));
  ck_assert(has_pattern(neighbour, 1000, 2));
}
END_TEST

START_TEST(what_is_in_no_block_is_not_found) {
  unsigned char *ptr = alloc_tag("a", 4096), byte = 0;
  ck_status(drowse_copy_in(heap, &byte, &byte, 1), DROWSE_ERR_NOT_FOUND);
  ck_status(drowse_copy_out(heap, &byte, NULL, 1), DROWSE_ERR_NOT_FOUND);
  ck_status(drowse_copy_out(heap, &byte, ptr - 1, 1), DROWSE_ERR_NOT_FOUND);
  ck_status(drowse_copy_out(heap, &byte, ptr + 4096, 1), DROWSE_ERR_NOT_FOUND);
  ck_ok(drowse_free(heap, ptr));
  ck_status(drowse_copy_out(heap, &byte, ptr, 1), DROWSE_ERR_NOT_FOUND);
}
END_TEST

/* ---- order with the work on the block's stream. The gate opens when the library lets its copies wait for that stream: so the
 * work is surely late when the copy is asked for, and a copy that did not wait would come first. */

static struct gate gate;
static bool waited;

static CUresult open_gate_and_wait(CUstream stream, CUevent event, unsigned int flags) {
  CUresult code = dz_host_driver.StreamWaitEvent(stream, event, flags);
  if (!waited) open_gate(&gate);
  waited = true;
  return code;
}

static void *late_block(CUstream stream) {
  void *ptr = alloc_on("a", MIB, stream);
  waited = false;
  close_gate(&gate, stream);
  ck_cu(MemsetD8Async(address(ptr), 9, MIB, stream));
  heap->device.driver.StreamWaitEvent = open_gate_and_wait;
  return ptr;
}

static void pass_gate(CUstream stream) {
  heap->device.driver.StreamWaitEvent = dz_host_driver.StreamWaitEvent;
  if (!waited) open_gate(&gate);
  ck_cu(StreamSynchronize(stream));
}

START_TEST(copy_out_sees_the_work_before_it) {
  CUstream stream = make_stream();
  void *ptr = late_block(stream);
  unsigned char byte = 0;
  ck_ok(drowse_copy_out(heap, &byte, ptr, 1));
  pass_gate(stream);
  ck_assert_uint_eq(byte, 9);
  drop_stream(stream);
}
END_TEST

START_TEST(copy_in_comes_after_the_work_before_it) {
  CUstream stream = make_stream();
  void *ptr = late_block(stream);
  unsigned char byte = 5;
  ck_ok(drowse_copy_in(heap, ptr, &byte, 1));
  pass_gate(stream);
  ck_assert(is_filled(ptr, 1, 5));
  ck_assert(is_filled((char *)ptr + 1, MIB - 1, 9));
  drop_stream(stream);
}
END_TEST

START_TEST(copies_do_not_wait_for_other_streams) {
  CUstream busy = make_stream(), idle = make_stream();
  void *ptr = alloc_on("a", MIB, idle), *other = alloc_on("a", MIB, busy);
  close_gate(&gate, busy);
  ck_cu(MemsetD8Async(address(other), 1, MIB, busy));
  write_pattern(ptr, MIB, 1);
  ck_assert(has_pattern(ptr, MIB, 1));
  open_gate(&gate);
  ck_assert(is_filled(other, MIB, 1));
  drop_stream(busy);
  drop_stream(idle);
}
END_TEST

START_TEST(copies_follow_the_legacy_stream) {
  void *ptr = alloc_tag("a", MIB);
  for (int i = 0; i < 50; i++) {
    ck_cu(MemsetD8Async(address(ptr), (unsigned char)i, MIB, NULL));
    unsigned char bytes[2] = {99, 99};
    ck_ok(drowse_copy_out(heap, bytes, ptr, 1));
    ck_ok(drowse_copy_out(heap, bytes + 1, (char *)ptr + MIB - 1, 1));
    if (bytes[0] != i || bytes[1] != i) ck_abort_msg("round %d", i);
  }
}
END_TEST

START_TEST(a_lost_device_is_told) {
  /* A fault: work on what is no memory. The context is lost for good, so the device is one that no other test uses. */
  open_with((drowse_heap_options){.device = "host:62MiB"});
  unsigned char *ptr = alloc_tag("a", MIB), byte = 0, *asleep = alloc_tag("b", MIB);
  write_pattern(asleep, MIB, 1);
  ck_ok(sleep_tag("b", DROWSE_OFFLOAD));
  CUdeviceptr gone = 0;
  CUmemGenericAllocationHandle handle;
  CUmemAccessDesc access = {.location = heap->properties.location, .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
  ck_cu(MemAddressReserve(&gone, GRANULE, 0, 0, 0));
  ck_cu(MemCreate(&handle, GRANULE, &heap->properties, 0));
  ck_cu(MemMap(gone, GRANULE, 0, handle, 0));
  ck_cu(MemSetAccess(gone, GRANULE, &access, 1));
  CUstream stream = make_stream();
  close_gate(&gate, stream);
  ck_cu(MemsetD8Async(gone, 1, 1, stream));
  ck_cu(MemUnmap(gone, GRANULE));
  ck_cu(MemRelease(handle));
  ck_cu(MemAddressFree(gone, GRANULE));
  open_gate(&gate);
  ck_assert_int_eq(cu->StreamSynchronize(stream), CUDA_ERROR_ILLEGAL_ADDRESS);
  ck_status(drowse_copy_out(heap, &byte, ptr, 1), DROWSE_ERR_DEVICE_LOST);
  ck_status(sleep_tag("a", DROWSE_OFFLOAD), DROWSE_ERR_DEVICE_LOST);
  ck_state("a", DROWSE_AWAKE);
  ck_status(wake_tag("b"), DROWSE_ERR_DEVICE_LOST);
  ck_state("b", DROWSE_ASLEEP);
  ck_assert(has_pattern(asleep, MIB, 1)); /* sleeping tags stay readable */
  ck_ok(drowse_free(heap, ptr));
  ck_assert_int_eq(cu->CtxSetCurrent(NULL), CUDA_SUCCESS);
  drowse_status closed = drowse_heap_close(heap);
  ck_assert(closed == DROWSE_ERR_DRIVER || closed == DROWSE_ERR_DEVICE_LOST);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("access");
  HEAP_TEST(suite, any_range_inside_a_block);
  HEAP_TEST(suite, what_leaves_the_block_is_refused);
  HEAP_TEST(suite, what_is_in_no_block_is_not_found);
  HEAP_TEST(suite, copy_out_sees_the_work_before_it);
  HEAP_TEST(suite, copy_in_comes_after_the_work_before_it);
  HEAP_TEST(suite, copies_do_not_wait_for_other_streams);
  HEAP_TEST(suite, copies_follow_the_legacy_stream);
  HARNESS_TEST(suite, a_lost_device_is_told);
  return harness_run(suite);
}
