/* SPDX-License-Identifier: Apache-2.0
 *
 * A process in a memory cgroup with a limit, of version 1 or 2: drowse reads the limit, and what exceeds it is NO_HOST_MEMORY
 * before a page is touched; and where others of the group take all there is, so that the kernel kills the process in the middle
 * of a sleep, its parent finds nothing left of it. Exits with 77 where no such group can be made.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backup/hostmem.h"
#include "drowse.h"
#include "fork/child.h"

#define MIB (UINT64_C(1) << 20)

enum { SKIPPED = 77, LIMIT = 192 << 20, BYTES = 48 << 20, KILLED = 256 + SIGKILL };

/* ---- the group */

static const struct version {
  const char *root, *limit;
} versions[] = {{"/sys/fs/cgroup", "memory.max"}, {"/sys/fs/cgroup/memory", "memory.limit_in_bytes"}};

static char group[128];

static bool write_number(const char *name, long long number) {
  char path[256];
  (void)snprintf(path, sizeof path, "%s/%s", group, name);
  int file = open(path, O_WRONLY | O_CLOEXEC);
  if (file < 0) return false;
  bool written = dprintf(file, "%lld", number) > 0;
  return close(file) == 0 && written;
}

static bool make_group(void) {
  for (size_t i = 0; i < sizeof versions / sizeof *versions; i++) {
    (void)snprintf(group, sizeof group, "%s/drowse-test-%d", versions[i].root, (int)getpid());
    if (mkdir(group, 0755) != 0) continue;
    if (write_number(versions[i].limit, LIMIT)) return true;
    (void)rmdir(group);
  }
  return false;
}

/* A process that has been waited for may still be counted for a moment. */
static bool remove_group(void) {
  while (rmdir(group) != 0) {
    if (errno != EBUSY) return false;
    (void)sched_yield();
  }
  return true;
}

static bool join_group(void) {
  return write_number("cgroup.procs", getpid());
}

/* ---- in it */

static unsigned char bytes[BYTES], found[BYTES];
static drowse_heap *heap;
static void *block;

static bool open_and_fill(void) {
  drowse_heap_options options = {.struct_size = sizeof options, .device = "host:1GiB"};
  drowse_alloc_options tag = {.struct_size = sizeof tag, .tag = "a"};
  for (size_t i = 0; i < BYTES; i++) bytes[i] = (unsigned char)(i * 7 + i / 4096);
  return drowse_heap_open(&heap, &options) == DROWSE_OK && drowse_alloc_with(heap, BYTES, NULL, &tag, &block) == DROWSE_OK &&
         drowse_copy_in(heap, block, bytes, BYTES) == DROWSE_OK;
}

static bool is_whole(void) {
  memset(found, 0, BYTES);
  return drowse_copy_out(heap, found, block, BYTES) == DROWSE_OK && memcmp(found, bytes, BYTES) == 0;
}

static drowse_status offload(const drowse_sleep_options *options) {
  return drowse_sleep(heap, &(drowse_rule){.tag = "a", .action = DROWSE_OFFLOAD}, 1, options);
}

/* 48 of 192 MiB are the device's, 96 this program's: no room for the backup. When the program has given back half there is. */
static int meet_limit(void) {
  drowse_error error = {.struct_size = sizeof error};
  STEP(1, join_group() && open_and_fill() && is_whole());
  STEP(2, dz_host_available() < LIMIT - (uint64_t)3 * BYTES);
  STEP(3, offload(NULL) == DROWSE_ERR_NO_HOST_MEMORY);
  STEP(4, strstr(drowse_last_error(), "the machine or its cgroup has") != NULL);
  STEP(5, drowse_error_get(&error) == DROWSE_OK && error.wanted_bytes >= BYTES && error.free_bytes < BYTES);
  STEP(6, drowse_backup_reserve(heap, LIMIT) == DROWSE_ERR_NO_HOST_MEMORY);
  STEP(7, is_whole());
  STEP(8, madvise((void *)(((uintptr_t)found + 4095) & ~(uintptr_t)4095), BYTES - 4096, MADV_DONTNEED) == 0);
  STEP(9, offload(NULL) == DROWSE_OK);
  STEP(10, drowse_wake(heap, NULL, 0, NULL) == DROWSE_OK && drowse_backup_trim(heap, 0) == DROWSE_OK);
  STEP(11, is_whole());
  STEP(12, drowse_heap_close(heap) == DROWSE_OK);
  return 0;
}

/* Touches more than the group may have, a page at a time. */
static void take_all(void *nothing, const drowse_progress *progress) {
  char *memory = mmap(NULL, LIMIT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  (void)nothing;
  (void)progress;
  for (size_t at = 0; memory != MAP_FAILED && at < LIMIT; at += 4096) memory[at] = 1;
}

static char directory[] = "drowse-cgroup-XXXXXX";

static int die_asleep(void) {
  drowse_sleep_options options = {
      .struct_size = sizeof options, .backup = DROWSE_BACKUP_FILE, .directory = directory, .progress = take_all};
  STEP(20, join_group() && open_and_fill());
  (void)offload(&options);
  return 21; /* it was to be killed */
}

/* ---- outside */

static int enforced(void) {
  if (!join_group()) return 1;
  take_all(NULL, NULL);
  return 1;
}

static bool ended(const char *what, int end, int expected) {
  if (end != expected) (void)fprintf(stderr, "cgroup: %s ended with %d, not %d (from 256: a signal)\n", what, end, expected);
  return end == expected;
}

/* The process that was killed has left nothing, and this one can do what it could not. */
static bool run(void) {
  if (mkdtemp(directory) == NULL) return false;
  bool good = ended("the process at its limit", in_child(meet_limit), 0);
  good = ended("the process without memory", in_child(die_asleep), KILLED) && good;
  if (rmdir(directory) != 0) {
    (void)fprintf(stderr, "cgroup: %s: %s\n", directory, strerror(errno));
    good = false;
  }
  return good && open_and_fill() && offload(NULL) == DROWSE_OK && is_whole() && drowse_heap_close(heap) == DROWSE_OK;
}

int main(void) {
  if (SANITIZED) {
    (void)puts("cgroup: skipped: a sanitizer takes more memory than is told apart here");
    return SKIPPED;
  }
  if (!make_group()) {
    (void)printf("cgroup: skipped: no memory cgroup can be made: %s\n", strerror(errno));
    return SKIPPED;
  }
  bool holds = in_child(enforced) == KILLED, good = holds && run();
  if (!remove_group()) {
    (void)fprintf(stderr, "cgroup: %s: %s\n", group, strerror(errno));
    good = false;
  }
  if (!holds) (void)puts("cgroup: skipped: this system does not hold processes to a group's limit");
  return !holds ? SKIPPED : good ? EXIT_SUCCESS : EXIT_FAILURE;
}
