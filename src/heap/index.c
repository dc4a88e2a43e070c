/* SPDX-License-Identifier: Apache-2.0
 *
 * The index: three levels of tables, handfuls, and chunks.
 */
#include "heap/index.h"

#include <assert.h>

#include "heap/block.h"

enum { UNIT_BITS = 9, SLOT_BITS = 16, LEAF_BITS = 26, BRANCH_BITS = 36 };

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

/* ---- slots */

/* What a slot holds is told by its lowest bit or two; a block has none of them. */
#define IS_HANDFUL ((uintptr_t)1)
#define IS_CHUNK ((uintptr_t)2)
#define KINDS (IS_HANDFUL | IS_CHUNK)

/* In a handful a block's place is in its lowest bits. */
#define PLACE ((uintptr_t)DZ_INDEX_CHUNK - 1)
_Static_assert(_Alignof(struct block) >= DZ_INDEX_CHUNK, "blocks leave as many bits as places need");

static inline atomic_uintptr_t *slot_of(struct leaf *leaf, uint64_t address) {
  return &leaf->slots[part_of(address, SLOT_BITS, DZ_INDEX_FAN)];
}

static inline unsigned place_of(uint64_t address) {
  return part_of(address, UNIT_BITS, DZ_INDEX_CHUNK);
}

static inline struct handful *handful_in(uintptr_t slot) {
  return (slot & KINDS) == IS_HANDFUL ? (struct handful *)(slot & ~KINDS) : NULL;
}

static inline struct chunk *chunk_in(uintptr_t slot) {
  return (slot & KINDS) == IS_CHUNK ? (struct chunk *)(slot & ~KINDS) : NULL;
}

static inline struct block *block_in(uintptr_t start) {
  return (struct block *)(start & ~PLACE);
}

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
  atomic_store_explicit(&handful->starts[i], (uintptr_t)block | place_of(block->range.base), memory_order_release);
  return true;
}

static void add_to_chunk(struct chunk *chunk, struct block *block) {
  atomic_store_explicit(&chunk->starts[place_of(block->range.base)], block, memory_order_release);
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
  for (unsigned i = 0; i < DZ_INDEX_HANDFUL; i++) add_to_chunk(chunk, block_in(atomic_load(&handful->starts[i])));
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
    atomic_store_explicit(&leaf_of(index, leaf << LEAF_BITS)->cover, cover, memory_order_release);
  }
}

/* Adds a block to what a slot holds; returns what it holds then. */
static uintptr_t add_to(uintptr_t slot, struct block *block, struct supply *supply) {
  struct handful *handful = handful_in(slot);
  struct chunk *chunk = chunk_in(slot);
  if (slot == 0) return (uintptr_t)block;
  if (chunk == NULL && handful == NULL) handful = make_handful(supply, (struct block *)slot);
  if (handful != NULL && add_to_handful(handful, block)) return (uintptr_t)handful | IS_HANDFUL;
  if (chunk == NULL) chunk = make_chunk(supply, handful);
  add_to_chunk(chunk, block);
  return (uintptr_t)chunk | IS_CHUNK;
}

/* A handful that is left behind is emptied only when the slot has its chunk. */
void dz_index_add(struct index *index, struct block *block, struct supply *supply) {
  atomic_uintptr_t *slot = slot_of(leaf_of(index, block->range.base), block->range.base);
  uintptr_t before = atomic_load_explicit(slot, memory_order_relaxed), after = add_to(before, block, supply);
  atomic_store_explicit(slot, after, memory_order_release);
  if (handful_in(before) != NULL && chunk_in(after) != NULL) give_handful(supply, handful_in(before));
  set_cover(index, block, block);
}

/* ---- removing */

/* True: it has no block any more. */
static bool remove_from_handful(struct handful *handful, const struct block *block) {
  bool empty = true;
  for (unsigned i = 0; i < DZ_INDEX_HANDFUL; i++) {
    uintptr_t start = atomic_load_explicit(&handful->starts[i], memory_order_relaxed);
    if (block_in(start) == block) atomic_store_explicit(&handful->starts[i], 0, memory_order_release);
    empty &= start == 0 || block_in(start) == block;
  }
  return empty;
}

static bool remove_from_chunk(struct chunk *chunk, const struct block *block) {
  atomic_store_explicit(&chunk->starts[place_of(block->range.base)], NULL, memory_order_release);
  return --chunk->count == 0;
}

void dz_index_remove(struct index *index, const struct block *block, struct supply *supply) {
  atomic_uintptr_t *slot = slot_of(leaf_of(index, block->range.base), block->range.base);
  uintptr_t value = atomic_load_explicit(slot, memory_order_relaxed);
  struct handful *handful = handful_in(value);
  struct chunk *chunk = chunk_in(value);
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

static inline struct block *start_in_handful(const struct handful *handful, unsigned place) {
  for (unsigned i = 0; i < DZ_INDEX_HANDFUL; i++) {
    uintptr_t start = atomic_load_explicit(&handful->starts[i], memory_order_acquire);
    if ((start & PLACE) == place && start != 0) return block_in(start);
  }
  return NULL;
}

/* The block that a slot has at a place; NULL: none. */
static inline struct block *start_in(uintptr_t slot, unsigned place) {
  const struct handful *handful = handful_in(slot);
  if (handful != NULL) return start_in_handful(handful, place);
  const struct chunk *chunk = chunk_in(slot);
  return chunk == NULL ? (struct block *)slot : atomic_load_explicit(&chunk->starts[place], memory_order_acquire);
}

/* Until it was looked at a handful may have been left behind for a chunk and be another slot's; then the slot is another too. It
 * does not become what it was while a block stays in it, so that one that is there is found. */
static inline bool is_still(const atomic_uintptr_t *slot, uintptr_t value) {
  return handful_in(value) == NULL || atomic_load_explicit(slot, memory_order_acquire) == value;
}

DZ_WITHOUT_LOCK struct block *dz_index_find_start(const struct index *index, uint64_t address) {
  struct leaf *leaf = leaf_of(index, address);
  if (leaf == NULL) return NULL;
  const atomic_uintptr_t *slot = slot_of(leaf, address);
  uintptr_t value;
  struct block *block;
  do {
    value = atomic_load_explicit(slot, memory_order_acquire);
    block = start_in(value, place_of(address));
    if (block != NULL && block->range.base == address) return block;
  } while (!is_still(slot, value));
  return NULL;
}

static struct block *last_in_handful(const struct handful *handful, unsigned place) {
  uintptr_t last = 0;
  for (unsigned i = 0; i < DZ_INDEX_HANDFUL; i++) {
    uintptr_t start = atomic_load_explicit(&handful->starts[i], memory_order_acquire);
    if ((start & PLACE) <= place && (start & PLACE) >= (last & PLACE) && start != 0) last = start;
  }
  return block_in(last);
}

/* The last block that a slot has at a place or below; NULL: none. */
static struct block *last_in(uintptr_t slot, unsigned place) {
  const struct handful *handful = handful_in(slot);
  if (handful != NULL) return last_in_handful(handful, place);
  struct block *block = start_in(slot, place);
  while (block == NULL && chunk_in(slot) != NULL && place-- > 0) block = start_in(slot, place);
  return block;
}

/* The last block of a slot that starts at or below an address; NULL: none. */
DZ_WITHOUT_LOCK static struct block *last_start(const atomic_uintptr_t *slot, uint64_t address) {
  uintptr_t value;
  struct block *block;
  do {
    value = atomic_load_explicit(slot, memory_order_acquire);
    block = last_in(value, place_of(address));
  } while (!is_still(slot, value));
  return block == NULL || block->range.base > address ? NULL : block;
}

DZ_WITHOUT_LOCK struct block *dz_index_find(const struct index *index, uint64_t address) {
  const struct leaf *leaf = leaf_of(index, address);
  if (leaf == NULL) return NULL;
  struct block *block = NULL;
  uint64_t below = address;
  for (unsigned at = part_of(address, SLOT_BITS, DZ_INDEX_FAN) + 1; block == NULL && at-- > 0;) {
    block = last_start(&leaf->slots[at], below);
    below = (below >> SLOT_BITS << SLOT_BITS) - 1;
  }
  if (block == NULL) block = atomic_load_explicit(&leaf->cover, memory_order_acquire);
  return block != NULL && address - block->range.base < block->range.bytes ? block : NULL;
}
