/* SPDX-License-Identifier: Apache-2.0
 *
 * The streams that a heap has seen.
 */
#ifndef DZ_STREAM_H
#define DZ_STREAM_H

#include <stdatomic.h>

#include "heap/heap.h"

struct stream {
  CUstream handle;
  atomic_uint_fast64_t identity; /* a handle's value comes again after the stream is destroyed; this does not */
  atomic_bool retired;           /* from here on the handle may be nobody's, or another stream's */
  unsigned users;                /* drowse's calls that use the handle now; under the heap's lock */
  CUevent last;                  /* retired: recorded behind all its work; NULL: it could not be */
  struct stream *next;
};

static inline bool dz_stream_is_retired(const struct stream *stream) {
  return atomic_load_explicit(&stream->retired, memory_order_acquire);
}

/* CUDA's handles for the default streams, which StreamGetId tells apart by context only. */
enum { DZ_LEGACY_HANDLE = 1, DZ_PER_THREAD_HANDLE = 2 };

/* Instead of an identity: the stream captures, and is to be known by its handle, which is still that stream's because nobody has
 * retired it; the driver does not tell. */
#define DZ_STREAM_CAPTURES (UINT64_MAX - 1)
#define DZ_STREAM_UNKNOWN UINT64_MAX

/* A stream's identity, as far as it can be told without a lock and without the guard. That of the legacy stream, which is NULL
 * too, is known. */
uint64_t dz_stream_ask(const drowse_heap *heap, CUstream handle);
#define DZ_LEGACY_IDENTITY UINT64_C(0)
static inline bool dz_stream_is_legacy(CUstream handle) {
  return (uint64_t)(uintptr_t)handle <= DZ_LEGACY_HANDLE;
}

/* Whether it is the one that was asked for by handle, and has that identity. */
static inline bool dz_stream_is(const struct stream *stream, CUstream handle, uint64_t identity) {
  if (dz_stream_is_retired(stream)) return false;
  return identity == DZ_STREAM_CAPTURES ? stream->handle == handle
                                        : atomic_load_explicit(&stream->identity, memory_order_relaxed) == identity;
}

/* Whether a retired stream's work is over, as far as drowse knows: where it could not mark it, that was the owner's to wait for.
 * The guard entered. */
bool dz_stream_is_over(const drowse_heap *heap, const struct stream *stream);

/* Whether it captures, or one beside it does, so that it cannot be asked about its work. The guard entered. */
bool dz_stream_is_capturing(const drowse_heap *heap, CUstream stream);

/* A stream's identity. Without the lock; the guard entered. */
drowse_status dz_stream_identify(drowse_heap *heap, CUstream handle, uint64_t *identity);

/* The heap's record of a stream, made if need be; NULL: no memory. With the lock held. */
struct stream *dz_stream_get(drowse_heap *heap, CUstream handle, uint64_t identity);

/* Both of them. Without the lock; the guard entered. */
drowse_status dz_stream_see(drowse_heap *heap, CUstream handle, struct stream **stream);

/* Whoever gives a known stream's handle to the driver does so between begin and end, short calls only: its owner waits for that
 * when he retires it. False: it is retired. */
bool dz_stream_begin(drowse_heap *heap, struct stream *stream);
void dz_stream_end(drowse_heap *heap, struct stream *stream);

/* Records an event behind the work on a stream; false: it could not be, or the stream is retired, or it began to capture
 * meanwhile, whose event must not be asked about. The guard entered. */
bool dz_stream_mark(drowse_heap *heap, struct stream *stream, CUevent event);

/* What to wait on, from any thread, for the work on a stream. */
CUstream dz_stream_waitable(CUstream handle);

/* Waits for work on the device, as drain says. BUSY: a known stream is capturing, and nothing has been waited for; or the
 * deadline is over. Without the lock; the guard entered. */
drowse_status dz_drain(drowse_heap *heap, drowse_drain drain, int64_t deadline);

/* For a heap's end: waits for the work on the device, or, where that cannot be, on each known stream for which it can. Without
 * the lock; the guard entered. */
void dz_drain_whatever(drowse_heap *heap);

/* Destroys the streams' events. For a heap's end. */
void dz_streams_end(drowse_heap *heap);

#endif
