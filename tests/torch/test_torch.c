/* SPDX-License-Identifier: Apache-2.0
 *
 * libdrowse-torch's entry points, called as PyTorch calls them.
 */
#include "drowse-torch.h"

#include "fixture.h"

#include "torch/heaps.h"

enum { BYTES = 3 * 1024 * 1024, DEVICE = 1 };

static void start_torch(void) {
  start();
  ck_ok(drowse_torch_heap_set(DEVICE, heap));
}

static void finish_torch(void) {
  ck_ok(drowse_torch_heap_set(DEVICE, NULL));
  finish();
}

/* Between start_torch and finish_torch. */
#define TORCH_TEST(suite, test) HARNESS_FIXTURE_TEST(suite, test, start_torch, finish_torch)

/* What PyTorch would get on a stream, in a scope of the tag. */
static void *torch_alloc_on(const char *tag, size_t bytes, drowse_stream stream) {
  void *ptr = NULL;
  DROWSE_SCOPE(tag, DROWSE_EXPANDABLE_INHERIT) ptr = drowse_torch_malloc(bytes, DEVICE, stream);
  return ptr;
}

static void *torch_alloc(const char *tag, size_t bytes) {
  return torch_alloc_on(tag, bytes, NULL);
}

static void torch_free(void *ptr) {
  drowse_torch_free(ptr, BYTES, DEVICE, NULL);
}

static void ck_failed(drowse_status status) {
  drowse_error error = {.struct_size = sizeof error};
  ck_ok(drowse_error_get(&error));
  ck_assert_str_eq(drowse_status_name(error.status), drowse_status_name(status));
}

/* ---- memory */

START_TEST(the_frame_says_the_tag_and_the_call_the_stream) {
  CUstream stream = make_stream();
  void *weights = torch_alloc_on("weights", BYTES, stream), *outside = drowse_torch_malloc(BYTES, DEVICE, NULL);
  drowse_block block = {.struct_size = sizeof block};
  ck_ok(drowse_block_get(heap, weights, &block));
  ck_assert_str_eq(block.tag, "weights");
  ck_assert_ptr_eq(block.stream, stream);
  ck_assert_uint_eq(block.bytes, BYTES);
  ck_ok(drowse_block_get(heap, outside, &block));
  ck_assert_str_eq(block.tag, "default");
  torch_free(weights);
  torch_free(outside);
  ck_assert_uint_eq(stats_of(NULL).live_blocks, 0);
  drop_stream(stream);
}
END_TEST

START_TEST(no_bytes_are_no_memory) {
  ck_assert_ptr_null(drowse_torch_malloc(0, DEVICE, NULL));
  torch_free(NULL);
  ck_assert_uint_eq(stats_of(NULL).live_blocks, 0);
}
END_TEST

START_TEST(want_of_memory_is_null_and_changes_nothing) {
  void *kept = torch_alloc("weights", BYTES);
  write_pattern(kept, BYTES, 1);
  drowse_stats before = stats_of(NULL);
  ck_assert_ptr_null(torch_alloc("weights", 1 << 30));
  ck_failed(DROWSE_ERR_NO_DEVICE_MEMORY);
  ck_says("\"weights\"");
  drowse_stats after = stats_of(NULL);
  ck_assert_uint_eq(after.live_bytes, before.live_bytes);
  ck_assert_uint_eq(after.mapped_bytes, before.mapped_bytes);
  ck_assert_uint_eq(after.reserved_bytes, before.reserved_bytes);
  ck_assert(has_pattern(kept, BYTES, 1));
  void *next = torch_alloc("weights", BYTES);
  ck_assert_ptr_nonnull(next);
  torch_free(next);
  torch_free(kept);
}
END_TEST

START_TEST(what_it_did_not_give_it_does_not_free) {
  int foreign;
  void *ptr = torch_alloc("weights", BYTES);
  torch_free(&foreign);
  torch_free((char *)ptr + 512);
  drowse_torch_free(ptr, BYTES, DEVICE + 1, NULL); /* which has no heap, and gets none by this */
  drowse_torch_free(ptr, BYTES, -1, NULL);
  ck_assert_ptr_null(dz_heaps_opened(DEVICE + 1));
  ck_assert_uint_eq(stats_of(NULL).live_blocks, 1);
  torch_free(ptr);
}
END_TEST

START_TEST(memory_of_a_sleeping_tag_is_freed_and_none_is_given) {
  void *first = torch_alloc("weights", BYTES), *second = torch_alloc("weights", BYTES);
  write_pattern(second, BYTES, 2);
  ck_ok(sleep_tag("weights", DROWSE_OFFLOAD));
  torch_free(first);
  ck_assert_uint_eq(stats_of("weights").backup_bytes, BYTES);
  ck_assert_ptr_null(torch_alloc("weights", BYTES));
  ck_failed(DROWSE_ERR_ASLEEP);
  ck_ok(wake_all_tags());
  ck_assert(has_pattern(second, BYTES, 2));
  torch_free(second);
}
END_TEST

START_TEST(a_free_does_not_wait_for_the_device) {
  struct gate gate;
  CUstream stream = make_stream();
  void *ptr = torch_alloc_on("weights", BYTES, stream);
  close_gate(&gate, stream);
  drowse_torch_free(ptr, BYTES, DEVICE, stream); /* a wait would never end */
  ck_assert_ptr_eq(torch_alloc_on("weights", BYTES, stream), ptr);
  drowse_torch_free(ptr, BYTES, DEVICE, stream);
  open_gate(&gate);
  ck_cu(StreamSynchronize(stream)); /* it is past the gate */
  drop_stream(stream);
}
END_TEST

/* The device has 64 MiB, which is as much as may be kept: the heap is one that has more. */
START_TEST(what_is_unused_and_idle_goes_back_to_the_device) {
  enum { LARGE = 96 * 1024 * 1024 };
  struct gate gate;
  open_with((drowse_heap_options){.device = "host:256MiB"});
  ck_ok(drowse_torch_heap_set(DEVICE, heap));
  CUstream stream = make_stream();
  void *busy = torch_alloc_on("weights", LARGE, stream), *next = torch_alloc("weights", BYTES);
  close_gate(&gate, stream);
  drowse_torch_free(busy, LARGE, DEVICE, stream);
  ck_assert_uint_ge(stats_of(NULL).mapped_bytes, LARGE);
  open_gate(&gate);
  ck_cu(StreamSynchronize(stream));
  torch_free(next);
  ck_assert_uint_le(stats_of(NULL).mapped_bytes, LARGE * 2 / 3);
  drop_stream(stream);
  finish_torch();
}
END_TEST

START_TEST(a_recorded_stream_is_waited_for) {
  struct gate gate;
  CUstream stream = make_stream(), other = make_stream();
  void *ptr = torch_alloc_on("weights", BYTES, stream);
  close_gate(&gate, other);
  drowse_torch_record_stream(ptr, other);
  drowse_torch_free(ptr, BYTES, DEVICE, stream);
  void *next = torch_alloc_on("weights", BYTES, stream);
  ck_assert_ptr_ne(next, ptr);
  open_gate(&gate);
  ck_cu(StreamSynchronize(other));
  drowse_torch_reset();
  ck_assert_uint_eq(stats_of("weights").live_blocks, 1);
  drowse_torch_free(next, BYTES, DEVICE, stream);
  drop_stream(stream);
  drop_stream(other);
}
END_TEST

START_TEST(the_base_of_an_address_is_its_block_s) {
  int foreign;
  size_t size = 1;
  char *ptr = torch_alloc("weights", BYTES);
  ck_assert_ptr_eq(drowse_torch_base_alloc(ptr + 1000, &size), ptr);
  ck_assert_uint_eq(size, BYTES);
  ck_assert_ptr_eq(drowse_torch_base_alloc(ptr + 1000, NULL), ptr);
  ck_assert_ptr_eq(drowse_torch_base_alloc(&foreign, &size), &foreign);
  ck_assert_uint_eq(size, 0);
  torch_free(ptr);
}
END_TEST

START_TEST(reset_gives_unused_memory_back) {
  void *kept = torch_alloc("weights", BYTES);
  uint64_t free_bytes = device_free_bytes();
  torch_free(torch_alloc("kv_cache", 16 * MIB));
  ck_assert_uint_lt(device_free_bytes(), free_bytes);
  drowse_torch_reset();
  ck_assert_uint_ge(device_free_bytes(), free_bytes);
  torch_free(kept);
}
END_TEST

/* ---- captures */

START_TEST(memory_comes_and_goes_while_a_stream_captures) {
  CUstream stream = make_stream();
  begin_capture(stream);
  void *ptr = torch_alloc_on("graph", BYTES, stream), *gone = torch_alloc_on("graph", BYTES, stream);
  ck_assert_ptr_nonnull(ptr);
  ck_cu(MemsetD8Async((CUdeviceptr)(uintptr_t)ptr, 7, BYTES, stream));
  drowse_torch_free(gone, BYTES, DEVICE, stream);
  drowse_torch_reset(); /* nothing can be waited for */
  end_capture(stream);
  ck_assert(is_filled(ptr, BYTES, 7));
  drowse_torch_free(ptr, BYTES, DEVICE, stream);
  drop_stream(stream);
}
END_TEST

START_TEST(a_heap_may_be_opened_while_a_stream_captures) {
  ck_assert_int_eq(setenv("DROWSE_DEVICE", "host:64MiB", 1), 0);
  CUstream stream = make_stream();
  begin_capture(stream);
  void *ptr = drowse_torch_malloc(BYTES, DEVICE + 1, stream);
  ck_assert_ptr_nonnull(ptr);
  end_capture(stream);
  drowse_torch_free(ptr, BYTES, DEVICE + 1, stream);
  drowse_heap *opened = drowse_torch_heap(DEVICE + 1);
  ck_assert_ptr_ne(opened, heap);
  ck_ok(drowse_torch_heap_set(DEVICE + 1, NULL));
  ck_ok(drowse_heap_close(opened));
  ck_cu(StreamDestroy(stream));
}
END_TEST

/* ---- heaps */

static void close_torch_heap(int device) {
  drowse_heap *opened = dz_heaps_opened(device);
  ck_ok(drowse_torch_heap_set(device, NULL));
  ck_ok(drowse_heap_close(opened));
}

START_TEST(a_heap_is_opened_on_the_host_device_where_the_environment_says_so) {
  struct usage before = usage_now();
  drowse_heap_info info = {.struct_size = sizeof info};
  ck_assert_int_eq(setenv("DROWSE_DEVICE", "host:48MiB", 1), 0);
  void *ptr = drowse_torch_malloc(BYTES, 0, NULL);
  drowse_heap *opened = drowse_torch_heap(0);
  ck_assert_ptr_nonnull(ptr);
  ck_assert_ptr_eq(drowse_torch_heap(0), opened);
  ck_assert_ptr_ne(drowse_torch_heap(1), opened); /* each device has its own */
  ck_ok(drowse_heap_info_get(opened, &info));
  ck_assert_str_eq(info.device, "host:48MiB");
  close_torch_heap(0);
  close_torch_heap(1);
  ck_nothing_left(&before);
}
END_TEST

START_TEST(the_framework_says_which_gpu) {
  ck_assert_int_eq(setenv("DROWSE_DEVICE", "cuda:3", 1), 0);
  ck_assert_ptr_null(drowse_torch_heap(127)); /* no machine has as many */
  ck_failed(DROWSE_ERR_NO_DEVICE);
  ck_assert_int_eq(unsetenv("DROWSE_DEVICE"), 0);
  ck_assert_ptr_null(drowse_torch_malloc(BYTES, 127, NULL));
  ck_failed(DROWSE_ERR_NO_DEVICE);
}
END_TEST

START_TEST(a_heap_that_could_not_be_opened_is_tried_again) {
  ck_assert_int_eq(setenv("DROWSE_DEVICE", "host:large", 1), 0);
  ck_assert_ptr_null(drowse_torch_malloc(BYTES, 0, NULL));
  ck_says("host:large");
  ck_assert_ptr_null(drowse_torch_heap(0));
  ck_assert_int_eq(setenv("DROWSE_DEVICE", "host:48MiB", 1), 0);
  ck_assert_ptr_nonnull(drowse_torch_malloc(BYTES, 0, NULL));
  close_torch_heap(0);
}
END_TEST

START_TEST(device_numbers_have_an_end) {
  const int numbers[] = {-1, 128};
  for (size_t at = 0; at < 2; at++) {
    char text[16];
    (void)snprintf(text, sizeof text, "device %d:", numbers[at]);
    ck_assert_ptr_null(drowse_torch_heap(numbers[at]));
    ck_failed(DROWSE_ERR_INVALID);
    ck_says(text);
    ck_assert_ptr_null(drowse_torch_malloc(BYTES, numbers[at], NULL));
    ck_status(drowse_torch_heap_set(numbers[at], NULL), DROWSE_ERR_INVALID);
  }
}
END_TEST

START_TEST(a_device_has_one_heap) {
  ck_status(drowse_torch_heap_set(DEVICE, heap), DROWSE_ERR_BUSY);
  ck_says("device 1");
  ck_assert_ptr_eq(drowse_torch_heap(DEVICE), heap);
}
END_TEST

/* ---- threads */

enum { THREADS = 8, ROUNDS = 200 };

struct worker {
  pthread_t thread;
  pthread_barrier_t *barrier;
  char tag[16];
  bool whole; /* every block had the thread's tag */
};

static void *work(void *argument) {
  struct worker *worker = argument;
  (void)pthread_barrier_wait(worker->barrier);
  worker->whole = true;
  for (size_t round = 0; round < ROUNDS; round++) {
    drowse_block block = {.struct_size = sizeof block};
    void *ptr = torch_alloc(worker->tag, 1 + round * 1000);
    worker->whole = worker->whole && ptr != NULL && drowse_block_get(dz_heaps_opened(DEVICE), ptr, &block) == DROWSE_OK &&
                    strcmp(block.tag, worker->tag) == 0;
    torch_free(ptr);
  }
  return NULL;
}

/* Another thread opens the device's heap while this one does (--wrap). */
enum { CONTESTED = 3 };
static bool contested;
static drowse_heap *theirs;

drowse_status __real_drowse_heap_open(drowse_heap **result, const drowse_heap_options *options);
drowse_status __wrap_drowse_heap_open(drowse_heap **result, const drowse_heap_options *options);
drowse_status __wrap_drowse_heap_open(drowse_heap **result, const drowse_heap_options *options) {
  drowse_status status = __real_drowse_heap_open(result, options);
  if (status != DROWSE_OK || !contested) return status;
  contested = false;
  ck_ok(drowse_heap_open(&theirs, options));
  ck_ok(dz_heaps_set(CONTESTED, theirs));
  return DROWSE_OK;
}

START_TEST(who_comes_second_with_a_heap_uses_the_first) {
  struct usage before = usage_now();
  ck_assert_int_eq(setenv("DROWSE_DEVICE", "host:32MiB", 1), 0);
  contested = true;
  ck_assert_ptr_eq(dz_heaps_get(CONTESTED), theirs);
  ck_assert(!contested);
  ck_assert_ptr_eq(dz_heaps_get(CONTESTED), theirs);
  ck_assert_int_eq(unsetenv("DROWSE_DEVICE"), 0);
  ck_ok(dz_heaps_set(CONTESTED, NULL));
  ck_ok(drowse_heap_close(theirs));
  ck_nothing_left(&before);
}
END_TEST

/* All of them want the heap at the same moment, and get one and the same. */
START_TEST(threads_share_a_heap_and_have_tags_of_their_own) {
  struct usage before = usage_now();
  pthread_barrier_t barrier;
  struct worker workers[THREADS];
  ck_assert_int_eq(setenv("DROWSE_DEVICE", "host:64MiB", 1), 0);
  ck_assert_int_eq(pthread_barrier_init(&barrier, NULL, THREADS), 0);
  for (int at = 0; at < THREADS; at++) {
    workers[at].barrier = &barrier;
    (void)snprintf(workers[at].tag, sizeof workers[at].tag, "of-%d", at);
    ck_assert_int_eq(pthread_create(&workers[at].thread, NULL, work, &workers[at]), 0);
  }
  for (int at = 0; at < THREADS; at++) {
    ck_assert_int_eq(pthread_join(workers[at].thread, NULL), 0);
    ck_assert(workers[at].whole);
  }
  ck_assert_int_eq(pthread_barrier_destroy(&barrier), 0);
  heap = dz_heaps_opened(DEVICE);
  ck_assert_uint_eq(stats_of(NULL).live_blocks, 0);
  for (int at = 0; at < THREADS; at++) ck_assert_uint_eq(stats_of(workers[at].tag).live_blocks, 0);
  close_torch_heap(DEVICE);
  ck_nothing_left(&before);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("torch");
  TORCH_TEST(suite, the_frame_says_the_tag_and_the_call_the_stream);
  TORCH_TEST(suite, no_bytes_are_no_memory);
  TORCH_TEST(suite, want_of_memory_is_null_and_changes_nothing);
  TORCH_TEST(suite, what_it_did_not_give_it_does_not_free);
  TORCH_TEST(suite, memory_of_a_sleeping_tag_is_freed_and_none_is_given);
  TORCH_TEST(suite, a_free_does_not_wait_for_the_device);
  HARNESS_TEST(suite, what_is_unused_and_idle_goes_back_to_the_device);
  TORCH_TEST(suite, a_recorded_stream_is_waited_for);
  TORCH_TEST(suite, the_base_of_an_address_is_its_block_s);
  TORCH_TEST(suite, reset_gives_unused_memory_back);
  TORCH_TEST(suite, memory_comes_and_goes_while_a_stream_captures);
  TORCH_TEST(suite, a_heap_may_be_opened_while_a_stream_captures);
  HARNESS_TEST(suite, a_heap_is_opened_on_the_host_device_where_the_environment_says_so);
  HARNESS_TEST(suite, the_framework_says_which_gpu);
  HARNESS_TEST(suite, a_heap_that_could_not_be_opened_is_tried_again);
  HARNESS_TEST(suite, device_numbers_have_an_end);
  TORCH_TEST(suite, a_device_has_one_heap);
  HARNESS_TEST(suite, who_comes_second_with_a_heap_uses_the_first);
  HARNESS_TEST(suite, threads_share_a_heap_and_have_tags_of_their_own);
  return harness_run(suite);
}
