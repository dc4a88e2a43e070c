/* SPDX-License-Identifier: Apache-2.0
 *
 * Backups of blocks: in the arena, or in a file. A block has at most one. It has none while its tag is awake, but for a sealed
 * tag, and always has one while its tag sleeps, unless its contents were discarded.
 */
#ifndef DZ_BACKUP_H
#define DZ_BACKUP_H

#include "backup/file.h"
#include "heap/block.h"

/* A backup's place in a file. */
struct filed {
  struct file_extent extent;
  struct filed *next;            /* of those that have been dropped */
  struct filed *after, **before; /* of all of the heap's */
};

static inline bool dz_block_is_backed_up(const struct block *block) {
  return block->backup != NULL || block->filed != NULL;
}

/* Gives a block without a backup a place in a file, which has room; false: no memory. Without locks. */
bool dz_block_file(struct block *block, struct file *file);

/* Drops a block's backup, which is counted in its tag. With both locks. */
void dz_block_drop_backup(struct block *block);

/* Drops the backups of a tag's live blocks, or only those that its operation has made. With the heap's lock, because other
 * streams' uses are noted meanwhile, and the pools closed. */
void dz_tag_drop_backups(struct tag *tag, bool only_new);

/* For an operation: keeps the backups that it has made, and counts them. */
void dz_tag_keep_backups(struct tag *tag);

/* A sealed tag wakes with its backups: sees to it that blocks are freed with them. For an operation. */
void dz_tag_tie_backups(struct tag *tag);

/* What the option backup_keep says, at the end of an operation; not while another one copies or grows, which does it then. The
 * guard entered, without locks. */
void dz_heap_trim_backups(drowse_heap *heap);

/* Closing a file takes time, so those that have gone are closed here. Without locks. */
void dz_heap_close_files(drowse_heap *heap);

/* In a forked child: closes the files that it has inherited, whose data is the parent's. */
void dz_heap_forget_files(drowse_heap *heap);

#endif
