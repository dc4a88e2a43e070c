/* SPDX-License-Identifier: Apache-2.0
 *
 * The index: three levels of tables, and chunks.
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

/* ---- adding */

_Static_assert(_Alignof(struct block) >= DZ_INDEX_CHUNK, "blocks leave as many bits as places need");
_Static_assert(sizeof(struct index_slot) == 64, "a slot is a cache line");

bool dz_index_supply(struct index *index, struct chunk **spare) {
  if (*spare == NULL) *spare = dz_slab_take(&index->chunk_slab);
  return *spare != NULL;
}

/* Tells the leaves that a block reaches into. */
static void set_cover(const struct index *index, const struct block *block, struct block *cover) {
  uint64_t last = (dz_range_end(&block->range) - 1) >> LEAF_BITS;
  for (uint64_t leaf = (block->range.base >> LEAF_BITS) + 1; leaf <= last; leaf++) {
    atomic_store_explicit(&dz_index_leaf(index, leaf << LEAF_BITS)->cover, cover, memory_order_release);
  }
}

static struct index_slot *slot_of(const struct index *index, const struct block *block) {
  return dz_index_slot(dz_index_leaf(index, block->range.base), block->range.base);
}

/* Where a slot has a block, or, if that is NULL, room for one; NULL: nowhere. */
static atomic_uintptr_t *start_of(struct index_slot *slot, const struct block *block) {
  for (unsigned i = 0; i < DZ_INDEX_STARTS; i++) {
    uintptr_t start = atomic_load_explicit(&slot->starts[i], memory_order_relaxed);
    if (dz_index_block_in(start) == block) return &slot->starts[i];
  }
  return NULL;
}

static void add_to_chunk(struct index_slot *slot, struct block *block, struct chunk **spare) {
  struct chunk *chunk = atomic_load_explicit(&slot->chunk, memory_order_relaxed);
  if (chunk == NULL) {
    chunk = *spare;
    assert(chunk != NULL);
    *spare = chunk->next;
    chunk->next = NULL;
    atomic_store_explicit(&slot->chunk, chunk, memory_order_release);
  }
  atomic_store_explicit(&chunk->starts[dz_index_place(block->range.base)], block, memory_order_release);
  chunk->count++;
}

void dz_index_add(struct index *index, struct block *block, struct chunk **spare) {
  struct index_slot *slot = slot_of(index, block);
  atomic_uintptr_t *start = start_of(slot, NULL);
  if (start != NULL)
    atomic_store_explicit(start, (uintptr_t)block | dz_index_place(block->range.base), memory_order_release);
  else
    add_to_chunk(slot, block, spare);
  set_cover(index, block, block);
}

/* ---- removing */

static void remove_from_chunk(struct index_slot *slot, const struct block *block, struct chunk **spare) {
  struct chunk *chunk = atomic_load_explicit(&slot->chunk, memory_order_relaxed);
  atomic_store_explicit(&chunk->starts[dz_index_place(block->range.base)], NULL, memory_order_release);
  if (--chunk->count > 0) return;
  atomic_store_explicit(&slot->chunk, NULL, memory_order_release);
  chunk->next = *spare;
  *spare = chunk;
}

void dz_index_remove(struct index *index, const struct block *block, struct chunk **spare) {
  struct index_slot *slot = slot_of(index, block);
  atomic_uintptr_t *start = start_of(slot, block);
  set_cover(index, block, NULL);
  if (start != NULL)
    atomic_store_explicit(start, 0, memory_order_release);
  else
    remove_from_chunk(slot, block, spare);
}

/* ---- finding */

/* A chunk that is looked into may have become another slot's: then all of its blocks had gone, the one that is looked for, if it
 * was in there, too. */
DZ_WITHOUT_LOCK struct block *dz_index_find_start(const struct index *index, uint64_t address) {
  struct block *block = dz_index_glance(index, address);
  return block != NULL && block->range.base == address ? block : NULL;
}

/* The last block that a slot has at an address or below; NULL: none. */
DZ_WITHOUT_LOCK static struct block *last_in(const struct index_slot *slot, uint64_t address) {
  int place = (int)dz_index_place(address);
  uintptr_t last = 0;
  for (unsigned i = 0; i < DZ_INDEX_STARTS; i++) {
    uintptr_t start = atomic_load_explicit(&slot->starts[i], memory_order_acquire);
    int at = (int)(start & DZ_INDEX_PLACE);
    if (start != 0 && at <= place && (last == 0 || at > (int)(last & DZ_INDEX_PLACE))) last = start;
  }
  struct chunk *chunk = atomic_load_explicit(&slot->chunk, memory_order_acquire);
  int above = last == 0 ? -1 : (int)(last & DZ_INDEX_PLACE);
  for (int at = place; chunk != NULL && at > above; at--) {
    struct block *block = atomic_load_explicit(&chunk->starts[at], memory_order_acquire);
    uint64_t base = (address >> SLOT_BITS << SLOT_BITS) + ((uint64_t)at << DZ_INDEX_UNIT_BITS);
    if (block != NULL && block->range.base == base) return block; /* else the chunk is another slot's by now */
  }
  return dz_index_block_in(last);
}

/* The last block of a slot that starts at or below an address; NULL: none. */
DZ_WITHOUT_LOCK static struct block *last_start(const struct index_slot *slot, uint64_t address) {
  struct block *block = last_in(slot, address);
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
