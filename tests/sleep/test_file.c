/* SPDX-License-Identifier: Apache-2.0
 *
 * Backups in files, and mixed: whole after waking, read and written while asleep, damaged, no room, gone with the process.
 */
#include "fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BLOCKS = 5 };
static const size_t sizes[BLOCKS] = {1, 512 * 3, 9 * 1024 * 1024 + 1, 4096, 17 * 1024 * 1024};
static void *block[BLOCKS];
static char directory[] = "drowse-test-XXXXXX";

static void make_blocks(void) {
  for (uint64_t i = 0; i < BLOCKS; i++) write_pattern(block[i] = alloc_tag("a", sizes[i]), sizes[i], i);
}

static void make_directory(void) {
  (void)snprintf(directory, sizeof directory, "drowse-test-XXXXXX");
  ck_assert_ptr_nonnull(mkdtemp(directory));
}

static void start_blocks(void) {
  make_directory();
  start();
  make_blocks();
}

static void finish_blocks(void) {
  finish();
  ck_assert_int_eq(rmdir(directory), 0); /* nothing is left in it */
}

static drowse_status sleep_to(drowse_backup backup, const char *where) {
  drowse_sleep_options options = {.struct_size = sizeof options, .backup = backup, .directory = where};
  return drowse_sleep(heap, &(drowse_rule){.tag = "a", .action = DROWSE_OFFLOAD}, 1, &options);
}

static drowse_status sleep_to_file(void) {
  return sleep_to(DROWSE_BACKUP_FILE, directory);
}

static void ck_whole(void) {
  for (uint64_t i = 0; i < BLOCKS; i++) ck_assert_msg(has_pattern(block[i], sizes[i], i), "block %d", (int)i);
}

START_TEST(everything_comes_back) {
  const size_t files = count_entries("/proc/self/fd");
  for (int round = 0; round < 2; round++) {
    ck_ok(sleep_to_file());
    drowse_stats stats = stats_of("a");
    ck_assert_uint_eq(stats.backup_bytes, 0);
    ck_assert_uint_eq(stats.file_bytes, stats.live_bytes);
    ck_assert_uint_eq(stats_of(NULL).host_bytes, 0);
    ck_assert_uint_eq(device_free_bytes(), 64 * MIB);
    ck_ok(wake_tag("a"));
    ck_assert_uint_eq(stats_of("a").file_bytes, 0);
    ck_assert_uint_eq(count_entries("/proc/self/fd"), files);
    ck_whole();
  }
}
END_TEST

START_TEST(read_and_written_while_it_sleeps) {
  static unsigned char expected[17 * 1024 * 1024], found[sizeof expected];
  uint64_t random = 1;
  void *host;
  ck_ok(sleep_to_file());
  ck_status(drowse_backup_get(heap, block[4], sizes[4], &host), DROWSE_ERR_NOT_FOUND);
  ck_says("in a file");
  ck_whole();
  fill_pattern(expected, sizes[4], 4);
  for (int i = 0; i < 60; i++) {
    size_t at = random_below(&random, sizes[4]), bytes = random_below(&random, (i % 3 == 0 ? sizes[4] : 5000) + 1);
    if (bytes > sizes[4] - at) bytes = sizes[4] - at;
    fill_pattern(expected + at, bytes, (uint64_t)i + 100);
    ck_ok(drowse_copy_in(heap, (char *)block[4] + at, expected + at, bytes));
    at = random_below(&random, sizes[4]);
    bytes = random_below(&random, sizes[4] - at + 1);
    ck_ok(drowse_copy_out(heap, found, (char *)block[4] + at, bytes));
    ck_assert(memcmp(found, expected + at, bytes) == 0);
  }
  ck_ok(wake_tag("a"));
  ck_ok(drowse_copy_out(heap, found, block[4], sizes[4]));
  ck_assert(memcmp(found, expected, sizes[4]) == 0);
  for (uint64_t i = 0; i < 4; i++) ck_assert(has_pattern(block[i], sizes[i], i));
}
END_TEST

START_TEST(sealed_it_stays_in_the_file) {
  ck_ok(drowse_seal(heap, "a"));
  ck_ok(sleep_to_file());
  ck_ok(wake_tag("a"));
  ck_assert_uint_eq(stats_of("a").file_bytes, stats_of("a").live_bytes);
  ck_whole();
  ck_ok(sleep_tag("a", DROWSE_OFFLOAD)); /* nothing is left to be copied anywhere */
  ck_assert_uint_eq(stats_of("a").file_bytes, stats_of("a").live_bytes);
  ck_whole();
  ck_ok(drowse_free(heap, block[2]));
  block[2] = NULL;
  ck_ok(wake_tag("a"));
  ck_ok(drowse_unseal(heap, "a"));
  ck_assert_uint_eq(stats_of("a").file_bytes, 0);
}
END_TEST

START_TEST(a_seal_is_compared_with_checksums) {
  ck_assert_int_eq(setenv("DROWSE_DEBUG_SEAL", "1", 1), 0);
  start_blocks();
  ck_assert_int_eq(unsetenv("DROWSE_DEBUG_SEAL"), 0);
  ck_ok(drowse_seal(heap, "a"));
  ck_ok(sleep_to_file());
  ck_ok(wake_tag("a"));
  ck_ok(sleep_to_file());
  ck_ok(wake_tag("a"));
  ck_cu(MemsetD8Async((CUdeviceptr)(uintptr_t)block[2] + sizes[2] / 2, 0x5a, 1, NULL));
  ck_status(sleep_to_file(), DROWSE_ERR_CORRUPT);
  ck_state("a", DROWSE_AWAKE);
  finish_blocks();
}
END_TEST

START_TEST(discarded_in_the_file) {
  ck_ok(sleep_to_file());
  ck_ok(sleep_tag("a", DROWSE_DISCARD));
  ck_assert_uint_eq(stats_of("a").file_bytes, 0);
  ck_ok(wake_tag("a"));
}
END_TEST

START_TEST(closed_while_it_sleeps) {
  start_blocks();
  ck_ok(sleep_to_file());
  finish_blocks();
}
END_TEST

/* ---- mixed */

START_TEST(host_first_then_the_file) {
  make_directory();
  open_with((drowse_heap_options){.backup_limit = 10 * MIB});
  make_blocks();
  ck_status(sleep_to(DROWSE_BACKUP_HOST, NULL), DROWSE_ERR_NO_HOST_MEMORY);
  ck_ok(sleep_to(DROWSE_BACKUP_HOST_THEN_FILE, directory));
  drowse_stats stats = stats_of("a");
  ck_assert_uint_gt(stats.backup_bytes, 0);
  ck_assert_uint_gt(stats.file_bytes, 0);
  ck_assert_uint_eq(stats.backup_bytes + stats.file_bytes, stats.live_bytes);
  ck_assert_uint_le(stats_of(NULL).host_bytes, 10 * MIB);
  ck_whole();
  ck_ok(wake_tag("a"));
  ck_whole();
  close_heap();
  ck_assert_int_eq(rmdir(directory), 0);
}
END_TEST

/* The first block is too large for the limit; what comes behind it is not. */
START_TEST(what_fits_goes_to_the_host) {
  make_directory();
  open_with((drowse_heap_options){.backup_limit = 10 * MIB});
  void *large = alloc_tag("a", 17 * MIB), *small = alloc_tag("a", 5 * MIB);
  write_pattern(large, 17 * MIB, 1);
  write_pattern(small, 5 * MIB, 2);
  ck_ok(sleep_to(DROWSE_BACKUP_HOST_THEN_FILE, directory));
  ck_assert_uint_eq(stats_of("a").backup_bytes, 5 * MIB);
  ck_assert_uint_eq(stats_of("a").file_bytes, 17 * MIB);
  ck_ok(wake_tag("a"));
  ck_assert(has_pattern(large, 17 * MIB, 1) && has_pattern(small, 5 * MIB, 2));
  close_heap();
  ck_assert_int_eq(rmdir(directory), 0);
}
END_TEST

static CUresult refuse_to_unregister(void *host) {
  (void)host;
  return CUDA_ERROR_INVALID_VALUE;
}

/* What is unused is in pieces, and cannot be given back to make room. */
START_TEST(what_is_missing_is_told_whatever_a_trim_says) {
  open_with((drowse_heap_options){.backup_limit = 4 * MIB});
  (void)alloc_tag("b", 3 * MIB);
  ck_ok(sleep_tag("b", DROWSE_OFFLOAD));
  ck_ok(wake_tag("b"));
  (void)alloc_tag("a", 4 * MIB);
  heap->device.driver.MemHostUnregister = refuse_to_unregister;
  ck_status(sleep_tag("a", DROWSE_OFFLOAD), DROWSE_ERR_NO_HOST_MEMORY);
  ck_says("limit");
  heap->device.driver = dz_host_driver;
  ck_ok(sleep_tag("a", DROWSE_OFFLOAD));
  close_heap();
}
END_TEST

START_TEST(all_to_the_host_makes_no_file) {
  ck_ok(sleep_to(DROWSE_BACKUP_HOST_THEN_FILE, "/nowhere at all"));
  ck_assert_uint_eq(stats_of("a").file_bytes, 0);
  ck_ok(wake_tag("a"));
  ck_whole();
}
END_TEST

/* ---- what goes wrong */

static void ck_awake_and_whole(void) {
  ck_state("a", DROWSE_AWAKE);
  ck_assert_uint_eq(stats_of("a").file_bytes + stats_of("a").backup_bytes, 0);
  ck_whole();
}

START_TEST(no_such_directory) {
  ck_status(sleep_to(DROWSE_BACKUP_FILE, "/nowhere at all"), DROWSE_ERR_IO);
  ck_says("/nowhere at all");
  ck_status(sleep_to(DROWSE_BACKUP_FILE, NULL), DROWSE_ERR_INVALID);
  ck_awake_and_whole();
}
END_TEST

START_TEST(no_room) {
  struct rlimit before, small = {.rlim_cur = MIB, .rlim_max = RLIM_INFINITY};
  ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &before), 0);
  small.rlim_max = before.rlim_max;
  (void)signal(SIGXFSZ, SIG_IGN);
  ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
  drowse_status status = sleep_to_file();
  ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &before), 0);
  ck_status(status, DROWSE_ERR_IO);
  drowse_error error = {.struct_size = sizeof error};
  ck_ok(drowse_error_get(&error));
  ck_assert_int_eq(error.system_errno, EFBIG);
  ck_awake_and_whole();
  ck_ok(sleep_to_file());
  ck_whole();
}
END_TEST

/* The descriptor of the heap's file, of which no name is left. */
static int find_file(void) {
  char path[64], target[512];
  for (int descriptor = 3; descriptor < 1024; descriptor++) {
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(path, target, sizeof target - 1);
    if (length <= 0) continue;
    target[length] = '\0';
    if (strstr(target, directory) != NULL) return descriptor;
  }
  ck_abort_msg("there is no file");
  return -1;
}

static void flip(off_t at) {
  char path[64], byte;
  (void)snprintf(path, sizeof path, "/proc/self/fd/%d", find_file());
  int file = open(path, O_RDWR | O_CLOEXEC);
  ck_assert_int_ge(file, 0);
  ck_assert_int_eq(pread(file, &byte, 1, at), 1);
  byte ^= 4;
  ck_assert_int_eq(pwrite(file, &byte, 1, at), 1);
  ck_assert_int_eq(fsync(file), 0);
  ck_assert_int_eq(close(file), 0);
}

/* Flips bits until the one block is damaged that is large enough to have two pieces; the others are whole. */
START_TEST(a_flipped_bit_is_noticed_and_the_rest_is_there) {
  struct stat stat;
  ck_ok(sleep_to_file());
  ck_assert_int_eq(fstat(find_file(), &stat), 0);
  flip(stat.st_size - 4096); /* the last block's last piece */
  ck_status(wake_tag("a"), DROWSE_ERR_CORRUPT);
  ck_error_tag("a");
  ck_state("a", DROWSE_ASLEEP);
  ck_assert_uint_eq(stats_of("a").mapped_bytes, 0);
  for (int again = 0; again < 2; again++) {
    unsigned damaged = 0;
    for (uint64_t i = 0; i < BLOCKS; i++) {
      unsigned char *found = xmalloc(sizes[i]), *expected = xmalloc(sizes[i]);
      fill_pattern(expected, sizes[i], i);
      drowse_status status = drowse_copy_out(heap, found, block[i], sizes[i]);
      if (status == DROWSE_ERR_CORRUPT)
        damaged++;
      else
        ck_assert(status == DROWSE_OK && memcmp(found, expected, sizes[i]) == 0);
      free(found);
      free(expected);
    }
    ck_assert_uint_eq(damaged, 1);
  }
  /* The damaged block is given up, and the rest wakes. */
  for (uint64_t i = 0; i < BLOCKS; i++) {
    unsigned char *found = xmalloc(sizes[i]);
    if (drowse_copy_out(heap, found, block[i], sizes[i]) == DROWSE_ERR_CORRUPT) {
      ck_ok(drowse_free(heap, block[i]));
      block[i] = NULL;
    }
    free(found);
  }
  ck_ok(wake_tag("a"));
  for (uint64_t i = 0; i < BLOCKS; i++) ck_assert(block[i] == NULL || has_pattern(block[i], sizes[i], i));
}
END_TEST

/* A block of three pieces, the last of which is damaged. */
START_TEST(written_anew_or_not_at_all) {
  enum { BYTES = 10 * 1024 * 1024 };
  drowse_sleep_options options = {.struct_size = sizeof options, .backup = DROWSE_BACKUP_FILE, .directory = directory};
  unsigned char *bytes = xmalloc(BYTES);
  char *damaged = alloc_tag("b", BYTES);
  write_pattern(damaged, BYTES, 1);
  ck_ok(drowse_sleep(heap, &(drowse_rule){.tag = "b", .action = DROWSE_OFFLOAD}, 1, &options));
  flip(BYTES - 4096);
  fill_pattern(bytes, BYTES, 2);
  ck_status(drowse_copy_in(heap, damaged, bytes, BYTES - 1), DROWSE_ERR_CORRUPT);
  ck_assert(has_pattern(damaged, 8 * MIB, 1)); /* nothing of it has changed */
  ck_ok(drowse_copy_in(heap, damaged, bytes, BYTES));
  ck_assert(has_pattern(damaged, BYTES, 2));
  ck_ok(wake_tag("b"));
  ck_assert(has_pattern(damaged, BYTES, 2));
  free(bytes);
}
END_TEST

static void count_entries_but_dots(unsigned *count) {
  *count = (unsigned)count_entries(directory) - 2;
}

START_TEST(killed_in_the_middle_it_leaves_no_file) {
  int status, ready[2];
  unsigned entries;
  char byte;
  make_directory();
  ck_assert_int_eq(pipe(ready), 0);
  pid_t child = fork();
  ck_assert_int_ge(child, 0);
  if (child == 0) {
    start();
    make_blocks();
    if (sleep_to_file() != DROWSE_OK || write(ready[1], "x", 1) != 1) _exit(1);
    for (;;) pause();
  }
  ck_assert_int_eq(close(ready[1]), 0);
  ck_assert_int_eq(read(ready[0], &byte, 1), 1);
  ck_assert_int_eq(close(ready[0]), 0);
  count_entries_but_dots(&entries);
  ck_assert_uint_eq(entries, 0);
  ck_assert_int_eq(kill(child, SIGKILL), 0);
  ck_assert_int_eq(waitpid(child, &status, 0), child);
  ck_assert(WIFSIGNALED(status));
  ck_assert_int_eq(rmdir(directory), 0);
}
END_TEST

/* ---- fork: a child that lives on does not keep the disk from whoever comes next */

static int child_closes(void) {
  size_t files = count_entries("/proc/self/fd");
  if (drowse_heap_close(heap) != DROWSE_OK) return 1;
  return count_entries("/proc/self/fd") == files - 2 ? 0 : 2;
}

START_TEST(a_child_lets_the_files_go) {
  int status;
  char *block_b = alloc_tag("b", MIB);
  drowse_sleep_options options = {.struct_size = sizeof options, .backup = DROWSE_BACKUP_FILE, .directory = directory};
  ck_ok(sleep_to_file());
  ck_ok(drowse_sleep(heap, &(drowse_rule){.tag = "b", .action = DROWSE_OFFLOAD}, 1, &options));
  ck_ok(drowse_free(heap, block[0]));
  pid_t child = fork();
  ck_assert_int_ge(child, 0);
  if (child == 0) {
    status = child_closes();
    /* Killed if all is well: where it exits valgrind blames it for what threads had that were not forked. */
    if (status == 0) (void)raise(SIGKILL);
    _exit(status);
  }
  ck_assert_int_eq(waitpid(child, &status, 0), child);
  ck_assert_int_eq(status, SIGKILL);
  ck_ok(wake_tag("a"));
  for (uint64_t i = 1; i < BLOCKS; i++) ck_assert(has_pattern(block[i], sizes[i], i));
  ck_ok(drowse_free(heap, block_b));
}
END_TEST

/* ---- a thread that is canceled in a call ends behind it */

static atomic_int returned;

static drowse_status canceled_in_copy_out(void *argument) {
  (void)argument;
  unsigned char *found = xmalloc(sizes[4]);
  (void)pthread_cancel(pthread_self());
  drowse_status status = drowse_copy_out(heap, found, block[4], sizes[4]);
  (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
  atomic_fetch_add(&returned, 1);
  free(found);
  return status;
}

static drowse_status canceled_in_free(void *argument) {
  (void)argument;
  (void)pthread_cancel(pthread_self());
  drowse_status status = drowse_tag_clear(heap, "a");
  (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
  atomic_fetch_add(&returned, 1);
  return status;
}

START_TEST(canceled_while_it_reads_or_frees) {
  struct call call;
  ck_ok(sleep_to_file());
  atomic_store(&returned, 0);
  call_start(&call, canceled_in_copy_out, NULL);
  ck_call_end(&call, DROWSE_OK);
  ck_assert_int_eq(returned, 1);
  call_start(&call, canceled_in_free, NULL);
  ck_call_end(&call, DROWSE_OK);
  ck_assert_int_eq(returned, 2);
  ck_assert_uint_eq(stats_of("a").file_bytes, 0);
}
END_TEST

/* ---- memory that is not pinned goes the same way as files */

static CUresult refuse_to_register(void *host, size_t bytes, unsigned int flags) {
  (void)host, (void)bytes, (void)flags;
  return CUDA_ERROR_OUT_OF_MEMORY;
}

START_TEST(memory_that_cannot_be_pinned) {
  heap->device.driver.MemHostRegister = refuse_to_register;
  ck_ok(sleep_tag("a", DROWSE_OFFLOAD));
  drowse_stats stats = stats_of(NULL);
  ck_assert_uint_eq(stats.pinned_bytes, 0);
  ck_assert_uint_ge(stats.pageable_bytes, stats.backup_bytes);
  ck_whole();
  ck_ok(wake_tag("a"));
  heap->device.driver = dz_host_driver;
  ck_whole();
}
END_TEST

#define BLOCKS_TEST(suite, test) HARNESS_FIXTURE_TEST(suite, test, start_blocks, finish_blocks)

int main(void) {
  Suite *suite = suite_create("file");
  BLOCKS_TEST(suite, everything_comes_back);
  BLOCKS_TEST(suite, read_and_written_while_it_sleeps);
  BLOCKS_TEST(suite, sealed_it_stays_in_the_file);
  HARNESS_TEST(suite, a_seal_is_compared_with_checksums);
  BLOCKS_TEST(suite, discarded_in_the_file);
  HARNESS_TEST(suite, closed_while_it_sleeps);
  HARNESS_TEST(suite, host_first_then_the_file);
  HARNESS_TEST(suite, what_fits_goes_to_the_host);
  HARNESS_TEST(suite, what_is_missing_is_told_whatever_a_trim_says);
  BLOCKS_TEST(suite, all_to_the_host_makes_no_file);
  BLOCKS_TEST(suite, no_such_directory);
  BLOCKS_TEST(suite, no_room);
  BLOCKS_TEST(suite, a_flipped_bit_is_noticed_and_the_rest_is_there);
  BLOCKS_TEST(suite, written_anew_or_not_at_all);
  HARNESS_TEST(suite, killed_in_the_middle_it_leaves_no_file);
  BLOCKS_TEST(suite, a_child_lets_the_files_go);
  BLOCKS_TEST(suite, canceled_while_it_reads_or_frees);
  BLOCKS_TEST(suite, memory_that_cannot_be_pinned);
  return harness_run(suite);
}
