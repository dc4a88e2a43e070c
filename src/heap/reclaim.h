/* SPDX-License-Identifier: Apache-2.0
 *
 * Free memory that fills whole extents: it goes where memory is needed next, before any is created, or back to the device.
 *
 * What a stream may still use goes to the same pool only, whose work comes behind that by the stream's order. It is mapped at its
 * new place at once, and unmapped at the old one when the stream is done: so neither a stream that always has work nor a capture
 * keeps free memory from being used.
 */
#ifndef DZ_RECLAIM_H
#define DZ_RECLAIM_H

#include "heap/block.h"

/* Free blocks of any awake tags that are made of whole extents, taken out of circulation, and their tags pinned. */
struct claims {
  struct block *blocks; /* by freed_next */
  uint64_t bytes;
  uint64_t early_until; /* by the pool's clock: when the last of those that its stream may still use was freed; 0: none */
  uint64_t low, high;   /* what ends or begins there, of the pool for which they are, is not claimed; 0: nowhere */
};

/* Learns what streams are done with, where it matters, and unmaps what has left. Without locks; the guard entered. */
void dz_heap_look(drowse_heap *heap);

/* Claims about as many bytes more as are wanted: no more than the last extent makes it, less where there is no more. For a pool,
 * or, to be given back, for nobody: NULL. With the heap's lock. */
void dz_claims_collect(drowse_heap *heap, struct claims *claims, uint64_t wanted_bytes, const struct pool *taker);

/* They are free again. With the heap's lock. */
void dz_claims_drop(struct claims *claims);

/* Unmaps them; the extents are appended to a list. Returns how many bytes are stuck. Without locks. Then, with the heap's lock:
 * they are holes. */
uint64_t dz_claims_lift(const struct claims *claims, struct extent **list);
void dz_claims_end(struct claims *claims);

/* Tries once more to give back what the driver would not take: of awake tags, of sleeping ones, and handles that are mapped
 * nowhere. Returns how many bytes are still mapped. Without locks; the guard entered. */
uint64_t dz_heap_retry_stuck(drowse_heap *heap);

/* Waits for the work on the device, if there is unused memory, and gives free blocks' whole extents back until at most keep_bytes
 * of unused memory are mapped; adds what went back to *given_bytes. What is freed during the wait stays. Without locks; the guard
 * entered. BUSY: as dz_drain() says, and nothing went back; DRIVER: some is stuck. */
drowse_status dz_heap_give_back(drowse_heap *heap, uint64_t keep_bytes, uint64_t *given_bytes);

/* The largest free block of the heap. With the heap's lock. */
uint64_t dz_heap_largest_free(drowse_heap *heap);

#endif
