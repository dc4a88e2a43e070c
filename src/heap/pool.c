/* SPDX-License-Identifier: Apache-2.0
 *
 * Pools: finding them, what they have at hand, and when their stream is done with what was freed.
 */
#include "heap/pool.h"

#include <assert.h>

#include "heap/block.h"
#include "heap/stream.h"

/* ---- finding and making */

static struct pool *make(struct tag *tag, enum pool_kind kind, struct stream *stream, CUstream handle) {
  drowse_heap *heap = tag->heap;
  struct pool *pool = dz_slab_take(&heap->pool_slab);
  if (pool == NULL) {
    dz_error(DROWSE_ERR_NO_HOST_MEMORY, "no memory for the metadata of the tag \"%s\"", tag->name->name);
    return NULL;
  }
  pool_bucket *bucket = dz_pool_bucket(heap->pools, tag->name, kind, handle);
  pool->tag = tag;
  pool->name = tag->name;
  pool->stream = stream;
  pool->kind = kind;
  pool->open = tag->state == DROWSE_AWAKE;
  pool->next = tag->pools;
  pool->hash_next = atomic_load_explicit(bucket, memory_order_relaxed);
  tag->pools = pool;
  atomic_store_explicit(bucket, pool, memory_order_release);
  return pool;
}

struct pool *dz_pool_get(struct tag *tag, enum pool_kind kind, CUstream handle, uint64_t stream_identity) {
  struct stream *stream = dz_stream_get(tag->heap, handle, stream_identity);
  if (stream == NULL) {
    dz_error(DROWSE_ERR_NO_HOST_MEMORY, "no memory for the metadata of a stream");
    return NULL;
  }
  struct pool *pool = tag->pools;
  while (pool != NULL && (pool->stream != stream || pool->kind != kind)) pool = pool->next;
  return pool != NULL ? pool : make(tag, kind, stream, handle);
}

/* ---- nodes at hand */

enum { SUPPLY = 64, SUPPLY_MOST = 4 * SUPPLY };

struct block *dz_pool_take_node(struct pool *pool) {
  struct block *block = pool->spare;
  assert(block != NULL);
  pool->spare = block->freed_next;
  pool->spare_count--;
  *block = (struct block){0};
  return block;
}

/* It was a free block, perhaps, which somebody has picked to be moved, and looks at again. */
void dz_pool_give_node(struct pool *pool, struct block *block) {
  block->state = DZ_HOLE;
  block->freed_next = pool->spare;
  pool->spare = block;
  pool->spare_count++;
}

drowse_status dz_pool_supply(struct pool *pool, size_t nodes) {
  drowse_heap *heap = pool->tag->heap;
  size_t most = nodes + SUPPLY_MOST, wanted = pool->spare_count < nodes ? nodes + SUPPLY : nodes;
  while (pool->spare_count > most) {
    struct block *block = pool->spare;
    pool->spare = block->freed_next;
    pool->spare_count--;
    dz_slab_give(&heap->block_slab, block);
  }
  while (pool->spare_count < wanted) {
    struct block *block = dz_slab_take(&heap->block_slab);
    if (block == NULL) break;
    dz_pool_give_node(pool, block);
  }
  if (pool->spare_kept == NULL) pool->spare_kept = dz_slab_take(&heap->kept_slab); /* without it fewer sizes are kept */
  if (pool->spare_count >= nodes && dz_index_supply(&heap->index, &pool->spare_chunks)) return DROWSE_OK;
  return dz_error(DROWSE_ERR_NO_HOST_MEMORY, "no memory for the metadata of a block");
}

/* ---- what the stream is done with */

static uint64_t frees_of(struct pool *pool) {
  dz_pool_lock(pool);
  uint64_t frees = pool->frees;
  dz_pool_unlock(pool);
  return frees;
}

/* A look at a pool's stream. Whoever has it alone writes the fence. */
struct look {
  struct pool *pool;
  uint64_t frees, done; /* when it began */
};

/* False if there is nothing to learn, or somebody else is at it. */
static bool begin_look(struct look *look, struct pool *pool) {
  dz_lock(&pool->tag->heap->lock);
  *look = (struct look){pool, frees_of(pool), pool->done};
  bool begun = !pool->looked_at && look->done < look->frees;
  if (begun) pool->looked_at = true;
  dz_unlock(&pool->tag->heap->lock);
  return begun;
}

static void end_look(const struct look *look) {
  struct pool *pool = look->pool;
  dz_lock(&pool->tag->heap->lock);
  if (look->done > pool->done) pool->done = look->done;
  pool->looked_at = false;
  dz_unlock(&pool->tag->heap->lock);
}

/* Puts the event behind what had been freed when the look began. */
static void set_fence(const struct look *look) {
  struct pool *pool = look->pool;
  drowse_heap *heap = pool->tag->heap;
  if (pool->fence == NULL && heap->device.driver.EventCreate(&pool->fence, CU_EVENT_DISABLE_TIMING) != CUDA_SUCCESS) {
    pool->fence = NULL;
    return;
  }
  pool->fence_at = dz_stream_mark(heap, pool->stream, pool->fence) ? look->frees : 0;
}

/* Whether the event tells that more is done; then notes it. */
static bool ask_fence(struct look *look) {
  struct pool *pool = look->pool;
  if (pool->fence_at <= look->done) return false;
  CUresult code = pool->tag->heap->device.driver.EventQuery(pool->fence);
  if (code == CUDA_SUCCESS) look->done = pool->fence_at;
  if (code != CUDA_SUCCESS && code != CUDA_ERROR_NOT_READY) pool->fence_at = 0; /* a capture has got it after all */
  return code == CUDA_SUCCESS;
}

/* An idle stream takes some microseconds to pass an event, little beside the growth that this is for. */
enum { LOOKS_AT_FENCE = 32 };

/* The stream itself is not asked: if it began to capture meanwhile that would destroy the capture. One that captures keeps the
 * event that it has. */
static void ask_stream(struct look *look) {
  (void)ask_fence(look);
  if (look->done == look->frees || look->pool->fence_at > look->done) return;
  set_fence(look);
  for (int asked = 0; asked < LOOKS_AT_FENCE && look->pool->fence_at > look->done && !ask_fence(look); asked++) {
  }
}

void dz_pool_look(struct pool *pool) {
  struct look look;
  if (!begin_look(&look, pool)) return;
  if (!dz_stream_is_retired(pool->stream))
    ask_stream(&look);
  else if (dz_stream_is_over(pool->tag->heap, pool->stream))
    look.done = look.frees;
  end_look(&look);
}

static void each_pool(drowse_heap *heap, void (*each)(struct pool *pool)) {
  for (struct tag *tag = heap->tags; tag != NULL; tag = tag->next) {
    for (struct pool *pool = tag->pools; pool != NULL; pool = pool->next) each(pool);
  }
}

static void note_frees(struct pool *pool) {
  pool->frees_before_drain = frees_of(pool);
}

static void note_done(struct pool *pool) {
  if (pool->frees_before_drain > pool->done) pool->done = pool->frees_before_drain;
}

/* One after another: what had been freed is noted in the pools. */
drowse_status dz_pools_drain(drowse_heap *heap) {
  dz_lock(&heap->lock);
  while (heap->draining) (void)dz_cond_wait(&heap->changed, &heap->lock, DZ_NEVER);
  heap->draining = true;
  each_pool(heap, note_frees);
  dz_unlock(&heap->lock);
  drowse_status status = dz_drain(heap, DROWSE_DRAIN_DEVICE, DZ_NEVER);
  dz_lock(&heap->lock);
  if (status == DROWSE_OK) each_pool(heap, note_done);
  heap->draining = false;
  (void)pthread_cond_broadcast(&heap->changed);
  dz_unlock(&heap->lock);
  return status;
}

static void destroy_fence(struct pool *pool) {
  if (pool->fence != NULL) (void)pool->tag->heap->device.driver.EventDestroy(pool->fence);
  pool->fence = NULL;
}

void dz_pools_end(drowse_heap *heap) {
  each_pool(heap, destroy_fence);
}

/* ---- a tag's pools */

void dz_pools_open(const struct tag *tag, bool open) {
  for (struct pool *pool = tag->pools; pool != NULL; pool = pool->next) {
    dz_pool_lock(pool);
    if (!open) dz_pool_flush(pool);
    pool->open = open;
    dz_pool_unlock(pool);
  }
}

struct live dz_tag_count_live(const struct tag *tag) {
  struct live live = {0, 0};
  for (struct pool *pool = tag->pools; pool != NULL; pool = pool->next) {
    dz_pool_lock(pool);
    live.bytes += pool->live_bytes;
    live.blocks += pool->takes - pool->frees;
    dz_pool_unlock(pool);
  }
  return live;
}
