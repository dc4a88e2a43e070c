/* SPDX-License-Identifier: Apache-2.0
 *
 * Sleep and wake of gigabytes on a GPU: another process that takes the memory meanwhile, progress and cancel in the middle,
 * seals, files, memory that is not pinned, many blocks, two GPUs at once.
 *
 *   test_sleep [GIB]     default: 4, a tag's size; of more than 8 only both ends of each block are written and looked at. Exits
 * with 77 where there is no GPU
 *
 * It starts itself as the other process: test_sleep tenant.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <spawn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gpu/expect.h"

extern char **environ;

#define MIB (UINT64_C(1) << 20)

enum { BLOCKS = 61, MANY = 20000 };

static uint64_t tag_bytes = UINT64_C(4) << 30;
static drowse_heap *heap;
static void *blocks[BLOCKS];
static uint64_t *words; /* of one block */

static size_t block_bytes(void) {
  return (size_t)(tag_bytes / BLOCKS / 4096 * 4096);
}

static void fill_words(uint64_t seed, size_t count) {
  for (size_t i = 0; i < count; i++) words[i] = (i + seed * UINT64_C(0x9e3779b97f4a7c15)) * UINT64_C(0xbf58476d1ce4e5b9);
}

static void fill_part(drowse_heap *of, char *block, uint64_t seed, size_t bytes) {
  fill_words(seed, bytes / sizeof *words);
  EXPECT_OK(drowse_copy_in(of, block, words, bytes));
}

static bool is_part_whole(drowse_heap *of, const char *block, uint64_t seed, size_t bytes) {
  uint64_t *found = malloc(bytes);
  EXPECT(found != NULL);
  EXPECT_OK(drowse_copy_out(of, found, block, bytes));
  fill_words(seed, bytes / sizeof *words);
  bool same = memcmp(found, words, bytes) == 0;
  free(found);
  return same;
}

/* All of a block, or both its ends. */
static size_t looked_at(size_t bytes) {
  return tag_bytes > UINT64_C(8) << 30 && bytes > 2 * MIB ? MIB : bytes;
}

static void fill(drowse_heap *of, void *block, uint64_t seed, size_t bytes) {
  size_t part = looked_at(bytes);
  fill_part(of, block, seed, part);
  if (part < bytes) fill_part(of, (char *)block + bytes - part, ~seed, part);
}

static bool is_whole(drowse_heap *of, const void *block, uint64_t seed, size_t bytes) {
  size_t part = looked_at(bytes);
  return is_part_whole(of, block, seed, part) &&
         (part == bytes || is_part_whole(of, (const char *)block + bytes - part, ~seed, part));
}

static void expect_whole(void) {
  for (uint64_t i = 0; i < BLOCKS; i++) EXPECT(is_whole(heap, blocks[i], i, block_bytes()));
}

static drowse_stats stats_of(drowse_heap *of, const char *tag) {
  drowse_stats stats = {.struct_size = sizeof stats};
  EXPECT_OK(drowse_stats_get(of, tag, &stats));
  return stats;
}

static const drowse_rule offload = {.tag = "weights", .action = DROWSE_OFFLOAD};

static void *alloc_on(drowse_heap *on, const char *tag, size_t bytes) {
  drowse_alloc_options options = {.struct_size = sizeof options, .tag = tag};
  void *ptr = NULL;
  EXPECT_OK(drowse_alloc_with(on, bytes, NULL, &options, &ptr));
  return ptr;
}

/* ---- another process */

struct tenant {
  pid_t process;
  int to, from;
};

/* The other process: takes nearly all that is free, says so, and leaves when it is told to. */
static int be_tenant(void) {
  drowse_heap_info info = {.struct_size = sizeof info};
  char byte = 'x';
  EXPECT_OK(drowse_heap_open(&heap, &(drowse_heap_options){.struct_size = sizeof(drowse_heap_options), .device = "cuda:0"}));
  EXPECT_OK(drowse_heap_info_get(heap, &info));
  (void)alloc_on(heap, "taken", info.free_bytes - 512 * MIB);
  EXPECT(write(STDOUT_FILENO, &byte, 1) == 1);
  EXPECT(read(STDIN_FILENO, &byte, 1) == 0); /* the end */
  return EXIT_SUCCESS;                       /* without closing: what it had goes with it */
}

static struct tenant start_tenant(void) {
  struct tenant tenant;
  int to[2], from[2];
  char byte, program[] = "/proc/self/exe", word[] = "tenant", *arguments[] = {program, word, NULL};
  posix_spawn_file_actions_t actions;
  EXPECT(pipe(to) == 0 && pipe(from) == 0);
  EXPECT(posix_spawn_file_actions_init(&actions) == 0);
  EXPECT(posix_spawn_file_actions_adddup2(&actions, to[0], STDIN_FILENO) == 0);
  EXPECT(posix_spawn_file_actions_adddup2(&actions, from[1], STDOUT_FILENO) == 0);
  EXPECT(posix_spawn_file_actions_addclose(&actions, to[1]) == 0);
  EXPECT(posix_spawn(&tenant.process, "/proc/self/exe", &actions, NULL, arguments, environ) == 0);
  EXPECT(posix_spawn_file_actions_destroy(&actions) == 0);
  EXPECT(close(to[0]) == 0 && close(from[1]) == 0);
  tenant.to = to[1];
  tenant.from = from[0];
  EXPECT(read(tenant.from, &byte, 1) == 1);
  return tenant;
}

static void end_tenant(const struct tenant *tenant) {
  int status;
  EXPECT(close(tenant->to) == 0);
  EXPECT(waitpid(tenant->process, &status, 0) == tenant->process && status == 0);
  EXPECT(close(tenant->from) == 0);
}

static void another_process_has_the_memory(void) {
  drowse_op *op;
  uint64_t done;
  EXPECT_OK(drowse_sleep(heap, &offload, 1, NULL));
  struct tenant tenant = start_tenant();
  EXPECT(drowse_wake(heap, NULL, 0, NULL) == DROWSE_ERR_NO_DEVICE_MEMORY);
  printf("  %s\n", drowse_last_error());
  drowse_error error = {.struct_size = sizeof error};
  EXPECT_OK(drowse_error_get(&error));
  EXPECT(error.wanted_bytes > error.free_bytes);
  EXPECT(stats_of(heap, "weights").state == DROWSE_ASLEEP);
  expect_whole();
  EXPECT_OK(drowse_wake_start(heap, NULL, 0,
                              &(drowse_wake_options){.struct_size = sizeof(drowse_wake_options), .deadline_ms = 120000}, &op));
  EXPECT(drowse_op_wait(op, 100) == DROWSE_ERR_TIMEOUT); /* it goes on trying */
  EXPECT_OK(drowse_op_progress(op, &done, NULL));
  EXPECT(done == 0);
  end_tenant(&tenant);
  EXPECT_OK(drowse_op_wait(op, -1));
  drowse_op_release(op);
  EXPECT(stats_of(heap, "weights").state == DROWSE_AWAKE);
  expect_whole();
}

/* ---- in the middle */

static drowse_op *running;
static drowse_progress seen;

static void cancel_at_once(void *context, const drowse_progress *progress) {
  (void)context;
  seen = *progress;
  EXPECT_OK(drowse_op_cancel(running));
}

/* Whether it was in time is the machine's to say, and all is whole either way. */
static void expect_canceled(const char *what, drowse_state before, drowse_state after) {
  drowse_status status = drowse_op_wait(running, -1);
  drowse_state state = stats_of(heap, "weights").state;
  EXPECT(status == DROWSE_ERR_CANCELED ? state == before : status == DROWSE_OK && state == after);
  printf("  %s: %s at %" PRIu64 " of %" PRIu64 " bytes\n", what, drowse_status_name(status), seen.done_bytes, seen.total_bytes);
  drowse_op_release(running);
  expect_whole();
}

static void canceled_in_the_middle(void) {
  EXPECT_OK(drowse_sleep_start(heap, &offload, 1,
                               &(drowse_sleep_options){.struct_size = sizeof(drowse_sleep_options), .progress = cancel_at_once},
                               &running));
  expect_canceled("sleep", DROWSE_AWAKE, DROWSE_ASLEEP);
  EXPECT_OK(drowse_sleep(heap, &offload, 1, NULL));
  EXPECT_OK(drowse_wake_start(
      heap, NULL, 0, &(drowse_wake_options){.struct_size = sizeof(drowse_wake_options), .progress = cancel_at_once}, &running));
  expect_canceled("wake", DROWSE_ASLEEP, DROWSE_AWAKE);
  EXPECT_OK(drowse_wake(heap, NULL, 0, NULL));
  expect_whole();
}

/* ---- where backups are */

static void sealed_it_sleeps_and_wakes(void) {
  EXPECT_OK(drowse_seal(heap, "weights"));
  for (int i = 0; i < 3; i++) {
    EXPECT_OK(drowse_sleep(heap, &offload, 1, NULL));
    EXPECT_OK(drowse_wake(heap, NULL, 0, NULL));
    EXPECT(stats_of(heap, "weights").backup_bytes == stats_of(heap, "weights").live_bytes);
    expect_whole();
  }
  fill(heap, blocks[1], 1, block_bytes());
  EXPECT_OK(drowse_sleep(heap, &offload, 1, NULL));
  fill(heap, blocks[2], 2, block_bytes()); /* while it sleeps */
  EXPECT_OK(drowse_wake(heap, NULL, 0, NULL));
  EXPECT_OK(drowse_unseal(heap, "weights"));
  EXPECT(stats_of(heap, "weights").backup_bytes == 0);
  expect_whole();
}

static void in_a_file(void) {
  const char *directory = getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp";
  drowse_sleep_options options = {.struct_size = sizeof options, .backup = DROWSE_BACKUP_FILE, .directory = directory};
  for (int i = 0; i < 2; i++) {
    EXPECT_OK(drowse_sleep(heap, &offload, 1, &options));
    EXPECT(stats_of(heap, "weights").file_bytes == stats_of(heap, "weights").live_bytes);
    EXPECT_OK(drowse_wake(heap, NULL, 0, NULL));
  }
  expect_whole();
}

static void reserved_trimmed_and_limited(void) {
  EXPECT_OK(drowse_backup_trim(heap, 0));
  drowse_stats stats = stats_of(heap, NULL);
  EXPECT(stats.host_bytes == 0 && stats.pinned_bytes == 0);
  EXPECT_OK(drowse_backup_reserve_start(heap, tag_bytes));
  EXPECT_OK(drowse_sleep(heap, &offload, 1, NULL)); /* while it is being pinned */
  stats = stats_of(heap, NULL);
  EXPECT(stats.host_bytes <= tag_bytes + 64 * MIB);
  printf("  %" PRIu64 " MiB for %" PRIu64 ", %" PRIu64 " pinned, %" PRIu64 " in huge pages\n", stats.host_bytes / MIB,
         tag_bytes / MIB, stats.pinned_bytes / MIB, stats.huge_bytes / MIB);
  EXPECT_OK(drowse_free(heap, blocks[3]));
  EXPECT_OK(drowse_backup_trim(heap, 0)); /* of what the others use nothing goes */
  EXPECT(stats_of(heap, NULL).host_bytes >= stats_of(heap, "weights").backup_bytes);
  EXPECT(stats_of(heap, NULL).host_bytes < stats_of(heap, "weights").backup_bytes + 64 * MIB);
  EXPECT_OK(drowse_wake(heap, NULL, 0, NULL));
  EXPECT_OK(drowse_backup_trim(heap, 0));
  EXPECT(stats_of(heap, NULL).host_bytes == 0);
  fill(heap, blocks[3] = alloc_on(heap, "weights", block_bytes()), 3, block_bytes());
  expect_whole();
}

static void many_small_blocks(void) {
  static void *small[MANY];
  for (uint64_t i = 0; i < MANY; i++) fill(heap, small[i] = alloc_on(heap, "small", 8192 + i % 3 * 512), i, 512);
  for (uint64_t i = 0; i < MANY; i += 3) {
    EXPECT_OK(drowse_free(heap, small[i])); /* gaps */
    small[i] = NULL;
  }
  EXPECT_OK(drowse_sleep(heap, &(drowse_rule){.tag = "small", .action = DROWSE_OFFLOAD}, 1, NULL));
  EXPECT_OK(drowse_wake(heap, NULL, 0, NULL));
  for (uint64_t i = 0; i < MANY; i++) EXPECT(small[i] == NULL || is_whole(heap, small[i], i, 512));
  EXPECT_OK(drowse_tag_clear(heap, "small"));
}

/* ---- two GPUs */

static void two_devices_at_once(void) {
  drowse_heap *other;
  drowse_op *ops[2];
  if (drowse_heap_open(&other, &(drowse_heap_options){.struct_size = sizeof(drowse_heap_options), .device = "cuda:1"}) !=
      DROWSE_OK) {
    printf("  not looked at: there is one GPU\n");
    return;
  }
  void *there = alloc_on(other, "weights", block_bytes());
  fill(other, there, 99, block_bytes());
  for (int round = 0; round < 2; round++) {
    EXPECT_OK(drowse_sleep_start(heap, &offload, 1, NULL, &ops[0]));
    EXPECT_OK(drowse_sleep_start(other, &offload, 1, NULL, &ops[1]));
    for (int i = 0; i < 2; i++) {
      EXPECT_OK(drowse_op_wait(ops[i], -1));
      drowse_op_release(ops[i]);
    }
    EXPECT_OK(drowse_wake_start(heap, NULL, 0, NULL, &ops[0]));
    EXPECT_OK(drowse_wake_start(other, NULL, 0, NULL, &ops[1]));
    for (int i = 0; i < 2; i++) {
      EXPECT_OK(drowse_op_wait(ops[i], -1));
      drowse_op_release(ops[i]);
    }
  }
  EXPECT(is_whole(other, there, 99, block_bytes()));
  expect_whole();
  EXPECT_OK(drowse_heap_close(other));
}

int main(int argc, char **argv) {
  (void)setvbuf(stdout, NULL, _IOLBF, 0);
  if (argc > 1 && strcmp(argv[1], "tenant") == 0) return be_tenant();
  if (argc > 1) tag_bytes = strtoull(argv[1], NULL, 10) << 30;
  drowse_status status =
      drowse_heap_open(&heap, &(drowse_heap_options){.struct_size = sizeof(drowse_heap_options), .device = "cuda:0"});
  if (status == DROWSE_ERR_NO_DEVICE) {
    printf("skipped: %s\n", drowse_last_error());
    return 77;
  }
  EXPECT(status == DROWSE_OK && tag_bytes > 0);
  words = malloc(block_bytes());
  EXPECT(words != NULL);
  for (uint64_t i = 0; i < BLOCKS; i++) fill(heap, blocks[i] = alloc_on(heap, "weights", block_bytes()), i, block_bytes());
  RUN(another_process_has_the_memory);
  RUN(canceled_in_the_middle);
  RUN(sealed_it_sleeps_and_wakes);
  RUN(in_a_file);
  RUN(reserved_trimmed_and_limited);
  RUN(many_small_blocks);
  RUN(two_devices_at_once);
  EXPECT_OK(drowse_heap_close(heap));
  free(words);
  return EXIT_SUCCESS;
}
