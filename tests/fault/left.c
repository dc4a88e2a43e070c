/* SPDX-License-Identifier: Apache-2.0
 *
 * What is left when every heap has been closed.
 */
#include "fault/left.h"

#include <dirent.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "driver/host.h"

static size_t count_entries(const char *path) {
  DIR *directory = opendir(path);
  EXPECT(directory != NULL);
  size_t count = 0;
  while (readdir(directory) != NULL) count++;
  (void)closedir(directory);
  return count;
}

/* A thread that has been joined may be listed for a moment; one that was left behind is listed for ever. most 0: nobody knows how
 * many the driver has. */
static uint64_t await_threads(uint64_t most) {
  uint64_t threads = count_entries("/proc/self/task");
  for (unsigned looks = 0; most > 0 && threads > most; looks++) {
    EXPECT_MSG(looks < 100000, "a thread is left");
    (void)sched_yield();
    threads = count_entries("/proc/self/task");
  }
  return threads;
}

static void *do_nothing(void *nothing) {
  return nothing;
}

uint64_t left_threads(void) {
  pthread_t thread;
  EXPECT(pthread_create(&thread, NULL, do_nothing, NULL) == 0 && pthread_join(thread, NULL) == 0);
  return count_entries("/proc/self/task");
}

struct left left_look(uint64_t most_threads) {
  uint64_t threads = await_threads(most_threads);
  return (struct left){fault_live(), count_entries("/proc/self/fd"), threads};
}

static void print_files(void) {
  char path[64], name[256];
  for (int file = 3; file < 64; file++) {
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    ssize_t length = readlink(path, name, sizeof name - 1);
    if (length > 0) (void)printf("  open: %.*s\n", (int)length, name);
  }
  (void)fflush(stdout);
}

void left_check(const struct left *before, const struct left *now, bool unmapped) {
  if (now->live.allocations > before->live.allocations) fault_print_allocations(1);
  EXPECT_MSG(now->live.allocations <= before->live.allocations, "%lld allocations more than without a fault",
             (long long)(now->live.allocations - before->live.allocations));
  EXPECT_MSG(!unmapped || now->live.mapped_bytes <= before->live.mapped_bytes, "%lld bytes more are mapped than without a fault",
             (long long)(now->live.mapped_bytes - before->live.mapped_bytes));
  if (now->files != before->files) print_files();
  EXPECT_MSG(now->files == before->files, "%lld files are open more than without a fault",
             (long long)(now->files - before->files));
}

/* What the fault has kept the library from giving back to the device goes with the context. */
void left_end_contexts(void) {
  struct host_counts counts;
  dz_host_counts(&counts);
  for (CUdevice device = 0; counts.contexts > 0 && device < 8; device++) {
    while (fault_real_driver()->DevicePrimaryCtxRelease(device) == CUDA_SUCCESS) continue;
    dz_host_counts(&counts);
  }
}

void left_check_device(bool excused) {
  struct host_counts counts, nothing = {0};
  dz_host_counts(&counts);
  uint64_t reclaimed = counts.reclaimed;
  counts.reclaimed = 0;
  EXPECT_MSG(excused || reclaimed == 0, "%llu things of the device were left", (unsigned long long)reclaimed);
  EXPECT_MSG(counts.registered == 0, "%llu bytes are still pinned", (unsigned long long)counts.registered_bytes);
  EXPECT_MSG(memcmp(&counts, &nothing, sizeof counts) == 0,
             "left: %llu contexts, %llu handles, %llu reservations, %llu mappings, %llu streams, %llu events",
             (unsigned long long)counts.contexts, (unsigned long long)counts.handles, (unsigned long long)counts.reservations,
             (unsigned long long)counts.mappings, (unsigned long long)counts.streams, (unsigned long long)counts.events);
}
