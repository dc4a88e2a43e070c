/* SPDX-License-Identifier: Apache-2.0
 *
 * Draining: sleep waits for the work that it says it waits for, and for no other; captures are left alone.
 *
 * Work in flight stands behind a gate that opens when the library begins to wait for it. A sleep that does not wait copies what
 * the work has not written yet, and the work meets no memory afterwards; a sleep that waits for what it should not, waits for
 * ever.
 */
#include "fixture.h"

static CUstream known, foreign; /* the heap has seen the first */
static void *block;             /* on the known stream, zeros */
static struct gate gate;
static bool opened, early; /* early: something was copied while the gate was closed */

static void start_streams(void) {
  start();
  known = make_stream();
  foreign = make_stream();
  block = alloc_on("a", MIB, known);
  ck_cu(MemsetD8Async((CUdeviceptr)(uintptr_t)block, 0, MIB, known));
  ck_cu(StreamSynchronize(known));
  opened = early = false;
}

static void finish_streams(void) {
  drop_stream(known);
  ck_cu(StreamDestroy(foreign));
  finish();
}

static void open_once(void) {
  if (!opened) open_gate(&gate);
  opened = true;
}

/* The ways in which the library waits, and how it copies. */
static CUresult open_and_synchronize_context(void) {
  open_once();
  return dz_host_driver.CtxSynchronize();
}

static CUresult open_and_synchronize(CUevent event) {
  open_once();
  return dz_host_driver.EventSynchronize(event);
}

static CUresult open_and_query(CUevent event) {
  CUresult code = dz_host_driver.EventQuery(event);
  open_once();
  return code;
}

static CUresult note_copy(void *to, CUdeviceptr from, size_t bytes, CUstream stream) {
  if (!opened) early = true;
  return dz_host_driver.MemcpyDtoHAsync(to, from, bytes, stream);
}

static void late_work(CUstream stream) {
  close_gate(&gate, stream);
  ck_cu(MemsetD8Async((CUdeviceptr)(uintptr_t)block, 7, MIB, stream));
  heap->device.driver.CtxSynchronize = open_and_synchronize_context;
  heap->device.driver.EventSynchronize = open_and_synchronize;
  heap->device.driver.EventQuery = open_and_query;
  heap->device.driver.MemcpyDtoHAsync = note_copy;
}

static void usual_driver(void) {
  heap->device.driver = dz_host_driver;
  open_once();
}

static drowse_status sleep_with(drowse_sleep_options options) {
  options.struct_size = sizeof options;
  return drowse_sleep(heap, &(drowse_rule){.action = DROWSE_OFFLOAD}, 1, &options);
}

#define sleep_draining(...) sleep_with((drowse_sleep_options){__VA_ARGS__})

static void ck_work_was_waited_for(CUstream stream) {
  usual_driver();
  ck_assert(!early);
  ck_cu(StreamSynchronize(stream));
  ck_state("a", DROWSE_ASLEEP);
  ck_ok(wake_all_tags());
  ck_assert(is_filled(block, MIB, 7));
}

/* ---- waiting */

START_TEST(the_device_is_drained_of_streams_never_seen) {
  late_work(foreign);
  ck_ok(sleep_draining(.drain = DROWSE_DRAIN_DEVICE));
  ck_work_was_waited_for(foreign);
}
END_TEST

START_TEST(the_device_is_drained_within_a_time) {
  late_work(foreign);
  ck_ok(sleep_draining(.drain = DROWSE_DRAIN_DEVICE, .drain_timeout_ms = 60000));
  ck_work_was_waited_for(foreign);
}
END_TEST

/* Drivers before 12.5 mark no context's work. */
static CUresult mark_no_context(CUcontext context, CUevent event) {
  (void)context;
  (void)event;
  return CUDA_ERROR_NOT_SUPPORTED;
}

START_TEST(an_older_device_is_drained_within_a_time) {
  late_work(known);
  heap->device.driver.CtxRecordEvent = mark_no_context;
  ck_ok(sleep_draining(.drain = DROWSE_DRAIN_DEVICE, .drain_timeout_ms = 60000));
  ck_work_was_waited_for(known);
  late_work(foreign); /* which is waited for without a limit */
  opened = early = false;
  heap->device.driver.CtxRecordEvent = mark_no_context;
  ck_ok(sleep_draining(.drain = DROWSE_DRAIN_DEVICE, .drain_timeout_ms = 60000));
  ck_work_was_waited_for(foreign);
}
END_TEST

START_TEST(known_streams_are_drained) {
  late_work(known);
  ck_ok(sleep_draining(.drain = DROWSE_DRAIN_STREAMS));
  ck_work_was_waited_for(known);
}
END_TEST

START_TEST(given_streams_are_drained) {
  drowse_stream streams[] = {foreign};
  late_work(foreign);
  ck_ok(sleep_draining(.drain = DROWSE_DRAIN_STREAMS, .streams = streams, .stream_count = 1));
  ck_work_was_waited_for(foreign);
}
END_TEST

START_TEST(given_streams_are_drained_within_a_time) {
  drowse_stream streams[] = {foreign};
  late_work(foreign);
  ck_ok(sleep_draining(.drain = DROWSE_DRAIN_STREAMS, .streams = streams, .stream_count = 1, .drain_timeout_ms = 60000));
  ck_work_was_waited_for(foreign);
}
END_TEST

/* Its operation waits for the hold and has not looked at the stream yet. */
START_TEST(a_given_stream_is_not_used_once_it_is_retired) {
  drowse_op *op;
  CUstream retired = make_stream();
  drowse_stream streams[] = {retired};
  drowse_sleep_options options = {
      .struct_size = sizeof options, .drain = DROWSE_DRAIN_STREAMS, .streams = streams, .stream_count = 1};
  ck_ok(drowse_hold(heap, "a", 0));
  ck_ok(drowse_sleep_start(heap, &(drowse_rule){.tag = "a", .action = DROWSE_OFFLOAD}, 1, &options, &op));
  drop_stream(retired);
  ck_ok(drowse_unhold(heap, "a"));
  ck_ok(drowse_op_wait(op, -1));
  drowse_op_release(op);
}
END_TEST

/* ---- not waiting */

START_TEST(streams_that_are_not_given_are_not_waited_for) {
  write_pattern(block, MIB, 1);
  close_gate(&gate, foreign); /* and nothing behind it: what there is of a drain would wait for ever */
  ck_ok(sleep_draining(.drain = DROWSE_DRAIN_STREAMS));
  ck_ok(wake_all_tags());
  open_gate(&gate);
  ck_assert(has_pattern(block, MIB, 1));
}
END_TEST

START_TEST(nothing_is_waited_for_if_the_caller_vouches) {
  write_pattern(block, MIB, 1);
  close_gate(&gate, known);
  ck_ok(sleep_draining(.drain = DROWSE_DRAIN_NONE));
  ck_ok(wake_all_tags());
  open_gate(&gate);
  ck_assert(has_pattern(block, MIB, 1));
}
END_TEST

START_TEST(a_stream_that_cannot_be_drained_changes_nothing) {
  drowse_stream streams[] = {(drowse_stream)0x1234};
  write_pattern(block, MIB, 1);
  ck_status(sleep_draining(.drain = DROWSE_DRAIN_STREAMS, .streams = streams, .stream_count = 1), DROWSE_ERR_DRIVER);
  ck_state("a", DROWSE_AWAKE);
  ck_assert(has_pattern(block, MIB, 1));
}
END_TEST

/* ---- giving up */

static void ck_nothing_changed(void) {
  drowse_stats stats = stats_of("a");
  ck_assert_int_eq(stats.state, DROWSE_AWAKE);
  ck_assert_uint_eq(stats.backup_bytes + stats.discarded_bytes + stats.sleeps, 0);
  ck_assert_uint_eq(stats.mapped_bytes, GRANULE);
  ck_ok(drowse_free(heap, alloc_on("a", MIB, known)));
}

static void start_long_work(CUstream stream) {
  close_gate(&gate, stream);
  ck_cu(MemsetD8Async((CUdeviceptr)(uintptr_t)block, 7, MIB, stream));
}

/* What was given up is done when the work has ended. */
static void ck_sleeps_in_the_end(void) {
  open_gate(&gate);
  ck_ok(sleep_draining(.drain = DROWSE_DRAIN_DEVICE, .drain_timeout_ms = 60000));
  ck_ok(wake_all_tags());
  ck_assert(is_filled(block, MIB, 7));
}

START_TEST(work_that_does_not_end_in_time) {
  drowse_stream streams[] = {foreign};
  start_long_work(foreign);
  ck_status(sleep_draining(.drain = DROWSE_DRAIN_DEVICE, .drain_timeout_ms = 1), DROWSE_ERR_BUSY);
  ck_nothing_changed();
  ck_status(sleep_draining(.drain = DROWSE_DRAIN_STREAMS, .streams = streams, .stream_count = 1, .drain_timeout_ms = 1),
            DROWSE_ERR_BUSY);
  ck_nothing_changed();
  ck_sleeps_in_the_end();
}
END_TEST

START_TEST(work_that_does_not_end_in_time_on_an_older_device) {
  start_long_work(known);
  heap->device.driver.CtxRecordEvent = mark_no_context;
  ck_status(sleep_draining(.drain = DROWSE_DRAIN_DEVICE, .drain_timeout_ms = 1), DROWSE_ERR_BUSY);
  ck_nothing_changed();
  ck_sleeps_in_the_end();
}
END_TEST

START_TEST(a_hold_that_does_not_end_in_time) {
  write_pattern(block, MIB, 1);
  ck_ok(drowse_hold(heap, "a", 0));
  ck_status(sleep_draining(.drain_timeout_ms = 1), DROWSE_ERR_BUSY);
  ck_says("\"a\"");
  ck_error_tag("a");
  ck_nothing_changed();
  ck_assert_uint_eq(stats_of("a").holds, 1);
  ck_ok(drowse_unhold(heap, "a"));
  ck_ok(sleep_draining(.drain_timeout_ms = 60000));
  ck_ok(wake_all_tags());
  ck_assert(has_pattern(block, MIB, 1));
}
END_TEST

/* ---- captures */

/* The capture is whole, and its graph fills the block. */
static void ck_capture(CUstream stream) {
  ck_cu(MemsetD8Async((CUdeviceptr)(uintptr_t)block, 5, MIB, stream));
  end_capture(stream);
  ck_assert(is_filled(block, MIB, 5));
}

START_TEST(a_capture_on_a_known_stream_is_left_alone) {
  begin_capture(known);
  ck_status(sleep_draining(.drain = DROWSE_DRAIN_DEVICE), DROWSE_ERR_BUSY);
  ck_nothing_changed();
  ck_status(sleep_draining(.drain = DROWSE_DRAIN_DEVICE, .drain_timeout_ms = 1), DROWSE_ERR_BUSY);
  ck_status(sleep_draining(.drain = DROWSE_DRAIN_STREAMS), DROWSE_ERR_BUSY);
  ck_nothing_changed();
  ck_capture(known);
}
END_TEST

START_TEST(a_capture_on_a_given_stream_is_left_alone) {
  drowse_stream streams[] = {foreign};
  begin_capture(foreign);
  ck_status(sleep_draining(.drain = DROWSE_DRAIN_STREAMS, .streams = streams, .stream_count = 1), DROWSE_ERR_BUSY);
  ck_nothing_changed();
  ck_capture(foreign);
}
END_TEST

START_TEST(a_capture_on_a_blocking_stream_is_left_alone) {
  CUstream blocking;
  ck_cu(StreamCreate(&blocking, CU_STREAM_DEFAULT));
  begin_capture(blocking);
  ck_status(sleep_draining(.drain = DROWSE_DRAIN_DEVICE), DROWSE_ERR_BUSY);
  ck_nothing_changed();
  ck_capture(blocking);
  ck_cu(StreamDestroy(blocking));
}
END_TEST

START_TEST(draining_streams_is_the_way_round_a_foreign_capture) {
  begin_capture(foreign);
  ck_ok(sleep_draining(.drain = DROWSE_DRAIN_STREAMS));
  ck_ok(wake_all_tags());
  ck_ok(sleep_draining(.drain = DROWSE_DRAIN_STREAMS, .drain_timeout_ms = 60000));
  ck_ok(wake_all_tags());
  ck_capture(foreign);
}
END_TEST

START_TEST(without_a_drain_a_capture_goes_on) {
  write_pattern(block, MIB, 1);
  begin_capture(known);
  ck_ok(sleep_draining(.drain = DROWSE_DRAIN_NONE));
  ck_ok(wake_all_tags());
  ck_capture(known);
}
END_TEST

START_TEST(a_foreign_capture_that_a_drain_destroys_changes_nothing_else) {
  CUgraph graph = NULL;
  write_pattern(block, MIB, 1);
  begin_capture(foreign);
  ck_status(sleep_draining(.drain = DROWSE_DRAIN_DEVICE), DROWSE_ERR_DRIVER);
  ck_assert_int_ne(cu->StreamEndCapture(foreign, &graph), CUDA_SUCCESS); /* CUDA's rule */
  ck_nothing_changed();
  ck_assert(has_pattern(block, MIB, 1));
  ck_ok(sleep_draining(.drain = DROWSE_DRAIN_DEVICE));
}
END_TEST

#define DRAIN_TEST(suite, test) HARNESS_FIXTURE_TEST(suite, test, start_streams, finish_streams)

int main(void) {
  Suite *suite = suite_create("drain");
  DRAIN_TEST(suite, the_device_is_drained_of_streams_never_seen);
  DRAIN_TEST(suite, the_device_is_drained_within_a_time);
  DRAIN_TEST(suite, an_older_device_is_drained_within_a_time);
  DRAIN_TEST(suite, known_streams_are_drained);
  DRAIN_TEST(suite, given_streams_are_drained);
  DRAIN_TEST(suite, given_streams_are_drained_within_a_time);
  DRAIN_TEST(suite, a_given_stream_is_not_used_once_it_is_retired);
  DRAIN_TEST(suite, streams_that_are_not_given_are_not_waited_for);
  DRAIN_TEST(suite, nothing_is_waited_for_if_the_caller_vouches);
  DRAIN_TEST(suite, a_stream_that_cannot_be_drained_changes_nothing);
  DRAIN_TEST(suite, work_that_does_not_end_in_time);
  DRAIN_TEST(suite, work_that_does_not_end_in_time_on_an_older_device);
  DRAIN_TEST(suite, a_hold_that_does_not_end_in_time);
  DRAIN_TEST(suite, a_capture_on_a_known_stream_is_left_alone);
  DRAIN_TEST(suite, a_capture_on_a_given_stream_is_left_alone);
  DRAIN_TEST(suite, a_capture_on_a_blocking_stream_is_left_alone);
  DRAIN_TEST(suite, draining_streams_is_the_way_round_a_foreign_capture);
  DRAIN_TEST(suite, without_a_drain_a_capture_goes_on);
  DRAIN_TEST(suite, a_foreign_capture_that_a_drain_destroys_changes_nothing_else);
  return harness_run(suite);
}
