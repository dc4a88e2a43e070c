/* SPDX-License-Identifier: Apache-2.0
 *
 * Backups of blocks, and seals.
 */
#include "heap/backup.h"

#include <assert.h>

#include "heap/block.h"

/* ---- one block's */

/* Freeing a block that has a backup takes more than its pool's lock. */
static void note_ties(struct block *block) {
  dz_block_tie(block, block->uses != NULL || dz_block_is_backed_up(block));
}

/* With the heap's lock. */
static void enlist(drowse_heap *heap, struct filed *filed) {
  filed->after = heap->filed;
  filed->before = &heap->filed;
  if (heap->filed != NULL) heap->filed->before = &filed->after;
  heap->filed = filed;
}

static void delist(struct filed *filed) {
  *filed->before = filed->after;
  if (filed->after != NULL) filed->after->before = filed->before;
}

bool dz_block_file(struct block *block, struct file *file) {
  drowse_heap *heap = dz_pool_of(block)->tag->heap;
  assert(!dz_block_is_backed_up(block));
  dz_lock(&heap->lock);
  struct filed *filed = dz_slab_take(&heap->filed_slab);
  if (filed != NULL && dz_file_take(file, block->range.bytes, &filed->extent)) {
    enlist(heap, filed);
    block->filed = filed;
  } else if (filed != NULL) {
    dz_slab_give(&heap->filed_slab, filed);
  }
  dz_unlock(&heap->lock);
  return block->filed != NULL;
}

/* Of a place in a file only a note is made: see dz_heap_close_files(). */
static void drop(struct block *block) {
  drowse_heap *heap = dz_pool_of(block)->tag->heap;
  if (block->backup != NULL) dz_arena_give(&heap->arena, block->backup);
  if (block->filed != NULL) {
    struct filed *head = atomic_load_explicit(&heap->dropped, memory_order_relaxed);
    do block->filed->next = head;
    while (
        !atomic_compare_exchange_weak_explicit(&heap->dropped, &head, block->filed, memory_order_release, memory_order_relaxed));
  }
  block->backup = NULL;
  block->filed = NULL;
  block->is_new = false;
  note_ties(block);
}

void dz_heap_close_files(drowse_heap *heap) {
  struct filed *filed = atomic_exchange_explicit(&heap->dropped, NULL, memory_order_acquire);
  int cancel;
  if (filed == NULL) return;
  (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel); /* a thread canceled here would lose the rest of the list */
  for (struct filed *next; filed != NULL; filed = next) {
    next = filed->next;
    dz_file_give(&filed->extent);
    dz_lock(&heap->lock);
    delist(filed);
    dz_slab_give(&heap->filed_slab, filed);
    dz_unlock(&heap->lock);
  }
  (void)pthread_setcancelstate(cancel, NULL);
}

/* Forks take the heap's lock; after one that ran no handlers the list can still be followed, because its forward links are set
 * one by one. */
void dz_heap_forget_files(drowse_heap *heap) {
  for (struct filed *filed = heap->filed; filed != NULL; filed = filed->after) dz_file_give(&filed->extent);
}

/* What an operation has made is counted once it is kept. */
static void uncount(const struct block *block) {
  struct tag *tag = dz_pool_of(block)->tag;
  if (block->is_new) return;
  if (block->backup != NULL) tag->backup_bytes -= block->range.bytes;
  if (block->filed != NULL) tag->file_bytes -= block->range.bytes;
}

void dz_block_drop_backup(struct block *block) {
  if (!dz_block_is_backed_up(block)) return;
  uncount(block);
  drop(block);
}

/* ---- a tag's */

void dz_tag_drop_backups(struct tag *tag, bool only_new) {
  if (!only_new && tag->backup_bytes == 0 && tag->file_bytes == 0) return; /* what is not new is counted */
  for (struct block *block = dz_tag_live(tag, NULL); block != NULL; block = dz_tag_live(tag, block)) {
    if (block->is_new || !only_new) dz_block_drop_backup(block);
  }
}

void dz_tag_keep_backups(struct tag *tag) {
  uint64_t backup_bytes = 0, file_bytes = 0;
  for (struct block *block = dz_tag_live(tag, NULL); block != NULL; block = dz_tag_live(tag, block)) {
    if (!block->is_new) continue;
    if (block->backup != NULL)
      backup_bytes += block->range.bytes;
    else
      file_bytes += block->range.bytes;
    block->is_new = false;
  }
  dz_lock(&tag->heap->lock);
  tag->backup_bytes += backup_bytes;
  tag->file_bytes += file_bytes;
  dz_unlock(&tag->heap->lock);
}

void dz_tag_tie_backups(struct tag *tag) {
  for (struct block *block = dz_tag_live(tag, NULL); block != NULL; block = dz_tag_live(tag, block)) note_ties(block);
}

/* ---- seals */

/* Drops the backups that a tag has kept while it is awake. */
static void drop_kept(struct pool *pool) {
  dz_pool_lock(pool);
  for (const struct segment *segment = pool->segments; segment != NULL; segment = segment->next) {
    for (struct block *block = dz_segment_live(segment, NULL); block != NULL; block = dz_segment_live(segment, block))
      dz_block_drop_backup(block);
  }
  dz_pool_unlock(pool);
}

/* What a seal means for a sleeping tag is seen when it wakes. */
static drowse_status set_seal(struct tag *tag, bool sealed) {
  if (tag->state == DROWSE_POISONED) return dz_tag_refuse(tag);
  if (tag->state != DROWSE_AWAKE && tag->state != DROWSE_ASLEEP) return dz_tag_busy(tag);
  if (tag->state == DROWSE_AWAKE && !sealed) {
    for (struct pool *pool = tag->pools; pool != NULL; pool = pool->next) drop_kept(pool);
  }
  tag->sealed = sealed;
  return DROWSE_OK;
}

static drowse_status seal(drowse_heap *heap, const char *name, bool sealed) {
  drowse_status status = dz_heap_check(heap);
  if (status != DROWSE_OK) return status;
  dz_lock(&heap->lock);
  struct tag *tag = dz_tag_named(heap, name, &status);
  if (tag != NULL) status = set_seal(tag, sealed);
  dz_unlock(&heap->lock);
  dz_heap_close_files(heap);
  return status;
}

DROWSE_API drowse_status drowse_seal(drowse_heap *heap, const char *tag) {
  return seal(heap, tag, true);
}

DROWSE_API drowse_status drowse_unseal(drowse_heap *heap, const char *tag) {
  return seal(heap, tag, false);
}

/* ---- host memory ahead of time, and back */

static drowse_status reserve(drowse_heap *heap, uint64_t bytes, bool wait) {
  struct guard guard;
  drowse_status status = dz_heap_check(heap);
  if (status == DROWSE_OK) status = dz_guard_enter(&guard, heap);
  if (status != DROWSE_OK) return status;
  return dz_guard_leave(&guard, dz_arena_reserve(&heap->arena, bytes, wait));
}

DROWSE_API drowse_status drowse_backup_reserve(drowse_heap *heap, uint64_t bytes) {
  return reserve(heap, bytes, true);
}

DROWSE_API drowse_status drowse_backup_reserve_start(drowse_heap *heap, uint64_t bytes) {
  return reserve(heap, bytes, false);
}

/* The operation has succeeded or failed whatever comes of it. */
void dz_heap_trim_backups(drowse_heap *heap) {
  struct error error;
  if (heap->backup_keep == UINT64_MAX || dz_arena_is_moving(&heap->arena)) return;
  dz_error_save(&error);
  (void)dz_arena_trim(&heap->arena, heap->backup_keep);
  (void)dz_error_restore(&error);
}

DROWSE_API drowse_status drowse_backup_trim(drowse_heap *heap, uint64_t keep_bytes) {
  struct guard guard;
  drowse_status status = dz_heap_check(heap);
  if (status == DROWSE_OK) status = dz_guard_enter(&guard, heap);
  if (status != DROWSE_OK) return status;
  return dz_guard_leave(&guard, dz_arena_trim(&heap->arena, keep_bytes));
}
