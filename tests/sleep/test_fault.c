/* SPDX-License-Identifier: Apache-2.0
 *
 * Sleep and wake when the driver fails: call number k of them fails, for every k, once. After each: all or none, every byte in
 * its place, the error said, and the next try works. What the driver would not take back is counted, and goes at the latest with
 * the heap.
 */
#include "driver/faults.h"
#include "fixture.h"

enum { BLOCKS = 6, BYTES = 200 * 1024 + 3, KEPT_CALLS = 200 };

static void *block[BLOCKS];
static atomic_uint_fast64_t calls;   /* by several threads: one pins while another copies */
static atomic_uint_fast64_t failing; /* the call that fails; 0: none */
static const char *_Atomic failed;   /* its name; NULL: none has yet */

static bool fails(const char *name) {
  if (atomic_fetch_add(&calls, 1) + 1 != failing) return false;
  failed = name;
  return true;
}

#define FAULTY(name, parameters, arguments)                                         \
  static CUresult faulty_##name parameters {                                        \
    return fails(#name) ? CUDA_ERROR_INVALID_VALUE : dz_host_driver.name arguments; \
  }
SLEEP_FAULTS(FAULTY)
#undef FAULTY

static void arm(uint64_t call) {
  calls = 0;
  failing = call;
  failed = NULL;
#define ENTRY(name, parameters, arguments) heap->device.driver.name = faulty_##name;
  SLEEP_FAULTS(ENTRY)
#undef ENTRY
}

/* Not while a thread still pins: trimming waits for that, and with all of it kept does nothing else. */
static void disarm(void) {
  failing = 0;
  ck_ok(drowse_backup_trim(heap, UINT64_MAX));
  heap->device.driver = dz_host_driver;
}

static void make_blocks(void) {
  static const char *const tags[] = {"a", "b"};
  for (uint64_t i = 0; i < BLOCKS; i++) {
    drowse_alloc_options options = {
        .struct_size = sizeof options, .tag = tags[i % 2], .expandable = (drowse_expandable)(1 + i % 3 % 2)};
    ck_ok(drowse_alloc_with(heap, BYTES, NULL, &options, &block[i]));
    write_pattern(block[i], BYTES, i);
  }
}

static void ck_whole(void) {
  for (uint64_t i = 0; i < BLOCKS; i++) ck_assert_msg(has_pattern(block[i], BYTES, i), "block %d, after %s", (int)i, failed);
}

static drowse_status sleep_all(void) {
  return drowse_sleep(heap, &(drowse_rule){.action = DROWSE_OFFLOAD}, 1, NULL);
}

/* Runs the operation with every call failing in turn, until it runs without one that does. */
static void sweep(void (*run)(uint64_t call)) {
  bool more = true;
  for (uint64_t call = 1; more; call++) {
    ck_assert_uint_lt(call, KEPT_CALLS);
    open_with((drowse_heap_options){.device = "host:32MiB"});
    make_blocks();
    run(call);
    more = failed != NULL;
    close_heap();
  }
}

/* ---- sleep */

static void ck_slept(drowse_status status, uint64_t call) {
  drowse_stats stats = stats_of(NULL);
  ck_assert_int_eq(stats_of("a").state, stats_of("b").state);
  ck_assert_uint_eq(stats.mapped_bytes == 0 || stats.stuck_bytes != 0, stats.state == DROWSE_ASLEEP);
  if (status == DROWSE_OK) {
    ck_assert_msg(stats.state == DROWSE_ASLEEP, "%s", failed);
    ck_assert_msg(stats.stuck_bytes == 0, "%s, call %d", failed, (int)call);
  } else {
    ck_assert_msg(failed != NULL, "%s", drowse_last_error());
    ck_assert_msg(status == DROWSE_ERR_DRIVER, "%s: %s", failed, drowse_last_error());
    ck_assert_msg((stats.state == DROWSE_ASLEEP) == (stats.stuck_bytes != 0), "%s", failed);
    ck_assert_uint_eq(stats.backup_bytes, stats.state == DROWSE_ASLEEP ? stats.live_bytes : 0);
  }
  ck_whole();
}

static void sleep_with_a_fault(uint64_t call) {
  arm(call);
  drowse_status status = sleep_all();
  disarm();
  ck_slept(status, call);
  ck_ok(sleep_all());
  ck_state(NULL, DROWSE_ASLEEP);
  ck_ok(wake_all_tags());
  ck_whole();
  ck_assert_uint_eq(stats_of(NULL).stuck_bytes, 0);
  ck_ok(drowse_free(heap, alloc_tag("a", 8 * MIB))); /* nothing is lost to it */
}

START_TEST(every_call_of_a_sleep_fails_once) {
  sweep(sleep_with_a_fault);
}
END_TEST

/* ---- wake */

static void wake_with_a_fault(uint64_t call) {
  static const char *const order[] = {"b", "a"};
  ck_ok(sleep_all());
  arm(call);
  drowse_status status = drowse_wake(heap, order, 2, NULL);
  disarm();
  drowse_state a = stats_of("a").state, b = stats_of("b").state;
  if (status == DROWSE_OK) {
    ck_assert(a == DROWSE_AWAKE && b == DROWSE_AWAKE);
  } else {
    ck_assert_msg(failed != NULL && status == DROWSE_ERR_DRIVER, "%s: %s", failed, drowse_last_error());
    ck_assert_msg(a == DROWSE_ASLEEP && (b == DROWSE_AWAKE || b == DROWSE_ASLEEP), "%s", failed);
    ck_assert_uint_eq(stats_of("a").backup_bytes, stats_of("a").live_bytes);
    ck_assert_uint_eq(stats_of("a").mapped_bytes, stats_of("a").stuck_bytes);
  }
  ck_whole();
  ck_ok(drowse_wake(heap, order, 2, NULL));
  ck_whole();
  ck_assert_uint_eq(stats_of(NULL).backup_bytes, 0);
  ck_ok(drowse_trim(heap, 0));
  ck_assert_uint_eq(stats_of(NULL).stuck_bytes, 0);
}

START_TEST(every_call_of_a_wake_fails_once) {
  sweep(wake_with_a_fault);
}
END_TEST

/* ---- a driver that never takes anything back, until it does */

static CUresult refuse_to_unmap(CUdeviceptr ptr, size_t size) {
  (void)ptr;
  (void)size;
  return CUDA_ERROR_NOT_PERMITTED;
}

static CUresult refuse_to_release(CUmemGenericAllocationHandle handle) {
  (void)handle;
  return CUDA_ERROR_INVALID_VALUE;
}

static void ck_stuck_and_freed(void) {
  drowse_stats stats;
  uint64_t mapped = stats_of(NULL).mapped_bytes;
  ck_status(sleep_all(), DROWSE_ERR_DRIVER);
  stats = stats_of(NULL);
  ck_assert_int_eq(stats.state, DROWSE_ASLEEP);
  ck_assert_uint_eq(stats.stuck_bytes, mapped);
  ck_assert_uint_eq(stats.backup_bytes, stats.live_bytes);
  ck_whole();
  disarm();
  ck_ok(wake_all_tags());
  ck_whole();
  ck_ok(drowse_trim(heap, 0));
  ck_assert_uint_eq(stats_of(NULL).stuck_bytes, 0);
  ck_assert_uint_eq(stats_of(NULL).mapped_bytes, 32 * MIB - device_free_bytes());
  ck_ok(sleep_all());
  ck_assert_uint_eq(device_free_bytes(), 32 * MIB);
}

static void start_small(void) {
  open_with((drowse_heap_options){.device = "host:32MiB"});
  make_blocks();
}

START_TEST(what_cannot_be_unmapped_is_tried_again) {
  heap->device.driver.MemUnmap = refuse_to_unmap;
  ck_stuck_and_freed();
}
END_TEST

START_TEST(what_cannot_be_released_is_tried_again) {
  heap->device.driver.MemRelease = refuse_to_release;
  ck_stuck_and_freed();
}
END_TEST

/* There is no memory for it beside what is stuck. */
START_TEST(a_tag_wakes_in_place_of_what_is_stuck) {
  void *large = alloc_tag("large", 20 * MIB);
  write_pattern(large, 20 * MIB, 7);
  heap->device.driver.MemUnmap = refuse_to_unmap;
  ck_status(sleep_all(), DROWSE_ERR_DRIVER);
  ck_assert_uint_lt(device_free_bytes(), 20 * MIB);
  disarm();
  ck_ok(wake_all_tags());
  ck_assert(has_pattern(large, 20 * MIB, 7));
  ck_whole();
  ck_assert_uint_eq(stats_of(NULL).stuck_bytes, 0);
}
END_TEST

static void ck_tried_again_asleep(drowse_status (*try_again)(void)) {
  heap->device.driver.MemUnmap = refuse_to_unmap;
  ck_status(sleep_all(), DROWSE_ERR_DRIVER);
  ck_status(drowse_trim(heap, 0), DROWSE_ERR_DRIVER);
  ck_assert_uint_gt(stats_of(NULL).stuck_bytes, 0);
  disarm();
  ck_ok(try_again());
  ck_assert_uint_eq(stats_of(NULL).stuck_bytes, 0);
  ck_assert_uint_eq(device_free_bytes(), 32 * MIB);
  ck_assert_int_eq(stats_of(NULL).state, DROWSE_ASLEEP);
  ck_whole();
  ck_ok(wake_all_tags());
  ck_whole();
}

static drowse_status trim_all(void) {
  return drowse_trim(heap, 0);
}

START_TEST(what_sleeping_tags_have_stuck_goes_with_the_next_trim) {
  ck_tried_again_asleep(trim_all);
}
END_TEST

static drowse_status sleep_another(void) {
  (void)alloc_tag("another", MIB);
  return sleep_all();
}

START_TEST(what_sleeping_tags_have_stuck_goes_with_the_next_sleep) {
  ck_tried_again_asleep(sleep_all); /* all sleep already */
  ck_tried_again_asleep(sleep_another);
}
END_TEST

START_TEST(what_sleeping_tags_have_stuck_makes_room_for_others) {
  heap->device.driver.MemUnmap = refuse_to_unmap;
  ck_status(sleep_all(), DROWSE_ERR_DRIVER);
  disarm();
  (void)alloc_tag("large", 32 * MIB);
  ck_assert_uint_eq(stats_of(NULL).stuck_bytes, 0);
}
END_TEST

START_TEST(what_is_stuck_goes_with_the_heap) {
  heap->device.driver.MemUnmap = refuse_to_unmap;
  ck_status(sleep_all(), DROWSE_ERR_DRIVER);
  disarm();
}
END_TEST

#define SMALL_TEST(suite, test) HARNESS_FIXTURE_TEST(suite, test, start_small, finish)

int main(void) {
  Suite *suite = suite_create("fault");
  HARNESS_TEST(suite, every_call_of_a_sleep_fails_once);
  HARNESS_TEST(suite, every_call_of_a_wake_fails_once);
  SMALL_TEST(suite, what_cannot_be_unmapped_is_tried_again);
  SMALL_TEST(suite, what_cannot_be_released_is_tried_again);
  SMALL_TEST(suite, a_tag_wakes_in_place_of_what_is_stuck);
  SMALL_TEST(suite, what_sleeping_tags_have_stuck_goes_with_the_next_trim);
  SMALL_TEST(suite, what_sleeping_tags_have_stuck_goes_with_the_next_sleep);
  SMALL_TEST(suite, what_sleeping_tags_have_stuck_makes_room_for_others);
  SMALL_TEST(suite, what_is_stuck_goes_with_the_heap);
  return harness_run(suite);
}
