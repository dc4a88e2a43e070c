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

/* ---- the usual case of finding a start, to be inlined */

enum { DZ_INDEX_UNIT_BITS = 9, DZ_INDEX_SLOT_BITS = 16, DZ_INDEX_LEAF_BITS = 26, DZ_INDEX_BRANCH_BITS = 36 };

/* What a slot holds is told by its lowest bit or two; a block has none of them. */
#define DZ_INDEX_IS_HANDFUL ((uintptr_t)1)
#define DZ_INDEX_IS_CHUNK ((uintptr_t)2)
#define DZ_INDEX_KINDS (DZ_INDEX_IS_HANDFUL | DZ_INDEX_IS_CHUNK)

static inline unsigned dz_index_part(uint64_t address, unsigned low, unsigned count) {
  return (unsigned)(address >> low) & (count - 1);
}

/* NULL: nothing was ever mapped thereabouts. */
static inline struct leaf *dz_index_leaf(const struct index *index, uint64_t address) {
  if (address >= DZ_ADDRESS_END) return NULL;
  struct branch *branch =
      atomic_load_explicit(&index->branches[dz_index_part(address, DZ_INDEX_BRANCH_BITS, DZ_INDEX_ROOT)], memory_order_acquire);
  if (branch == NULL) return NULL;
  return atomic_load_explicit(&branch->leaves[dz_index_part(address, DZ_INDEX_LEAF_BITS, DZ_INDEX_FAN)], memory_order_acquire);
}

static inline atomic_uintptr_t *dz_index_slot(struct leaf *leaf, uint64_t address) {
  return &leaf->slots[dz_index_part(address, DZ_INDEX_SLOT_BITS, DZ_INDEX_FAN)];
}

/* In a handful a block's place is in its lowest bits. */
#define DZ_INDEX_PLACE ((uintptr_t)DZ_INDEX_CHUNK - 1)

static inline unsigned dz_index_place(uint64_t address) {
  return dz_index_part(address, DZ_INDEX_UNIT_BITS, DZ_INDEX_CHUNK);
}

static inline struct handful *dz_index_handful_in(uintptr_t slot) {
  return (slot & DZ_INDEX_KINDS) == DZ_INDEX_IS_HANDFUL ? (struct handful *)(slot & ~DZ_INDEX_KINDS) : NULL;
}

static inline struct chunk *dz_index_chunk_in(uintptr_t slot) {
  return (slot & DZ_INDEX_KINDS) == DZ_INDEX_IS_CHUNK ? (struct chunk *)(slot & ~DZ_INDEX_KINDS) : NULL;
}

/* start: an entry of a handful. */
static inline struct block *dz_index_block_in(uintptr_t start) {
  return (struct block *)(start & ~DZ_INDEX_PLACE);
}

static inline struct block *dz_index_in_handful(const struct handful *handful, unsigned place) {
  for (unsigned i = 0; i < DZ_INDEX_HANDFUL; i++) {
    uintptr_t start = atomic_load_explicit(&handful->starts[i], memory_order_acquire);
    if ((start & DZ_INDEX_PLACE) == place && start != 0) return dz_index_block_in(start);
  }
  return NULL;
}

/* The block that a slot has at a place; NULL: none. Where it has one block only, that, wherever it starts. */
static inline struct block *dz_index_in(uintptr_t slot, unsigned place) {
  if ((slot & DZ_INDEX_KINDS) == 0) return (struct block *)slot;
  const struct handful *handful = dz_index_handful_in(slot);
  return handful != NULL ? dz_index_in_handful(handful, place)
                         : atomic_load_explicit(&dz_index_chunk_in(slot)->starts[place], memory_order_acquire);
}

/* What is most likely the block that starts at an address. The caller looks again under its pool's lock; if it is not,
 * dz_index_find_start() knows. */
static inline struct block *dz_index_glance(const struct index *index, uint64_t address) {
  struct leaf *leaf = dz_index_leaf(index, address);
  if (leaf == NULL) return NULL;
  return dz_index_in(atomic_load_explicit(dz_index_slot(leaf, address), memory_order_acquire), dz_index_place(address));
}

#endif
