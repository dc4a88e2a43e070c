/* SPDX-License-Identifier: Apache-2.0
 *
 * The arena: the pinned host memory of one heap, in which its backups live. It grows by what a sleep needs and is missing, and
 * keeps what it has for the next one.
 */
#ifndef DZ_ARENA_H
#define DZ_ARENA_H

#include "core/lock.h"
#include "core/range.h"
#include "core/slab.h"
#include "driver/driver.h"

struct arena {
  const struct driver *driver;
  uint64_t limit; /* bytes; 0: what the machine can give */

  struct lock lock;
  struct slab spaces;
  struct bins free;
  struct chunk *chunks;
  uint64_t chunk_bytes;  /* mapped and resident, or about to be */
  uint64_t pinned_bytes; /* ... of which pinned */
};

/* 0 or errno. */
int dz_arena_init(struct arena *arena, const struct driver *driver, uint64_t limit);

/* Gives all memory back; the driver's context must be current. No space may be in use. false: the driver has not unpinned all. */
bool dz_arena_end(struct arena *arena);

/* A space of bytes; NULL: there is none as large, or no memory for its metadata. */
struct range *dz_arena_take(struct arena *arena, uint64_t bytes);

/* Gives a space back: cannot fail. */
void dz_arena_give(struct arena *arena, struct range *space);

/* Adds one free space of bytes, which a dz_arena_take() of as much then finds if nobody else is faster. The driver's context must
 * be current. NO_HOST_MEMORY: the limit, the machine or its cgroup has not as much. */
drowse_status dz_arena_grow(struct arena *arena, uint64_t bytes);

uint64_t dz_arena_pinned_bytes(struct arena *arena);

static inline void *dz_space_memory(const struct range *space) {
  return (void *)(uintptr_t)space->base;
}

#endif
