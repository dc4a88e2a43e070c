/* SPDX-License-Identifier: Apache-2.0
 *
 * Segments and extents: reserving addresses, mapping memory there and taking it away.
 */
#include "heap/segment.h"

#include <assert.h>
#include <inttypes.h>

#include "heap/block.h"

/* Small pools grow by 1/32, which is also what they can waste, and at most by DZ_MOVABLE_BYTES. */
enum { GROWTH_SHARE = 32 };

uint64_t dz_created_bytes(const drowse_heap *heap, uint64_t missing, uint64_t request, uint64_t live) {
  uint64_t share = live / GROWTH_SHARE;
  if (share > DZ_MOVABLE_BYTES) share = DZ_MOVABLE_BYTES;
  return dz_round_up(request < share && missing < share ? share : missing, heap->granularity);
}

/* Whether the driver has taken something back. It may have said no to an earlier try and have done it all the same: then it does
 * not know the thing any more. */
static bool is_gone(CUresult code, bool tried) {
  return code == CUDA_SUCCESS || (tried && code == CUDA_ERROR_INVALID_VALUE);
}

static int compare(const struct extent *a, const struct extent *b) {
  return (a->base > b->base) - (a->base < b->base);
}

/* RB_GENERATE_STATIC needs an attribute macro that only BSD has. */
RB_GENERATE_INTERNAL(extents, extent, in_segment, compare, __attribute__((unused)) static)

/* ---- reserving */

/* The whole of a segment is one hole. Its node is one of the pool's, like those that it will be divided into. */
static drowse_status make_hole(struct segment *segment, struct pool *pool) {
  dz_pool_lock(pool);
  drowse_status status = dz_pool_supply(pool, 1);
  if (status == DROWSE_OK) {
    segment->first = dz_pool_take_node(pool);
    segment->first->range = (struct range){.base = segment->base, .bytes = segment->reserved};
    segment->first->segment = segment;
    segment->first->state = DZ_HOLE;
  }
  dz_pool_unlock(pool);
  return status;
}

static drowse_status reserve(drowse_heap *heap, uint64_t bytes, uint64_t *base) {
  const struct driver *driver = &heap->device.driver;
  CUdeviceptr address = 0;
  CUresult code = driver->MemAddressReserve(&address, bytes, heap->granularity, 0, 0);
  if (code == CUDA_SUCCESS && address + bytes > DZ_ADDRESS_END) {
    (void)driver->MemAddressFree(address, bytes);
    code = CUDA_ERROR_OUT_OF_MEMORY;
  }
  *base = address;
  if (code == CUDA_SUCCESS) return DROWSE_OK;
  drowse_status status =
      dz_driver_error(driver, code, "reserving %" PRIu64 " bytes of addresses on %s", bytes, heap->device.name);
  return status == DROWSE_ERR_NO_DEVICE_MEMORY ? dz_error_status(DROWSE_ERR_NO_ADDRESS_SPACE) : status;
}

drowse_status dz_segment_make(struct pool *pool, uint64_t bytes, struct segment **result) {
  drowse_heap *heap = pool->tag->heap;
  uint64_t base;
  dz_lock_assert_held(&heap->lock);
  dz_unlock(&heap->lock);
  drowse_status status = reserve(heap, bytes, &base);
  dz_lock(&heap->lock);
  if (status != DROWSE_OK) return status;
  struct segment *segment = dz_slab_take(&heap->segment_slab);
  if (segment == NULL) {
    (void)heap->device.driver.MemAddressFree(base, bytes);
    return dz_error(DROWSE_ERR_NO_HOST_MEMORY, "no memory for the metadata of a segment");
  }
  segment->pool = pool;
  segment->base = base;
  segment->reserved = bytes;
  pool->tag->reserved_bytes += bytes;
  status = make_hole(segment, pool);
  if (status == DROWSE_OK)
    *result = segment;
  else
    dz_segment_free(segment);
  return status;
}

void dz_segment_free(struct segment *segment) {
  struct tag *tag = segment->pool->tag;
  drowse_heap *heap = tag->heap;
  assert(dz_segment_is_unmapped(segment));
  tag->reserved_bytes -= segment->reserved;
  for (struct block *block = segment->first, *after; block != NULL; block = after) {
    after = dz_block_after(block);
    dz_slab_give(&heap->block_slab, block);
  }
  segment->next = heap->unfreed;
  heap->unfreed = segment;
}

static void free_addresses(drowse_heap *heap, struct segment *segment) {
  bool keep = segment->tried && !heap->closing;
  CUresult code = keep ? CUDA_ERROR_UNKNOWN : heap->device.driver.MemAddressFree(segment->base, segment->reserved);
  dz_lock(&heap->lock);
  if (is_gone(code, segment->tried)) {
    dz_slab_give(&heap->segment_slab, segment);
  } else {
    segment->tried = true;
    segment->next = heap->unfreed;
    heap->unfreed = segment;
  }
  dz_unlock(&heap->lock);
}

void dz_heap_free_addresses(drowse_heap *heap) {
  dz_lock(&heap->lock);
  struct segment *list = heap->unfreed;
  heap->unfreed = NULL;
  dz_unlock(&heap->lock);
  for (struct segment *segment = list, *next; segment != NULL; segment = next) {
    next = segment->next;
    free_addresses(heap, segment);
  }
}

/* ---- extents: lists and counts are under the lock, which nobody holds during a driver call */

static struct extent *take_extent(drowse_heap *heap) {
  dz_lock(&heap->lock);
  struct extent *extent = dz_slab_take(&heap->extent_slab);
  dz_unlock(&heap->lock);
  return extent;
}

static void give_extent(drowse_heap *heap, struct extent *extent) {
  dz_lock(&heap->lock);
  dz_slab_give(&heap->extent_slab, extent);
  dz_unlock(&heap->lock);
}

static void append(struct extent **list, struct extent *extent) {
  while (*list != NULL) list = &(*list)->after;
  *list = extent;
}

static void link_extent(struct segment *segment, struct extent *extent) {
  struct tag *tag = segment->pool->tag;
  dz_lock(&tag->heap->lock);
  (void)RB_INSERT(extents, &segment->extents, extent);
  tag->mapped_bytes += extent->bytes;
  tag->handles++;
  if (extent->stuck) tag->stuck_bytes += extent->bytes;
  dz_unlock(&tag->heap->lock);
}

struct extent *dz_extent_after(struct extent *extent) {
  return RB_NEXT(extents, NULL, extent);
}

struct extent *dz_segment_extent(const struct segment *segment, uint64_t address) {
  struct extent *found = NULL;
  for (struct extent *at = RB_ROOT(&segment->extents); at != NULL;) {
    if (at->base >= address) {
      found = at;
      at = RB_LEFT(at, in_segment);
    } else {
      at = RB_RIGHT(at, in_segment);
    }
  }
  return found;
}

struct extent *dz_segment_extent_at(const struct segment *segment, uint64_t address) {
  struct extent *at = dz_segment_extent(segment, address);
  struct extent *before = at == NULL ? RB_MAX(extents, (struct extents *)&segment->extents) : RB_PREV(extents, NULL, at);
  return before != NULL && before->base + before->bytes > address ? before : at;
}

/* Takes the extents that touch [base, end) out of the segment, or only the stuck ones; returns them as a list. */
static struct extent *unlink_extents(struct segment *segment, uint64_t base, uint64_t end, bool only_stuck) {
  struct tag *tag = segment->pool->tag;
  struct extent *list = NULL, **list_end = &list;
  dz_lock(&tag->heap->lock);
  for (struct extent *extent = dz_segment_extent_at(segment, base), *after; extent != NULL && extent->base < end;
       extent = after) {
    after = dz_extent_after(extent);
    if (only_stuck && !extent->stuck) continue;
    (void)RB_REMOVE(extents, &segment->extents, extent);
    extent->after = NULL;
    *list_end = extent;
    list_end = &extent->after;
    tag->mapped_bytes -= extent->bytes;
    tag->handles--;
    if (extent->stuck) tag->stuck_bytes -= extent->bytes;
  }
  dz_unlock(&tag->heap->lock);
  return list;
}

/* Gives a handle that is mapped nowhere back to the driver, or keeps it for another try. */
static void release_extent(drowse_heap *heap, struct extent *extent) {
  CUresult code = heap->device.driver.MemRelease(extent->handle);
  dz_lock(&heap->lock);
  if (is_gone(code, extent->tried)) {
    dz_slab_give(&heap->extent_slab, extent);
  } else {
    extent->tried = true;
    extent->after = heap->unreleased;
    heap->unreleased = extent;
    heap->unreleased_bytes += extent->bytes;
  }
  dz_unlock(&heap->lock);
}

void dz_extents_release(drowse_heap *heap, struct extent *list) {
  for (struct extent *extent = list, *next; extent != NULL; extent = next) {
    next = extent->after;
    release_extent(heap, extent);
  }
}

void dz_heap_retry_unreleased(drowse_heap *heap) {
  dz_lock(&heap->lock);
  struct extent *list = heap->unreleased;
  heap->unreleased = NULL;
  heap->unreleased_bytes = 0;
  dz_unlock(&heap->lock);
  dz_extents_release(heap, list);
}

/* ---- unmapping */

/* The extent behind the run that starts with first: extents without gaps between, which one call unmaps. Stuck ones stand alone.
 */
static struct extent *run_end(struct extent *first) {
  struct extent *at = first;
  while (!first->stuck && at->after != NULL && !at->after->stuck && at->after->base == at->base + at->bytes) at = at->after;
  return at->after;
}

/* Unmaps a run by one call, or one by one where that fails, to learn which extents are stuck: those come back into the segment,
 * the others are appended to the list. Returns the bytes of the stuck ones. */
static uint64_t lift_run(struct segment *segment, struct extent *first, const struct extent *end, struct extent ***list_end) {
  const struct driver *driver = &segment->pool->tag->heap->device.driver;
  uint64_t bytes = 0, stuck_bytes = 0;
  for (const struct extent *at = first; at != end; at = at->after) bytes += at->bytes;
  bool whole = is_gone(driver->MemUnmap(first->base, bytes), first->stuck);
  for (struct extent *at = first, *next; at != end; at = next) {
    next = at->after;
    if (whole || (at->bytes < bytes && is_gone(driver->MemUnmap(at->base, at->bytes), true))) {
      at->stuck = false;
      at->after = NULL;
      **list_end = at;
      *list_end = &at->after;
    } else {
      stuck_bytes += at->bytes;
      at->stuck = true;
      link_extent(segment, at);
    }
  }
  return stuck_bytes;
}

static uint64_t lift_extents(struct segment *segment, struct extent *extent, struct extent **list) {
  uint64_t stuck_bytes = 0;
  while (*list != NULL) list = &(*list)->after;
  for (struct extent *end; extent != NULL; extent = end) {
    end = run_end(extent);
    stuck_bytes += lift_run(segment, extent, end, &list);
  }
  return stuck_bytes;
}

uint64_t dz_segment_lift(struct segment *segment, uint64_t base, uint64_t bytes, struct extent **list) {
  return lift_extents(segment, unlink_extents(segment, base, base + bytes, false), list);
}

void dz_segment_detach(struct segment *segment, uint64_t base, uint64_t bytes, struct extent **list) {
  append(list, unlink_extents(segment, base, base + bytes, false));
}

static uint64_t let_go(struct segment *segment, uint64_t base, uint64_t bytes, bool only_stuck) {
  struct extent *list = NULL;
  uint64_t stuck_bytes = lift_extents(segment, unlink_extents(segment, base, base + bytes, only_stuck), &list);
  dz_extents_release(segment->pool->tag->heap, list);
  return stuck_bytes;
}

uint64_t dz_segment_unmap(struct segment *segment, uint64_t base, uint64_t bytes) {
  return let_go(segment, base, bytes, false);
}

uint64_t dz_segment_retry_stuck(struct segment *segment, uint64_t base, uint64_t bytes) {
  return let_go(segment, base, bytes, true);
}

bool dz_segment_touches_stuck(const struct segment *segment, uint64_t base, uint64_t bytes) {
  for (struct extent *at = dz_segment_extent_at(segment, base); at != NULL && at->base < base + bytes; at = dz_extent_after(at)) {
    if (at->stuck) return true;
  }
  return false;
}

/* ---- creating and mapping */

static drowse_status create_extent(drowse_heap *heap, uint64_t bytes, struct extent **result) {
  const struct driver *driver = &heap->device.driver;
  struct extent *extent = take_extent(heap);
  if (extent == NULL) return dz_error(DROWSE_ERR_NO_HOST_MEMORY, "no memory for the metadata of an extent");
  *extent = (struct extent){.bytes = bytes};
  CUresult code = driver->MemCreate(&extent->handle, bytes, &heap->properties, 0);
  if (code == CUDA_SUCCESS) {
    *result = extent;
    return DROWSE_OK;
  }
  give_extent(heap, extent);
  return dz_driver_error(driver, code, "creating %" PRIu64 " bytes of memory on %s", bytes, heap->device.name);
}

drowse_status dz_extents_create(drowse_heap *heap, uint64_t bytes, uint64_t most, struct extent ***end) {
  drowse_status status = DROWSE_OK;
  struct extent *created = NULL, **last = &created;
  for (uint64_t at = 0, piece; at < bytes && status == DROWSE_OK; at += piece) {
    piece = bytes - at < most ? bytes - at : most;
    status = create_extent(heap, piece, last);
    if (status == DROWSE_OK) last = &(*last)->after;
  }
  if (status != DROWSE_OK) {
    dz_extents_release(heap, created);
  } else if (created != NULL) {
    **end = created;
    *end = last;
  }
  return status;
}

/* Maps an extent; after a failure it is the caller's still. */
static drowse_status place_extent(struct segment *segment, uint64_t base, struct extent *extent) {
  drowse_heap *heap = segment->pool->tag->heap;
  CUresult code = heap->device.driver.MemMap(base, extent->bytes, 0, extent->handle, 0);
  if (code != CUDA_SUCCESS)
    return dz_driver_error(&heap->device.driver, code, "mapping %" PRIu64 " bytes of memory on %s", extent->bytes,
                           heap->device.name);
  /* Where a stuck extent was, it was not mapped any more after all. */
  dz_extents_release(heap, unlink_extents(segment, base, base + extent->bytes, true));
  extent->base = base;
  extent->after = NULL;
  link_extent(segment, extent);
  return DROWSE_OK;
}

drowse_status dz_segment_place(struct segment *segment, uint64_t base, struct extent *list) {
  drowse_heap *heap = segment->pool->tag->heap;
  const struct driver *driver = &heap->device.driver;
  drowse_status status = DROWSE_OK;
  uint64_t mapped = 0;
  for (struct extent *next; list != NULL && status == DROWSE_OK; list = status == DROWSE_OK ? next : list) {
    uint64_t bytes = list->bytes;
    next = list->after;
    status = place_extent(segment, base + mapped, list);
    if (status == DROWSE_OK) mapped += bytes;
  }
  if (status == DROWSE_OK && mapped > 0) {
    CUresult code = driver->MemSetAccess(base, mapped, heap->access, heap->access_count);
    if (code != CUDA_SUCCESS)
      status = dz_driver_error(driver, code, "giving access to %" PRIu64 " bytes of memory on %s", mapped, heap->device.name);
  }
  dz_extents_release(heap, list);
  if (status != DROWSE_OK && mapped > 0) (void)dz_segment_unmap(segment, base, mapped);
  return status;
}
