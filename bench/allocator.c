/* SPDX-License-Identifier: Apache-2.0
 *
 * The allocators that bench/alloc compares.
 */
#include "allocator.h"

#include <dlfcn.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "device.h"

enum { HUGE_PAGE = 2 << 20 };

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

/* ---- the floor: a pointer is the number of its line */

struct line {
  _Alignas(64) struct line *next;
  bool live;
};

static struct line *lines, *spare;
static atomic_uint floor_lock;

static void floor_take_lock(void) {
  unsigned was = 0;
  while (!atomic_compare_exchange_strong_explicit(&floor_lock, &was, 1, memory_order_acquire, memory_order_relaxed)) was = 0;
}

static void floor_let_go(void) {
  atomic_store_explicit(&floor_lock, 0, memory_order_release);
}

static void *floor_alloc(size_t bytes, drowse_stream stream) {
  (void)bytes;
  (void)stream;
  floor_take_lock();
  struct line *line = spare;
  if (line != NULL) {
    spare = line->next;
    line->live = true;
  }
  floor_let_go();
  return line == NULL ? NULL : (void *)(uintptr_t)(line - lines + 1);
}

static void floor_free(void *ptr, drowse_stream stream) {
  (void)stream;
  struct line *line = &lines[(uintptr_t)ptr - 1];
  floor_take_lock();
  if (!line->live) bench_fail("the floor has a block twice");
  line->live = false;
  line->next = spare;
  spare = line;
  floor_let_go();
}

const struct allocator *bench_floor(size_t live) {
  static const struct allocator allocator = {"floor", false, floor_alloc, floor_free};
  size_t bytes = (live * sizeof *lines + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
  free(lines);
  lines = aligned_alloc(HUGE_PAGE, bytes);
  if (lines == NULL) bench_fail("no memory for %zu lines", live);
  (void)madvise(lines, bytes, MADV_HUGEPAGE);
  spare = NULL;
  for (size_t i = live; i-- > 0;) {
    lines[i] = (struct line){.next = spare};
    spare = &lines[i];
  }
  return &allocator;
}

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
