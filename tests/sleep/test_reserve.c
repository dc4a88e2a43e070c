/* SPDX-License-Identifier: Apache-2.0
 *
 * Host memory for backups: ahead of time, and back.
 */
#include "fixture.h"

#include <errno.h>
#include <sys/mman.h>
#include <time.h>

enum { BYTES = 3 * 1024 * 1024 };

static void *block;

static void start_tag(void) {
  start();
  write_pattern(block = alloc_tag("a", BYTES), BYTES, 1);
}

static uint64_t host_bytes(void) {
  return stats_of(NULL).host_bytes;
}

START_TEST(a_sleep_uses_what_is_reserved) {
  ck_ok(drowse_backup_reserve(heap, BYTES));
  ck_assert_uint_eq(host_bytes(), BYTES);
  ck_assert_uint_eq(stats_of(NULL).pinned_bytes, BYTES);
  ck_ok(drowse_backup_reserve(heap, BYTES)); /* it is there */
  ck_assert_uint_eq(host_bytes(), BYTES);
  ck_ok(sleep_tag("a", DROWSE_OFFLOAD));
  ck_assert_uint_eq(host_bytes(), BYTES);
  ck_ok(drowse_backup_reserve(heap, MIB)); /* besides what is used */
  ck_assert_uint_eq(host_bytes(), BYTES + MIB);
  ck_ok(wake_tag("a"));
  ck_assert(has_pattern(block, BYTES, 1));
}
END_TEST

START_TEST(a_sleep_need_not_wait_for_what_is_being_reserved) {
  ck_ok(drowse_backup_reserve_start(heap, BYTES));
  ck_ok(sleep_tag("a", DROWSE_OFFLOAD));
  ck_assert_uint_eq(host_bytes(), BYTES);
  ck_ok(wake_tag("a"));
  ck_assert(has_pattern(block, BYTES, 1));
}
END_TEST

START_TEST(trimming_leaves_what_is_used) {
  ck_ok(drowse_backup_reserve(heap, 2 * BYTES));
  ck_ok(sleep_tag("a", DROWSE_OFFLOAD));
  ck_ok(drowse_backup_trim(heap, MIB));
  ck_assert_uint_eq(host_bytes(), BYTES + MIB);
  ck_ok(drowse_backup_trim(heap, 0));
  ck_assert_uint_eq(host_bytes(), BYTES);
  ck_assert(has_pattern(block, BYTES, 1));
  ck_ok(wake_tag("a"));
  ck_assert(has_pattern(block, BYTES, 1));
  ck_ok(drowse_backup_trim(heap, 0));
  ck_assert_uint_eq(host_bytes(), 0);
  ck_assert_uint_eq(stats_of(NULL).pinned_bytes, 0);
}
END_TEST

/* ---- while mmap() is at it (--wrap) */

static bool sleeps_in_mmap;
static pthread_t sleeper;
static drowse_status slept;

static void *sleep_meanwhile(void *nothing) {
  slept = sleep_tag("a", DROWSE_OFFLOAD);
  return nothing;
}

/* It has all the time to fail in; where it waits for what is being mapped, it goes on behind that. */
static void let_it_sleep(void) {
  struct timespec until;
  sleeps_in_mmap = false;
  ck_assert_int_eq(pthread_create(&sleeper, NULL, sleep_meanwhile, NULL), 0);
  (void)clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec++;
  ck_assert_int_eq(pthread_timedjoin_np(sleeper, NULL, &until), ETIMEDOUT);
}

/* ---- what is known of backups takes memory, too: pages of nodes */

static bool pages_refused;

void *__real_mmap(void *address, size_t bytes, int access, int flags, int file, off_t offset);
void *__wrap_mmap(void *address, size_t bytes, int access, int flags, int file, off_t offset);
void *__wrap_mmap(void *address, size_t bytes, int access, int flags, int file, off_t offset) {
  if (sleeps_in_mmap && bytes >= BYTES) let_it_sleep();
  if (!pages_refused || bytes != 256 * KIB) return __real_mmap(address, bytes, access, flags, file, offset);
  errno = ENOMEM;
  return MAP_FAILED;
}

static size_t nodes_at_hand(const struct slab *slab) {
  return slab->free_count + slab->fresh_count;
}

/* Leaves so many nodes of the arena's spaces, and no memory for more. Returns the others as a list. */
static void **leave_nodes(size_t count) {
  struct slab *slab = &heap->arena.spaces;
  void **list = NULL;
  while (nodes_at_hand(slab) > count) {
    void **node = dz_slab_take(slab);
    *node = list;
    list = node;
  }
  pages_refused = true;
  return list;
}

static void give_nodes(void **list) {
  pages_refused = false;
  for (void **next; list != NULL; list = next) {
    next = *list;
    dz_slab_give(&heap->arena.spaces, list);
  }
}

/* Three blocks in a row get one space, which is cut for each of them. */
START_TEST(without_memory_for_metadata_nothing_sleeps) {
  unsigned failures = 0;
  void *second = alloc_tag("a", BYTES), *third = alloc_tag("a", BYTES);
  write_pattern(second, BYTES, 2);
  write_pattern(third, BYTES, 3);
  ck_ok(drowse_backup_reserve(heap, 3 * BYTES));
  drowse_status status = DROWSE_ERR_NO_HOST_MEMORY;
  for (size_t count = 0; status != DROWSE_OK; count++) {
    void **others = leave_nodes(count);
    status = sleep_tag("a", DROWSE_OFFLOAD);
    give_nodes(others);
    ck_assert(status == DROWSE_OK || status == DROWSE_ERR_NO_HOST_MEMORY);
    failures += status != DROWSE_OK;
    if (status != DROWSE_OK) ck_says("metadata");
    ck_state("a", status == DROWSE_OK ? DROWSE_ASLEEP : DROWSE_AWAKE);
    ck_assert_uint_eq(stats_of("a").backup_bytes, status == DROWSE_OK ? 3 * BYTES : 0);
  }
  ck_assert_uint_gt(failures, 0);
  ck_assert(has_pattern(block, BYTES, 1) && has_pattern(second, BYTES, 2) && has_pattern(third, BYTES, 3));
  ck_ok(wake_tag("a"));
  ck_assert_uint_eq(host_bytes(), 3 * BYTES); /* none of it has been lost */
}
END_TEST

/* The limit has room for nothing else. */
START_TEST(a_sleep_waits_for_what_is_being_reserved_if_it_must) {
  open_with((drowse_heap_options){.backup_limit = BYTES});
  write_pattern(block = alloc_tag("a", BYTES), BYTES, 1);
  sleeps_in_mmap = true;
  drowse_status status = drowse_backup_reserve(heap, BYTES);
  ck_assert(status == DROWSE_OK || status == DROWSE_ERR_NO_HOST_MEMORY); /* the sleep may have taken it already */
  ck_assert(!sleeps_in_mmap);
  ck_assert_int_eq(pthread_join(sleeper, NULL), 0);
  ck_ok(slept);
  ck_ok(wake_tag("a"));
  ck_assert(has_pattern(block, BYTES, 1));
  close_heap();
}
END_TEST

START_TEST(what_is_kept_is_an_option) {
  open_with((drowse_heap_options){.backup_keep = MIB});
  write_pattern(block = alloc_tag("a", BYTES), BYTES, 1);
  void *other = alloc_tag("b", BYTES);
  write_pattern(other, BYTES, 2);
  ck_ok(drowse_sleep(heap, &(drowse_rule){.action = DROWSE_OFFLOAD}, 1, NULL));
  ck_assert_uint_eq(host_bytes(), 2 * BYTES);
  ck_ok(wake_tag("a"));
  ck_assert_uint_eq(host_bytes(), BYTES + MIB);
  ck_ok(wake_tag("b"));
  ck_assert_uint_eq(host_bytes(), MIB);
  ck_assert(has_pattern(block, BYTES, 1) && has_pattern(other, BYTES, 2));
  ck_ok(drowse_backup_reserve(heap, BYTES));
  ck_ok(sleep_tag("a", DROWSE_DISCARD)); /* that ends too */
  ck_assert_uint_eq(host_bytes(), MIB);
  close_heap();
}
END_TEST

START_TEST(what_there_is_not_is_not_reserved) {
  open_with((drowse_heap_options){.backup_limit = BYTES});
  ck_status(drowse_backup_reserve(heap, BYTES + 1), DROWSE_ERR_NO_HOST_MEMORY);
  ck_says("limit");
  ck_status(drowse_backup_reserve_start(heap, UINT64_MAX), DROWSE_ERR_NO_HOST_MEMORY);
  ck_assert_uint_eq(host_bytes(), 0);
  ck_ok(drowse_backup_reserve(heap, BYTES));
  ck_ok(drowse_backup_reserve(heap, 0));
  ck_assert_uint_eq(host_bytes(), BYTES);
  close_heap();
}
END_TEST

START_TEST(bad_arguments) {
  ck_status(drowse_backup_reserve(NULL, 1), DROWSE_ERR_INVALID);
  ck_status(drowse_backup_reserve_start(NULL, 1), DROWSE_ERR_INVALID);
  ck_status(drowse_backup_trim(NULL, 0), DROWSE_ERR_INVALID);
  ck_ok(drowse_backup_trim(heap, 0)); /* there is none */
}
END_TEST

#define TAG_TEST(suite, test) HARNESS_FIXTURE_TEST(suite, test, start_tag, finish)

int main(void) {
  Suite *suite = suite_create("reserve");
  TAG_TEST(suite, a_sleep_uses_what_is_reserved);
  TAG_TEST(suite, a_sleep_need_not_wait_for_what_is_being_reserved);
  TAG_TEST(suite, trimming_leaves_what_is_used);
  TAG_TEST(suite, without_memory_for_metadata_nothing_sleeps);
  HARNESS_TEST(suite, a_sleep_waits_for_what_is_being_reserved_if_it_must);
  HARNESS_TEST(suite, what_is_kept_is_an_option);
  HARNESS_TEST(suite, what_there_is_not_is_not_reserved);
  TAG_TEST(suite, bad_arguments);
  return harness_run(suite);
}
