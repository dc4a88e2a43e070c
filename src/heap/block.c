/* SPDX-License-Identifier: Apache-2.0
 *
 * Blocks: joining, ending, and what sleep and wake make of them.
 */
#include "heap/block.h"

#include <assert.h>
#include <inttypes.h>

#include "heap/stream.h"

/* ---- neighbours */

/* Adds the block after kept to kept. Neither is in a bin. */
static void join_after(struct block *kept) {
  struct block *gone = dz_block_after(kept);
  if (gone->freed_at > kept->freed_at) kept->freed_at = gone->freed_at;
  dz_range_join(&kept->range, &gone->range);
  dz_slab_give(&kept->segment->pool->tag->heap->block_slab, gone);
}

/* The bins in which a block is found; NULL: in none. A sleeping tag's holes are in none, and one that falls asleep still has all.
 */
static struct bins *bins_of(const struct block *block) {
  struct pool *pool = block->segment->pool;
  if (pool->tag->state == DROWSE_ASLEEP || pool->tag->state == DROWSE_WAKING) return NULL;
  return block->state == DZ_FREE ? &pool->free : block->state == DZ_HOLE ? &pool->holes : NULL;
}

static void drop(struct block *block) {
  if (block->range.bin_before != NULL) dz_bins_drop(bins_of(block), &block->range);
}

struct block *dz_block_settle(struct block *block) {
  struct block *after = dz_block_after(block), *before = dz_block_before(block);
  if (after != NULL && after->state == block->state) {
    drop(after);
    join_after(block);
  }
  if (before != NULL && before->state == block->state) {
    drop(before);
    join_after(before);
    block = before;
  }
  struct bins *bins = bins_of(block);
  if (bins != NULL) dz_bins_put(bins, &block->range);
  return block;
}

void dz_block_end(struct block *block) {
  struct tag *tag = block->segment->pool->tag;
  assert(block->state == DZ_LIVE);
  tag->live_blocks--;
  tag->live_bytes -= block->range.bytes;
  if (block->backup != NULL) {
    tag->backup_bytes -= block->range.bytes;
    dz_arena_give(&tag->heap->arena, block->backup);
    block->backup = NULL;
  }
  block->state = tag->state == DROWSE_ASLEEP ? DZ_HOLE : DZ_FREE;
  block->freed_at = tag->heap->looks;
  (void)dz_block_settle(block);
}

struct block *dz_segment_live(const struct segment *segment, const struct block *after) {
  struct block *block = after == NULL ? segment->first : dz_block_after(after);
  while (block != NULL && block->state != DZ_LIVE) block = dz_block_after(block);
  return block;
}

struct block *dz_tag_live(const struct tag *tag, const struct block *after) {
  const struct pool *pool = after == NULL ? tag->pools : after->segment->pool;
  const struct segment *segment = after == NULL ? NULL : after->segment;
  struct block *block = segment == NULL ? NULL : dz_segment_live(segment, after);
  for (; block == NULL && pool != NULL; pool = pool->next, segment = NULL) {
    segment = segment == NULL ? pool->segments : segment->next;
    for (; block == NULL && segment != NULL; segment = segment->next) block = dz_segment_live(segment, NULL);
  }
  return block;
}

uint64_t dz_tag_unmap(struct tag *tag) {
  uint64_t stuck_bytes = 0;
  for (const struct pool *pool = tag->pools; pool != NULL; pool = pool->next) {
    for (struct segment *segment = pool->segments; segment != NULL; segment = segment->next) {
      stuck_bytes += dz_segment_unmap(segment, segment->base, segment->reserved);
    }
  }
  return stuck_bytes;
}

void dz_tag_drop_backup(struct tag *tag) {
  for (struct block *block = dz_tag_live(tag, NULL); block != NULL; block = dz_tag_live(tag, block)) {
    if (block->backup != NULL) dz_arena_give(&tag->heap->arena, block->backup);
    block->backup = NULL;
  }
}

/* ---- sleep */

/* Everything but live blocks becomes holes. */
static void hollow(struct segment *segment) {
  for (struct block *block = segment->first; block != NULL; block = dz_block_after(block)) {
    block->range.bin_before = NULL;
    block->range.bin_next = NULL;
    if (block->state != DZ_LIVE) block->state = DZ_HOLE;
  }
  for (struct block *block = segment->first; block != NULL;) {
    struct block *after = dz_block_after(block);
    if (block->state == DZ_HOLE && after != NULL && after->state == DZ_HOLE) {
      join_after(block);
    } else {
      block = after;
    }
  }
}

void dz_pool_sleep(struct pool *pool) {
  pool->free = (struct bins){0};
  pool->holes = (struct bins){0};
  for (struct segment **at = &pool->segments; *at != NULL;) {
    struct segment *segment = *at;
    hollow(segment);
    if (segment->extents == NULL && dz_segment_live(segment, NULL) == NULL) {
      *at = segment->next;
      dz_segment_free(segment);
    } else {
      at = &segment->next;
    }
  }
}

/* ---- wake */

size_t dz_pool_wake_nodes(const struct pool *pool) {
  size_t nodes = 0;
  for (const struct segment *segment = pool->segments; segment != NULL; segment = segment->next) {
    for (const struct block *block = segment->first; block != NULL; block = dz_block_after(block)) {
      if (block->state == DZ_HOLE) nodes += 2;
    }
  }
  return nodes;
}

/* Cuts a hole at an address inside it, the rest taking a reserved node. */
static struct block *cut_hole(struct block *hole, uint64_t address, size_t *nodes) {
  struct block *rest = dz_slab_take_reserved(&hole->segment->pool->tag->heap->block_slab);
  (*nodes)--;
  rest->segment = hole->segment;
  rest->state = DZ_HOLE;
  rest->freed_at = hole->freed_at;
  dz_range_split(&hole->range, address, &rest->range);
  return rest;
}

/* A hole between live blocks has memory at its two ends, where extents of the live blocks reach into it, or all over, where they
 * meet. */
static void fill_hole(struct block *hole, size_t *nodes) {
  uint64_t granularity = hole->segment->pool->tag->heap->granularity;
  uint64_t low = hole->range.base, high = dz_range_end(&hole->range);
  if (dz_block_before(hole) != NULL) low = dz_round_up(low, granularity);
  if (dz_block_after(hole) != NULL) high = dz_round_down(high, granularity);
  if (low >= high) {
    hole->state = DZ_FREE;
    return;
  }
  if (low > hole->range.base) {
    hole->state = DZ_FREE;
    hole = cut_hole(hole, low, nodes);
  }
  if (high < dz_range_end(&hole->range)) cut_hole(hole, high, nodes)->state = DZ_FREE;
}

void dz_pool_wake(struct pool *pool) {
  size_t nodes = dz_pool_wake_nodes(pool);
  for (struct segment *segment = pool->segments; segment != NULL; segment = segment->next) {
    for (struct block *block = segment->first, *next; block != NULL; block = next) {
      next = dz_block_after(block);
      if (block->state == DZ_HOLE) fill_hole(block, &nodes);
    }
    for (struct block *block = segment->first; block != NULL; block = dz_block_after(block)) {
      if (block->state == DZ_HOLE && dz_segment_touches_stuck(segment, block->range.base, block->range.bytes))
        block->state = DZ_STUCK;
      struct bins *bins = block->state == DZ_FREE ? &pool->free : block->state == DZ_HOLE ? &pool->holes : NULL;
      if (bins != NULL) dz_bins_put(bins, &block->range);
    }
  }
  dz_slab_unreserve(&pool->tag->heap->block_slab, nodes);
}

/* ---- giving free memory back */

/* A stretch of whole extents inside a free block. */
struct stretch {
  uint64_t base, end;
};

/* The whole extents of a free block, as much of them as keep bytes leave to give. */
static struct stretch whole_extents(const struct block *block, uint64_t most) {
  struct stretch stretch = {0, 0};
  for (const struct extent *at = block->segment->extents; at != NULL; at = at->after) {
    uint64_t end = at->base + at->bytes;
    if (at->stuck || at->base < block->range.base || end > dz_range_end(&block->range)) continue;
    if (stretch.end != 0 && stretch.end != at->base) break;
    if (stretch.end == 0 && most == 0) break;
    if (stretch.end == 0) stretch.base = at->base;
    stretch.end = end;
    if (end - stretch.base >= most) break;
  }
  return stretch;
}

/* Cuts a stretch out of a free block, which it leaves in no bin; false: no memory for the metadata of what is left. */
static bool cut_stretch(struct block **block, struct stretch stretch) {
  drowse_heap *heap = (*block)->segment->pool->tag->heap;
  if (!dz_slab_reserve(&heap->block_slab, 2)) return false;
  drop(*block);
  size_t nodes = 2;
  if (stretch.end < dz_range_end(&(*block)->range)) {
    struct block *rest = cut_hole(*block, stretch.end, &nodes);
    rest->state = DZ_FREE;
    dz_bins_put(&rest->segment->pool->free, &rest->range);
  }
  if (stretch.base > (*block)->range.base) {
    struct block *middle = cut_hole(*block, stretch.base, &nodes);
    dz_bins_put(&(*block)->segment->pool->free, &(*block)->range);
    *block = middle;
  }
  dz_slab_unreserve(&heap->block_slab, nodes);
  return true;
}

/* Finds a block of an awake tag that was free before the look and has a whole extent; NULL: there is none. */
static struct block *find_free(drowse_heap *heap, uint64_t look, uint64_t most, struct stretch *stretch) {
  for (struct tag *tag = heap->tags; tag != NULL; tag = tag->next) {
    if (tag->state != DROWSE_AWAKE) continue;
    for (struct pool *pool = tag->pools; pool != NULL; pool = pool->next) {
      for (struct segment *segment = pool->segments; segment != NULL; segment = segment->next) {
        for (struct block *block = segment->first; block != NULL; block = dz_block_after(block)) {
          if (block->state != DZ_FREE || block->freed_at >= look) continue;
          *stretch = whole_extents(block, most);
          if (stretch->end != 0) return block;
        }
      }
    }
  }
  return NULL;
}

/* Claims the whole extents of such a block and pins its tag. */
static struct block *claim_free(drowse_heap *heap, uint64_t look, uint64_t most) {
  struct stretch stretch;
  struct block *block = find_free(heap, look, most, &stretch);
  if (block == NULL || !cut_stretch(&block, stretch)) return NULL;
  block->state = DZ_CLAIMED;
  dz_tag_pin(block->segment->pool->tag);
  return block;
}

void dz_segment_free_if_empty(struct segment *segment) {
  if (segment->extents != NULL || segment->first->state != DZ_HOLE || segment->first->range.after != NULL) return;
  dz_bins_drop(&segment->pool->holes, &segment->first->range);
  struct segment **at = &segment->pool->segments;
  while (*at != segment) at = &(*at)->next;
  *at = segment->next;
  dz_segment_free(segment);
}

static uint64_t free_bytes(drowse_heap *heap) {
  uint64_t bytes = 0;
  for (struct tag *tag = heap->tags; tag != NULL; tag = tag->next) {
    if (tag->state == DROWSE_AWAKE && tag->mapped_bytes > tag->live_bytes) bytes += tag->mapped_bytes - tag->live_bytes;
  }
  return bytes;
}

/* Claims all stuck blocks of awake tags, and pins the tags; returns them as a list. */
static struct block *claim_stuck(drowse_heap *heap) {
  struct block *list = NULL;
  for (struct tag *tag = heap->tags; tag != NULL; tag = tag->next) {
    if (tag->state != DROWSE_AWAKE || tag->stuck_bytes == 0) continue;
    for (struct pool *pool = tag->pools; pool != NULL; pool = pool->next) {
      for (struct segment *segment = pool->segments; segment != NULL; segment = segment->next) {
        for (struct block *block = segment->first; block != NULL; block = dz_block_after(block)) {
          if (block->state != DZ_STUCK) continue;
          block->state = DZ_CLAIMED;
          block->freed_next = list;
          list = block;
          dz_tag_pin(tag);
        }
      }
    }
  }
  return list;
}

/* Unmaps what there is of a claimed block; returns how much is stuck. Lets the lock go meanwhile. */
static uint64_t unmap_claimed(drowse_heap *heap, struct block *block, uint64_t (*unmap)(struct segment *, uint64_t, uint64_t)) {
  struct segment *segment = block->segment;
  dz_unlock(&heap->lock);
  uint64_t stuck_bytes = unmap(segment, block->range.base, block->range.bytes);
  dz_lock(&heap->lock);
  block->state = stuck_bytes == 0 ? DZ_HOLE : DZ_STUCK;
  (void)dz_block_settle(block);
  dz_segment_free_if_empty(segment);
  return stuck_bytes;
}

static uint64_t retry_stuck(drowse_heap *heap) {
  uint64_t stuck_bytes = 0;
  for (struct block *block = claim_stuck(heap), *next; block != NULL; block = next) {
    struct tag *tag = block->segment->pool->tag;
    next = block->freed_next;
    block->freed_next = NULL;
    stuck_bytes += unmap_claimed(heap, block, dz_segment_retry_stuck);
    dz_tag_unpin(tag);
  }
  return stuck_bytes;
}

/* A look for more than keep_bytes of unused memory. */
static uint64_t begin_look(drowse_heap *heap, uint64_t keep_bytes, bool *found) {
  struct stretch stretch;
  dz_lock(&heap->lock);
  uint64_t look = ++heap->looks;
  *found = free_bytes(heap) > keep_bytes && find_free(heap, look, UINT64_MAX, &stretch) != NULL;
  dz_unlock(&heap->lock);
  return look;
}

drowse_status dz_heap_give_back(drowse_heap *heap, uint64_t keep_bytes, uint64_t *given_bytes) {
  bool found;
  uint64_t look = begin_look(heap, keep_bytes, &found);
  drowse_status status = found ? dz_drain(heap, DROWSE_DRAIN_DEVICE, NULL, 0, DZ_NEVER) : DROWSE_OK;
  if (status != DROWSE_OK) return status;
  dz_heap_retry_unreleased(heap);
  dz_lock(&heap->lock);
  uint64_t stuck_bytes = retry_stuck(heap);
  for (;;) {
    uint64_t unused = free_bytes(heap);
    struct block *block = unused > keep_bytes ? claim_free(heap, look, unused - keep_bytes) : NULL;
    if (block == NULL) break;
    struct tag *tag = block->segment->pool->tag;
    uint64_t bytes = block->range.bytes, stuck = unmap_claimed(heap, block, dz_segment_unmap);
    dz_tag_unpin(tag);
    stuck_bytes += stuck;
    *given_bytes += bytes - stuck;
  }
  stuck_bytes += heap->unreleased_bytes;
  dz_unlock(&heap->lock);
  dz_heap_free_addresses(heap);
  return stuck_bytes == 0 ? DROWSE_OK
                          : dz_error(DROWSE_ERR_DRIVER, "the driver of %s would not take %" PRIu64 " unused bytes back",
                                     heap->device.name, stuck_bytes);
}
