/* SPDX-License-Identifier: Apache-2.0
 *
 * Pools: the memory of one tag that one stream uses and that is of one kind. Work on a stream is ordered, so what is freed there
 * can be handed out again there at once.
 *
 * A pool has a lock of its own, so that threads meet only where they share a tag and a stream. It protects the pool's blocks,
 * bins and counts. Whoever needs the heap's lock too takes that first. While the pool's tag is in motion it is closed: then its
 * operation alone touches its blocks, without the lock.
 */
#ifndef DZ_POOL_H
#define DZ_POOL_H

#include "core/range.h"
#include "heap/stream.h"
#include "heap/tag.h"

enum { DZ_CACHE_LINE = 64 };

/* Blocks of one size that were freed last (quick.h). */
struct quick {
  uint64_t bytes;    /* 0: of no size yet */
  uint64_t freed_at; /* when the last of them was, by the pool's clock */
  struct kept *kept; /* the last one last; NULL: no room for any yet */
  unsigned count;
};

/* One of them: where it starts and where it is in the index, and its slack. */
struct kept {
  uint64_t base;
  index_keys *keys;
  unsigned bit;
  uint16_t slack;
};

/* Sizes by hash, two of which have room at each place: of eight sizes among 64 places some two have the same one in every third
 * program, among 32 some three in every twentieth. */
enum { DZ_QUICK_BITS = 5, DZ_QUICK_PLACES = 1 << DZ_QUICK_BITS, DZ_QUICK_WAYS = 2 };
enum { DZ_QUICK_BLOCKS = 64 }; /* of a size */
#define DZ_QUICK_BYTES (DZ_QUICK_BLOCKS * sizeof(struct kept))

/* Small blocks have pools of their own: one that lives long would keep the extent that it is in from moving. */
enum pool_kind { DZ_DISCRETE = 0, DZ_EXPANDABLE = 1, DZ_SMALL = 2 }; /* bits */
#define DZ_SMALL_BYTES (UINT64_C(1) << 20)

static inline enum pool_kind dz_pool_kind(uint64_t bytes, bool expandable) {
  return (enum pool_kind)((expandable ? DZ_EXPANDABLE : DZ_DISCRETE) | (bytes < DZ_SMALL_BYTES ? DZ_SMALL : 0));
}

/* What everybody reads and what its threads write lie on cache lines of their own. */
struct pool {
  /* never change */
  _Alignas(DZ_CACHE_LINE) enum pool_kind kind;
  const drowse_tag *name; /* its tag's */
  struct tag *tag;
  struct stream *stream;
  struct pool *next;      /* in the tag */
  struct pool *hash_next; /* in the heap's table */

  _Alignas(DZ_CACHE_LINE) struct light_lock lock;
  bool open; /* its tag is awake: blocks can be had and freed under this lock alone. Changed under both locks */

  /* under its lock, what every call touches on the lock's line */
  uint64_t live_bytes;
  uint64_t takes;      /* how many blocks have become live */
  uint64_t frees;      /* how many of them have been freed: the pool's clock */
  struct block *spare; /* nodes for blocks, by freed_next */
  size_t spare_count;
  struct chunk *spare_chunks; /* for the index */
  struct kept *spare_kept;    /* room for the next size of which blocks are kept */
  /* not joined yet with what is beside them; empty while it is closed. A place is a cache line */
  _Alignas(DZ_CACHE_LINE) struct quick quick[DZ_QUICK_PLACES][DZ_QUICK_WAYS];
  struct bins free;  /* its free blocks */
  struct bins holes; /* its holes */
  struct bins stuck; /* what is not known to be either */

  /* under the heap's lock */
  struct segment *segments;
  struct block *leaving; /* by freed_next */
  uint64_t done;         /* the work on what was freed up to then is over */
  bool looked_at;        /* somebody asks the driver about the stream, and has the next two */
  CUevent fence;         /* recorded on the stream when fence_at blocks had been freed; NULL: never */
  uint64_t fence_at;     /* <= done: it waits for nothing */
  uint64_t frees_before_drain;
};

/* The nodes that a call needs at most: a block is cut out of the middle of another. */
enum { DZ_POOL_NODES = 2 };

static inline void dz_pool_lock(struct pool *pool) {
  dz_light_lock(&pool->lock, DZ_RANK_POOL);
}

static inline bool dz_pool_try(struct pool *pool) {
  return dz_light_try(&pool->lock, DZ_RANK_POOL);
}

static inline void dz_pool_unlock(struct pool *pool) {
  dz_light_unlock(&pool->lock, DZ_RANK_POOL);
}

/* Where in a heap's table a pool is. */
typedef _Atomic(struct pool *) pool_bucket;
static inline pool_bucket *dz_pool_bucket(pool_bucket *table, const drowse_tag *name, enum pool_kind kind, CUstream stream) {
  uint64_t key = ((uint64_t)name->number << 2 | kind) ^ (uint64_t)(uintptr_t)stream >> 3;
  return &table[key * UINT64_C(0x9e3779b97f4a7c15) >> (64 - DZ_POOL_BITS)];
}

/* The pool of a tag for what is of a kind and on a stream, without the heap's lock; NULL: none, or the heap's lock is needed to
 * say. Pools live as long as the heap and are only ever added to the table. */
static inline struct pool *dz_pool_glance(pool_bucket *table, const drowse_tag *name, enum pool_kind kind, CUstream stream,
                                          uint64_t stream_identity) {
  struct pool *pool = atomic_load_explicit(dz_pool_bucket(table, name, kind, stream), memory_order_acquire);
  while (pool != NULL && !(pool->name == name && pool->kind == kind && dz_stream_is(pool->stream, stream, stream_identity)))
    pool = pool->hash_next;
  return pool;
}

/* The same, made if need be, with the heap's lock; NULL: no memory, failure stored. */
struct pool *dz_pool_get(struct tag *tag, enum pool_kind kind, CUstream handle, uint64_t stream_identity);

/* Sees to it that the pool has that many nodes for blocks, and what the index needs; gives back what it has too many of. With
 * both locks. NO_HOST_MEMORY. */
drowse_status dz_pool_supply(struct pool *pool, size_t nodes);

/* A zeroed node of the supply, and back. With the pool's lock. */
struct block *dz_pool_take_node(struct pool *pool);
void dz_pool_give_node(struct pool *pool, struct block *block);

/* Learns, where it can, up to when the work on what was freed is over. Without locks; the guard entered. */
void dz_pool_look(struct pool *pool);

/* Waits for the work on the device, as dz_drain() does: then what was freed before is done with. Without locks; the guard
 * entered. */
drowse_status dz_pools_drain(drowse_heap *heap);

/* Lets threads at a tag's pools, or keeps them out. With the heap's lock. */
void dz_pools_open(const struct tag *tag, bool open);

/* Destroys the pools' events. For a heap's end. */
void dz_pools_end(drowse_heap *heap);

/* What is live in a tag. With the heap's lock. */
struct live {
  uint64_t bytes, blocks;
};
struct live dz_tag_count_live(const struct tag *tag);

static inline uint64_t dz_tag_live_bytes(const struct tag *tag) {
  return dz_tag_count_live(tag).bytes;
}

#endif
