/* SPDX-License-Identifier: Apache-2.0
 *
 * The arena's spaces: cut out of chunks as blocks are out of segments. How chunks come is in grow.c, how they go in trim.c.
 */
#include "backup/arena.h"

#include <errno.h>

#include "backup/chunk.h"

int dz_arena_init(struct arena *arena, const struct driver *driver, uint64_t limit, CUcontext context, int numa_node) {
  *arena = (struct arena){.driver = driver, .limit = limit, .context = context, .numa_node = numa_node};
  dz_slab_init(&arena->spaces, sizeof(struct space));
  dz_slab_init(&arena->pieces, sizeof(struct arena_piece));
  dz_slab_init(&arena->chunk_slab, sizeof(struct arena_chunk));
  int code = dz_cond_init(&arena->changed);
  if (code != 0) return code;
  code = dz_lock_init(&arena->lock, DZ_RANK_ARENA);
  if (code != 0) (void)pthread_cond_destroy(&arena->changed);
  return code;
}

void dz_arena_forget(struct arena *arena) {
  dz_slab_end(&arena->spaces);
  dz_slab_end(&arena->pieces);
  dz_slab_end(&arena->chunk_slab);
}

/* ---- spaces */

void dz_space_put(struct arena *arena, struct space *space) {
  dz_bins_put(&arena->free, &space->range);
  arena->free_bytes += space->range.bytes;
}

void dz_space_drop(struct arena *arena, struct space *space) {
  dz_bins_drop(&arena->free, &space->range);
  arena->free_bytes -= space->range.bytes;
}

/* Cuts the rest off a space that is in no bin; NULL: no memory for its metadata. */
static struct space *cut(struct arena *arena, struct space *space, uint64_t bytes) {
  struct space *rest = dz_slab_take(&arena->spaces);
  if (rest == NULL) return NULL;
  dz_range_split(&space->range, space->range.base + bytes, &rest->range);
  rest->chunk = space->chunk;
  rest->used = space->used;
  return rest;
}

/* Takes bytes off the beginning of a free space; false: no memory for the rest's metadata. */
static bool take_from(struct arena *arena, struct space *space, uint64_t bytes) {
  dz_space_drop(arena, space);
  if (space->range.bytes > bytes) {
    struct space *rest = cut(arena, space, bytes);
    dz_space_put(arena, rest == NULL ? space : rest);
    if (rest == NULL) return false;
  }
  space->used = true;
  arena->used_bytes += bytes;
  return true;
}

struct range *dz_arena_take(struct arena *arena, uint64_t bytes) {
  dz_lock(&arena->lock);
  struct range *space = dz_bins_find(&arena->free, bytes);
  if (space != NULL && !take_from(arena, dz_space_of(space), bytes)) space = NULL;
  dz_unlock(&arena->lock);
  return space;
}

struct range *dz_arena_cut(struct arena *arena, struct range *space, uint64_t bytes) {
  dz_lock(&arena->lock);
  struct space *rest = cut(arena, dz_space_of(space), bytes);
  dz_unlock(&arena->lock);
  return rest == NULL ? NULL : &rest->range;
}

static bool is_free(const struct range *space) {
  return space != NULL && !dz_space_of(space)->used;
}

/* Adds a free space to the one before it; either may be in a bin. */
static void join(struct arena *arena, struct range *kept, struct range *gone) {
  if (kept->bin_before != NULL) dz_space_drop(arena, dz_space_of(kept));
  if (gone->bin_before != NULL) dz_space_drop(arena, dz_space_of(gone));
  dz_range_join(kept, gone);
  dz_slab_give(&arena->spaces, gone);
}

bool dz_chunk_is_unused(const struct arena_chunk *chunk) {
  return chunk->stage == CHUNK_FAILED && is_free(&chunk->first->range) && chunk->first->range.after == NULL;
}

void dz_arena_give(struct arena *arena, struct range *space) {
  dz_lock(&arena->lock);
  const struct arena_chunk *chunk = dz_space_of(space)->chunk;
  struct range *before = space->before, *after = space->after;
  arena->used_bytes -= space->bytes;
  dz_space_of(space)->used = false;
  if (is_free(after)) join(arena, space, after);
  if (is_free(before)) {
    join(arena, before, space);
    space = before;
  }
  if (chunk->stage != CHUNK_FAILED)
    dz_space_put(arena, dz_space_of(space));
  else if (dz_chunk_is_unused(chunk))
    (void)pthread_cond_broadcast(&arena->changed); /* to its thread, which waits for this */
  dz_unlock(&arena->lock);
}

/* ---- where a space lies. Pieces change only where nobody may ask: in growth ahead of the watermark, and in a trim. */

static const struct arena_piece *piece_at(const struct range *space, uint64_t offset) {
  const struct arena_piece *piece = dz_space_of(space)->chunk->pieces;
  while (space->base + offset >= piece->base + piece->bytes) piece = piece->next;
  return piece;
}

uint64_t dz_space_piece(const struct range *space, uint64_t offset) {
  const struct arena_piece *piece = piece_at(space, offset);
  return piece->base + piece->bytes - (space->base + offset);
}

bool dz_space_is_pinned(const struct range *space, uint64_t offset) {
  return piece_at(space, offset)->pinned;
}

bool dz_space_follows(const struct range *space, const struct range *first, uint64_t bytes) {
  return space->base == first->base + bytes && dz_space_of(space)->chunk == dz_space_of(first)->chunk;
}

/* ---- statistics */

static void add_piece(struct arena_stats *stats, const struct arena_piece *piece) {
  if (!piece->ready) return;
  if (piece->pinned) {
    stats->pinned_bytes += piece->bytes;
  } else {
    stats->pageable_bytes += piece->bytes;
  }
  stats->huge_bytes += atomic_load_explicit(&piece->huge_bytes, memory_order_relaxed);
}

void dz_arena_stats(struct arena *arena, struct arena_stats *stats) {
  dz_lock(&arena->lock);
  *stats = (struct arena_stats){.mapped_bytes = arena->mapped_bytes, .used_bytes = arena->used_bytes};
  for (const struct arena_chunk *chunk = arena->chunks; chunk != NULL; chunk = chunk->next) {
    for (const struct arena_piece *piece = chunk->pieces; piece != NULL; piece = piece->next) add_piece(stats, piece);
  }
  dz_unlock(&arena->lock);
}

/* ---- the end */

/* Those that grow stop, and those that have failed no longer wait for their spaces. */
static void stop(struct arena *arena) {
  dz_lock(&arena->lock);
  arena->ending = true;
  for (struct arena_chunk *chunk = arena->chunks; chunk != NULL; chunk = chunk->next) {
    int none = 0;
    if (chunk->stage == CHUNK_GROWING) (void)atomic_compare_exchange_strong(&chunk->code, &none, ECANCELED);
  }
  (void)pthread_cond_broadcast(&arena->changed);
  dz_unlock(&arena->lock);
}

bool dz_arena_end(struct arena *arena) {
  stop(arena);
  dz_arena_reap(arena, true);
  bool unpinned = !arena->stuck;
  for (const struct arena_chunk *chunk = arena->chunks; chunk != NULL; chunk = chunk->next) unpinned &= dz_chunk_unmap(chunk);
  dz_arena_forget(arena);
  dz_lock_destroy(&arena->lock);
  (void)pthread_cond_destroy(&arena->changed);
  return unpinned;
}
