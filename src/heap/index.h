/* SPDX-License-Identifier: Apache-2.0
 *
 * From an address to the live block that it lies in, in constant time and without a lock.
 *
 *   address   | 47 root 36 | 35 branch 26 | 25 leaf 16 | 15 chunk 9 | 8 0 |
 *
 * A leaf's slot holds the one block that starts in its 64 KiB; where up to seven do, a handful, one cache line with each of them
 * and its place, which is a multiple of 512 bytes; where more did, until none does, a chunk with an entry for each place. Tables
 * live as long as the heap and blocks' nodes stay blocks' nodes, so a reader at any moment reads something that is one; it may be
 * out of date by the time it is looked at, and whoever acts on it looks again under the pool's lock.
 */
#ifndef DZ_INDEX_H
#define DZ_INDEX_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/slab.h"

struct block;

/* For what looks at blocks without their pool's lock, and is looked at again under it. */
#define DZ_WITHOUT_LOCK __attribute__((no_sanitize("thread")))

/* What lies behind is not for the index: UVA has addresses of 47 bits on x86-64, of 48 on aarch64. */
#define DZ_ADDRESS_END (UINT64_C(1) << 48)

enum { DZ_INDEX_ROOT = 4096, DZ_INDEX_FAN = 1024, DZ_INDEX_HANDFUL = 7, DZ_INDEX_CHUNK = 128 };

struct handful {
  struct handful *next;                      /* while it is spare */
  atomic_uintptr_t starts[DZ_INDEX_HANDFUL]; /* a block, and in its lowest bits its place; 0: none */
};

struct chunk {
  struct chunk *next; /* while it is spare */
  unsigned count;     /* of the starts */
  _Atomic(struct block *) starts[DZ_INDEX_CHUNK];
};

struct leaf {
  _Atomic(struct block *) cover; /* that reaches into it from below; NULL: none */
  atomic_uintptr_t slots[DZ_INDEX_FAN];
};

struct branch {
  _Atomic(struct leaf *) leaves[DZ_INDEX_FAN];
};

struct index {
  _Atomic(struct branch *) branches[DZ_INDEX_ROOT];
  struct slab branch_slab, leaf_slab, handful_slab, chunk_slab; /* the heap's to begin and end */
};

/* What one pool has at hand. Adding a block takes one of either at most. */
struct supply {
  struct handful *handfuls;
  struct chunk *chunks;
};

static inline bool dz_index_is_supplied(const struct supply *supply) {
  return supply->handfuls != NULL && supply->chunks != NULL;
}

/* Makes the tables for a range, which whoever adds blocks there needs, and sees to it that a pool is supplied; false: no memory.
 * Both with the heap's lock, the second with the pool's too. */
bool dz_index_cover(struct index *index, uint64_t base, uint64_t bytes);
bool dz_index_supply(struct index *index, struct supply *supply);

/* With the lock of the block's pool, which for the first is supplied. */
void dz_index_add(struct index *index, struct block *block, struct supply *supply);
void dz_index_remove(struct index *index, const struct block *block, struct supply *supply);

/* The block that starts at an address, or that it lies in; NULL: none. */
struct block *dz_index_find_start(const struct index *index, uint64_t address);
struct block *dz_index_find(const struct index *index, uint64_t address);

#endif
