/* SPDX-License-Identifier: Apache-2.0
 *
 * The index: three levels of tables, and chunks.
 */
#include "heap/index.h"

#include <assert.h>

#include "heap/block.h"

enum { UNIT_BITS = 9, SLOT_BITS = 16, LEAF_BITS = 26, BRANCH_BITS = 36 };

#define IS_CHUNK ((uintptr_t)1) /* in a slot: a chunk, no block */

/* ---- tables */

static inline unsigned part_of(uint64_t address, unsigned low, unsigned count) {
  return (unsigned)(address >> low) & (count - 1);
}

/* NULL: nothing was ever mapped thereabouts. */
static inline struct leaf *leaf_of(const struct index *index, uint64_t address) {
  if (address >= DZ_ADDRESS_END) return NULL;
  struct branch *branch =
      atomic_load_explicit(&index->branches[part_of(address, BRANCH_BITS, DZ_INDEX_ROOT)], memory_order_acquire);
  if (branch == NULL) return NULL;
  return atomic_load_explicit(&branch->leaves[part_of(address, LEAF_BITS, DZ_INDEX_FAN)], memory_order_acquire);
}

static bool make_leaf(struct index *index, uint64_t address) {
  _Atomic(struct branch *) *at = &index->branches[part_of(address, BRANCH_BITS, DZ_INDEX_ROOT)];
  struct branch *branch = atomic_load_explicit(at, memory_order_relaxed);
  if (branch == NULL) {
    branch = dz_slab_take(&index->branch_slab);
    if (branch == NULL) return false;
    atomic_store_explicit(at, branch, memory_order_release);
  }
  struct leaf *leaf = dz_slab_take(&index->leaf_slab);
  if (leaf == NULL) return false;
  atomic_store_explicit(&branch->leaves[part_of(address, LEAF_BITS, DZ_INDEX_FAN)], leaf, memory_order_release);
  return true;
}

bool dz_index_cover(struct index *index, uint64_t base, uint64_t bytes) {
  for (uint64_t leaf = base >> LEAF_BITS; leaf <= (base + bytes - 1) >> LEAF_BITS; leaf++) {
    if (leaf_of(index, leaf << LEAF_BITS) == NULL && !make_leaf(index, leaf << LEAF_BITS)) return false;
  }
  return true;
}

/* ---- chunks */

static void put_back(struct chunks *chunks, struct chunk *chunk) {
  chunk->next = chunks->spare;
  chunks->spare = chunk;
  chunks->count++;
}

bool dz_index_supply(struct index *index, struct chunks *chunks) {
  if (chunks->count > 0) return true;
  struct chunk *chunk = dz_slab_take(&index->chunk_slab);
  if (chunk != NULL) put_back(chunks, chunk);
  return chunk != NULL;
}

static inline struct chunk *chunk_in(uintptr_t slot) {
  return (slot & IS_CHUNK) == 0 ? NULL : (struct chunk *)(slot & ~IS_CHUNK);
}

static void add_start(struct chunk *chunk, struct block *block) {
  atomic_store_explicit(&chunk->starts[part_of(block->range.base, UNIT_BITS, DZ_INDEX_CHUNK)], block, memory_order_release);
  chunk->count++;
}

/* A second block starts in a slot's 64 KiB. */
static struct chunk *make_chunk(struct chunks *chunks, uintptr_t slot) {
  struct chunk *chunk = chunks->spare;
  assert(chunk != NULL);
  chunks->spare = chunk->next;
  chunks->count--;
  add_start(chunk, (struct block *)slot);
  return chunk;
}

/* ---- adding and removing */

/* Tells the leaves that a block reaches into. */
static void set_cover(const struct index *index, const struct block *block, struct block *cover) {
  uint64_t last = (dz_range_end(&block->range) - 1) >> LEAF_BITS;
  for (uint64_t leaf = (block->range.base >> LEAF_BITS) + 1; leaf <= last; leaf++) {
    atomic_store_explicit(&leaf_of(index, leaf << LEAF_BITS)->cover, cover, memory_order_release);
  }
}

void dz_index_add(struct index *index, struct block *block, struct chunks *chunks) {
  struct leaf *leaf = leaf_of(index, block->range.base);
  atomic_uintptr_t *slot = &leaf->slots[part_of(block->range.base, SLOT_BITS, DZ_INDEX_FAN)];
  uintptr_t value = atomic_load_explicit(slot, memory_order_relaxed);
  if (value == 0) {
    value = (uintptr_t)block;
  } else {
    struct chunk *chunk = chunk_in(value);
    if (chunk == NULL) chunk = make_chunk(chunks, value);
    add_start(chunk, block);
    value = (uintptr_t)chunk | IS_CHUNK;
  }
  atomic_store_explicit(slot, value, memory_order_release);
  set_cover(index, block, block);
}

void dz_index_remove(struct index *index, const struct block *block, struct chunks *chunks) {
  struct leaf *leaf = leaf_of(index, block->range.base);
  atomic_uintptr_t *slot = &leaf->slots[part_of(block->range.base, SLOT_BITS, DZ_INDEX_FAN)];
  struct chunk *chunk = chunk_in(atomic_load_explicit(slot, memory_order_relaxed));
  if (chunk != NULL) {
    atomic_store_explicit(&chunk->starts[part_of(block->range.base, UNIT_BITS, DZ_INDEX_CHUNK)], NULL, memory_order_release);
    chunk->count--;
  }
  if (chunk == NULL || chunk->count == 0) atomic_store_explicit(slot, 0, memory_order_release);
  if (chunk != NULL && chunk->count == 0) put_back(chunks, chunk);
  set_cover(index, block, NULL);
}

/* ---- finding */

/* The block that a slot has at a place; NULL: none. */
static inline struct block *start_in(uintptr_t slot, unsigned place) {
  struct chunk *chunk = chunk_in(slot);
  return chunk == NULL ? (struct block *)slot : atomic_load_explicit(&chunk->starts[place], memory_order_acquire);
}

DZ_WITHOUT_LOCK struct block *dz_index_find_start(const struct index *index, uint64_t address) {
  const struct leaf *leaf = leaf_of(index, address);
  if (leaf == NULL) return NULL;
  uintptr_t slot = atomic_load_explicit(&leaf->slots[part_of(address, SLOT_BITS, DZ_INDEX_FAN)], memory_order_acquire);
  struct block *block = start_in(slot, part_of(address, UNIT_BITS, DZ_INDEX_CHUNK));
  return block != NULL && block->range.base == address ? block : NULL;
}

/* The last block of a slot that starts at or below an address; NULL: none. */
DZ_WITHOUT_LOCK static struct block *last_start(uintptr_t slot, uint64_t address) {
  struct block *block = NULL;
  for (unsigned place = part_of(address, UNIT_BITS, DZ_INDEX_CHUNK) + 1; block == NULL && place-- > 0;) {
    block = start_in(slot, place);
  }
  return block == NULL || block->range.base > address ? NULL : block;
}

DZ_WITHOUT_LOCK struct block *dz_index_find(const struct index *index, uint64_t address) {
  const struct leaf *leaf = leaf_of(index, address);
  if (leaf == NULL) return NULL;
  struct block *block = NULL;
  uint64_t below = address;
  for (unsigned at = part_of(address, SLOT_BITS, DZ_INDEX_FAN) + 1; block == NULL && at-- > 0;) {
    uintptr_t slot = atomic_load_explicit(&leaf->slots[at], memory_order_acquire);
    if (slot != 0) block = last_start(slot, below);
    below = (below >> SLOT_BITS << SLOT_BITS) - 1;
  }
  if (block == NULL) block = atomic_load_explicit(&leaf->cover, memory_order_acquire);
  return block != NULL && address - block->range.base < block->range.bytes ? block : NULL;
}
