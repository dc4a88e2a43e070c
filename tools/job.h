/* SPDX-License-Identifier: Apache-2.0
 *
 * What drowse cycle works on: tags, the files and sizes that fill them, and the blocks that these become.
 */
#ifndef DZ_JOB_H
#define DZ_JOB_H

#include <xxhash.h>

#include "tool.h"

struct tag {
  char *name;
  drowse_action action;
  uint64_t bytes;
  size_t blocks;
};

/* One operand of the command line. */
struct source {
  struct tag *tag;
  const char *path; /* NULL: no file, for a discarded tag */
  int fd;           /* open as long as the job is, so that a file that was renamed or removed is still there; -1: no file */
  uint64_t bytes;
  bool change_told; /* that the file is not what was loaded any more */
};

struct block {
  struct source *source;
  uint64_t offset; /* in the source */
  size_t bytes;
  void *ptr;
  XXH128_hash_t sum; /* of what was loaded from a file */
};

struct job {
  drowse_heap *heap;
  struct tag *tags; /* in the order of the command line */
  size_t tag_count;
  struct source *sources;
  size_t source_count;
  struct block *blocks; /* in the order of sources and offsets */
  size_t block_count;
  size_t block_room;
  uint64_t fills;        /* times that discarded tags were filled anew */
  unsigned char *memory; /* room for a block's contents as they are in device memory */
  unsigned char *wanted; /* ... and as they should be */
};

enum { DZ_BLOCK_MAX = 64 << 20 };

/* Parses operands and opens their files. EXIT_SUCCESS, or the program's exit status after saying why. The job is to be freed in
 * either case. */
int dz_job_parse(struct job *job, int count, char **operands);

/* Allocates every block, in its tag's scope, and fills it. job->heap is open. False, and says why. */
bool dz_job_load(struct job *job);

/* Frees every block, and tells if one could not be freed. */
bool dz_job_unload(struct job *job);

/* Frees all but the heap. */
void dz_job_free(struct job *job);

/* Whether the blocks of an awake tag are at their addresses, can be written and read, and hold every byte that they should;
 * discarded ones are written anew. *bad_blocks: how many are not right; each is told. False: it could not be checked, and says
 * why. */
bool dz_tag_check(struct job *job, struct tag *tag, size_t *bad_blocks);

#endif
