/* SPDX-License-Identifier: Apache-2.0
 *
 * Blocks: taking, cutting, joining, ending, and what sleep and wake make of them.
 */
#include "heap/block.h"

#include <assert.h>
#include <inttypes.h>

#include "heap/backup.h"
#include "heap/pending.h"
#include "heap/quick.h"

/* ---- finding */

static inline struct block *find(const drowse_heap *heap, uint64_t address, bool start) {
  return start ? dz_index_find_start(&heap->index, address) : dz_index_find(&heap->index, address);
}

/* Locks the pool whose an address is, which it stays while the lock is held; NULL: nobody's. */
static struct pool *lock_pool(const drowse_heap *heap, uint64_t address) {
  struct leaf *leaf = dz_index_leaf(&heap->index, address);
  struct pool *pool;
  while (leaf != NULL && (pool = dz_leaf_pool(leaf, address)) != NULL) {
    dz_pool_lock(pool);
    if (dz_leaf_pool(leaf, address) == pool) return pool;
    dz_pool_unlock(pool);
  }
  return NULL;
}

/* What was freed while its tag is in motion is live still, but in the index no more. */
struct block *dz_block_lock(drowse_heap *heap, uint64_t address, bool start) {
  struct pool *pool = lock_pool(heap, address);
  struct block *block = pool == NULL ? NULL : find(heap, address, start);
  if (pool != NULL && block == NULL) dz_pool_unlock(pool);
  return block;
}

DZ_WITHOUT_LOCK drowse_status dz_block_not_found(const drowse_heap *heap, const void *ptr) {
  uint64_t address = (uint64_t)(uintptr_t)ptr;
  const struct block *block = dz_index_find(&heap->index, address);
  uint64_t base = block == NULL ? address : block->range.base;
  if (base == address) return dz_error(DROWSE_ERR_NOT_FOUND, "%p is in no live block of this heap", ptr);
  return dz_error(DROWSE_ERR_NOT_FOUND, "%p is no block's start: it is %" PRIu64 " bytes into the block at %p", ptr,
                  address - base, (void *)(uintptr_t)base);
}

/* ---- neighbours */

/* Adds the block after kept to kept. Neither is in a bin. */
static void join_after(struct block *kept) {
  struct block *gone = dz_block_after(kept);
  if (gone->freed_at > kept->freed_at) kept->freed_at = gone->freed_at;
  kept->poisoned &= gone->poisoned;
  dz_range_join(&kept->range, &gone->range);
  dz_pool_give_node(dz_pool_of(kept), gone);
}

struct block *dz_block_cut(struct block *block, uint64_t address) {
  struct block *rest = dz_pool_take_node(dz_pool_of(block));
  rest->segment = block->segment;
  rest->state = block->state;
  rest->freed_at = block->freed_at;
  rest->poisoned = block->poisoned;
  dz_range_split(&block->range, address, &rest->range);
  return rest;
}

struct block *dz_block_cut_out(struct block *block, uint64_t base, uint64_t bytes) {
  struct bins *bins = &dz_pool_of(block)->free;
  if (base > block->range.base) {
    struct block *low = block;
    block = dz_block_cut(low, base);
    dz_bins_put(bins, &low->range);
  }
  if (block->range.bytes > bytes) dz_bins_put(bins, &dz_block_cut(block, base + bytes)->range);
  return block;
}

/* The bins in which a block is found; NULL: in none. */
static struct bins *bins_of(const struct block *block) {
  struct pool *pool = dz_pool_of(block);
  if (block->state == DZ_FREE) return &pool->free;
  if (block->state == DZ_HOLE) return &pool->holes;
  return block->state == DZ_STUCK ? &pool->stuck : NULL;
}

void dz_block_drop(struct block *block) {
  if (block->range.bin_before != NULL) dz_bins_drop(bins_of(block), &block->range);
}

struct block *dz_block_settle(struct block *block) {
  struct block *after = dz_block_after(block), *before = dz_block_before(block);
  if (after != NULL && after->state == block->state) {
    dz_block_drop(after);
    join_after(block);
  }
  if (before != NULL && before->state == block->state) {
    dz_block_drop(before);
    join_after(before);
    block = before;
  }
  struct bins *bins = bins_of(block);
  if (bins != NULL) dz_bins_put(bins, &block->range);
  return block;
}

/* ---- live blocks */

/* Blocks that were kept are joined with their neighbours where nothing else is large enough, and before a large block is cut:
 * what comes of it may fit better, and on the training traces of bench/ that is up to a twentieth of all memory. */
static struct block *find_free(struct pool *pool, uint64_t bytes) {
  struct range *range = dz_bins_find(&pool->free, bytes);
  if (range != NULL && ((pool->kind & DZ_SMALL) != 0 || range->bytes == bytes)) return dz_block_of(range);
  dz_pool_flush(pool);
  return dz_block_of(dz_bins_find(&pool->free, bytes));
}

struct block *dz_block_take(struct pool *pool, uint64_t asked, uint64_t alignment) {
  uint64_t bytes = dz_round_up(asked, DZ_UNIT);
  struct block *block = find_free(pool, bytes + alignment - DZ_UNIT);
  if (block == NULL) return NULL;
  dz_bins_drop(&pool->free, &block->range);
  block = dz_block_cut_out(block, dz_round_up(block->range.base, alignment), bytes);
  block->state = DZ_LIVE;
  block->slack = (uint16_t)(bytes - asked);
  dz_pool_count_live(pool, bytes);
  dz_index_add(&pool->tag->heap->index, block, &pool->spare_chunks);
  return block;
}

static void make_free(struct pool *pool, struct block *block, uint64_t freed_at) {
  block->freed_at = freed_at;
  dz_index_remove(&pool->tag->heap->index, block, &pool->spare_chunks);
  block->state = DZ_FREE;
  (void)dz_block_settle(block);
}

static index_entry *entry_of(const struct pool *pool, const struct kept *kept) {
  return dz_index_entry(&pool->tag->heap->index, kept->base);
}

static struct block *block_in(const index_entry *entry) {
  return dz_entry_block(atomic_load_explicit(entry, memory_order_relaxed));
}

void dz_quick_adapt(const struct pool *pool, const struct kept *kept, uint16_t slack) {
  index_entry *entry = entry_of(pool, kept);
  struct block *block = block_in(entry);
  block->slack = slack;
  atomic_store_explicit(entry, dz_entry_of(block), memory_order_relaxed);
}

static void flush(struct pool *pool, struct quick *quick) {
  while (quick->count > 0) make_free(pool, block_in(entry_of(pool, &quick->kept[--quick->count])), quick->freed_at);
}

void dz_pool_flush(struct pool *pool) {
  for (unsigned place = 0; place < DZ_QUICK_PLACES; place++) {
    for (unsigned way = 0; way < DZ_QUICK_WAYS; way++) flush(pool, &pool->quick[place][way]);
  }
}

/* The one of a size's place that makes way: one without blocks, or the one that got none for longer. */
static struct quick *victim_of(struct pool *pool, uint64_t bytes) {
  struct quick *first = dz_quick_place(pool, bytes), *second = first + 1;
  if (first->count == 0 || second->count == 0) return first->count == 0 ? first : second;
  return first->freed_at < second->freed_at ? first : second;
}

/* Gives a size its place, where those of another one make way; false: there is no room for its blocks. */
static bool make_place(struct pool *pool, struct quick *quick, uint64_t bytes) {
  flush(pool, quick);
  if (quick->kept == NULL) {
    quick->kept = pool->spare_kept;
    pool->spare_kept = NULL;
  }
  quick->bytes = quick->kept != NULL ? bytes : 0;
  return quick->kept != NULL;
}

/* Where there are enough of its size the block is a free one like others. */
void dz_block_end_unkept(struct pool *pool, struct index_spot spot) {
  struct block *block = block_in(spot.entry);
  uint64_t bytes = block->range.bytes;
  struct quick *quick = dz_quick_of(pool, bytes);
  bool enough = quick->bytes == bytes;
  if (!enough) quick = victim_of(pool, bytes);
  dz_pool_count_unused(pool, bytes);
  if (enough || !make_place(pool, quick, bytes))
    make_free(pool, block, pool->frees);
  else
    dz_quick_push(pool, quick, (struct kept){block->range.base, spot.keys, spot.bit, block->slack});
}

void dz_block_tie(struct block *block, bool tied) {
  if (block->tied == tied) return;
  block->tied = tied;
  dz_index_tie(&dz_pool_of(block)->tag->heap->index, block, tied);
}

void dz_block_hide(struct block *block) {
  struct pool *pool = dz_pool_of(block);
  assert(block->state == DZ_LIVE);
  dz_index_remove(&pool->tag->heap->index, block, &pool->spare_chunks);
}

static void make_hole(struct block *block) {
  block->state = DZ_HOLE;
  block->poisoned = false;
  (void)dz_block_settle(block);
}

void dz_block_end(struct block *block) {
  struct pool *pool = dz_pool_of(block);
  struct tag *tag = pool->tag;
  assert(block->state == DZ_LIVE);
  dz_pool_count_unused(pool, block->range.bytes);
  block->freed_at = pool->frees;
  dz_block_drop_backup(block);
  if (tag->state == DROWSE_ASLEEP) {
    dz_uses_drop(block);
    make_hole(block);
  } else if (block->uses != NULL) {
    block->state = DZ_PENDING;
    dz_pending_add(block);
  } else {
    block->state = DZ_FREE;
    (void)dz_block_settle(block);
  }
}

struct block *dz_segment_live(const struct segment *segment, const struct block *after) {
  struct block *block = after == NULL ? segment->first : dz_block_after(after);
  while (block != NULL && block->state != DZ_LIVE) block = dz_block_after(block);
  return block;
}

struct block *dz_tag_live(const struct tag *tag, const struct block *after) {
  const struct pool *pool = after == NULL ? tag->pools : after->segment->pool;
  const struct segment *segment = after == NULL ? NULL : after->segment;
  struct block *block = segment == NULL ? NULL : dz_segment_live(segment, after);
  for (; block == NULL && pool != NULL; pool = pool->next, segment = NULL) {
    segment = segment == NULL ? pool->segments : segment->next;
    for (; block == NULL && segment != NULL; segment = segment->next) block = dz_segment_live(segment, NULL);
  }
  return block;
}

bool dz_block_leave(struct block *leaving) {
  struct tag *tag = dz_pool_of(leaving)->tag;
  CUresult code = tag->heap->device.driver.MemUnmap(leaving->range.base, leaving->range.bytes);
  bool gone = code == CUDA_SUCCESS || (leaving->stuck && code == CUDA_ERROR_INVALID_VALUE); /* done by an earlier try after all */
  dz_lock(&tag->heap->lock);
  if (leaving->stuck != !gone) {
    uint64_t bytes = gone ? -leaving->range.bytes : leaving->range.bytes;
    tag->mapped_bytes += bytes;
    tag->stuck_bytes += bytes;
    leaving->stuck = !gone;
  }
  dz_unlock(&tag->heap->lock);
  return gone;
}

/* What is mapped twice goes from the place that it has left. */
static uint64_t unmap_leaving(struct pool *pool) {
  uint64_t stuck_bytes = 0;
  for (struct block **at = &pool->leaving; *at != NULL;) {
    struct block *block = *at;
    if (dz_block_leave(block)) {
      *at = block->freed_next;
      block->freed_next = NULL;
      dz_pool_lock(pool);
      make_hole(block);
      dz_pool_unlock(pool);
    } else {
      stuck_bytes += block->range.bytes;
      at = &block->freed_next;
    }
  }
  return stuck_bytes;
}

uint64_t dz_tag_unmap(struct tag *tag) {
  uint64_t stuck_bytes = 0;
  for (struct pool *pool = tag->pools; pool != NULL; pool = pool->next) {
    stuck_bytes += unmap_leaving(pool);
    for (struct segment *segment = pool->segments; segment != NULL; segment = segment->next) {
      stuck_bytes += dz_segment_unmap(segment, segment->base, segment->reserved);
    }
  }
  return stuck_bytes;
}

/* ---- sleep */

void dz_block_hollow(struct block *pending) {
  struct pool *pool = dz_pool_of(pending);
  dz_pool_lock(pool);
  dz_uses_drop(pending);
  make_hole(pending);
  dz_pool_unlock(pool);
}

static void hollow(struct bins *bins) {
  for (struct range *range = dz_bins_first(bins, 0); range != NULL; range = dz_bins_first(bins, 0)) {
    dz_bins_drop(bins, range);
    make_hole(dz_block_of(range));
  }
}

/* Nothing but one hole. */
static bool is_empty(const struct segment *segment) {
  return dz_segment_is_unmapped(segment) && segment->first->state == DZ_HOLE && segment->first->range.after == NULL;
}

static void free_segment(struct segment **at) {
  struct segment *segment = *at;
  *at = segment->next;
  dz_index_uncover(&segment->pool->tag->heap->index, segment->base, segment->reserved);
  dz_block_drop(segment->first);
  dz_segment_free(segment);
}

void dz_pool_sleep(struct pool *pool) {
  dz_pool_lock(pool);
  hollow(&pool->free);
  hollow(&pool->stuck);
  for (struct segment **at = &pool->segments; *at != NULL;) {
    if (is_empty(*at))
      free_segment(at);
    else
      at = &(*at)->next;
  }
  dz_pool_unlock(pool);
}

/* ---- wake */

/* Lists by gap_next. */
static struct block *merge(struct block *a, struct block *b) {
  struct block *merged, **end = &merged;
  while (a != NULL && b != NULL) {
    struct block **lower = a->range.base < b->range.base ? &a : &b;
    *end = *lower;
    end = &(*lower)->gap_next;
    *lower = *end;
  }
  *end = a != NULL ? a : b;
  return merged;
}

/* Sorts by address: one by one they are merged with lists of 1, 2, 4 and so on before them. */
static struct block *sort(struct block *list) {
  struct block *sorted[64] = {NULL}, *all = NULL; /* of 2^i blocks or none */
  while (list != NULL) {
    struct block *run = list;
    list = list->gap_next;
    run->gap_next = NULL;
    unsigned i = 0;
    for (; sorted[i] != NULL; sorted[i++] = NULL) run = merge(sorted[i], run);
    sorted[i] = run;
  }
  for (unsigned i = 0; i < sizeof sorted / sizeof *sorted; i++) all = merge(sorted[i], all);
  return all;
}

static void add_gap(struct block *block, struct block **list, size_t *count) {
  block->gap_next = *list;
  *list = block;
  ++*count;
}

/* Gives each segment those of a sorted list that are its own. */
static void deal_gaps(struct pool *pool, struct block *gaps) {
  for (struct segment *segment = pool->segments; segment != NULL; segment = segment->next) segment->gaps = NULL;
  for (struct block *block = gaps, *next; block != NULL; block = next) {
    next = block->gap_next;
    if (block->segment->gaps == NULL) block->segment->gaps = block;
    if (next != NULL && next->segment != block->segment) block->gap_next = NULL;
  }
}

/* What has left and could not be unmapped is none of the addresses that are mapped again. */
drowse_status dz_pool_find_gaps(struct pool *pool) {
  struct block *gaps = NULL;
  size_t count = 0;
  for (struct range *range = dz_bins_first(&pool->holes, 0); range != NULL; range = dz_bins_after(&pool->holes, range))
    add_gap(dz_block_of(range), &gaps, &count);
  for (struct block *block = pool->leaving; block != NULL; block = block->freed_next) add_gap(block, &gaps, &count);
  deal_gaps(pool, sort(gaps));
  return dz_pool_supply(pool, 2 * count);
}

bool dz_hole_inside(const struct block *hole, uint64_t *low, uint64_t *high) {
  uint64_t granularity = dz_pool_of(hole)->tag->heap->granularity;
  *low = hole->range.base;
  *high = dz_range_end(&hole->range);
  if (dz_block_before(hole) != NULL) *low = dz_round_up(*low, granularity);
  if (dz_block_after(hole) != NULL) *high = dz_round_down(*high, granularity);
  return *low < *high;
}

static void put(struct block *block, enum block_state state) {
  block->state = state;
  dz_bins_put(bins_of(block), &block->range);
}

/* A hole between live blocks has memory at its two ends, where extents of the live blocks reach into it, or all over, where they
 * meet. */
static void divide_hole(struct block *hole) {
  uint64_t low, high;
  dz_block_drop(hole);
  if (!dz_hole_inside(hole, &low, &high)) {
    put(hole, DZ_FREE);
    return;
  }
  if (low > hole->range.base) {
    struct block *rest = dz_block_cut(hole, low);
    put(hole, DZ_FREE);
    hole = rest;
  }
  if (high < dz_range_end(&hole->range)) put(dz_block_cut(hole, high), DZ_FREE);
  put(hole, dz_segment_touches_stuck(hole->segment, low, high - low) ? DZ_STUCK : DZ_HOLE);
}

void dz_pool_wake(struct pool *pool) {
  dz_pool_lock(pool);
  for (struct segment *segment = pool->segments; segment != NULL; segment = segment->next) {
    for (struct block *block = segment->gaps; block != NULL; block = block->gap_next) {
      if (block->state == DZ_HOLE) divide_hole(block);
    }
  }
  dz_pool_unlock(pool);
}

void dz_segment_free_if_empty(struct segment *segment) {
  if (!is_empty(segment)) return;
  struct segment **at = &segment->pool->segments;
  while (*at != segment) at = &(*at)->next;
  free_segment(at);
}
