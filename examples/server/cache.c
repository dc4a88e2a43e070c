/* SPDX-License-Identifier: Apache-2.0
 *
 * Answers kept in device memory, under a tag of their own that sleeps without contents.
 *
 * They are copied by drowse_copy_in() and drowse_copy_out(), which take care of themselves; the tag is held so that the memory is
 * the same from the look at a slot to the copy. After waking, the memory is there again and holds anything at all: each slot
 * remembers after how many sleeps it was filled, and counts only while there has been no other. Forgetting the slots in a hook
 * that runs when the tag has woken would be too late: other threads may use a tag before the hook has run.
 */
#include "cache.h"

#include <stdlib.h>

#include "say.h"

struct slot {
  uint64_t offset;
  size_t bytes; /* 0: empty */
  uint64_t sleeps;
};

bool cache_make(struct cache *cache, drowse_heap *heap, uint64_t bytes) {
  *cache = (struct cache){.heap = heap, .tag = drowse_tag_get(CACHE_TAG), .slot_count = (size_t)(bytes / CACHE_SLOT_BYTES)};
  (void)pthread_mutex_init(&cache->lock, NULL);
  cache->slots = calloc(cache->slot_count, sizeof *cache->slots);
  if (cache->slots == NULL || cache->tag == NULL) {
    say("no memory for the cache");
    return false;
  }
  drowse_alloc_options options = {.struct_size = sizeof options, .tag = CACHE_TAG};
  drowse_status status = drowse_alloc_with(heap, cache->slot_count * CACHE_SLOT_BYTES, NULL, &options, &cache->memory);
  if (status != DROWSE_OK) say("allocating the cache: %s", reason(status));
  return status == DROWSE_OK;
}

void cache_end(struct cache *cache) {
  free(cache->slots);
  (void)pthread_mutex_destroy(&cache->lock);
}

static size_t slot_of(const struct cache *cache, uint64_t offset, size_t bytes) {
  uint64_t key = (offset ^ (uint64_t)bytes << 40) * UINT64_C(0x9e3779b97f4a7c15);
  return (size_t)((key >> 32) % cache->slot_count);
}

/* Locks the cache if its tag is awake, which it then stays; it can be asleep while the weights are awake, for want of memory. */
static bool enter(struct cache *cache, uint64_t *sleeps) {
  drowse_stats stats = {.struct_size = sizeof stats};
  if (drowse_hold_tag(cache->heap, cache->tag, 0) != DROWSE_OK) return false;
  if (drowse_stats_get(cache->heap, CACHE_TAG, &stats) != DROWSE_OK) {
    (void)drowse_unhold_tag(cache->heap, cache->tag);
    return false;
  }
  *sleeps = stats.sleeps;
  (void)pthread_mutex_lock(&cache->lock);
  return true;
}

static void leave(struct cache *cache) {
  (void)pthread_mutex_unlock(&cache->lock);
  (void)drowse_unhold_tag(cache->heap, cache->tag);
}

bool cache_get(struct cache *cache, void *out, uint64_t offset, size_t bytes) {
  uint64_t sleeps;
  if (bytes > CACHE_SLOT_BYTES || !enter(cache, &sleeps)) return false;
  size_t index = slot_of(cache, offset, bytes);
  const struct slot *slot = &cache->slots[index];
  bool hit = slot->offset == offset && slot->bytes == bytes && slot->sleeps == sleeps &&
             drowse_copy_out(cache->heap, out, (char *)cache->memory + index * CACHE_SLOT_BYTES, bytes) == DROWSE_OK;
  hit ? cache->hits++ : cache->misses++;
  leave(cache);
  return hit;
}

void cache_put(struct cache *cache, const void *answer, uint64_t offset, size_t bytes) {
  uint64_t sleeps;
  if (bytes > CACHE_SLOT_BYTES || !enter(cache, &sleeps)) return;
  size_t index = slot_of(cache, offset, bytes);
  void *memory = (char *)cache->memory + index * CACHE_SLOT_BYTES;
  bool kept = drowse_copy_in(cache->heap, memory, answer, bytes) == DROWSE_OK;
  cache->slots[index] = (struct slot){.offset = offset, .bytes = kept ? bytes : 0, .sleeps = sleeps};
  leave(cache);
}

void cache_count(struct cache *cache, uint64_t *hits, uint64_t *misses) {
  (void)pthread_mutex_lock(&cache->lock);
  *hits = cache->hits;
  *misses = cache->misses;
  (void)pthread_mutex_unlock(&cache->lock);
}
