/* SPDX-License-Identifier: Apache-2.0
 *
 * Poison for freed memory.
 */
#include "heap/poison.h"

#if DZ_DEBUG

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "heap/stream.h"

enum { POISON = 0xdf, PIECE = 4096 };

bool dz_poison_wanted(void) {
  const char *value = secure_getenv("DROWSE_DEBUG_POISON");
  return value != NULL && strcmp(value, "1") == 0;
}

/* A live block that is looked at, or filled: its tag is pinned. */
struct target {
  struct tag *tag;
  struct stream *stream;
  uint64_t base, bytes;
  bool poisoned;
};

/* Pins the tag of the block that starts at ptr and says what is to be known of it; false: there is none, or its tag is not
 * awake. From now on it counts as not poisoned. */
static bool begin(drowse_heap *heap, void *ptr, struct target *target) {
  dz_lock(&heap->lock);
  struct block *block = dz_block_lock(heap, (uint64_t)(uintptr_t)ptr, true);
  struct pool *pool = block == NULL ? NULL : dz_pool_of(block);
  bool found = pool != NULL && pool->open && block->uses == NULL; /* other streams may still use it after it has been freed */
  if (found) {
    *target = (struct target){.tag = pool->tag,
                              .stream = pool->stream,
                              .base = block->range.base,
                              .bytes = block->range.bytes,
                              .poisoned = block->poisoned};
    block->poisoned = false;
    dz_tag_pin(pool->tag);
  }
  if (pool != NULL) dz_pool_unlock(pool);
  dz_unlock(&heap->lock);
  return found;
}

/* A block that was filled is marked so, if it is there still. */
static void end(drowse_heap *heap, const struct target *target, bool filled) {
  dz_lock(&heap->lock);
  struct block *block = filled ? dz_block_lock(heap, target->base, true) : NULL;
  if (block != NULL) {
    block->poisoned = true;
    dz_pool_unlock(dz_pool_of(block));
  }
  dz_tag_unpin(target->tag);
  dz_unlock(&heap->lock);
}

static bool fill(drowse_heap *heap, const struct target *target) {
  if (!dz_stream_begin(heap, target->stream)) return false;
  CUstream stream = dz_stream_waitable(target->stream->handle);
  bool filled = !dz_stream_is_capturing(heap, stream) &&
                heap->device.driver.MemsetD8Async(target->base, POISON, target->bytes, stream) == CUDA_SUCCESS;
  dz_stream_end(heap, target->stream);
  return filled;
}

drowse_status dz_poison_fill(drowse_heap *heap, void *ptr) {
  struct target target;
  struct guard guard;
  if (!begin(heap, ptr, &target)) return DROWSE_OK; /* whoever frees it says what is wrong */
  bool filled = false;
  drowse_status status = dz_guard_enter(&guard, heap);
  if (status == DROWSE_OK) {
    filled = fill(heap, &target);
    status = dz_guard_leave(&guard, status);
  }
  end(heap, &target, filled);
  return status;
}

bool dz_poison_fresh(drowse_heap *heap, uint64_t base, uint64_t bytes) {
  const struct driver *driver = &heap->device.driver;
  return driver->MemsetD8Async(base, POISON, bytes, heap->copy_stream) == CUDA_SUCCESS &&
         driver->StreamSynchronize(heap->copy_stream) == CUDA_SUCCESS;
}

/* The first byte of the target that is not poison any more; its bytes: none. */
static drowse_status find_written(const drowse_heap *heap, const struct target *target, uint64_t *written) {
  const struct driver *driver = &heap->device.driver;
  unsigned char piece[PIECE];
  CUresult code = CUDA_SUCCESS;
  for (uint64_t at = 0; at < target->bytes && code == CUDA_SUCCESS; at += sizeof piece) {
    uint64_t bytes = target->bytes - at < sizeof piece ? target->bytes - at : sizeof piece;
    code = driver->MemcpyDtoHAsync(piece, target->base + at, bytes, heap->copy_stream);
    if (code == CUDA_SUCCESS) code = driver->StreamSynchronize(heap->copy_stream);
    for (uint64_t i = 0; i < bytes && code == CUDA_SUCCESS; i++) {
      if (piece[i] == POISON) continue;
      *written = at + i;
      return DROWSE_OK;
    }
  }
  *written = target->bytes;
  return code == CUDA_SUCCESS ? DROWSE_OK : dz_driver_error(driver, code, "looking for writes to freed memory");
}

/* The block has just been allocated on its stream, which is therefore its owner's to keep. */
static bool wait_for_fill(const drowse_heap *heap, const struct target *target) {
  CUstream stream = dz_stream_waitable(target->stream->handle);
  return !dz_stream_is_capturing(heap, stream) && heap->device.driver.StreamSynchronize(stream) == CUDA_SUCCESS;
}

drowse_status dz_poison_check(drowse_heap *heap, void *ptr) {
  struct target target;
  struct guard guard;
  if (!begin(heap, ptr, &target)) return DROWSE_OK;
  uint64_t written = target.bytes;
  drowse_status status = DROWSE_OK;
  if (target.poisoned) {
    status = dz_guard_enter(&guard, heap);
    if (status == DROWSE_OK && wait_for_fill(heap, &target)) status = find_written(heap, &target, &written);
    status = dz_guard_leave(&guard, status);
  }
  end(heap, &target, false);
  if (status != DROWSE_OK || written == target.bytes) return status;
  return dz_error(DROWSE_ERR_CORRUPT, "freed memory was written to: at %p, %" PRIu64 " bytes into a block of %" PRIu64 " bytes",
                  (void *)(uintptr_t)(target.base + written), written, target.bytes);
}

#endif
