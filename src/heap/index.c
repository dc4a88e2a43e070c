/* SPDX-License-Identifier: Apache-2.0
 *
 * The index: three levels of tables, and chunks.
 */
#include "heap/index.h"

#include <assert.h>

#include "heap/block.h"

enum { SLOT_BITS = DZ_INDEX_SLOT_BITS, POOL_BITS = DZ_INDEX_POOL_BITS, LEAF_BITS = DZ_INDEX_LEAF_BITS };

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

/* Tells the leaf of an address whose the 2 MiB there are. */
static void set_pool(struct leaf *leaf, uint64_t address, struct pool *pool) {
  atomic_store_explicit(&leaf->pools[dz_index_part(address, POOL_BITS, DZ_INDEX_POOLS)], pool, memory_order_release);
}

static uint64_t next(uint64_t address, unsigned bits) {
  return ((address >> bits) + 1) << bits;
}

bool dz_index_cover(struct index *index, uint64_t base, uint64_t bytes, struct pool *pool) {
  uint64_t end = base + bytes;
  for (uint64_t address = base; address < end; address = next(address, LEAF_BITS)) {
    if (dz_index_leaf(index, address) == NULL && !make_leaf(index, address)) return false;
  }
  for (uint64_t address = base; address < end; address = next(address, POOL_BITS))
    set_pool(dz_index_leaf(index, address), address, pool);
  return true;
}

/* Most of a large range may never have been covered. */
void dz_index_uncover(const struct index *index, uint64_t base, uint64_t bytes) {
  for (uint64_t address = base, end = base + bytes; address < end;) {
    struct leaf *leaf = dz_index_leaf(index, address);
    if (leaf != NULL) set_pool(leaf, address, NULL);
    address = next(address, leaf != NULL ? POOL_BITS : LEAF_BITS);
  }
}

/* ---- adding */

_Static_assert(_Alignof(struct block) >= DZ_INDEX_CHUNK, "blocks leave as many bits as places need");
_Static_assert(sizeof(struct index_slot) == 64, "a slot is a cache line");
_Static_assert(DZ_INDEX_POOLS *DZ_INDEX_POOL_BYTES == UINT64_C(1) << LEAF_BITS, "a leaf knows the pools of all that it is for");

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

uint64_t dz_entry_of(const struct block *block) {
  uint64_t units = block->slack == 0 ? block->range.bytes >> DZ_INDEX_UNIT_BITS : 0;
  if (units >= DZ_ENTRY_UNITS_END) units = 0;
  return units << DZ_ENTRY_UNITS_LOW | (uintptr_t)block | dz_index_place(block->range.base);
}

static void set_key(struct index_spot spot, unsigned key) {
  unsigned low = spot.bit - (DZ_KEY_BITS - 1);
  uint64_t keys = atomic_load_explicit(spot.keys, memory_order_relaxed) & ~((uint64_t)UINT8_MAX << low);
  atomic_store_explicit(spot.keys, keys | (uint64_t)key << low, memory_order_release);
}

/* Where a slot's block with a place is, live or kept. */
static struct index_spot spot_at(struct index_slot *slot, unsigned place) {
  for (unsigned i = 0; i < DZ_INDEX_ENTRIES; i++) {
    uint64_t entry = atomic_load_explicit(&slot->entries[i], memory_order_acquire);
    if (entry != 0 && (entry & DZ_ENTRY_PLACE) == place) return dz_slot_spot(slot, i);
  }
  struct chunk *chunk = atomic_load_explicit(&slot->chunk, memory_order_acquire);
  if (chunk != NULL) return dz_chunk_spot(chunk, place);
  return (struct index_spot){0};
}

/* Where there is room for a block. */
static struct index_spot room_in(struct index_slot *slot, unsigned place, struct chunk **spare) {
  for (unsigned i = 0; i < DZ_INDEX_ENTRIES; i++) {
    if (atomic_load_explicit(&slot->entries[i], memory_order_relaxed) == 0) return dz_slot_spot(slot, i);
  }
  struct chunk *chunk = atomic_load_explicit(&slot->chunk, memory_order_relaxed);
  if (chunk == NULL) {
    chunk = *spare;
    assert(chunk != NULL);
    *spare = chunk->next;
    chunk->next = NULL;
    atomic_store_explicit(&slot->chunk, chunk, memory_order_release);
  }
  chunk->count++;
  return dz_chunk_spot(chunk, place);
}

void dz_index_add(struct index *index, struct block *block, struct chunk **spare) {
  unsigned place = dz_index_place(block->range.base);
  struct index_spot spot = room_in(slot_of(index, block), place, spare);
  atomic_store_explicit(spot.entry, dz_entry_of(block), memory_order_release);
  set_key(spot, place | DZ_KEY_PLAIN);
  set_cover(index, block, block);
}

/* ---- removing */

static void give_chunk_back(struct index_slot *slot, struct chunk **spare) {
  struct chunk *chunk = atomic_load_explicit(&slot->chunk, memory_order_relaxed);
  if (--chunk->count > 0) return;
  atomic_store_explicit(&slot->chunk, NULL, memory_order_release);
  chunk->next = *spare;
  *spare = chunk;
}

void dz_index_remove(struct index *index, const struct block *block, struct chunk **spare) {
  struct index_slot *slot = slot_of(index, block);
  struct index_spot spot = spot_at(slot, dz_index_place(block->range.base));
  set_cover(index, block, NULL);
  set_key(spot, 0);
  atomic_store_explicit(spot.entry, 0, memory_order_release);
  if (spot.keys != &slot->keys) give_chunk_back(slot, spare);
}

/* ---- ties */

/* A reader at any moment finds the block plain or tied. */
void dz_index_tie(const struct index *index, const struct block *block, bool tied) {
  unsigned place = dz_index_place(block->range.base);
  struct index_spot spot = spot_at(slot_of(index, block), place);
  uint64_t entry = spot.entry == NULL ? 0 : atomic_load_explicit(spot.entry, memory_order_relaxed);
  if (dz_entry_block(entry) != block) return;
  if (!tied) set_key(spot, place | DZ_KEY_PLAIN);
  atomic_store_explicit(spot.entry, tied ? entry | DZ_ENTRY_TIED : entry & ~DZ_ENTRY_TIED, memory_order_release);
  if (tied) set_key(spot, place);
}

/* ---- finding */

index_entry *dz_index_entry(const struct index *index, uint64_t address) {
  struct leaf *leaf = dz_index_leaf(index, address);
  if (leaf == NULL) return NULL;
  struct index_spot spot = spot_at(dz_index_slot(leaf, address), dz_index_place(address));
  return spot.entry == NULL || atomic_load_explicit(spot.entry, memory_order_relaxed) == 0 ? NULL : spot.entry;
}

/* The live block at a spot; NULL: none, or it is kept. The keys are looked at before and after the entry, because of ties. */
static struct block *live_at(struct index_spot spot) {
  if (spot.entry == NULL) return NULL;
  bool plain = dz_spot_is_plain(spot);
  uint64_t entry = atomic_load_explicit(spot.entry, memory_order_acquire);
  return plain || (entry & DZ_ENTRY_TIED) != 0 || dz_spot_is_plain(spot) ? dz_entry_block(entry) : NULL;
}

/* A chunk that is looked into may have become another slot's: then all of its blocks had gone, the one that is looked for, if it
 * was in there, too. */
DZ_WITHOUT_LOCK struct block *dz_index_find_start(const struct index *index, uint64_t address) {
  struct leaf *leaf = dz_index_leaf(index, address);
  if (leaf == NULL) return NULL;
  struct block *block = live_at(spot_at(dz_index_slot(leaf, address), dz_index_place(address)));
  return block != NULL && block->range.base == address ? block : NULL;
}

/* Where a slot has its last block, live or kept, that starts at an address or below. */
DZ_WITHOUT_LOCK static struct index_spot last_in(struct index_slot *slot, uint64_t address) {
  struct index_spot last = {0};
  int place = (int)dz_index_place(address), above = -1;
  for (unsigned i = 0; i < DZ_INDEX_ENTRIES; i++) {
    uint64_t entry = atomic_load_explicit(&slot->entries[i], memory_order_acquire);
    int at = (int)(entry & DZ_ENTRY_PLACE);
    if (entry == 0 || at > place || at <= above) continue;
    last = dz_slot_spot(slot, i);
    above = at;
  }
  struct chunk *chunk = atomic_load_explicit(&slot->chunk, memory_order_acquire);
  for (int at = place; chunk != NULL && at > above; at--) {
    const struct block *block = dz_entry_block(atomic_load_explicit(&chunk->entries[at], memory_order_acquire));
    uint64_t base = (address >> SLOT_BITS << SLOT_BITS) + ((uint64_t)at << DZ_INDEX_UNIT_BITS);
    if (block != NULL && block->range.base == base) return dz_chunk_spot(chunk, (unsigned)at); /* else another slot's by now */
  }
  return last;
}

/* The last block of a slot that starts at or below an address; NULL: none, or it is kept. */
DZ_WITHOUT_LOCK static struct block *last_start(struct index_slot *slot, uint64_t address) {
  struct block *block = live_at(last_in(slot, address));
  return block == NULL || block->range.base > address ? NULL : block;
}

/* The live block that reaches into a leaf from below; NULL: none. */
DZ_WITHOUT_LOCK static struct block *cover_of(const struct index *index, const struct leaf *leaf) {
  struct block *block = atomic_load_explicit(&leaf->cover, memory_order_acquire);
  return block == NULL ? NULL : dz_index_find_start(index, block->range.base);
}

/* Whoever has the pool's lock reads nothing of other pools: what contains the address has everything in between. */
DZ_WITHOUT_LOCK struct block *dz_index_find(const struct index *index, uint64_t address) {
  struct leaf *leaf = dz_index_leaf(index, address);
  if (leaf == NULL) return NULL;
  const struct pool *pool = dz_leaf_pool(leaf, address);
  struct block *block = NULL;
  uint64_t below = address;
  for (unsigned at = dz_index_part(address, SLOT_BITS, DZ_INDEX_FAN) + 1; block == NULL && at-- > 0;) {
    if (dz_leaf_pool(leaf, below) != pool) return NULL;
    block = last_start(&leaf->slots[at], below);
    below = (below >> SLOT_BITS << SLOT_BITS) - 1;
  }
  if (block == NULL) block = cover_of(index, leaf);
  return block != NULL && address - block->range.base < block->range.bytes ? block : NULL;
}
