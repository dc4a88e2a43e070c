/* SPDX-License-Identifier: Apache-2.0
 *
 * Streams: captures are left alone, retired streams are forgotten, and memory is given back only when work is done with it.
 */
#include "fixture.h"

static CUstream stream;

static void start_stream(void) {
  start();
  stream = make_stream();
}

static void finish_stream(void) {
  ck_cu(StreamDestroy(stream));
  finish();
}

static CUdeviceptr address(const void *ptr) {
  return (CUdeviceptr)(uintptr_t)ptr;
}

/* ---- captures */

START_TEST(allocating_and_freeing_leave_a_capture_alone) {
  void *before = alloc_on("a", MIB, stream);
  begin_capture(stream);
  void *during = alloc_on("a", 9 * MIB, stream), *elsewhere = alloc_tag("b", MIB);
  ck_cu(MemsetD8Async(address(before), 1, MIB, stream));
  ck_cu(MemsetD8Async(address(during), 2, 9 * MIB, stream));
  ck_ok(drowse_free(heap, elsewhere));
  end_capture(stream);
  ck_assert(is_filled(before, MIB, 1));
  ck_assert(is_filled(during, 9 * MIB, 2));
  ck_ok(drowse_stream_retire(heap, stream));
}
END_TEST

START_TEST(a_stream_first_seen_capturing_is_the_same_one_afterwards) {
  begin_capture(stream);
  void *during = alloc_on("a", MIB, stream);
  (void)alloc_on("a", MIB, stream); /* in the same extent, so that it stays where it is */
  ck_cu(MemsetD8Async(address(during), 3, MIB, stream));
  end_capture(stream);
  ck_assert(is_filled(during, MIB, 3));
  ck_ok(drowse_free(heap, during));
  ck_assert_ptr_ne(alloc_tag("a", MIB), during);
  ck_assert_ptr_eq(alloc_on("a", MIB, stream), during);
  begin_capture(stream);
  ck_ok(drowse_free(heap, during));
  ck_assert_ptr_eq(alloc_on("a", MIB, stream), during);
  end_capture(stream);
  ck_ok(drowse_stream_retire(heap, stream));
}
END_TEST

START_TEST(a_stream_only_seen_capturing_can_be_retired) {
  begin_capture(stream);
  (void)alloc_on("a", MIB, stream);
  end_capture(stream);
  ck_ok(drowse_stream_retire(heap, stream));
  ck_status(drowse_stream_retire(heap, stream), DROWSE_ERR_NOT_FOUND);
}
END_TEST

START_TEST(what_would_destroy_a_capture_is_refused) {
  void *ptr = alloc_on("a", 40 * MIB, stream), *none = (void *)8;
  unsigned char byte = 7;
  write_pattern(ptr, MIB, 1);
  ck_ok(drowse_free(heap, alloc_tag("b", 20 * MIB)));
  uint64_t mapped = stats_of(NULL).mapped_bytes;
  begin_capture(stream);
  ck_cu(MemsetD8Async(address(ptr) + MIB, 4, MIB, stream));
  ck_status(drowse_copy_in(heap, ptr, &byte, 1), DROWSE_ERR_BUSY);
  ck_status(drowse_copy_out(heap, &byte, ptr, 1), DROWSE_ERR_BUSY);
  ck_status(drowse_trim(heap, 0), DROWSE_ERR_BUSY);
  ck_status(drowse_alloc(heap, 40 * MIB, NULL, &none), DROWSE_ERR_NO_DEVICE_MEMORY); /* though b has some unused */
  ck_assert_ptr_null(none);
  ck_assert_uint_eq(stats_of(NULL).mapped_bytes, mapped);
  end_capture(stream);
  ck_assert(has_pattern(ptr, MIB, 1));
  ck_assert(is_filled((char *)ptr + MIB, MIB, 4));
  ck_ok(drowse_trim(heap, 0));
  ck_ok(drowse_stream_retire(heap, stream));
}
END_TEST

START_TEST(what_is_idle_is_given_back_while_others_work) {
  struct gate gate;
  CUstream other = make_stream();
  void *busy = alloc_on("a", 8 * MIB, other), *idle = alloc_on("b", 4 * MIB, stream);
  ck_ok(drowse_free(heap, idle));
  ck_ok(drowse_trim_idle(heap, UINT64_MAX)); /* looks at the stream before it captures */
  close_gate(&gate, other);
  ck_ok(drowse_free(heap, busy));
  uint64_t mapped = stats_of(NULL).mapped_bytes;
  begin_capture(stream);
  ck_ok(drowse_trim_idle(heap, 12 * MIB)); /* which may stay */
  ck_assert_uint_eq(stats_of(NULL).mapped_bytes, mapped);
  ck_ok(drowse_trim_idle(heap, 0));
  ck_assert_uint_eq(stats_of("b").mapped_bytes, 0);
  ck_assert_uint_ge(stats_of("a").mapped_bytes, 8 * MIB);
  end_capture(stream);
  open_gate(&gate);
  ck_cu(StreamSynchronize(other));
  ck_ok(drowse_trim_idle(heap, 0));
  ck_assert_uint_eq(stats_of(NULL).mapped_bytes, 0);
  drop_stream(other);
}
END_TEST

START_TEST(copies_for_other_streams_leave_a_capture_alone) {
  CUstream other = make_stream();
  void *ptr = alloc_on("a", MIB, other);
  begin_capture(stream);
  write_pattern(ptr, MIB, 1);
  ck_assert(has_pattern(ptr, MIB, 1));
  end_capture(stream);
  drop_stream(other);
}
END_TEST

/* ---- retired streams */

START_TEST(a_stream_of_another_device_is_refused) {
  drowse_heap *other;
  void *ptr = heap;
  ck_ok(drowse_heap_open(&other, &(drowse_heap_options){.struct_size = sizeof(drowse_heap_options), .device = "host:32MiB"}));
  ck_status(drowse_alloc(other, MIB, stream, &ptr), DROWSE_ERR_INVALID);
  ck_says("host:32MiB");
  ck_assert_ptr_null(ptr);
  ck_ok(drowse_alloc(other, MIB, NULL, &ptr));
  ck_status(drowse_record_stream(other, ptr, stream), DROWSE_ERR_INVALID);
  ck_status(drowse_free_on(other, ptr, stream), DROWSE_ERR_INVALID);
  CUcontext current;
  ck_cu(CtxGetCurrent(&current));
  ck_assert_ptr_eq(current, heap->context);
  ck_ok(drowse_heap_close(other));
}
END_TEST

START_TEST(an_unknown_stream_cannot_be_retired) {
  ck_status(drowse_stream_retire(heap, stream), DROWSE_ERR_NOT_FOUND);
  (void)alloc_on("a", 1, stream);
  ck_ok(drowse_stream_retire(heap, stream));
  ck_status(drowse_stream_retire(heap, stream), DROWSE_ERR_NOT_FOUND);
  ck_status(drowse_stream_retire(NULL, stream), DROWSE_ERR_INVALID);
}
END_TEST

START_TEST(blocks_outlive_their_stream) {
  CUstream other = make_stream();
  void *ptr = alloc_on("a", 3 * MIB, other);
  write_pattern(ptr, 3 * MIB, 1);
  drop_stream(other);
  ck_assert(has_pattern(ptr, 3 * MIB, 1));
  ck_ok(sleep_tag("a", DROWSE_OFFLOAD));
  ck_ok(wake_tag("a"));
  ck_assert(has_pattern(ptr, 3 * MIB, 1));
  write_pattern(ptr, 3 * MIB, 2);
  ck_assert(has_pattern(ptr, 3 * MIB, 2));
  ck_ok(drowse_free(heap, ptr));
  other = make_stream();
  ck_assert_ptr_ne(alloc_on("a", 3 * MIB, other), ptr); /* nobody's memory any more ... */
  ck_ok(drowse_tag_clear(heap, "a"));
  ck_ok(drowse_trim(heap, 0)); /* ... until it is given back */
  ck_assert_uint_eq(stats_of("a").mapped_bytes, 0);
  ck_assert_uint_eq(device_free_bytes(), 64 * MIB);
  drop_stream(other);
}
END_TEST

START_TEST(memory_of_a_retired_stream_is_had_when_it_is_short) {
  CUstream other = make_stream();
  ck_ok(drowse_free(heap, alloc_on("a", 60 * MIB, other)));
  drop_stream(other);
  (void)alloc_tag("b", 60 * MIB);
}
END_TEST

/* ---- a stream is its owner's again once it has been retired: nobody in drowse uses it any more */

static void *freed_meanwhile;
static sem_t retired;
static bool retired_too_soon;
static atomic_bool begun;
static struct call retiring;

static drowse_status retire_stream(void *nothing) {
  (void)nothing;
  drowse_status status = drowse_stream_retire(heap, stream);
  (void)sem_post(&retired);
  return status;
}

/* While drowse is about to ask, another thread retires the stream, and has some time to get through. */
static CUresult ask_while_it_retires(CUstream asked, CUstreamCaptureStatus *status) {
  struct timespec until;
  if (asked == stream && !atomic_exchange(&begun, true)) {
    call_start(&retiring, retire_stream, NULL);
    ck_assert_int_eq(clock_gettime(CLOCK_REALTIME, &until), 0);
    until.tv_sec++;
    retired_too_soon = sem_timedwait(&retired, &until) == 0;
  }
  return dz_host_driver.StreamIsCapturing(asked, status);
}

static void grow_elsewhere(void) {
  (void)alloc_tag("b", 4 * MIB);
}

static void wait_for_streams(void) {
  ck_ok(drowse_sleep(heap, NULL, 0, NULL));
  drowse_sleep_options options = {.struct_size = sizeof options, .drain = DROWSE_DRAIN_STREAMS};
  (void)alloc_tag("c", MIB);
  ck_ok(drowse_sleep(heap, &(drowse_rule){.tag = "c", .action = DROWSE_OFFLOAD}, 1, &options));
}

static void look_at_uses(void) {
  ck_ok(drowse_trim(heap, UINT64_MAX));
}

static void read_block(void) {
  drowse_stats stats = stats_of("kept");
  ck_assert_uint_eq(stats.live_blocks, 1);
  char byte;
  ck_ok(drowse_copy_out(heap, &byte, freed_meanwhile, 1));
}

START_TEST(a_stream_is_not_retired_while_it_is_asked) {
  static void (*const asks[])(void) = {grow_elsewhere, wait_for_streams, look_at_uses, read_block};
  void *used = alloc_tag("used", MIB);
  ck_assert_int_eq(sem_init(&retired, 0, 0), 0);
  atomic_store(&begun, false);
  freed_meanwhile = alloc_on("kept", MIB, stream);
  ck_ok(drowse_free(heap, alloc_on("a", 4 * MIB, stream)));
  ck_ok(drowse_record_stream(heap, used, stream));
  if (asks[_i] == look_at_uses) {
    struct gate gate;
    close_gate(&gate, stream);
    ck_cu(StreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_RELAXED)); /* so that it has to be asked again */
    ck_ok(drowse_free(heap, used));
    CUgraph graph;
    ck_cu(StreamEndCapture(stream, &graph));
    ck_cu(GraphDestroy(graph));
    open_gate(&gate);
  }
  heap->device.driver.StreamIsCapturing = ask_while_it_retires;
  asks[_i]();
  ck_assert(!retired_too_soon);
  ck_call_end(&retiring, DROWSE_OK);
  heap->device.driver.StreamIsCapturing = dz_host_driver.StreamIsCapturing;
}
END_TEST

/* ---- memory that work still uses */

static struct gate gate;

/* In place of cuCtxSynchronize: when it has returned, another thread submits work and frees the block that it uses. */
static CUresult synchronize_and_free(void) {
  CUresult code = dz_host_driver.CtxSynchronize();
  close_gate(&gate, stream);
  ck_cu(MemsetD8Async(address(freed_meanwhile), 1, 8 * MIB, stream));
  ck_ok(drowse_free(heap, freed_meanwhile));
  return code;
}

/* The work behind the gate would have met no memory, which costs the device its context. */
static void pass_gate(void) {
  heap->device.driver.CtxSynchronize = dz_host_driver.CtxSynchronize;
  open_gate(&gate);
  ck_cu(StreamSynchronize(stream));
}

START_TEST(trim_leaves_alone_what_was_freed_after_the_wait) {
  freed_meanwhile = alloc_on("a", 8 * MIB, stream);
  ck_ok(drowse_free(heap, alloc_tag("b", 8 * MIB)));
  heap->device.driver.CtxSynchronize = synchronize_and_free;
  ck_ok(drowse_trim(heap, 0));
  pass_gate();
  ck_assert_uint_eq(stats_of("b").mapped_bytes, 0);
  ck_assert_uint_eq(stats_of("a").mapped_bytes, 8 * MIB);
  ck_ok(drowse_trim(heap, 0));
  ck_assert_uint_eq(stats_of("a").mapped_bytes, 0);
  ck_ok(drowse_stream_retire(heap, stream));
}
END_TEST

START_TEST(a_shortage_leaves_alone_what_was_freed_after_the_wait) {
  void *none;
  (void)alloc_tag("b", 46 * MIB);
  freed_meanwhile = alloc_on("a", 8 * MIB, stream);
  ck_ok(drowse_free(heap, alloc_tag("c", 4 * MIB))); /* which is not enough */
  heap->device.driver.CtxSynchronize = synchronize_and_free;
  ck_status(drowse_alloc(heap, 12 * MIB, NULL, &none), DROWSE_ERR_NO_DEVICE_MEMORY);
  pass_gate();
  ck_ok(drowse_alloc(heap, 12 * MIB, NULL, &none));
  ck_ok(drowse_stream_retire(heap, stream));
}
END_TEST

START_TEST(a_wake_leaves_alone_what_was_freed_after_the_wait) {
  void *ptr = alloc_tag("b", 40 * MIB);
  write_pattern(ptr, 40 * MIB, 1);
  ck_ok(sleep_tag("b", DROWSE_OFFLOAD));
  (void)alloc_tag("c", 18 * MIB);
  freed_meanwhile = alloc_on("a", 8 * MIB, stream);
  ck_ok(drowse_free(heap, alloc_tag("d", 4 * MIB))); /* which is not enough */
  heap->device.driver.CtxSynchronize = synchronize_and_free;
  ck_status(wake_tag("b"), DROWSE_ERR_NO_DEVICE_MEMORY);
  pass_gate();
  ck_ok(wake_tag("b"));
  ck_assert(has_pattern(ptr, 40 * MIB, 1));
  ck_ok(drowse_stream_retire(heap, stream));
}
END_TEST

#define STREAM_TEST(suite, test) HARNESS_FIXTURE_TEST(suite, test, start_stream, finish_stream)

int main(void) {
  Suite *suite = suite_create("stream");
  STREAM_TEST(suite, allocating_and_freeing_leave_a_capture_alone);
  STREAM_TEST(suite, a_stream_first_seen_capturing_is_the_same_one_afterwards);
  STREAM_TEST(suite, a_stream_only_seen_capturing_can_be_retired);
  STREAM_TEST(suite, what_would_destroy_a_capture_is_refused);
  STREAM_TEST(suite, what_is_idle_is_given_back_while_others_work);
  STREAM_TEST(suite, copies_for_other_streams_leave_a_capture_alone);
  STREAM_TEST(suite, a_stream_of_another_device_is_refused);
  STREAM_TEST(suite, an_unknown_stream_cannot_be_retired);
  STREAM_TEST(suite, blocks_outlive_their_stream);
  STREAM_TEST(suite, memory_of_a_retired_stream_is_had_when_it_is_short);
  HARNESS_LOOP_TEST(suite, a_stream_is_not_retired_while_it_is_asked, start_stream, finish_stream, 4);
  STREAM_TEST(suite, trim_leaves_alone_what_was_freed_after_the_wait);
  STREAM_TEST(suite, a_shortage_leaves_alone_what_was_freed_after_the_wait);
  STREAM_TEST(suite, a_wake_leaves_alone_what_was_freed_after_the_wait);
  return harness_run(suite);
}
