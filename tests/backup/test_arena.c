/* SPDX-License-Identifier: Apache-2.0
 *
 * The arena's spaces against an oracle, and how it grows: in the background and in order, within the limit and what the machine
 * has, and with whatever the system or the driver refuses. How it is trimmed is in test_trim.c.
 */
#include "arena_fixture.h"

#include <inttypes.h>
#include <sys/resource.h>

#include "backup/hostmem.h"

/* ---- spaces */

START_TEST(an_empty_arena_has_nothing) {
  ck_assert_ptr_null(dz_arena_take(&arena, 512));
  ck_stats(0, 0, 0, 0);
  ck_ok(dz_arena_trim(&arena, 0));
}
END_TEST

START_TEST(what_was_grown_is_ready_pinned_and_exact) {
  static const uint64_t sizes[] = {512, 4096, 4608, 2 * MIB - 512, 2 * MIB, 2 * MIB + 512, 9 * MIB, 33 * MIB};
  uint64_t mapped = 0;
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    struct range *space = grow(sizes[i]);
    mapped += dz_pages_round(sizes[i]);
    ck_assert_uint_eq(space->bytes, dz_pages_round(sizes[i]));
    ck_ok(dz_arena_wait(&arena, space, space->bytes));
    memset(dz_space_memory(space), (int)i, space->bytes);
    ck_assert_uint_eq(dz_space_piece(space, 0), space->bytes);
    ck_assert_uint_eq(dz_space_piece(space, 256), space->bytes - 256);
    ck_assert(dz_space_is_pinned(space, 0) && dz_space_is_pinned(space, space->bytes - 1));
    ck_stats(mapped, mapped, mapped, 0);
  }
}
END_TEST

START_TEST(what_was_given_is_joined_again) {
  enum { PIECES = 64 };
  struct range *spaces[PIECES];
  dz_arena_give(&arena, grow(4 * MIB));
  for (int i = 0; i < PIECES; i++) ck_assert_ptr_nonnull(spaces[i] = dz_arena_take(&arena, 64 * KIB));
  ck_assert_ptr_null(dz_arena_take(&arena, 512));
  for (int i = 0; i < PIECES; i += 2) dz_arena_give(&arena, spaces[i]);
  ck_assert_ptr_null(dz_arena_take(&arena, 64 * KIB + 512));
  for (int i = 1; i < PIECES; i += 2) dz_arena_give(&arena, spaces[i]);
  struct range *whole = dz_arena_take(&arena, 4 * MIB);
  ck_assert_ptr_nonnull(whole);
  ck_ok(dz_arena_wait(&arena, whole, 4 * MIB));
  dz_arena_give(&arena, whole);
  ck_stats(4 * MIB, 0, 4 * MIB, 0); /* kept for the next one */
}
END_TEST

START_TEST(what_is_cut_lies_side_by_side_and_is_joined_again) {
  enum { PIECES = 8 };
  static const int orders[][PIECES] = {{0, 1, 2, 3, 4, 5, 6, 7}, {7, 6, 5, 4, 3, 2, 1, 0}, {0, 2, 4, 6, 1, 3, 5, 7}};
  struct range *spaces[PIECES] = {grow(MIB)};
  uint64_t end = dz_range_end(spaces[0]);
  for (size_t order = 0; order < sizeof orders / sizeof *orders; order++) {
    for (int i = 1; i < PIECES; i++) {
      spaces[i] = dz_arena_cut(&arena, spaces[i - 1], (unsigned)i * 512);
      ck_assert_ptr_nonnull(spaces[i]);
      ck_assert_uint_eq(spaces[i - 1]->bytes, (unsigned)i * 512);
      ck_assert_uint_eq(spaces[i]->base, dz_range_end(spaces[i - 1]));
      ck_ok(dz_arena_wait(&arena, spaces[i], spaces[i]->bytes));
      ck_assert_uint_eq(dz_space_piece(spaces[i - 1], 0), end - spaces[i - 1]->base);
    }
    ck_stats(MIB, MIB, MIB, 0);
    ck_assert_ptr_null(dz_arena_take(&arena, 512));
    for (int i = 0; i < PIECES; i++) dz_arena_give(&arena, spaces[orders[order][i]]);
    ck_stats(MIB, 0, MIB, 0);
    ck_assert_ptr_nonnull(spaces[0] = dz_arena_take(&arena, MIB));
  }
}
END_TEST

START_TEST(without_memory_for_metadata_nothing_changes) {
  struct range *spaces[8192], *space = grow(16 * MIB);
  size_t count = 0;
  ck_ok(dz_arena_wait(&arena, space, space->bytes));
  refused_size = 4096;
  while (count < 8192 && (spaces[count] = dz_arena_cut(&arena, space, space->bytes - 1024)) != NULL) count++;
  ck_assert_uint_lt(count, 8192); /* the slab's page is full */
  ck_assert_uint_eq(space->bytes, 16 * MIB - count * 1024);
  ck_stats(16 * MIB, 16 * MIB, 16 * MIB, 0);
  struct range *none = NULL;
  ck_status(dz_arena_grow(&arena, MIB, &none), DROWSE_ERR_NO_HOST_MEMORY);
  ck_stats(16 * MIB, 16 * MIB, 16 * MIB, 0);
  refused_size = 0;
  for (size_t i = 0; i < count; i++) dz_arena_give(&arena, spaces[i]);
  dz_arena_give(&arena, space);
  ck_assert_ptr_nonnull(dz_arena_take(&arena, 16 * MIB));
}
END_TEST

/* ---- against an oracle: every byte of a space carries its number, so two that overlap show */

enum { SPACES = 200, ROUNDS = 4000 };

static struct held {
  struct range *space;
  uint64_t bytes;
  unsigned char mark;
} held[SPACES];

static bool is_marked(const struct held *one) {
  const unsigned char *memory = dz_space_memory(one->space);
  uint64_t at = 0;
  while (at < one->bytes && memory[at] == one->mark) at++;
  return at == one->bytes;
}

/* What there is; if there is nothing, off the beginning of what is new. */
static struct range *take_or_grow(uint64_t bytes) {
  struct range *space = dz_arena_take(&arena, bytes);
  if (space == NULL) {
    space = grow(bytes);
    if (space->bytes > bytes) dz_arena_give(&arena, dz_arena_cut(&arena, space, bytes));
  }
  ck_ok(dz_arena_wait(&arena, space, bytes));
  return space;
}

START_TEST(spaces_never_overlap) {
  uint64_t state = 1, in_use = 0;
  struct arena_stats stats;
  for (unsigned round = 0; round < ROUNDS; round++) {
    struct held *one = &held[random_below(&state, SPACES)];
    if (one->space != NULL) {
      if (one->space->bytes != one->bytes || !is_marked(one)) ck_abort_msg("round %u: another's bytes", round);
      dz_arena_give(&arena, one->space);
      in_use -= one->bytes;
      one->space = NULL;
      continue;
    }
    one->bytes = (1 + random_below(&state, round % 8 == 0 ? 512 : 16)) * 512;
    one->space = take_or_grow(one->bytes);
    one->mark = (unsigned char)(round % 255 + 1);
    memset(dz_space_memory(one->space), one->mark, one->bytes);
    in_use += one->bytes;
    if (arena.used_bytes != in_use) ck_abort_msg("round %u: more or less is in use", round);
  }
  for (int i = 0; i < SPACES; i++) {
    if (held[i].space != NULL) dz_arena_give(&arena, held[i].space);
  }
  dz_arena_stats(&arena, &stats);
  ck_stats(stats.mapped_bytes, 0, stats.mapped_bytes, 0);
  for (uint64_t free_bytes = 0; free_bytes < stats.mapped_bytes;) { /* all that was mapped can be had again, not a byte more */
    struct range *space = dz_bins_find(&arena.free, 512);
    ck_assert_ptr_nonnull(space);
    ck_assert_ptr_nonnull(space = dz_arena_take(&arena, space->bytes));
    free_bytes += space->bytes;
  }
  ck_assert_ptr_null(dz_bins_find(&arena.free, 512));
  ck_stats(stats.mapped_bytes, stats.mapped_bytes, stats.mapped_bytes, 0);
}
END_TEST

/* ---- growth in the background */

START_TEST(growth_does_not_wait) {
  driver.CtxSetCurrent = stand_before_touching;
  struct range *space = grow(8 * MIB);
  await_arrival();
  ck_stats(8 * MIB, 8 * MIB, 0, 0);
  ck_assert_uint_eq(proc_bytes("/proc/self/smaps", "Rss", space->base, dz_range_end(space)), 0);
  let_pass();
  ck_ok(dz_arena_wait(&arena, space, 8 * MIB));
  ck_stats(8 * MIB, 8 * MIB, 8 * MIB, 0);
  ck_assert_uint_eq(proc_bytes("/proc/self/smaps", "Rss", space->base, dz_range_end(space)), 8 * MIB);
}
END_TEST

START_TEST(the_first_piece_can_be_used_while_the_second_comes) {
  driver.MemHostRegister = stand_before_pinning;
  struct range *space = grow(PIECE + 3 * MIB);
  await_arrival();
  let_pass();
  ck_ok(dz_arena_wait(&arena, space, MIB));
  ck_ok(dz_arena_wait(&arena, space, PIECE));
  await_arrival(); /* of the second */
  ck_stats(space->bytes, space->bytes, PIECE, 0);
  ck_assert_uint_eq(dz_space_piece(space, 0), PIECE);
  ck_assert_uint_eq(dz_space_piece(space, PIECE - 512), 512);
  memset(dz_space_memory(space), 1, PIECE);
  let_pass();
  ck_ok(dz_arena_wait(&arena, space, space->bytes));
  ck_assert_uint_eq(dz_space_piece(space, PIECE), 3 * MIB);
  ck_assert(dz_space_is_pinned(space, PIECE));
  ck_stats(space->bytes, space->bytes, space->bytes, 0);
  ck_assert_uint_eq(((unsigned char *)dz_space_memory(space))[PIECE - 1], 1);
}
END_TEST

START_TEST(what_is_not_ready_can_be_given_and_taken) {
  driver.CtxSetCurrent = stand_before_touching;
  struct range *space = grow(4 * MIB), *rest = dz_arena_cut(&arena, space, MIB);
  uint64_t base = space->base;
  dz_arena_give(&arena, space);
  ck_assert_ptr_nonnull(space = dz_arena_take(&arena, MIB));
  ck_assert_uint_eq(space->base, base);
  let_pass();
  ck_ok(dz_arena_wait(&arena, rest, rest->bytes));
  ck_ok(dz_arena_wait(&arena, space, MIB));
  memset(dz_space_memory(space), 1, MIB);
}
END_TEST

static void *wait_for_all(void *space) {
  return (void *)(intptr_t)dz_arena_wait(&arena, space, ((struct range *)space)->bytes);
}

START_TEST(several_threads_wait) {
  enum { WAITERS = 4 };
  pthread_t threads[WAITERS];
  void *status;
  driver.MemHostRegister = stand_before_pinning;
  struct range *space = grow(4 * MIB);
  await_arrival();
  for (int i = 0; i < WAITERS; i++) ck_assert_int_eq(pthread_create(&threads[i], NULL, wait_for_all, space), 0);
  let_pass();
  for (int i = 0; i < WAITERS; i++) {
    ck_assert_int_eq(pthread_join(threads[i], &status), 0);
    ck_assert_int_eq((drowse_status)(intptr_t)status, DROWSE_OK);
  }
}
END_TEST

/* ---- limits */

static void start_limited(void) {
  start_with(8 * MIB, -1);
}

static void start_limited_at_gate(void) {
  start_gated(8 * MIB);
}

static void ck_out_of_memory(uint64_t bytes, uint64_t wanted, uint64_t free_bytes) {
  drowse_error error = {.struct_size = sizeof error};
  uint64_t before = arena.mapped_bytes;
  struct range *space = NULL;
  ck_status(dz_arena_grow(&arena, bytes, &space), DROWSE_ERR_NO_HOST_MEMORY);
  ck_ok(drowse_error_get(&error));
  ck_assert_uint_eq(error.wanted_bytes, wanted);
  ck_assert_uint_eq(error.free_bytes, free_bytes);
  ck_assert_uint_eq(arena.mapped_bytes, before);
  ck_assert_ptr_null(space);
}

START_TEST(the_limit_is_kept) {
  ck_out_of_memory(10 * MIB, 10 * MIB, 8 * MIB);
  (void)grow(6 * MIB);
  ck_out_of_memory(4 * MIB, 4 * MIB, 2 * MIB);
  (void)grow(2 * MIB);
  ck_out_of_memory(512, 4096, 0);
}
END_TEST

START_TEST(growths_at_once_keep_the_limit_together) {
  driver.CtxSetCurrent = stand_before_touching;
  struct range *space = grow(6 * MIB);
  await_arrival();
  ck_out_of_memory(6 * MIB, 6 * MIB, 2 * MIB);
  let_pass();
  ck_ok(dz_arena_wait(&arena, space, space->bytes));
  ck_stats(6 * MIB, 6 * MIB, 6 * MIB, 0);
}
END_TEST

START_TEST(what_the_machine_does_not_have_is_not_touched) {
  static const uint64_t sizes[] = {UINT64_C(1) << 45, UINT64_MAX};
  struct range *space = NULL;
  uint64_t peak = proc_bytes("/proc/self/status", "VmHWM", 0, 0), mapped = proc_bytes("/proc/self/status", "VmPeak", 0, 0);
  ck_assert_uint_gt(peak, 0);
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    ck_status(dz_arena_grow(&arena, sizes[i], &space), DROWSE_ERR_NO_HOST_MEMORY);
    ck_status(dz_arena_reserve(&arena, sizes[i], i == 0), DROWSE_ERR_NO_HOST_MEMORY);
  }
  ck_assert_uint_lt(proc_bytes("/proc/self/status", "VmHWM", 0, 0), peak + 64 * MIB);
  ck_assert_uint_lt(proc_bytes("/proc/self/status", "VmPeak", 0, 0), mapped + 64 * MIB);
  ck_stats(0, 0, 0, 0);
  ck_ok(dz_arena_wait(&arena, grow(MIB), MIB));
}
END_TEST

/* ---- what the system refuses */

START_TEST(without_addresses_nothing_changes) {
  struct rlimit before, low;
  struct range *space = NULL;
  drowse_error error = {.struct_size = sizeof error};
  ck_ok(dz_arena_wait(&arena, grow(4096), 4096)); /* its thread's stack, and slabs, are there */
  ck_assert_int_eq(getrlimit(RLIMIT_AS, &before), 0);
  low = before;
  low.rlim_cur = proc_bytes("/proc/self/status", "VmSize", 0, 0) + 64 * MIB;
  ck_assert_int_eq(setrlimit(RLIMIT_AS, &low), 0);
  drowse_status status = dz_arena_grow(&arena, 512 * MIB, &space);
  ck_assert_int_eq(setrlimit(RLIMIT_AS, &before), 0);
  ck_status(status, DROWSE_ERR_NO_HOST_MEMORY);
  ck_ok(drowse_error_get(&error));
  ck_assert_int_eq(error.system_errno, ENOMEM);
  ck_stats(4096, 4096, 4096, 0);
  ck_ok(dz_arena_wait(&arena, grow(4 * MIB), 4 * MIB));
}
END_TEST

/* None at all: the calling thread does everything, and is left as it was. One: it does the touching too. */
START_TEST(threads_that_cannot_be_started_are_done_without) {
  for (int allowed = 0; allowed < 4; allowed++) {
    CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
    CUcontext current;
    ck_assert_int_eq(driver.CtxSetCurrent(NULL), CUDA_SUCCESS);
    threads_allowed = allowed;
    struct range *space = grow(65 * MIB);
    ck_ok(dz_arena_wait(&arena, space, space->bytes));
    ck_assert(dz_space_is_pinned(space, 0));
    ck_stats((unsigned)(allowed + 1) * 65 * MIB, (unsigned)(allowed + 1) * 65 * MIB, (unsigned)(allowed + 1) * 65 * MIB, 0);
    ck_assert_int_eq(driver.CtxGetCurrent(&current), CUDA_SUCCESS);
    ck_assert_ptr_null(current);
    ck_assert_int_eq(driver.CtxSetCurrent(context), CUDA_SUCCESS);
    ck_assert_int_eq(driver.ThreadExchangeStreamCaptureMode(&mode), CUDA_SUCCESS);
    ck_assert_int_eq(mode, CU_STREAM_CAPTURE_MODE_GLOBAL);
  }
}
END_TEST

START_TEST(the_calling_thread_says_at_once_what_fails) {
  struct range *space = NULL;
  threads_allowed = 0;
  touch_code = ENOMEM;
  ck_status(dz_arena_grow(&arena, 65 * MIB, &space), DROWSE_ERR_NO_HOST_MEMORY);
  ck_stats(0, 0, 0, 0);
  touch_code = 0;
  ck_ok(dz_arena_wait(&arena, grow(4 * MIB), 4 * MIB));
}
END_TEST

/* The kernel gives the first piece, and not all of the second. */
START_TEST(who_waits_learns_that_touching_failed) {
  drowse_error error = {.struct_size = sizeof error};
  driver.CtxSetCurrent = stand_before_touching;
  struct range *space = grow(PIECE + 32 * MIB);
  struct range *second = dz_arena_cut(&arena, space, PIECE), *third = dz_arena_cut(&arena, second, MIB);
  uint64_t base = space->base, end = dz_range_end(third);
  dz_arena_give(&arena, third); /* free when it fails */
  untouchable = end - 1;
  touch_code = EHWPOISON;
  await_arrival();
  let_pass();
  ck_status(dz_arena_wait(&arena, second, MIB), DROWSE_ERR_NO_HOST_MEMORY);
  ck_ok(drowse_error_get(&error));
  ck_assert_int_eq(error.system_errno, EHWPOISON);
  ck_assert_ptr_null(dz_arena_take(&arena, 512)); /* what fails is not given out */
  dz_arena_give(&arena, space);
  ck_assert_ptr_null(dz_arena_take(&arena, 512));
  ck_assert(is_mapped(base));
  dz_arena_give(&arena, second);
  ck_ok(dz_arena_trim(&arena, UINT64_MAX)); /* trims nothing, and waits until it is gone */
  ck_stats(0, 0, 0, 0);
  ck_assert(!is_mapped(base) && !is_mapped(end - 1));
  touch_code = 0;
  let_pass();
  ck_ok(dz_arena_wait(&arena, grow(4 * MIB), 4 * MIB));
}
END_TEST

START_TEST(what_came_before_a_failure_is_good) {
  driver.MemHostRegister = stand_before_pinning;
  threads_allowed = 1; /* so that things are done in order */
  touch_code = ENOMEM;
  untouchable = UINT64_MAX;
  struct range *space = grow(2 * PIECE);
  await_arrival(); /* the first piece has been touched */
  untouchable = space->base + PIECE;
  let_pass();
  ck_status(dz_arena_wait(&arena, space, 2 * PIECE), DROWSE_ERR_NO_HOST_MEMORY);
  ck_ok(dz_arena_wait(&arena, space, PIECE));
  ck_stats(2 * PIECE, 2 * PIECE, PIECE, 0);
  memset(dz_space_memory(space), 1, PIECE);
  dz_arena_give(&arena, space);
}
END_TEST

/* Were the claims of failed growth kept, the machine would soon have no more. */
START_TEST(what_was_not_touched_is_not_claimed_any_more) {
  uint64_t bytes = dz_host_available() / 4 & ~(MIB - 1);
  touch_code = ENOMEM;
  for (int i = 0; i < 12; i++) {
    drowse_error error = {.struct_size = sizeof error};
    struct range *space = grow(bytes);
    ck_status(dz_arena_wait(&arena, space, bytes), DROWSE_ERR_NO_HOST_MEMORY);
    ck_ok(drowse_error_get(&error));
    ck_assert_int_eq(error.system_errno, ENOMEM);
    dz_arena_give(&arena, space);
    ck_ok(dz_arena_trim(&arena, 0));
  }
}
END_TEST

static uint64_t huge_bytes(void) {
  struct arena_stats stats;
  dz_arena_stats(&arena, &stats);
  return stats.huge_bytes;
}

START_TEST(huge_pages_are_counted) {
  struct range *space = grow(65 * MIB);
  ck_ok(dz_arena_wait(&arena, space, space->bytes));
  ck_assert_uint_eq(huge_bytes(), proc_bytes("/proc/self/smaps", "AnonHugePages", space->base, dz_range_end(space)));
}
END_TEST

START_TEST(without_huge_pages_small_ones_serve) {
  huge_refused = true;
  struct range *space = grow(PIECE);
  ck_ok(dz_arena_wait(&arena, space, space->bytes));
  if (huge_bytes() == 0) ck_assert_uint_gt(small_wishes, 0); /* else the machine gives them unasked */
  ck_stats(PIECE, PIECE, PIECE, 0);
}
END_TEST

/* By the clock that the arena sees each slice takes a second. */
START_TEST(where_huge_pages_come_slowly_the_rest_is_small) {
  threads_allowed = 1;
  clock_step = 1000000000;
  struct range *space = grow(PIECE);
  ck_ok(dz_arena_wait(&arena, space, space->bytes));
  ck_assert_uint_ge(small_wishes, PIECE / SLICE - 2);
  ck_assert_uint_le(huge_bytes(), 2 * SLICE);
  ck_stats(PIECE, PIECE, PIECE, 0);
}
END_TEST

/* ---- what the driver refuses */

START_TEST(memory_that_cannot_be_pinned_serves_too) {
  listen();
  driver.MemHostRegister = refuse_to_pin;
  struct range *space = grow(PIECE + MIB);
  ck_ok(dz_arena_wait(&arena, space, space->bytes));
  ck_assert_uint_eq(warnings, 1); /* not one for each piece */
  ck_stats(space->bytes, space->bytes, 0, space->bytes);
  ck_assert(!dz_space_is_pinned(space, 0) && !dz_space_is_pinned(space, PIECE));
  memset(dz_space_memory(space), 1, space->bytes);
}
END_TEST

static atomic_uint pins;

static CUresult pin_once(void *host, size_t bytes, unsigned int flags) {
  return atomic_fetch_add(&pins, 1) == 0 ? device.driver.MemHostRegister(host, bytes, flags) : CUDA_ERROR_OUT_OF_MEMORY;
}

START_TEST(what_was_pinned_before_one_was_refused_stays_so) {
  pins = 0;
  driver.MemHostRegister = pin_once;
  struct range *space = grow(2 * PIECE + MIB);
  ck_ok(dz_arena_wait(&arena, space, space->bytes));
  ck_assert_uint_eq(pins, 2);
  ck_stats(space->bytes, space->bytes, PIECE, PIECE + MIB);
  ck_assert(dz_space_is_pinned(space, PIECE - 1) && !dz_space_is_pinned(space, PIECE) && !dz_space_is_pinned(space, 2 * PIECE));
}
END_TEST

static CUresult refuse_context(CUcontext wanted) {
  (void)wanted;
  return CUDA_ERROR_INVALID_CONTEXT;
}

START_TEST(without_a_context_nothing_is_pinned) {
  listen();
  driver.CtxSetCurrent = refuse_context;
  struct range *space = grow(MIB);
  ck_ok(dz_arena_wait(&arena, space, MIB));
  ck_stats(MIB, MIB, 0, MIB);
  ck_assert_uint_eq(warnings, 1);
}
END_TEST

/* A capture in global mode anywhere forbids pinning to threads in that mode. */
START_TEST(captures_go_on_while_it_grows) {
  CUstream stream;
  CUgraph graph;
  ck_assert_int_eq(driver.StreamCreate(&stream, CU_STREAM_NON_BLOCKING), CUDA_SUCCESS);
  ck_assert_int_eq(driver.StreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_SUCCESS);
  ck_ok(dz_arena_wait(&arena, grow(MIB), MIB));
  threads_allowed = 0; /* and on the calling thread */
  ck_ok(dz_arena_wait(&arena, grow(MIB), MIB));
  ck_stats(2 * MIB, 2 * MIB, 2 * MIB, 0);
  ck_assert_int_eq(driver.StreamEndCapture(stream, &graph), CUDA_SUCCESS);
  ck_assert_int_eq(driver.GraphDestroy(graph), CUDA_SUCCESS);
  ck_assert_int_eq(driver.StreamDestroy(stream), CUDA_SUCCESS);
}
END_TEST

/* ---- the end meanwhile */

static void await_end(void) {
  (void)sem_post(&arrived);
  for (bool ending = false; !ending; (void)sched_yield()) {
    dz_lock(&arena.lock);
    ending = arena.ending;
    dz_unlock(&arena.lock);
  }
}

static CUresult await_end_before_touching(CUcontext wanted) {
  await_end();
  return device.driver.CtxSetCurrent(wanted);
}

static CUresult await_end_before_pinning(void *host, size_t bytes, unsigned int flags) {
  await_end();
  (void)atomic_fetch_add(&pins, 1);
  return device.driver.MemHostRegister(host, bytes, flags);
}

/* It goes on with no more than what is under way. finish() looks at what is left. */
static void ck_end(unsigned expected) {
  pins = 0;
  struct range *space = grow(3 * PIECE);
  ends_at = space->base;
  dz_arena_give(&arena, space);
  await_arrival();
  finish();
  ck_assert_uint_eq(pins, expected);
  start();
}

START_TEST(it_can_end_before_it_has_grown) {
  driver.CtxSetCurrent = await_end_before_touching;
  driver.MemHostRegister = await_end_before_pinning;
  ck_end(0);
}
END_TEST

START_TEST(it_can_end_while_it_grows) {
  driver.MemHostRegister = await_end_before_pinning;
  ck_end(1);
}
END_TEST

START_TEST(it_can_end_when_it_has_failed) {
  touch_code = ENOMEM;
  struct range *space = grow(MIB);
  ck_status(dz_arena_wait(&arena, space, MIB), DROWSE_ERR_NO_HOST_MEMORY);
  ends_at = space->base;
}
END_TEST

/* ---- reserving */

START_TEST(only_what_is_missing_is_reserved) {
  ck_ok(dz_arena_reserve(&arena, 0, true));
  ck_stats(0, 0, 0, 0);
  ck_ok(dz_arena_reserve(&arena, 3 * MIB, true));
  ck_stats(3 * MIB, 0, 3 * MIB, 0);
  ck_ok(dz_arena_reserve(&arena, 2 * MIB, true));
  ck_stats(3 * MIB, 0, 3 * MIB, 0);
  struct range *space = dz_arena_take(&arena, MIB);
  ck_ok(dz_arena_reserve(&arena, 3 * MIB, true));
  ck_stats(4 * MIB, MIB, 4 * MIB, 0);
  dz_arena_give(&arena, space);
}
END_TEST

START_TEST(reserving_does_not_wait_if_it_need_not) {
  driver.CtxSetCurrent = stand_before_touching;
  ck_ok(dz_arena_reserve(&arena, 3 * MIB, false));
  ck_stats(3 * MIB, 0, 0, 0);
  let_pass();
  ck_ok(dz_arena_reserve(&arena, 3 * MIB, true)); /* what is on its way counts, and is waited for */
  ck_stats(3 * MIB, 0, 3 * MIB, 0);
}
END_TEST

START_TEST(what_cannot_be_reserved_is_said) {
  ck_status(dz_arena_reserve(&arena, 9 * MIB, true), DROWSE_ERR_NO_HOST_MEMORY);
  ck_status(dz_arena_reserve(&arena, 9 * MIB, false), DROWSE_ERR_NO_HOST_MEMORY);
  touch_code = ENOMEM;
  ck_status(dz_arena_reserve(&arena, 8 * MIB, true), DROWSE_ERR_NO_HOST_MEMORY);
  ck_ok(dz_arena_trim(&arena, 0));
  ck_stats(0, 0, 0, 0);
}
END_TEST

/* ---- several threads at once */

enum { THREADS = 4, THREAD_ROUNDS = 40 };
static atomic_bool stop;

static bool fill_and_look(struct range *space, unsigned char mark) {
  unsigned char *memory = dz_space_memory(space);
  memset(memory, mark, space->bytes);
  (void)sched_yield();
  uint64_t at = 0;
  while (at < space->bytes && memory[at] == mark) at++;
  return at == space->bytes;
}

static bool grow_and_use(unsigned char mark, uint64_t bytes) {
  struct range *space, *rest;
  struct arena_stats stats;
  if (dz_arena_grow(&arena, bytes, &space) != DROWSE_OK) return drowse_last_error()[0] != '\0'; /* the limit */
  rest = dz_arena_cut(&arena, space, 4096);
  bool good = rest != NULL && dz_arena_wait(&arena, space, 4096) == DROWSE_OK && fill_and_look(space, mark);
  dz_arena_give(&arena, space);
  good &= dz_arena_wait(&arena, rest, rest->bytes) == DROWSE_OK && fill_and_look(rest, mark);
  dz_arena_stats(&arena, &stats);
  good &= stats.mapped_bytes <= 64 * MIB;
  dz_arena_give(&arena, rest);
  return good;
}

static void *use_arena(void *number) {
  unsigned char mark = *(unsigned char *)number;
  uint64_t state = mark;
  bool good = true;
  for (int round = 0; round < THREAD_ROUNDS && good; round++) {
    struct range *space = dz_arena_take(&arena, 8192);
    good = grow_and_use(mark, (2 + random_below(&state, 1500)) * 4096);
    if (space == NULL) continue;
    good &= dz_arena_wait(&arena, space, 8192) == DROWSE_OK && fill_and_look(space, mark);
    dz_arena_give(&arena, space);
  }
  return good ? number : NULL;
}

static void *trim_arena(void *nothing) {
  (void)device.driver.CtxSetCurrent(context);
  while (!stop) {
    if (dz_arena_trim(&arena, 0) != DROWSE_OK) return NULL;
    if (dz_arena_reserve(&arena, MIB, false) != DROWSE_OK && drowse_last_error()[0] == '\0') return NULL;
  }
  (void)device.driver.CtxSetCurrent(NULL);
  return nothing;
}

static void start_crowded(void) {
  start_with(64 * MIB, -1);
}

START_TEST(threads_share_it) {
  static unsigned char numbers[THREADS] = {1, 2, 3, 4};
  pthread_t threads[THREADS], trimmer;
  void *result;
  stop = false;
  ck_assert_int_eq(pthread_create(&trimmer, NULL, trim_arena, numbers), 0);
  for (int i = 0; i < THREADS; i++) ck_assert_int_eq(pthread_create(&threads[i], NULL, use_arena, &numbers[i]), 0);
  for (int i = 0; i < THREADS; i++) {
    ck_assert_int_eq(pthread_join(threads[i], &result), 0);
    ck_assert_ptr_nonnull(result);
  }
  stop = true;
  ck_assert_int_eq(pthread_join(trimmer, &result), 0);
  ck_assert_ptr_nonnull(result);
  ck_ok(dz_arena_trim(&arena, 0));
  ck_stats(0, 0, 0, 0);
}
END_TEST

static void *ask_for_too_much(void *number) {
  struct range *space;
  bool refused = true;
  for (int i = 0; i < 1000 && refused; i++)
    refused = dz_arena_grow(&arena, UINT64_C(1) << 45, &space) == DROWSE_ERR_NO_HOST_MEMORY;
  return refused ? number : NULL;
}

START_TEST(threads_that_are_refused_leave_nothing_charged) {
  static unsigned char number;
  pthread_t threads[THREADS];
  void *result;
  for (int i = 0; i < THREADS; i++) ck_assert_int_eq(pthread_create(&threads[i], NULL, ask_for_too_much, &number), 0);
  for (int i = 0; i < THREADS; i++) {
    ck_assert_int_eq(pthread_join(threads[i], &result), 0);
    ck_assert_ptr_nonnull(result);
  }
  ck_stats(0, 0, 0, 0);
}
END_TEST

/* ---- a node */

static void start_on_node(void) {
  start_with(0, 0);
}

START_TEST(a_node_is_preferred) {
  struct range *space = grow(4 * MIB);
  ck_ok(dz_arena_wait(&arena, space, 4 * MIB));
  ck_stats(4 * MIB, 4 * MIB, 4 * MIB, 0);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("arena");
  BACKUP_TEST(suite, an_empty_arena_has_nothing, start);
  BACKUP_TEST(suite, what_was_grown_is_ready_pinned_and_exact, start);
  BACKUP_TEST(suite, what_was_given_is_joined_again, start);
  BACKUP_TEST(suite, what_is_cut_lies_side_by_side_and_is_joined_again, start);
  BACKUP_TEST(suite, without_memory_for_metadata_nothing_changes, start);
  BACKUP_TEST(suite, spaces_never_overlap, start);
  BACKUP_TEST(suite, growth_does_not_wait, start_at_gate);
  BACKUP_TEST(suite, the_first_piece_can_be_used_while_the_second_comes, start_at_gate);
  BACKUP_TEST(suite, what_is_not_ready_can_be_given_and_taken, start_at_gate);
  BACKUP_TEST(suite, several_threads_wait, start_at_gate);
  BACKUP_TEST(suite, the_limit_is_kept, start_limited);
  BACKUP_TEST(suite, growths_at_once_keep_the_limit_together, start_limited_at_gate);
  BACKUP_TEST(suite, what_the_machine_does_not_have_is_not_touched, start);
  BACKUP_TEST(suite, without_addresses_nothing_changes, start);
  BACKUP_TEST(suite, threads_that_cannot_be_started_are_done_without, start);
  BACKUP_TEST(suite, the_calling_thread_says_at_once_what_fails, start);
  BACKUP_TEST(suite, who_waits_learns_that_touching_failed, start_at_gate);
  BACKUP_TEST(suite, what_came_before_a_failure_is_good, start_at_gate);
  BACKUP_TEST(suite, what_was_not_touched_is_not_claimed_any_more, start);
  BACKUP_TEST(suite, huge_pages_are_counted, start);
  BACKUP_TEST(suite, without_huge_pages_small_ones_serve, start);
  BACKUP_TEST(suite, where_huge_pages_come_slowly_the_rest_is_small, start);
  BACKUP_TEST(suite, memory_that_cannot_be_pinned_serves_too, start);
  BACKUP_TEST(suite, what_was_pinned_before_one_was_refused_stays_so, start);
  BACKUP_TEST(suite, without_a_context_nothing_is_pinned, start);
  BACKUP_TEST(suite, captures_go_on_while_it_grows, start);
  BACKUP_TEST(suite, it_can_end_before_it_has_grown, start_at_gate);
  BACKUP_TEST(suite, it_can_end_while_it_grows, start_at_gate);
  BACKUP_TEST(suite, it_can_end_when_it_has_failed, start);
  BACKUP_TEST(suite, only_what_is_missing_is_reserved, start);
  BACKUP_TEST(suite, reserving_does_not_wait_if_it_need_not, start_at_gate);
  BACKUP_TEST(suite, what_cannot_be_reserved_is_said, start_limited);
  BACKUP_TEST(suite, threads_share_it, start_crowded);
  BACKUP_TEST(suite, threads_that_are_refused_leave_nothing_charged, start);
  BACKUP_TEST(suite, a_node_is_preferred, start_on_node);
  return harness_run(suite);
}
