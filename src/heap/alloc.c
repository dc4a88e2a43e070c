/* SPDX-License-Identifier: Apache-2.0
 *
 * Allocating and freeing.
 *
 * A block comes from its pool's free blocks. Where none is large enough, a hole of the pool is claimed and memory mapped there,
 * without the lock; where no hole is large enough either, a new segment is one. Then it is looked for again.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/options.h"
#include "heap/block.h"
#include "heap/stream.h"
#include "scope/frame.h"

/* What is asked for. */
struct request {
  const drowse_tag *tag;
  bool expandable;
  CUstream stream;
  uint64_t stream_identity;
  uint64_t asked, bytes, alignment; /* bytes: asked, rounded up */
};

/* ---- pools */

static struct pool *make_pool(struct tag *tag, struct stream *stream, bool expandable) {
  struct pool *pool = dz_slab_take(&tag->heap->pool_slab);
  if (pool == NULL) {
    dz_error(DROWSE_ERR_NO_HOST_MEMORY, "no memory for the metadata of the tag \"%s\"", tag->name->name);
    return NULL;
  }
  pool->tag = tag;
  pool->stream = stream;
  pool->expandable = expandable;
  pool->next = tag->pools;
  return tag->pools = pool;
}

static struct pool *find_pool(struct tag *tag, const struct request *request) {
  struct stream *stream = dz_stream_get(tag->heap, request->stream, request->stream_identity);
  if (stream == NULL) {
    dz_error(DROWSE_ERR_NO_HOST_MEMORY, "no memory for the metadata of a stream");
    return NULL;
  }
  struct pool *pool = tag->pools;
  while (pool != NULL && (pool->stream != stream || pool->expandable != request->expandable)) pool = pool->next;
  return pool != NULL ? pool : make_pool(tag, stream, request->expandable);
}

/* ---- taking a free block */

/* Cuts a free block, which is in no bin, at an address inside it; NULL: no memory for the rest. */
static struct block *cut(struct block *block, uint64_t address) {
  struct block *rest = dz_slab_take(&block->segment->pool->tag->heap->block_slab);
  if (rest == NULL) return NULL;
  rest->segment = block->segment;
  rest->state = block->state;
  rest->freed_at = block->freed_at;
  dz_range_split(&block->range, address, &rest->range);
  return rest;
}

static void make_live(struct block *block, const struct request *request) {
  struct pool *pool = block->segment->pool;
  struct tag *tag = pool->tag;
  block->state = DZ_LIVE;
  block->asked = request->asked;
  block->stream = pool->stream;
  tag->live_bytes += block->range.bytes;
  tag->live_blocks++;
  dz_index_add(&tag->heap->index, block);
}

/* Makes a free block's aligned part live; what is left of it goes back to the bins. NULL: no memory for metadata, nothing
 * changed. */
static struct block *take(struct pool *pool, struct block *block, const struct request *request) {
  dz_bins_drop(&pool->free, &block->range);
  uint64_t start = dz_round_up(block->range.base, request->alignment);
  if (start > block->range.base) {
    struct block *aligned = cut(block, start);
    dz_bins_put(&pool->free, &block->range);
    if (aligned == NULL) return NULL;
    block = aligned;
  }
  if (block->range.bytes > request->bytes) {
    struct block *rest = cut(block, start + request->bytes);
    if (rest == NULL) {
      (void)dz_block_settle(block);
      return NULL;
    }
    dz_bins_put(&pool->free, &rest->range);
  }
  make_live(block, request);
  return block;
}

/* ---- growing */

/* The size that surely holds the request wherever it starts. */
static uint64_t padded_bytes(const struct request *request) {
  return request->bytes + request->alignment - DZ_UNIT;
}

/* A new segment: as much as is wanted now, or, to grow in place, as many addresses as the device has memory; fewer where there
 * are none. */
static drowse_status add_segment(struct pool *pool, uint64_t bytes) {
  drowse_heap *heap = pool->tag->heap;
  uint64_t want = dz_extent_bytes(heap, bytes, pool->tag->mapped_bytes);
  uint64_t reserve = pool->expandable && heap->total_bytes > want ? dz_round_up(heap->total_bytes, heap->granularity) : want;
  struct segment *segment;
  drowse_status status = dz_segment_make(pool, reserve, &segment);
  while (status == DROWSE_ERR_NO_ADDRESS_SPACE && reserve > want) {
    reserve = dz_round_up(reserve / 2 > want ? reserve / 2 : want, heap->granularity);
    status = dz_segment_make(pool, reserve, &segment);
  }
  if (status != DROWSE_OK) return status;
  segment->next = pool->segments;
  pool->segments = segment;
  dz_bins_put(&pool->holes, &segment->first->range);
  return DROWSE_OK;
}

/* Claims bytes at the beginning of a hole. */
static bool claim(struct pool *pool, struct block *hole, uint64_t bytes) {
  dz_bins_drop(&pool->holes, &hole->range);
  struct block *rest = hole->range.bytes > bytes ? cut(hole, hole->range.base + bytes) : NULL;
  if (rest == NULL && hole->range.bytes > bytes) {
    dz_bins_put(&pool->holes, &hole->range);
    return false;
  }
  if (rest != NULL) dz_bins_put(&pool->holes, &rest->range);
  hole->state = DZ_CLAIMED;
  return true;
}

/* Maps memory into a hole so that together with the free block before it there are bytes in a row: first as much as serves the
 * tag's growth, then, if the device has not as much, just what is missing. */
static drowse_status fill_hole(struct pool *pool, struct block *hole, uint64_t bytes, bool just_missing) {
  drowse_heap *heap = pool->tag->heap;
  const struct block *before = dz_block_before(hole);
  if (before != NULL && before->state == DZ_FREE) bytes -= before->range.bytes < bytes ? before->range.bytes : 0;
  uint64_t map = dz_extent_bytes(heap, bytes, just_missing ? 0 : pool->tag->mapped_bytes);
  if (map > hole->range.bytes) map = hole->range.bytes;
  if (!claim(pool, hole, map)) return dz_error(DROWSE_ERR_NO_HOST_MEMORY, "no memory for the metadata of a block");
  struct segment *segment = hole->segment;
  dz_unlock(&heap->lock);
  drowse_status status = dz_segment_map(segment, hole->range.base, map);
  dz_lock(&heap->lock);
  hole->state = status == DROWSE_OK ? DZ_FREE : dz_segment_touches_stuck(segment, hole->range.base, map) ? DZ_STUCK : DZ_HOLE;
  (void)dz_block_settle(hole);
  if (status != DROWSE_OK) dz_segment_free_if_empty(segment);
  return status;
}

/* Gets the pool more memory. With the lock held, which is let go meanwhile; the tag is pinned. */
static drowse_status grow(struct pool *pool, const struct request *request) {
  uint64_t bytes = padded_bytes(request);
  uint64_t hole_bytes = dz_round_up(bytes, pool->tag->heap->granularity);
  drowse_status status = DROWSE_ERR_NO_DEVICE_MEMORY;
  for (int tries = 0; status == DROWSE_ERR_NO_DEVICE_MEMORY && tries < 2; tries++) {
    struct range *hole;
    while ((hole = dz_bins_find(&pool->holes, hole_bytes)) == NULL) {
      drowse_status added = add_segment(pool, hole_bytes);
      if (added != DROWSE_OK) return added;
    }
    status = fill_hole(pool, (struct block *)hole, bytes, tries > 0);
  }
  return status;
}

/* ---- allocating */

/* Takes a block, the pool growing as need be. */
static drowse_status try_allocate(drowse_heap *heap, const struct request *request, void **ptr) {
  drowse_status status = DROWSE_OK;
  struct block *block = NULL;
  dz_lock(&heap->lock);
  struct tag *tag = dz_tag_make(heap, request->tag);
  struct pool *pool = NULL;
  if (tag == NULL) {
    status = DROWSE_ERR_NO_HOST_MEMORY;
  } else if (tag->state != DROWSE_AWAKE) {
    status = dz_tag_refuse(tag);
  } else if ((pool = find_pool(tag, request)) == NULL) {
    status = DROWSE_ERR_NO_HOST_MEMORY;
  }
  while (status == DROWSE_OK && block == NULL) {
    struct range *found = dz_bins_find(&pool->free, padded_bytes(request));
    if (found != NULL) {
      block = take(pool, (struct block *)found, request);
      if (block == NULL) status = dz_error(DROWSE_ERR_NO_HOST_MEMORY, "no memory for the metadata of a block");
      continue;
    }
    dz_tag_pin(tag);
    status = grow(pool, request);
    dz_tag_unpin(tag);
    if (status == DROWSE_OK && tag->state != DROWSE_AWAKE) status = dz_tag_refuse(tag);
  }
  if (block != NULL) *ptr = (void *)(uintptr_t)block->range.base;
  dz_unlock(&heap->lock);
  return status;
}

/* Names, after an allocation has failed for want of memory, who has how much. */
static void tell_out_of_memory(drowse_heap *heap, const struct request *request) {
  char text[384];
  size_t length = 0, free_bytes = 0, total_bytes = 0;
  (void)heap->device.driver.MemGetInfo(&free_bytes, &total_bytes);
  text[0] = '\0';
  dz_lock(&heap->lock);
  for (const struct tag *tag = heap->tags; tag != NULL; tag = tag->next) {
    if (tag->mapped_bytes == 0 || length >= sizeof text - 1) continue;
    int wrote = snprintf(text + length, sizeof text - length, "; %s holds %" PRIu64, tag->name->name, tag->mapped_bytes);
    length += wrote > 0 ? (size_t)wrote : 0;
  }
  dz_unlock(&heap->lock);
  dz_error(DROWSE_ERR_NO_DEVICE_MEMORY, "%" PRIu64 " bytes for the tag \"%s\" on %s, which has %zu free of %zu%s", request->asked,
           request->tag->name, heap->device.name, free_bytes, total_bytes, text);
  dz_error_tag(request->tag->name);
  dz_error_bytes(request->bytes, free_bytes, free_bytes);
}

/* One try with the driver at hand: gives unused memory back where there is none, and tries again. */
static drowse_status allocate_guarded(drowse_heap *heap, struct request *request, void **ptr) {
  struct guard guard;
  drowse_status status = dz_guard_enter(&guard, heap);
  if (status != DROWSE_OK) return status;
  status = dz_stream_identify(heap, request->stream, &request->stream_identity);
  if (status == DROWSE_OK) status = try_allocate(heap, request, ptr);
  if (status == DROWSE_ERR_NO_DEVICE_MEMORY) {
    uint64_t given = 0;
    (void)dz_heap_give_back(heap, 0, &given);
    status = given > 0 ? try_allocate(heap, request, ptr) : DROWSE_ERR_NO_DEVICE_MEMORY;
    if (status == DROWSE_ERR_NO_DEVICE_MEMORY) tell_out_of_memory(heap, request);
  }
  if (status != DROWSE_OK) dz_heap_free_addresses(heap); /* of the segment that has stayed empty */
  return dz_guard_leave(&guard, status);
}

static drowse_status allocate(drowse_heap *heap, struct request *request, void **ptr) {
  drowse_status status = allocate_guarded(heap, request, ptr);
  while (status == DROWSE_ERR_NO_DEVICE_MEMORY && heap->pressure != NULL) {
    struct error error;
    dz_error_save(&error);
    drowse_status answer = heap->pressure(heap->pressure_context, request->bytes);
    status = dz_heap_check(heap); /* the hook may have forked */
    if (status == DROWSE_OK && answer != DROWSE_OK) return dz_error_restore(&error);
    if (status == DROWSE_OK) status = allocate_guarded(heap, request, ptr);
  }
  return status;
}

/* ---- the public calls */

static drowse_status read_request(const drowse_heap *heap, size_t bytes, drowse_stream stream,
                                  const drowse_alloc_options *options, struct request *request) {
  struct frame frame = dz_frame_current();
  if ((unsigned)options->expandable > DROWSE_EXPANDABLE_OFF) {
    return dz_error(DROWSE_ERR_INVALID, "expandable is %d, which is no drowse_expandable", (int)options->expandable);
  }
  if (options->flags != 0)
    return dz_error(DROWSE_ERR_UNSUPPORTED, "drowse_alloc_options: flags is 0x%x: this version has none", options->flags);
  uint64_t alignment = options->alignment == 0 ? DZ_UNIT : options->alignment;
  if ((alignment & (alignment - 1)) != 0 || alignment > heap->granularity) {
    return dz_error(DROWSE_ERR_INVALID, "alignment is %zu: it must be a power of two of at most %" PRIu64, options->alignment,
                    heap->granularity);
  }
  if (bytes > UINT64_C(1) << 48)
    return dz_error(DROWSE_ERR_NO_ADDRESS_SPACE, "%zu bytes: no device has as many addresses", bytes);
  drowse_expandable expandable = options->expandable == DROWSE_EXPANDABLE_INHERIT ? frame.expandable : options->expandable;
  *request = (struct request){
      .tag = options->tag != NULL ? drowse_tag_get(options->tag)
             : frame.tag != NULL  ? frame.tag
                                  : drowse_tag_get("default"),
      .expandable =
          expandable == DROWSE_EXPANDABLE_INHERIT ? heap->settings.expandable_segments : expandable == DROWSE_EXPANDABLE_ON,
      .stream = stream,
      .asked = bytes,
      .bytes = dz_round_up(bytes, DZ_UNIT),
      .alignment = alignment < DZ_UNIT ? DZ_UNIT : alignment,
  };
  return request->tag == NULL ? dz_error_last() : DROWSE_OK;
}

DROWSE_API drowse_status drowse_alloc_with(drowse_heap *heap, size_t bytes, drowse_stream stream,
                                           const drowse_alloc_options *given, void **ptr) {
  drowse_alloc_options options;
  struct request request;
  if (ptr == NULL) return dz_error(DROWSE_ERR_INVALID, "ptr is NULL");
  *ptr = NULL;
  drowse_status status = dz_heap_check(heap);
  if (status == DROWSE_OK) status = dz_options_read(&options, sizeof options, given, "drowse_alloc_options");
  if (status == DROWSE_OK) status = read_request(heap, bytes, stream, &options, &request);
  if (status != DROWSE_OK || bytes == 0) return status;
  status = allocate(heap, &request, ptr);
  if (status != DROWSE_OK && *ptr != NULL) { /* the caller's context could not be put back */
    struct error error;
    dz_error_save(&error);
    (void)drowse_free(heap, *ptr);
    *ptr = NULL;
    (void)dz_error_restore(&error);
  }
  return status;
}

DROWSE_API drowse_status drowse_alloc(drowse_heap *heap, size_t bytes, drowse_stream stream, void **ptr) {
  return drowse_alloc_with(heap, bytes, stream, NULL, ptr);
}

/* Frees a live block, or notes that it is to be freed when its tag's motion ends. */
static void end_block(drowse_heap *heap, struct block *block) {
  struct tag *tag = block->segment->pool->tag;
  dz_index_remove(&heap->index, block);
  if (tag->state == DROWSE_FALLING_ASLEEP || tag->state == DROWSE_WAKING) {
    block->freed_next = tag->freed;
    tag->freed = block;
  } else {
    dz_block_end(block);
  }
}

DROWSE_API drowse_status drowse_free(drowse_heap *heap, void *ptr) {
  drowse_status status = dz_heap_check(heap);
  if (status != DROWSE_OK || ptr == NULL) return status;
  uint64_t address = (uint64_t)(uintptr_t)ptr, base = 0;
  dz_lock(&heap->lock);
  struct block *block = dz_index_find(&heap->index, address);
  if (block != NULL) base = block->range.base;
  if (base == address) end_block(heap, block);
  dz_unlock(&heap->lock);
  if (base == address) return DROWSE_OK;
  if (base == 0) return dz_error(DROWSE_ERR_NOT_FOUND, "%p is in no live block of this heap", ptr);
  return dz_error(DROWSE_ERR_NOT_FOUND, "%p is no block's start: it is %" PRIu64 " bytes into the block at %p", ptr,
                  address - base, (void *)(uintptr_t)base);
}

/* Ends the live blocks of an awake or sleeping tag, pool by pool. Ending a block may join it with its neighbours, so the search
 * begins anew behind what it became. */
static void clear(struct tag *tag) {
  for (struct pool *pool = tag->pools; pool != NULL; pool = pool->next) {
    for (struct segment *segment = pool->segments; segment != NULL; segment = segment->next) {
      for (struct block *block = dz_segment_live(segment, NULL); block != NULL; block = dz_segment_live(segment, NULL))
        end_block(tag->heap, block);
    }
  }
}

DROWSE_API drowse_status drowse_tag_clear(drowse_heap *heap, const char *name) {
  drowse_status status = dz_heap_check(heap);
  if (status != DROWSE_OK) return status;
  dz_lock(&heap->lock);
  struct tag *tag = dz_tag_named(heap, name, &status);
  if (tag != NULL && (tag->state == DROWSE_FALLING_ASLEEP || tag->state == DROWSE_WAKING)) {
    status = dz_tag_busy(tag);
  } else if (tag != NULL) {
    clear(tag);
  }
  dz_unlock(&heap->lock);
  return status;
}

DROWSE_API drowse_status drowse_trim(drowse_heap *heap, uint64_t keep_bytes) {
  drowse_status status = dz_heap_check(heap);
  if (status != DROWSE_OK) return status;
  struct guard guard;
  uint64_t given = 0;
  status = dz_guard_enter(&guard, heap);
  if (status != DROWSE_OK) return status;
  status = dz_heap_give_back(heap, keep_bytes, &given);
  return dz_guard_leave(&guard, status);
}
