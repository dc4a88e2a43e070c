/* SPDX-License-Identifier: Apache-2.0
 *
 * On the host device memory that is given back leaves the process: it shows in the resident set.
 */
#include "fixture.h"

#include <inttypes.h>

enum { MAPPED = 256 * 1024 * 1024, SLACK = MAPPED / 8 };

/* A line of one of the process's files, bytes. */
static int64_t resident(const char *path, const char *name) {
  char line[256];
  int64_t kibibytes = 0;
  FILE *file = fopen(path, "re");
  ck_assert_ptr_nonnull(file);
  while (fgets(line, sizeof line, file) != NULL) {
    if (strncmp(line, name, strlen(name)) == 0) (void)sscanf(line + strlen(name), "%" SCNd64, &kibibytes);
  }
  (void)fclose(file);
  return kibibytes * 1024;
}

static int64_t of_device(void) {
  return resident("/proc/self/status", "RssShmem:");
}

static int64_t of_host(void) {
  return resident("/proc/self/status", "RssAnon:");
}

static int64_t of_process(void) {
  return resident("/proc/self/smaps_rollup", "Rss:");
}

static void *touched_memory(void) {
  void *ptr = alloc_tag("a", MAPPED);
  ck_cu(MemsetD8Async((CUdeviceptr)(uintptr_t)ptr, 1, MAPPED, NULL));
  ck_cu(StreamSynchronize(NULL));
  return ptr;
}

static void start_large(void) {
  open_with((drowse_heap_options){.device = "host:512MiB"});
}

START_TEST(discarding_shrinks_the_process) {
  int64_t before = of_process(), device_before = of_device();
  (void)touched_memory();
  int64_t awake = of_process(), device_awake = of_device();
  ck_assert_int_ge(device_awake - device_before, MAPPED - SLACK);
  ck_ok(sleep_tag("a", DROWSE_DISCARD));
  ck_assert_int_ge(awake - of_process(), MAPPED - SLACK);
  ck_assert_int_le(of_process() - before, SLACK);
  ck_assert_int_le(of_device() - device_before, SLACK);
  ck_ok(
      drowse_wake(heap, NULL, 0, &(drowse_wake_options){.struct_size = sizeof(drowse_wake_options), .flags = DROWSE_WAKE_ZERO}));
  ck_assert_int_ge(of_device() - device_before, MAPPED - SLACK);
  ck_assert_int_ge(of_process() - before, MAPPED - SLACK);
}
END_TEST

START_TEST(offloading_moves_memory_from_the_device_to_the_host) {
  int64_t device_before = of_device();
  (void)touched_memory();
  int64_t host_before = of_host();
  ck_ok(sleep_tag("a", DROWSE_OFFLOAD));
  ck_assert_int_le(of_device() - device_before, SLACK);
  ck_assert_int_ge(of_host() - host_before, MAPPED - SLACK);
  ck_ok(wake_all_tags());
  ck_assert_int_ge(of_device() - device_before, MAPPED - SLACK);
}
END_TEST

START_TEST(closing_leaves_nothing_resident) {
  int64_t before = of_process();
  start_large();
  (void)touched_memory();
  ck_ok(sleep_tag("a", DROWSE_OFFLOAD));
  close_heap();
  ck_assert_int_le(of_process() - before, SLACK);
}
END_TEST

#define LARGE_TEST(suite, test) HARNESS_FIXTURE_TEST(suite, test, start_large, finish)

int main(void) {
  Suite *suite = suite_create("resident");
  LARGE_TEST(suite, discarding_shrinks_the_process);
  LARGE_TEST(suite, offloading_moves_memory_from_the_device_to_the_host);
  HARNESS_TEST(suite, closing_leaves_nothing_resident);
  return harness_run(suite);
}
