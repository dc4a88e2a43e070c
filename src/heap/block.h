/* SPDX-License-Identifier: Apache-2.0
 *
 * Blocks: how a segment's addresses are divided.
 */
#ifndef DZ_BLOCK_H
#define DZ_BLOCK_H

#include <stddef.h>

#include "heap/pool.h"
#include "heap/segment.h"

enum __attribute__((packed)) block_state {
  DZ_HOLE,    /* no memory */
  DZ_CLAIMED, /* not live, and somebody maps or unmaps it */
  DZ_FREE,    /* memory, unused */
  DZ_LEAVING, /* its memory has moved within the pool, and is mapped here too until the stream is done with it (reclaim.h) */
  DZ_PENDING, /* memory that was freed, and work on other streams may still use it */
  DZ_STUCK,   /* unused, and not known whether there is memory: the driver would not unmap it. While the tag sleeps: a hole */
  DZ_LIVE     /* a user's, or it is kept as it is: that the index knows (quick.h) */
};

/* The first cache line has all that cutting and joining look at. Two lines, because processors fetch them in pairs: what one
 * thread writes shall not be beside what another one does. */
struct block {
  _Alignas(2 * DZ_CACHE_LINE) struct range range; /* first: bins and neighbours know blocks by their range */
  struct segment *segment;
  enum block_state state;
  bool tied;      /* see dz_block_tie() */
  bool early;     /* claimed: its stream may still use it here */
  bool poisoned;  /* all of it has been filled since it was freed (poison.h) */
  uint16_t slack; /* live: by how much the size was rounded up */
  /* live */
  struct range *backup;     /* backup.h: its bytes in the arena, or */
  struct filed *filed;      /* ... in a file */
  struct use *uses;         /* other streams that use it */
  struct block *freed_next; /* in a list: freed while its tag was in motion; claimed; leaving; a spare node */
  struct block *gap_next;   /* not live, while its tag wakes: the next one of its segment that is not */
  /* free: its pool's clock when the last of its bytes was freed, or somewhat later; not known while it is kept (quick.h) */
  uint64_t freed_at;
  bool is_new; /* the backup: the operation that moves the tag has made it */
  bool stuck;  /* leaving: the driver would not unmap it here */
};

_Static_assert(offsetof(struct block, backup) == DZ_CACHE_LINE, "the first line is full, and no more");

/* The block that a range of a segment's is. By way of void *, because ranges are aligned to less. */
static inline struct block *dz_block_of(const struct range *range) {
  return (struct block *)(void *)(uintptr_t)range;
}

static inline struct block *dz_block_after(const struct block *block) {
  return dz_block_of(block->range.after);
}

static inline struct block *dz_block_before(const struct block *block) {
  return dz_block_of(block->range.before);
}

/* How many bytes its user asked for. */
static inline uint64_t dz_block_asked(const struct block *live) {
  return live->range.bytes - live->slack;
}

static inline struct pool *dz_pool_of(const struct block *block) {
  return block->segment->pool;
}

/* The live block at an address, or that starts there, with its pool's lock taken; NULL: none, and no lock. */
struct block *dz_block_lock(drowse_heap *heap, uint64_t address, bool start);

/* NOT_FOUND: says of a pointer that it is no live block's start. */
drowse_status dz_block_not_found(const drowse_heap *heap, const void *ptr);

/* Unless said otherwise: with the pool's lock held. */

/* Cuts a block, which is in no bin, at an address inside it; returns the rest. Needs a node of the pool's supply. */
struct block *dz_block_cut(struct block *block, uint64_t address);

/* Cuts a part out of a free block, which is in no bin; what is left of it goes to the bins. Needs DZ_POOL_NODES nodes. */
struct block *dz_block_cut_out(struct block *block, uint64_t base, uint64_t bytes);

/* Puts a block that is in no bin where it can be found, joined with neighbours of its kind. Returns what it became part of. */
struct block *dz_block_settle(struct block *block);

/* Takes a block out of the bin in which it is, if it is in one. */
void dz_block_drop(struct block *block);

/* A live block out of the pool's free ones; NULL: none is large enough. Needs DZ_POOL_NODES nodes, and a supply for the index.
 */
struct block *dz_block_take(struct pool *pool, uint64_t asked, uint64_t alignment);

/* What begins and ends a live block's life for its pool, whose clock ticks with the end. */
static inline void dz_pool_count_live(struct pool *pool, uint64_t bytes) {
  pool->live_bytes += bytes;
  pool->takes++;
}
static inline void dz_pool_count_unused(struct pool *pool, uint64_t bytes) {
  pool->live_bytes -= bytes;
  pool->frees++;
}

/* Notes whether a live block is tied: other streams use it, or it has a backup, so that freeing it takes more than the pool's
 * lock. With both locks, or for an operation with the heap's. */
void dz_block_tie(struct block *block, bool tied);

/* Takes a live block out of the index: it is still counted, and nobody finds it any more. */
void dz_block_hide(struct block *block);

/* Frees a plain block, of an open pool, where dz_quick_keep() would not keep it. */
void dz_block_end_unkept(struct pool *pool, struct index_spot spot);

/* Makes the blocks that were kept (quick.h) free ones like others. */
void dz_pool_flush(struct pool *pool);

/* Ends a hidden block: its memory becomes free, pending if other streams use it, or a hole if the tag sleeps; the backup goes.
 * With the heap's lock too, unless the pool is open and nothing else uses the block. */
void dz_block_end(struct block *block);

/* What a hole between live blocks has beside their extents, which reach into it; false: nothing, because they meet. */
bool dz_hole_inside(const struct block *hole, uint64_t *low, uint64_t *high);

/* The memory of a block that waited for streams has gone, and their work is over. With the heap's lock, and without the pool's.
 */
void dz_block_hollow(struct block *pending);

/* The memory of a tag has gone: what was free or stuck becomes holes, and segments without a live block go. With the heap's lock.
 * Takes no longer for live blocks, of which there may be very many, and neither do the next two. */
void dz_pool_sleep(struct pool *pool);

/* Before a tag wakes: finds the gaps between its live blocks, and sees to the nodes that waking needs. With both locks. */
drowse_status dz_pool_find_gaps(struct pool *pool);

/* ... and when it has woken: holes are divided by the extents that are there now. With the heap's lock. */
void dz_pool_wake(struct pool *pool);

/* The first and the next live block of a segment or a tag; NULL: no more. Also for an operation, without the lock, on a tag in
 * motion. */
struct block *dz_segment_live(const struct segment *segment, const struct block *after);
struct block *dz_tag_live(const struct tag *tag, const struct block *after);

/* Gives back the addresses of an awake tag's segment that is one hole. With both locks. */
void dz_segment_free_if_empty(struct segment *segment);

/* Unmaps a leaving block where it is, or counts it as stuck; false: that. Without locks. */
bool dz_block_leave(struct block *leaving);

/* Takes all of a tag's memory away from the device; returns how many bytes are stuck. For an operation, without the lock. */
uint64_t dz_tag_unmap(struct tag *tag);

#endif
