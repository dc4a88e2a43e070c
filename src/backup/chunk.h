/* SPDX-License-Identifier: Apache-2.0
 *
 * What an arena is made of; for its own files. A chunk is what one growth has mapped. It is cut twice, independently: into
 * spaces, used and free, and into pieces, which are pinned one by one. Its pieces tell what is mapped: a trim takes some away, or
 * parts.
 *
 *   GROWING   threads touch it, one pins its pieces in order; spaces are given out, free ones are in the bins
 *   READY     all of it has been touched, and pinned or not; likewise
 *   FAILED    the kernel did not give a page; no space is given out any more
 *   GONE      all its spaces had been given back and it was unmapped; only the chunk itself is left, for its thread
 */
#ifndef DZ_CHUNK_H
#define DZ_CHUNK_H

#include <pthread.h>
#include <stdatomic.h>

#include "backup/arena.h"

struct space {
  struct range range; /* first: a space is handed out as its range */
  struct arena_chunk *chunk;
  bool used;
};

/* Written with the lock held, once threads know of it. */
struct arena_piece {
  uint64_t base, bytes; /* whole pages */
  struct arena_piece *next;
  struct arena_piece *torn_next;
  atomic_uint slices_left; /* to be touched */
  atomic_uint_fast64_t huge_bytes;
  bool ready, pinned, torn;
};

enum chunk_stage { CHUNK_GROWING, CHUNK_READY, CHUNK_FAILED, CHUNK_GONE };

struct arena_chunk {
  struct arena *arena;
  struct arena_chunk *next;
  uint64_t base, bytes;             /* as mapped at first */
  struct space *first;              /* as long as it is not READY */
  struct arena_piece *pieces;       /* in the order of addresses */
  atomic_uint_fast64_t ready_bytes; /* from the beginning on: the watermark */
  enum chunk_stage stage;           /* under the lock */
  pthread_t thread;                 /* that pins it */
  bool threaded;                    /* it is there and nobody has joined it, or is about to */
  atomic_uint_fast64_t next_slice;  /* where the next one to be touched begins, from the chunk's beginning on */
  atomic_uint_fast64_t untouched;   /* bytes that are claimed of the machine */
  atomic_uint disappointments;      /* slices that came slowly, or without huge pages */
  atomic_int code;                  /* errno of what failed; ECANCELED: the arena ends */
};

static inline struct space *dz_space_of(const struct range *range) {
  return (struct space *)range;
}

/* Free spaces: into the bins and out of them. With the lock held. */
void dz_space_put(struct arena *arena, struct space *space);
void dz_space_drop(struct arena *arena, struct space *space);

/* Whether no space of a chunk that has failed is used. With the lock held. */
bool dz_chunk_is_unused(const struct arena_chunk *chunk);

/* Pins a piece; false: refused, which the log is told. Without the lock. */
bool dz_piece_pin(const struct arena *arena, const struct arena_piece *piece);
CUresult dz_piece_unpin(const struct arena *arena, const struct arena_piece *piece); /* of one that is not pinned: CUDA_SUCCESS */

/* Unpins and unmaps all pieces. false: the driver has not unpinned all. Without the lock. */
bool dz_chunk_unmap(const struct arena_chunk *chunk);

/* Joins threads that have ended, or all of them, and forgets chunks that are gone. Without the lock. */
void dz_arena_reap(struct arena *arena, bool all);

#endif
