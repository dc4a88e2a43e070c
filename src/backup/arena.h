/* SPDX-License-Identifier: Apache-2.0
 *
 * The arena: the pinned host memory of one heap, in which its backups live. It grows by what a sleep needs and is missing, in the
 * background, so that a first sleep can copy into what is there while the rest is being pinned; and it keeps what it has for the
 * next one.
 *
 * A space is a range whose base is its address on the host. Spaces are taken at once; before one is touched, or copied to, it is
 * waited for. Memory is pinned in registrations, and one copy must not cross two: dz_space_piece().
 */
#ifndef DZ_ARENA_H
#define DZ_ARENA_H

#include "core/lock.h"
#include "core/range.h"
#include "core/slab.h"
#include "driver/driver.h"

struct arena {
  const struct driver *driver;
  CUcontext context; /* which memory is pinned for */
  int numa_node;     /* -1: any */
  uint64_t limit;    /* bytes; 0: what the machine can give */

  struct lock lock;
  pthread_cond_t changed; /* a piece is ready; a growth, a trim or a reserve has ended; a failed chunk's last space is back */
  struct slab spaces, pieces, chunk_slab;
  struct bins free;
  struct arena_chunk *chunks;
  uint64_t mapped_bytes; /* or about to be */
  uint64_t used_bytes;   /* in spaces that are taken */
  uint64_t free_bytes;   /* in bins */
  unsigned growing;      /* chunks that are not ready yet */
  unsigned copying;      /* who copies */
  unsigned reserving;    /* who reserves: what is charged for it is not free yet */
  uint64_t reserves;     /* times that one of them has ended */
  bool trimming, ending;
  bool stuck; /* the driver has not unpinned something */
};

/* context: what is made current by threads of the arena's own. numa_node: where pages are to lie; -1: anywhere. 0 or errno. */
int dz_arena_init(struct arena *arena, const struct driver *driver, uint64_t limit, CUcontext context, int numa_node);

/* Ends growth, and gives all memory back; the driver's context must be current. No space may be in use. false: the driver has not
 * unpinned all. */
bool dz_arena_end(struct arena *arena);

/* In a forked child, in place of dz_arena_end(): frees the metadata and touches nothing else. */
void dz_arena_forget(struct arena *arena);

/* A space of bytes; NULL: there is none as large, or no memory for its metadata. It may not be ready yet. */
struct range *dz_arena_take(struct arena *arena, uint64_t bytes);

/* Gives a space back: cannot fail. */
void dz_arena_give(struct arena *arena, struct range *space);

/* Cuts a used space in two: it keeps its first bytes, which must be fewer than it has, and the rest, used as well, is returned.
 * NULL: no memory for its metadata, nothing has changed. */
struct range *dz_arena_cut(struct arena *arena, struct range *space, uint64_t bytes);

/* Adds bytes, rounded up to pages, as one used space, and begins to touch and pin them; does not wait for that. Where no thread
 * can be started the calling one does it. NO_HOST_MEMORY: the limit, the machine or its cgroup has not as much. */
drowse_status dz_arena_grow(struct arena *arena, uint64_t bytes, struct range **space);

/* Waits until the first bytes of a space are there, and pinned if they can be. NO_HOST_MEMORY: the kernel did not give them. Then
 * the space is only good for being given back. */
drowse_status dz_arena_wait(struct arena *arena, const struct range *space, uint64_t bytes);

/* Sees to it that at least bytes are free, and ready or, without wait, about to be. */
drowse_status dz_arena_reserve(struct arena *arena, uint64_t bytes, bool wait);

/* For whoever fails for want of what others are reserving: how often one has ended, and whether it is more often by now, or, if
 * somebody still reserves, as soon as he has done. */
uint64_t dz_arena_reserves(struct arena *arena);
bool dz_arena_await_reserve(struct arena *arena, uint64_t seen);

/* Unpins and unmaps unused memory until at most keep_bytes of it are left; with 0 no whole page that is unused stays. Waits for
 * growth and copies to end first. The driver's context must be current: what is in use is pinned anew where it shares a
 * registration with what goes; where that fails it is pageable from then on. DRIVER: the driver would not unpin something, which
 * stays. NO_HOST_MEMORY, SYSTEM: no memory for metadata, or the kernel would not unmap something; the rest has gone all the
 * same. */
drowse_status dz_arena_trim(struct arena *arena, uint64_t keep_bytes);

/* Whether something is on its way that a trim would wait for. */
bool dz_arena_is_moving(struct arena *arena);

struct arena_stats {
  uint64_t mapped_bytes;   /* and those about to be */
  uint64_t used_bytes;     /* in spaces that are taken */
  uint64_t pinned_bytes;   /* of those that are ready */
  uint64_t huge_bytes;     /* of those that are ready: in huge pages */
  uint64_t pageable_bytes; /* of those that are ready: not pinned */
};
void dz_arena_stats(struct arena *arena, struct arena_stats *stats);

/* By how much it can grow now: what the limit, the machine and its cgroup leave. */
uint64_t dz_arena_room(struct arena *arena);

/* Between these copies are made from or to the arena's memory, which a trim waits for. */
void dz_arena_begin_copies(struct arena *arena);
void dz_arena_end_copies(struct arena *arena);

/* Of a place in a space, or behind it in the spaces that follow, that has been waited for: how many bytes lie in one registration
 * from there on, and whether it is pinned. */
uint64_t dz_space_piece(const struct range *space, uint64_t offset);
bool dz_space_is_pinned(const struct range *space, uint64_t offset);

/* Whether a space begins where bytes of another and of those behind it end, in what was mapped at once: chunks may touch. */
bool dz_space_follows(const struct range *space, const struct range *first, uint64_t bytes);

static inline void *dz_space_memory(const struct range *space) {
  return (void *)(uintptr_t)space->base;
}

#endif
