/* SPDX-License-Identifier: Apache-2.0
 *
 * The allocators that bench/alloc compares.
 */
#include "allocator.h"

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "device.h"

/* ---- drowse */

static void *drowse_alloc_one(size_t bytes, drowse_stream stream) {
  void *ptr;
  return drowse_alloc(bench_heap, bytes, stream, &ptr) == DROWSE_OK ? ptr : NULL;
}

static void drowse_free_one(void *ptr, drowse_stream stream) {
  (void)stream;
  if (drowse_free(bench_heap, ptr) != DROWSE_OK) bench_fail("%s", drowse_last_error());
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
  return get != NULL && set != NULL && get(&pool, bench_driver()->ordinal) == CUDA_SUCCESS &&
         set(pool, RELEASE_THRESHOLD, &all) == CUDA_SUCCESS;
}

const struct allocator *bench_cuda_async(void) {
  static const struct allocator cuda_async = {"cuMemAllocAsync", true, cuda_alloc_one, cuda_free_one};
  if (strncmp(bench_device(), "cuda", 4) != 0) return NULL;
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
