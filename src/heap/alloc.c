/* SPDX-License-Identifier: Apache-2.0
 *
 * Allocating and freeing.
 *
 * A block comes from its pool's free blocks: that takes the pool's lock alone. Where none is large enough, a hole of the pool is
 * claimed and memory mapped there, without locks: free memory of whoever has whole extents of it, and what is still missing from
 * the device. Where no hole is large enough either, a new segment is one. Then it is looked for again.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/options.h"
#include "heap/backup.h"
#include "heap/pending.h"
#include "heap/poison.h"
#include "heap/quick.h"
#include "heap/reclaim.h"
#include "heap/stream.h"
#include "scope/stack.h"

/* What is asked for. */
struct request {
  const drowse_tag *tag;
  enum pool_kind kind;
  CUstream stream;
  uint64_t stream_identity;
  uint64_t asked, bytes, alignment; /* bytes: asked, rounded up */
};

/* ---- growing */

/* The size that surely holds the request wherever it starts. */
static uint64_t padded_bytes(const struct request *request) {
  return request->bytes + request->alignment - DZ_UNIT;
}

/* A new segment: as much as is wanted now, or, to grow in place, as many addresses as the device has memory; fewer where there
 * are none. */
static drowse_status add_segment(struct pool *pool, uint64_t want) {
  drowse_heap *heap = pool->tag->heap;
  uint64_t reserve =
      (pool->kind & DZ_EXPANDABLE) != 0 && heap->total_bytes > want ? dz_round_up(heap->total_bytes, heap->granularity) : want;
  struct segment *segment;
  drowse_status status = dz_segment_make(pool, reserve, &segment);
  while (status == DROWSE_ERR_NO_ADDRESS_SPACE && reserve > want) {
    reserve = dz_round_up(reserve / 2 > want ? reserve / 2 : want, heap->granularity);
    status = dz_segment_make(pool, reserve, &segment);
  }
  if (status != DROWSE_OK) return status;
  segment->next = pool->segments;
  pool->segments = segment;
  dz_pool_lock(pool);
  dz_bins_put(&pool->holes, &segment->first->range);
  dz_pool_unlock(pool);
  return DROWSE_OK;
}

/* One growth of a pool: a claimed hole, and what is going to be mapped there. */
struct growth {
  struct pool *pool;
  struct block *hole;
  struct block *node;   /* kept for cutting the hole if less comes than was claimed for */
  struct claims claims; /* free memory that moves there */
  bool lifted;          /* it has been unmapped where it was */
  bool poisoned;        /* what is there now */
  uint64_t missing;     /* what has to be there for the request */
  uint64_t created;     /* how much of it comes from the device, and what is created beyond */
  uint64_t most;        /* the largest handle for that */
};

static uint64_t free_bytes(const struct block *block) {
  return block != NULL && block->state == DZ_FREE ? block->range.bytes : 0;
}

/* How much is missing at the beginning of a hole for bytes in a row, together with the free block before it; all of the hole
 * where that joins this one with the free block behind it to hardly more than is needed: if much were left over it would be of a
 * size that nobody asks for, on the traces of bench/ up to a twentieth of all memory. UINT64_MAX: it is too small. */
static uint64_t missing_bytes(const struct block *hole, uint64_t bytes) {
  uint64_t granularity = dz_pool_of(hole)->tag->heap->granularity, before = free_bytes(dz_block_before(hole));
  if (before >= bytes) return 0;
  if (dz_round_up(bytes - before, granularity) <= hole->range.bytes) return bytes - before;
  uint64_t joined = before + hole->range.bytes + free_bytes(dz_block_after(hole));
  return joined >= bytes && joined - bytes < granularity ? hole->range.bytes : UINT64_MAX;
}

/* The hole in which the least is missing for bytes, with room for that and for what moves there: it needs no more pages than any
 * other, and of those that need as many it leaves the most of its last one, which may save the next request a page. Of several
 * the largest, because what is left at the end of a small one serves nobody. On the traces of bench/ the tightest hole left 37
 * MiB of a model unused whose tensors had been replaced, and this one leaves 1. NULL: none. With both locks. */
static struct block *best_hole(const struct pool *pool, uint64_t bytes, uint64_t moved, uint64_t *missing) {
  uint64_t granularity = pool->tag->heap->granularity;
  struct block *best = NULL;
  for (struct range *at = dz_bins_first(&pool->holes, granularity); at != NULL; at = dz_bins_after(&pool->holes, at)) {
    uint64_t needs = missing_bytes(dz_block_of(at), bytes);
    if (at->bytes < moved || needs == UINT64_MAX) continue;
    if (best != NULL && (needs > *missing || (needs == *missing && at->bytes <= best->range.bytes))) continue;
    best = dz_block_of(at);
    *missing = needs;
  }
  return best;
}

/* How much has to be claimed: for the hole that needs least of it, or, without one, all. What is free at the hole's sides and is
 * going to be used with it stays there. With the heap's lock. */
static uint64_t wanted_bytes(struct growth *growth, uint64_t bytes) {
  struct pool *pool = growth->pool;
  struct claims *claims = &growth->claims;
  uint64_t missing = bytes;
  dz_pool_lock(pool);
  dz_pool_flush(pool);
  const struct block *hole = best_hole(pool, bytes, claims->bytes, &missing);
  claims->low = hole == NULL ? 0 : hole->range.base;
  bool joins = hole != NULL && free_bytes(dz_block_before(hole)) + missing < bytes;
  claims->high = joins ? dz_range_end(&hole->range) : 0;
  dz_pool_unlock(pool);
  return dz_round_up(missing, pool->tag->heap->granularity);
}

/* Claims the free memory that a growth needs. Extents come whole, so that the hole for which they were claimed may have no room
 * for them all; then another one has, which may need more. With the heap's lock. */
static void claim_memory(struct growth *growth, uint64_t bytes) {
  struct claims *claims = &growth->claims;
  uint64_t had;
  do {
    had = claims->bytes;
    uint64_t wanted = wanted_bytes(growth, bytes);
    if (wanted > had) dz_claims_collect(growth->pool->tag->heap, claims, wanted - had, growth->pool);
  } while (claims->bytes > had);
}

/* The largest handle for what is created. Where nothing of a pool has been freed it stays, as when a model is loaded. */
static uint64_t handle_bytes(const struct pool *pool, uint64_t created) {
  uint64_t granularity = pool->tag->heap->granularity;
  bool fine = pool->tag->handles + created / granularity <= DZ_FINE_HANDLES;
  return dz_round_up(pool->frees == 0 ? DZ_LOADED_BYTES : fine ? granularity : DZ_MOVABLE_BYTES, granularity);
}

/* Claims the beginning of a hole that has room for bytes and for what moves there; none if nothing is missing any more. With the
 * heap's lock; NOT_FOUND: there is no such hole. */
static drowse_status claim_hole(struct growth *growth, uint64_t bytes) {
  struct pool *pool = growth->pool;
  drowse_heap *heap = pool->tag->heap;
  dz_pool_lock(pool);
  struct block *hole = best_hole(pool, bytes, growth->claims.bytes, &growth->missing);
  drowse_status status = hole == NULL ? DROWSE_ERR_NOT_FOUND : dz_pool_supply(pool, DZ_POOL_NODES + 1);
  if (status == DROWSE_OK && growth->missing > 0) {
    uint64_t moved = growth->claims.bytes, room = hole->range.bytes - moved;
    growth->created = growth->missing > moved ? dz_created_bytes(heap, growth->missing - moved, bytes, pool->live_bytes) : 0;
    if (growth->created > room) growth->created = room;
    growth->most = handle_bytes(pool, growth->created);
    dz_block_drop(hole);
    if (hole->range.bytes > moved + growth->created) {
      dz_bins_put(&pool->holes, &dz_block_cut(hole, hole->range.base + moved + growth->created)->range);
    }
    hole->state = DZ_CLAIMED;
    growth->hole = hole;
    growth->node = dz_pool_take_node(pool);
  }
  dz_pool_unlock(pool);
  return status;
}

static drowse_status begin_growth(struct growth *growth, uint64_t bytes) {
  struct pool *pool = growth->pool;
  drowse_heap *heap = pool->tag->heap;
  drowse_status status;
  uint64_t whole = dz_round_up(bytes, heap->granularity);
  claim_memory(growth, bytes);
  while ((status = claim_hole(growth, bytes)) == DROWSE_ERR_NOT_FOUND) {
    uint64_t moved = growth->claims.bytes;
    uint64_t created = moved < whole ? dz_created_bytes(heap, whole - moved, bytes, 0) : 0;
    status = add_segment(pool, moved + created);
    if (status != DROWSE_OK) return status;
  }
  if (status == DROWSE_OK && growth->hole != NULL &&
      !dz_index_cover(&heap->index, growth->hole->range.base, growth->hole->range.bytes, pool))
    status = dz_error(DROWSE_ERR_NO_HOST_MEMORY, "no memory for the index of blocks");
  return status;
}

/* Creates what serves the tag's growth, or, if the device has not as much, just what is missing. */
static drowse_status create(const struct growth *growth, struct extent **list) {
  drowse_heap *heap = growth->pool->tag->heap;
  drowse_status status = growth->created == 0 ? DROWSE_OK : dz_extents_create(heap, growth->created, growth->most, &list);
  if (status != DROWSE_ERR_NO_DEVICE_MEMORY || growth->missing <= growth->claims.bytes) return status;
  uint64_t least = dz_round_up(growth->missing - growth->claims.bytes, heap->granularity);
  return least < growth->created ? dz_extents_create(heap, least, growth->most, &list) : status;
}

/* What has come to the hole is free from now on, the rest a hole again. With the heap's lock. */
static void end_growth(struct growth *growth, uint64_t placed_bytes) {
  struct pool *pool = growth->pool;
  struct block *block = growth->hole;
  struct segment *segment = block->segment;
  dz_pool_lock(pool);
  dz_pool_give_node(pool, growth->node);
  if (placed_bytes > 0 && placed_bytes < block->range.bytes) {
    struct block *rest = dz_block_cut(block, block->range.base + placed_bytes);
    rest->state = DZ_HOLE;
    (void)dz_block_settle(rest);
  }
  bool stuck = placed_bytes == 0 && dz_segment_touches_stuck(segment, block->range.base, block->range.bytes);
  block->state = placed_bytes > 0 ? DZ_FREE : stuck ? DZ_STUCK : DZ_HOLE;
  block->poisoned = growth->poisoned;
  block->freed_at = growth->claims.early_until; /* what has moved early is not for others yet */
  (void)dz_block_settle(block);
  if (placed_bytes == 0) dz_segment_free_if_empty(segment);
  dz_pool_unlock(pool);
}

static uint64_t sum(const struct extent *list) {
  uint64_t bytes = 0;
  for (; list != NULL; list = list->after) bytes += list->bytes;
  return bytes;
}

/* Brings the memory to the hole: what is created comes first, so that until it is there nothing has changed. Without locks. */
static drowse_status fill_hole(struct growth *growth, uint64_t *placed_bytes) {
  struct segment *segment = growth->hole->segment;
  struct extent *list = NULL;
  drowse_status status = create(growth, &list);
  if (status != DROWSE_OK) return status;
  growth->lifted = true;
  (void)dz_claims_lift(&growth->claims, &list); /* what is stuck is missing, and the next look finds it so */
  uint64_t bytes = sum(list);
  status = dz_segment_place(segment, growth->hole->range.base, list);
  if (status != DROWSE_OK) return status;
  *placed_bytes = bytes;
  growth->poisoned =
      dz_poison_is_on(segment->pool->tag->heap) && dz_poison_fresh(segment->pool->tag->heap, growth->hole->range.base, bytes);
  return DROWSE_OK;
}

/* Gets the pool more memory. With the heap's lock, which is let go meanwhile; the tag is pinned. */
static drowse_status grow(struct pool *pool, const struct request *request) {
  drowse_heap *heap = pool->tag->heap;
  struct growth growth = {.pool = pool};
  uint64_t placed_bytes = 0;
  drowse_status status = begin_growth(&growth, padded_bytes(request));
  if (status == DROWSE_OK && growth.hole != NULL) {
    dz_unlock(&heap->lock);
    status = fill_hole(&growth, &placed_bytes);
    dz_lock(&heap->lock);
  }
  if (growth.hole != NULL) end_growth(&growth, placed_bytes);
  if (growth.lifted)
    dz_claims_end(&growth.claims);
  else
    dz_claims_drop(&growth.claims);
  return status;
}

/* ---- allocating */

/* NULL: none is large enough. With both locks, or, of a pool that is supplied, with its own. */
static void *cut(struct pool *pool, uint64_t asked, uint64_t alignment) {
  const struct block *block = dz_block_take(pool, asked, alignment);
  return block == NULL ? NULL : (void *)(uintptr_t)block->range.base;
}

/* With both locks: the heap's sees to what the pool has to have for it. */
static drowse_status take(struct pool *pool, const struct request *request, void **ptr) {
  dz_pool_lock(pool);
  drowse_status status = dz_pool_supply(pool, DZ_POOL_NODES);
  if (status == DROWSE_OK && pool->open) {
    *ptr = (void *)(uintptr_t)dz_quick_take(pool, request->asked, request->alignment);
    if (*ptr == NULL) *ptr = cut(pool, request->asked, request->alignment);
  }
  dz_pool_unlock(pool);
  return status;
}

/* Learns what has become free meanwhile. With the heap's lock, which is let go. */
static void look_around(drowse_heap *heap) {
  dz_unlock(&heap->lock);
  dz_pending_poll(heap, true);
  dz_heap_look(heap);
  dz_lock(&heap->lock);
}

/* Takes a block, the pool growing as need be. */
static drowse_status take_or_grow(struct pool *pool, const struct request *request, void **ptr) {
  struct tag *tag = pool->tag;
  drowse_status status = take(pool, request, ptr);
  for (bool looked = false; status == DROWSE_OK && *ptr == NULL; looked = true) {
    dz_tag_pin(tag);
    if (looked)
      status = grow(pool, request);
    else
      look_around(tag->heap);
    dz_tag_unpin(tag);
    if (status == DROWSE_OK) status = tag->state == DROWSE_AWAKE ? take(pool, request, ptr) : dz_tag_refuse(tag);
  }
  return status;
}

static drowse_status try_allocate(drowse_heap *heap, const struct request *request, void **ptr) {
  drowse_status status = DROWSE_ERR_NO_HOST_MEMORY;
  dz_lock(&heap->lock);
  struct tag *tag = dz_tag_make(heap, request->tag);
  if (tag != NULL && tag->state != DROWSE_AWAKE) {
    status = dz_tag_refuse(tag);
  } else if (tag != NULL) {
    struct pool *pool = dz_pool_get(tag, request->kind, request->stream, request->stream_identity);
    if (pool != NULL) status = take_or_grow(pool, request, ptr);
  }
  dz_unlock(&heap->lock);
  return status;
}

/* Names, after an allocation has failed for want of memory, who has how much. */
static drowse_status tell_out_of_memory(drowse_heap *heap, const struct request *request) {
  char text[384];
  size_t length = 0, free_bytes = 0, total_bytes = 0;
  (void)heap->device.driver.MemGetInfo(&free_bytes, &total_bytes);
  text[0] = '\0';
  dz_lock(&heap->lock);
  uint64_t largest = dz_heap_largest_free(heap);
  for (const struct tag *tag = heap->tags; tag != NULL; tag = tag->next) {
    if (tag->mapped_bytes == 0 || length >= sizeof text - 1) continue;
    int wrote = snprintf(text + length, sizeof text - length, "; %s holds %" PRIu64, tag->name->name, tag->mapped_bytes);
    length += wrote > 0 ? (size_t)wrote : 0;
  }
  dz_unlock(&heap->lock);
  dz_error(DROWSE_ERR_NO_DEVICE_MEMORY,
           "%" PRIu64 " bytes for the tag \"%s\" on %s, which has %zu free of %zu; the largest free block has %" PRIu64 "%s",
           request->asked, request->tag->name, heap->device.name, free_bytes, total_bytes, largest, text);
  dz_error_tag(request->tag->name);
  dz_error_bytes(request->bytes, free_bytes, largest);
  return DROWSE_ERR_NO_DEVICE_MEMORY;
}

/* For want of memory: waits for the work on the device, so that what it used is free, and gives that back. */
static drowse_status make_room(drowse_heap *heap, const struct request *request, void **ptr) {
  uint64_t given = 0;
  (void)dz_heap_give_back(heap, 0, &given);
  drowse_status status = try_allocate(heap, request, ptr);
  return status == DROWSE_ERR_NO_DEVICE_MEMORY ? tell_out_of_memory(heap, request) : status;
}

/* More than the device has is not begun with: what would be made ready for it takes host memory in proportion. */
static drowse_status try_hard(drowse_heap *heap, const struct request *request, void **ptr) {
  if (request->bytes > heap->total_bytes) return tell_out_of_memory(heap, request);
  drowse_status status = try_allocate(heap, request, ptr);
  return status == DROWSE_ERR_NO_DEVICE_MEMORY ? make_room(heap, request, ptr) : status;
}

/* One try with the driver at hand. */
static drowse_status allocate_guarded(drowse_heap *heap, struct request *request, void **ptr) {
  struct guard guard;
  drowse_status status = dz_guard_enter(&guard, heap);
  if (status != DROWSE_OK) return status;
  status = dz_stream_identify(heap, request->stream, &request->stream_identity);
  if (status == DROWSE_OK) status = try_hard(heap, request, ptr);
  dz_heap_free_addresses(heap); /* of segments that are empty now */
  return dz_guard_leave(&guard, status);
}

static drowse_status allocate_pressing(drowse_heap *heap, struct request *request, void **ptr) {
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

/* What failed before it worked after all is nobody's last failure. */
static drowse_status allocate(drowse_heap *heap, struct request *request, void **ptr) {
  struct error before;
  dz_error_save(&before);
  drowse_status status = allocate_pressing(heap, request, ptr);
  if (status == DROWSE_OK) (void)dz_error_restore(&before);
  return status;
}

/* ---- the public calls */

static inline bool is_expandable(const drowse_heap *heap, drowse_expandable expandable) {
  return expandable == DROWSE_EXPANDABLE_INHERIT ? heap->settings.expandable_segments : expandable == DROWSE_EXPANDABLE_ON;
}

static const drowse_tag *choose_tag(const drowse_alloc_options *options, const struct frame *frame) {
  if (options->tag != NULL) return drowse_tag_get(options->tag);
  return frame->tag != NULL ? frame->tag : drowse_tag_get("default");
}

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
  if (bytes > DZ_ADDRESS_END) return dz_error(DROWSE_ERR_NO_ADDRESS_SPACE, "%zu bytes: no device has as many addresses", bytes);
  *request = (struct request){
      .tag = choose_tag(options, &frame),
      .kind = dz_pool_kind(
          bytes, is_expandable(heap, options->expandable == DROWSE_EXPANDABLE_INHERIT ? frame.expandable : options->expandable)),
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
  if (status == DROWSE_OK && dz_poison_is_on(heap)) status = dz_poison_check(heap, *ptr);
  if (status != DROWSE_OK && *ptr != NULL) { /* it is corrupt, or the caller's context could not be put back */
    struct error error;
    dz_error_save(&error);
    (void)drowse_free(heap, *ptr);
    *ptr = NULL;
    (void)dz_error_restore(&error);
  }
  return status;
}

/* ---- what servers do millions of times: nothing but what the frame says, and a block is at hand, by the pool's lock alone. What
 * is usual is inline and calls nothing, so that it need not save registers; whatever takes more is called last, out of line. */

#define ALWAYS_INLINE static inline __attribute__((always_inline))
#define OUT_OF_LINE static __attribute__((noinline))

/* Whether there is nothing about the heap that a call has to see to first. */
static inline bool is_usual(const drowse_heap *heap) {
  return heap != NULL && dz_fork_quiet_since(heap->generation) && !dz_poison_is_on(heap);
}

OUT_OF_LINE drowse_status allocate_special(drowse_heap *heap, size_t bytes, CUstream stream, void **ptr) {
  return drowse_alloc_with(heap, bytes, stream, NULL, ptr);
}

/* No block of the size was kept. Lets the pool's lock go. */
OUT_OF_LINE drowse_status cut_and_unlock(drowse_heap *heap, size_t bytes, CUstream stream, void **ptr, struct pool *pool) {
  bool supplied = pool->open && pool->spare_count >= DZ_POOL_NODES && pool->spare_chunks != NULL && pool->spare_kept != NULL;
  void *base = supplied ? cut(pool, bytes, DZ_UNIT) : NULL;
  dz_pool_unlock(pool);
  if (base == NULL) return allocate_special(heap, bytes, stream, ptr);
  *ptr = base;
  return DROWSE_OK;
}

/* Closed pools keep nothing. */
ALWAYS_INLINE drowse_status take_and_unlock(drowse_heap *heap, size_t bytes, CUstream stream, void **ptr, struct pool *pool) {
  uint64_t base = dz_quick_take(pool, bytes, DZ_UNIT);
  if (base == 0) return cut_and_unlock(heap, bytes, stream, ptr, pool);
  *ptr = (void *)(uintptr_t)base;
  dz_pool_unlock(pool);
  return DROWSE_OK;
}

OUT_OF_LINE drowse_status take_waiting(drowse_heap *heap, size_t bytes, CUstream stream, void **ptr, struct pool *pool) {
  dz_pool_lock(pool);
  return take_and_unlock(heap, bytes, stream, ptr, pool);
}

ALWAYS_INLINE drowse_status allocate_usual(drowse_heap *heap, size_t bytes, CUstream stream, uint64_t stream_identity, void **ptr,
                                           const void *sp) {
  struct frame frame;
  if (bytes - 1 >= DZ_ADDRESS_END || !dz_frame_glance(sp, &frame)) return allocate_special(heap, bytes, stream, ptr);
  const drowse_tag *name = frame.tag != NULL ? frame.tag : heap->default_name;
  if (name == NULL) return allocate_special(heap, bytes, stream, ptr);
  enum pool_kind kind = dz_pool_kind(bytes, is_expandable(heap, frame.expandable));
  struct pool *pool = dz_pool_glance(heap->pools, name, kind, stream, stream_identity);
  if (pool == NULL) return allocate_special(heap, bytes, stream, ptr);
  return dz_pool_try(pool) ? take_and_unlock(heap, bytes, stream, ptr, pool) : take_waiting(heap, bytes, stream, ptr, pool);
}

/* By itself, because the driver is called. */
OUT_OF_LINE drowse_status allocate_on_stream(drowse_heap *heap, size_t bytes, CUstream stream, void **ptr, const void *sp) {
  return allocate_usual(heap, bytes, stream, dz_stream_ask(heap, stream), ptr, sp);
}

DROWSE_API drowse_status drowse_alloc(drowse_heap *heap, size_t bytes, drowse_stream stream, void **ptr) {
  if (ptr == NULL || !is_usual(heap)) return allocate_special(heap, bytes, stream, ptr);
  if (!dz_stream_is_legacy(stream)) return allocate_on_stream(heap, bytes, stream, ptr, DZ_CALLERS_SP);
  return allocate_usual(heap, bytes, stream, DZ_LEGACY_IDENTITY, ptr, DZ_CALLERS_SP);
}

/* ---- freeing */

/* Frees a live block, or notes that it is to be freed when its tag's motion ends. With both locks. */
static void end_block(struct block *block) {
  struct tag *tag = dz_pool_of(block)->tag;
  dz_block_hide(block);
  if (tag->state == DROWSE_FALLING_ASLEEP || tag->state == DROWSE_WAKING) {
    block->freed_next = tag->freed;
    tag->freed = block;
  } else {
    dz_block_end(block);
  }
}

/* Has events recorded behind what uses a block that has been freed. It is freed whatever comes of this: an event that cannot be
 * recorded now is with the next poll. */
static void mark_uses(drowse_heap *heap) {
  struct guard guard;
  struct error error;
  dz_error_save(&error);
  if (dz_guard_enter(&guard, heap) == DROWSE_OK) {
    dz_pending_poll(heap, false);
    (void)dz_guard_leave(&guard, DROWSE_OK);
  }
  (void)dz_error_restore(&error);
}

static drowse_status free_whatever(drowse_heap *heap, void *ptr) {
  dz_lock(&heap->lock);
  struct block *block = dz_block_lock(heap, (uint64_t)(uintptr_t)ptr, true);
  bool used = false;
  if (block != NULL) {
    struct pool *pool = dz_pool_of(block);
    used = block->uses != NULL;
    end_block(block);
    dz_pool_unlock(pool);
  }
  dz_unlock(&heap->lock);
  dz_heap_close_files(heap);
  if (block == NULL) return dz_block_not_found(heap, ptr);
  if (used) mark_uses(heap);
  return DROWSE_OK;
}

OUT_OF_LINE drowse_status free_special(drowse_heap *heap, void *ptr) {
  drowse_status status = dz_heap_check(heap);
  if (status != DROWSE_OK || ptr == NULL) return status;
  if (dz_poison_is_on(heap)) status = dz_poison_fill(heap, ptr);
  return status == DROWSE_OK ? free_whatever(heap, ptr) : status;
}

OUT_OF_LINE drowse_status unlock_and_free_special(drowse_heap *heap, void *ptr, struct pool *pool) {
  dz_pool_unlock(pool);
  return free_special(heap, ptr);
}

OUT_OF_LINE drowse_status free_unkept_and_unlock(struct pool *pool, struct leaf *leaf, uint64_t base) {
  dz_block_end_unkept(pool, dz_leaf_find_plain(leaf, base));
  dz_pool_unlock(pool);
  return DROWSE_OK;
}

/* A plain block of an open pool. With the lock of the pool that the leaf has told, which is let go. */
ALWAYS_INLINE drowse_status free_and_unlock(drowse_heap *heap, void *ptr, struct pool *pool, struct leaf *leaf) {
  uint64_t base = (uint64_t)(uintptr_t)ptr;
  if (!pool->open || dz_leaf_pool(leaf, base) != pool || base % DZ_UNIT != 0) return unlock_and_free_special(heap, ptr, pool);
  struct index_spot spot = dz_leaf_find_plain(leaf, base);
  if (spot.entry == NULL) return unlock_and_free_special(heap, ptr, pool);
  if (!dz_quick_keep(pool, base, spot)) return free_unkept_and_unlock(pool, leaf, base);
  dz_pool_unlock(pool);
  return DROWSE_OK;
}

OUT_OF_LINE drowse_status free_waiting(drowse_heap *heap, void *ptr, struct pool *pool, struct leaf *leaf) {
  dz_pool_lock(pool);
  return free_and_unlock(heap, ptr, pool, leaf);
}

DROWSE_API drowse_status drowse_free(drowse_heap *heap, void *ptr) {
  if (!is_usual(heap)) return free_special(heap, ptr);
  struct leaf *leaf = dz_index_leaf(&heap->index, (uint64_t)(uintptr_t)ptr);
  struct pool *pool = leaf == NULL ? NULL : dz_leaf_pool(leaf, (uint64_t)(uintptr_t)ptr);
  if (pool == NULL) return free_special(heap, ptr);
  return dz_pool_try(pool) ? free_and_unlock(heap, ptr, pool, leaf) : free_waiting(heap, ptr, pool, leaf);
}

/* Ends the live blocks of an awake or sleeping tag's pool. Ending a block may join it with its neighbours, so the search begins
 * anew behind what it became. */
static void clear(struct pool *pool) {
  dz_pool_lock(pool);
  dz_pool_flush(pool);
  for (struct segment *segment = pool->segments; segment != NULL; segment = segment->next) {
    for (struct block *block = dz_segment_live(segment, NULL); block != NULL; block = dz_segment_live(segment, NULL))
      end_block(block);
  }
  dz_pool_unlock(pool);
}

DROWSE_API drowse_status drowse_tag_clear(drowse_heap *heap, const char *name) {
  drowse_status status = dz_heap_check(heap);
  if (status != DROWSE_OK) return status;
  dz_lock(&heap->lock);
  struct tag *tag = dz_tag_named(heap, name, &status);
  if (tag != NULL && (tag->state == DROWSE_FALLING_ASLEEP || tag->state == DROWSE_WAKING)) {
    status = dz_tag_busy(tag);
  } else if (tag != NULL) {
    for (struct pool *pool = tag->pools; pool != NULL; pool = pool->next) clear(pool);
  }
  bool pending = heap->pending != NULL;
  dz_unlock(&heap->lock);
  dz_heap_close_files(heap);
  if (status == DROWSE_OK && pending) mark_uses(heap);
  return status;
}
