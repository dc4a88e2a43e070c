/* SPDX-License-Identifier: Apache-2.0
 *
 * Captures and graphs of the host device. What a call does to a capture is a table, measured on a GPU's driver. The program is
 * linked so that its memory comes from here (--wrap).
 */
#include "fixture.h"

#include <pthread.h>
#include <stdatomic.h>

#define UNSUPPORTED CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
#define INVALIDATED CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
#define IMPLICIT CUDA_ERROR_STREAM_CAPTURE_IMPLICIT
#define GLOBAL CU_STREAM_CAPTURE_MODE_GLOBAL
#define THREAD_LOCAL CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
#define RELAXED CU_STREAM_CAPTURE_MODE_RELAXED

static CUstream capturing, other, independent;
static CUevent inside, outside; /* recorded in the capture; on other, before it */
static CUdeviceptr ptr;
static unsigned char *pages; /* registered */
static CUgraphExec executable;
enum { PAGES = 4096 };

static CUgraphExec instantiate(CUgraph graph) {
  CUgraphExec exec = NULL;
  ck_cu_ok(GraphInstantiateWithFlags(&exec, graph, 0));
  ck_cu_ok(GraphDestroy(graph));
  return exec;
}

static CUgraphExec make_executable(void) {
  CUgraph graph;
  ck_cu_ok(StreamBeginCapture(independent, RELAXED));
  ck_cu_ok(MemsetD8Async(ptr + 1024, 1, 8, independent));
  ck_cu_ok(StreamEndCapture(independent, &graph));
  return instantiate(graph);
}

static void start_capture(void) {
  start();
  ptr = make_memory(GRANULE);
  ck_cu_ok(StreamCreate(&capturing, CU_STREAM_DEFAULT));
  ck_cu_ok(StreamCreate(&other, CU_STREAM_DEFAULT));
  ck_cu_ok(StreamCreate(&independent, CU_STREAM_NON_BLOCKING));
  ck_cu_ok(EventCreate(&inside, CU_EVENT_DISABLE_TIMING));
  ck_cu_ok(EventCreate(&outside, CU_EVENT_DISABLE_TIMING));
  ck_cu_ok(EventRecord(outside, other));
  pages = make_pages(PAGES);
  ck_cu_ok(MemHostRegister(pages, PAGES, 0));
  executable = make_executable();
  ck_cu_ok(MemsetD8Async(ptr, 0, GRANULE, NULL));
  ck_cu_ok(CtxSynchronize());
}

static void finish_capture(void) {
  ck_cu_ok(GraphExecDestroy(executable));
  ck_cu_ok(MemHostUnregister(pages));
  drop_pages(pages, PAGES);
  ck_cu_ok(EventDestroy(inside));
  ck_cu_ok(EventDestroy(outside));
  ck_cu_ok(StreamDestroy(capturing));
  ck_cu_ok(StreamDestroy(other));
  ck_cu_ok(StreamDestroy(independent));
  drop_memory(ptr, GRANULE);
  finish();
}

static void begin(CUstream stream, CUstreamCaptureMode mode) {
  ck_cu_ok(StreamBeginCapture(stream, mode));
}

static CUstreamCaptureStatus status_of(CUstream stream) {
  CUstreamCaptureStatus status = (CUstreamCaptureStatus)9;
  ck_cu_ok(StreamIsCapturing(stream, &status));
  return status;
}

static void end_with(CUstream stream, CUresult expected) {
  CUgraph graph = NULL;
  ck_cu(StreamEndCapture(stream, &graph), expected);
  ck_assert_int_eq(graph != NULL, expected == CUDA_SUCCESS);
  if (graph != NULL) ck_cu_ok(GraphDestroy(graph));
}

static unsigned char host_buffer[64];

static void CUDA_CB nothing(void *argument) {
  (void)argument;
}

/* ---- what a call does to a capture that is in progress */

/* Calls that depend on nothing but the fixture; what they make is given back by undo. */
static CUstream made_stream;
static CUevent made_event;
static CUmemGenericAllocationHandle made_handle;
static CUdeviceptr made_addresses;

#define CALLS(X)                                                                                   \
  X(wait_for_context, CtxSynchronize())                                                            \
  X(record_context, CtxRecordEvent(context, outside))                                              \
  X(wait_for_capturing, StreamSynchronize(capturing))                                              \
  X(query_capturing, StreamQuery(capturing))                                                       \
  X(wait_for_other, StreamSynchronize(other))                                                      \
  X(query_other, StreamQuery(other))                                                               \
  X(wait_for_independent, StreamSynchronize(independent))                                          \
  X(query_per_thread, StreamQuery(CU_STREAM_PER_THREAD))                                           \
  X(wait_for_legacy, StreamSynchronize(NULL))                                                      \
  X(query_legacy, StreamQuery(NULL))                                                               \
  X(copy_in_now, MemcpyHtoD(ptr, host_buffer, 8))                                                  \
  X(copy_out_now, MemcpyDtoH(host_buffer, ptr, 8))                                                 \
  X(register_memory, MemHostRegister(host_buffer, 8, 0))                                           \
  X(unregister_memory, MemHostUnregister(pages))                                                   \
  X(create_stream, StreamCreate(&made_stream, 0))                                                  \
  X(create_event, EventCreate(&made_event, 0))                                                     \
  X(ask_memory, MemGetInfo(&(size_t){0}, &(size_t){0}))                                            \
  X(fill_on_legacy, MemsetD8Async(ptr, 0, 8, NULL))                                                \
  X(fill_on_other, MemsetD8Async(ptr, 0, 8, other))                                                \
  X(fill_on_independent, MemsetD8Async(ptr, 0, 8, independent))                                    \
  X(call_on_legacy, LaunchHostFunc(NULL, nothing, NULL))                                           \
  X(query_event, EventQuery(outside))                                                              \
  X(wait_for_event, EventSynchronize(outside))                                                     \
  X(record_on_other, EventRecord(outside, other))                                                  \
  X(record_on_legacy, EventRecord(outside, NULL))                                                  \
  X(legacy_waits, StreamWaitEvent(NULL, outside, 0))                                               \
  X(capturing_waits_for_outside, StreamWaitEvent(capturing, outside, 0))                           \
  X(is_capturing, StreamIsCapturing(capturing, &(CUstreamCaptureStatus){0}))                       \
  X(is_legacy_capturing, StreamIsCapturing(NULL, &(CUstreamCaptureStatus){0}))                     \
  X(is_per_thread_capturing, StreamIsCapturing(CU_STREAM_PER_THREAD, &(CUstreamCaptureStatus){0})) \
  X(begin_again, StreamBeginCapture(capturing, GLOBAL))                                            \
  X(begin_on_legacy, StreamBeginCapture(NULL, GLOBAL))                                             \
  X(end_of_other, StreamEndCapture(other, &(CUgraph){NULL}))                                       \
  X(id_of_capturing, StreamGetId(capturing, &(unsigned long long){0}))                             \
  X(id_of_legacy, StreamGetId(NULL, &(unsigned long long){0}))                                     \
  X(id_of_other, StreamGetId(other, &(unsigned long long){0}))                                     \
  X(retain, DevicePrimaryCtxRetain(&(CUcontext){NULL}, device.ordinal))                            \
  X(current_device, CtxGetDevice(&(CUdevice){0}))                                                  \
  X(copy_in_captured, MemcpyHtoDAsync(ptr, pages, 8, capturing))                                   \
  X(copy_out_captured, MemcpyDtoHAsync(pages, ptr, 8, capturing))                                  \
  X(copy_in_on_other, MemcpyHtoDAsync(ptr, host_buffer, 8, other))                                 \
  X(copy_out_on_other, MemcpyDtoHAsync(host_buffer, ptr, 8, other))                                \
  X(call_captured, LaunchHostFunc(capturing, nothing, NULL))                                       \
  X(launch_on_other, GraphLaunch(executable, other))                                               \
  X(launch_captured, GraphLaunch(executable, capturing))                                           \
  X(launch_on_legacy, GraphLaunch(executable, NULL))                                               \
  X(destroy_executable, GraphExecDestroy(executable))                                              \
  X(create_memory, MemCreate(&made_handle, GRANULE, &prop, 0))                                     \
  X(reserve, MemAddressReserve(&made_addresses, GRANULE, 0, 0, 0))                                 \
  X(record_captured, EventRecord(inside, capturing))

#define DEFINE(name, call)            \
  static CUresult call_##name(void) { \
    return cu->call;                  \
  }
CALLS(DEFINE)
#undef DEFINE

enum {
#define NUMBER(name, call) CALL_##name,
  CALLS(NUMBER)
#undef NUMBER
      CALL_COUNT
};

/* harmless: no capture minds. always: every capture is destroyed. unsafe: only one that bars the calling thread from unsafe
 * calls. */
enum effect { HARMLESS, ALWAYS, UNSAFE };

static const struct {
  const char *name;
  CUresult (*call)(void);
} calls[CALL_COUNT] = {
#define ROW(name, call) {#name, call_##name},
    CALLS(ROW)
#undef ROW
};

static const struct {
  int call;
  enum effect effect;
  CUresult result; /* if it has the effect; for the harmless, always */
} effects[] = {
    {CALL_wait_for_context, ALWAYS, UNSUPPORTED},
    {CALL_record_context, ALWAYS, UNSUPPORTED},
    {CALL_wait_for_capturing, ALWAYS, UNSUPPORTED},
    {CALL_query_capturing, ALWAYS, UNSUPPORTED},
    {CALL_wait_for_other, UNSAFE, UNSUPPORTED},
    {CALL_query_other, UNSAFE, UNSUPPORTED},
    {CALL_wait_for_independent, UNSAFE, UNSUPPORTED},
    {CALL_query_per_thread, UNSAFE, UNSUPPORTED},
    {CALL_wait_for_legacy, ALWAYS, IMPLICIT},
    {CALL_query_legacy, ALWAYS, IMPLICIT},
    {CALL_copy_in_now, ALWAYS, IMPLICIT},
    {CALL_copy_out_now, ALWAYS, IMPLICIT},
    {CALL_register_memory, UNSAFE, UNSUPPORTED},
    {CALL_unregister_memory, UNSAFE, UNSUPPORTED},
    {CALL_create_stream, HARMLESS, CUDA_SUCCESS},
    {CALL_create_event, HARMLESS, CUDA_SUCCESS},
    {CALL_ask_memory, HARMLESS, CUDA_SUCCESS},
    {CALL_fill_on_legacy, ALWAYS, IMPLICIT},
    {CALL_fill_on_other, HARMLESS, CUDA_SUCCESS},
    {CALL_fill_on_independent, HARMLESS, CUDA_SUCCESS},
    {CALL_call_on_legacy, ALWAYS, IMPLICIT},
    {CALL_query_event, UNSAFE, UNSUPPORTED},
    {CALL_wait_for_event, UNSAFE, UNSUPPORTED},
    {CALL_record_on_other, HARMLESS, CUDA_SUCCESS},
    {CALL_record_on_legacy, ALWAYS, IMPLICIT},
    {CALL_legacy_waits, ALWAYS, IMPLICIT},
    {CALL_capturing_waits_for_outside, ALWAYS, CUDA_ERROR_STREAM_CAPTURE_ISOLATION},
    {CALL_is_capturing, HARMLESS, CUDA_SUCCESS},
    {CALL_is_legacy_capturing, HARMLESS, IMPLICIT},
    {CALL_is_per_thread_capturing, HARMLESS, CUDA_SUCCESS},
    {CALL_begin_again, HARMLESS, CUDA_ERROR_ILLEGAL_STATE},
    {CALL_begin_on_legacy, ALWAYS, IMPLICIT},
    {CALL_end_of_other, HARMLESS, CUDA_ERROR_ILLEGAL_STATE},
    {CALL_id_of_capturing, ALWAYS, UNSUPPORTED},
    {CALL_id_of_legacy, ALWAYS, IMPLICIT},
    {CALL_id_of_other, HARMLESS, CUDA_SUCCESS},
    {CALL_retain, HARMLESS, CUDA_SUCCESS},
    {CALL_current_device, HARMLESS, CUDA_SUCCESS},
    {CALL_copy_in_captured, HARMLESS, CUDA_SUCCESS},
    {CALL_copy_out_captured, HARMLESS, CUDA_SUCCESS},
    {CALL_copy_in_on_other, HARMLESS, CUDA_SUCCESS},
    {CALL_copy_out_on_other, HARMLESS, CUDA_SUCCESS},
    {CALL_call_captured, HARMLESS, CUDA_SUCCESS},
    {CALL_launch_on_other, HARMLESS, CUDA_SUCCESS},
    {CALL_launch_captured, ALWAYS, UNSUPPORTED},
    {CALL_launch_on_legacy, ALWAYS, IMPLICIT},
    {CALL_destroy_executable, UNSAFE, UNSUPPORTED},
    {CALL_create_memory, HARMLESS, CUDA_SUCCESS},
    {CALL_reserve, HARMLESS, CUDA_SUCCESS},
    {CALL_record_captured, HARMLESS, CUDA_SUCCESS},
};

/* Gives back what a call made, and makes again what it destroyed. */
static void undo(int call, CUresult result) {
  if (result != CUDA_SUCCESS) return;
  if (call == CALL_create_stream) ck_cu_ok(StreamDestroy(made_stream));
  if (call == CALL_create_event) ck_cu_ok(EventDestroy(made_event));
  if (call == CALL_create_memory) ck_cu_ok(MemRelease(made_handle));
  if (call == CALL_reserve) ck_cu_ok(MemAddressFree(made_addresses, GRANULE));
  if (call == CALL_retain) ck_cu_ok(DevicePrimaryCtxRelease(device.ordinal));
  if (call == CALL_register_memory) ck_cu_ok(MemHostUnregister(host_buffer));
  if (call == CALL_unregister_memory) ck_cu_ok(MemHostRegister(pages, PAGES, 0));
  if (call == CALL_destroy_executable) executable = make_executable();
}

/* How a call is made: on the thread that captures or another one, with the calling thread's mode. */
struct caller {
  int call;
  bool elsewhere;
  CUstreamCaptureMode mode;
  CUresult result;
};

static void *make_call(void *argument) {
  struct caller *caller = argument;
  CUstreamCaptureMode mode = caller->mode;
  if (caller->elsewhere) ck_cu_ok(CtxSetCurrent(context));
  ck_cu_ok(ThreadExchangeStreamCaptureMode(&mode));
  caller->result = calls[caller->call].call();
  ck_cu_ok(ThreadExchangeStreamCaptureMode(&mode));
  return NULL;
}

/* The manual's rule for calls that it deems unsafe. */
static bool barred(const struct caller *caller, CUstreamCaptureMode capture) {
  if (caller->mode == RELAXED || capture == RELAXED) return false;
  return !caller->elsewhere || (caller->mode == GLOBAL && capture == GLOBAL);
}

static void check_call(struct caller *caller, CUstreamCaptureMode mode, enum effect effect, CUresult result) {
  bool destroys = effect == ALWAYS || (effect == UNSAFE && barred(caller, mode));
  CUresult expected = effect == UNSAFE && !destroys ? CUDA_SUCCESS : result;
  CUgraph graph = NULL;
  pthread_t thread;
  begin(capturing, mode);
  ck_cu_ok(MemsetD8Async(ptr, 0, 64, capturing));
  if (caller->elsewhere) {
    ck_assert_int_eq(pthread_create(&thread, NULL, make_call, caller), 0);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
  } else {
    (void)make_call(caller);
  }
  CUstreamCaptureStatus status = status_of(capturing);
  CUresult end = cu->StreamEndCapture(capturing, &graph);
  ck_assert_msg(caller->result == expected && (status == CU_STREAM_CAPTURE_STATUS_INVALIDATED) == destroys &&
                    end == (destroys ? INVALIDATED : CUDA_SUCCESS) && (graph == NULL) == destroys,
                "%s, capture mode %d, caller's mode %d, %s thread: %d, status %d, end %d", calls[caller->call].name, (int)mode,
                (int)caller->mode, caller->elsewhere ? "another" : "the same", (int)caller->result, (int)status, (int)end);
  if (graph != NULL) ck_cu_ok(GraphDestroy(graph));
  undo(caller->call, caller->result);
  ck_cu_ok(CtxSynchronize());
}

START_TEST(calls_do_to_a_capture_what_the_driver_does) {
  ck_assert_int_eq(sizeof effects / sizeof *effects, CALL_COUNT);
  for (size_t i = 0; i < sizeof effects / sizeof *effects; i++) {
    for (unsigned capture = 0; capture < 3; capture++) {
      for (unsigned mode = 0; mode < 3; mode++) {
        struct caller here = {effects[i].call, false, (CUstreamCaptureMode)mode, CUDA_SUCCESS};
        struct caller elsewhere = {effects[i].call, true, (CUstreamCaptureMode)mode, CUDA_SUCCESS};
        check_call(&here, (CUstreamCaptureMode)capture, effects[i].effect, effects[i].result);
        check_call(&elsewhere, (CUstreamCaptureMode)capture, effects[i].effect, effects[i].result);
      }
    }
  }
}
END_TEST

START_TEST(memory_may_be_mapped_while_capturing) {
  CUdeviceptr memory;
  CUgraph graph;
  begin(capturing, GLOBAL);
  memory = make_memory(GRANULE);
  ck_cu_ok(MemsetD8Async(memory, 4, 8, capturing));
  ck_cu_ok(StreamEndCapture(capturing, &graph));
  CUgraphExec exec = instantiate(graph);
  ck_cu_ok(GraphLaunch(exec, capturing));
  ck_cu_ok(StreamSynchronize(capturing));
  ck_assert_uint_eq(device_byte(memory + 7), 4);
  ck_cu_ok(GraphExecDestroy(exec));
  drop_memory(memory, GRANULE);
}
END_TEST

/* ---- captures of streams that the legacy stream does not know */

START_TEST(a_non_blocking_capture_leaves_the_legacy_stream_usable) {
  CUstreamCaptureStatus status;
  begin(independent, GLOBAL);
  ck_cu_ok(MemsetD8Async(ptr, 1, 8, NULL));
  ck_cu_ok(StreamIsCapturing(NULL, &status));
  ck_assert_int_eq(status, CU_STREAM_CAPTURE_STATUS_NONE);
  end_with(independent, CUDA_SUCCESS);
  begin(independent, GLOBAL);
  ck_cu(StreamSynchronize(NULL), UNSUPPORTED); /* an unsafe call all the same */
  end_with(independent, INVALIDATED);
  begin(independent, RELAXED);
  ck_cu_ok(StreamSynchronize(NULL));
  end_with(independent, CUDA_SUCCESS);
}
END_TEST

START_TEST(the_legacy_stream_does_not_capture) {
  ck_cu(StreamBeginCapture(NULL, RELAXED), UNSUPPORTED);
  ck_cu(StreamBeginCapture(CU_STREAM_LEGACY, RELAXED), UNSUPPORTED);
  ck_invalid(StreamBeginCapture(capturing, (CUstreamCaptureMode)5));
  begin(CU_STREAM_PER_THREAD, RELAXED);
  ck_assert_int_eq(status_of(CU_STREAM_PER_THREAD), CU_STREAM_CAPTURE_STATUS_ACTIVE);
  end_with(CU_STREAM_PER_THREAD, CUDA_SUCCESS);
  end_with(CU_STREAM_PER_THREAD, CUDA_ERROR_ILLEGAL_STATE);
}
END_TEST

static unsigned failing; /* the allocation, counted from 1, that fails; 0: none does */
static atomic_uint allocations;

void *__real_calloc(size_t count, size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes) {
  return atomic_fetch_add(&allocations, 1) + 1 == failing ? NULL : __real_calloc(count, bytes);
}

void *__real_realloc(void *memory, size_t bytes);
void *__wrap_realloc(void *memory, size_t bytes);
void *__wrap_realloc(void *memory, size_t bytes) {
  return atomic_fetch_add(&allocations, 1) + 1 == failing ? NULL : __real_realloc(memory, bytes);
}

START_TEST(a_capture_for_which_there_is_no_memory_does_not_begin) {
  if (!device.host) return;
  CUresult code = CUDA_ERROR_OUT_OF_MEMORY;
  for (unsigned k = 1; code == CUDA_ERROR_OUT_OF_MEMORY; k++) {
    atomic_store(&allocations, 0);
    failing = k;
    code = cu->StreamBeginCapture(capturing, RELAXED);
    failing = 0;
    ck_assert(code == CUDA_SUCCESS || status_of(capturing) == CU_STREAM_CAPTURE_STATUS_NONE);
    ck_assert(code == CUDA_SUCCESS || k <= atomic_load(&allocations));
  }
  ck_assert_int_eq(code, CUDA_SUCCESS);
  ck_assert_uint_ge(atomic_load(&allocations), 3); /* all of them have failed */
  end_with(capturing, CUDA_SUCCESS);
}
END_TEST

START_TEST(an_invalid_capture_stays_until_it_is_ended) {
  begin(capturing, GLOBAL);
  ck_cu(CtxSynchronize(), UNSUPPORTED);
  ck_cu(MemsetD8Async(ptr, 1, 8, capturing), INVALIDATED);
  ck_cu(CtxSynchronize(), UNSUPPORTED);
  ck_cu(StreamSynchronize(capturing), UNSUPPORTED);
  ck_cu(MemcpyHtoD(ptr, host_buffer, 8), IMPLICIT);
  end_with(capturing, INVALIDATED);
  ck_cu_ok(CtxSynchronize());
  ck_assert_int_eq(status_of(capturing), CU_STREAM_CAPTURE_STATUS_NONE);
}
END_TEST

struct ender {
  CUresult result;
  CUgraph graph;
};

static void *end_elsewhere(void *argument) {
  struct ender *ender = argument;
  ck_cu_ok(CtxSetCurrent(context));
  ender->result = cu->StreamEndCapture(capturing, &ender->graph);
  return NULL;
}

START_TEST(a_capture_ends_on_its_thread_unless_relaxed) {
  struct ender ender = {CUDA_SUCCESS, NULL};
  pthread_t thread;
  begin(capturing, GLOBAL);
  ck_assert_int_eq(pthread_create(&thread, NULL, end_elsewhere, &ender), 0);
  ck_assert_int_eq(pthread_join(thread, NULL), 0);
  ck_assert_int_eq(ender.result, CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD);
  end_with(capturing, CUDA_ERROR_ILLEGAL_STATE); /* but ended it is */
  begin(capturing, RELAXED);
  ck_assert_int_eq(pthread_create(&thread, NULL, end_elsewhere, &ender), 0);
  ck_assert_int_eq(pthread_join(thread, NULL), 0);
  ck_assert_int_eq(ender.result, CUDA_SUCCESS);
  ck_cu_ok(GraphDestroy(ender.graph));
}
END_TEST

/* ---- more streams in a capture */

/* other takes part from here on. */
static void fork_to_other(void) {
  ck_cu_ok(EventRecord(inside, capturing));
  ck_cu_ok(StreamWaitEvent(other, inside, 0));
}

static void join_from_other(void) {
  ck_cu_ok(EventRecord(outside, other));
  ck_cu_ok(StreamWaitEvent(capturing, outside, 0));
}

START_TEST(streams_join_by_events) {
  CUgraph graph;
  begin(capturing, GLOBAL);
  ck_cu_ok(MemsetD8Async(ptr, 1, 64, capturing));
  fork_to_other();
  ck_assert_int_eq(status_of(other), CU_STREAM_CAPTURE_STATUS_ACTIVE);
  ck_cu_ok(MemsetD8Async(ptr, 2, 8, other));
  join_from_other();
  ck_cu_ok(MemcpyDtoDAsync(ptr + 64, ptr, 64, capturing));
  ck_cu_ok(StreamEndCapture(capturing, &graph));
  ck_assert_int_eq(status_of(other), CU_STREAM_CAPTURE_STATUS_NONE);
  ck_assert_uint_eq(device_byte(ptr), 0); /* captured is not done */
  CUgraphExec exec = instantiate(graph);
  ck_cu_ok(GraphLaunch(exec, independent));
  ck_cu_ok(StreamSynchronize(independent));
  ck_assert_uint_eq(device_byte(ptr + 64), 2);
  ck_assert_uint_eq(device_byte(ptr + 64 + 8), 1);
  ck_cu_ok(GraphExecDestroy(exec));
}
END_TEST

START_TEST(an_event_of_a_capture_means_nothing_outside) {
  begin(capturing, RELAXED);
  ck_cu_ok(EventRecord(inside, capturing));
  ck_cu(EventQuery(inside), CUDA_ERROR_CAPTURED_EVENT);
  end_with(capturing, INVALIDATED);
  begin(capturing, RELAXED);
  ck_cu_ok(EventRecord(inside, capturing));
  ck_cu(EventSynchronize(inside), CUDA_ERROR_CAPTURED_EVENT);
  end_with(capturing, INVALIDATED);
  begin(capturing, RELAXED);
  ck_cu_ok(EventRecord(inside, capturing));
  end_with(capturing, CUDA_SUCCESS);
  ck_invalid(EventQuery(inside)); /* of a capture that is over */
  ck_invalid(EventSynchronize(inside));
  ck_invalid(StreamWaitEvent(independent, inside, 0));
  ck_cu_ok(EventRecord(inside, independent));
  ck_cu_ok(EventSynchronize(inside));
}
END_TEST

START_TEST(the_legacy_stream_cannot_join) {
  begin(capturing, GLOBAL);
  ck_cu_ok(EventRecord(inside, capturing));
  ck_cu(StreamWaitEvent(NULL, inside, 0), IMPLICIT);
  end_with(capturing, INVALIDATED);
}
END_TEST

START_TEST(unjoined_work_fails_the_capture) {
  begin(capturing, GLOBAL);
  fork_to_other();
  ck_cu_ok(MemsetD8Async(ptr, 1, 8, other));
  end_with(capturing, CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
  ck_assert_int_eq(status_of(other), CU_STREAM_CAPTURE_STATUS_NONE);
  begin(capturing, GLOBAL);
  fork_to_other();
  join_from_other();
  ck_cu_ok(MemsetD8Async(ptr, 1, 8, other)); /* after it was joined */
  end_with(capturing, CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
  begin(capturing, GLOBAL);
  fork_to_other(); /* without work there is nothing to join */
  end_with(capturing, CUDA_SUCCESS);
}
END_TEST

START_TEST(streams_join_by_way_of_a_third) {
  CUevent third = NULL;
  ck_cu_ok(EventCreate(&third, CU_EVENT_DISABLE_TIMING));
  begin(capturing, GLOBAL);
  fork_to_other();
  ck_cu_ok(MemsetD8Async(ptr, 1, 8, other));
  ck_cu_ok(EventRecord(third, other));
  ck_cu_ok(StreamWaitEvent(independent, third, 0));
  ck_cu_ok(MemsetD8Async(ptr, 2, 8, independent));
  ck_cu_ok(EventRecord(third, independent));
  ck_cu_ok(StreamWaitEvent(capturing, third, 0)); /* joins other too */
  end_with(capturing, CUDA_SUCCESS);
  ck_cu_ok(EventDestroy(third));
}
END_TEST

START_TEST(a_capture_ends_on_its_origin) {
  begin(capturing, GLOBAL);
  fork_to_other();
  end_with(other, CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
  ck_assert_int_eq(status_of(capturing), CU_STREAM_CAPTURE_STATUS_INVALIDATED);
  end_with(capturing, INVALIDATED);
  ck_assert_int_eq(status_of(other), CU_STREAM_CAPTURE_STATUS_NONE);
}
END_TEST

START_TEST(two_captures_do_not_merge) {
  begin(capturing, GLOBAL);
  begin(other, GLOBAL);
  ck_cu_ok(EventRecord(inside, capturing));
  ck_cu(StreamWaitEvent(other, inside, 0), CUDA_ERROR_STREAM_CAPTURE_MERGE);
  end_with(capturing, INVALIDATED);
  end_with(other, INVALIDATED);
}
END_TEST

/* The driver at hand never comes back from these. */
START_TEST(a_stream_may_be_destroyed_while_it_captures) {
  if (!device.host) return;
  CUstream stream;
  struct host_counts counts;
  ck_cu_ok(StreamCreate(&stream, 0));
  begin(stream, GLOBAL);
  ck_cu_ok(StreamDestroy(stream));
  dz_host_counts(&counts);
  ck_assert_uint_eq(counts.captures, 0);
  ck_cu_ok(CtxSynchronize());
  ck_cu_ok(StreamCreate(&stream, 0));
  begin(capturing, GLOBAL);
  ck_cu_ok(EventRecord(inside, capturing));
  ck_cu_ok(StreamWaitEvent(stream, inside, 0));
  ck_cu_ok(StreamDestroy(stream));
  end_with(capturing, INVALIDATED);
}
END_TEST

/* ---- graphs */

START_TEST(a_launch_does_what_was_captured_in_order) {
  CUgraph graph;
  struct gate gate;
  memset(pages, 9, 64);
  begin(capturing, GLOBAL);
  ck_cu_ok(MemsetD8Async(ptr, 1, 16, capturing));
  ck_cu_ok(MemcpyHtoDAsync(ptr + 16, pages, 16, capturing));
  ck_cu_ok(MemcpyDtoDAsync(ptr + 32, ptr, 32, capturing));
  ck_cu_ok(MemcpyDtoHAsync(pages + 1024, ptr + 32, 32, capturing));
  ck_cu_ok(StreamEndCapture(capturing, &graph));
  CUgraphExec exec = instantiate(graph);
  pages[0] = 8; /* read when it is launched, each time */
  close_gate(&gate, independent);
  ck_cu_ok(GraphLaunch(exec, independent));
  ck_cu(StreamQuery(independent), CUDA_ERROR_NOT_READY);
  ck_assert_uint_eq(pages[1024], 0);
  open_gate(&gate);
  ck_cu_ok(StreamSynchronize(independent));
  ck_assert_uint_eq(pages[1024], 1);
  ck_assert_uint_eq(pages[1024 + 16], 8);
  ck_assert_uint_eq(pages[1024 + 17], 9);
  pages[0] = 7;
  ck_cu_ok(GraphLaunch(exec, NULL));
  ck_cu_ok(StreamSynchronize(NULL));
  ck_assert_uint_eq(pages[1024 + 16], 7);
  ck_cu_ok(GraphExecDestroy(exec));
}
END_TEST

static void CUDA_CB count_call(void *argument) {
  ++*(int *)argument;
}

START_TEST(a_launch_calls_host_functions) {
  CUgraph graph;
  int called = 0;
  begin(capturing, GLOBAL);
  ck_cu_ok(LaunchHostFunc(capturing, count_call, &called));
  ck_cu_ok(LaunchHostFunc(capturing, count_call, &called));
  ck_cu_ok(StreamEndCapture(capturing, &graph));
  ck_assert_int_eq(called, 0);
  CUgraphExec exec = instantiate(graph);
  for (unsigned i = 0; i < 3; i++) ck_cu_ok(GraphLaunch(exec, capturing));
  ck_cu_ok(StreamSynchronize(capturing));
  ck_assert_int_eq(called, 6);
  ck_cu_ok(GraphExecDestroy(exec));
}
END_TEST

START_TEST(a_graph_outlives_the_memory_under_its_addresses) {
  CUgraph graph;
  CUmemGenericAllocationHandle handle;
  CUdeviceptr memory = make_memory(GRANULE);
  begin(capturing, GLOBAL);
  ck_cu_ok(MemsetD8Async(memory, 6, GRANULE, capturing));
  ck_cu_ok(StreamEndCapture(capturing, &graph));
  CUgraphExec exec = instantiate(graph);
  ck_cu_ok(MemUnmap(memory, GRANULE));
  ck_cu_ok(MemCreate(&handle, GRANULE, &prop, 0));
  ck_cu_ok(MemMap(memory, GRANULE, 0, handle, 0));
  ck_cu_ok(MemSetAccess(memory, GRANULE, &read_write, 1));
  ck_cu_ok(MemRelease(handle));
  ck_cu_ok(GraphLaunch(exec, capturing));
  ck_cu_ok(StreamSynchronize(capturing));
  ck_assert_uint_eq(device_byte(memory + GRANULE - 1), 6);
  ck_cu_ok(GraphExecDestroy(exec));
  drop_memory(memory, GRANULE);
}
END_TEST

START_TEST(a_launch_in_flight_needs_no_graph) {
  CUgraph graph;
  struct gate gate;
  begin(capturing, GLOBAL);
  ck_cu_ok(MemsetD8Async(ptr, 5, 8, capturing));
  ck_cu_ok(StreamEndCapture(capturing, &graph));
  CUgraphExec exec = instantiate(graph);
  close_gate(&gate, independent);
  ck_cu_ok(GraphLaunch(exec, independent));
  ck_cu_ok(GraphExecDestroy(exec));
  open_gate(&gate);
  ck_cu_ok(StreamSynchronize(independent));
  ck_assert_uint_eq(device_byte(ptr), 5);
}
END_TEST

START_TEST(empty_graphs_and_bad_ones) {
  CUgraph graph;
  CUgraphExec exec;
  begin(capturing, GLOBAL);
  ck_cu_ok(StreamEndCapture(capturing, &graph));
  ck_cu_ok(GraphInstantiateWithFlags(&exec, graph, 0));
  ck_cu_ok(GraphLaunch(exec, capturing));
  ck_cu_ok(StreamSynchronize(capturing));
  ck_cu_ok(GraphExecDestroy(exec));
  ck_cu_ok(GraphDestroy(graph));
  ck_invalid(GraphDestroy(graph));
  ck_invalid(GraphDestroy(NULL));
  ck_invalid(GraphExecDestroy(NULL));
  ck_invalid(GraphInstantiateWithFlags(&exec, NULL, 0));
  if (device.host) ck_invalid(GraphExecDestroy(exec));
  if (device.host) ck_invalid(GraphLaunch(exec, capturing));
}
END_TEST

START_TEST(modes_are_the_thread_s) {
  CUstreamCaptureMode mode = RELAXED;
  ck_cu_ok(ThreadExchangeStreamCaptureMode(&mode));
  ck_assert_int_eq(mode, GLOBAL);
  ck_cu_ok(ThreadExchangeStreamCaptureMode(&mode));
  ck_assert_int_eq(mode, RELAXED);
  if (!device.host) return;
  mode = (CUstreamCaptureMode)9;
  ck_invalid(ThreadExchangeStreamCaptureMode(&mode));
  ck_invalid(ThreadExchangeStreamCaptureMode(NULL));
}
END_TEST

/* Not between start and finish: the device is lost for the rest of the process. */
START_TEST(a_launch_on_memory_that_is_gone_costs_the_context) {
  CUgraph graph;
  CUstream stream;
  start_on("host:52MiB");
  CUdeviceptr memory = make_memory(GRANULE);
  ck_cu_ok(StreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  begin(stream, RELAXED);
  ck_cu_ok(MemsetD8Async(memory, 6, GRANULE, stream));
  ck_cu_ok(StreamEndCapture(stream, &graph));
  CUgraphExec exec = instantiate(graph);
  ck_cu_ok(MemUnmap(memory, GRANULE));
  ck_cu_ok(GraphLaunch(exec, stream));
  ck_cu(StreamSynchronize(stream), CUDA_ERROR_ILLEGAL_ADDRESS);
  ck_cu(GraphLaunch(exec, stream), CUDA_ERROR_ILLEGAL_ADDRESS);
  ck_cu_ok(GraphExecDestroy(exec));
  ck_cu_ok(MemAddressFree(memory, GRANULE));
  ck_cu_ok(CtxSetCurrent(NULL));
  ck_cu_ok(DevicePrimaryCtxRelease(device.ordinal));
}
END_TEST

#define CAPTURE_TEST(suite, test) HARNESS_FIXTURE_TEST(suite, test, start_capture, finish_capture)

int main(void) {
  Suite *suite = suite_create("host captures");
  CAPTURE_TEST(suite, calls_do_to_a_capture_what_the_driver_does);
  CAPTURE_TEST(suite, memory_may_be_mapped_while_capturing);
  CAPTURE_TEST(suite, a_non_blocking_capture_leaves_the_legacy_stream_usable);
  CAPTURE_TEST(suite, the_legacy_stream_does_not_capture);
  CAPTURE_TEST(suite, a_capture_for_which_there_is_no_memory_does_not_begin);
  CAPTURE_TEST(suite, an_invalid_capture_stays_until_it_is_ended);
  CAPTURE_TEST(suite, a_capture_ends_on_its_thread_unless_relaxed);
  CAPTURE_TEST(suite, streams_join_by_events);
  CAPTURE_TEST(suite, an_event_of_a_capture_means_nothing_outside);
  CAPTURE_TEST(suite, the_legacy_stream_cannot_join);
  CAPTURE_TEST(suite, unjoined_work_fails_the_capture);
  CAPTURE_TEST(suite, streams_join_by_way_of_a_third);
  CAPTURE_TEST(suite, a_capture_ends_on_its_origin);
  CAPTURE_TEST(suite, two_captures_do_not_merge);
  CAPTURE_TEST(suite, a_stream_may_be_destroyed_while_it_captures);
  CAPTURE_TEST(suite, a_launch_does_what_was_captured_in_order);
  CAPTURE_TEST(suite, a_launch_calls_host_functions);
  CAPTURE_TEST(suite, a_graph_outlives_the_memory_under_its_addresses);
  CAPTURE_TEST(suite, a_launch_in_flight_needs_no_graph);
  CAPTURE_TEST(suite, empty_graphs_and_bad_ones);
  CAPTURE_TEST(suite, modes_are_the_thread_s);
  HARNESS_TEST(suite, a_launch_on_memory_that_is_gone_costs_the_context);
  return harness_run(suite);
}
