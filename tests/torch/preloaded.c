/* SPDX-License-Identifier: Apache-2.0
 *
 * A program that uses the CUDA runtime and knows nothing of drowse, with libdrowse-tms preloaded; what torch_memory_saver's
 * Python package calls it looks up by name. With tests/torch/fake_libcudart.c as the runtime or, on a GPU, with the real one.
 *
 * Its argument: "set", the region is opened by a call; "init", it is open from the start (TMS_INIT_ENABLE and
 * TMS_INIT_ENABLE_CPU_BACKUP).
 */
#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int cudaMalloc(void **ptr, size_t bytes);
int cudaFree(void *ptr);
int cudaMemcpy(void *to, const void *from, size_t bytes, int kind);
int cudaGetDevice(int *current);
int cudaSetDevice(int current);

enum { BYTES = 3000000, TO_DEVICE = 1, TO_HOST = 2, MEMORY_ALLOCATION = 2, NOT_PERMITTED = 800 };

static int failures;

#define EXPECT(condition)                                   \
  do {                                                      \
    if (!(condition)) {                                     \
      printf("FAILED line %d: %s\n", __LINE__, #condition); \
      failures++;                                           \
    }                                                       \
  } while (0)

static void (*set_interesting_region)(bool on), (*set_enable_cpu_backup)(bool on), (*set_current_tag)(const char *tag);
static bool (*get_interesting_region)(void);
static int (*pause_tag)(const char *tag), (*resume_tag)(const char *tag);
static uint32_t (*affected_devices)(const char *tag, int *devices, uint32_t room);
static uint8_t *(*get_cpu_backup_pointer)(const uint8_t *ptr, uint64_t bytes);

/* Of the fake runtime; NULL: it is the real one. */
static int (*fake_has)(const void *ptr), (*fake_synchronized)(void);

static bool is_there(const char *name, void *function) {
  void *found = dlsym(RTLD_DEFAULT, name);
  memcpy(function, &found, sizeof found);
  return found != NULL;
}

static bool look_up(void) {
  (void)is_there("fake_has", &fake_has);
  (void)is_there("fake_synchronized", &fake_synchronized);
  return is_there("tms_set_interesting_region", &set_interesting_region) &&
         is_there("tms_get_interesting_region", &get_interesting_region) &&
         is_there("tms_set_enable_cpu_backup", &set_enable_cpu_backup) && is_there("tms_set_current_tag", &set_current_tag) &&
         is_there("tms_pause", &pause_tag) && is_there("tms_resume", &resume_tag) &&
         is_there("tms_affected_devices", &affected_devices) && is_there("tms_get_cpu_backup_pointer", &get_cpu_backup_pointer);
}

static void open_region(const char *tag, bool backup) {
  set_current_tag(tag);
  set_interesting_region(true);
  set_enable_cpu_backup(backup);
}

static bool is_real(const void *ptr) {
  return fake_has == NULL || fake_has(ptr);
}

static bool is_drowses(const void *ptr) {
  return fake_has == NULL || !fake_has(ptr);
}

static unsigned char expected[BYTES], found[BYTES];

static void write_to(void *ptr) {
  for (size_t at = 0; at < BYTES; at++) expected[at] = (unsigned char)(at * 7 + at / 4096);
  EXPECT(cudaMemcpy(ptr, expected, BYTES, TO_DEVICE) == 0);
}

static bool is_whole(const void *ptr) {
  memset(found, 0, BYTES);
  return cudaMemcpy(found, ptr, BYTES, TO_HOST) == 0 && memcmp(found, expected, BYTES) == 0;
}

static void outside_of_regions_the_runtime_is_called(void) {
  void *ptr = NULL;
  set_interesting_region(false);
  EXPECT(cudaMalloc(&ptr, BYTES) == 0 && is_real(ptr));
  open_region("weights", true);
  EXPECT(cudaFree(ptr) == 0 && is_drowses(ptr)); /* it is whose it was */
  EXPECT(cudaFree(NULL) == 0);
  set_interesting_region(false);
}

static void memory_of_a_region_sleeps(void) {
  void *ptr = NULL, *none = &ptr;
  open_region("weights", true);
  EXPECT(cudaMalloc(&ptr, BYTES) == 0 && ptr != NULL && is_drowses(ptr));
  EXPECT(cudaMalloc(&none, 0) == 0 && none == NULL);
  write_to(ptr);
  EXPECT(pause_tag("weights") == 0);
  EXPECT(memcmp(get_cpu_backup_pointer(ptr, BYTES), expected, BYTES) == 0);
  EXPECT(cudaMalloc(&none, BYTES) == NOT_PERMITTED && none == NULL);
  EXPECT(resume_tag("weights") == 0);
  EXPECT(is_whole(ptr));
  set_interesting_region(false);
  EXPECT(fake_synchronized == NULL || fake_synchronized() == -1);
  EXPECT(cudaFree(ptr) == 0);
  EXPECT(fake_synchronized == NULL || fake_synchronized() == 0); /* its work had been waited for */
  EXPECT(cudaFree(ptr) != 0);                                    /* the runtime says so */
}

static void want_of_memory_is_the_runtimes_error(void) {
  void *ptr = &ptr;
  open_region("weights", false);
  EXPECT(cudaMalloc(&ptr, (size_t)1 << 45) == MEMORY_ALLOCATION && ptr == NULL);
  EXPECT(cudaMalloc(&ptr, BYTES) == 0);
  EXPECT(pause_tag(NULL) == 0);
  EXPECT(pause_tag(NULL) == 0);
  EXPECT(cudaFree(ptr) == 0); /* while it sleeps */
  EXPECT(resume_tag(NULL) == 0);
  set_interesting_region(false);
}

/* A block is freed on its own device, whichever is current. */
static void each_device_has_its_own(void) {
  int devices[2] = {-1, -1}, current = -1;
  void *ptr = NULL;
  if (fake_synchronized == NULL) return; /* there may be one GPU only */
  open_region("second", true);
  EXPECT(cudaSetDevice(1) == 0 && cudaMalloc(&ptr, BYTES) == 0 && cudaSetDevice(0) == 0);
  EXPECT(affected_devices("second", devices, 2) == 1 && devices[0] == 1);
  EXPECT(cudaFree(ptr) == 0);
  EXPECT(fake_synchronized() == 1);
  EXPECT(cudaGetDevice(&current) == 0 && current == 0);
  EXPECT(affected_devices("second", devices, 2) == 0);
  set_interesting_region(false);
}

static void a_region_is_open_from_the_start(void) {
  void *ptr = NULL;
  EXPECT(get_interesting_region());
  EXPECT(cudaMalloc(&ptr, BYTES) == 0 && is_drowses(ptr));
  write_to(ptr);
  EXPECT(pause_tag(NULL) == 0 && resume_tag(NULL) == 0);
  EXPECT(is_whole(ptr));
  EXPECT(pause_tag(NULL) == 0); /* and so it ends */
}

int main(int argc, char **argv) {
  if (!look_up()) {
    printf("libdrowse-tms is not preloaded\n");
    return 3;
  }
  if (argc > 1 && strcmp(argv[1], "init") == 0) {
    a_region_is_open_from_the_start();
  } else {
    outside_of_regions_the_runtime_is_called();
    memory_of_a_region_sleeps();
    want_of_memory_is_the_runtimes_error();
    each_device_has_its_own();
  }
  return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
