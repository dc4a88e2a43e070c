/* SPDX-License-Identifier: Apache-2.0
 *
 * The arena: spaces against an oracle, the limit, and that refused memory is never touched.
 */
#include "backup/arena.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/error.h"
#include "driver/device.h"
#include "driver/host.h"
#include "harness.h"

#define KIB (UINT64_C(1) << 10)
#define MIB (UINT64_C(1) << 20)

static struct device device;
static struct driver driver; /* the device's; a test may change entries */
static struct arena arena;

static uint64_t registered_bytes(void) {
  struct host_counts counts;
  dz_host_counts(&counts);
  return counts.registered_bytes;
}

static void start_with(uint64_t limit) {
  CUcontext context;
  ck_ok(dz_device_open(&device, "host:64MiB"));
  driver = device.driver;
  ck_assert_int_eq(driver.DevicePrimaryCtxRetain(&context, device.ordinal), CUDA_SUCCESS);
  ck_assert_int_eq(driver.CtxSetCurrent(context), CUDA_SUCCESS);
  ck_assert_int_eq(dz_arena_init(&arena, &driver, limit), 0);
}

static void start(void) {
  start_with(0);
}

static void finish(void) {
  struct host_counts counts;
  dz_arena_end(&arena);
  dz_host_counts(&counts);
  ck_assert_uint_eq(counts.registered, 0);
  ck_assert_uint_eq(counts.registered_bytes, 0);
  ck_assert_int_eq(driver.CtxSetCurrent(NULL), CUDA_SUCCESS);
  ck_assert_int_eq(driver.DevicePrimaryCtxRelease(device.ordinal), CUDA_SUCCESS);
}

START_TEST(an_empty_arena_has_nothing) {
  ck_assert_ptr_null(dz_arena_take(&arena, 512));
  ck_assert_uint_eq(dz_arena_pinned_bytes(&arena), 0);
}
END_TEST

START_TEST(what_was_grown_is_found) {
  static const uint64_t sizes[] = {512, 4096, 4608, 2 * MIB - 512, 2 * MIB, 2 * MIB + 512, 9 * MIB};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    uint64_t before = arena.chunk_bytes;
    ck_ok(dz_arena_grow(&arena, sizes[i]));
    ck_assert_uint_ge(arena.chunk_bytes - before, sizes[i]);
    ck_assert_uint_eq(dz_arena_pinned_bytes(&arena), arena.chunk_bytes);
    ck_assert_uint_eq(registered_bytes(), arena.chunk_bytes);
  }
  struct range *spaces[sizeof sizes / sizeof *sizes];
  for (size_t i = sizeof sizes / sizeof *sizes; i-- > 0;) { /* the largest first: each finds its own */
    spaces[i] = dz_arena_take(&arena, sizes[i]);
    ck_assert_ptr_nonnull(spaces[i]);
    ck_assert_uint_eq(spaces[i]->bytes, sizes[i]);
    memset(dz_space_memory(spaces[i]), (int)i, sizes[i]);
  }
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) dz_arena_give(&arena, spaces[i]);
}
END_TEST

START_TEST(what_was_given_is_joined_again) {
  enum { PIECES = 64 };
  struct range *spaces[PIECES];
  ck_ok(dz_arena_grow(&arena, 4 * MIB));
  for (int i = 0; i < PIECES; i++) ck_assert_ptr_nonnull(spaces[i] = dz_arena_take(&arena, 64 * KIB));
  ck_assert_ptr_null(dz_arena_take(&arena, 512));
  for (int i = 0; i < PIECES; i += 2) dz_arena_give(&arena, spaces[i]);
  ck_assert_ptr_null(dz_arena_take(&arena, 64 * KIB + 512));
  for (int i = 1; i < PIECES; i += 2) dz_arena_give(&arena, spaces[i]);
  struct range *whole = dz_arena_take(&arena, 4 * MIB);
  ck_assert_ptr_nonnull(whole);
  dz_arena_give(&arena, whole);
  ck_assert_uint_eq(arena.chunk_bytes, 4 * MIB); /* kept for the next one */
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

START_TEST(spaces_never_overlap) {
  unsigned long long state = 1;
  uint64_t in_use = 0;
  for (unsigned round = 0; round < ROUNDS; round++) {
    state = state * UINT64_C(6364136223846793005) + 1;
    struct held *one = &held[(state >> 33) % SPACES];
    if (one->space != NULL) {
      if (one->space->bytes != one->bytes || !is_marked(one)) ck_abort_msg("round %u: another's bytes", round);
      dz_arena_give(&arena, one->space);
      in_use -= one->bytes;
      one->space = NULL;
      continue;
    }
    one->bytes = (1 + (state >> 40) % (round % 8 == 0 ? 512 : 16)) * 512;
    while ((one->space = dz_arena_take(&arena, one->bytes)) == NULL) ck_ok(dz_arena_grow(&arena, one->bytes));
    one->mark = (unsigned char)(round % 255 + 1);
    memset(dz_space_memory(one->space), one->mark, one->bytes);
    in_use += one->bytes;
    if (in_use > arena.chunk_bytes) ck_abort_msg("round %u: more is in use than there is", round);
  }
  for (int i = 0; i < SPACES; i++) {
    if (held[i].space != NULL) dz_arena_give(&arena, held[i].space);
  }
  uint64_t free_bytes = 0, chunks = arena.chunk_bytes;
  for (unsigned i = 0; free_bytes < chunks; i++) { /* all that was mapped can be had again, and not a byte more */
    struct range *space = dz_bins_find(&arena.free, 512);
    ck_assert_ptr_nonnull(space);
    space = dz_arena_take(&arena, space->bytes);
    ck_assert_ptr_nonnull(space);
    free_bytes += space->bytes;
  }
  ck_assert_uint_eq(free_bytes, chunks);
  ck_assert_ptr_null(dz_bins_find(&arena.free, 512));
}
END_TEST

/* ---- limits */

static void start_limited(void) {
  start_with(8 * MIB);
}

static void ck_out_of_memory(uint64_t bytes, uint64_t wanted, uint64_t free_bytes) {
  drowse_error error = {.struct_size = sizeof error};
  uint64_t before = arena.chunk_bytes;
  ck_status(dz_arena_grow(&arena, bytes), DROWSE_ERR_NO_HOST_MEMORY);
  ck_ok(drowse_error_get(&error));
  ck_assert_uint_eq(error.wanted_bytes, wanted);
  ck_assert_uint_eq(error.free_bytes, free_bytes);
  ck_assert_uint_eq(arena.chunk_bytes, before);
  ck_assert_uint_eq(registered_bytes(), before);
}

START_TEST(the_limit_is_kept) {
  ck_out_of_memory(10 * MIB, 10 * MIB, 8 * MIB);
  ck_ok(dz_arena_grow(&arena, 6 * MIB));
  ck_out_of_memory(4 * MIB, 4 * MIB, 2 * MIB);
  ck_ok(dz_arena_grow(&arena, 2 * MIB));
  ck_out_of_memory(512, 4096, 0);
}
END_TEST

static drowse_status nested_status;
static bool nested;

/* Another growth, while the one that calls this is on its way. */
static CUresult grow_meanwhile(void *host, size_t bytes, unsigned int flags) {
  if (!nested) {
    nested = true;
    nested_status = dz_arena_grow(&arena, 6 * MIB);
  }
  return device.driver.MemHostRegister(host, bytes, flags);
}

START_TEST(growths_at_once_keep_the_limit_together) {
  nested = false;
  driver.MemHostRegister = grow_meanwhile;
  ck_ok(dz_arena_grow(&arena, 6 * MIB));
  ck_status(nested_status, DROWSE_ERR_NO_HOST_MEMORY);
  ck_assert_uint_eq(arena.chunk_bytes, 6 * MIB);
}
END_TEST

/* A line of /proc/self/status, bytes. */
static uint64_t process_bytes(const char *name) {
  char line[256];
  uint64_t kibibytes = 0;
  FILE *file = fopen("/proc/self/status", "re");
  ck_assert_ptr_nonnull(file);
  while (fgets(line, sizeof line, file) != NULL) {
    if (strncmp(line, name, strlen(name)) == 0) (void)sscanf(line + strlen(name), ": %" SCNu64, &kibibytes);
  }
  (void)fclose(file);
  return kibibytes * 1024;
}

START_TEST(what_the_machine_does_not_have_is_not_touched) {
  uint64_t peak = process_bytes("VmHWM"), mapped = process_bytes("VmPeak");
  ck_assert_uint_gt(peak, 0);
  ck_status(dz_arena_grow(&arena, UINT64_C(1) << 45), DROWSE_ERR_NO_HOST_MEMORY);
  ck_assert_uint_lt(process_bytes("VmHWM"), peak + 64 * MIB);
  ck_assert_uint_lt(process_bytes("VmPeak"), mapped + 64 * MIB);
  ck_assert_uint_eq(arena.chunk_bytes, 0);
  ck_ok(dz_arena_grow(&arena, MIB));
}
END_TEST

static CUresult refuse_to_pin(void *host, size_t bytes, unsigned int flags) {
  (void)host;
  (void)bytes;
  (void)flags;
  return CUDA_ERROR_INVALID_VALUE;
}

START_TEST(memory_that_cannot_be_pinned_serves_too) {
  driver.MemHostRegister = refuse_to_pin;
  ck_ok(dz_arena_grow(&arena, MIB));
  ck_assert_uint_eq(dz_arena_pinned_bytes(&arena), 0);
  struct range *space = dz_arena_take(&arena, MIB);
  ck_assert_ptr_nonnull(space);
  memset(dz_space_memory(space), 1, MIB);
  dz_arena_give(&arena, space);
}
END_TEST

#define ARENA_TEST(suite, test, before)                   \
  do {                                                    \
    TCase *test_case = tcase_create(#test);               \
    tcase_add_checked_fixture(test_case, before, finish); \
    tcase_set_timeout(test_case, 120);                    \
    tcase_add_test(test_case, test);                      \
    suite_add_tcase(suite, test_case);                    \
  } while (0)

int main(void) {
  Suite *suite = suite_create("arena");
  ARENA_TEST(suite, an_empty_arena_has_nothing, start);
  ARENA_TEST(suite, what_was_grown_is_found, start);
  ARENA_TEST(suite, what_was_given_is_joined_again, start);
  ARENA_TEST(suite, spaces_never_overlap, start);
  ARENA_TEST(suite, the_limit_is_kept, start_limited);
  ARENA_TEST(suite, growths_at_once_keep_the_limit_together, start_limited);
  ARENA_TEST(suite, what_the_machine_does_not_have_is_not_touched, start);
  ARENA_TEST(suite, memory_that_cannot_be_pinned_serves_too, start);
  return harness_run(suite);
}
