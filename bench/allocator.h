/* SPDX-License-Identifier: Apache-2.0
 *
 * The allocators that bench/alloc compares, behind one face.
 */
#ifndef BENCH_ALLOCATOR_H
#define BENCH_ALLOCATOR_H

#include <stdbool.h>
#include <stddef.h>

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

#endif
