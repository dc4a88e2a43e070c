/* SPDX-License-Identifier: Apache-2.0
 *
 * Streams and events of the host device: what runs when, who waits for whom, and what a fault costs. Gates in streams keep work
 * undone for as long as a test wants, so nothing here depends on time.
 */
#include "fixture.h"

#include <dirent.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#define NOT_READY CUDA_ERROR_NOT_READY

static CUstream blocking, independent;
static CUdeviceptr ptr;
static unsigned char *pages; /* registered */
enum { PAGES = 1 << 16 };

static void start_streams(void) {
  start();
  ck_cu_ok(StreamCreate(&blocking, CU_STREAM_DEFAULT));
  ck_cu_ok(StreamCreate(&independent, CU_STREAM_NON_BLOCKING));
  ptr = make_memory(GRANULE);
  ck_cu_ok(MemsetD8Async(ptr, 0, GRANULE, NULL));
  ck_cu_ok(StreamSynchronize(NULL));
  pages = make_pages(PAGES);
  ck_cu_ok(MemHostRegister(pages, PAGES, 0));
}

static void finish_streams(void) {
  ck_cu_ok(MemHostUnregister(pages));
  drop_pages(pages, PAGES);
  drop_memory(ptr, GRANULE);
  ck_cu_ok(StreamDestroy(blocking));
  ck_cu_ok(StreamDestroy(independent));
  finish();
}

static CUevent make_event(void) {
  CUevent event = NULL;
  ck_cu_ok(EventCreate(&event, CU_EVENT_DISABLE_TIMING));
  return event;
}

/* ---- work is late, and in order */

START_TEST(registered_memory_is_copied_when_the_stream_gets_there) {
  struct gate gate;
  ck_cu_ok(MemsetD8Async(ptr, 7, 64, NULL));
  ck_cu_ok(StreamSynchronize(NULL));
  close_gate(&gate, blocking);
  ck_cu_ok(MemcpyDtoHAsync(pages, ptr, 64, blocking));
  ck_cu(StreamQuery(blocking), NOT_READY);
  ck_assert_uint_eq(pages[0], 0);
  open_gate(&gate);
  ck_cu_ok(StreamSynchronize(blocking));
  ck_assert_uint_eq(pages[0], 7);
  ck_assert_uint_eq(pages[63], 7);
  ck_assert_uint_eq(pages[64], 0);
  ck_cu_ok(StreamQuery(blocking));
}
END_TEST

START_TEST(registered_memory_is_read_when_the_stream_gets_there) {
  struct gate gate;
  pages[0] = 1;
  close_gate(&gate, blocking);
  ck_cu_ok(MemcpyHtoDAsync(ptr, pages, 1, blocking));
  pages[0] = 2; /* what a program must not do, and what shows when the copy is made */
  open_gate(&gate);
  ck_cu_ok(StreamSynchronize(blocking));
  ck_assert_uint_eq(device_byte(ptr), 2);
}
END_TEST

START_TEST(pageable_memory_is_read_at_the_call) {
  struct gate gate;
  unsigned char *pageable = make_pages(PAGES);
  pageable[0] = 1;
  close_gate(&gate, blocking);
  ck_cu_ok(MemcpyHtoDAsync(ptr, pageable, PAGES, blocking));
  memset(pageable, 2, PAGES);
  drop_pages(pageable, PAGES);
  ck_cu(StreamQuery(blocking), NOT_READY);
  open_gate(&gate);
  ck_cu_ok(StreamSynchronize(blocking));
  ck_assert_uint_eq(device_byte(ptr), 1);
  ck_assert_uint_eq(device_byte(ptr + 1), 0);
}
END_TEST

START_TEST(pageable_memory_is_written_before_the_call_returns) {
  unsigned char byte = 0;
  ck_cu_ok(MemsetD8Async(ptr, 9, 64, blocking));
  ck_cu_ok(MemcpyDtoHAsync(&byte, ptr, 1, blocking));
  ck_assert_uint_eq(byte, 9);
}
END_TEST

START_TEST(large_pageable_copies_arrive) {
  const size_t bytes = 9 * MIB + 17;
  CUdeviceptr large = make_memory(10 * MIB);
  unsigned char *in = make_pages(bytes), *out = make_pages(bytes);
  for (size_t at = 0; at < bytes; at++) in[at] = (unsigned char)(at * 31 + at / 4096);
  ck_cu_ok(MemcpyHtoDAsync(large + 3, in, bytes, blocking));
  ck_cu_ok(MemcpyDtoDAsync(large + 3, large + 3, bytes, blocking));
  ck_cu_ok(MemcpyDtoHAsync(out, large + 3, bytes, blocking));
  ck_assert(memcmp(in, out, bytes) == 0);
  drop_pages(in, bytes);
  drop_pages(out, bytes);
  drop_memory(large, 10 * MIB);
}
END_TEST

/* ---- many copies by one call */

static CUresult copy_many(CUdeviceptr *to, CUdeviceptr *from, size_t *bytes, size_t count, CUstream stream) {
  CUmemcpyAttributes attributes = {.srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM};
  size_t attributes_from = 0;
  return cu->MemcpyBatchAsync(to, from, bytes, count, &attributes, &attributes_from, 1, stream);
}

START_TEST(many_copies_go_by_one_call) {
  struct gate gate;
  CUdeviceptr host = (CUdeviceptr)(uintptr_t)pages;
  CUdeviceptr in_to[] = {ptr, ptr + 512, ptr + 1024}, in_from[] = {host + 300, host + 100, host};
  CUdeviceptr out_to[] = {host + 1000, host + 1100}, out_from[] = {ptr + 1024, ptr + 512};
  size_t in_bytes[] = {100, 200, 50}, out_bytes[] = {50, 100};
  for (unsigned i = 0; i < 400; i++) pages[i] = (unsigned char)(i * 7);
  close_gate(&gate, independent);
  ck_cu_ok(MemsetD8Async(ptr, 0, 4096, independent));
  ck_assert_int_eq(copy_many(in_to, in_from, in_bytes, 3, independent), CUDA_SUCCESS);
  ck_assert_int_eq(copy_many(out_to, out_from, out_bytes, 2, independent), CUDA_SUCCESS);
  pages[1000] = 1; /* nothing has gone yet */
  open_gate(&gate);
  ck_cu_ok(StreamSynchronize(independent));
  ck_assert_uint_eq(device_byte(ptr + 99), (unsigned char)(399 * 7));
  ck_assert_uint_eq(device_byte(ptr + 100), 0);
  ck_assert_int_eq(memcmp(pages + 1000, pages, 50), 0);
  ck_assert_int_eq(memcmp(pages + 1100, pages + 100, 100), 0);
}
END_TEST

START_TEST(many_copies_with_bad_arguments_are_refused) {
  CUdeviceptr host = (CUdeviceptr)(uintptr_t)pages, to[] = {ptr, ptr + 512}, from[] = {host, host + 512};
  size_t bytes[] = {8, 8}, nothing[] = {8, 0};
  ck_assert_int_eq(copy_many(to, from, bytes, 2, NULL), CUDA_ERROR_INVALID_VALUE);
  ck_assert_int_eq(copy_many(to, from, bytes, 2, CU_STREAM_LEGACY), CUDA_ERROR_INVALID_VALUE);
  ck_assert_int_eq(copy_many(to, from, bytes, 0, blocking), CUDA_ERROR_INVALID_VALUE);
  ck_assert_int_eq(copy_many(to, from, nothing, 2, blocking), CUDA_ERROR_INVALID_VALUE);
  ck_cu(MemcpyBatchAsync(to, from, bytes, 2, NULL, NULL, 0, blocking), CUDA_ERROR_INVALID_VALUE);
  ck_cu_ok(StreamSynchronize(blocking)); /* some may have been done */
}
END_TEST

START_TEST(work_of_a_stream_is_in_order) {
  struct gate gate;
  close_gate(&gate, independent);
  for (unsigned i = 1; i <= 100; i++) ck_cu_ok(MemsetD8Async(ptr, (unsigned char)i, 8, independent));
  ck_cu_ok(MemcpyDtoDAsync(ptr + 100, ptr, 8, independent));
  ck_cu_ok(MemsetD8Async(ptr, 101, 8, independent));
  open_gate(&gate);
  ck_cu_ok(StreamSynchronize(independent));
  ck_assert_uint_eq(device_byte(ptr), 101);
  ck_assert_uint_eq(device_byte(ptr + 107), 100);
}
END_TEST

/* ---- the legacy default stream */

/* Whether a gate had been opened when a stream got to where this was put. */
struct passage {
  atomic_bool opened, seen_opened;
};

static void CUDA_CB look_at_gate(void *argument) {
  struct passage *passage = argument;
  atomic_store(&passage->seen_opened, atomic_load(&passage->opened));
}

/* Gives a stream that does not wait, as it should, every opportunity to show it. */
static void let_others_run(void) {
  for (unsigned i = 0; i < 200; i++) {
    ck_cu_ok(MemsetD8Async(ptr + 4096, 0, 4096, independent));
    ck_cu_ok(StreamSynchronize(independent));
  }
}

static void stream_waits_for_gate_of(CUstream waiting, CUstream gated) {
  struct gate gate;
  struct passage passage = {.opened = false};
  close_gate(&gate, gated);
  ck_cu_ok(LaunchHostFunc(waiting, look_at_gate, &passage));
  let_others_run();
  atomic_store(&passage.opened, true);
  open_gate(&gate);
  ck_cu_ok(StreamSynchronize(waiting));
  ck_assert(atomic_load(&passage.seen_opened));
}

START_TEST(work_on_one_waits_for_work_on_the_other) {
  stream_waits_for_gate_of(NULL, blocking);
  stream_waits_for_gate_of(NULL, CU_STREAM_PER_THREAD);
  stream_waits_for_gate_of(blocking, NULL);
  stream_waits_for_gate_of(CU_STREAM_PER_THREAD, CU_STREAM_LEGACY);
}
END_TEST

START_TEST(legacy_work_waits_for_blocking_streams) {
  struct gate gate;
  close_gate(&gate, blocking);
  ck_cu(StreamQuery(blocking), NOT_READY);
  ck_cu(StreamQuery(NULL), NOT_READY); /* it answers for the blocking streams */
  ck_cu_ok(StreamQuery(independent));
  ck_cu_ok(StreamQuery(CU_STREAM_PER_THREAD));
  ck_cu_ok(StreamSynchronize(independent));
  ck_cu_ok(MemcpyDtoHAsync(pages, ptr, 1, NULL));
  ck_cu_ok(MemsetD8Async(ptr, 5, 1, independent)); /* does not wait */
  ck_cu_ok(StreamSynchronize(independent));
  ck_cu(StreamQuery(CU_STREAM_LEGACY), NOT_READY);
  open_gate(&gate);
  ck_cu_ok(StreamSynchronize(NULL));
  ck_assert_uint_eq(pages[0], 5);
  ck_cu_ok(StreamQuery(blocking));
}
END_TEST

START_TEST(blocking_streams_wait_for_legacy_work) {
  struct gate gate;
  close_gate(&gate, NULL);
  ck_cu_ok(StreamQuery(blocking)); /* nothing is there that waits */
  ck_cu_ok(MemsetD8Async(ptr, 6, 1, blocking));
  ck_cu(StreamQuery(blocking), NOT_READY);
  ck_cu_ok(MemcpyDtoHAsync(pages, ptr, 1, independent));
  ck_cu_ok(StreamSynchronize(independent));
  ck_assert_uint_eq(pages[0], 0);
  open_gate(&gate);
  ck_cu_ok(StreamSynchronize(blocking));
  ck_assert_uint_eq(device_byte(ptr), 6);
}
END_TEST

START_TEST(non_blocking_streams_do_not_hold_legacy_work) {
  struct gate gate;
  close_gate(&gate, independent);
  ck_cu_ok(MemsetD8Async(ptr, 8, 1, NULL));
  ck_cu_ok(StreamSynchronize(NULL));
  ck_assert_uint_eq(device_byte(ptr), 8); /* a synchronous copy, likewise */
  ck_cu(StreamQuery(independent), NOT_READY);
  open_gate(&gate);
  ck_cu_ok(CtxSynchronize());
  ck_cu_ok(StreamQuery(independent));
}
END_TEST

START_TEST(the_per_thread_stream_is_a_blocking_one) {
  struct gate gate;
  close_gate(&gate, CU_STREAM_PER_THREAD);
  ck_cu(StreamQuery(CU_STREAM_PER_THREAD), NOT_READY);
  ck_cu(StreamQuery(NULL), NOT_READY);
  ck_cu_ok(StreamQuery(blocking));
  open_gate(&gate);
  ck_cu_ok(StreamSynchronize(NULL));
  ck_cu_ok(StreamQuery(CU_STREAM_PER_THREAD));
}
END_TEST

struct per_thread_answer {
  CUresult set, get, query;
  unsigned long long id;
};

static void *ask_per_thread(void *argument) {
  struct per_thread_answer *answer = argument;
  answer->set = cu->CtxSetCurrent(context);
  answer->get = cu->StreamGetId(CU_STREAM_PER_THREAD, &answer->id);
  answer->query = cu->StreamQuery(CU_STREAM_PER_THREAD);
  return NULL;
}

START_TEST(each_thread_has_a_per_thread_stream) {
  struct gate gate;
  pthread_t thread;
  struct host_counts counts;
  struct per_thread_answer answer = {.id = 0};
  unsigned long long mine = 0;
  ck_cu_ok(StreamGetId(CU_STREAM_PER_THREAD, &mine));
  close_gate(&gate, CU_STREAM_PER_THREAD);
  ck_assert_int_eq(pthread_create(&thread, NULL, ask_per_thread, &answer), 0);
  ck_assert_int_eq(pthread_join(thread, NULL), 0);
  ck_assert_int_eq(answer.set, CUDA_SUCCESS);
  ck_assert_int_eq(answer.get, CUDA_SUCCESS);
  ck_assert_int_eq(answer.query, CUDA_SUCCESS);
  ck_assert_uint_ne(answer.id, mine);
  open_gate(&gate);
  ck_cu_ok(CtxSynchronize());
  dz_host_counts(&counts);
  if (device.host) ck_assert_uint_eq(counts.threads, 4); /* the other thread's went with it */
}
END_TEST

/* ---- waiting */

START_TEST(a_context_is_waited_for_whole) {
  if (!device.host) return; /* a driver may run all host functions on one thread: it has one gate at a time */
  struct gate one, two;
  close_gate(&one, independent);
  close_gate(&two, CU_STREAM_PER_THREAD);
  ck_cu_ok(MemsetD8Async(ptr, 3, 1, independent));
  ck_cu_ok(MemsetD8Async(ptr + 1, 4, 1, CU_STREAM_PER_THREAD));
  open_gate(&one);
  open_gate(&two);
  ck_cu_ok(CtxSynchronize());
  ck_cu_ok(StreamQuery(independent));
  ck_cu_ok(StreamQuery(CU_STREAM_PER_THREAD));
  ck_assert_uint_eq(device_byte(ptr), 3);
  ck_assert_uint_eq(device_byte(ptr + 1), 4);
}
END_TEST

struct opener {
  struct gate *gate;
  atomic_bool opened;
};

/* Lets a gate open from another thread, and says that it did before it does. */
static void *open_later(void *argument) {
  struct opener *opener = argument;
  atomic_store(&opener->opened, true);
  (void)sem_post(&opener->gate->open);
  return NULL;
}

START_TEST(unregistering_waits_for_copies) {
  struct gate gate;
  struct opener opener = {.gate = &gate};
  pthread_t thread;
  unsigned char *memory = make_pages(PAGES);
  ck_cu_ok(MemHostRegister(memory, PAGES, 0));
  ck_cu_ok(MemsetD8Async(ptr, 1, PAGES, NULL));
  ck_cu_ok(StreamSynchronize(NULL));
  close_gate(&gate, independent);
  ck_cu_ok(MemcpyDtoHAsync(memory, ptr, PAGES, independent));
  ck_assert_int_eq(pthread_create(&thread, NULL, open_later, &opener), 0);
  ck_cu_ok(MemHostUnregister(memory));
  ck_assert(atomic_load(&opener.opened));
  ck_assert_uint_eq(memory[PAGES - 1], 1);
  drop_pages(memory, PAGES); /* the copy is over: nothing can fault now */
  ck_assert_int_eq(pthread_join(thread, NULL), 0);
}
END_TEST

START_TEST(the_last_release_waits_for_work) {
  if (!device.host) return;
  struct device other;
  struct gate gate;
  struct opener opener = {.gate = &gate};
  CUcontext theirs;
  CUstream stream;
  pthread_t thread;
  ck_ok(dz_device_open(&other, "host:32MiB"));
  ck_cu_ok(DevicePrimaryCtxRetain(&theirs, other.ordinal));
  ck_cu_ok(CtxSetCurrent(theirs));
  ck_cu_ok(StreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  close_gate(&gate, stream);
  ck_cu_ok(MemcpyDtoHAsync(pages, ptr, PAGES, stream));
  ck_cu_ok(StreamDestroy(stream));
  ck_assert_int_eq(pthread_create(&thread, NULL, open_later, &opener), 0);
  ck_cu_ok(DevicePrimaryCtxRelease(other.ordinal));
  ck_assert(atomic_load(&opener.opened));
  ck_assert_int_eq(pthread_join(thread, NULL), 0);
  ck_cu_ok(CtxSetCurrent(context));
}
END_TEST

/* ---- events */

START_TEST(an_event_is_a_moment_of_its_stream) {
  struct gate gate;
  CUevent event = make_event();
  ck_cu_ok(EventQuery(event)); /* never recorded */
  ck_cu_ok(EventSynchronize(event));
  ck_cu_ok(StreamWaitEvent(blocking, event, 0));
  close_gate(&gate, independent);
  ck_cu_ok(EventRecord(event, independent));
  ck_cu(EventQuery(event), NOT_READY);
  open_gate(&gate);
  ck_cu_ok(EventSynchronize(event));
  ck_cu_ok(EventQuery(event));
  close_gate(&gate, independent);
  ck_cu_ok(EventQuery(event)); /* what comes later does not count */
  ck_cu_ok(EventRecord(event, independent));
  ck_cu(EventQuery(event), NOT_READY); /* recorded anew */
  open_gate(&gate);
  ck_cu_ok(EventSynchronize(event));
  ck_cu_ok(EventDestroy(event));
}
END_TEST

START_TEST(a_stream_waits_for_an_event_of_another) {
  struct gate gate;
  CUevent event = make_event();
  close_gate(&gate, independent);
  ck_cu_ok(MemsetD8Async(ptr, 1, 1, independent));
  ck_cu_ok(EventRecord(event, independent));
  ck_cu_ok(StreamWaitEvent(blocking, event, 0));
  ck_cu_ok(EventDestroy(event)); /* the wait is made already */
  ck_cu_ok(MemcpyDtoDAsync(ptr + 1, ptr, 1, blocking));
  ck_cu(StreamQuery(blocking), NOT_READY);
  open_gate(&gate);
  ck_cu_ok(StreamSynchronize(blocking));
  ck_assert_uint_eq(device_byte(ptr + 1), 1);
}
END_TEST

START_TEST(a_wait_is_for_the_record_before_it) {
  if (!device.host) return; /* two gates, as above */
  struct gate first, second;
  CUevent event = make_event();
  close_gate(&first, independent);
  ck_cu_ok(EventRecord(event, independent));
  ck_cu_ok(StreamWaitEvent(blocking, event, 0));
  close_gate(&second, CU_STREAM_PER_THREAD);
  ck_cu_ok(EventRecord(event, CU_STREAM_PER_THREAD));
  open_gate(&first);
  ck_cu_ok(StreamSynchronize(blocking)); /* although the later record is still behind its gate */
  ck_cu(EventQuery(event), NOT_READY);
  open_gate(&second);
  ck_cu_ok(EventSynchronize(event));
  ck_cu_ok(EventDestroy(event));
}
END_TEST

START_TEST(an_event_on_the_legacy_stream_is_after_blocking_streams) {
  struct gate gate;
  CUevent event = make_event();
  close_gate(&gate, blocking);
  ck_cu_ok(EventRecord(event, NULL));
  ck_cu(EventQuery(event), NOT_READY);
  open_gate(&gate);
  ck_cu_ok(EventSynchronize(event));
  ck_cu_ok(StreamQuery(blocking));
  close_gate(&gate, independent);
  ck_cu_ok(EventRecord(event, NULL));
  ck_cu_ok(EventSynchronize(event));
  open_gate(&gate);
  ck_cu_ok(StreamSynchronize(independent));
  ck_cu_ok(EventDestroy(event));
}
END_TEST

START_TEST(an_event_of_the_context_is_after_all_its_streams) {
  struct gate gate;
  CUevent event = make_event();
  ck_cu_ok(CtxRecordEvent(context, event)); /* nothing is there to wait for */
  ck_cu_ok(EventQuery(event));
  close_gate(&gate, independent);
  ck_cu_ok(CtxRecordEvent(context, event));
  ck_cu(EventQuery(event), NOT_READY);
  ck_cu_ok(StreamWaitEvent(blocking, event, 0));
  ck_cu_ok(MemsetD8Async(ptr, 5, 1, blocking));
  ck_cu(StreamQuery(blocking), NOT_READY);
  open_gate(&gate);
  ck_cu_ok(EventSynchronize(event));
  ck_cu_ok(StreamSynchronize(blocking));
  ck_assert_uint_eq(device_byte(ptr), 5);
  ck_cu_ok(CtxRecordEvent(context, event));
  close_gate(&gate, independent);
  ck_cu_ok(EventSynchronize(event)); /* what comes later does not count */
  ck_cu_ok(StreamWaitEvent(blocking, event, 0));
  ck_cu_ok(StreamSynchronize(blocking));
  open_gate(&gate);
  ck_cu_ok(CtxSynchronize());
  if (device.host) ck_cu(CtxRecordEvent((CUcontext)(uintptr_t)0x1234, event), CUDA_ERROR_INVALID_CONTEXT);
  ck_cu_ok(EventDestroy(event));
}
END_TEST

START_TEST(a_destroyed_stream_finishes_its_work) {
  struct gate gate;
  struct host_counts counts;
  CUstream stream;
  CUevent event = make_event();
  ck_cu_ok(StreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  close_gate(&gate, stream);
  ck_cu_ok(MemsetD8Async(ptr, 2, 1, stream));
  ck_cu_ok(EventRecord(event, stream));
  ck_cu_ok(StreamDestroy(stream));
  if (device.host) ck_cu(StreamQuery(stream), CUDA_ERROR_INVALID_HANDLE);
  ck_cu(EventQuery(event), NOT_READY);
  open_gate(&gate);
  ck_cu_ok(EventSynchronize(event));
  ck_assert_uint_eq(device_byte(ptr), 2);
  ck_cu_ok(EventDestroy(event));
  ck_cu_ok(CtxSynchronize());
  dz_host_counts(&counts);
  if (device.host) ck_assert_uint_eq(counts.threads, 3);
}
END_TEST

START_TEST(an_event_destroyed_while_waited_for) {
  struct gate gate;
  struct opener opener = {.gate = &gate};
  pthread_t thread;
  CUevent event = make_event();
  close_gate(&gate, independent);
  ck_cu_ok(EventRecord(event, independent));
  ck_cu_ok(EventDestroy(event));
  if (device.host) ck_cu(EventQuery(event), CUDA_ERROR_INVALID_HANDLE);
  ck_assert_int_eq(pthread_create(&thread, NULL, open_later, &opener), 0);
  ck_cu_ok(StreamSynchronize(independent));
  ck_assert_int_eq(pthread_join(thread, NULL), 0);
}
END_TEST

/* ---- handles */

START_TEST(bad_handles_are_refused) {
  CUstream stream;
  CUevent event = make_event();
  unsigned long long id;
  ck_invalid(StreamCreate(&stream, 7));
  ck_invalid(StreamCreate(NULL, 0));
  ck_invalid(EventCreate(&event, 0x100));
  ck_invalid(StreamWaitEvent(blocking, event, 9));
  ck_invalid(LaunchHostFunc(blocking, NULL, NULL));
  ck_invalid(StreamGetId(blocking, NULL));
  ck_cu(StreamDestroy(NULL), CUDA_ERROR_INVALID_HANDLE);
  ck_cu(StreamDestroy(CU_STREAM_LEGACY), CUDA_ERROR_INVALID_HANDLE);
  ck_cu(StreamDestroy(CU_STREAM_PER_THREAD), CUDA_ERROR_INVALID_HANDLE);
  ck_cu(EventQuery(NULL), CUDA_ERROR_INVALID_HANDLE);
  ck_cu(EventDestroy(NULL), CUDA_ERROR_INVALID_HANDLE);
  ck_cu(EventRecord(NULL, NULL), CUDA_ERROR_INVALID_HANDLE);
  ck_cu(StreamWaitEvent(NULL, NULL, 0), CUDA_ERROR_INVALID_HANDLE);
  if (device.host) {
    CUstream no_stream = (CUstream)event;
    ck_cu(StreamQuery(no_stream), CUDA_ERROR_INVALID_HANDLE);
    ck_cu(StreamGetId(no_stream, &id), CUDA_ERROR_INVALID_HANDLE);
    ck_cu(StreamQuery((CUstream)(uintptr_t)0x1234567), CUDA_ERROR_INVALID_HANDLE);
    ck_cu(EventSynchronize((CUevent)blocking), CUDA_ERROR_INVALID_HANDLE);
  }
  ck_cu_ok(EventDestroy(event));
  if (device.host) ck_cu(EventDestroy(event), CUDA_ERROR_INVALID_HANDLE);
}
END_TEST

START_TEST(ids_tell_streams_apart_and_handles_do_not) {
  unsigned long long first = 0, second = 0, legacy = 0, same = 0;
  CUstream stream, next;
  ck_cu_ok(StreamGetId(NULL, &legacy));
  ck_cu_ok(StreamGetId(CU_STREAM_LEGACY, &same));
  ck_assert_uint_eq(legacy, same);
  ck_cu_ok(StreamCreate(&stream, 0));
  ck_cu_ok(StreamGetId(stream, &first));
  ck_cu_ok(StreamDestroy(stream));
  ck_cu_ok(StreamCreate(&next, 0));
  ck_cu_ok(StreamGetId(next, &second));
  ck_assert_uint_ne(first, second);
  if (device.host) ck_assert_ptr_eq(stream, next); /* so that code which relies on the handle fails */
  ck_cu_ok(StreamDestroy(next));
}
END_TEST

/* ---- host functions and threads */

struct asked {
  CUresult current, info, create, version;
};

static void CUDA_CB ask_driver(void *argument) {
  struct asked *asked = argument;
  CUcontext current;
  CUstream stream;
  size_t bytes, total;
  int version;
  asked->current = cu->CtxGetCurrent(&current);
  asked->info = cu->MemGetInfo(&bytes, &total);
  asked->create = cu->StreamCreate(&stream, 0);
  asked->version = cu->DriverGetVersion(&version);
}

START_TEST(host_functions_may_not_call_the_driver) {
  struct asked asked = {CUDA_SUCCESS, CUDA_SUCCESS, CUDA_SUCCESS, CUDA_ERROR_UNKNOWN};
  ck_cu_ok(LaunchHostFunc(blocking, ask_driver, &asked));
  ck_cu_ok(StreamSynchronize(blocking));
  ck_assert_int_eq(asked.current, CUDA_ERROR_NOT_PERMITTED);
  ck_assert_int_eq(asked.info, CUDA_ERROR_NOT_PERMITTED);
  ck_assert_int_eq(asked.create, CUDA_ERROR_NOT_PERMITTED);
  ck_assert_int_eq(asked.version, CUDA_SUCCESS);
}
END_TEST

/* Looks at the threads of this process that are streams': how many, and whether they leave SIGTERM and SIGUSR1 to the program. */
START_TEST(stream_threads_take_no_signals) {
  if (!device.host) return;
  unsigned streams = 0;
  ck_cu_ok(MemsetD8Async(ptr, 0, 1, blocking)); /* a thread that has only just begun masks everything */
  ck_cu_ok(MemsetD8Async(ptr + 64, 0, 1, independent));
  ck_cu_ok(CtxSynchronize());
  DIR *tasks = opendir("/proc/self/task");
  ck_assert_ptr_nonnull(tasks);
  for (struct dirent *entry; (entry = readdir(tasks)) != NULL;) {
    char path[300], line[256], name[64] = "";
    unsigned long long masked = 0;
    (void)snprintf(path, sizeof path, "/proc/self/task/%s/status", entry->d_name);
    FILE *status = fopen(path, "r");
    if (status == NULL) continue;
    while (fgets(line, sizeof line, status) != NULL) {
      (void)sscanf(line, "Name: %63s", name);
      (void)sscanf(line, "SigBlk: %llx", &masked);
    }
    (void)fclose(status);
    if (strcmp(name, "drowse-stream") != 0) continue;
    streams++;
    ck_assert((masked >> (SIGTERM - 1) & 1) == 1);
    ck_assert((masked >> (SIGUSR1 - 1) & 1) == 1);
    ck_assert((masked >> (SIGSEGV - 1) & 1) == 0);
  }
  (void)closedir(tasks);
  ck_assert_uint_eq(streams, 3);
}
END_TEST

/* ---- many threads at once: for what the sanitizers see */

enum { THREADS = 4, ROUNDS = 60 };

static void *use_everything(void *argument) {
  unsigned char mark = (unsigned char)(uintptr_t)argument;
  unsigned char out[256];
  ck_cu_ok(CtxSetCurrent(context));
  for (unsigned round = 0; round < ROUNDS; round++) {
    CUstream stream;
    CUevent event = make_event();
    CUdeviceptr memory = make_memory(GRANULE);
    ck_cu_ok(StreamCreate(&stream, round % 2));
    ck_cu_ok(MemsetD8Async(memory, mark, GRANULE, stream));
    ck_cu_ok(EventRecord(event, stream));
    ck_cu_ok(StreamWaitEvent(NULL, event, 0));
    ck_cu_ok(MemcpyDtoH(out, memory + GRANULE - sizeof out, sizeof out));
    for (size_t at = 0; at < sizeof out; at++) ck_assert_uint_eq(out[at], mark);
    ck_cu_ok(EventDestroy(event));
    ck_cu_ok(StreamDestroy(stream));
    if (round % 8 == 0) ck_cu_ok(CtxSynchronize());
    drop_memory(memory, GRANULE);
  }
  return NULL;
}

START_TEST(threads_do_not_disturb_each_other) {
  pthread_t threads[THREADS];
  for (uintptr_t i = 0; i < THREADS; i++) {
    ck_assert_int_eq(pthread_create(&threads[i], NULL, use_everything, (void *)(i + 1)), 0);
  }
  for (unsigned i = 0; i < THREADS; i++) ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
}
END_TEST

/* ---- faults */

/* On a device of its own, since it is lost for the rest of the process. */
START_TEST(memory_that_is_gone_when_work_gets_there_costs_the_context) {
  struct gate gate;
  struct host_counts counts;
  CUstream stream, other;
  CUevent event, pending;
  CUdeviceptr gone, there;
  CUmemGenericAllocationHandle handle;
  CUcontext current, again;
  CUdevice ordinal;
  CUstreamCaptureStatus status;
  size_t bytes, total;
  unsigned char host[64] = "";
  unsigned char *memory = make_pages(PAGES);
  start_on("host:48MiB");
  gone = make_memory(GRANULE);
  there = make_memory(GRANULE);
  event = make_event();
  pending = make_event();
  ck_cu_ok(StreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  ck_cu_ok(MemHostRegister(memory, PAGES, 0));
  close_gate(&gate, stream);
  ck_cu_ok(MemsetD8Async(gone, 1, GRANULE, stream));
  ck_cu_ok(MemcpyHtoDAsync(there, memory, PAGES, stream));
  ck_cu_ok(EventRecord(pending, stream));
  ck_cu_ok(MemUnmap(gone, GRANULE));
  open_gate(&gate);
  ck_cu(StreamSynchronize(stream), CUDA_ERROR_ILLEGAL_ADDRESS);
  ck_cu(StreamQuery(stream), CUDA_ERROR_ILLEGAL_ADDRESS);
  ck_cu(EventQuery(pending), CUDA_ERROR_ILLEGAL_ADDRESS);
  ck_cu(CtxSynchronize(), CUDA_ERROR_ILLEGAL_ADDRESS);
  ck_cu(MemGetInfo(&bytes, &total), CUDA_ERROR_ILLEGAL_ADDRESS);
  ck_cu(MemcpyDtoH(host, there, 8), CUDA_ERROR_ILLEGAL_ADDRESS);
  ck_cu(MemsetD8Async(there, 0, 8, NULL), CUDA_ERROR_ILLEGAL_ADDRESS);
  ck_cu(EventCreate(&event, 0), CUDA_ERROR_ILLEGAL_ADDRESS);
  ck_cu(EventDestroy(event), CUDA_ERROR_ILLEGAL_ADDRESS);
  ck_cu(StreamCreate(&other, 0), CUDA_ERROR_ILLEGAL_ADDRESS);
  ck_cu(StreamDestroy(stream), CUDA_ERROR_ILLEGAL_ADDRESS);
  ck_cu(MemHostRegister(host, 64, 0), CUDA_ERROR_ILLEGAL_ADDRESS);
  ck_cu(MemHostUnregister(memory), CUDA_ERROR_ILLEGAL_ADDRESS);
  ck_cu(StreamIsCapturing(NULL, &status), CUDA_ERROR_ILLEGAL_ADDRESS);
  ck_cu_ok(CtxGetCurrent(&current));
  ck_cu_ok(CtxGetDevice(&ordinal));
  ck_cu_ok(DeviceTotalMem(&bytes, device.ordinal));
  ck_cu_ok(MemCreate(&handle, GRANULE, &prop, 0)); /* memory is not the context's */
  ck_cu_ok(MemMap(gone, GRANULE, 0, handle, 0));
  ck_cu_ok(MemSetAccess(gone, GRANULE, &read_write, 1));
  ck_cu_ok(MemRelease(handle));
  drop_memory(gone, GRANULE);
  drop_memory(there, GRANULE);
  ck_cu_ok(CtxSetCurrent(NULL));
  ck_cu_ok(DevicePrimaryCtxRelease(device.ordinal));
  ck_cu(DevicePrimaryCtxRetain(&again, device.ordinal), CUDA_ERROR_ILLEGAL_ADDRESS);
  drop_pages(memory, PAGES);
  if (!device.host) return;
  dz_host_counts(&counts);
  ck_assert_uint_eq(counts.contexts + counts.threads + counts.streams + counts.events + counts.registered, 0);
}
END_TEST

START_TEST(a_fault_keeps_what_was_copied_before) {
  if (!device.host) return;
  struct gate gate;
  CUdeviceptr gone, there;
  unsigned char *in = make_pages(GRANULE);
  start_on("host:50MiB");
  gone = make_memory(GRANULE);
  there = make_memory(GRANULE);
  memset(in, 4, GRANULE);
  ck_cu_ok(MemcpyHtoD(there, in, GRANULE));
  close_gate(&gate, CU_STREAM_PER_THREAD);
  ck_cu_ok(MemcpyDtoDAsync(gone, there, 8, CU_STREAM_PER_THREAD));
  ck_cu_ok(MemUnmap(gone, GRANULE));
  open_gate(&gate);
  ck_cu(StreamSynchronize(CU_STREAM_PER_THREAD), CUDA_ERROR_ILLEGAL_ADDRESS);
  ck_assert_mem_eq((const void *)(uintptr_t)there, in, GRANULE);
  ck_cu_ok(MemAddressFree(gone, GRANULE));
  drop_memory(there, GRANULE);
  drop_pages(in, GRANULE);
  finish();
}
END_TEST

#define STREAM_TEST(suite, test) HARNESS_FIXTURE_TEST(suite, test, start_streams, finish_streams)

int main(void) {
  Suite *suite = suite_create("host streams");
  STREAM_TEST(suite, registered_memory_is_copied_when_the_stream_gets_there);
  STREAM_TEST(suite, registered_memory_is_read_when_the_stream_gets_there);
  STREAM_TEST(suite, pageable_memory_is_read_at_the_call);
  STREAM_TEST(suite, pageable_memory_is_written_before_the_call_returns);
  STREAM_TEST(suite, large_pageable_copies_arrive);
  STREAM_TEST(suite, many_copies_go_by_one_call);
  STREAM_TEST(suite, many_copies_with_bad_arguments_are_refused);
  STREAM_TEST(suite, work_of_a_stream_is_in_order);
  STREAM_TEST(suite, work_on_one_waits_for_work_on_the_other);
  STREAM_TEST(suite, legacy_work_waits_for_blocking_streams);
  STREAM_TEST(suite, blocking_streams_wait_for_legacy_work);
  STREAM_TEST(suite, non_blocking_streams_do_not_hold_legacy_work);
  STREAM_TEST(suite, the_per_thread_stream_is_a_blocking_one);
  STREAM_TEST(suite, each_thread_has_a_per_thread_stream);
  STREAM_TEST(suite, a_context_is_waited_for_whole);
  STREAM_TEST(suite, unregistering_waits_for_copies);
  STREAM_TEST(suite, the_last_release_waits_for_work);
  STREAM_TEST(suite, an_event_is_a_moment_of_its_stream);
  STREAM_TEST(suite, a_stream_waits_for_an_event_of_another);
  STREAM_TEST(suite, a_wait_is_for_the_record_before_it);
  STREAM_TEST(suite, an_event_on_the_legacy_stream_is_after_blocking_streams);
  STREAM_TEST(suite, an_event_of_the_context_is_after_all_its_streams);
  STREAM_TEST(suite, a_destroyed_stream_finishes_its_work);
  STREAM_TEST(suite, an_event_destroyed_while_waited_for);
  STREAM_TEST(suite, bad_handles_are_refused);
  STREAM_TEST(suite, ids_tell_streams_apart_and_handles_do_not);
  STREAM_TEST(suite, host_functions_may_not_call_the_driver);
  STREAM_TEST(suite, stream_threads_take_no_signals);
  STREAM_TEST(suite, threads_do_not_disturb_each_other);
  HARNESS_TEST(suite, memory_that_is_gone_when_work_gets_there_costs_the_context);
  HARNESS_TEST(suite, a_fault_keeps_what_was_copied_before);
  return harness_run(suite);
}
