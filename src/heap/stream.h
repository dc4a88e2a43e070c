/* SPDX-License-Identifier: Apache-2.0
 *
 * The streams that a heap has seen.
 */
#ifndef DZ_STREAM_H
#define DZ_STREAM_H

#include "heap/heap.h"

struct stream {
  CUstream handle;
  uint64_t identity; /* a handle's value comes again after the stream is destroyed; this does not */
  bool retired;
  struct stream *next;
};

/* A stream's identity. Without the lock; the guard entered. */
drowse_status dz_stream_identify(drowse_heap *heap, CUstream handle, uint64_t *identity);

/* The heap's record of a stream, made if need be; NULL: no memory. With the lock held. */
struct stream *dz_stream_get(drowse_heap *heap, CUstream handle, uint64_t identity);

/* What to wait on, from any thread, for the work on a stream. */
CUstream dz_stream_waitable(CUstream handle);

/* Waits for work on the device, as drain says; streams are the caller's. BUSY: a known stream is capturing, and nothing has been
 * waited for; or the deadline is over. Without the lock; the guard entered. */
drowse_status dz_drain(drowse_heap *heap, drowse_drain drain, const drowse_stream *streams, size_t count, int64_t deadline);

/* For a heap's end: waits for the work on the device, or, where that cannot be, on each known stream for which it can. Without
 * the lock; the guard entered. */
void dz_drain_whatever(drowse_heap *heap);

#endif
