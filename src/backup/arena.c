/* SPDX-License-Identifier: Apache-2.0
 *
 * The arena is a list of chunks. A chunk is one anonymous mapping: huge pages asked for, hidden from forked children before it is
 * pinned (a fork would copy every pinned page), populated, then registered with the driver. Spaces are cut out of chunks as
 * blocks are out of segments.
 */
#include "backup/arena.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/mman.h>

#include "backup/hostmem.h"
#include "core/error.h"
#include "core/log.h"

static const uint64_t page_bytes = 4096;
static const uint64_t huge_page_bytes = UINT64_C(2) << 20; /* of x86-64, and of arm64 with 4 KiB pages */

/* A space is a range and whether it is in use. */
struct space {
  struct range range; /* first: a space is handed out as its range */
  bool used;
};

struct chunk {
  struct chunk *next;
  void *memory;
  uint64_t bytes;
  bool pinned;
};

int dz_arena_init(struct arena *arena, const struct driver *driver, uint64_t limit) {
  *arena = (struct arena){.driver = driver, .limit = limit};
  size_t node = sizeof(struct space) > sizeof(struct chunk) ? sizeof(struct space) : sizeof(struct chunk);
  dz_slab_init(&arena->spaces, node);
  return dz_lock_init(&arena->lock, DZ_RANK_ARENA);
}

/* false: the driver would not unpin it. */
static bool unmap_chunk(const struct arena *arena, const struct chunk *chunk) {
  bool unpinned = !chunk->pinned || arena->driver->MemHostUnregister(chunk->memory) == CUDA_SUCCESS;
  (void)munmap(chunk->memory, chunk->bytes);
  return unpinned;
}

bool dz_arena_end(struct arena *arena) {
  bool unpinned = true;
  for (struct chunk *chunk = arena->chunks; chunk != NULL; chunk = chunk->next) unpinned &= unmap_chunk(arena, chunk);
  dz_slab_end(&arena->spaces);
  dz_lock_destroy(&arena->lock);
  return unpinned;
}

/* Cuts bytes off the beginning of a free space; false: no memory for the rest's metadata. */
static bool cut_space(struct arena *arena, struct space *space, uint64_t bytes) {
  if (space->range.bytes == bytes) return true;
  struct space *rest = dz_slab_take(&arena->spaces);
  if (rest == NULL) return false;
  dz_range_split(&space->range, space->range.base + bytes, &rest->range);
  dz_bins_put(&arena->free, &rest->range);
  return true;
}

struct range *dz_arena_take(struct arena *arena, uint64_t bytes) {
  dz_lock(&arena->lock);
  struct space *space = (struct space *)dz_bins_find(&arena->free, bytes);
  if (space != NULL) {
    dz_bins_drop(&arena->free, &space->range);
    space->used = cut_space(arena, space, bytes);
    if (!space->used) {
      dz_bins_put(&arena->free, &space->range);
      space = NULL;
    }
  }
  dz_unlock(&arena->lock);
  return space == NULL ? NULL : &space->range;
}

static bool is_free(const struct range *space) {
  return space != NULL && !((const struct space *)space)->used;
}

/* Adds a free space to the one before it. */
static void join(struct arena *arena, struct range *kept, struct range *gone) {
  dz_range_join(kept, gone);
  dz_slab_give(&arena->spaces, gone);
}

void dz_arena_give(struct arena *arena, struct range *space) {
  dz_lock(&arena->lock);
  ((struct space *)space)->used = false;
  struct range *before = space->before, *after = space->after;
  if (is_free(after)) {
    dz_bins_drop(&arena->free, after);
    join(arena, space, after);
  }
  if (is_free(before)) {
    dz_bins_drop(&arena->free, before);
    join(arena, before, space);
    space = before;
  }
  dz_bins_put(&arena->free, space);
  dz_unlock(&arena->lock);
}

/* Counts bytes more in before they are mapped, so that growths at once keep the limit together. */
static drowse_status charge(struct arena *arena, uint64_t bytes) {
  dz_lock(&arena->lock);
  uint64_t have = arena->chunk_bytes;
  bool fits = arena->limit == 0 || (have <= arena->limit && bytes <= arena->limit - have);
  if (fits) arena->chunk_bytes += bytes;
  dz_unlock(&arena->lock);
  if (fits) return DROWSE_OK;
  dz_error(DROWSE_ERR_NO_HOST_MEMORY,
           "%" PRIu64 " more bytes of host memory for backups: %" PRIu64 " of the limit of %" PRIu64 " are in use", bytes, have,
           arena->limit);
  dz_error_bytes(bytes, arena->limit > have ? arena->limit - have : 0, 0);
  return DROWSE_ERR_NO_HOST_MEMORY;
}

static void uncharge(struct arena *arena, uint64_t bytes) {
  dz_lock(&arena->lock);
  arena->chunk_bytes -= bytes;
  dz_unlock(&arena->lock);
}

/* Whether the machine can give bytes more. */
static drowse_status check_available(uint64_t bytes) {
  uint64_t available = dz_host_available();
  if (bytes <= available) return DROWSE_OK;
  dz_error(DROWSE_ERR_NO_HOST_MEMORY, "%" PRIu64 " more bytes of host memory for backups: the machine or its cgroup has %" PRIu64,
           bytes, available);
  dz_error_bytes(bytes, available, 0);
  return DROWSE_ERR_NO_HOST_MEMORY;
}

/* Has the kernel give every page now, while it can still say no. Kernels before 5.14 do not know the request: there each page is
 * touched. */
static int populate(void *memory, uint64_t bytes) {
#ifdef MADV_POPULATE_WRITE
  if (madvise(memory, bytes, MADV_POPULATE_WRITE) == 0) return 0;
  if (errno != EINVAL) return errno;
#endif
  for (uint64_t at = 0; at < bytes; at += page_bytes) ((volatile char *)memory)[at] = 0;
  return 0;
}

static drowse_status map_chunk(struct arena *arena, struct chunk *chunk, uint64_t bytes) {
  void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    return dz_error_system(DROWSE_ERR_NO_HOST_MEMORY, errno, "%" PRIu64 " more bytes of host memory for backups", bytes);
  }
  (void)madvise(memory, bytes, MADV_HUGEPAGE); /* a wish: a kernel without huge pages gives small ones */
  int code = madvise(memory, bytes, MADV_DONTFORK) == 0 ? populate(memory, bytes) : errno;
  if (code != 0) {
    (void)munmap(memory, bytes);
    return dz_error_system(DROWSE_ERR_NO_HOST_MEMORY, code, "%" PRIu64 " more bytes of host memory for backups", bytes);
  }
  CUresult registered = arena->driver->MemHostRegister(memory, bytes, 0);
  if (registered != CUDA_SUCCESS) {
    dz_log(DROWSE_LOG_WARNING, "%" PRIu64 " bytes of host memory could not be pinned (CUresult %d): copies will be slow", bytes,
           (int)registered);
  }
  chunk->memory = memory;
  chunk->bytes = bytes;
  chunk->pinned = registered == CUDA_SUCCESS;
  return DROWSE_OK;
}

/* Two nodes, for a chunk and its first space. */
static bool take_nodes(struct arena *arena, struct chunk **chunk, struct space **space) {
  dz_lock(&arena->lock);
  bool reserved = dz_slab_reserve(&arena->spaces, 2);
  if (reserved) {
    *chunk = dz_slab_take_reserved(&arena->spaces);
    *space = dz_slab_take_reserved(&arena->spaces);
  }
  dz_unlock(&arena->lock);
  return reserved;
}

/* Maps a charged chunk and puts it into the arena as one free space. */
static drowse_status add_chunk(struct arena *arena, uint64_t bytes) {
  struct chunk *chunk;
  struct space *space;
  if (!take_nodes(arena, &chunk, &space)) return dz_error(DROWSE_ERR_NO_HOST_MEMORY, "no memory for the metadata of backups");
  drowse_status status = map_chunk(arena, chunk, bytes);
  dz_lock(&arena->lock);
  if (status == DROWSE_OK) {
    chunk->next = arena->chunks;
    arena->chunks = chunk;
    if (chunk->pinned) arena->pinned_bytes += bytes;
    space->range.base = (uint64_t)(uintptr_t)chunk->memory;
    space->range.bytes = bytes;
    dz_bins_put(&arena->free, &space->range);
  } else {
    dz_slab_give(&arena->spaces, chunk);
    dz_slab_give(&arena->spaces, space);
  }
  dz_unlock(&arena->lock);
  return status;
}

drowse_status dz_arena_grow(struct arena *arena, uint64_t bytes) {
  bytes = dz_round_up(bytes, bytes < huge_page_bytes ? page_bytes : huge_page_bytes);
  drowse_status status = charge(arena, bytes);
  if (status != DROWSE_OK) return status;
  status = check_available(bytes);
  if (status == DROWSE_OK) status = add_chunk(arena, bytes);
  if (status != DROWSE_OK) uncharge(arena, bytes);
  return status;
}

uint64_t dz_arena_pinned_bytes(struct arena *arena) {
  dz_lock(&arena->lock);
  uint64_t bytes = arena->pinned_bytes;
  dz_unlock(&arena->lock);
  return bytes;
}
