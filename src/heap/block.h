/* SPDX-License-Identifier: Apache-2.0
 *
 * Blocks: how a segment's addresses are divided. A pool is the memory of one tag that one stream uses and that is of one kind:
 * work on a stream is ordered, so what is freed there can be handed out again there at once.
 */
#ifndef DZ_BLOCK_H
#define DZ_BLOCK_H

#include "heap/segment.h"

enum block_state {
  DZ_HOLE,    /* no memory */
  DZ_CLAIMED, /* a hole that somebody is mapping */
  DZ_FREE,    /* memory, unused */
  DZ_STUCK,   /* unused, and not known whether there is memory: the driver would not unmap it */
  DZ_LIVE     /* a user's */
};

struct block {
  struct range range; /* first: bins and neighbours know blocks by their range */
  struct segment *segment;
  enum block_state state;
  /* of a live block */
  uint64_t asked; /* bytes */
  struct stream *stream;
  struct range *backup;     /* asleep: where its bytes are; NULL: discarded */
  struct block *freed_next; /* freed while its tag was in motion */
  /* of a free block: the heap's look when the last of its bytes was freed */
  uint64_t freed_at;
  RB_ENTRY(block) in_index;
};

struct pool {
  struct tag *tag;
  struct stream *stream;
  bool expandable;
  struct pool *next; /* in the tag */
  struct bins free;  /* its free blocks, while the tag is awake */
  struct bins holes; /* its holes, likewise */
  struct segment *segments;
};

static inline struct block *dz_block_after(const struct block *block) {
  return (struct block *)block->range.after;
}

static inline struct block *dz_block_before(const struct block *block) {
  return (struct block *)block->range.before;
}

/* All with the heap's lock held. */

/* Ends a live block: its memory becomes free, or a hole if the tag sleeps; the backup goes. Not in the index any more. */
void dz_block_end(struct block *block);

/* Puts a block that is in no bin where it can be found, joined with neighbours of its kind. Returns what it became part of. */
struct block *dz_block_settle(struct block *block);

/* A tag's blocks when it has gone to sleep: everything but live blocks becomes holes, bins are empty, segments without a live
 * block go. */
void dz_pool_sleep(struct pool *pool);

/* ... and when it has woken: holes are divided by the extents that are there now. Needs dz_pool_wake_nodes() reserved block
 * nodes, and gives back those that it did not use. */
size_t dz_pool_wake_nodes(const struct pool *pool);
void dz_pool_wake(struct pool *pool);

/* The first and the next live block of a segment or a tag; NULL: no more. Also for an operation, without the lock, on a tag in
 * motion. */
struct block *dz_segment_live(const struct segment *segment, const struct block *after);
struct block *dz_tag_live(const struct tag *tag, const struct block *after);

/* Gives back the addresses of an awake tag's segment that is one hole. */
void dz_segment_free_if_empty(struct segment *segment);

/* Takes all of a tag's memory away from the device; returns how many bytes are stuck. For an operation, without the lock. */
uint64_t dz_tag_unmap(struct tag *tag);

/* Gives the backups of a tag's live blocks back to the arena. For an operation, or with the lock held. */
void dz_tag_drop_backup(struct tag *tag);

/* If there are any, waits for the work on the device, then gives free blocks' whole extents back until at most keep_bytes of free
 * memory are mapped; adds what went back to *given_bytes. What is freed during the wait stays: the device may not be done with
 * it. Without the lock; the guard entered. BUSY: as dz_drain() says, and nothing went back; DRIVER: some is stuck. */
drowse_status dz_heap_give_back(drowse_heap *heap, uint64_t keep_bytes, uint64_t *given_bytes);

#endif
