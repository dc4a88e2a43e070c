/* SPDX-License-Identifier: Apache-2.0
 *
 * Blocks that several streams use.
 */
#include "heap/pending.h"

#include "heap/backup.h"
#include "heap/stream.h"

/* ---- uses */

static struct use *take_use(drowse_heap *heap) {
  struct use *use = heap->spare_uses;
  if (use == NULL) return dz_slab_take(&heap->use_slab);
  heap->spare_uses = use->next;
  return use;
}

bool dz_use_add(struct block *block, struct stream *stream) {
  for (const struct use *use = block->uses; use != NULL; use = use->next) {
    if (use->stream == stream) return true;
  }
  struct use *use = take_use(dz_pool_of(block)->tag->heap);
  if (use == NULL) return false;
  use->stream = stream;
  use->recorded = false;
  use->next = block->uses;
  block->uses = use;
  dz_block_tie(block, true);
  return true;
}

static void give_use(drowse_heap *heap, struct use *use) {
  use->next = heap->spare_uses;
  heap->spare_uses = use;
}

void dz_uses_drop(struct block *block) {
  drowse_heap *heap = dz_pool_of(block)->tag->heap;
  for (struct use *use = block->uses, *next; use != NULL; use = next) {
    next = use->next;
    give_use(heap, use);
  }
  block->uses = NULL;
  dz_block_tie(block, dz_block_is_backed_up(block));
}

void dz_uses_end(drowse_heap *heap) {
  for (const struct use *use = heap->spare_uses; use != NULL; use = use->next) {
    if (use->event != NULL) (void)heap->device.driver.EventDestroy(use->event);
  }
  heap->spare_uses = NULL;
}

/* ---- waiting blocks: a list in the order in which they were freed, by freed_next */

void dz_pending_add(struct block *block) {
  drowse_heap *heap = dz_pool_of(block)->tag->heap;
  dz_lock_assert_held(&heap->lock);
  block->freed_next = NULL;
  *heap->pending_end = block;
  heap->pending_end = &block->freed_next;
}

/* Takes the blocks out of the list that are chosen, as a list. With the heap's lock. */
static struct block *unlink_blocks(drowse_heap *heap, const struct tag *of) {
  struct block *list = NULL, **list_end = &list, **at = &heap->pending;
  while (*at != NULL) {
    struct block *block = *at;
    const struct tag *tag = dz_pool_of(block)->tag;
    if (of == NULL ? tag->state != DROWSE_AWAKE : tag != of) {
      at = &block->freed_next;
      continue;
    }
    *at = block->freed_next;
    block->freed_next = NULL;
    *list_end = block;
    list_end = &block->freed_next;
  }
  heap->pending_end = at;
  return list;
}

void dz_pending_forget(const struct tag *tag) {
  for (struct block *block = unlink_blocks(tag->heap, tag), *next; block != NULL; block = next) {
    next = block->freed_next;
    block->freed_next = NULL;
    dz_block_hollow(block);
  }
}

/* Whether the stream is done with it. An event that cannot be recorded or asked about is tried again with the next poll. */
static bool use_is_over(drowse_heap *heap, struct use *use) {
  const struct driver *driver = &heap->device.driver;
  if (!use->recorded && dz_stream_is_retired(use->stream)) return dz_stream_is_over(heap, use->stream);
  if (use->event == NULL && driver->EventCreate(&use->event, CU_EVENT_DISABLE_TIMING) != CUDA_SUCCESS) {
    use->event = NULL;
    return false;
  }
  if (!use->recorded) use->recorded = dz_stream_mark(heap, use->stream, use->event);
  if (!use->recorded) return false;
  CUresult code = driver->EventQuery(use->event);
  use->recorded = code == CUDA_SUCCESS || code == CUDA_ERROR_NOT_READY; /* else a capture has got it after all */
  return code == CUDA_SUCCESS;
}

/* All uses are looked at, so that each has its event recorded as early as can be. */
static bool block_is_over(drowse_heap *heap, const struct block *block) {
  bool over = true;
  for (struct use *use = block->uses; use != NULL; use = use->next) over &= use_is_over(heap, use);
  return over;
}

static void free_block(struct block *block) {
  struct pool *pool = dz_pool_of(block);
  dz_pool_lock(pool);
  block->freed_next = NULL;
  dz_uses_drop(block);
  block->state = DZ_FREE;
  (void)dz_block_settle(block);
  dz_pool_unlock(pool);
}

/* Their tags are pinned, so that the blocks stay what they are meanwhile. */
static struct block *begin_poll(drowse_heap *heap) {
  dz_lock(&heap->lock);
  struct block *list = heap->pending == NULL ? NULL : unlink_blocks(heap, NULL);
  for (const struct block *block = list; block != NULL; block = block->freed_next) dz_tag_pin(dz_pool_of(block)->tag);
  dz_unlock(&heap->lock);
  return list;
}

static bool has_unrecorded(const struct block *block) {
  for (const struct use *use = block->uses; use != NULL; use = use->next) {
    if (!use->recorded) return true;
  }
  return false;
}

static void end_poll(struct block *block, bool over) {
  struct pool *pool = dz_pool_of(block);
  drowse_heap *heap = pool->tag->heap;
  dz_lock(&heap->lock);
  if (over)
    free_block(block);
  else
    dz_pending_add(block);
  dz_tag_unpin(pool->tag);
  dz_unlock(&heap->lock);
}

void dz_pending_poll(drowse_heap *heap, bool all) {
  bool waits = false;
  for (struct block *block = begin_poll(heap), *next; block != NULL; block = next) {
    bool over = (all || !waits || has_unrecorded(block)) && block_is_over(heap, block);
    waits |= !over;
    next = block->freed_next;
    end_poll(block, over);
  }
}

/* ---- the public calls */

static drowse_status note_use(drowse_heap *heap, void *ptr, struct stream *stream) {
  drowse_status status = DROWSE_OK;
  dz_lock(&heap->lock);
  struct block *block = dz_block_lock(heap, (uint64_t)(uintptr_t)ptr, true);
  if (block == NULL) {
    status = dz_block_not_found(heap, ptr);
  } else {
    struct pool *pool = dz_pool_of(block);
    if (pool->stream != stream && !dz_use_add(block, stream))
      status = dz_error(DROWSE_ERR_NO_HOST_MEMORY, "no memory for the metadata of a stream's use");
    dz_pool_unlock(pool);
  }
  dz_unlock(&heap->lock);
  return status;
}

DROWSE_API drowse_status drowse_record_stream(drowse_heap *heap, void *ptr, drowse_stream handle) {
  drowse_status status = dz_heap_check(heap);
  if (status != DROWSE_OK || ptr == NULL) return status;
  struct guard guard;
  struct stream *stream;
  status = dz_guard_enter(&guard, heap);
  if (status != DROWSE_OK) return status;
  status = dz_stream_see(heap, handle, &stream);
  if (status == DROWSE_OK) status = note_use(heap, ptr, stream);
  return dz_guard_leave(&guard, status);
}

DROWSE_API drowse_status drowse_free_on(drowse_heap *heap, void *ptr, drowse_stream stream) {
  drowse_status status = drowse_record_stream(heap, ptr, stream);
  return status == DROWSE_OK ? drowse_free(heap, ptr) : status;
}
