/* SPDX-License-Identifier: Apache-2.0
 *
 * libdrowse-tms preloaded: cudaMalloc() and cudaFree() in front of the CUDA runtime's. While a region is open memory is drowse's;
 * else, and for whatever is not drowse's, the runtime is called. A program that has the runtime linked in statically calls its
 * own and is not heard of.
 */
#include <dlfcn.h>
#include <stdatomic.h>

#include "torch/cuda_error.h"
#include "torch/region.h"
#include "torch/saved.h"
#include "torch/tms.h"

/* ---- the runtime */

struct entry {
  const char *name;
  _Atomic(void *) function; /* NULL: not looked for yet, or not there */
};

static struct entry real_malloc = {.name = "cudaMalloc"}, real_free = {.name = "cudaFree"};
static struct entry real_get_device = {.name = "cudaGetDevice"}, real_set_device = {.name = "cudaSetDevice"};
static struct entry real_synchronize = {.name = "cudaDeviceSynchronize"};

/* The runtime may have been loaded for one library alone, where what comes next in the program's own order does not have it. */
static void *look_up(const char *name) {
  static const char *const runtimes[] = {"libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0"};
  void *function = dlsym(RTLD_NEXT, name);
  for (size_t at = 0; function == NULL && at < sizeof runtimes / sizeof *runtimes; at++) {
    void *runtime = dlopen(runtimes[at], RTLD_LAZY | RTLD_NOLOAD); /* kept: it is not to go while it may be called */
    if (runtime != NULL) function = dlsym(runtime, name);
  }
  return function;
}

static void *find(struct entry *entry) {
  void *function = atomic_load(&entry->function);
  if (function == NULL) atomic_store(&entry->function, function = look_up(entry->name));
  return function;
}

/* Calls the runtime's function of that type. */
#define REAL(entry, type, ...) (find(entry) == NULL ? (int)DZ_CUDA_SYMBOL_NOT_FOUND : ((int(*) type)find(entry))(__VA_ARGS__))

/* ---- allocating */

DROWSE_API int cudaMalloc(void **ptr, size_t bytes) {
  int device = 0;
  if (!dz_region_is_on(DZ_SWITCH_REGION)) return REAL(&real_malloc, (void **, size_t), ptr, bytes);
  if (ptr == NULL) return (int)DZ_CUDA_INVALID_VALUE;
  int error = REAL(&real_get_device, (int *), &device);
  return error != 0 ? error : (int)dz_cuda_error(dz_saved_alloc(device, bytes, NULL, ptr));
}

/* ---- freeing */

/* What cudaFree() gives back may be used on any stream the next moment, so the work on the device is waited for, as the runtime
 * does. */
static int wait_for(int device) {
  int current = 0;
  int error = REAL(&real_get_device, (int *), &current);
  if (error == 0 && current != device) error = REAL(&real_set_device, (int), device);
  if (error != 0) return error;
  error = REAL(&real_synchronize, (void), );
  int restored = current == device ? 0 : REAL(&real_set_device, (int), current);
  return error != 0 ? error : restored;
}

DROWSE_API int cudaFree(void *ptr) {
  int device = dz_saved_device(ptr);
  if (device < 0) return REAL(&real_free, (void *), ptr);
  int error = wait_for(device);
  if (error == 0) dz_saved_free(device, ptr);
  return error;
}
