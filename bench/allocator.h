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

/* The least that an allocator for several threads can do: takes a lock, and looks at and changes one cache line that belongs to
 * the block and to no other, of which it knows where it is. Has room for so many blocks at a time. */
const struct allocator *bench_floor(size_t live);

/* cuMemAllocAsync and cuMemFreeAsync, told to keep what is freed; NULL: the device has none. */
const struct allocator *bench_cuda_async(void);

/* jemalloc, from libjemalloc.so.2; NULL: it is not installed. */
const struct allocator *bench_jemalloc(void);

#endif
