/* SPDX-License-Identifier: Apache-2.0
 *
 * Places for backups. Blocks in a row get places in a row, so that one copy serves them all.
 */
#include "sleep/reserve.h"

#include <inttypes.h>

#include "heap/backup.h"

/* ---- the blocks, one by one */

/* A sealed tag that has its backups has no block that wants one. */
static bool wants(const struct tag *tag) {
  return tag->action == DROWSE_OFFLOAD && tag->backup_bytes + tag->file_bytes < dz_tag_live_bytes(tag);
}

/* The first block of a tag behind another one, or its first, that wants a place; NULL: no more. */
static struct block *wanting_in(const struct tag *tag, const struct block *after) {
  struct block *block = dz_tag_live(tag, after);
  while (block != NULL && dz_block_is_backed_up(block)) block = dz_tag_live(tag, block);
  return block;
}

static struct block *first_from(const struct tag *tag) {
  struct block *block = NULL;
  for (; tag != NULL && block == NULL; tag = tag->op_next) block = wants(tag) ? wanting_in(tag, NULL) : NULL;
  return block;
}

static struct block *first_wanting(const struct drowse_op *op) {
  return first_from(op->tags);
}

static struct block *next_wanting(const struct block *block) {
  const struct tag *tag = dz_pool_of(block)->tag;
  struct block *next = wanting_in(tag, block);
  return next != NULL ? next : first_from(tag->op_next);
}

/* Block by block, as long as it is no more than most. */
static uint64_t wanted_bytes(const struct drowse_op *op, uint64_t most) {
  uint64_t bytes = 0;
  for (struct block *block = first_wanting(op); block != NULL; block = next_wanting(block)) {
    if (block->range.bytes <= most - bytes) bytes += block->range.bytes;
  }
  return bytes;
}

/* ---- in the arena */

static drowse_status no_metadata(void) {
  return dz_error(DROWSE_ERR_NO_HOST_MEMORY, "no memory for the metadata of backups");
}

static void give(struct block *block, struct range *space) {
  block->backup = space;
  block->is_new = true;
}

/* Gives the blocks from the first wanting one on what there is of a space, up to the first that does not fit or, if it is not
 * NULL, to end; what is left goes back. */
static drowse_status hand_out(struct drowse_op *op, struct block *block, const struct block *end, struct range *space) {
  struct arena *arena = &op->heap->arena;
  while (space != NULL && block != NULL && block != end && block->range.bytes <= space->bytes) {
    struct block *next = next_wanting(block);
    struct range *rest = space->bytes == block->range.bytes ? NULL : dz_arena_cut(arena, space, block->range.bytes);
    if (rest == NULL && space->bytes > block->range.bytes) {
      dz_arena_give(arena, space);
      return no_metadata();
    }
    give(block, space);
    space = rest;
    block = next;
  }
  if (space != NULL) dz_arena_give(arena, space);
  return DROWSE_OK;
}

/* Blocks of a tag in a row that all want a place: from first up to end. */
struct row {
  struct block *first, *end;
  uint64_t bytes;
};

static struct row row_from(struct block *first) {
  struct row row = {.first = first};
  struct block *block = first;
  uint64_t base = first->range.base;
  for (; block != NULL && block->segment == first->segment && block->range.base == base + row.bytes; block = next_wanting(block))
    row.bytes += block->range.bytes;
  row.end = block;
  return row;
}

/* What the arena has at hand: for whole rows where it can be, else for single blocks. */
static drowse_status take_at_hand(struct drowse_op *op) {
  struct arena *arena = &op->heap->arena;
  drowse_status status = DROWSE_OK;
  for (struct block *block = first_wanting(op); block != NULL && status == DROWSE_OK;) {
    struct row row = row_from(block);
    struct range *space = dz_arena_take(arena, row.bytes);
    block = row.end;
    if (space != NULL) {
      status = hand_out(op, row.first, row.end, space);
      continue;
    }
    for (struct block *single = row.first, *next; single != row.end; single = next) {
      next = next_wanting(single);
      space = dz_arena_take(arena, single->range.bytes);
      if (space != NULL) give(single, space);
    }
  }
  return status;
}

/* What is unused but too much in pieces goes first if the host has not as much more. Whatever of it cannot go, the growth says
 * what is missing. */
static drowse_status grow_by(struct arena *arena, uint64_t bytes, struct range **space) {
  drowse_status status = dz_arena_grow(arena, bytes, space);
  if (status != DROWSE_ERR_NO_HOST_MEMORY) return status;
  (void)dz_arena_trim(arena, 0);
  return dz_arena_grow(arena, bytes, space);
}

static drowse_status try_to_grow(struct drowse_op *op, uint64_t most) {
  drowse_status status = take_at_hand(op);
  uint64_t bytes = status == DROWSE_OK ? wanted_bytes(op, most) : 0;
  if (bytes == 0) return status;
  struct range *space;
  status = grow_by(&op->heap->arena, bytes, &space);
  if (status == DROWSE_OK) status = hand_out(op, first_wanting(op), NULL, space);
  return status == DROWSE_OK ? take_at_hand(op) : status;
}

/* most: by no more than that, and blocks that are too large for it get none; those behind them take what is left then. What is
 * missing may be what another thread is reserving. */
static drowse_status grow(struct drowse_op *op, uint64_t most) {
  struct arena *arena = &op->heap->arena;
  for (;;) {
    uint64_t reserves = dz_arena_reserves(arena);
    drowse_status status = try_to_grow(op, most);
    if (status != DROWSE_ERR_NO_HOST_MEMORY || !dz_arena_await_reserve(arena, reserves)) return status;
  }
}

/* What the host has not after all, or another operation has taken meanwhile, goes to the file. */
static drowse_status grow_if_it_can_be(struct drowse_op *op) {
  drowse_status status = grow(op, dz_arena_room(&op->heap->arena));
  return status == DROWSE_ERR_NO_HOST_MEMORY ? DROWSE_OK : status;
}

/* ---- in a file */

static uint64_t wanted_file_bytes(const struct drowse_op *op) {
  uint64_t bytes = 0;
  for (struct block *block = first_wanting(op); block != NULL; block = next_wanting(block))
    bytes += dz_file_extent_bytes(block->range.bytes);
  return bytes;
}

static drowse_status take_from_file(struct drowse_op *op) {
  uint64_t bytes = wanted_file_bytes(op);
  struct file *file;
  if (bytes == 0) return DROWSE_OK;
  drowse_status status = dz_file_make(op->directory, bytes, &file);
  if (status != DROWSE_OK) return status;
  for (struct block *block = first_wanting(op), *next; block != NULL && status == DROWSE_OK; block = next) {
    next = next_wanting(block);
    block->is_new = dz_block_file(block, file);
    if (!block->is_new) status = no_metadata();
  }
  dz_file_release(file);
  return status;
}

drowse_status dz_reserve_backups(struct drowse_op *op, uint64_t *bytes) {
  drowse_status status = DROWSE_OK;
  *bytes = wanted_bytes(op, UINT64_MAX);
  if (*bytes == 0) return DROWSE_OK;
  if (op->backup == DROWSE_BACKUP_HOST) status = grow(op, UINT64_MAX);
  if (op->backup == DROWSE_BACKUP_HOST_THEN_FILE) status = grow_if_it_can_be(op);
  if (op->backup != DROWSE_BACKUP_HOST && status == DROWSE_OK) status = take_from_file(op);
  return status;
}
