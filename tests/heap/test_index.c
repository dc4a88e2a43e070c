/* SPDX-License-Identifier: Apache-2.0
 *
 * The index against an array of blocks that is searched from end to end: blocks of 512 bytes to tens of GiB come and go, several
 * in one 64 KiB, over the borders of tables, anywhere in the addresses that there are.
 */
#include "config.h"

#include <pthread.h>
#include <string.h>

#include "harness.h"
#include "heap/block.h"

#define KIB (UINT64_C(1) << 10)
#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

/* How many addresses a slot, a leaf and a branch of the index stand for. */
#define SLOT (64 * KIB)
#define LEAF (64 * MIB)
#define BRANCH (64 * GIB)

enum { BLOCKS = 300, ROUNDS = 8000, LOOKS = 8 };

static struct index tables;
static struct chunk *spare;
static struct block blocks[BLOCKS];
static bool live[BLOCKS], kept[BLOCKS], tied[BLOCKS]; /* kept: in the index, and nobody's */
static struct index_spot spots[BLOCKS];               /* where those that are kept are */
static struct pool owner, another;
static uint64_t state;

static void start(void) {
  memset(&tables, 0, sizeof tables);
  memset(blocks, 0, sizeof blocks);
  memset(live, 0, sizeof live);
  memset(kept, 0, sizeof kept);
  memset(tied, 0, sizeof tied);
  spare = NULL;
  state = 1;
  dz_slab_init(&tables.branch_slab, sizeof(struct branch));
  dz_slab_init(&tables.leaf_slab, sizeof(struct leaf));
  dz_slab_init(&tables.chunk_slab, sizeof(struct chunk));
}

static void finish(void) {
  dz_slab_end(&tables.branch_slab);
  dz_slab_end(&tables.leaf_slab);
  dz_slab_end(&tables.chunk_slab);
}

static uint64_t random_below(uint64_t bound) {
  uint64_t z = state += UINT64_C(0x9e3779b97f4a7c15);
  z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
  return (z ^ z >> 31) % bound;
}

/* ---- the array */

static struct block *search(uint64_t address) {
  for (int i = 0; i < BLOCKS; i++) {
    if (live[i] && !kept[i] && address - blocks[i].range.base < blocks[i].range.bytes) return &blocks[i];
  }
  return NULL;
}

static bool overlaps_one(uint64_t base, uint64_t bytes) {
  for (int i = 0; i < BLOCKS; i++) {
    if (live[i] && blocks[i].range.base < base + bytes && base < dz_range_end(&blocks[i].range)) return true;
  }
  return false;
}

/* ---- both */

static void add(int i, uint64_t base, uint64_t bytes) {
  blocks[i].range = (struct range){.base = base, .bytes = bytes};
  blocks[i].slack = random_below(2) == 0 ? 0 : (uint16_t)random_below(DZ_UNIT);
  live[i] = true;
  kept[i] = tied[i] = false;
  ck_assert(dz_index_cover(&tables, base, bytes, &owner));
  ck_assert(dz_index_supply(&tables, &spare));
  dz_index_add(&tables, &blocks[i], &spare);
}

static void drop(int i) {
  dz_index_remove(&tables, &blocks[i], &spare);
  live[i] = kept[i] = false;
}

static void ck_same(uint64_t address) {
  struct block *expected = search(address);
  ck_assert_msg(dz_index_find(&tables, address) == expected, "address %#llx", (unsigned long long)address);
  if (expected != NULL && expected->range.base != address) expected = NULL;
  ck_assert_msg(dz_index_find_start(&tables, address) == expected, "start %#llx", (unsigned long long)address);
}

static struct index_spot plain_at(uint64_t address) {
  struct leaf *leaf = dz_index_leaf(&tables, address);
  return leaf == NULL ? (struct index_spot){0} : dz_leaf_find_plain(leaf, address);
}

/* Gives a block, which nothing ties, back to be kept, or takes it again. */
static void keep(int i, bool keeps) {
  struct index_spot spot = kept[i] ? spots[i] : plain_at(blocks[i].range.base);
  ck_assert_ptr_nonnull(spot.entry);
  ck_assert(dz_entry_block(*spot.entry) == &blocks[i]);
  if (kept[i] != keeps) dz_keys_flip(spot.keys, spot.bit);
  spots[i] = spot;
  kept[i] = keeps;
}

static void tie(int i, bool ties) {
  dz_index_tie(&tables, &blocks[i], ties);
  tied[i] = ties;
}

/* The entry of a block tells what freeing it has to know. */
static void ck_entry(int i) {
  index_entry *entry = dz_index_entry(&tables, blocks[i].range.base);
  struct index_spot plain = plain_at(blocks[i].range.base);
  ck_assert_ptr_nonnull(entry);
  ck_assert(dz_entry_block(*entry) == &blocks[i]);
  ck_assert(plain.entry == (kept[i] || tied[i] ? NULL : entry));
  bool exact = blocks[i].slack == 0 && blocks[i].range.bytes < DZ_UNIT * DZ_ENTRY_UNITS_END;
  ck_assert_uint_eq(dz_entry_bytes(*entry), exact ? blocks[i].range.bytes : 0);
}

static void ck_around(uint64_t address) {
  for (uint64_t by = 1; by <= SLOT; by *= 4) {
    ck_same(address - by);
    ck_same(address + by);
  }
  ck_same(address);
}

/* ---- random blocks */

/* Far from one another, at both ends of the addresses, and reaching over where branches meet. */
static const uint64_t zones[] = {0x10000, 5 * BRANCH - GIB, UINT64_C(0x7f0000000000), DZ_ADDRESS_END - 150 * GIB};
enum { ZONES = sizeof zones / sizeof *zones };

/* Each power of two from 512 bytes to 32 GiB is as likely as any other. */
static uint64_t random_bytes(void) {
  uint64_t most = UINT64_C(1) << (1 + random_below(27));
  return DZ_UNIT * (1 + random_below(most));
}

/* Anywhere in a zone, near a border of tables, or beside another block. */
static uint64_t random_base(void) {
  uint64_t zone = zones[random_below(ZONES)], any = zone + DZ_UNIT * random_below(64 * GIB / DZ_UNIT);
  int other = (int)random_below(BLOCKS);
  switch (random_below(4)) {
  case 0:
    return any;
  case 1:
    return dz_round_up(any, LEAF) - DZ_UNIT * random_below(4);
  case 2:
    return live[other] ? dz_range_end(&blocks[other].range) + DZ_UNIT * random_below(3) : any;
  default:
    return live[other] ? dz_round_down(blocks[other].range.base, SLOT) + DZ_UNIT * random_below(SLOT / DZ_UNIT) : any;
  }
}

static void add_random(int i) {
  uint64_t base = random_base(), bytes = random_bytes();
  if (base + bytes <= DZ_ADDRESS_END && !overlaps_one(base, bytes)) add(i, base, bytes);
}

static void ck_one(const struct block *block) {
  uint64_t base = block->range.base, bytes = block->range.bytes, end = base + bytes;
  ck_same(base);
  ck_same(base - 1);
  ck_same(base + 1);
  ck_same(end - 1);
  ck_same(end);
  ck_same(base + random_below(bytes));
  ck_same(dz_round_down(end - 1, LEAF)); /* the border nearest to its end, which it may reach over */
  ck_same(dz_round_down(end - 1, SLOT));
}

static void change(int i) {
  if (!live[i])
    add_random(i);
  else if (random_below(2) == 0)
    drop(i);
  else if (random_below(2) == 0 && !kept[i])
    tie(i, !tied[i]);
  else if (!tied[i])
    keep(i, !kept[i]);
  if (live[i]) ck_entry(i);
}

static void run_rounds(void) {
  for (int round = 0; round < ROUNDS; round++) {
    int i = (int)random_below(BLOCKS);
    change(i);
    i = (int)random_below(BLOCKS);
    if (blocks[i].range.bytes > 0) ck_one(&blocks[i]); /* or one that was there once */
    for (int look = 0; look < LOOKS; look++) ck_same(random_base());
  }
}

static void drop_all(void) {
  for (int i = 0; i < BLOCKS; i++) {
    if (live[i]) drop(i);
  }
  for (int i = 0; i < BLOCKS; i++) ck_one(&blocks[i]);
}

START_TEST(random_blocks_are_found_as_the_array_finds_them) {
  run_rounds();
  int count = 0;
  for (int i = 0; i < BLOCKS; i++) count += live[i];
  ck_assert_int_gt(count, BLOCKS / 4);
  drop_all();
}
END_TEST

START_TEST(what_has_gone_leaves_nothing_behind) {
  run_rounds();
  drop_all();
  size_t branches = tables.branch_slab.page_bytes, leaves = tables.leaf_slab.page_bytes;
  size_t chunk_bytes = tables.chunk_slab.page_bytes;
  memset(blocks, 0, sizeof blocks);
  state = 1; /* the same once more */
  run_rounds();
  drop_all();
  ck_assert_uint_eq(tables.branch_slab.page_bytes, branches);
  ck_assert_uint_eq(tables.leaf_slab.page_bytes, leaves);
  ck_assert_uint_eq(tables.chunk_slab.page_bytes, chunk_bytes);
}
END_TEST

/* ---- what is where by design */

START_TEST(every_unit_of_a_slot_can_have_a_block) {
  const uint64_t base = UINT64_C(0x7f1234560000);
  for (int i = 0; i < DZ_INDEX_CHUNK; i++) add(i, base + (uint64_t)i * DZ_UNIT, DZ_UNIT);
  for (uint64_t at = 0; at < SLOT; at += DZ_UNIT / 2) ck_same(base + at);
  for (int i = 0; i < DZ_INDEX_CHUNK; i += 2) drop(i);
  for (uint64_t at = 0; at < SLOT; at += DZ_UNIT / 2) ck_same(base + at);
  for (int i = 1; i < DZ_INDEX_CHUNK; i += 2) drop(i);
  ck_around(base);
  add(0, base + SLOT - DZ_UNIT, 2 * DZ_UNIT);
  ck_around(base + SLOT);
}
END_TEST

START_TEST(a_block_reaches_over_leaves_and_branches) {
  const uint64_t border = 3 * BRANCH, base = border - LEAF - 3 * DZ_UNIT;
  add(0, base, 40 * GIB);
  for (uint64_t leaf = dz_round_up(base, LEAF); leaf < base + 40 * GIB; leaf += LEAF) {
    ck_same(leaf);
    ck_same(leaf + LEAF - 1);
  }
  ck_around(border);
  ck_around(base);
  ck_around(base + 40 * GIB);
  add(1, base + 40 * GIB, DZ_UNIT);
  add(2, base - DZ_UNIT, DZ_UNIT);
  ck_around(base);
  ck_around(base + 40 * GIB);
  drop(0);
  ck_around(border);
  ck_around(base);
  ck_around(base + 40 * GIB);
  add(0, border, LEAF); /* one whole leaf, and nobody reaches into the next */
  ck_around(border);
  ck_around(border + LEAF);
}
END_TEST

START_TEST(addresses_without_tables_have_no_block) {
  static const uint64_t addresses[] = {0,         1, DZ_UNIT, BRANCH, DZ_ADDRESS_END - 1, DZ_ADDRESS_END, DZ_ADDRESS_END + LEAF,
                                       UINT64_MAX};
  enum { ADDRESSES = sizeof addresses / sizeof *addresses };
  for (int i = 0; i < ADDRESSES; i++) ck_same(addresses[i]);
  add(0, DZ_ADDRESS_END - LEAF, LEAF);
  add(1, DZ_UNIT, DZ_UNIT);
  for (int i = 0; i < ADDRESSES; i++) ck_same(addresses[i]);
  ck_assert_ptr_eq(dz_index_find(&tables, DZ_ADDRESS_END - 1), &blocks[0]);
  ck_assert_ptr_eq(dz_index_find_start(&tables, DZ_UNIT), &blocks[1]);
}
END_TEST

/* Neither by its start nor by an address inside it, in its first leaf or in those that it reaches into. */
START_TEST(what_is_kept_is_nobodys) {
  const uint64_t base = UINT64_C(0x7f1234560000);
  add(0, base, 3 * LEAF);
  add(1, base + 3 * LEAF, DZ_UNIT);
  for (int i = 0; i < 2; i++) {
    keep(i, true);
    ck_around(base);
    ck_around(base + LEAF);
    ck_around(base + 3 * LEAF);
    keep(i, false);
  }
  for (int i = 2; i < 40; i++) add(i, base + 3 * LEAF + (uint64_t)i * DZ_UNIT, DZ_UNIT); /* more than a slot has room for */
  for (int i = 1; i < 40; i += 2) keep(i, true);
  for (int i = 2; i < 40; i += 3) {
    if (!kept[i]) tie(i, true);
  }
  ck_around(base + 3 * LEAF);
  for (int i = 1; i < 40; i++) ck_entry(i);
  for (int i = 1; i < 40; i += 2) keep(i, false);
  for (int i = 2; i < 40; i++) tie(i, false);
  for (int i = 1; i < 40; i++) ck_entry(i);
}
END_TEST

START_TEST(a_range_is_its_pools_until_it_is_nobodys) {
  const uint64_t base = 2 * BRANCH - 3 * DZ_INDEX_POOL_BYTES, bytes = 5 * DZ_INDEX_POOL_BYTES;
  ck_assert(dz_index_cover(&tables, base, bytes, &owner));
  for (uint64_t at = base - LEAF; at < base + bytes + LEAF; at += DZ_INDEX_POOL_BYTES / 2) {
    struct leaf *leaf = dz_index_leaf(&tables, at);
    ck_assert_ptr_eq(leaf == NULL ? NULL : dz_leaf_pool(leaf, at), at - base < bytes ? &owner : NULL);
  }
  dz_index_uncover(&tables, base - 10 * LEAF, bytes + 20 * LEAF);
  for (uint64_t at = base; at < base + bytes; at += DZ_INDEX_POOL_BYTES)
    ck_assert_ptr_null(dz_leaf_pool(dz_index_leaf(&tables, at), at));
}
END_TEST

/* Whoever looks has the lock of the address's pool alone, so what another pool's block looks like just then counts for nothing.
 */
START_TEST(a_block_of_another_pool_is_not_looked_at) {
  const uint64_t base = UINT64_C(0x7f1234600000);
  add(0, base, DZ_INDEX_POOL_BYTES);
  ck_assert(dz_index_cover(&tables, base + DZ_INDEX_POOL_BYTES, DZ_INDEX_POOL_BYTES, &another));
  blocks[0].range.bytes = 4 * DZ_INDEX_POOL_BYTES; /* its node is becoming another block's */
  ck_assert_ptr_eq(dz_index_find(&tables, base + DZ_INDEX_POOL_BYTES - 1), &blocks[0]);
  ck_assert_ptr_null(dz_index_find(&tables, base + DZ_INDEX_POOL_BYTES));
  ck_assert_ptr_null(dz_index_find(&tables, base + 2 * DZ_INDEX_POOL_BYTES - 1));
  blocks[0].range.bytes = DZ_INDEX_POOL_BYTES;
}
END_TEST

/* ---- readers take no lock */

enum { WRITES = 100000 };

static atomic_bool written;
static atomic_int missed;

/* Blocks 0 and 1 live all the time. */
static void *read_on(void *nothing) {
  while (!atomic_load(&written)) {
    const struct block *small = &blocks[0], *large = &blocks[1];
    bool found = dz_index_find_start(&tables, small->range.base) == small &&
                 dz_index_find(&tables, small->range.base + 5) == small &&
                 dz_index_find_start(&tables, large->range.base) == large &&
                 dz_index_find(&tables, dz_range_end(&large->range) - 1) == large &&
                 dz_index_find(&tables, large->range.base + LEAF) == large;
    if (!found) atomic_fetch_add(&missed, 1);
  }
  return nothing;
}

START_TEST(readers_find_a_live_block_whatever_its_neighbours_do) {
  pthread_t readers[2];
  const uint64_t base = UINT64_C(0x7f1234560000);
  atomic_store(&written, false);
  atomic_store(&missed, 0);
  add(0, base + 16 * DZ_UNIT, DZ_UNIT);
  add(1, base + 64 * DZ_UNIT, 2 * LEAF); /* the two are in one slot, and what comes after the second in its last one */
  for (int i = 0; i < 2; i++) ck_assert_int_eq(pthread_create(&readers[i], NULL, read_on, NULL), 0);
  for (int write = 0; write < WRITES; write++) {
    int i = 2 + (int)random_below(100);
    if (live[i]) {
      drop(i);
    } else {
      uint64_t at =
          random_below(2) == 0 ? base + DZ_UNIT * random_below(64) : base + 2 * LEAF + DZ_UNIT * (64 + random_below(64));
      if (!overlaps_one(at, DZ_UNIT)) add(i, at, DZ_UNIT);
    }
  }
  atomic_store(&written, true);
  for (int i = 0; i < 2; i++) ck_assert_int_eq(pthread_join(readers[i], NULL), 0);
  ck_assert_int_eq(missed, 0);
}
END_TEST

static void *read_inside(void *nothing) {
  const uint64_t address = dz_range_end(&blocks[0].range) - DZ_UNIT;
  while (!atomic_load(&written)) {
    if (dz_index_find(&tables, address) != &blocks[0]) atomic_fetch_add(&missed, 1);
  }
  return nothing;
}

static void come_and_go(struct block *block, uint64_t base) {
  block->range = (struct range){.base = base, .bytes = DZ_UNIT};
  dz_index_add(&tables, block, &spare);
  dz_index_remove(&tables, block, &spare);
}

/* A slot's chunk goes to the slot beside it and back, while readers look for a block that is in neither. */
START_TEST(readers_take_no_other_slots_chunk_for_the_one_they_look_into) {
  const uint64_t base = UINT64_C(0x7f1234560000);
  pthread_t reader;
  atomic_store(&written, false);
  atomic_store(&missed, 0);
  add(0, base, SLOT / 2);
  for (int i = 1; i < DZ_INDEX_ENTRIES; i++) add(i, base + SLOT / 2 + (uint64_t)i * DZ_UNIT, DZ_UNIT);
  for (int i = 0; i < DZ_INDEX_ENTRIES; i++) add(10 + i, base + SLOT + SLOT / 2 + (uint64_t)i * DZ_UNIT, DZ_UNIT);
  ck_assert_int_eq(pthread_create(&reader, NULL, read_inside, NULL), 0);
  ck_assert(dz_index_supply(&tables, &spare));
  for (int write = 0; write < 50 * WRITES; write++) {
    come_and_go(&blocks[20], base + SLOT - DZ_UNIT);
    come_and_go(&blocks[20], base + SLOT + 40 * DZ_UNIT); /* at a place that the first block covers in its own slot */
  }
  atomic_store(&written, true);
  ck_assert_int_eq(pthread_join(reader, NULL), 0);
  ck_assert_int_eq(missed, 0);
}
END_TEST

#define INDEX_TEST(suite, test) HARNESS_FIXTURE_TEST(suite, test, start, finish)

int main(void) {
  Suite *suite = suite_create("index");
  INDEX_TEST(suite, random_blocks_are_found_as_the_array_finds_them);
  INDEX_TEST(suite, what_has_gone_leaves_nothing_behind);
  INDEX_TEST(suite, every_unit_of_a_slot_can_have_a_block);
  INDEX_TEST(suite, a_block_reaches_over_leaves_and_branches);
  INDEX_TEST(suite, addresses_without_tables_have_no_block);
  INDEX_TEST(suite, what_is_kept_is_nobodys);
  INDEX_TEST(suite, a_range_is_its_pools_until_it_is_nobodys);
  INDEX_TEST(suite, a_block_of_another_pool_is_not_looked_at);
  INDEX_TEST(suite, readers_find_a_live_block_whatever_its_neighbours_do);
  INDEX_TEST(suite, readers_take_no_other_slots_chunk_for_the_one_they_look_into);
  return harness_run(suite);
}
