/* SPDX-License-Identifier: Apache-2.0
 *
 * Answers kept in device memory, under a tag of their own that sleeps without contents: what a server can make again need not be
 * copied to the host. Stands for a KV cache.
 */
#ifndef SERVER_CACHE_H
#define SERVER_CACHE_H

#include <pthread.h>

#include "drowse.h"

#define CACHE_TAG "cache"

/* Answers of at most this size are kept. */
enum { CACHE_SLOT_BYTES = 64 << 10 };

struct cache {
  drowse_heap *heap;
  const drowse_tag *tag;
  void *memory; /* on the device: the slots */
  size_t slot_count;
  pthread_mutex_t lock; /* of what follows, and of the slots' contents */
  struct slot *slots;
  uint64_t hits, misses;
};

/* False: it could not be made, and why has been said. cache_end() ends it in either case. */
bool cache_make(struct cache *cache, drowse_heap *heap, uint64_t bytes);
void cache_end(struct cache *cache);

/* Copies the answer for a range to out; false: it is not there. */
bool cache_get(struct cache *cache, void *out, uint64_t offset, size_t bytes);

/* Keeps an answer, if it can. */
void cache_put(struct cache *cache, const void *answer, uint64_t offset, size_t bytes);

/* How often an answer was there, and was not. */
void cache_count(struct cache *cache, uint64_t *hits, uint64_t *misses);

#endif
