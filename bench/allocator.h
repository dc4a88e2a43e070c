/* SPDX-License-Identifier: Apache-2.0
 *
 * The allocators that bench/alloc compares, behind one face, and the device that they are on. One device at a time.
 */
#ifndef BENCH_ALLOCATOR_H
#define BENCH_ALLOCATOR_H

#include <stdbool.h>
#include <stddef.h>

#include "driver/abi.h" /* types alone */
#include "drowse.h"

struct allocator {
  const char *name;
  bool on_device;                                     /* what it gives is device memory */
  void *(*alloc)(size_t bytes, drowse_stream stream); /* NULL: there is no more */
  void (*free)(void *ptr, drowse_stream stream);
};

/* drowse, in the heap of bench_open(). */
extern const struct allocator bench_drowse;

/* Does nothing: what is left is the loop round it. */
extern const struct allocator bench_none;

/* cuMemAllocAsync and cuMemFreeAsync, told to keep what is freed; NULL: the device has none. */
const struct allocator *bench_cuda_async(void);

/* jemalloc, from libjemalloc.so.2; NULL: it is not installed. */
const struct allocator *bench_jemalloc(void);

/* Opens a heap on the device ("auto", "cuda:0", "host:100GiB") with or without expandable segments, and makes the device's
 * context current; false: says why on stderr. */
bool bench_open(const char *device, bool expandable);
void bench_close(void);

/* What was opened: "cuda:0". */
const char *bench_device(void);

/* Has to be called by every other thread that allocates. */
void bench_thread_begin(void);

/* A stream that no other shares; ends the program if there is none. */
drowse_stream bench_stream_create(void);
void bench_stream_destroy(drowse_stream stream);

/* Driver calls that benchmarks make themselves. */
struct bench_driver {
  CUresult (*MemAddressReserve)(CUdeviceptr *, size_t, size_t, CUdeviceptr, unsigned long long);
  CUresult (*MemAddressFree)(CUdeviceptr, size_t);
  CUresult (*MemCreate)(CUmemGenericAllocationHandle *, size_t, const CUmemAllocationProp *, unsigned long long);
  CUresult (*MemRelease)(CUmemGenericAllocationHandle);
  CUresult (*MemMap)(CUdeviceptr, size_t, size_t, CUmemGenericAllocationHandle, unsigned long long);
  CUresult (*MemUnmap)(CUdeviceptr, size_t);
  CUresult (*MemSetAccess)(CUdeviceptr, size_t, const CUmemAccessDesc *, size_t);
  int ordinal; /* of the device */
};
const struct bench_driver *bench_driver(void);

/* Prints why to stderr and ends the program with status 1. */
void bench_fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* clock: CLOCK_MONOTONIC or a processor-time clock. */
double bench_seconds(int clock);

/* A whole number from 1 to most; ends the program with status 2 if text is none. */
size_t bench_number(const char *text, size_t most);

#endif
