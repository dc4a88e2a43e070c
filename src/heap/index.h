/* SPDX-License-Identifier: Apache-2.0
 *
 * From an address to the live block that it lies in, in constant time and without a lock.
 *
 *   address   | 47 root 36 | 35 branch 26 | 25 leaf 16 | 15 chunk 9 | 8 0 |
 *
 * A leaf's slot is for the blocks that start in its 64 KiB: one cache line with seven of them and the place of each, which is a
 * multiple of 512 bytes; where there are more, until none of those is left, a chunk with an entry for each place has the rest. So
 * the index takes a thousandth of what is mapped. Tables live as long as the heap and blocks' nodes stay blocks' nodes, so a
 * reader at any moment reads something that is one; it may be out of date by the time it is looked at, and whoever acts on it
 * looks again under the pool's lock.
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

enum { DZ_INDEX_ROOT = 4096, DZ_INDEX_FAN = 1024, DZ_INDEX_STARTS = 7, DZ_INDEX_CHUNK = 128 };

struct chunk {
  struct chunk *next; /* while it is spare */
  unsigned count;     /* of the starts */
  _Atomic(struct block *) starts[DZ_INDEX_CHUNK];
};

struct index_slot {
  _Alignas(64) atomic_uintptr_t starts[DZ_INDEX_STARTS]; /* a block, and in its lowest bits its place; 0: none */
  _Atomic(struct chunk *) chunk;                         /* NULL: no more than that */
};

struct leaf {
  struct index_slot slots[DZ_INDEX_FAN];
  _Atomic(struct block *) cover; /* that reaches into it from below; NULL: none */
};

struct branch {
  _Atomic(struct leaf *) leaves[DZ_INDEX_FAN];
};

struct index {
  _Atomic(struct branch *) branches[DZ_INDEX_ROOT];
  struct slab branch_slab, leaf_slab, chunk_slab; /* the heap's to begin and end */
};

/* Makes the tables for a range, which whoever adds blocks there needs, and sees to it that a pool has a spare chunk; false: no
 * memory. Both with the heap's lock, the second with the pool's too. */
bool dz_index_cover(struct index *index, uint64_t base, uint64_t bytes);
bool dz_index_supply(struct index *index, struct chunk **spare);

/* With the lock of the block's pool, whose spare chunks these are. Adding a block takes one at most. */
void dz_index_add(struct index *index, struct block *block, struct chunk **spare);
void dz_index_remove(struct index *index, const struct block *block, struct chunk **spare);

/* The block that starts at an address, or that it lies in; NULL: none. */
struct block *dz_index_find_start(const struct index *index, uint64_t address);
struct block *dz_index_find(const struct index *index, uint64_t address);

/* ---- the usual case of finding a start, to be inlined */

enum { DZ_INDEX_UNIT_BITS = 9, DZ_INDEX_SLOT_BITS = 16, DZ_INDEX_LEAF_BITS = 26, DZ_INDEX_BRANCH_BITS = 36 };

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

static inline struct index_slot *dz_index_slot(struct leaf *leaf, uint64_t address) {
  return &leaf->slots[dz_index_part(address, DZ_INDEX_SLOT_BITS, DZ_INDEX_FAN)];
}

#define DZ_INDEX_PLACE ((uintptr_t)DZ_INDEX_CHUNK - 1)

static inline unsigned dz_index_place(uint64_t address) {
  return dz_index_part(address, DZ_INDEX_UNIT_BITS, DZ_INDEX_CHUNK);
}

/* start: of a slot. */
static inline struct block *dz_index_block_in(uintptr_t start) {
  return (struct block *)(start & ~DZ_INDEX_PLACE);
}

/* The block that a slot has at a place; NULL: none. A block stays where it was put. */
static inline struct block *dz_index_in(const struct index_slot *slot, unsigned place) {
  for (unsigned i = 0; i < DZ_INDEX_STARTS; i++) {
    uintptr_t start = atomic_load_explicit(&slot->starts[i], memory_order_acquire);
    if ((start & DZ_INDEX_PLACE) == place && start != 0) return dz_index_block_in(start);
  }
  struct chunk *chunk = atomic_load_explicit(&slot->chunk, memory_order_acquire);
  return chunk == NULL ? NULL : atomic_load_explicit(&chunk->starts[place], memory_order_acquire);
}

/* What is most likely the block that starts at an address. The caller looks again under its pool's lock; if it is not,
 * dz_index_find_start() knows. */
static inline struct block *dz_index_glance(const struct index *index, uint64_t address) {
  struct leaf *leaf = dz_index_leaf(index, address);
  return leaf == NULL ? NULL : dz_index_in(dz_index_slot(leaf, address), dz_index_place(address));
}

#endif
