/* SPDX-License-Identifier: Apache-2.0
 *
 * The contents of a job's blocks: loading them, and checking them after a wake.
 */
#include "config.h" /* files may be larger than an off_t without it */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "job.h"
#include "progress.h"

/* ---- loading */

/* Size of the blocks that a source is cut into: about four, of at least 4 MiB, at most DZ_BLOCK_MAX. */
static size_t block_bytes(uint64_t source_bytes) {
  enum { MIN = 4 << 20 };
  uint64_t quarter = source_bytes / 4 + 1;
  return quarter < MIN ? MIN : quarter > DZ_BLOCK_MAX ? DZ_BLOCK_MAX : (size_t)quarter;
}

static const char *source_name(const struct source *source) {
  return source->path == NULL ? "the pattern" : source->path;
}

static struct block *new_block(struct job *job) {
  if (job->block_count == job->block_room) {
    size_t room = job->block_room == 0 ? 64 : job->block_room * 2;
    struct block *blocks = realloc(job->blocks, room * sizeof *blocks);
    if (blocks == NULL) return NULL;
    job->blocks = blocks;
    job->block_room = room;
  }
  return &job->blocks[job->block_count];
}

/* Adds blocks for the whole source to the job, with the current frame. */
static bool allocate_blocks(struct job *job, struct source *source) {
  size_t most = block_bytes(source->bytes);
  for (uint64_t offset = 0; offset < source->bytes;) {
    uint64_t left = source->bytes - offset;
    struct block *block = new_block(job);
    if (block == NULL) {
      dz_say("no memory for the list of blocks");
      return false;
    }
    *block = (struct block){.source = source, .offset = offset, .bytes = left < most ? (size_t)left : most};
    if (drowse_alloc(job->heap, block->bytes, NULL, &block->ptr) != DROWSE_OK) {
      dz_say_last("allocating %s for %s, tag \"%s\"", dz_size(source->bytes).text, source_name(source), source->tag->name);
      return false;
    }
    job->block_count++;
    source->tag->blocks++;
    source->tag->bytes += block->bytes;
    offset += block->bytes;
  }
  return true;
}

static bool allocate_source(struct job *job, struct source *source) {
  bool done = false;
  drowse_status entered;
  DROWSE_SCOPE_TRY(entered, source->tag->name, DROWSE_EXPANDABLE_INHERIT) {
    done = allocate_blocks(job, source);
  }
  if (entered != DROWSE_OK) dz_say_last("entering a scope of the tag \"%s\"", source->tag->name);
  return done;
}

/* Reads bytes of the source's file at offset. Returns how many there were, or -1 with errno. */
static ssize_t read_file(const struct source *source, unsigned char *buffer, size_t bytes, uint64_t offset) {
  size_t done = 0;
  while (done < bytes) {
    ssize_t got = pread(source->fd, buffer + done, bytes - done, (off_t)(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return -1;
    if (got == 0) break;
    done += (size_t)got;
  }
  return (ssize_t)done;
}

/* A different pattern for every number, and different 8 bytes everywhere in it, so that no block can pass for another. */
static void fill_pattern(unsigned char *buffer, size_t bytes, uint64_t number) {
  uint64_t word = number * UINT64_C(0x9e3779b97f4a7c15);
  for (size_t at = 0; at < bytes; at += sizeof word, word += UINT64_C(0xd1b54a32d192ed03)) {
    size_t left = bytes - at;
    memcpy(buffer + at, &word, left < sizeof word ? left : sizeof word);
  }
}

/* A seed that no other block has, and that this one did not have in an earlier fill. */
static uint64_t seed(const struct job *job, const struct block *block) {
  return (job->fills << 32) + (uint64_t)(block - job->blocks) + 1;
}

/* Puts what a block is to hold into job->wanted. */
static bool make_contents(struct job *job, struct block *block) {
  const struct source *source = block->source;
  if (source->path == NULL) {
    fill_pattern(job->wanted, block->bytes, seed(job, block));
    return true;
  }
  ssize_t got = read_file(source, job->wanted, block->bytes, block->offset);
  if (got < 0)
    dz_say("%s: %s", source->path, strerror(errno));
  else if ((size_t)got < block->bytes)
    dz_say("%s: became shorter while it was read", source->path);
  else
    block->sum = XXH3_128bits(job->wanted, block->bytes);
  return got >= 0 && (size_t)got == block->bytes;
}

static bool load_block(struct job *job, struct block *block) {
  if (!make_contents(job, block)) return false;
  if (drowse_copy_in(job->heap, block->ptr, job->wanted, block->bytes) == DROWSE_OK) return true;
  dz_say_last("loading %s into the tag \"%s\"", source_name(block->source), block->source->tag->name);
  return false;
}

bool dz_job_load(struct job *job) {
  /* All is allocated before anything is read: a device that is too small shows at once. */
  for (size_t i = 0; i < job->source_count; i++) {
    if (!allocate_source(job, &job->sources[i])) return false;
  }
  uint64_t total = 0, done = 0;
  for (size_t i = 0; i < job->tag_count; i++) total += job->tags[i].bytes;
  dz_progress_begin("loading");
  bool loaded = true;
  for (size_t i = 0; i < job->block_count && loaded; i++) {
    loaded = load_block(job, &job->blocks[i]);
    done += job->blocks[i].bytes;
    dz_progress_show(done, total);
  }
  dz_progress_end();
  return loaded;
}

bool dz_job_unload(struct job *job) {
  bool whole = true;
  for (; job->block_count > 0; job->block_count--) {
    const struct block *block = &job->blocks[job->block_count - 1];
    if (drowse_free(job->heap, block->ptr) == DROWSE_OK) continue;
    if (whole) dz_say_last("freeing a block of the tag \"%s\"", block->source->tag->name);
    whole = false;
  }
  return whole;
}

/* ---- checking */

/* What is known of a block after looking at it. */
enum finding { RIGHT, WRONG, UNKNOWN };

static enum finding say_unknown(const struct block *block, const char *doing) {
  dz_say_last("%s the block %p of the tag \"%s\"", doing, block->ptr, block->source->tag->name);
  return UNKNOWN;
}

static enum finding check_place(struct job *job, const struct block *block) {
  drowse_block there = {.struct_size = sizeof there};
  const char *tag = block->source->tag->name;
  if (drowse_block_get(job->heap, block->ptr, &there) != DROWSE_OK) return say_unknown(block, "finding");
  if (there.base == block->ptr && there.bytes == block->bytes && strcmp(there.tag, tag) == 0) return RIGHT;
  dz_say("the block %p of the tag \"%s\" is now %p, %llu bytes, tag \"%s\"", block->ptr, tag, there.base,
         (unsigned long long)there.bytes, there.tag);
  return WRONG;
}

/* Writes another byte at offset, reads it again, and puts the first one back. */
static enum finding check_byte(struct job *job, const struct block *block, size_t offset) {
  unsigned char *at = (unsigned char *)block->ptr + offset;
  unsigned char before, other, after;
  if (drowse_copy_out(job->heap, &before, at, 1) != DROWSE_OK) return say_unknown(block, "reading");
  other = (unsigned char)~before;
  if (drowse_copy_in(job->heap, at, &other, 1) != DROWSE_OK) return say_unknown(block, "writing");
  if (drowse_copy_out(job->heap, &after, at, 1) != DROWSE_OK) return say_unknown(block, "reading");
  if (drowse_copy_in(job->heap, at, &before, 1) != DROWSE_OK) return say_unknown(block, "writing");
  if (after == other) return RIGHT;
  dz_say("byte %zu of the block %p of the tag \"%s\" does not keep what is written", offset, block->ptr,
         block->source->tag->name);
  return WRONG;
}

static size_t first_difference(const unsigned char *left, const unsigned char *right, size_t bytes) {
  size_t at = 0;
  while (at < bytes && left[at] == right[at]) at++;
  return at;
}

static void tell_change(struct source *source) {
  if (!source->change_told) dz_say("%s: is not the file that was loaded any more: checked against its checksum", source->path);
  source->change_told = true;
}

/* Compares job->memory with what was loaded. That is known by its checksum, because the file may have changed meanwhile: one that
 * has not must be the same byte by byte as well. */
static enum finding compare_file(struct job *job, const struct block *block) {
  struct source *source = block->source;
  ssize_t got = read_file(source, job->wanted, block->bytes, block->offset);
  bool all = got >= 0 && (size_t)got == block->bytes;
  bool same_file = all && XXH128_isEqual(XXH3_128bits(job->wanted, block->bytes), block->sum);
  bool same_sum = XXH128_isEqual(XXH3_128bits(job->memory, block->bytes), block->sum);
  if (!same_file) tell_change(source);
  if (same_sum && (!same_file || memcmp(job->memory, job->wanted, block->bytes) == 0)) return RIGHT;
  if (same_file) {
    dz_say("%s: byte %llu differs after waking, tag \"%s\"", source->path,
           (unsigned long long)block->offset + first_difference(job->memory, job->wanted, block->bytes), source->tag->name);
  } else {
    dz_say("%s: the %zu bytes from %llu differ after waking, tag \"%s\"", source->path, block->bytes,
           (unsigned long long)block->offset, source->tag->name);
  }
  return WRONG;
}

static enum finding compare_pattern(struct job *job, const struct block *block) {
  fill_pattern(job->wanted, block->bytes, seed(job, block));
  if (memcmp(job->memory, job->wanted, block->bytes) == 0) return RIGHT;
  dz_say("byte %zu of the block %p of the discarded tag \"%s\" does not keep what is written",
         first_difference(job->memory, job->wanted, block->bytes), block->ptr, block->source->tag->name);
  return WRONG;
}

static enum finding check_block(struct job *job, const struct block *block) {
  enum finding finding = check_place(job, block);
  if (finding == RIGHT) finding = check_byte(job, block, 0);
  if (finding == RIGHT) finding = check_byte(job, block, block->bytes - 1);
  if (finding != RIGHT) return finding;
  if (drowse_copy_out(job->heap, job->memory, block->ptr, block->bytes) != DROWSE_OK) return say_unknown(block, "reading");
  return block->source->path != NULL ? compare_file(job, block) : compare_pattern(job, block);
}

/* All blocks are written before the first is read again, so two that share memory would show. */
static bool rewrite_discarded(struct job *job, const struct tag *tag) {
  job->fills++;
  for (const struct block *block = job->blocks; block < job->blocks + job->block_count; block++) {
    if (block->source->tag != tag) continue;
    fill_pattern(job->wanted, block->bytes, seed(job, block));
    if (drowse_copy_in(job->heap, block->ptr, job->wanted, block->bytes) == DROWSE_OK) continue;
    say_unknown(block, "writing");
    return false;
  }
  return true;
}

bool dz_tag_check(struct job *job, struct tag *tag, size_t *bad_blocks) {
  *bad_blocks = 0;
  if (tag->action == DROWSE_DISCARD && !rewrite_discarded(job, tag)) return false;
  dz_progress_begin("checking");
  enum finding finding = RIGHT;
  uint64_t done = 0;
  for (size_t i = 0; i < job->block_count && finding != UNKNOWN; i++) {
    if (job->blocks[i].source->tag != tag) continue;
    finding = check_block(job, &job->blocks[i]);
    if (finding == WRONG) ++*bad_blocks;
    done += job->blocks[i].bytes;
    dz_progress_show(done, tag->bytes);
  }
  dz_progress_end();
  return finding != UNKNOWN;
}
