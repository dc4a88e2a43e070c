/* SPDX-License-Identifier: Apache-2.0
 *
 * What the tests of heaps and of sleep share: a heap on the host device, with its context current, and a look at what is left
 * when it is closed; blocks with contents that are known; gates and other threads, so that no test depends on time.
 */
#ifndef TESTS_FIXTURE_H
#define TESTS_FIXTURE_H

#include "config.h"

#include <dirent.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "driver/host.h"
#include "harness.h"
#include "heap/heap.h"

#define KIB (UINT64_C(1) << 10)
#define MIB (UINT64_C(1) << 20)
#define GRANULE (2 * MIB)

/* ---- the process: nothing may be left of a heap */

struct usage {
  struct host_counts host;
  size_t threads, files;
};

static inline size_t count_entries(const char *path) {
  DIR *directory = opendir(path);
  ck_assert_ptr_nonnull(directory);
  size_t count = 0;
  while (readdir(directory) != NULL) count++;
  (void)closedir(directory);
  return count;
}

static inline void *do_nothing(void *nothing) {
  return nothing;
}

/* A sanitizer may make a thread of its own along with the first one, so there is one before threads are counted. */
static inline struct usage usage_now(void) {
  pthread_t thread;
  ck_assert_int_eq(pthread_create(&thread, NULL, do_nothing, NULL), 0);
  ck_assert_int_eq(pthread_join(thread, NULL), 0);
  struct usage usage = {.threads = count_entries("/proc/self/task"), .files = count_entries("/proc/self/fd")};
  dz_host_counts(&usage.host);
  return usage;
}

/* A thread that has been joined may be listed for a moment: the kernel takes it off the list after it wakes who waits. One that
 * was left behind is listed for ever. */
static inline void await_threads(size_t threads) {
  for (unsigned looks = 0; count_entries("/proc/self/task") > threads; looks++) {
    if (looks == 100000) ck_abort_msg("a thread is left");
    (void)sched_yield();
  }
}

/* before: when no heap was open. */
static inline void ck_nothing_left(const struct usage *before) {
  await_threads(before->threads);
  struct usage now = usage_now();
  uint64_t reclaimed = now.host.reclaimed - before->host.reclaimed;
  now.host.reclaimed = 0;
  struct host_counts nothing = {0};
  ck_assert_uint_eq(reclaimed, 0); /* what was left until the context's end took it */
  ck_assert_mem_eq(&now.host, &nothing, sizeof nothing);
  ck_assert_uint_eq(now.files, before->files);
}

/* ---- the heap */

static drowse_heap *heap;
static const struct driver *cu; /* the heap's; a test may put wrappers into heap->device.driver */
static struct usage usage_before;

#define ck_cu(call)                                                               \
  do {                                                                            \
    CUresult ck_got = cu->call;                                                   \
    ck_assert_msg(ck_got == CUDA_SUCCESS, "%s: CUresult %d", #call, (int)ck_got); \
  } while (0)

static inline void open_with(drowse_heap_options options) {
  options.struct_size = sizeof options;
  if (options.device == NULL) options.device = "host:64MiB";
  usage_before = usage_now();
  ck_ok(drowse_heap_open(&heap, &options));
  cu = &heap->device.driver;
  ck_cu(CtxSetCurrent(heap->context));
}

static inline void start(void) {
  open_with((drowse_heap_options){0});
}

static inline void close_heap(void) {
  ck_cu(CtxSetCurrent(NULL));
  ck_ok(drowse_heap_close(heap));
  heap = NULL;
  ck_nothing_left(&usage_before);
}

static inline void finish(void) {
  close_heap();
}

/* A test between start and finish. */
#define HEAP_TEST(suite, test) HARNESS_FIXTURE_TEST(suite, test, start, finish)

static inline CUstream make_stream(void) {
  CUstream stream = NULL;
  ck_cu(StreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  return stream;
}

/* For a stream that the heap has seen. */
static inline void drop_stream(CUstream stream) {
  ck_ok(drowse_stream_retire(heap, stream));
  ck_cu(StreamDestroy(stream));
}

static inline drowse_stats stats_of(const char *tag) {
  drowse_stats stats = {.struct_size = sizeof stats};
  ck_ok(drowse_stats_get(heap, tag, &stats));
  return stats;
}

static inline uint64_t device_free_bytes(void) {
  drowse_heap_info info = {.struct_size = sizeof info};
  ck_ok(drowse_heap_info_get(heap, &info));
  return info.free_bytes;
}

#define ck_state(tag, expected) ck_assert_int_eq(stats_of(tag).state, expected)
#define ck_says(word) \
  ck_assert_msg(strstr(drowse_last_error(), word) != NULL, "\"%s\" does not say %s", drowse_last_error(), word)

static inline void ck_error_tag(const char *tag) {
  drowse_error error = {.struct_size = sizeof error};
  ck_ok(drowse_error_get(&error));
  ck_assert_str_eq(error.tag, tag);
}

/* ---- blocks with contents */

/* A number of no particular kind, the same in every run. */
static inline uint64_t next_random(uint64_t *state) {
  uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
  z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
  return z ^ z >> 31;
}

static inline uint64_t random_below(uint64_t *state, uint64_t bound) {
  return next_random(state) % bound;
}

static inline void fill_pattern(unsigned char *bytes, size_t count, uint64_t seed) {
  for (size_t at = 0; at < count; at += sizeof seed) {
    uint64_t word = next_random(&seed);
    memcpy(bytes + at, &word, count - at < sizeof word ? count - at : sizeof word);
  }
}

static inline void *xmalloc(size_t bytes) {
  void *memory = malloc(bytes);
  ck_assert_ptr_nonnull(memory);
  return memory;
}

static inline void write_pattern(void *ptr, size_t bytes, uint64_t seed) {
  unsigned char *host = xmalloc(bytes);
  fill_pattern(host, bytes, seed);
  ck_ok(drowse_copy_in(heap, ptr, host, bytes));
  free(host);
}

static inline bool has_pattern(const void *ptr, size_t bytes, uint64_t seed) {
  unsigned char *expected = xmalloc(bytes), *found = xmalloc(bytes);
  fill_pattern(expected, bytes, seed);
  memset(found, 0, bytes);
  ck_ok(drowse_copy_out(heap, found, ptr, bytes));
  bool same = memcmp(expected, found, bytes) == 0;
  free(expected);
  free(found);
  return same;
}

static inline bool is_filled(const void *ptr, size_t bytes, unsigned char value) {
  unsigned char *found = xmalloc(bytes);
  size_t at = 0;
  ck_ok(drowse_copy_out(heap, found, ptr, bytes));
  while (at < bytes && found[at] == value) at++;
  free(found);
  return at == bytes;
}

static inline void *alloc_on(const char *tag, size_t bytes, drowse_stream stream) {
  void *ptr = NULL;
  drowse_alloc_options options = {.struct_size = sizeof options, .tag = tag};
  ck_ok(drowse_alloc_with(heap, bytes, stream, &options, &ptr));
  ck_assert_ptr_nonnull(ptr);
  return ptr;
}

static inline void *alloc_tag(const char *tag, size_t bytes) {
  return alloc_on(tag, bytes, NULL);
}

/* ---- a gate in a stream: work behind it stays undone until it opens */

struct gate {
  sem_t reached, open;
};

static inline void wait_semaphore(sem_t *semaphore) {
  while (sem_wait(semaphore) != 0) continue;
}

static inline void CUDA_CB stand_at_gate(void *argument) {
  struct gate *gate = argument;
  (void)sem_post(&gate->reached);
  wait_semaphore(&gate->open);
}

/* On return the stream stands at the gate. */
static inline void close_gate(struct gate *gate, CUstream stream) {
  ck_assert_int_eq(sem_init(&gate->reached, 0, 0), 0);
  ck_assert_int_eq(sem_init(&gate->open, 0, 0), 0);
  ck_cu(LaunchHostFunc(stream, stand_at_gate, gate));
  wait_semaphore(&gate->reached);
}

static inline void open_gate(struct gate *gate) {
  (void)sem_post(&gate->open);
}

/* ---- captures */

static inline void begin_capture(CUstream stream) {
  ck_cu(StreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
}

/* The capture is whole: its graph runs. */
static inline void end_capture(CUstream stream) {
  CUgraph graph = NULL;
  CUgraphExec executable = NULL;
  ck_cu(StreamEndCapture(stream, &graph));
  ck_cu(GraphInstantiateWithFlags(&executable, graph, 0));
  ck_cu(GraphLaunch(executable, stream));
  ck_cu(StreamSynchronize(stream));
  ck_cu(GraphExecDestroy(executable));
  ck_cu(GraphDestroy(graph));
}

/* In place of StreamIsCapturing: another thread begins to capture on this stream as soon as drowse has been told that it does
 * not. NULL once it has. */
static CUstream captured_meanwhile;

static inline CUresult answer_and_capture(CUstream stream, CUstreamCaptureStatus *status) {
  CUresult code = dz_host_driver.StreamIsCapturing(stream, status);
  if (stream != NULL && stream == captured_meanwhile && code == CUDA_SUCCESS && *status == CU_STREAM_CAPTURE_STATUS_NONE) {
    captured_meanwhile = NULL;
    ck_cu(StreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
  }
  return code;
}

/* ---- sleep and wake, here or on another thread */

static inline drowse_status sleep_tag(const char *tag, drowse_action action) {
  return drowse_sleep(heap, &(drowse_rule){.tag = tag, .action = action}, 1, NULL);
}

static inline drowse_status wake_tag(const char *tag) {
  return drowse_wake(heap, &tag, 1, NULL);
}

static inline drowse_status wake_all_tags(void) {
  return drowse_wake(heap, NULL, 0, NULL);
}

/* A call on a thread of its own, and what came of it. */
struct call {
  pthread_t thread;
  drowse_status (*run)(void *argument);
  void *argument;
  drowse_status status;
  char error[512];
};

static inline void *call_main(void *argument) {
  struct call *call = argument;
  call->status = call->run(call->argument);
  (void)snprintf(call->error, sizeof call->error, "%s", drowse_last_error());
  return NULL;
}

static inline void call_start(struct call *call, drowse_status (*run)(void *argument), void *argument) {
  *call = (struct call){.run = run, .argument = argument};
  ck_assert_int_eq(pthread_create(&call->thread, NULL, call_main, call), 0);
}

static inline drowse_status call_end(struct call *call) {
  ck_assert_int_eq(pthread_join(call->thread, NULL), 0);
  return call->status;
}

#define ck_call_end(call, expected)                                                               \
  do {                                                                                            \
    drowse_status ck_ended = call_end(call);                                                      \
    ck_assert_msg(ck_ended == (expected), "%s: %s", drowse_status_name(ck_ended), (call)->error); \
  } while (0)

static inline drowse_status run_offload(void *tag) {
  return sleep_tag(tag, DROWSE_OFFLOAD);
}

#endif
