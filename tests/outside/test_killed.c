/* SPDX-License-Identifier: Apache-2.0
 *
 * A process that is killed in the middle of a sleep or a wake, as by the kernel for want of memory: at each step that its
 * progress callback tells of. It leaves no file, no shared memory and no thread, and its parent, which has a heap of its own,
 * goes on.
 */
#include "fixture.h"

#include <errno.h>
#include <signal.h>
#include <unistd.h>

#include "fork/child.h"

enum { BLOCKS = 6, BYTES = 4 << 20, FINISHED = 100 };

static char directory[64];

/* What is open under these names would be memory that outlives its process. */
static size_t count_shared(void) {
  DIR *shared = opendir("/dev/shm");
  if (shared == NULL) return 0;
  (void)closedir(shared);
  return count_entries("/dev/shm");
}

static uint64_t disk_files(void) {
  return count_entries(directory) - 2;
}

/* ---- the child */

static unsigned steps_left;

static void die_at_step(void *nothing, const drowse_progress *progress) {
  (void)nothing;
  (void)progress;
  if (steps_left-- == 1) (void)kill(getpid(), SIGKILL);
}

static int sleep_and_wake(drowse_backup backup) {
  drowse_heap *mine;
  drowse_heap_options device = {.struct_size = sizeof device, .device = "host:64MiB"};
  drowse_alloc_options tag = {.struct_size = sizeof tag, .tag = "a"};
  drowse_sleep_options asleep = {.struct_size = sizeof asleep, .backup = backup, .directory = directory, .progress = die_at_step};
  drowse_wake_options awake = {.struct_size = sizeof awake, .progress = die_at_step};
  STEP(1, drowse_heap_open(&mine, &device) == DROWSE_OK);
  for (unsigned i = 0; i < BLOCKS; i++) {
    void *ptr;
    STEP(2, drowse_alloc_with(mine, BYTES + i * 4096, NULL, &tag, &ptr) == DROWSE_OK);
  }
  STEP(3, drowse_sleep(mine, &(drowse_rule){.tag = "a", .action = DROWSE_OFFLOAD}, 1, &asleep) == DROWSE_OK);
  STEP(4, drowse_wake(mine, NULL, 0, &awake) == DROWSE_OK);
  STEP(5, drowse_heap_close(mine) == DROWSE_OK);
  return FINISHED;
}

static int to_host(void) {
  return sleep_and_wake(DROWSE_BACKUP_HOST);
}

static int to_file(void) {
  return sleep_and_wake(DROWSE_BACKUP_FILE);
}

/* ---- its parent */

static void *block;

static void start_parent(void) {
  (void)snprintf(directory, sizeof directory, "drowse-killed-XXXXXX");
  ck_assert_ptr_nonnull(mkdtemp(directory));
  start();
  write_pattern(block = alloc_tag("a", BYTES), BYTES, 1);
  ck_ok(sleep_tag("a", DROWSE_OFFLOAD));
}

static void finish_parent(void) {
  finish();
  ck_assert_int_eq(rmdir(directory), 0);
}

static void ck_goes_on(void) {
  ck_ok(wake_tag("a"));
  ck_assert(has_pattern(block, BYTES, 1));
  ck_ok(sleep_tag("a", DROWSE_OFFLOAD));
}

static void kill_at_each_step(int (*child)(void)) {
  size_t shared = count_shared();
  unsigned step = 1;
  for (int ended = 0; ended != FINISHED; step++) {
    steps_left = step;
    ended = in_child(child);
    ck_assert_msg(ended == 256 + SIGKILL || ended == FINISHED, "step %u: it ended with %d", step, ended);
    ck_assert_uint_eq(disk_files(), 0);
    ck_assert_uint_eq(count_shared(), shared);
    ck_goes_on();
  }
  ck_assert_uint_gt(step, 3); /* at least once while it fell asleep, once while it woke, and not */
}

START_TEST(with_its_backup_in_host_memory) {
  kill_at_each_step(to_host);
}
END_TEST

START_TEST(with_its_backup_in_a_file) {
  kill_at_each_step(to_file);
}
END_TEST

int main(void) {
  if (!CHILD_MAY_START_THREADS) {
    (void)puts("killed: skipped: the thread sanitizer lets no child of a process with threads start any");
    return 77;
  }
  Suite *suite = suite_create("killed");
  HARNESS_FIXTURE_TEST(suite, with_its_backup_in_host_memory, start_parent, finish_parent);
  HARNESS_FIXTURE_TEST(suite, with_its_backup_in_a_file, start_parent, finish_parent);
  return harness_run(suite);
}
