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

/* Tells a block that is kept how much of it is asked for. */
void dz_quick_adapt(const struct pool *pool, const struct kept *kept, uint16_t slack);

/* Makes a kept block live and returns where it starts; 0: there is none of that size and alignment. */
static inline uint64_t dz_quick_take(struct pool *pool, uint64_t asked, uint64_t alignment) {
  uint64_t bytes = dz_round_up(asked, DZ_UNIT);
  struct quick *quick = dz_quick_of(pool, bytes);
  if (quick->count == 0 || quick->bytes != bytes) return 0;
  const struct kept *kept = &quick->kept[quick->count - 1];
  if ((kept->base & (alignment - 1)) != 0) return 0;
  quick->count--;
  if (bytes - asked != kept->slack) dz_quick_adapt(pool, kept, (uint16_t)(bytes - asked));
  dz_keys_flip(kept->keys, kept->bit);
  dz_pool_count_live(pool, bytes);
  return kept->base;
}

static inline void dz_quick_push(struct pool *pool, struct quick *quick, struct kept kept) {
  quick->kept[quick->count++] = kept;
  quick->freed_at = pool->frees;
  dz_keys_flip(kept.keys, kept.bit);
}

/* Keeps a plain block, of an open pool, that starts at base; false: it has to make way, or others for it. */
static inline bool dz_quick_keep(struct pool *pool, uint64_t base, struct index_spot spot) {
  uint64_t entry = atomic_load_explicit(spot.entry, memory_order_relaxed), bytes = dz_entry_bytes(entry);
  struct kept kept = {base, spot.keys, spot.bit, 0};
  if (bytes == 0) {
    bytes = dz_entry_block(entry)->range.bytes;
    kept.slack = dz_entry_block(entry)->slack;
  }
  struct quick *quick = dz_quick_of(pool, bytes);
  if (quick->bytes != bytes || quick->count >= DZ_QUICK_BLOCKS) return false;
  dz_pool_count_unused(pool, bytes);
  dz_quick_push(pool, quick, kept);
  return true;
}

#endif
