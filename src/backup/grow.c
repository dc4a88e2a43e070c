/* SPDX-License-Identifier: Apache-2.0
 *
 * How an arena grows. A chunk is mapped, and its one space is handed out. A thread of its own then pins it, piece by piece in
 * order, while several more touch what comes next, slice by slice; whoever copies follows behind, at the watermark.
 *
 * Touching is what takes long: the kernel clears the pages. One thread does 5 GiB/s with huge pages and twelve of them 28 to 35,
 * while the driver pins 40 with one caller or many. Small pages take three times as long.
 */
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <time.h>
#include <unistd.h>

#include "backup/chunk.h"
#include "backup/hostmem.h"
#include "backup/pages.h"
#include "core/error.h"
#include "core/log.h"
#include "core/thread.h"

/* More gain nothing: sixteen on as many processors keep the thread that pins, and who copies, waiting for one. */
enum { TOUCHERS = 12, PIECE_SLICES = 16 };

/* What a thread touches at a time: 4 ms of work, beside which taking it is nothing, and a whole number of huge pages. */
static const uint64_t slice_bytes = UINT64_C(16) << 20;

/* What is pinned at a time. That takes 7 ms, beside which the call is nothing. */
static const uint64_t piece_bytes = PIECE_SLICES * (UINT64_C(16) << 20);

/* While memory is being pinned the driver lets no copy begin, and who pins again at once is faster than who waits for that:
 * copies came to 1 of 50 GiB/s (seen with driver 580). So there is a pause behind each piece, nanoseconds. */
static const long pause_ns = 60000;

/* A slice with huge pages that takes longer, at 64 MiB/s, has waited for the kernel to move other pages out of the way; small
 * pages come ten times as fast, many threads and a busy machine reckoned in. Once may be the scheduler's doing. */
static const int64_t slice_patience = 250 * INT64_C(1000000);
enum { DISAPPOINTMENTS = 2 };

/* ---- touching */

static bool gave_up(const struct arena_chunk *chunk) {
  return atomic_load_explicit(&chunk->code, memory_order_relaxed) != 0;
}

static void tell(struct arena *arena) {
  dz_lock(&arena->lock);
  (void)pthread_cond_broadcast(&arena->changed);
  dz_unlock(&arena->lock);
}

static int touch_huge(struct arena_chunk *chunk, struct arena_piece *piece, uint64_t base, uint64_t bytes) {
  int64_t begun = dz_now();
  int code = dz_pages_touch(base, bytes);
  if (code != 0) return code;
  int64_t took = dz_now() - begun;
  uint64_t huge = dz_pages_huge(base, bytes);
  atomic_fetch_add_explicit(&piece->huge_bytes, huge, memory_order_relaxed);
  if (huge < dz_pages_huge_most(base, bytes) / 2) {
    atomic_fetch_add_explicit(&chunk->disappointments, DISAPPOINTMENTS, memory_order_relaxed);
  } else if (took > slice_patience) {
    atomic_fetch_add_explicit(&chunk->disappointments, 1, memory_order_relaxed);
  }
  return 0;
}

static int touch_slice(struct arena_chunk *chunk, struct arena_piece *piece, uint64_t base, uint64_t bytes) {
  if (atomic_load_explicit(&chunk->disappointments, memory_order_relaxed) < DISAPPOINTMENTS)
    return touch_huge(chunk, piece, base, bytes);
  dz_pages_want_small(base, bytes);
  return dz_pages_touch(base, bytes);
}

/* Where a thread is. Each goes through the pieces once. */
struct toucher {
  struct arena_chunk *chunk;
  struct arena_piece *piece;
};

/* Touches the next slice that nobody has taken; false: there is none, or it failed. */
static bool touch_next(struct toucher *toucher) {
  struct arena_chunk *chunk = toucher->chunk;
  if (gave_up(chunk)) return false;
  uint64_t offset = atomic_fetch_add(&chunk->next_slice, slice_bytes);
  if (offset >= chunk->bytes) return false;
  uint64_t base = chunk->base + offset, bytes = chunk->bytes - offset < slice_bytes ? chunk->bytes - offset : slice_bytes;
  while (base >= toucher->piece->base + toucher->piece->bytes) toucher->piece = toucher->piece->next;
  int code = touch_slice(chunk, toucher->piece, base, bytes), none = 0;
  if (code != 0) {
    (void)atomic_compare_exchange_strong(&chunk->code, &none, code);
    tell(chunk->arena);
    return false;
  }
  (void)atomic_fetch_sub(&chunk->untouched, bytes);
  dz_host_unclaim(bytes);
  if (atomic_fetch_sub(&toucher->piece->slices_left, 1) == 1) tell(chunk->arena);
  return true;
}

static void *touch_main(void *argument) {
  struct arena_chunk *chunk = argument;
  struct toucher toucher = {chunk, chunk->pieces};
  while (touch_next(&toucher)) continue;
  return NULL;
}

/* ---- the threads that touch */

static int start_thread(pthread_t *thread, void *(*run)(void *chunk), struct arena_chunk *chunk) {
  return dz_thread_start(thread, "drowse-pin", run, chunk);
}

static unsigned usable_processors(void) {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return (unsigned)CPU_COUNT(&set);
  long online = sysconf(_SC_NPROCESSORS_ONLN); /* more of them than a set has room for */
  return online < 1 ? 1 : (unsigned)online;
}

struct team {
  pthread_t threads[TOUCHERS];
  unsigned count;
};

/* As many as there is work for, a quarter of many processors left to others; where that is one, the thread that pins does it. */
static void start_team(struct team *team, struct arena_chunk *chunk) {
  uint64_t slices = (chunk->bytes + slice_bytes - 1) / slice_bytes;
  unsigned wanted = usable_processors();
  if (wanted > 4) wanted -= wanted / 4;
  if (wanted > TOUCHERS) wanted = TOUCHERS;
  if (wanted > slices) wanted = (unsigned)slices;
  team->count = 0;
  if (wanted < 2) return;
  while (team->count < wanted && start_thread(&team->threads[team->count], touch_main, chunk) == 0) team->count++;
}

static void join_team(const struct team *team) {
  for (unsigned i = 0; i < team->count; i++) dz_thread_join(team->threads[i]);
}

/* false: it will not be touched. */
static bool await_touched(const struct team *team, struct toucher *self, struct arena_piece *piece) {
  struct arena *arena = self->chunk->arena;
  if (team->count == 0) {
    while (atomic_load(&piece->slices_left) > 0 && touch_next(self)) continue;
  }
  dz_lock(&arena->lock);
  while (atomic_load(&piece->slices_left) > 0 && !gave_up(self->chunk))
    (void)dz_cond_wait(&arena->changed, &arena->lock, DZ_NEVER);
  dz_unlock(&arena->lock);
  return atomic_load(&piece->slices_left) == 0 && !gave_up(self->chunk);
}

/* ---- pinning */

/* What is changed of the calling thread for driver calls. Without relaxed mode pinning would destroy other threads' captures. */
struct seat {
  bool mine; /* the thread ends after it: nothing is to be put back */
  bool taken;
  CUcontext previous;
  CUstreamCaptureMode mode;
};

static void take_seat(struct seat *seat, const struct arena *arena, bool mine) {
  const struct driver *driver = arena->driver;
  CUresult code = CUDA_SUCCESS;
  *seat = (struct seat){.mine = mine, .mode = CU_STREAM_CAPTURE_MODE_RELAXED};
  if (!mine) code = driver->CtxGetCurrent(&seat->previous);
  if (code == CUDA_SUCCESS) code = driver->CtxSetCurrent(arena->context);
  if (code == CUDA_SUCCESS) code = driver->ThreadExchangeStreamCaptureMode(&seat->mode);
  seat->taken = code == CUDA_SUCCESS;
  if (!seat->taken)
    dz_log(DROWSE_LOG_WARNING, "backups will not be pinned: their thread has no context (CUresult %d)", (int)code);
}

static void leave_seat(struct seat *seat, const struct driver *driver) {
  if (seat->mine) return;
  if (seat->taken) (void)driver->ThreadExchangeStreamCaptureMode(&seat->mode);
  (void)driver->CtxSetCurrent(seat->previous);
}

bool dz_piece_pin(const struct arena *arena, const struct arena_piece *piece) {
  CUresult code = arena->driver->MemHostRegister((void *)(uintptr_t)piece->base, piece->bytes, 0);
  if (code == CUDA_SUCCESS) return true;
  dz_log(DROWSE_LOG_WARNING, "%" PRIu64 " bytes of host memory could not be pinned (CUresult %d): copies will be slow",
         piece->bytes, (int)code);
  return false;
}

/* One that was not unpinned as it seemed has been all the same if it is not pinned any more. */
CUresult dz_piece_unpin(const struct arena *arena, const struct arena_piece *piece) {
  CUresult code = piece->pinned ? arena->driver->MemHostUnregister((void *)(uintptr_t)piece->base) : CUDA_SUCCESS;
  return code == CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED ? CUDA_SUCCESS : code;
}

/* Whoever sees the watermark sees what it says of the piece. */
static void publish(struct arena_chunk *chunk, struct arena_piece *piece, bool pinned) {
  struct arena *arena = chunk->arena;
  dz_lock(&arena->lock);
  piece->pinned = pinned;
  piece->ready = true;
  atomic_store_explicit(&chunk->ready_bytes, piece->base + piece->bytes - chunk->base, memory_order_release);
  (void)pthread_cond_broadcast(&arena->changed);
  dz_unlock(&arena->lock);
}

static void let_others_copy(void) {
  const struct timespec pause = {.tv_nsec = pause_ns};
  (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
}

/* When pinning is refused once, the rest is not tried: the reason is mostly a limit. */
static void fill_chunk(struct arena_chunk *chunk, bool pinning) {
  struct team team;
  struct toucher self = {chunk, chunk->pieces};
  start_team(&team, chunk);
  for (struct arena_piece *piece = chunk->pieces; piece != NULL && await_touched(&team, &self, piece); piece = piece->next) {
    if (pinning) pinning = dz_piece_pin(chunk->arena, piece);
    publish(chunk, piece, pinning);
    if (pinning) let_others_copy();
  }
  join_team(&team);
}

/* ---- how it ends */

static bool unmap_piece(const struct arena *arena, const struct arena_piece *piece) {
  bool unpinned = dz_piece_unpin(arena, piece) == CUDA_SUCCESS;
  (void)dz_pages_unmap(piece->base, piece->bytes);
  return unpinned;
}

bool dz_chunk_unmap(const struct arena_chunk *chunk) {
  bool unpinned = true;
  for (const struct arena_piece *piece = chunk->pieces; piece != NULL; piece = piece->next)
    unpinned &= unmap_piece(chunk->arena, piece);
  return unpinned;
}

/* With the lock held. */
static void give_nodes(struct arena_chunk *chunk) {
  struct arena *arena = chunk->arena;
  for (struct arena_piece *piece = chunk->pieces, *next; piece != NULL; piece = next) {
    next = piece->next;
    dz_slab_give(&arena->pieces, piece);
  }
  dz_slab_give(&arena->spaces, chunk->first);
  chunk->pieces = NULL;
  chunk->first = NULL;
}

/* Takes what is free of it out of the bins: nobody is to find it. With the lock held. */
static void withdraw(struct arena_chunk *chunk) {
  for (struct range *range = &chunk->first->range; range != NULL; range = range->after) {
    if (range->bin_before != NULL) dz_space_drop(chunk->arena, dz_space_of(range));
  }
}

/* Whether it is whole. One that is not is no longer given out. */
static bool settle(struct arena_chunk *chunk) {
  struct arena *arena = chunk->arena;
  dz_lock(&arena->lock);
  bool whole = atomic_load(&chunk->ready_bytes) == chunk->bytes;
  chunk->stage = whole ? CHUNK_READY : CHUNK_FAILED;
  arena->growing--;
  if (!whole) withdraw(chunk);
  (void)pthread_cond_broadcast(&arena->changed);
  dz_unlock(&arena->lock);
  return whole;
}

static void await_unused(struct arena_chunk *chunk) {
  struct arena *arena = chunk->arena;
  dz_lock(&arena->lock);
  while (!dz_chunk_is_unused(chunk) && !arena->ending) (void)dz_cond_wait(&arena->changed, &arena->lock, DZ_NEVER);
  dz_unlock(&arena->lock);
}

/* Of a chunk that has failed and is not used any more. */
static void bury(struct arena_chunk *chunk) {
  struct arena *arena = chunk->arena;
  bool unpinned = dz_chunk_unmap(chunk);
  dz_host_unclaim(atomic_load(&chunk->untouched));
  dz_lock(&arena->lock);
  give_nodes(chunk);
  arena->mapped_bytes -= chunk->bytes;
  if (!unpinned) arena->stuck = true;
  chunk->stage = CHUNK_GONE;
  (void)pthread_cond_broadcast(&arena->changed);
  dz_unlock(&arena->lock);
}

/* A chunk's own thread. One that has failed lives on until its chunk can go. */
static void *pin_main(void *argument) {
  struct arena_chunk *chunk = argument;
  struct seat seat;
  take_seat(&seat, chunk->arena, true);
  fill_chunk(chunk, seat.taken);
  if (!settle(chunk)) {
    await_unused(chunk);
    bury(chunk);
  }
  return NULL;
}

static drowse_status touching_failed(uint64_t bytes, int code) {
  return dz_error_system(DROWSE_ERR_NO_HOST_MEMORY, code, "%" PRIu64 " bytes of host memory for backups could not be touched",
                         bytes);
}

/* The same on the calling thread, which has not handed the space out yet. */
static drowse_status pin_here(struct arena_chunk *chunk) {
  struct arena *arena = chunk->arena;
  struct seat seat;
  take_seat(&seat, arena, false);
  fill_chunk(chunk, seat.taken);
  bool whole = settle(chunk);
  drowse_status status = whole ? DROWSE_OK : touching_failed(chunk->bytes, atomic_load(&chunk->code));
  if (!whole) {
    dz_arena_give(arena, &chunk->first->range);
    bury(chunk);
  }
  leave_seat(&seat, arena->driver);
  return status;
}

/* A thread to join: one that has ended, or any. With the lock held. */
static struct arena_chunk *find_thread(const struct arena *arena, bool all) {
  struct arena_chunk *chunk = arena->chunks;
  while (chunk != NULL && !(chunk->threaded && (all || chunk->stage == CHUNK_READY || chunk->stage == CHUNK_GONE))) {
    chunk = chunk->next;
  }
  return chunk;
}

void dz_arena_reap(struct arena *arena, bool all) {
  dz_lock(&arena->lock);
  for (struct arena_chunk *chunk; (chunk = find_thread(arena, all)) != NULL;) {
    pthread_t thread = chunk->thread;
    chunk->threaded = false;
    dz_unlock(&arena->lock);
    dz_thread_join(thread);
    dz_lock(&arena->lock);
  }
  for (struct arena_chunk **at = &arena->chunks, *chunk; (chunk = *at) != NULL;) {
    if (chunk->stage == CHUNK_GONE && !chunk->threaded) {
      *at = chunk->next;
      dz_slab_give(&arena->chunk_slab, chunk);
    } else {
      at = &chunk->next;
    }
  }
  dz_unlock(&arena->lock);
}

/* ---- growing */

/* Counts bytes more in before they are mapped, so that growths at once keep the limit together. */
static drowse_status charge(struct arena *arena, uint64_t bytes) {
  dz_lock(&arena->lock);
  uint64_t have = arena->mapped_bytes;
  bool fits = arena->limit == 0 || (have <= arena->limit && bytes <= arena->limit - have);
  if (fits) arena->mapped_bytes += bytes;
  dz_unlock(&arena->lock);
  if (fits) return DROWSE_OK;
  dz_error(DROWSE_ERR_NO_HOST_MEMORY,
           "%" PRIu64 " more bytes of host memory for backups: %" PRIu64 " of the limit of %" PRIu64 " are in use", bytes, have,
           arena->limit);
  dz_error_bytes(bytes, arena->limit > have ? arena->limit - have : 0, 0);
  return DROWSE_ERR_NO_HOST_MEMORY;
}

uint64_t dz_arena_room(struct arena *arena) {
  uint64_t available, left = UINT64_MAX;
  (void)dz_host_claim(0, &available);
  dz_lock(&arena->lock);
  if (arena->limit > 0) left = arena->limit > arena->mapped_bytes ? arena->limit - arena->mapped_bytes : 0;
  dz_unlock(&arena->lock);
  return dz_round_down(left < available ? left : available, dz_page_bytes());
}

static void uncharge(struct arena *arena, uint64_t bytes) {
  dz_lock(&arena->lock);
  arena->mapped_bytes -= bytes;
  dz_unlock(&arena->lock);
}

/* Whether the machine can give bytes more. */
static drowse_status claim(uint64_t bytes) {
  uint64_t available;
  if (dz_host_claim(bytes, &available)) return DROWSE_OK;
  dz_error(DROWSE_ERR_NO_HOST_MEMORY, "%" PRIu64 " more bytes of host memory for backups: the machine or its cgroup has %" PRIu64,
           bytes, available);
  dz_error_bytes(bytes, available, 0);
  return DROWSE_ERR_NO_HOST_MEMORY;
}

/* The nodes of a chunk, its space and its pieces, of which there is one at least; NULL: no memory for them. */
static struct arena_chunk *take_nodes(struct arena *arena, uint64_t pieces) {
  dz_lock(&arena->lock);
  struct arena_chunk *chunk = dz_slab_take(&arena->chunk_slab);
  struct space *first = dz_slab_take(&arena->spaces);
  if (chunk != NULL && first != NULL && dz_slab_reserve(&arena->pieces, pieces)) {
    chunk->arena = arena;
    chunk->first = first;
    for (struct arena_piece **end = &chunk->pieces; pieces > 0; pieces--, end = &(*end)->next)
      *end = dz_slab_take_reserved(&arena->pieces);
  } else {
    if (chunk != NULL) dz_slab_give(&arena->chunk_slab, chunk);
    if (first != NULL) dz_slab_give(&arena->spaces, first);
    chunk = NULL;
  }
  dz_unlock(&arena->lock);
  return chunk;
}

/* Nobody else knows of it yet. */
static void lay_out(struct arena_chunk *chunk, uint64_t base, uint64_t bytes) {
  chunk->base = base;
  chunk->bytes = bytes;
  atomic_store(&chunk->untouched, bytes);
  chunk->first->chunk = chunk;
  chunk->first->used = true;
  chunk->first->range.base = base;
  chunk->first->range.bytes = bytes;
  for (struct arena_piece *piece = chunk->pieces; piece != NULL; piece = piece->next) {
    piece->base = base;
    piece->bytes = bytes < piece_bytes ? bytes : piece_bytes;
    atomic_store(&piece->slices_left, (unsigned)((piece->bytes + slice_bytes - 1) / slice_bytes));
    base += piece->bytes;
    bytes -= piece->bytes;
  }
}

static drowse_status make_chunk(struct arena *arena, uint64_t bytes, struct arena_chunk **chunk) {
  uint64_t base;
  *chunk = take_nodes(arena, (bytes + piece_bytes - 1) / piece_bytes);
  if (*chunk == NULL) return dz_error(DROWSE_ERR_NO_HOST_MEMORY, "no memory for the metadata of backups");
  int code = dz_pages_map(bytes, arena->numa_node, &base);
  dz_lock(&arena->lock);
  if (code == 0) {
    lay_out(*chunk, base, bytes);
    (*chunk)->next = arena->chunks;
    arena->chunks = *chunk;
    arena->growing++;
    arena->used_bytes += bytes;
  } else {
    give_nodes(*chunk);
    dz_slab_give(&arena->chunk_slab, *chunk);
  }
  dz_unlock(&arena->lock);
  if (code == 0) return DROWSE_OK;
  return dz_error_system(DROWSE_ERR_NO_HOST_MEMORY, code, "%" PRIu64 " more bytes of host memory for backups", bytes);
}

/* The thread may be done before its handle is stored: until then nobody joins it. */
static drowse_status start_chunk(struct arena_chunk *chunk) {
  pthread_t thread;
  if (start_thread(&thread, pin_main, chunk) != 0) return pin_here(chunk);
  dz_lock(&chunk->arena->lock);
  chunk->thread = thread;
  chunk->threaded = true;
  dz_unlock(&chunk->arena->lock);
  return DROWSE_OK;
}

drowse_status dz_arena_grow(struct arena *arena, uint64_t bytes, struct range **space) {
  struct arena_chunk *chunk;
  dz_arena_reap(arena, false);
  bytes = dz_pages_round(bytes);
  drowse_status status = charge(arena, bytes);
  if (status != DROWSE_OK) return status;
  status = claim(bytes);
  if (status != DROWSE_OK) goto uncharge;
  status = make_chunk(arena, bytes, &chunk);
  if (status != DROWSE_OK) goto unclaim;
  struct range *first = &chunk->first->range;
  status = start_chunk(chunk); /* which gives all of it back where it fails */
  if (status == DROWSE_OK) *space = first;
  return status;

unclaim:
  dz_host_unclaim(bytes);
uncharge:
  uncharge(arena, bytes);
  return status;
}

/* ---- waiting */

static drowse_status await(struct arena_chunk *chunk, uint64_t bytes) {
  struct arena *arena = chunk->arena;
  dz_lock(&arena->lock);
  while (atomic_load(&chunk->ready_bytes) < bytes && chunk->stage == CHUNK_GROWING)
    (void)dz_cond_wait(&arena->changed, &arena->lock, DZ_NEVER);
  bool ready = atomic_load(&chunk->ready_bytes) >= bytes;
  dz_unlock(&arena->lock);
  return ready ? DROWSE_OK : touching_failed(chunk->bytes, atomic_load(&chunk->code));
}

drowse_status dz_arena_wait(struct arena *arena, const struct range *space, uint64_t bytes) {
  struct arena_chunk *chunk = dz_space_of(space)->chunk;
  uint64_t end = space->base + bytes - chunk->base;
  (void)arena;
  if (atomic_load_explicit(&chunk->ready_bytes, memory_order_acquire) >= end) return DROWSE_OK;
  return await(chunk, end);
}

/* ---- reserving */

static uint64_t missing_bytes(struct arena *arena, uint64_t bytes) {
  dz_lock(&arena->lock);
  uint64_t have = arena->free_bytes;
  dz_unlock(&arena->lock);
  return bytes > have ? bytes - have : 0;
}

static void await_growth(struct arena *arena) {
  dz_lock(&arena->lock);
  while (arena->growing > 0) (void)dz_cond_wait(&arena->changed, &arena->lock, DZ_NEVER);
  dz_unlock(&arena->lock);
}

uint64_t dz_arena_reserves(struct arena *arena) {
  dz_lock(&arena->lock);
  uint64_t reserves = arena->reserves;
  dz_unlock(&arena->lock);
  return reserves;
}

bool dz_arena_await_reserve(struct arena *arena, uint64_t seen) {
  dz_lock(&arena->lock);
  while (arena->reserving > 0 && arena->reserves == seen) (void)dz_cond_wait(&arena->changed, &arena->lock, DZ_NEVER);
  bool ended = arena->reserves != seen;
  dz_unlock(&arena->lock);
  return ended;
}

static void begin_reserve(struct arena *arena) {
  dz_lock(&arena->lock);
  arena->reserving++;
  dz_unlock(&arena->lock);
}

static void end_reserve(struct arena *arena) {
  dz_lock(&arena->lock);
  arena->reserving--;
  arena->reserves++;
  (void)pthread_cond_broadcast(&arena->changed);
  dz_unlock(&arena->lock);
}

static drowse_status add_free(struct arena *arena, uint64_t bytes, bool wait) {
  struct range *space;
  begin_reserve(arena);
  drowse_status status = dz_arena_grow(arena, bytes, &space);
  if (status == DROWSE_OK) {
    if (wait) status = dz_arena_wait(arena, space, space->bytes);
    dz_arena_give(arena, space);
  }
  end_reserve(arena);
  return status;
}

/* What others take, or what fails of their growth, meanwhile, is missing again: each time round there is more, or it fails. */
drowse_status dz_arena_reserve(struct arena *arena, uint64_t bytes, bool wait) {
  for (;;) {
    if (wait) await_growth(arena);
    uint64_t missing = missing_bytes(arena, bytes);
    drowse_status status = missing == 0 ? DROWSE_OK : add_free(arena, missing, wait);
    if (missing == 0 || status != DROWSE_OK) return status;
  }
}
