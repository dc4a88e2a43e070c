/* SPDX-License-Identifier: Apache-2.0
 *
 * What a heap's users may see of it.
 */
#include "core/options.h"
#include "heap/block.h"
#include "heap/stream.h"

static drowse_stats tag_stats(const struct tag *tag) {
  struct live live = dz_tag_count_live(tag);
  return (drowse_stats){
      .live_bytes = live.bytes,
      .live_blocks = live.blocks,
      .mapped_bytes = tag->mapped_bytes,
      .reserved_bytes = tag->reserved_bytes,
      .backup_bytes = tag->backup_bytes,
      .file_bytes = tag->file_bytes,
      .sealed = tag->sealed,
      .discarded_bytes = tag->discarded ? live.bytes : 0,
      .stuck_bytes = tag->stuck_bytes,
      .sleeps = tag->sleeps,
      .wakes = tag->wakes,
      .state = tag->state,
      .holds = dz_tag_holds(tag),
  };
}

static drowse_stats heap_stats(const drowse_heap *heap) {
  drowse_stats sum = {.stuck_bytes = heap->unreleased_bytes, .sleeps = heap->sleeps, .wakes = heap->wakes, .state = DROWSE_AWAKE};
  for (const struct tag *tag = heap->tags; tag != NULL; tag = tag->next) {
    drowse_stats stats = tag_stats(tag);
    sum.live_bytes += stats.live_bytes;
    sum.live_blocks += stats.live_blocks;
    sum.mapped_bytes += stats.mapped_bytes;
    sum.reserved_bytes += stats.reserved_bytes;
    sum.backup_bytes += stats.backup_bytes;
    sum.file_bytes += stats.file_bytes;
    sum.discarded_bytes += stats.discarded_bytes;
    sum.stuck_bytes += stats.stuck_bytes;
    sum.holds += stats.holds;
    if (stats.state != DROWSE_AWAKE) sum.state = stats.state;
  }
  return sum;
}

DROWSE_API drowse_status drowse_stats_get(drowse_heap *heap, const char *name, drowse_stats *result) {
  drowse_status status = dz_heap_check(heap);
  if (status == DROWSE_OK) status = dz_result_check(result, "drowse_stats");
  if (status != DROWSE_OK) return status;
  drowse_stats stats = {0};
  struct arena_stats arena;
  dz_arena_stats(&heap->arena, &arena);
  dz_lock(&heap->lock);
  const struct tag *tag = name == NULL ? NULL : dz_tag_named(heap, name, &status);
  if (name == NULL) {
    stats = heap_stats(heap);
    stats.pinned_bytes = arena.pinned_bytes;
    stats.host_bytes = arena.mapped_bytes;
    stats.huge_bytes = arena.huge_bytes;
    stats.pageable_bytes = arena.pageable_bytes;
    stats.metadata_bytes = dz_heap_metadata_bytes(heap);
  } else if (tag != NULL) {
    stats = tag_stats(tag);
  }
  dz_unlock(&heap->lock);
  if (status == DROWSE_OK) dz_result_write(result, &stats, sizeof stats);
  return status;
}

DROWSE_API drowse_status drowse_tags(drowse_heap *heap, int (*each)(void *context, const char *tag, const drowse_stats *stats),
                                     void *context) {
  drowse_status status = dz_heap_check(heap);
  if (status != DROWSE_OK) return status;
  if (each == NULL) return dz_error(DROWSE_ERR_INVALID, "each is NULL");
  int stop = 0;
  const struct tag *tag = NULL;
  do {
    /* Tags are never unlinked, so one found under the lock can be gone on from later. */
    drowse_stats stats = {0};
    dz_lock(&heap->lock);
    tag = tag == NULL ? heap->tags : tag->next;
    if (tag != NULL) stats = tag_stats(tag);
    dz_unlock(&heap->lock);
    stats.struct_size = sizeof stats;
    if (tag != NULL) stop = each(context, tag->name->name, &stats);
    status = dz_heap_check(heap);
  } while (status == DROWSE_OK && tag != NULL && stop == 0);
  return status;
}

DROWSE_API drowse_status drowse_block_get(drowse_heap *heap, const void *ptr, drowse_block *result) {
  drowse_status status = dz_heap_check(heap);
  if (status == DROWSE_OK) status = dz_result_check(result, "drowse_block");
  if (status != DROWSE_OK) return status;
  drowse_block found = {0};
  dz_lock(&heap->lock);
  const struct block *block = dz_block_lock(heap, (uint64_t)(uintptr_t)ptr, false);
  if (block != NULL) {
    struct pool *pool = dz_pool_of(block);
    found.base = (void *)(uintptr_t)block->range.base;
    found.bytes = dz_block_asked(block);
    found.tag = pool->name->name;
    found.stream = pool->stream->handle;
    found.state = pool->tag->state;
    dz_pool_unlock(pool);
  }
  dz_unlock(&heap->lock);
  if (block == NULL) return dz_error(DROWSE_ERR_NOT_FOUND, "%p is in no live block of this heap", ptr);
  dz_result_write(result, &found, sizeof found);
  return DROWSE_OK;
}
