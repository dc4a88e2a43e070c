/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory that several streams use: drowse_record_stream and drowse_free_on. Once freed it is handed out again when the work that
 * was then on the other streams is over, and not before; whatever becomes of its tag meanwhile, nothing is lost.
 */
#include "fixture.h"
#include "heap/pending.h"

static CUstream own, other;

/* ---- events are counted, and which streams they are recorded on and asked about */

static int created, destroyed, recorded, queried;

static CUresult count_create(CUevent *event, unsigned int flags) {
  CUresult code = dz_host_driver.EventCreate(event, flags);
  if (code == CUDA_SUCCESS) created++;
  return code;
}

static CUresult count_destroy(CUevent event) {
  destroyed++;
  return dz_host_driver.EventDestroy(event);
}

static CUresult count_record(CUevent event, CUstream stream) {
  if (stream == other) recorded++;
  return dz_host_driver.EventRecord(event, stream);
}

static CUresult count_query(CUevent event) {
  queried++;
  return dz_host_driver.EventQuery(event);
}

static void start_streams(void) {
  start();
  own = make_stream();
  other = make_stream();
  created = destroyed = recorded = queried = 0;
  heap->device.driver.EventCreate = count_create;
  heap->device.driver.EventDestroy = count_destroy;
  heap->device.driver.EventRecord = count_record;
  heap->device.driver.EventQuery = count_query;
}

/* For one that the heap may have seen. */
static void end_stream(CUstream stream) {
  drowse_status status = drowse_stream_retire(heap, stream);
  ck_assert(status == DROWSE_OK || status == DROWSE_ERR_NOT_FOUND);
  ck_cu(StreamDestroy(stream));
}

static void finish_streams(void) {
  end_stream(own);
  end_stream(other);
  finish();
  ck_assert_int_eq(destroyed, created);
}

static CUdeviceptr address(const void *ptr) {
  return (CUdeviceptr)(uintptr_t)ptr;
}

static size_t pending_blocks(void) {
  size_t count = 0;
  dz_lock(&heap->lock);
  for (const struct block *block = heap->pending; block != NULL; block = block->freed_next) count++;
  dz_unlock(&heap->lock);
  return count;
}

/* Asks about what waits, and gives nothing back. */
static void poll_uses(void) {
  ck_ok(drowse_trim(heap, UINT64_MAX));
}

/* A block on own with room for nothing else of its size in what is mapped: who gets its address got its memory. */
static void *alloc_whole(void) {
  return alloc_on("a", 8 * MIB, own);
}

static void ck_reused(void *ptr) {
  ck_assert_ptr_eq(alloc_whole(), ptr);
  ck_assert_uint_eq(pending_blocks(), 0);
}

static void ck_not_reused(void *ptr) {
  ck_assert_ptr_ne(alloc_whole(), ptr);
}

/* ---- waiting */

static struct gate gate;

/* Work comes to the other stream, the block is freed, and not reused before that work is over. */
static void ck_waits_for_other(void *ptr) {
  close_gate(&gate, other);
  ck_cu(MemsetD8Async(address(ptr), 1, 8 * MIB, other));
  ck_ok(drowse_free(heap, ptr));
  ck_not_reused(ptr);
  open_gate(&gate);
  ck_cu(StreamSynchronize(other));
  ck_reused(ptr);
}

START_TEST(memory_waits_for_another_stream) {
  void *ptr = alloc_whole();
  close_gate(&gate, other);
  ck_cu(MemsetD8Async(address(ptr), 1, 8 * MIB, other));
  ck_ok(drowse_record_stream(heap, ptr, other));
  ck_ok(drowse_free(heap, ptr));
  ck_assert_uint_eq(stats_of("a").live_blocks, 0);
  ck_status(drowse_free(heap, ptr), DROWSE_ERR_NOT_FOUND);
  for (int i = 0; i < 3; i++) ck_not_reused(ptr);
  ck_not_reused(ptr);
  open_gate(&gate);
  ck_cu(StreamSynchronize(other));
  ck_reused(ptr);
}
END_TEST

START_TEST(free_on_waits_for_its_stream) {
  void *ptr = alloc_whole();
  close_gate(&gate, other);
  ck_cu(MemsetD8Async(address(ptr), 1, 8 * MIB, other));
  ck_ok(drowse_free_on(heap, ptr, other));
  ck_not_reused(ptr);
  open_gate(&gate);
  ck_cu(StreamSynchronize(other));
  ck_reused(ptr);
}
END_TEST

/* Nor does it go to another tag, or back to the device. */
START_TEST(what_waits_goes_nowhere) {
  void *ptr = alloc_whole();
  write_pattern(ptr, 8 * MIB, 1);
  close_gate(&gate, other);
  ck_cu(MemsetD8Async(address(ptr), 1, 8 * MIB, other));
  ck_ok(drowse_free_on(heap, ptr, other));
  void *elsewhere = alloc_tag("b", 8 * MIB);
  ck_assert_uint_eq(stats_of(NULL).mapped_bytes, 16 * MIB);
  write_pattern(elsewhere, 8 * MIB, 2);
  open_gate(&gate);
  ck_cu(StreamSynchronize(other)); /* the work met its memory: else the context would be lost */
  ck_assert(has_pattern(elsewhere, 8 * MIB, 2));
  (void)alloc_tag("b", 8 * MIB); /* which takes it: nothing more is mapped */
  ck_assert_uint_eq(stats_of(NULL).mapped_bytes, 16 * MIB);
}
END_TEST

START_TEST(what_comes_to_a_stream_after_the_free_is_not_waited_for) {
  struct gate second;
  void *ptr = alloc_whole();
  close_gate(&gate, other);
  ck_ok(drowse_free_on(heap, ptr, other));
  ck_not_reused(ptr);
  open_gate(&gate);
  close_gate(&second, other); /* the first is past, and the stream stands at the second */
  ck_reused(ptr);
  open_gate(&second);
  ck_cu(StreamSynchronize(other));
}
END_TEST

START_TEST(work_before_the_free_counts_not_only_before_the_record) {
  void *ptr = alloc_whole();
  ck_ok(drowse_record_stream(heap, ptr, other));
  ck_waits_for_other(ptr);
}
END_TEST

START_TEST(every_stream_is_waited_for) {
  enum { STREAMS = 4 };
  CUstream streams[STREAMS];
  struct gate gates[STREAMS];
  void *ptr = alloc_whole();
  for (int i = 0; i < STREAMS; i++) {
    streams[i] = make_stream();
    close_gate(&gates[i], streams[i]);
    ck_ok(drowse_record_stream(heap, ptr, streams[i]));
  }
  ck_ok(drowse_free(heap, ptr));
  static const int order[STREAMS] = {2, 0, 3, 1};
  for (int i = 0; i < STREAMS; i++) {
    void *another = alloc_whole();
    ck_assert_ptr_ne(another, ptr);
    ck_ok(drowse_free(heap, another));
    open_gate(&gates[order[i]]);
    ck_cu(StreamSynchronize(streams[order[i]]));
  }
  drowse_block block = {.struct_size = sizeof block};
  ck_status(drowse_block_get(heap, ptr, &block), DROWSE_ERR_NOT_FOUND);
  void *both = alloc_on("a", 16 * MIB, own); /* it and the other one, which is its neighbour */
  ck_assert_ptr_eq(both, ptr);
  for (int i = 0; i < STREAMS; i++) drop_stream(streams[i]);
}
END_TEST

START_TEST(the_own_stream_is_not_waited_for) {
  void *ptr = alloc_whole();
  close_gate(&gate, own);
  ck_ok(drowse_record_stream(heap, ptr, own));
  ck_ok(drowse_free(heap, ptr));
  ck_reused(ptr);
  ck_ok(drowse_free_on(heap, ptr, own));
  ck_reused(ptr);
  ck_assert_int_eq(created, 0);
  open_gate(&gate);
}
END_TEST

START_TEST(recorded_twice_is_recorded_once) {
  void *ptr = alloc_whole();
  close_gate(&gate, other);
  for (int i = 0; i < 100; i++) ck_ok(drowse_record_stream(heap, ptr, other));
  ck_ok(drowse_free_on(heap, ptr, other));
  ck_assert_int_eq(recorded, 1);
  ck_not_reused(ptr);
  open_gate(&gate);
  ck_cu(StreamSynchronize(other));
  ck_reused(ptr);
  ck_ok(drowse_free(heap, ptr)); /* its next life has no other streams */
  ck_reused(ptr);
  ck_assert_int_eq(recorded, 1);
}
END_TEST

START_TEST(both_names_of_the_legacy_stream_are_one) {
  void *ptr = alloc_on("a", 8 * MIB, NULL);
  ck_ok(drowse_record_stream(heap, ptr, CU_STREAM_LEGACY));
  ck_ok(drowse_free(heap, ptr));
  ck_assert_int_eq(created, 0);
  ck_assert_ptr_eq(alloc_on("a", 8 * MIB, NULL), ptr);
}
END_TEST

static drowse_status record_per_thread(void *ptr) {
  if (cu->CtxSetCurrent(heap->context) != CUDA_SUCCESS) return DROWSE_ERR_DRIVER;
  if (cu->LaunchHostFunc(CU_STREAM_PER_THREAD, stand_at_gate, &gate) != CUDA_SUCCESS) return DROWSE_ERR_DRIVER;
  drowse_status status = drowse_record_stream(heap, ptr, CU_STREAM_PER_THREAD);
  return status == DROWSE_OK ? drowse_free(heap, ptr) : status;
}

START_TEST(another_threads_default_stream_is_waited_for) {
  struct call call;
  void *ptr = alloc_on("a", 8 * MIB, CU_STREAM_PER_THREAD);
  ck_assert_int_eq(sem_init(&gate.reached, 0, 0), 0);
  ck_assert_int_eq(sem_init(&gate.open, 0, 0), 0);
  call_start(&call, record_per_thread, ptr);
  ck_call_end(&call, DROWSE_OK);
  ck_assert_ptr_ne(alloc_on("a", 8 * MIB, CU_STREAM_PER_THREAD), ptr);
  open_gate(&gate);
  ck_cu(CtxSynchronize());
  ck_assert_ptr_eq(alloc_on("a", 8 * MIB, CU_STREAM_PER_THREAD), ptr);
}
END_TEST

static CUresult open_and_synchronize(void) {
  open_gate(&gate);
  return dz_host_driver.CtxSynchronize();
}

START_TEST(a_shortage_waits_for_what_is_used) {
  void *ptr = alloc_on("a", 60 * MIB, own);
  close_gate(&gate, other);
  ck_cu(MemsetD8Async(address(ptr), 1, 60 * MIB, other));
  ck_ok(drowse_free_on(heap, ptr, other));
  heap->device.driver.CtxSynchronize = open_and_synchronize;
  (void)alloc_tag("b", 60 * MIB);
}
END_TEST

/* ---- retired streams */

START_TEST(a_retired_stream_is_waited_for_as_long_as_it_works) {
  CUstream gone = make_stream();
  void *first = alloc_whole(), *second = alloc_whole();
  close_gate(&gate, gone);
  ck_ok(drowse_record_stream(heap, first, gone)); /* freed before it is retired, and after */
  ck_ok(drowse_record_stream(heap, second, gone));
  ck_ok(drowse_free(heap, first));
  drop_stream(gone);
  ck_ok(drowse_free(heap, second));
  void *third = alloc_whole();
  ck_assert(third != first && third != second);
  open_gate(&gate);
  ck_cu(CtxSynchronize());
  void *both = alloc_on("a", 16 * MIB, own);
  ck_assert_ptr_eq(both, first);
}
END_TEST

START_TEST(a_block_of_a_retired_stream_waits_for_another) {
  CUstream gone = make_stream();
  void *ptr = alloc_on("a", 40 * MIB, gone);
  ck_ok(drowse_record_stream(heap, ptr, other));
  drop_stream(gone);
  close_gate(&gate, other);
  ck_cu(MemsetD8Async(address(ptr), 1, 40 * MIB, other));
  ck_ok(drowse_free(heap, ptr));
  void *elsewhere = alloc_tag("b", 20 * MIB);
  write_pattern(elsewhere, 20 * MIB, 2);
  open_gate(&gate);
  ck_cu(StreamSynchronize(other));
  (void)alloc_tag("b", 40 * MIB);
  ck_assert(has_pattern(elsewhere, 20 * MIB, 2));
}
END_TEST

/* A new stream with the old one's handle would be another one. */
START_TEST(a_stream_cannot_be_recorded_once_it_is_gone) {
  CUstream gone = make_stream();
  void *ptr = alloc_whole();
  ck_cu(StreamDestroy(gone));
  ck_status(drowse_record_stream(heap, ptr, gone), DROWSE_ERR_DRIVER);
  ck_status(drowse_free_on(heap, ptr, gone), DROWSE_ERR_DRIVER);
  ck_assert_uint_eq(stats_of("a").live_blocks, 1);
  ck_ok(drowse_free(heap, ptr));
  ck_reused(ptr);
}
END_TEST

/* ---- captures */

START_TEST(a_capture_is_left_alone_and_waited_for) {
  static const CUstreamCaptureMode modes[] = {CU_STREAM_CAPTURE_MODE_GLOBAL, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL,
                                              CU_STREAM_CAPTURE_MODE_RELAXED};
  void *kept = alloc_on("kept", MIB, other);
  for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
    void *ptr = alloc_whole();
    recorded = queried = 0;
    ck_cu(StreamBeginCapture(other, modes[i]));
    ck_cu(MemsetD8Async(address(ptr), 1, 8 * MIB, other));
    ck_cu(MemsetD8Async(address(kept), (unsigned char)(3 + i), MIB, other));
    ck_ok(drowse_record_stream(heap, ptr, other));
    ck_ok(drowse_free(heap, ptr));
    void *another = alloc_whole();
    ck_assert_ptr_ne(another, ptr);
    ck_ok(drowse_free(heap, another));
    ck_assert_int_eq(recorded, 0);
    ck_assert_int_eq(queried, 0);
    ck_assert_uint_eq(pending_blocks(), 1);
    end_capture(other);
    ck_assert(is_filled(kept, MIB, (unsigned char)(3 + i)));
    recorded = 0;
    poll_uses(); /* now the event is recorded */
    ck_assert_int_eq(recorded, 1);
    ck_cu(StreamSynchronize(other));
    void *both = alloc_on("a", 16 * MIB, own);
    ck_assert_ptr_eq(both, ptr);
    ck_ok(drowse_free(heap, both));
    ck_assert_uint_eq(pending_blocks(), 0);
  }
}
END_TEST

START_TEST(work_before_a_capture_is_waited_for_during_it) {
  CUevent behind;
  void *ptr = alloc_whole();
  ck_cu(EventCreate(&behind, CU_EVENT_DISABLE_TIMING));
  close_gate(&gate, other);
  ck_ok(drowse_free_on(heap, ptr, other)); /* its event is recorded, and can be asked */
  ck_cu(EventRecord(behind, other));
  ck_cu(StreamBeginCapture(other, CU_STREAM_CAPTURE_MODE_RELAXED));
  ck_not_reused(ptr);
  open_gate(&gate);
  ck_cu(EventSynchronize(behind));
  ck_reused(ptr);
  end_capture(other);
  ck_cu(EventDestroy(behind));
}
END_TEST

START_TEST(a_capture_that_begins_while_a_stream_is_marked_survives) {
  void *ptr = alloc_whole(), *kept = alloc_on("kept", MIB, other);
  ck_ok(drowse_record_stream(heap, ptr, other));
  captured_meanwhile = other;
  heap->device.driver.StreamIsCapturing = answer_and_capture;
  ck_ok(drowse_free(heap, ptr));
  ck_assert_ptr_null(captured_meanwhile);
  ck_not_reused(ptr);
  ck_cu(MemsetD8Async(address(kept), 7, MIB, other));
  end_capture(other);
  ck_assert(is_filled(kept, MIB, 7));
  poll_uses();
  ck_cu(StreamSynchronize(other));
  ck_reused(ptr);
}
END_TEST

/* Another thread begins a capture and ends it between two looks at the stream: the event is the capture's, and never over. */
static CUresult record_in_a_capture(CUevent event, CUstream stream) {
  CUgraph graph = NULL;
  if (stream == NULL || stream != captured_meanwhile) return dz_host_driver.EventRecord(event, stream);
  captured_meanwhile = NULL;
  ck_cu(StreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
  CUresult code = dz_host_driver.EventRecord(event, stream);
  ck_cu(StreamEndCapture(stream, &graph));
  ck_cu(GraphDestroy(graph));
  return code;
}

START_TEST(an_event_that_went_into_a_capture_is_recorded_anew) {
  void *ptr = alloc_whole();
  captured_meanwhile = other;
  heap->device.driver.EventRecord = record_in_a_capture;
  ck_ok(drowse_free_on(heap, ptr, other));
  ck_assert_ptr_null(captured_meanwhile);
  poll_uses();
  ck_cu(StreamSynchronize(other));
  poll_uses();
  ck_cu(StreamSynchronize(other));
  ck_reused(ptr);
}
END_TEST

/* ---- tags in motion */

START_TEST(what_waits_ends_when_its_tag_falls_asleep) {
  void *kept = alloc_on("a", MIB, own), *first = alloc_on("a", 9 * MIB, own), *second = alloc_on("a", 19 * MIB, own);
  write_pattern(kept, MIB, 1);
  close_gate(&gate, other);
  ck_ok(drowse_free_on(heap, first, other));
  ck_ok(drowse_free_on(heap, second, other));
  drowse_sleep_options options = {.struct_size = sizeof options, .drain = DROWSE_DRAIN_NONE};
  ck_ok(drowse_sleep(heap, &(drowse_rule){.tag = "a", .action = DROWSE_OFFLOAD}, 1, &options));
  ck_assert_uint_eq(pending_blocks(), 0);
  ck_assert_uint_eq(stats_of("a").mapped_bytes, 0);
  ck_assert_uint_eq(stats_of("a").backup_bytes, MIB);
  ck_ok(wake_tag("a"));
  ck_assert_uint_eq(stats_of("a").mapped_bytes, GRANULE);
  ck_assert_ptr_eq(alloc_on("a", 28 * MIB, own), first); /* where both were */
  ck_assert(has_pattern(kept, MIB, 1));
  open_gate(&gate);
}
END_TEST

START_TEST(a_sleep_that_fails_leaves_what_waits_waiting) {
  void *kept = alloc_whole(), *ptr = alloc_whole();
  write_pattern(kept, 8 * MIB, 1);
  close_gate(&gate, other);
  ck_cu(MemsetD8Async(address(ptr), 1, 8 * MIB, other));
  ck_ok(drowse_free_on(heap, ptr, other));
  drowse_sleep_options options = {.struct_size = sizeof options, .drain_timeout_ms = 1};
  ck_status(drowse_sleep(heap, &(drowse_rule){.tag = "a", .action = DROWSE_OFFLOAD}, 1, &options), DROWSE_ERR_BUSY);
  ck_state("a", DROWSE_AWAKE);
  ck_assert_uint_eq(pending_blocks(), 1);
  ck_not_reused(ptr);
  open_gate(&gate);
  ck_cu(StreamSynchronize(other));
  ck_reused(ptr);
  ck_assert(has_pattern(kept, 8 * MIB, 1));
}
END_TEST

/* On return the tag is falling asleep and waits for the gate. */
static void fall_asleep(struct call *call) {
  call_start(call, run_offload, (void *)(uintptr_t) "a");
  ck_ok(drowse_tag_wait(heap, "a", DROWSE_FALLING_ASLEEP, -1));
}

START_TEST(a_free_while_falling_asleep_with_uses) {
  struct call call;
  void *kept = alloc_whole(), *ptr = alloc_whole(), *freed = alloc_whole();
  write_pattern(kept, 8 * MIB, 1);
  ck_ok(drowse_record_stream(heap, ptr, other));
  close_gate(&gate, own);
  fall_asleep(&call);
  ck_ok(drowse_free(heap, ptr));
  ck_ok(drowse_record_stream(heap, freed, other));
  ck_ok(drowse_free_on(heap, freed, other));
  ck_status(drowse_free(heap, ptr), DROWSE_ERR_NOT_FOUND);
  ck_status(drowse_record_stream(heap, ptr, other), DROWSE_ERR_NOT_FOUND);
  ck_assert_uint_eq(pending_blocks(), 0);
  open_gate(&gate);
  ck_call_end(&call, DROWSE_OK);
  ck_assert_uint_eq(pending_blocks(), 0);
  ck_assert_uint_eq(stats_of("a").live_blocks, 1);
  ck_assert_uint_eq(stats_of("a").backup_bytes, 8 * MIB);
  ck_ok(wake_tag("a"));
  ck_assert_uint_eq(stats_of("a").mapped_bytes, 8 * MIB);
  ck_assert(has_pattern(kept, 8 * MIB, 1));
}
END_TEST

static CUresult refuse_copies(void *to, CUdeviceptr from, size_t bytes, CUstream stream) {
  (void)to;
  (void)from;
  (void)bytes;
  (void)stream;
  return CUDA_ERROR_INVALID_VALUE;
}

START_TEST(a_free_while_falling_asleep_with_uses_waits_if_the_sleep_fails) {
  struct call call;
  struct gate second;
  void *kept = alloc_whole(), *ptr = alloc_whole();
  write_pattern(kept, 8 * MIB, 1);
  ck_ok(drowse_record_stream(heap, ptr, other));
  close_gate(&gate, own);
  heap->device.driver.MemcpyDtoHAsync = refuse_copies;
  fall_asleep(&call);
  ck_ok(drowse_free(heap, ptr));
  open_gate(&gate);
  ck_call_end(&call, DROWSE_ERR_DRIVER);
  heap->device.driver.MemcpyDtoHAsync = dz_host_driver.MemcpyDtoHAsync;
  ck_state("a", DROWSE_AWAKE);
  ck_assert_uint_eq(pending_blocks(), 1);
  close_gate(&second, other); /* before any event is recorded: it is waited for, too */
  ck_not_reused(ptr);
  open_gate(&second);
  ck_cu(StreamSynchronize(other));
  ck_reused(ptr);
  ck_assert(has_pattern(kept, 8 * MIB, 1));
}
END_TEST

START_TEST(uses_of_a_sleeping_tags_blocks_are_forgotten_with_them) {
  void *ptr = alloc_whole();
  (void)alloc_on("b", MIB, other);
  ck_ok(drowse_record_stream(heap, ptr, other));
  ck_ok(sleep_tag("a", DROWSE_OFFLOAD));
  ck_ok(drowse_record_stream(heap, ptr, NULL));
  ck_ok(drowse_free_on(heap, ptr, other));
  ck_assert_uint_eq(pending_blocks(), 0);
  ck_assert_uint_eq(stats_of("a").backup_bytes, 0);
  ck_ok(wake_tag("a"));
  ck_assert_uint_eq(stats_of("a").mapped_bytes, 0);
  (void)alloc_whole();
}
END_TEST

/* A live block's uses outlast its tag's sleep: the streams may use it again afterwards. */
START_TEST(uses_outlast_a_sleep) {
  void *ptr = alloc_whole();
  ck_ok(drowse_record_stream(heap, ptr, other));
  ck_ok(sleep_tag("a", DROWSE_OFFLOAD));
  ck_ok(wake_tag("a"));
  ck_waits_for_other(ptr);
}
END_TEST

START_TEST(clearing_a_tag_waits_too) {
  void *used = alloc_whole(), *unused = alloc_whole();
  ck_ok(drowse_record_stream(heap, used, other));
  close_gate(&gate, other);
  ck_ok(drowse_tag_clear(heap, "a"));
  ck_assert_uint_eq(stats_of("a").live_blocks, 0);
  ck_assert_uint_eq(pending_blocks(), 1);
  ck_assert_ptr_eq(alloc_whole(), unused);
  ck_not_reused(used);
  ck_ok(drowse_tag_clear(heap, "a"));
  ck_assert_uint_eq(pending_blocks(), 1);
  open_gate(&gate);
  ck_cu(StreamSynchronize(other));
  ck_assert_ptr_eq(alloc_on("a", 24 * MIB, own), used);
}
END_TEST

/* ---- the heap's end */

START_TEST(a_heap_is_closed_with_uses_in_every_state) {
  void *live = alloc_whole(), *pending = alloc_whole(), *asleep = alloc_on("b", MIB, own);
  (void)alloc_on("c", MIB, own);
  ck_ok(drowse_free_on(heap, alloc_on("c", 3 * MIB, own), other)); /* over by the time the heap is closed */
  ck_ok(drowse_record_stream(heap, live, other));
  ck_ok(drowse_record_stream(heap, live, NULL));
  ck_ok(drowse_record_stream(heap, asleep, other));
  ck_ok(sleep_tag("b", DROWSE_OFFLOAD));
  close_gate(&gate, other);
  ck_cu(MemsetD8Async(address(pending), 1, 8 * MIB, other));
  ck_ok(drowse_free_on(heap, pending, other));
  ck_assert_uint_eq(pending_blocks(), 1);
  ck_assert_int_gt(created, 0);
  open_gate(&gate); /* closing waits for the work: else it would meet no memory */
}
END_TEST

/* ---- events are kept and used again */

START_TEST(events_are_as_many_as_blocks_wait_at_a_time) {
  for (int round = 0; round < 50; round++) {
    void *ptrs[4];
    for (int i = 0; i < 4; i++) ptrs[i] = alloc_on("a", MIB, own);
    for (int i = 0; i < 4; i++) ck_ok(drowse_record_stream(heap, ptrs[i], other));
    close_gate(&gate, other);
    for (int i = 0; i < 4; i++) ck_ok(drowse_free(heap, ptrs[i]));
    open_gate(&gate);
    ck_cu(StreamSynchronize(other));
  }
  ck_ok(drowse_trim(heap, 0));
  ck_assert_uint_eq(pending_blocks(), 0);
  ck_assert_int_le(created - destroyed, 8);
  ck_assert_uint_eq(device_free_bytes(), 64 * MIB);
}
END_TEST

static CUresult refuse_create(CUevent *event, unsigned int flags) {
  (void)flags;
  *event = (CUevent)(uintptr_t)8;
  return CUDA_ERROR_OUT_OF_MEMORY;
}

static CUresult refuse_record(CUevent event, CUstream stream) {
  (void)event;
  (void)stream;
  return CUDA_ERROR_UNKNOWN;
}

START_TEST(events_that_cannot_be_had_are_tried_again) {
  void *ptr = alloc_whole();
  heap->device.driver.EventCreate = refuse_create;
  ck_ok(drowse_free_on(heap, ptr, other));
  ck_not_reused(ptr);
  heap->device.driver.EventCreate = count_create;
  heap->device.driver.EventRecord = refuse_record;
  ck_not_reused(ptr);
  heap->device.driver.EventRecord = count_record;
  poll_uses();
  ck_cu(StreamSynchronize(other));
  ck_reused(ptr);
}
END_TEST

/* ---- bad arguments */

START_TEST(what_is_no_block_has_no_uses) {
  char *ptr = alloc_whole(), local;
  ck_ok(drowse_record_stream(heap, NULL, other));
  ck_ok(drowse_free_on(heap, NULL, other));
  ck_status(drowse_record_stream(NULL, ptr, other), DROWSE_ERR_INVALID);
  ck_status(drowse_free_on(NULL, ptr, other), DROWSE_ERR_INVALID);
  ck_status(drowse_record_stream(heap, ptr + 512, other), DROWSE_ERR_NOT_FOUND);
  ck_says("512 bytes into the block");
  ck_status(drowse_free_on(heap, ptr + 1, other), DROWSE_ERR_NOT_FOUND);
  ck_status(drowse_record_stream(heap, &local, other), DROWSE_ERR_NOT_FOUND);
  ck_status(drowse_record_stream(heap, ptr, (drowse_stream)(uintptr_t)0x1234), DROWSE_ERR_DRIVER);
  ck_ok(drowse_free_on(heap, ptr, other));
  ck_status(drowse_free_on(heap, ptr, other), DROWSE_ERR_NOT_FOUND);
  ck_status(drowse_record_stream(heap, ptr, other), DROWSE_ERR_NOT_FOUND);
}
END_TEST

#define PENDING_TEST(suite, test) HARNESS_FIXTURE_TEST(suite, test, start_streams, finish_streams)

int main(void) {
  Suite *suite = suite_create("pending");
  PENDING_TEST(suite, memory_waits_for_another_stream);
  PENDING_TEST(suite, free_on_waits_for_its_stream);
  PENDING_TEST(suite, what_waits_goes_nowhere);
  PENDING_TEST(suite, what_comes_to_a_stream_after_the_free_is_not_waited_for);
  PENDING_TEST(suite, work_before_the_free_counts_not_only_before_the_record);
  PENDING_TEST(suite, every_stream_is_waited_for);
  PENDING_TEST(suite, the_own_stream_is_not_waited_for);
  PENDING_TEST(suite, recorded_twice_is_recorded_once);
  PENDING_TEST(suite, both_names_of_the_legacy_stream_are_one);
  PENDING_TEST(suite, another_threads_default_stream_is_waited_for);
  PENDING_TEST(suite, a_shortage_waits_for_what_is_used);
  PENDING_TEST(suite, a_retired_stream_is_waited_for_as_long_as_it_works);
  PENDING_TEST(suite, a_block_of_a_retired_stream_waits_for_another);
  PENDING_TEST(suite, a_stream_cannot_be_recorded_once_it_is_gone);
  PENDING_TEST(suite, a_capture_is_left_alone_and_waited_for);
  PENDING_TEST(suite, work_before_a_capture_is_waited_for_during_it);
  PENDING_TEST(suite, a_capture_that_begins_while_a_stream_is_marked_survives);
  PENDING_TEST(suite, an_event_that_went_into_a_capture_is_recorded_anew);
  PENDING_TEST(suite, what_waits_ends_when_its_tag_falls_asleep);
  PENDING_TEST(suite, a_sleep_that_fails_leaves_what_waits_waiting);
  PENDING_TEST(suite, a_free_while_falling_asleep_with_uses);
  PENDING_TEST(suite, a_free_while_falling_asleep_with_uses_waits_if_the_sleep_fails);
  PENDING_TEST(suite, uses_of_a_sleeping_tags_blocks_are_forgotten_with_them);
  PENDING_TEST(suite, uses_outlast_a_sleep);
  PENDING_TEST(suite, clearing_a_tag_waits_too);
  PENDING_TEST(suite, a_heap_is_closed_with_uses_in_every_state);
  PENDING_TEST(suite, events_are_as_many_as_blocks_wait_at_a_time);
  PENDING_TEST(suite, events_that_cannot_be_had_are_tried_again);
  PENDING_TEST(suite, what_is_no_block_has_no_uses);
  return harness_run(suite);
}
