/* SPDX-License-Identifier: Apache-2.0
 *
 * The index: three levels of tables, handfuls, and chunks.
 */
#include "heap/index.h"

#include <assert.h>

#include "heap/block.h"

enum { SLOT_BITS = DZ_INDEX_SLOT_BITS, LEAF_BITS = DZ_INDEX_LEAF_BITS };

/* ---- tables */

static bool make_leaf(struct index *index, uint64_t address) {
  _Atomic(struct branch *) *at = &index->branches[dz_index_part(address, DZ_INDEX_BRANCH_BITS, DZ_INDEX_ROOT)];
  struct branch *branch = atomic_load_explicit(at, memory_order_relaxed);
  if (branch == NULL) {
    branch = dz_slab_take(&index->branch_slab);
    if (branch == NULL) return false;
    atomic_store_explicit(at, branch, memory_order_release);
  }
  struct leaf *leaf = dz_slab_take(&index->leaf_slab);
  if (leaf == NULL) return false;
  atomic_store_explicit(&branch->leaves[dz_index_part(address, LEAF_BITS, DZ_INDEX_FAN)], leaf, memory_order_release);
  return true;
}

bool dz_index_cover(struct index *index, uint64_t base, uint64_t bytes) {
  for (uint64_t leaf = base >> LEAF_BITS; leaf <= (base + bytes - 1) >> LEAF_BITS; leaf++) {
    if (dz_index_leaf(index, leaf << LEAF_BITS) == NULL && !make_leaf(index, leaf << LEAF_BITS)) return false;
  }
  return true;
}

/* ---- slots */

_Static_assert(_Alignof(struct block) >= DZ_INDEX_CHUNK, "blocks leave as many bits as places need");

bool dz_index_supply(struct index *index, struct supply *supply) {
  if (supply->handfuls == NULL) supply->handfuls = dz_slab_take(&index->handful_slab);
  if (supply->chunks == NULL) supply->chunks = dz_slab_take(&index->chunk_slab);
  return dz_index_is_supplied(supply);
}

/* ---- adding */

static bool add_to_handful(struct handful *handful, struct block *block) {
  unsigned i = 0;
  while (i < DZ_INDEX_HANDFUL && atomic_load_explicit(&handful->starts[i], memory_order_relaxed) != 0) i++;
  if (i == DZ_INDEX_HANDFUL) return false;
  atomic_store_explicit(&handful->starts[i], (uintptr_t)block | dz_index_place(block->range.base), memory_order_release);
  return true;
}

static void add_to_chunk(struct chunk *chunk, struct block *block) {
  atomic_store_explicit(&chunk->starts[dz_index_place(block->range.base)], block, memory_order_release);
  chunk->count++;
}

/* A second block starts in a slot's 64 KiB. */
static struct handful *make_handful(struct supply *supply, struct block *first) {
  struct handful *handful = supply->handfuls;
  assert(handful != NULL);
  supply->handfuls = handful->next;
  handful->next = NULL;
  (void)add_to_handful(handful, first);
  return handful;
}

/* One more than a handful. */
static struct chunk *make_chunk(struct supply *supply, struct handful *handful) {
  struct chunk *chunk = supply->chunks;
  assert(chunk != NULL);
  supply->chunks = chunk->next;
  chunk->next = NULL;
  for (unsigned i = 0; i < DZ_INDEX_HANDFUL; i++) add_to_chunk(chunk, dz_index_block_in(atomic_load(&handful->starts[i])));
  return chunk;
}

static void give_handful(struct supply *supply, struct handful *handful) {
  for (unsigned i = 0; i < DZ_INDEX_HANDFUL; i++) atomic_store_explicit(&handful->starts[i], 0, memory_order_release);
  handful->next = supply->handfuls;
  supply->handfuls = handful;
}

/* Tells the leaves that a block reaches into. */
static void set_cover(const struct index *index, const struct block *block, struct block *cover) {
  uint64_t last = (dz_range_end(&block->range) - 1) >> LEAF_BITS;
  for (uint64_t leaf = (block->range.base >> LEAF_BITS) + 1; leaf <= last; leaf++) {
    atomic_store_explicit(&dz_index_leaf(index, leaf << LEAF_BITS)->cover, cover, memory_order_release);
  }
}

/* Adds a block to what a slot holds; returns what it holds then. */
static uintptr_t add_to(uintptr_t slot, struct block *block, struct supply *supply) {
  struct handful *handful = dz_index_handful_in(slot);
  struct chunk *chunk = dz_index_chunk_in(slot);
  if (slot == 0) return (uintptr_t)block;
  if (chunk == NULL && handful == NULL) handful = make_handful(supply, (struct block *)slot);
  if (handful != NULL && add_to_handful(handful, block)) return (uintptr_t)handful | DZ_INDEX_IS_HANDFUL;
  if (chunk == NULL) chunk = make_chunk(supply, handful);
  add_to_chunk(chunk, block);
  return (uintptr_t)chunk | DZ_INDEX_IS_CHUNK;
}

/* A handful that is left behind is emptied only when the slot has its chunk. */
void dz_index_add(struct index *index, struct block *block, struct supply *supply) {
  atomic_uintptr_t *slot = dz_index_slot(dz_index_leaf(index, block->range.base), block->range.base);
  uintptr_t before = atomic_load_explicit(slot, memory_order_relaxed), after = add_to(before, block, supply);
  atomic_store_explicit(slot, after, memory_order_release);
  if (dz_index_handful_in(before) != NULL && dz_index_chunk_in(after) != NULL) give_handful(supply, dz_index_handful_in(before));
  set_cover(index, block, block);
}

/* ---- removing */

/* True: it has no block any more. */
static bool remove_from_handful(struct handful *handful, const struct block *block) {
  bool empty = true;
  for (unsigned i = 0; i < DZ_INDEX_HANDFUL; i++) {
    uintptr_t start = atomic_load_explicit(&handful->starts[i], memory_order_relaxed);
    if (dz_index_block_in(start) == block) atomic_store_explicit(&handful->starts[i], 0, memory_order_release);
    empty &= start == 0 || dz_index_block_in(start) == block;
  }
  return empty;
}

static bool remove_from_chunk(struct chunk *chunk, const struct block *block) {
  atomic_store_explicit(&chunk->starts[dz_index_place(block->range.base)], NULL, memory_order_release);
  return --chunk->count == 0;
}

void dz_index_remove(struct index *index, const struct block *block, struct supply *supply) {
  atomic_uintptr_t *slot = dz_index_slot(dz_index_leaf(index, block->range.base), block->range.base);
  uintptr_t value = atomic_load_explicit(slot, memory_order_relaxed);
  struct handful *handful = dz_index_handful_in(value);
  struct chunk *chunk = dz_index_chunk_in(value);
  set_cover(index, block, NULL);
  if (handful != NULL && !remove_from_handful(handful, block)) return;
  if (chunk != NULL && !remove_from_chunk(chunk, block)) return;
  atomic_store_explicit(slot, 0, memory_order_release);
  if (handful != NULL) give_handful(supply, handful);
  if (chunk != NULL) {
    chunk->next = supply->chunks;
    supply->chunks = chunk;
  }
}

/* ---- finding */

/* Until it was looked at a handful may have been left behind for a chunk and be another slot's; then the slot is another too. It
 * does not become what it was while a block stays in it, so that one that is there is found. */
static inline bool is_still(const atomic_uintptr_t *slot, uintptr_t value) {
  return dz_index_handful_in(value) == NULL || atomic_load_explicit(slot, memory_order_acquire) == value;
}

DZ_WITHOUT_LOCK struct block *dz_index_find_start(const struct index *index, uint64_t address) {
  struct leaf *leaf = dz_index_leaf(index, address);
  if (leaf == NULL) return NULL;
  const atomic_uintptr_t *slot = dz_index_slot(leaf, address);
  uintptr_t value;
  struct block *block;
  do {
    value = atomic_load_explicit(slot, memory_order_acquire);
    block = dz_index_in(value, dz_index_place(address));
    if (block != NULL && block->range.base == address) return block;
  } while (!is_still(slot, value));
  return NULL;
}

static struct block *last_in_handful(const struct handful *handful, unsigned place) {
  uintptr_t last = 0;
  for (unsigned i = 0; i < DZ_INDEX_HANDFUL; i++) {
    uintptr_t start = atomic_load_explicit(&handful->starts[i], memory_order_acquire);
    if ((start & DZ_INDEX_PLACE) <= place && (start & DZ_INDEX_PLACE) >= (last & DZ_INDEX_PLACE) && start != 0) last = start;
  }
  return dz_index_block_in(last);
}

/* The last block that a slot has at a place or below; NULL: none. */
static struct block *last_in(uintptr_t slot, unsigned place) {
  const struct handful *handful = dz_index_handful_in(slot);
  if (handful != NULL) return last_in_handful(handful, place);
  struct block *block = dz_index_in(slot, place);
  while (block == NULL && dz_index_chunk_in(slot) != NULL && place-- > 0) block = dz_index_in(slot, place);
  return block;
}

/* The last block of a slot that starts at or below an address; NULL: none. */
DZ_WITHOUT_LOCK static struct block *last_start(const atomic_uintptr_t *slot, uint64_t address) {
  uintptr_t value;
  struct block *block;
  do {
    value = atomic_load_explicit(slot, memory_order_acquire);
    block = last_in(value, dz_index_place(address));
  } while (!is_still(slot, value));
  return block == NULL || block->range.base > address ? NULL : block;
}

DZ_WITHOUT_LOCK struct block *dz_index_find(const struct index *index, uint64_t address) {
  const struct leaf *leaf = dz_index_leaf(index, address);
  if (leaf == NULL) return NULL;
  struct block *block = NULL;
  uint64_t below = address;
  for (unsigned at = dz_index_part(address, SLOT_BITS, DZ_INDEX_FAN) + 1; block == NULL && at-- > 0;) {
    block = last_start(&leaf->slots[at], below);
    below = (below >> SLOT_BITS << SLOT_BITS) - 1;
  }
  if (block == NULL) block = atomic_load_explicit(&leaf->cover, memory_order_acquire);
  return block != NULL && address - block->range.base < block->range.bytes ? block : NULL;
}
