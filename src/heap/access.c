/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading and writing blocks from the host, awake or asleep.
 */
#include <inttypes.h>
#include <string.h>

#include "backup/io.h"
#include "heap/backup.h"
#include "heap/stream.h"

/* One copy between host memory and a range inside a block. */
struct access {
  void *host; /* copy in: only read */
  uint64_t address;
  uint64_t bytes;
  bool in;
};

/* The live block that holds the whole range; NULL: failure stored. With the lock held. */
static struct block *find_block(drowse_heap *heap, const struct access *access, drowse_status *status) {
  void *ptr = (void *)(uintptr_t)access->address;
  struct block *block = dz_block_lock(heap, access->address, false);
  if (block == NULL) {
    *status = dz_error(DROWSE_ERR_NOT_FOUND, "%p is in no live block of this heap", ptr);
    return NULL;
  }
  uint64_t offset = access->address - block->range.base, asked = dz_block_asked(block);
  uint64_t left = offset > asked ? 0 : asked - offset;
  dz_pool_unlock(dz_pool_of(block));
  if (offset <= asked && access->bytes <= left) return block;
  *status = dz_error(DROWSE_ERR_INVALID, "%" PRIu64 " bytes at %p: its block of %" PRIu64 " bytes has %" PRIu64 " from there on",
                     access->bytes, ptr, asked, left);
  return NULL;
}

/* One at a time, because whole pieces are read and written. With the lock held, which is let go for the access. */
static drowse_status access_file(drowse_heap *heap, const struct filed *filed, const struct access *access, uint64_t offset) {
  while (heap->in_file) (void)dz_cond_wait(&heap->changed, &heap->lock, DZ_NEVER);
  heap->in_file = true;
  dz_unlock(&heap->lock);
  int cancel;
  (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel); /* a thread canceled here would keep the others out */
  drowse_status status = dz_io_access(&filed->extent, offset, access->host, access->bytes, access->in);
  (void)pthread_setcancelstate(cancel, NULL);
  dz_lock(&heap->lock);
  heap->in_file = false;
  (void)pthread_cond_broadcast(&heap->changed);
  return status;
}

static drowse_status access_memory(drowse_heap *heap, const struct range *space, const struct access *access, uint64_t offset) {
  char *backup = (char *)dz_space_memory(space) + offset;
  dz_unlock(&heap->lock);
  if (access->in)
    memcpy(backup, access->host, access->bytes);
  else
    memcpy(access->host, backup, access->bytes);
  dz_lock(&heap->lock);
  return DROWSE_OK;
}

/* A sleeping tag's bytes are in the backup. With the lock held, which is let go for the copy; the pin keeps the tag from waking.
 */
static drowse_status access_backup(const struct block *block, const struct access *access) {
  struct tag *tag = block->segment->pool->tag;
  uint64_t offset = access->address - block->range.base;
  if (!dz_block_is_backed_up(block)) {
    dz_error(DROWSE_ERR_ASLEEP, "the tag \"%s\" is asleep and its contents were discarded", tag->name->name);
    dz_error_tag(tag->name->name);
    return DROWSE_ERR_ASLEEP;
  }
  dz_tag_pin(tag);
  drowse_status status = block->backup != NULL ? access_memory(tag->heap, block->backup, access, offset)
                                               : access_file(tag->heap, block->filed, access, offset);
  dz_tag_unpin(tag);
  return status;
}

/* Lets the copy stream wait for what is now on the block's stream. */
static drowse_status follow_stream(const drowse_heap *heap, CUstream stream) {
  const struct driver *driver = &heap->device.driver;
  CUstreamCaptureStatus capture = CU_STREAM_CAPTURE_STATUS_NONE;
  CUevent event;
  CUresult code = driver->StreamIsCapturing(stream, &capture);
  if (code == CUDA_ERROR_STREAM_CAPTURE_IMPLICIT || capture != CU_STREAM_CAPTURE_STATUS_NONE) {
    return dz_error(DROWSE_ERR_BUSY, "stream %p, the block's, is capturing a graph", (void *)stream);
  }
  if (code == CUDA_SUCCESS) code = driver->EventCreate(&event, CU_EVENT_DISABLE_TIMING);
  if (code != CUDA_SUCCESS) return dz_driver_error(driver, code, "following stream %p", (void *)stream);
  code = driver->EventRecord(event, stream);
  if (code == CUDA_SUCCESS) code = driver->StreamWaitEvent(heap->copy_stream, event, 0);
  (void)driver->EventDestroy(event);
  return code == CUDA_SUCCESS ? DROWSE_OK : dz_driver_error(driver, code, "following stream %p", (void *)stream);
}

/* A retired stream's work was its owner's to wait for. */
static drowse_status follow(drowse_heap *heap, struct stream *stream) {
  if (!dz_stream_begin(heap, stream)) return DROWSE_OK;
  drowse_status status = follow_stream(heap, dz_stream_waitable(stream->handle));
  dz_stream_end(heap, stream);
  return status;
}

static drowse_status copy(const drowse_heap *heap, const struct access *access) {
  const struct driver *driver = &heap->device.driver;
  CUresult code = access->in ? driver->MemcpyHtoDAsync(access->address, access->host, access->bytes, heap->copy_stream)
                             : driver->MemcpyDtoHAsync(access->host, access->address, access->bytes, heap->copy_stream);
  CUresult synchronized = driver->StreamSynchronize(heap->copy_stream);
  if (code == CUDA_SUCCESS) code = synchronized;
  if (code == CUDA_SUCCESS) return DROWSE_OK;
  return dz_driver_error(driver, code, "copying %" PRIu64 " bytes %s %p", access->bytes, access->in ? "to" : "from",
                         (void *)(uintptr_t)access->address);
}

/* A sealed tag's block that is written to is copied again when it sleeps. */
static void lose_backup(struct block *block) {
  struct pool *pool = dz_pool_of(block);
  dz_pool_lock(pool);
  dz_block_drop_backup(block);
  dz_pool_unlock(pool);
}

/* An awake tag's bytes are on the device. With the lock held, which is let go for the copy; the pin keeps the tag from falling
 * asleep. */
static drowse_status access_device(struct block *block, const struct access *access) {
  struct tag *tag = block->segment->pool->tag;
  drowse_heap *heap = tag->heap;
  struct guard guard;
  struct stream *of = dz_pool_of(block)->stream;
  if (access->in) lose_backup(block);
  dz_tag_pin(tag);
  dz_unlock(&heap->lock);
  drowse_status status = dz_guard_enter(&guard, heap);
  if (status == DROWSE_OK) {
    status = follow(heap, of);
    if (status == DROWSE_OK) status = copy(heap, access);
    status = dz_guard_leave(&guard, status);
  }
  dz_lock(&heap->lock);
  dz_tag_unpin(tag);
  return status;
}

/* What the state of the block's tag allows. With the lock held. */
static drowse_status access_block(struct block *block, const struct access *access) {
  const struct tag *tag = block->segment->pool->tag;
  switch (tag->state) {
  case DROWSE_AWAKE:
    return access_device(block, access);
  case DROWSE_ASLEEP:
    return access_backup(block, access);
  case DROWSE_POISONED:
    return access->in || !dz_block_is_backed_up(block) ? dz_tag_refuse(tag) : access_backup(block, access);
  case DROWSE_FALLING_ASLEEP:
  case DROWSE_WAKING:
    break;
  }
  return dz_tag_busy(tag);
}

static drowse_status run_access(drowse_heap *heap, const struct access *access) {
  drowse_status status = dz_heap_check(heap);
  if (status != DROWSE_OK) return status;
  if (access->host == NULL && access->bytes > 0) return dz_error(DROWSE_ERR_INVALID, "host is NULL");
  dz_lock(&heap->lock);
  struct block *block = find_block(heap, access, &status);
  if (block != NULL && access->bytes > 0) status = access_block(block, access);
  dz_unlock(&heap->lock);
  dz_heap_close_files(heap);
  return status;
}

DROWSE_API drowse_status drowse_copy_in(drowse_heap *heap, void *ptr, const void *host, size_t bytes) {
  return run_access(
      heap, &(struct access){.host = (void *)(uintptr_t)host, .address = (uint64_t)(uintptr_t)ptr, .bytes = bytes, .in = true});
}

DROWSE_API drowse_status drowse_copy_out(drowse_heap *heap, void *host, const void *ptr, size_t bytes) {
  return run_access(heap, &(struct access){.host = host, .address = (uint64_t)(uintptr_t)ptr, .bytes = bytes});
}

/* ---- a backup in place */

/* With the lock held. */
static drowse_status find_backup(const struct block *block, uint64_t offset, void **host) {
  const struct tag *tag = block->segment->pool->tag;
  if (tag->state == DROWSE_FALLING_ASLEEP || tag->state == DROWSE_WAKING) return dz_tag_busy(tag);
  if (block->backup == NULL) { /* a sealed tag has backups while it is awake */
    const char *why = block->filed != NULL ? "in a file" : tag->state == DROWSE_AWAKE ? "awake" : "discarded";
    dz_error(DROWSE_ERR_NOT_FOUND, "the contents of the tag \"%s\" are not in host memory: %s", tag->name->name, why);
    dz_error_tag(tag->name->name);
    return DROWSE_ERR_NOT_FOUND;
  }
  *host = (char *)dz_space_memory(block->backup) + offset;
  return DROWSE_OK;
}

DROWSE_API drowse_status drowse_backup_get(drowse_heap *heap, const void *ptr, size_t bytes, void **host) {
  const struct access access = {.address = (uint64_t)(uintptr_t)ptr, .bytes = bytes};
  if (host == NULL) return dz_error(DROWSE_ERR_INVALID, "host is NULL");
  *host = NULL;
  drowse_status status = dz_heap_check(heap);
  if (status != DROWSE_OK) return status;
  dz_lock(&heap->lock);
  const struct block *block = find_block(heap, &access, &status);
  if (block != NULL) status = find_backup(block, access.address - block->range.base, host);
  dz_unlock(&heap->lock);
  return status;
}
