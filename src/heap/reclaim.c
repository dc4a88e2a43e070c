/* SPDX-License-Identifier: Apache-2.0
 *
 * Claiming free memory in whole extents, and giving it back.
 */
#include "heap/reclaim.h"

#include <inttypes.h>

#include "heap/pending.h"

/* ---- looking */

/* A free block of a pool that may have a whole extent, and the one after it; NULL: no more. */
static struct block *first_large(const struct pool *pool) {
  return dz_block_of(dz_bins_first(&pool->free, pool->tag->heap->granularity));
}

static struct block *next_large(const struct pool *pool, const struct block *block) {
  return dz_block_of(dz_bins_after(&pool->free, &block->range));
}

/* The heap's pools one by one, of awake tags only; NULL: no more. Neither tags nor pools are ever unlinked. With the lock. */
static struct pool *next_pool(const drowse_heap *heap, const struct pool *pool) {
  struct pool *next = pool == NULL ? NULL : pool->next;
  for (const struct tag *tag = pool == NULL ? heap->tags : pool->tag->next; next == NULL && tag != NULL; tag = tag->next) {
    if (tag->state == DROWSE_AWAKE) next = tag->pools;
  }
  return next;
}

static bool has_large(struct pool *pool) {
  dz_pool_lock(pool);
  dz_pool_flush(pool);
  bool has = first_large(pool) != NULL;
  dz_pool_unlock(pool);
  return has;
}

/* Takes those out of the list that the stream is done with, and pins the tag. */
static struct block *take_left(struct pool *pool) {
  struct block *list = NULL;
  dz_lock(&pool->tag->heap->lock);
  for (struct block **at = &pool->leaving; *at != NULL && pool->tag->state == DROWSE_AWAKE;) {
    struct block *block = *at;
    if (block->freed_at > pool->done) {
      at = &block->freed_next;
      continue;
    }
    *at = block->freed_next;
    block->freed_next = list;
    list = block;
    dz_tag_pin(pool->tag);
  }
  dz_unlock(&pool->tag->heap->lock);
  return list;
}

static void end_leaving(struct pool *pool, struct block *block, bool unmapped) {
  struct segment *segment = block->segment;
  dz_lock(&pool->tag->heap->lock);
  if (unmapped) {
    dz_pool_lock(pool);
    block->freed_next = NULL;
    block->state = DZ_HOLE;
    (void)dz_block_settle(block);
    dz_segment_free_if_empty(segment);
    dz_pool_unlock(pool);
  } else {
    block->freed_next = pool->leaving;
    pool->leaving = block;
  }
  dz_tag_unpin(pool->tag);
  dz_unlock(&pool->tag->heap->lock);
}

static void unmap_left(struct pool *pool) {
  for (struct block *block = take_left(pool), *next; block != NULL; block = next) {
    next = block->freed_next;
    end_leaving(pool, block, dz_block_leave(block));
  }
}

/* The next pool that has something to learn its stream's state for; NULL: no more. */
static struct pool *next_to_look(drowse_heap *heap, struct pool *pool) {
  dz_lock(&heap->lock);
  do pool = next_pool(heap, pool);
  while (pool != NULL && pool->leaving == NULL && !has_large(pool));
  dz_unlock(&heap->lock);
  return pool;
}

void dz_heap_look(drowse_heap *heap) {
  for (struct pool *pool = next_to_look(heap, NULL); pool != NULL; pool = next_to_look(heap, pool)) {
    dz_pool_look(pool);
    unmap_left(pool);
  }
}

/* ---- choosing */

/* Whole extents inside a free block. */
struct pick {
  struct pool *pool;
  struct block *block;
  uint64_t base, bytes;
};

/* One that is enough is better than one that is not; of two such the smaller; else the larger. */
static bool is_better(const struct pick *pick, const struct pick *best, uint64_t wanted_bytes) {
  bool enough = pick->bytes >= wanted_bytes, best_enough = best->bytes >= wanted_bytes;
  if (enough != best_enough) return enough;
  return enough ? pick->bytes < best->bytes : pick->bytes > best->bytes;
}

/* What a block has to offer: each of its extents by itself, and as many in a row as are enough. */
static void look_into(struct pool *pool, struct block *block, uint64_t wanted_bytes, struct pick *best) {
  uint64_t end = dz_range_end(&block->range);
  struct extent *first = dz_segment_extent(block->segment, block->range.base);
  struct pick row = {pool, block, first == NULL ? 0 : first->base, 0};
  for (struct extent *at = first; at != NULL && at->base + at->bytes <= end; at = dz_extent_after(at)) {
    struct pick one = {pool, block, at->base, at->bytes};
    if (is_better(&one, best, wanted_bytes)) *best = one;
    if (row.bytes < wanted_bytes) row.bytes += at->bytes;
  }
  if (is_better(&row, best, wanted_bytes)) *best = row;
}

/* Whether a free block of a pool is the taker's to have: nothing uses it any more, or only what comes before him. */
static bool is_his(const struct pool *pool, const struct block *block, const struct pool *taker) {
  return pool == taker || block->freed_at <= pool->done;
}

/* Whether the growth is going to use the block where it is. */
static bool is_spared(const struct claims *claims, const struct block *block) {
  return dz_range_end(&block->range) == claims->low || block->range.base == claims->high;
}

static struct pick find_best(const drowse_heap *heap, const struct claims *claims, uint64_t wanted_bytes,
                             const struct pool *taker) {
  struct pick best = {0};
  for (struct pool *pool = next_pool(heap, NULL); pool != NULL && best.bytes != wanted_bytes; pool = next_pool(heap, pool)) {
    dz_pool_lock(pool);
    dz_pool_flush(pool);
    for (struct block *block = first_large(pool); block != NULL; block = next_large(pool, block)) {
      if (pool == taker && is_spared(claims, block)) continue;
      if (is_his(pool, block, taker)) look_into(pool, block, wanted_bytes, &best);
    }
    dz_pool_unlock(pool);
  }
  return best;
}

/* ---- claiming */

/* Whether the block is still what it was when it was picked: its pool was let go meanwhile, but its node is the pool's as long as
 * the heap's lock is held. */
static bool still_there(const struct pick *pick, const struct pool *taker) {
  const struct range *range = &pick->block->range;
  return pick->block->state == DZ_FREE && is_his(pick->pool, pick->block, taker) && range->base <= pick->base &&
         pick->base + pick->bytes <= dz_range_end(range);
}

static bool claim(struct claims *claims, const struct pick *pick, const struct pool *taker) {
  struct pool *pool = pick->pool;
  dz_pool_lock(pool);
  bool claimed = still_there(pick, taker) && dz_pool_supply(pool, DZ_POOL_NODES) == DROWSE_OK;
  if (claimed) {
    dz_block_drop(pick->block);
    struct block *block = dz_block_cut_out(pick->block, pick->base, pick->bytes);
    block->state = DZ_CLAIMED;
    block->early = block->freed_at > pool->done;
    if (block->early && block->freed_at > claims->early_until) claims->early_until = block->freed_at;
    block->freed_next = claims->blocks;
    claims->blocks = block;
    claims->bytes += block->range.bytes;
    dz_tag_pin(pool->tag);
  }
  dz_pool_unlock(pool);
  return claimed;
}

/* Where the pick has gone meanwhile somebody has taken a block there, so a second look finds another or less. */
void dz_claims_collect(drowse_heap *heap, struct claims *claims, uint64_t wanted_bytes, const struct pool *taker) {
  uint64_t enough = claims->bytes + wanted_bytes;
  dz_lock_assert_held(&heap->lock);
  for (int missed = 0; claims->bytes < enough && missed < 16;) {
    struct pick pick = find_best(heap, claims, enough - claims->bytes, taker);
    if (pick.block == NULL) break;
    missed += !claim(claims, &pick, taker);
  }
}

/* Claimed blocks become free, holes, or stuck. */
static void end_claim(struct block *block, enum block_state state) {
  struct segment *segment = block->segment;
  struct pool *pool = segment->pool;
  dz_pool_lock(pool);
  block->freed_next = NULL;
  block->early = false;
  block->state = state;
  if (state != DZ_FREE) block->poisoned = false;
  (void)dz_block_settle(block);
  if (state == DZ_HOLE) dz_segment_free_if_empty(segment);
  dz_pool_unlock(pool);
  dz_tag_unpin(pool->tag);
}

void dz_claims_drop(struct claims *claims) {
  for (struct block *block = claims->blocks, *next; block != NULL; block = next) {
    next = block->freed_next;
    end_claim(block, DZ_FREE);
  }
  *claims = (struct claims){0};
}

uint64_t dz_claims_lift(const struct claims *claims, struct extent **list) {
  uint64_t stuck_bytes = 0;
  for (struct block *block = claims->blocks; block != NULL; block = block->freed_next) {
    if (block->early)
      dz_segment_detach(block->segment, block->range.base, block->range.bytes, list);
    else
      stuck_bytes += dz_segment_lift(block->segment, block->range.base, block->range.bytes, list);
  }
  return stuck_bytes;
}

static void begin_leaving(struct block *block) {
  struct pool *pool = dz_pool_of(block);
  block->early = false;
  block->state = DZ_LEAVING;
  block->freed_next = pool->leaving;
  pool->leaving = block;
  dz_tag_unpin(pool->tag);
}

void dz_claims_end(struct claims *claims) {
  for (struct block *block = claims->blocks, *next; block != NULL; block = next) {
    next = block->freed_next;
    if (block->early) {
      begin_leaving(block);
      continue;
    }
    bool stuck = dz_segment_touches_stuck(block->segment, block->range.base, block->range.bytes);
    end_claim(block, stuck ? DZ_STUCK : DZ_HOLE);
  }
  *claims = (struct claims){0};
}

/* ---- what is stuck */

static struct block *first_stuck(const struct pool *pool) {
  return dz_block_of(dz_bins_first(&pool->stuck, 0));
}

/* Claims all stuck blocks of awake tags, and pins the tags. With the heap's lock. */
static struct claims claim_stuck(drowse_heap *heap) {
  struct claims claims = {0};
  for (struct pool *pool = next_pool(heap, NULL); pool != NULL; pool = next_pool(heap, pool)) {
    dz_pool_lock(pool);
    for (struct block *block = first_stuck(pool); block != NULL; block = first_stuck(pool)) {
      dz_block_drop(block);
      block->state = DZ_CLAIMED;
      block->freed_next = claims.blocks;
      claims.blocks = block;
      dz_tag_pin(pool->tag);
    }
    dz_pool_unlock(pool);
  }
  return claims;
}

/* Pinned, a sleeping tag neither wakes nor is discarded, and nobody else looks at its segments. */
static uint64_t retry_asleep(drowse_heap *heap) {
  uint64_t stuck_bytes = 0;
  dz_lock(&heap->lock);
  for (struct tag *tag = heap->tags; tag != NULL; tag = tag->next) {
    if (tag->unmapping) stuck_bytes += tag->stuck_bytes; /* somebody else tries */
    if (tag->state != DROWSE_ASLEEP || tag->unmapping) continue;
    tag->unmapping = true;
    dz_tag_pin(tag);
    dz_unlock(&heap->lock);
    stuck_bytes += dz_tag_unmap(tag);
    dz_lock(&heap->lock);
    dz_tag_unpin(tag);
    tag->unmapping = false;
  }
  dz_unlock(&heap->lock);
  return stuck_bytes;
}

static uint64_t retry_awake(drowse_heap *heap) {
  uint64_t stuck_bytes = 0;
  dz_lock(&heap->lock);
  struct claims claims = claim_stuck(heap);
  dz_unlock(&heap->lock);
  for (const struct block *block = claims.blocks; block != NULL; block = block->freed_next) {
    stuck_bytes += dz_segment_retry_stuck(block->segment, block->range.base, block->range.bytes);
  }
  dz_lock(&heap->lock);
  dz_claims_end(&claims);
  dz_unlock(&heap->lock);
  return stuck_bytes;
}

/* What has left and would not go when it was looked at. */
static uint64_t stuck_leaving(drowse_heap *heap) {
  uint64_t stuck_bytes = 0;
  dz_lock(&heap->lock);
  for (const struct pool *pool = next_pool(heap, NULL); pool != NULL; pool = next_pool(heap, pool)) {
    for (const struct block *block = pool->leaving; block != NULL; block = block->freed_next)
      stuck_bytes += block->stuck ? block->range.bytes : 0;
  }
  dz_unlock(&heap->lock);
  return stuck_bytes;
}

uint64_t dz_heap_retry_stuck(drowse_heap *heap) {
  uint64_t stuck_bytes = retry_awake(heap) + retry_asleep(heap);
  dz_heap_retry_unreleased(heap);
  return stuck_bytes;
}

/* ---- giving back */

/* What is mapped for awake tags and not live. */
static uint64_t unused_bytes(const drowse_heap *heap) {
  uint64_t bytes = 0;
  for (const struct tag *tag = heap->tags; tag != NULL; tag = tag->next) {
    uint64_t live_bytes = dz_tag_live_bytes(tag);
    if (tag->state == DROWSE_AWAKE && tag->mapped_bytes > live_bytes) bytes += tag->mapped_bytes - live_bytes;
  }
  return bytes;
}

/* Whether there is more than keep_bytes of unused memory, some of which may be whole extents or become it. */
static bool is_worth_a_wait(drowse_heap *heap, uint64_t keep_bytes) {
  dz_lock(&heap->lock);
  bool worth = heap->pending != NULL;
  for (struct pool *pool = next_pool(heap, NULL); pool != NULL && !worth; pool = next_pool(heap, pool)) worth = has_large(pool);
  worth = worth && unused_bytes(heap) > keep_bytes;
  dz_unlock(&heap->lock);
  return worth;
}

/* One round of giving back; false: there is nothing more to give. */
static bool give_some(drowse_heap *heap, uint64_t keep_bytes, uint64_t *given_bytes, uint64_t *stuck_bytes) {
  struct extent *list = NULL;
  dz_lock(&heap->lock);
  uint64_t unused = unused_bytes(heap);
  struct claims claims = {0};
  if (unused > keep_bytes) dz_claims_collect(heap, &claims, unused - keep_bytes, NULL);
  dz_unlock(&heap->lock);
  if (claims.blocks == NULL) return false;
  uint64_t bytes = claims.bytes, stuck = dz_claims_lift(&claims, &list);
  dz_extents_release(heap, list);
  dz_lock(&heap->lock);
  dz_claims_end(&claims);
  dz_unlock(&heap->lock);
  *given_bytes += bytes - stuck;
  *stuck_bytes += stuck;
  return true;
}

/* What dz_heap_give_back() does behind the wait. */
static drowse_status give_idle_back(drowse_heap *heap, uint64_t keep_bytes, uint64_t *given_bytes) {
  dz_pending_poll(heap, true);
  dz_heap_look(heap);
  uint64_t stuck_bytes = stuck_leaving(heap) + dz_heap_retry_stuck(heap);
  while (give_some(heap, keep_bytes, given_bytes, &stuck_bytes)) {
  }
  dz_lock(&heap->lock);
  stuck_bytes += heap->unreleased_bytes;
  dz_unlock(&heap->lock);
  dz_heap_free_addresses(heap);
  return stuck_bytes == 0 ? DROWSE_OK
                          : dz_error(DROWSE_ERR_DRIVER, "the driver of %s would not take %" PRIu64 " unused bytes back",
                                     heap->device.name, stuck_bytes);
}

drowse_status dz_heap_give_back(drowse_heap *heap, uint64_t keep_bytes, uint64_t *given_bytes) {
  drowse_status status = is_worth_a_wait(heap, keep_bytes) ? dz_pools_drain(heap) : DROWSE_OK;
  return status == DROWSE_OK ? give_idle_back(heap, keep_bytes, given_bytes) : status;
}

uint64_t dz_heap_largest_free(drowse_heap *heap) {
  uint64_t largest = 0;
  for (struct pool *pool = next_pool(heap, NULL); pool != NULL; pool = next_pool(heap, pool)) {
    dz_pool_lock(pool);
    dz_pool_flush(pool);
    uint64_t bytes = dz_bins_largest(&pool->free);
    dz_pool_unlock(pool);
    if (bytes > largest) largest = bytes;
  }
  return largest;
}

static drowse_status trim(drowse_heap *heap, uint64_t keep_bytes, drowse_status (*give)(drowse_heap *, uint64_t, uint64_t *)) {
  drowse_status status = dz_heap_check(heap);
  if (status != DROWSE_OK) return status;
  struct guard guard;
  uint64_t given = 0;
  status = dz_guard_enter(&guard, heap);
  if (status != DROWSE_OK) return status;
  status = give(heap, keep_bytes, &given);
  return dz_guard_leave(&guard, status);
}

DROWSE_API drowse_status drowse_trim(drowse_heap *heap, uint64_t keep_bytes) {
  return trim(heap, keep_bytes, dz_heap_give_back);
}

DROWSE_API drowse_status drowse_trim_idle(drowse_heap *heap, uint64_t keep_bytes) {
  return trim(heap, keep_bytes, give_idle_back);
}
