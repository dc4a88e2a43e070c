/* SPDX-License-Identifier: Apache-2.0
 *
 * The device that a benchmark is on.
 */
#include "device.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

drowse_heap *bench_heap;

static struct {
  char device[64];
  struct bench_driver driver;
  CUcontext context;
} opened;

void bench_fail(const char *format, ...) {
  va_list arguments;
  fputs("bench: ", stderr);
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
  fputc('\n', stderr);
  exit(EXIT_FAILURE);
}

double bench_seconds(int clock) {
  struct timespec time;
  clock_gettime(clock, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

size_t bench_number(const char *text, size_t most) {
  char *end;
  unsigned long long number = strtoull(text, &end, 10);
  if (*text >= '0' && *text <= '9' && *end == '\0' && number >= 1 && number <= most) return number;
  fprintf(stderr, "bench: \"%s\" is not a number from 1 to %zu\n", text, most);
  exit(2);
}

static void *entry(const char *name) {
  void *function = drowse_driver_entry(bench_heap, name);
  if (function == NULL) bench_fail("the driver has no %s", name);
  return function;
}

static void find_entries(void) {
  CUresult (*retain)(CUcontext *, CUdevice) = entry("cuDevicePrimaryCtxRetain");
  struct bench_driver *driver = &opened.driver;
  driver->CtxSetCurrent = entry("cuCtxSetCurrent");
  driver->MemAddressReserve = entry("cuMemAddressReserve");
  driver->MemAddressFree = entry("cuMemAddressFree");
  driver->MemCreate = entry("cuMemCreate");
  driver->MemRelease = entry("cuMemRelease");
  driver->MemMap = entry("cuMemMap");
  driver->MemUnmap = entry("cuMemUnmap");
  driver->MemSetAccess = entry("cuMemSetAccess");
  driver->MemHostRegister = entry("cuMemHostRegister");
  driver->MemHostUnregister = entry("cuMemHostUnregister");
  driver->MemcpyDtoHAsync = entry("cuMemcpyDtoHAsync");
  driver->MemcpyHtoDAsync = entry("cuMemcpyHtoDAsync");
  driver->StreamCreate = entry("cuStreamCreate");
  driver->StreamSynchronize = entry("cuStreamSynchronize");
  driver->StreamDestroy = entry("cuStreamDestroy");
  if (sscanf(opened.device, "cuda:%d", &driver->ordinal) != 1) driver->ordinal = 0;
  if (retain(&opened.context, driver->ordinal) != CUDA_SUCCESS) bench_fail("%s has no context", opened.device);
}

bool bench_open(const char *device, bool expandable) {
  drowse_heap_options options = {.struct_size = sizeof options,
                                 .device = device,
                                 .settings = expandable ? "expandable_segments:True" : "expandable_segments:False"};
  drowse_heap_info info = {.struct_size = sizeof info};
  if (drowse_heap_open(&bench_heap, &options) != DROWSE_OK || drowse_heap_info_get(bench_heap, &info) != DROWSE_OK) {
    fprintf(stderr, "bench: %s\n", drowse_last_error());
    return false;
  }
  snprintf(opened.device, sizeof opened.device, "%s", info.device);
  find_entries();
  bench_thread_begin();
  return true;
}

void bench_close(void) {
  CUresult (*release)(CUdevice) = entry("cuDevicePrimaryCtxRelease");
  (void)release(opened.driver.ordinal);
  if (drowse_heap_close(bench_heap) != DROWSE_OK) bench_fail("%s", drowse_last_error());
  bench_heap = NULL;
}

const char *bench_device(void) {
  return opened.device;
}

const struct bench_driver *bench_driver(void) {
  return &opened.driver;
}

void bench_thread_begin(void) {
  if (opened.driver.CtxSetCurrent(opened.context) != CUDA_SUCCESS) bench_fail("the context cannot be made current");
}

drowse_stream bench_stream_create(void) {
  CUstream stream;
  if (opened.driver.StreamCreate(&stream, CU_STREAM_NON_BLOCKING) != CUDA_SUCCESS) bench_fail("no stream");
  return stream;
}

void bench_stream_destroy(drowse_stream stream) {
  (void)drowse_stream_retire(bench_heap, stream); /* it may have seen no allocation of drowse's */
  if (opened.driver.StreamDestroy(stream) != CUDA_SUCCESS) bench_fail("a stream cannot be destroyed");
}
