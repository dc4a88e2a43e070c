/* SPDX-License-Identifier: Apache-2.0
 *
 * From an address to the live block that it lies in, in constant time and without a lock.
 *
 *   address   | 47 root 36 | 35 branch 26 | 25 leaf 16 | 15 chunk 9 | 8 0 |
 *
 * A leaf's slot is for the blocks that start in its 64 KiB: one cache line with an entry for six of them; where there are more,
 * until none of those is left, a chunk with an entry for each place, which is a multiple of 512 bytes, has the rest. So the index
 * takes a thousandth of what is mapped. Of very many blocks none is in a cache, so an entry also has what freeing its block and
 * giving it out again have to know, and neither looks at the block itself.
 *
 * Tables live as long as the heap and blocks' nodes stay blocks' nodes, so a reader at any moment reads something that is one; it
 * may be out of date by the time it is looked at, so that whoever acts on it has the pool's lock.
 */
#ifndef DZ_INDEX_H
#define DZ_INDEX_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/slab.h"

struct block;
struct pool;

/* For what looks at blocks without their pool's lock. */
#define DZ_WITHOUT_LOCK __attribute__((no_sanitize("thread")))

/* What lies behind is not for the index: UVA has addresses of 47 bits on x86-64, of 48 on aarch64. */
#define DZ_ADDRESS_END (UINT64_C(1) << 48)

enum { DZ_INDEX_ROOT = 4096, DZ_INDEX_FAN = 1024, DZ_INDEX_ENTRIES = 6, DZ_INDEX_CHUNK = 128, DZ_INDEX_POOLS = 32 };

/* A block, and what there is to know of it; 0: none.
 *
 *   | 63 tied | 62 units 48 | 47 node 7 | 6 place 0 |
 *
 * tied: other streams use it, or it has a backup, and freeing it takes more than the pool's lock. units: its size in units of 512
 * bytes, if all of them were asked for and they are fewer than 2^15; 0: the block tells. */
typedef _Atomic(uint64_t) index_entry;

#define DZ_ENTRY_PLACE ((uint64_t)DZ_INDEX_CHUNK - 1)
#define DZ_ENTRY_NODE ((UINT64_C(1) << 48) - DZ_INDEX_CHUNK)
#define DZ_ENTRY_TIED (UINT64_C(1) << 63)
enum { DZ_ENTRY_UNITS_LOW = 48, DZ_ENTRY_UNITS_END = 1 << 15 };

/* A byte for each of up to eight entries, so that all of them are looked through at once: the block's place, and in the top bit
 * whether it is plain: live, and tied to nothing. What is neither plain nor tied is kept (quick.h). */
typedef _Atomic(uint64_t) index_keys;

enum { DZ_KEY_PLAIN = 0x80, DZ_KEY_BITS = 8, DZ_INDEX_KEYS = 8 };

struct chunk {
  struct chunk *next; /* while it is spare */
  unsigned count;     /* of the entries */
  index_keys keys[DZ_INDEX_CHUNK / DZ_INDEX_KEYS];
  index_entry entries[DZ_INDEX_CHUNK];
};

struct index_slot {
  _Alignas(64) index_keys keys;
  index_entry entries[DZ_INDEX_ENTRIES];
  _Atomic(struct chunk *) chunk; /* NULL: no more than that */
};

struct leaf {
  struct index_slot slots[DZ_INDEX_FAN];
  _Atomic(struct pool *) pools[DZ_INDEX_POOLS]; /* whose the blocks in each 2 MiB are; NULL: nobody's */
  _Atomic(struct block *) cover;                /* that reaches into it from below; NULL: none */
};

struct branch {
  _Atomic(struct leaf *) leaves[DZ_INDEX_FAN];
};

struct index {
  _Atomic(struct branch *) branches[DZ_INDEX_ROOT];
  struct slab branch_slab, leaf_slab, chunk_slab; /* the heap's to begin and end */
};

/* Makes the tables for a range, which from now on is a pool's, until it is nobody's again. Ranges are of whole
 * DZ_INDEX_POOL_BYTES. The first with the heap's lock, false: no memory; the second with the pool's, too. */
bool dz_index_cover(struct index *index, uint64_t base, uint64_t bytes, struct pool *pool);
void dz_index_uncover(const struct index *index, uint64_t base, uint64_t bytes);

/* Sees to it that a pool has a spare chunk; false: no memory. With both locks. */
bool dz_index_supply(struct index *index, struct chunk **spare);

/* With the lock of the block's pool, whose spare chunks these are. Adding a block, which is plain, takes one at most. */
void dz_index_add(struct index *index, struct block *block, struct chunk **spare);
void dz_index_remove(struct index *index, const struct block *block, struct chunk **spare);

/* Notes of a live block whether it is tied, if it has not been removed already. With both locks, or for an operation with the
 * heap's. */
void dz_index_tie(const struct index *index, const struct block *block, bool tied);

/* The entry of the block, live or kept, that starts at an address; NULL: none. With its pool's lock. */
index_entry *dz_index_entry(const struct index *index, uint64_t address);

/* The entry of a block that nothing ties. */
uint64_t dz_entry_of(const struct block *block);

/* The live block that starts at an address, or that it lies in; NULL: none. */
struct block *dz_index_find_start(const struct index *index, uint64_t address);
struct block *dz_index_find(const struct index *index, uint64_t address);

/* ---- the usual case of finding a start, to be inlined */

enum {
  DZ_INDEX_UNIT_BITS = 9,
  DZ_INDEX_SLOT_BITS = 16,
  DZ_INDEX_POOL_BITS = 21,
  DZ_INDEX_LEAF_BITS = 26,
  DZ_INDEX_BRANCH_BITS = 36
};

/* Of pools' ranges; powers of two. Drivers for GPUs on PCIe have just this granularity. */
#define DZ_INDEX_POOL_BYTES (UINT64_C(1) << DZ_INDEX_POOL_BITS)

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

static inline unsigned dz_index_place(uint64_t address) {
  return dz_index_part(address, DZ_INDEX_UNIT_BITS, DZ_INDEX_CHUNK);
}

/* Whose the blocks at an address of a leaf are; NULL: nobody's. */
static inline struct pool *dz_leaf_pool(struct leaf *leaf, uint64_t address) {
  return atomic_load_explicit(&leaf->pools[dz_index_part(address, DZ_INDEX_POOL_BITS, DZ_INDEX_POOLS)], memory_order_acquire);
}

static inline struct block *dz_entry_block(uint64_t entry) {
  return (struct block *)(uintptr_t)(entry & DZ_ENTRY_NODE);
}

/* The size that an entry tells; 0: none. */
static inline uint64_t dz_entry_bytes(uint64_t entry) {
  return (entry >> DZ_ENTRY_UNITS_LOW & (DZ_ENTRY_UNITS_END - 1)) << DZ_INDEX_UNIT_BITS;
}

/* Where a block is in the index. */
struct index_spot {
  index_keys *keys;
  unsigned bit;       /* of the keys: its own DZ_KEY_PLAIN */
  index_entry *entry; /* NULL: nowhere */
};

static inline uint64_t dz_keys_repeat(uint64_t key) {
  return key * UINT64_C(0x0101010101010101);
}

/* The top bit of the first of eight keys that is the wanted one, and some above that mean nothing; 0: none is. Borrows of a
 * subtraction find the first byte that differs in nothing, without a branch: which it is cannot be foreseen, and after a wrong
 * guess all that follows would wait for keys that may come from far. */
static inline uint64_t dz_keys_find(uint64_t keys, uint64_t wanted) {
  uint64_t differs = keys ^ dz_keys_repeat(wanted);
  return (differs - dz_keys_repeat(1)) & ~differs & dz_keys_repeat(1 << (DZ_KEY_BITS - 1));
}

static inline struct index_spot dz_slot_spot(struct index_slot *slot, unsigned i) {
  return (struct index_spot){&slot->keys, i * DZ_KEY_BITS + DZ_KEY_BITS - 1, &slot->entries[i]};
}

static inline struct index_spot dz_chunk_spot(struct chunk *chunk, unsigned place) {
  unsigned i = place % DZ_INDEX_KEYS;
  return (struct index_spot){&chunk->keys[place / DZ_INDEX_KEYS], i * DZ_KEY_BITS + DZ_KEY_BITS - 1, &chunk->entries[place]};
}

static inline bool dz_spot_is_plain(struct index_spot spot) {
  return (atomic_load_explicit(spot.keys, memory_order_acquire) >> spot.bit & 1) != 0;
}

/* Where the plain block is that starts at an address of a leaf. With its pool's lock. */
static inline struct index_spot dz_leaf_find_plain(struct leaf *leaf, uint64_t address) {
  const struct index_spot none = {0};
  struct index_slot *slot = dz_index_slot(leaf, address);
  unsigned place = dz_index_place(address);
  uint64_t found = dz_keys_find(atomic_load_explicit(&slot->keys, memory_order_relaxed), place | DZ_KEY_PLAIN);
  if (found != 0) return dz_slot_spot(slot, (unsigned)__builtin_ctzll(found) / DZ_KEY_BITS);
  struct chunk *chunk = atomic_load_explicit(&slot->chunk, memory_order_relaxed);
  if (chunk == NULL) return none;
  struct index_spot spot = dz_chunk_spot(chunk, place);
  return dz_spot_is_plain(spot) ? spot : none;
}

/* Makes a kept block plain, or a plain one a kept one. With its pool's lock, which is what keeps others from the keys. */
static inline void dz_keys_flip(index_keys *keys, unsigned bit) {
  atomic_store_explicit(keys, atomic_load_explicit(keys, memory_order_relaxed) ^ UINT64_C(1) << bit, memory_order_relaxed);
}

#endif
