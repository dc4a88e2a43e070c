/* SPDX-License-Identifier: Apache-2.0
 *
 * The device that a benchmark is on, with a heap and the driver's own calls, and what every benchmark needs: time, numbers,
 * failure. One device at a time.
 */
#ifndef BENCH_DEVICE_H
#define BENCH_DEVICE_H

#include <stdbool.h>
#include <stddef.h>

#include "driver/abi.h" /* types alone */
#include "drowse.h"

/* Opens a heap on the device ("auto", "cuda:0", "host:100GiB") with or without expandable segments, and makes the device's
 * context current; false: says why on stderr. */
bool bench_open(const char *device, bool expandable);
void bench_close(void);

/* What was opened: "cuda:0". */
const char *bench_device(void);

/* Its heap, to read alone; a variable, since a call would be part of what is timed. NULL: none is open. */
extern drowse_heap *bench_heap;

/* Has to be called by every other thread that allocates. */
void bench_thread_begin(void);

/* A stream that no other shares; ends the program if there is none. */
drowse_stream bench_stream_create(void);
void bench_stream_destroy(drowse_stream stream);

/* Driver calls that benchmarks make themselves. */
struct bench_driver {
  CUresult (*CtxSetCurrent)(CUcontext);
  CUresult (*MemAddressReserve)(CUdeviceptr *, size_t, size_t, CUdeviceptr, unsigned long long);
  CUresult (*MemAddressFree)(CUdeviceptr, size_t);
  CUresult (*MemCreate)(CUmemGenericAllocationHandle *, size_t, const CUmemAllocationProp *, unsigned long long);
  CUresult (*MemRelease)(CUmemGenericAllocationHandle);
  CUresult (*MemMap)(CUdeviceptr, size_t, size_t, CUmemGenericAllocationHandle, unsigned long long);
  CUresult (*MemUnmap)(CUdeviceptr, size_t);
  CUresult (*MemSetAccess)(CUdeviceptr, size_t, const CUmemAccessDesc *, size_t);
  CUresult (*MemHostRegister)(void *, size_t, unsigned int);
  CUresult (*MemHostUnregister)(void *);
  CUresult (*MemcpyDtoHAsync)(void *, CUdeviceptr, size_t, CUstream);
  CUresult (*MemcpyHtoDAsync)(CUdeviceptr, const void *, size_t, CUstream);
  CUresult (*StreamCreate)(CUstream *, unsigned int);
  CUresult (*StreamSynchronize)(CUstream);
  CUresult (*StreamDestroy)(CUstream);
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
