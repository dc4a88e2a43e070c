/* SPDX-License-Identifier: Apache-2.0
 *
 * How memory of an arena goes. Of each free space the whole pages are made a gap, a space of its own that counts as used
 * meanwhile. The pieces that gaps lie in are torn: unpinned, the gaps unmapped, and what is left of the pieces pinned anew, each
 * once, however many gaps it has. The lock is held for the lists only, not across calls of the driver.
 */
#include <inttypes.h>

#include "backup/chunk.h"
#include "backup/pages.h"
#include "core/error.h"

/* Gaps are in no bin: the bins' link makes the list of them. */
struct trim {
  struct arena *arena;
  uint64_t excess; /* bytes, that are still to go */
  struct range *gaps;
  struct arena_piece *torn;
  struct arena_piece *spares; /* one for each gap: one in the middle of a piece makes two of it */
  drowse_status status;
};

/* ---- what goes. With the lock held */

static uint64_t first_page(const struct range *range) {
  return dz_round_up(range->base, dz_page_bytes());
}

static uint64_t page_end(const struct range *range) {
  return dz_round_down(dz_range_end(range), dz_page_bytes());
}

static bool has_page(const struct range *range) {
  return first_page(range) < page_end(range);
}

/* The nodes that a gap may need; false: no memory for them. */
static bool take_nodes(struct trim *trim, struct space *nodes[2]) {
  struct arena *arena = trim->arena;
  struct arena_piece *spare = dz_slab_take(&arena->pieces);
  for (int i = 0; i < 2; i++) nodes[i] = spare == NULL ? NULL : dz_slab_take(&arena->spaces);
  if (nodes[0] != NULL && nodes[1] != NULL) {
    spare->next = trim->spares;
    trim->spares = spare;
    return true;
  }
  if (spare != NULL) dz_slab_give(&arena->pieces, spare);
  if (nodes[0] != NULL) dz_slab_give(&arena->spaces, nodes[0]);
  return false;
}

static void split(struct space *space, uint64_t address, struct space *rest) {
  dz_range_split(&space->range, address, &rest->range);
  rest->chunk = space->chunk;
}

/* Makes the whole pages at the end of a free space a gap, as many as are to go; false: no memory for metadata. */
static bool make_gap(struct trim *trim, struct space *space) {
  struct arena *arena = trim->arena;
  struct space *nodes[2], *gap = space;
  uint64_t end = page_end(&space->range), base = first_page(&space->range);
  uint64_t excess = trim->excess < end - base ? dz_round_up(trim->excess, dz_page_bytes()) : end - base;
  base = end - excess;
  if (!take_nodes(trim, nodes)) return false;
  dz_space_drop(arena, space);
  if (base > space->range.base) {
    split(space, base, gap = nodes[0]);
    dz_space_put(arena, space);
    nodes[0] = NULL;
  }
  if (end < dz_range_end(&gap->range)) {
    split(gap, end, nodes[1]);
    dz_space_put(arena, nodes[1]);
    nodes[1] = NULL;
  }
  for (int i = 0; i < 2; i++) {
    if (nodes[i] != NULL) dz_slab_give(&arena->spaces, nodes[i]);
  }
  gap->used = true; /* nobody joins it */
  gap->range.bin_next = trim->gaps;
  trim->gaps = &gap->range;
  trim->excess -= excess < trim->excess ? excess : trim->excess;
  return true;
}

/* The largest first: fewer pieces are torn. Where all is to go the order does not matter, and looking for the largest is saved.
 * false: no memory for metadata. */
static bool make_gaps(struct trim *trim, uint64_t keep_bytes) {
  struct bins *bins = &trim->arena->free;
  uint64_t largest;
  bool room = true;
  while (room && keep_bytes > 0 && trim->excess > 0 && (largest = dz_bins_largest(bins)) >= 2 * dz_page_bytes())
    room = make_gap(trim, dz_space_of(dz_bins_find(bins, largest)));
  for (struct range *range = dz_bins_first(bins, 0), *next; room && trim->excess > 0 && range != NULL; range = next) {
    next = dz_bins_after(bins, range); /* what is left of this one goes into a bin before */
    if (has_page(range)) room = make_gap(trim, dz_space_of(range));
  }
  return room;
}

/* ---- tearing. Without the lock: nobody else changes pieces that are ready */

static bool overlaps(const struct arena_piece *piece, const struct range *gap) {
  return piece->base < dz_range_end(gap) && gap->base < piece->base + piece->bytes;
}

/* false: the driver would not unpin it, so it stays whole. */
static bool tear(struct trim *trim, struct arena_piece *piece) {
  struct arena *arena = trim->arena;
  if (piece->torn) return true;
  CUresult code = dz_piece_unpin(arena, piece);
  if (code != CUDA_SUCCESS) {
    trim->status = dz_driver_error(arena->driver, code, "unpinning %" PRIu64 " bytes for backups", piece->bytes);
    return false;
  }
  dz_lock(&arena->lock);
  piece->torn = true;
  piece->torn_next = trim->torn;
  trim->torn = piece;
  dz_unlock(&arena->lock);
  return true;
}

static bool tear_all(struct trim *trim, const struct range *gap) {
  bool torn = true;
  for (struct arena_piece *piece = dz_space_of(gap)->chunk->pieces; piece != NULL; piece = piece->next) {
    if (overlaps(piece, gap)) torn &= tear(trim, piece);
  }
  return torn;
}

static bool unmap(struct trim *trim, const struct range *gap) {
  int code = dz_pages_unmap(gap->base, gap->bytes);
  if (code == 0) return true;
  trim->status = dz_error_system(DROWSE_ERR_SYSTEM, code, "unmapping %" PRIu64 " bytes for backups", gap->bytes);
  return false;
}

/* ---- the lists. With the lock held */

/* What lies behind a gap in the middle of a piece becomes a piece too. */
static void divide(struct trim *trim, struct arena_piece *piece, uint64_t base) {
  struct arena_piece *rest = trim->spares;
  trim->spares = rest->next;
  rest->base = base;
  rest->bytes = piece->base + piece->bytes - base;
  rest->ready = rest->torn = true;
  rest->pinned = piece->pinned;
  rest->next = piece->next;
  rest->torn_next = trim->torn;
  trim->torn = rest;
  piece->next = rest;
  piece->bytes = base - piece->base;
}

/* Takes a gap out of the pieces. Of one that is wholly gone nothing is left but its place in the list of torn ones. */
static void take_out(struct trim *trim, struct arena_chunk *chunk, const struct range *gap) {
  uint64_t end = dz_range_end(gap);
  for (struct arena_piece **at = &chunk->pieces, *piece; (piece = *at) != NULL;) {
    if (overlaps(piece, gap)) {
      uint64_t piece_end = piece->base + piece->bytes;
      if (piece_end > end && piece->base < gap->base) divide(trim, piece, end);
      if (piece->base >= gap->base) {
        uint64_t gone = (piece_end < end ? piece_end : end) - piece->base;
        piece->base += gone;
        piece->bytes -= gone;
      } else {
        piece->bytes = gap->base - piece->base;
      }
    }
    if (piece->bytes == 0) {
      *at = piece->next;
    } else {
      at = &piece->next;
    }
  }
}

static void forget_chunk(struct arena_chunk *chunk) {
  struct arena *arena = chunk->arena;
  struct arena_chunk **at = &arena->chunks;
  while (*at != chunk) at = &(*at)->next;
  *at = chunk->next;
  dz_slab_give(&arena->chunk_slab, chunk);
}

static void forget_gap(struct trim *trim, struct range *gap) {
  struct arena *arena = trim->arena;
  struct arena_chunk *chunk = dz_space_of(gap)->chunk;
  take_out(trim, chunk, gap);
  if (gap->before != NULL) gap->before->after = NULL;
  if (gap->after != NULL) gap->after->before = NULL;
  arena->mapped_bytes -= gap->bytes;
  dz_slab_give(&arena->spaces, gap);
  if (chunk->pieces == NULL) forget_chunk(chunk);
}

/* ---- all of it */

/* A gap that stays is a free space again. */
static void close_gaps(struct trim *trim, struct range *gaps, bool gone) {
  struct arena *arena = trim->arena;
  for (struct range *gap = gaps, *next; gap != NULL; gap = next) {
    next = gap->bin_next;
    gap->bin_next = NULL;
    dz_lock(&arena->lock);
    if (gone) {
      forget_gap(trim, gap);
    } else {
      arena->used_bytes += gap->bytes; /* as of a space that was taken */
    }
    dz_unlock(&arena->lock);
    if (!gone) dz_arena_give(arena, gap);
  }
}

/* Sorts out the gaps that cannot go. */
static struct range *keep_if(struct trim *trim, bool (*go)(struct trim *trim, const struct range *gap)) {
  struct range *kept = NULL;
  for (struct range **at = &trim->gaps, *gap; (gap = *at) != NULL;) {
    if (go(trim, gap)) {
      at = &gap->bin_next;
    } else {
      *at = gap->bin_next;
      gap->bin_next = kept;
      kept = gap;
    }
  }
  return kept;
}

/* What is left of a piece is pinned anew. Some of its huge pages may have been cut. */
static void mend(const struct trim *trim, struct arena_piece *piece) {
  struct arena *arena = trim->arena;
  bool pinned = piece->pinned && dz_piece_pin(arena, piece);
  uint64_t huge = dz_pages_huge(piece->base, piece->bytes);
  dz_lock(&arena->lock);
  piece->torn = false;
  piece->pinned = pinned;
  atomic_store(&piece->huge_bytes, huge);
  dz_unlock(&arena->lock);
}

static void give_piece(struct trim *trim, struct arena_piece *piece) {
  dz_lock(&trim->arena->lock);
  dz_slab_give(&trim->arena->pieces, piece);
  dz_unlock(&trim->arena->lock);
}

static void mend_all(struct trim *trim) {
  for (struct arena_piece *piece = trim->torn, *next; piece != NULL; piece = next) {
    next = piece->torn_next;
    if (piece->bytes > 0) {
      mend(trim, piece);
    } else {
      give_piece(trim, piece);
    }
  }
  for (struct arena_piece *piece = trim->spares, *next; piece != NULL; piece = next) {
    next = piece->next;
    give_piece(trim, piece);
  }
}

/* Whether something is on its way that a trim waits for. With the lock held. */
static bool is_moving(const struct arena *arena) {
  bool moving = arena->growing > 0 || arena->copying > 0 || arena->trimming;
  for (const struct arena_chunk *chunk = arena->chunks; chunk != NULL && !moving; chunk = chunk->next)
    moving = dz_chunk_is_unused(chunk);
  return moving;
}

/* A chunk may go only when its thread has. With the lock held. */
static bool has_threads(const struct arena *arena) {
  const struct arena_chunk *chunk = arena->chunks;
  while (chunk != NULL && !(chunk->threaded && chunk->stage != CHUNK_FAILED)) chunk = chunk->next;
  return chunk != NULL;
}

/* Returns with the lock held. */
static void begin(struct arena *arena) {
  for (;;) {
    dz_arena_reap(arena, false);
    dz_lock(&arena->lock);
    while (is_moving(arena)) (void)dz_cond_wait(&arena->changed, &arena->lock, DZ_NEVER);
    if (!has_threads(arena)) break;
    dz_unlock(&arena->lock);
  }
  arena->trimming = true;
}

static void end(struct arena *arena) {
  dz_lock(&arena->lock);
  arena->trimming = false;
  (void)pthread_cond_broadcast(&arena->changed);
  dz_unlock(&arena->lock);
}

bool dz_arena_is_moving(struct arena *arena) {
  dz_lock(&arena->lock);
  bool moving = is_moving(arena);
  dz_unlock(&arena->lock);
  return moving;
}

void dz_arena_begin_copies(struct arena *arena) {
  dz_lock(&arena->lock);
  while (arena->trimming) (void)dz_cond_wait(&arena->changed, &arena->lock, DZ_NEVER);
  arena->copying++;
  dz_unlock(&arena->lock);
}

void dz_arena_end_copies(struct arena *arena) {
  dz_lock(&arena->lock);
  if (--arena->copying == 0) (void)pthread_cond_broadcast(&arena->changed);
  dz_unlock(&arena->lock);
}

drowse_status dz_arena_trim(struct arena *arena, uint64_t keep_bytes) {
  struct trim trim = {.arena = arena, .status = DROWSE_OK};
  begin(arena);
  trim.excess = arena->free_bytes > keep_bytes ? arena->free_bytes - keep_bytes : 0;
  bool all = make_gaps(&trim, keep_bytes);
  dz_unlock(&arena->lock);
  if (!all) trim.status = dz_error(DROWSE_ERR_NO_HOST_MEMORY, "no memory for the metadata of backups");
  struct range *pinned = keep_if(&trim, tear_all), *mapped = keep_if(&trim, unmap);
  close_gaps(&trim, trim.gaps, true);
  close_gaps(&trim, pinned, false);
  close_gaps(&trim, mapped, false);
  mend_all(&trim);
  end(arena);
  return trim.status;
}
