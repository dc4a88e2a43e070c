/* SPDX-License-Identifier: Apache-2.0
 *
 * The allocators that bench/alloc compares.
 */
#include "allocator.h"

#include <dlfcn.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static struct {
  drowse_heap *heap;
  char device[64];
  struct bench_driver driver;
  CUcontext context;
  CUresult (*CtxSetCurrent)(CUcontext);
  CUresult (*StreamCreate)(CUstream *, unsigned int);
  CUresult (*StreamDestroy)(CUstream);
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

/* ---- the device */

static void *entry(const char *name) {
  void *function = drowse_driver_entry(opened.heap, name);
  if (function == NULL) bench_fail("the driver has no %s", name);
  return function;
}

static void find_entries(void) {
  CUresult (*retain)(CUcontext *, CUdevice) = entry("cuDevicePrimaryCtxRetain");
  struct bench_driver *driver = &opened.driver;
  driver->MemAddressReserve = entry("cuMemAddressReserve");
  driver->MemAddressFree = entry("cuMemAddressFree");
  driver->MemCreate = entry("cuMemCreate");
  driver->MemRelease = entry("cuMemRelease");
  driver->MemMap = entry("cuMemMap");
  driver->MemUnmap = entry("cuMemUnmap");
  driver->MemSetAccess = entry("cuMemSetAccess");
  if (sscanf(opened.device, "cuda:%d", &driver->ordinal) != 1) driver->ordinal = 0;
  opened.CtxSetCurrent = entry("cuCtxSetCurrent");
  opened.StreamCreate = entry("cuStreamCreate");
  opened.StreamDestroy = entry("cuStreamDestroy");
  if (retain(&opened.context, driver->ordinal) != CUDA_SUCCESS) bench_fail("%s has no context", opened.device);
}

bool bench_open(const char *device, bool expandable) {
  drowse_heap_options options = {.struct_size = sizeof options,
                                 .device = device,
                                 .settings = expandable ? "expandable_segments:True" : "expandable_segments:False"};
  drowse_heap_info info = {.struct_size = sizeof info};
  if (drowse_heap_open(&opened.heap, &options) != DROWSE_OK || drowse_heap_info_get(opened.heap, &info) != DROWSE_OK) {
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
  if (drowse_heap_close(opened.heap) != DROWSE_OK) bench_fail("%s", drowse_last_error());
  opened.heap = NULL;
}

const char *bench_device(void) {
  return opened.device;
}

const struct bench_driver *bench_driver(void) {
  return &opened.driver;
}

void bench_thread_begin(void) {
  if (opened.CtxSetCurrent(opened.context) != CUDA_SUCCESS) bench_fail("the context cannot be made current");
}

drowse_stream bench_stream_create(void) {
  CUstream stream;
  if (opened.StreamCreate(&stream, CU_STREAM_NON_BLOCKING) != CUDA_SUCCESS) bench_fail("no stream");
  return stream;
}

void bench_stream_destroy(drowse_stream stream) {
  (void)drowse_stream_retire(opened.heap, stream); /* it may have seen no allocation of drowse's */
  if (opened.StreamDestroy(stream) != CUDA_SUCCESS) bench_fail("a stream cannot be destroyed");
}

/* ---- drowse */

static void *drowse_alloc_one(size_t bytes, drowse_stream stream) {
  void *ptr;
  return drowse_alloc(opened.heap, bytes, stream, &ptr) == DROWSE_OK ? ptr : NULL;
}

static void drowse_free_one(void *ptr, drowse_stream stream) {
  (void)stream;
  if (drowse_free(opened.heap, ptr) != DROWSE_OK) bench_fail("%s", drowse_last_error());
}

const struct allocator bench_drowse = {"drowse", true, drowse_alloc_one, drowse_free_one};

/* ---- nothing */

static void *none_alloc(size_t bytes, drowse_stream stream) {
  (void)stream;
  return (void *)(uintptr_t)(512 + bytes);
}

static void none_free(void *ptr, drowse_stream stream) {
  (void)ptr;
  (void)stream;
}

const struct allocator bench_none = {"none", false, none_alloc, none_free};

/* ---- the driver's own: it is not among the entries that drowse uses */

static CUresult (*cuda_alloc_async)(CUdeviceptr *, size_t, CUstream);
static CUresult (*cuda_free_async)(CUdeviceptr, CUstream);

static void *cuda_alloc_one(size_t bytes, drowse_stream stream) {
  CUdeviceptr ptr;
  return cuda_alloc_async(&ptr, bytes, stream) == CUDA_SUCCESS ? (void *)(uintptr_t)ptr : NULL;
}

static void cuda_free_one(void *ptr, drowse_stream stream) {
  if (cuda_free_async((CUdeviceptr)(uintptr_t)ptr, stream) != CUDA_SUCCESS) bench_fail("cuMemFreeAsync failed");
}

/* By default the driver's pool gives everything back at each synchronization: keep it, as the others do. */
static bool keep_what_is_freed(void *libcuda) {
  enum { RELEASE_THRESHOLD = 4 }; /* CU_MEMPOOL_ATTR_RELEASE_THRESHOLD */
  uint64_t all = UINT64_MAX;
  void *pool;
  CUresult (*get)(void **, CUdevice) = dlsym(libcuda, "cuDeviceGetDefaultMemPool");
  CUresult (*set)(void *, int, void *) = dlsym(libcuda, "cuMemPoolSetAttribute");
  return get != NULL && set != NULL && get(&pool, opened.driver.ordinal) == CUDA_SUCCESS &&
         set(pool, RELEASE_THRESHOLD, &all) == CUDA_SUCCESS;
}

const struct allocator *bench_cuda_async(void) {
  static const struct allocator cuda_async = {"cuMemAllocAsync", true, cuda_alloc_one, cuda_free_one};
  if (strncmp(opened.device, "cuda", 4) != 0) return NULL;
  void *libcuda = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (libcuda == NULL || !keep_what_is_freed(libcuda)) return NULL;
  cuda_alloc_async = dlsym(libcuda, "cuMemAllocAsync");
  cuda_free_async = dlsym(libcuda, "cuMemFreeAsync");
  return cuda_alloc_async != NULL && cuda_free_async != NULL ? &cuda_async : NULL;
}

/* ---- jemalloc: on the host, with thread caches as it comes */

static void *(*jemalloc_malloc)(size_t);
static void (*jemalloc_free)(void *);

static void *jemalloc_alloc_one(size_t bytes, drowse_stream stream) {
  (void)stream;
  return jemalloc_malloc(bytes);
}

static void jemalloc_free_one(void *ptr, drowse_stream stream) {
  (void)stream;
  jemalloc_free(ptr);
}

const struct allocator *bench_jemalloc(void) {
  /* Its thread-local storage may need GLIBC_TUNABLES=glibc.rtld.optional_static_tls=16384 */
  static const struct allocator jemalloc = {"jemalloc", false, jemalloc_alloc_one, jemalloc_free_one};
  void *library = dlopen("libjemalloc.so.2", RTLD_NOW | RTLD_LOCAL);
  if (library == NULL) {
    fprintf(stderr, "bench: without jemalloc: %s\n", dlerror());
    return NULL;
  }
  jemalloc_malloc = dlsym(library, "malloc");
  jemalloc_free = dlsym(library, "free");
  return jemalloc_malloc != NULL && jemalloc_free != NULL ? &jemalloc : NULL;
}
