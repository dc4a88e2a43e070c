/* SPDX-License-Identifier: Apache-2.0
 *
 * Segments: reserved ranges of addresses, and the extents mapped in them. What is where in a segment is told by its extents, a
 * tree, and by its blocks, a list, both in address order; a hole is a block without memory.
 */
#ifndef DZ_SEGMENT_H
#define DZ_SEGMENT_H

#include <bsd/sys/tree.h>

#include "heap/tag.h"

struct extent {
  uint64_t base, bytes;
  CUmemGenericAllocationHandle handle;
  RB_ENTRY(extent) in_segment;
  struct extent *after; /* in a list of those that are mapped nowhere */
  bool stuck;           /* the driver would not unmap it: its addresses are not used until it does, or turns out to have */
  bool tried;           /* to release it */
};

RB_HEAD(extents, extent);

struct segment {
  struct segment *next; /* in the pool */
  struct pool *pool;
  uint64_t base, reserved;
  bool tried;             /* to free its addresses */
  struct extents extents; /* by address */
  struct block *first;
  struct block *gaps; /* while its tag wakes: the blocks that are not live, by address, by gap_next */
};

/* How many bytes to create where so many of a request's are missing, and so many are live in the pool. What is small is created
 * ahead of need, because driver calls cost by the handle; what is large, exactly. */
uint64_t dz_created_bytes(const drowse_heap *heap, uint64_t missing, uint64_t request, uint64_t live);

/* Reserves a range of bytes and makes it a segment, all one hole, in no list yet. Called with the lock held, which it lets go
 * meanwhile. NO_ADDRESS_SPACE, NO_HOST_MEMORY, DRIVER. */
drowse_status dz_segment_make(struct pool *pool, uint64_t bytes, struct segment **result);

/* Ends a segment without extents and its blocks; it is in no list. Its addresses go with the next dz_heap_free_addresses(). With
 * the lock. */
void dz_segment_free(struct segment *segment);

/* Gives addresses of segments that have gone back to the driver. Where it will not take some, they are kept, and tried again only
 * while the heap is being closed: the driver may have taken them all the same, and have given them to a new segment since.
 * Without the lock. */
void dz_heap_free_addresses(drowse_heap *heap);

/* The first extent that begins at or above an address, the first that reaches above it, and the one after an extent; NULL: none.
 * Whether there is none at all. With the lock, or for an operation. */
struct extent *dz_segment_extent(const struct segment *segment, uint64_t address);
struct extent *dz_segment_extent_at(const struct segment *segment, uint64_t address);
struct extent *dz_extent_after(struct extent *extent);
static inline bool dz_segment_is_unmapped(const struct segment *segment) {
  return RB_EMPTY(&segment->extents);
}

/* The largest handles: of a pool of which something has been freed, once its tag has DZ_FINE_HANDLES, until when each is as small
 * as it can be; of one of which nothing has, as when a model is loaded; for a wake, which knows what is live. On an H100 a handle
 * costs 0.05 to 0.1 ms, large or not, so that the fine ones cost a tag a third of a second in all; but free memory moves in whole
 * handles, and what a large one has in use keeps the rest of it where it is: on the traces of bench/ handles of 1 GiB map up to a
 * seventh more at the peak than is live, of 20 MiB up to a fourteenth, of 4 MiB a thirtieth, of 2 MiB a fortieth. */
#define DZ_MOVABLE_BYTES (UINT64_C(4) << 20)
#define DZ_LOADED_BYTES (UINT64_C(48) << 20)
#define DZ_WAKING_BYTES (UINT64_C(1) << 30)
enum { DZ_FINE_HANDLES = 4096 };

/* Creates handles of at most most, of bytes in all, that are mapped nowhere, and puts them behind the end of a list, which moves.
 * Nothing is left behind after a failure: NO_DEVICE_MEMORY, NO_HOST_MEMORY, DRIVER. Without the lock. */
drowse_status dz_extents_create(drowse_heap *heap, uint64_t bytes, uint64_t most, struct extent ***end);

/* Gives them back to the driver. Without the lock. */
void dz_extents_release(drowse_heap *heap, struct extent *list);

/* Maps a list of extents one behind the other, from base on, which is a hole or part of one, and makes them the segment's. After
 * a failure nothing of them is left: DRIVER. Without the lock. */
drowse_status dz_segment_place(struct segment *segment, uint64_t base, struct extent *list);

/* Unmaps the extents that lie in [base, base + bytes); the first appends them to a list, the second gives them back to the
 * driver. Return how many bytes are stuck. Without the lock. */
uint64_t dz_segment_lift(struct segment *segment, uint64_t base, uint64_t bytes, struct extent **list);
uint64_t dz_segment_unmap(struct segment *segment, uint64_t base, uint64_t bytes);

/* Takes the extents out of the segment and appends them to a list; they stay mapped. Without the lock. */
void dz_segment_detach(struct segment *segment, uint64_t base, uint64_t bytes, struct extent **list);

/* Tries again to unmap what is stuck there, and to release what the driver would not take back; the first returns how many bytes
 * still are stuck. Without the lock. */
uint64_t dz_segment_retry_stuck(struct segment *segment, uint64_t base, uint64_t bytes);
void dz_heap_retry_unreleased(drowse_heap *heap);

/* Whether part of [base, base + bytes) may still be mapped against our will. With the lock. */
bool dz_segment_touches_stuck(const struct segment *segment, uint64_t base, uint64_t bytes);

#endif
