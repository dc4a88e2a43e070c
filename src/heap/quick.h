/* SPDX-License-Identifier: Apache-2.0
 *
 * The blocks of each size that were freed last. A server's requests come in few sizes, again and again: these blocks stay as they
 * are, in the index and not joined with what is beside them, for the next request of their size. A size's place is found by a
 * hash; where more than two sizes share one they make way for each other.
 *
 * What is usual is here, to be inlined, and calls nothing. All with the pool's lock.
 */
#ifndef DZ_QUICK_H
#define DZ_QUICK_H

#include "heap/block.h"

/* A size's place: two, one behind the other. */
static inline struct quick *dz_quick_place(struct pool *pool, uint64_t bytes) {
  return pool->quick[bytes / DZ_UNIT * UINT64_C(0x9e3779b97f4a7c15) >> (64 - DZ_QUICK_BITS)];
}

/* Where blocks of a size are kept, if they are: it may be another size's. */
static inline struct quick *dz_quick_of(struct pool *pool, uint64_t bytes) {
  struct quick *place = dz_quick_place(pool, bytes);
  return place[0].bytes == bytes ? &place[0] : &place[1];
}

static inline void dz_quick_pop(struct quick *quick, struct block *block) {
  quick->last = dz_block_of(block->range.bin_next);
  quick->count--;
  block->range.bin_next = NULL;
}

static inline void dz_quick_push(struct pool *pool, struct quick *quick, struct block *block) {
  block->state = DZ_QUICK;
  quick->freed_at = pool->frees;
  block->range.bin_next = quick->last == NULL ? NULL : &quick->last->range;
  quick->last = block;
  quick->count++;
}

/* Makes a kept block live; NULL: there is none of that size and alignment. */
static inline struct block *dz_quick_take(struct pool *pool, uint64_t asked, uint64_t alignment) {
  uint64_t bytes = dz_round_up(asked, DZ_UNIT);
  struct quick *quick = dz_quick_of(pool, bytes);
  struct block *block = quick->last;
  if (block == NULL || quick->bytes != bytes || (block->range.base & (alignment - 1)) != 0) return NULL;
  dz_quick_pop(quick, block);
  dz_block_make_live(pool, block, asked);
  return block;
}

/* Keeps a live block that nothing else uses, of an open pool; false: it has to make way, or others for it. */
static inline bool dz_quick_keep(struct pool *pool, struct block *block) {
  struct quick *quick = dz_quick_of(pool, block->range.bytes);
  if (quick->bytes != block->range.bytes || quick->count >= DZ_QUICK_BLOCKS) return false;
  dz_block_make_unused(pool, block);
  dz_quick_push(pool, quick, block);
  return true;
}

#endif
