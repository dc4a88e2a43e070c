/* SPDX-License-Identifier: Apache-2.0
 *
 * DROWSE_DEBUG_POISON=1: writes to freed memory are found. Debug builds only.
 */
#include "fixture.h"

#include "heap/stream.h"

enum { SKIPPED = 77 };

static void start_poisoning(void) {
  ck_assert_int_eq(setenv("DROWSE_DEBUG_POISON", "1", 1), 0);
  start();
  ck_assert_int_eq(unsetenv("DROWSE_DEBUG_POISON"), 0);
}

static CUdeviceptr address(const void *ptr) {
  return (CUdeviceptr)(uintptr_t)ptr;
}

START_TEST(a_write_after_free_is_found) {
  char *ptr = alloc_tag("a", 3 * MIB);
  void *again = ptr;
  drowse_alloc_options options = {.struct_size = sizeof options, .tag = "a"};
  ck_ok(drowse_free(heap, ptr));
  ck_cu(MemsetD8Async(address(ptr + 5000), 1, 1, NULL));
  ck_cu(StreamSynchronize(NULL));
  ck_status(drowse_alloc_with(heap, 3 * MIB, NULL, &options, &again), DROWSE_ERR_CORRUPT);
  ck_says("5000 bytes");
  ck_assert_ptr_null(again);
  ck_assert_uint_eq(stats_of("a").live_blocks, 0);
  ck_assert_ptr_eq(alloc_tag("a", 3 * MIB), ptr); /* told once, and usable */
}
END_TEST

START_TEST(who_keeps_to_the_rules_is_not_accused) {
  CUstream stream = make_stream();
  char *blocks[32];
  uint64_t random = 1;
  for (int i = 0; i < 32; i++) blocks[i] = alloc_on("a", (1 + random_below(&random, 3000)) * 512, i % 2 == 0 ? stream : NULL);
  for (int round = 0; round < 600; round++) {
    uint64_t i = random_below(&random, 32), bytes = 1 + random_below(&random, MIB);
    ck_ok(drowse_free(heap, blocks[i]));
    blocks[i] = alloc_on("a", bytes, i % 2 == 0 ? stream : NULL);
    ck_cu(MemsetD8Async(address(blocks[i]), (unsigned char)round, bytes, i % 2 == 0 ? stream : NULL));
    if (round % 150 == 149) {
      ck_ok(sleep_tag("a", DROWSE_OFFLOAD));
      ck_ok(wake_tag("a"));
    }
    if (round % 90 == 89) ck_ok(drowse_trim(heap, 0));
  }
  drop_stream(stream);
}
END_TEST

/* Another stream may still read what was freed: its bytes stay until it is done. */
START_TEST(what_other_streams_use_is_left_alone) {
  struct gate gate;
  CUstream other = make_stream();
  char *ptr = alloc_tag("a", MIB), *copy = alloc_tag("a", MIB);
  write_pattern(ptr, MIB, 1);
  ck_ok(drowse_record_stream(heap, ptr, other));
  close_gate(&gate, other);
  ck_cu(MemcpyDtoDAsync(address(copy), address(ptr), MIB, other));
  ck_ok(drowse_free(heap, ptr));
  open_gate(&gate);
  ck_cu(StreamSynchronize(other));
  ck_assert(has_pattern(copy, MIB, 1));
  drop_stream(other);
}
END_TEST

#define POISON_TEST(suite, test) HARNESS_FIXTURE_TEST(suite, test, start_poisoning, finish)

int main(void) {
  if (!DZ_DEBUG) return SKIPPED;
  Suite *suite = suite_create("poison");
  POISON_TEST(suite, a_write_after_free_is_found);
  POISON_TEST(suite, who_keeps_to_the_rules_is_not_accused);
  POISON_TEST(suite, what_other_streams_use_is_left_alone);
  return harness_run(suite);
}
