/* SPDX-License-Identifier: Apache-2.0
 *
 * Debug builds, with DROWSE_DEBUG_POISON=1 in the environment when the heap is opened: freed memory is filled with a pattern, and
 * looked at when it is handed out again, so that a write to a block after its end is found. Slow: every allocation waits for its
 * stream.
 */
#ifndef DZ_POISON_H
#define DZ_POISON_H

#include "heap/block.h"

#if DZ_DEBUG
static inline bool dz_poison_is_on(const drowse_heap *heap) {
  return heap->poison;
}

/* Whether the environment asks for it. */
bool dz_poison_wanted(void);

/* Fills a live block of an awake tag, which is about to be freed, by its stream; not while that captures. */
drowse_status dz_poison_fill(drowse_heap *heap, void *ptr);

/* Fills memory that has just been mapped; false: it could not be. The guard entered. */
bool dz_poison_fresh(drowse_heap *heap, uint64_t base, uint64_t bytes);

/* Looks at a block that has just been allocated. CORRUPT: somebody has written to the memory since it was freed. */
drowse_status dz_poison_check(drowse_heap *heap, void *ptr);
#else
static inline bool dz_poison_is_on(const drowse_heap *heap) {
  (void)heap;
  return false;
}
static inline bool dz_poison_wanted(void) {
  return false;
}
static inline drowse_status dz_poison_fill(drowse_heap *heap, void *ptr) {
  (void)heap;
  (void)ptr;
  return DROWSE_OK;
}
static inline bool dz_poison_fresh(drowse_heap *heap, uint64_t base, uint64_t bytes) {
  (void)heap;
  (void)base;
  (void)bytes;
  return false;
}
static inline drowse_status dz_poison_check(drowse_heap *heap, void *ptr) {
  (void)heap;
  (void)ptr;
  return DROWSE_OK;
}
#endif

#endif
