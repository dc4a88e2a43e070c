/* SPDX-License-Identifier: Apache-2.0
 *
 * torch_memory_saver's functions over the host device, called as its Python package calls them.
 */
#include "torch/tms.h"

#include "fixture.h"

#include <unistd.h>

#include "torch/cuda_error.h"
#include "torch/heaps.h"

enum { BYTES = 3 * 1024 * 1024 };

enum keep { NONE, HOST, DISK };

static void open_region(const char *tag, enum keep keep) {
  tms_set_current_tag(tag);
  tms_set_interesting_region(true);
  tms_set_enable_cpu_backup(keep == HOST);
  tms_set_enable_disk_backup(keep == DISK);
}

static void close_region(void) {
  open_region("default", NONE);
  tms_set_interesting_region(false);
}

static void start_tms(void) {
  start();
  ck_ok(dz_heaps_set(0, heap));
  close_region();
  set_memory_margin_bytes(0);
  tms_set_retain_cpu_backup(false);
}

static void finish_tms(void) {
  close_region();
  ck_ok(dz_heaps_set(0, NULL));
  finish();
}

/* Between start_tms and finish_tms. */
#define TMS_TEST(suite, test) HARNESS_FIXTURE_TEST(suite, test, start_tms, finish_tms)

static void *make_in(const char *tag, enum keep keep, size_t bytes) {
  open_region(tag, keep);
  void *ptr = tms_torch_malloc((ssize_t)bytes, 0, NULL);
  close_region();
  return ptr;
}

static void *make(const char *tag, enum keep keep, uint64_t seed) {
  void *ptr = make_in(tag, keep, BYTES);
  ck_assert_msg(ptr != NULL, "%s", drowse_last_error());
  write_pattern(ptr, BYTES, seed);
  return ptr;
}

static void ck_failed(drowse_status status) {
  drowse_error error = {.struct_size = sizeof error};
  ck_ok(drowse_error_get(&error));
  ck_assert_str_eq(drowse_status_name(error.status), drowse_status_name(status));
}

/* ---- regions */

START_TEST(outside_of_regions_there_is_no_memory) {
  ck_assert_ptr_null(tms_torch_malloc(BYTES, 0, NULL));
  ck_failed(DROWSE_ERR_SCOPE);
  ck_assert_uint_eq(stats_of(NULL).live_blocks, 0);
}
END_TEST

START_TEST(what_is_set_can_be_asked_for) {
  char tag[] = "weights";
  ck_assert_str_eq(tms_get_current_tag(), "default");
  ck_assert(!tms_get_interesting_region() && !tms_get_enable_cpu_backup() && !tms_get_enable_disk_backup());
  open_region(tag, HOST);
  tag[0] = 'W'; /* it has been copied */
  ck_assert_str_eq(tms_get_current_tag(), "weights");
  ck_assert(tms_get_interesting_region() && tms_get_enable_cpu_backup() && !tms_get_enable_disk_backup());
  open_region("kv", DISK);
  ck_assert(!tms_get_enable_cpu_backup() && tms_get_enable_disk_backup());
  tms_set_current_tag(NULL);
  ck_failed(DROWSE_ERR_INVALID);
  ck_assert_str_eq(tms_get_current_tag(), "kv");
  tms_set_cpu_backup_backend("mmap");
  ck_assert_str_eq(tms_get_cpu_backup_backend(), "mmap");
  tms_set_cpu_backup_backend("paper");
  ck_assert_str_eq(tms_get_cpu_backup_backend(), "mmap");
  tms_set_cpu_backup_backend("");
  ck_assert_str_eq(tms_get_cpu_backup_backend(), "pinned");
}
END_TEST

static drowse_status open_another_region(void *nothing) {
  bool fresh = strcmp(tms_get_current_tag(), "default") == 0 && !tms_get_interesting_region();
  open_region("other", HOST);
  void *ptr = tms_torch_malloc(BYTES, 0, NULL);
  tms_torch_free(ptr, BYTES, 0, NULL);
  return fresh && ptr != NULL && nothing == NULL ? DROWSE_OK : DROWSE_ERR_INVALID;
}

START_TEST(each_thread_has_a_region_of_its_own) {
  struct call call;
  open_region("weights", NONE);
  call_start(&call, open_another_region, NULL);
  ck_call_end(&call, DROWSE_OK);
  ck_assert_str_eq(tms_get_current_tag(), "weights");
  ck_assert_uint_eq(stats_of("other/host").live_blocks, 0);
  ck_assert_ptr_nonnull(tms_torch_malloc(BYTES, 0, NULL));
  ck_assert_uint_eq(stats_of("weights/none").live_blocks, 1);
}
END_TEST

START_TEST(what_cannot_be_a_region_is_told) {
  char longest[60];
  memset(longest, 'x', sizeof longest);
  longest[59] = '\0';
  ck_assert_ptr_null(make_in(longest, NONE, BYTES));
  ck_failed(DROWSE_ERR_INVALID);
  ck_says("58 bytes");
  longest[58] = '\0';
  ck_assert_ptr_nonnull(make_in(longest, NONE, BYTES));
  ck_assert_ptr_null(make_in("\n", NONE, BYTES));
  ck_failed(DROWSE_ERR_INVALID);
  ck_assert_ptr_nonnull(make_in("", NONE, BYTES));
  open_region("weights", HOST);
  tms_set_enable_disk_backup(true);
  ck_assert_ptr_null(tms_torch_malloc(BYTES, 0, NULL));
  ck_says("not both");
}
END_TEST

/* In place of malloc(): there is none. */
static bool no_memory;
void *__wrap_malloc(size_t bytes);
void *__real_malloc(size_t bytes);

void *__wrap_malloc(size_t bytes) {
  return no_memory ? NULL : __real_malloc(bytes);
}

/* Nothing ends up under the tag that was set before. */
START_TEST(a_tag_for_whose_name_there_is_no_memory_gets_none) {
  open_region("before", NONE);
  no_memory = true;
  tms_set_current_tag("a name that nobody has had");
  no_memory = false;
  ck_assert_ptr_null(tms_torch_malloc(BYTES, 0, NULL));
  ck_failed(DROWSE_ERR_NO_HOST_MEMORY);
  tms_set_current_tag("after");
  ck_assert_ptr_nonnull(tms_torch_malloc(BYTES, 0, NULL));
}
END_TEST

static drowse_status ask_the_environment(void *nothing) {
  void *ptr = tms_torch_malloc(BYTES, 0, NULL);
  tms_torch_free(ptr, BYTES, 0, NULL);
  bool as_said = ptr != NULL && tms_get_interesting_region() && tms_get_enable_cpu_backup() && !tms_get_enable_disk_backup() &&
                 strcmp(tms_get_cpu_backup_backend(), "mmap") == 0;
  tms_set_interesting_region(false);
  return as_said && nothing == NULL && !tms_get_interesting_region() ? DROWSE_OK : DROWSE_ERR_INVALID;
}

static drowse_status ask_a_bad_environment(void *text) {
  bool told = tms_torch_malloc(BYTES, 0, NULL) == NULL && strcmp(drowse_last_error(), text) == 0;
  tms_set_enable_cpu_backup(false);
  void *ptr = tms_torch_malloc(BYTES, 0, NULL);
  tms_torch_free(ptr, BYTES, 0, NULL);
  return told && ptr != NULL ? DROWSE_OK : DROWSE_ERR_INVALID;
}

START_TEST(threads_begin_as_the_environment_says) {
  struct call call;
  char text[] = "TMS_INIT_ENABLE_CPU_BACKUP is \"maybe\": neither 1 nor 0";
  ck_assert_int_eq(setenv("TMS_INIT_ENABLE", "yes", 1), 0);
  ck_assert_int_eq(setenv("TMS_INIT_ENABLE_CPU_BACKUP", "1", 1), 0);
  ck_assert_int_eq(setenv("TMS_INIT_ENABLE_DISK_BACKUP", "FALSE", 1), 0);
  ck_assert_int_eq(setenv("TMS_INIT_CPU_BACKUP_BACKEND", "mmap", 1), 0);
  call_start(&call, ask_the_environment, NULL);
  ck_call_end(&call, DROWSE_OK);
  ck_assert_int_eq(setenv("TMS_INIT_ENABLE_CPU_BACKUP", "maybe", 1), 0);
  call_start(&call, ask_a_bad_environment, text);
  ck_call_end(&call, DROWSE_OK);
  ck_assert_int_eq(unsetenv("TMS_INIT_ENABLE") | unsetenv("TMS_INIT_ENABLE_CPU_BACKUP"), 0);
  ck_assert_int_eq(unsetenv("TMS_INIT_ENABLE_DISK_BACKUP") | unsetenv("TMS_INIT_CPU_BACKUP_BACKEND"), 0);
}
END_TEST

/* ---- pausing */

START_TEST(contents_are_kept_as_each_region_says) {
  uint64_t free_bytes = device_free_bytes();
  void *none = make("a", NONE, 1), *host = make("a", HOST, 2), *disk = make("b", DISK, 3);
  for (int round = 0; round < 2; round++) {
    ck_assert_int_eq(tms_pause(NULL), 0);
    ck_assert_uint_eq(device_free_bytes(), free_bytes);
    ck_assert_uint_eq(stats_of("a/none").discarded_bytes, BYTES);
    ck_assert_uint_eq(stats_of("a/host").backup_bytes, BYTES);
    ck_assert_uint_eq(stats_of("b/file").file_bytes, BYTES);
    ck_assert_int_eq(tms_resume(""), 0); /* all, too */
    ck_state(NULL, DROWSE_AWAKE);
    ck_assert(has_pattern(host, BYTES, 2));
    ck_assert(has_pattern(disk, BYTES, 3));
    write_pattern(none, BYTES, 1); /* it can be used again */
  }
}
END_TEST

START_TEST(a_tag_is_paused_by_itself) {
  void *none = make("a", NONE, 1), *host = make("a", HOST, 2), *longer = make("aa", HOST, 3), *other = make("b", NONE, 4);
  ck_assert_int_eq(tms_pause("a"), 0);
  ck_state("a/none", DROWSE_ASLEEP);
  ck_state("a/host", DROWSE_ASLEEP);
  ck_assert(has_pattern(longer, BYTES, 3));
  ck_assert(has_pattern(other, BYTES, 4));
  ck_assert_int_eq(tms_pause("aa"), 0);
  ck_assert_int_eq(tms_resume("a"), 0);
  ck_state("aa/host", DROWSE_ASLEEP);
  ck_assert(has_pattern(host, BYTES, 2));
  write_pattern(none, BYTES, 1);
  ck_assert_int_eq(tms_resume("aa"), 0);
  ck_assert(has_pattern(longer, BYTES, 3));
}
END_TEST

/* "weights" has two tags of drowse's here: only the one whose memory somebody else knows of stays. */
START_TEST(what_somebody_else_knows_of_stays) {
  unsigned char *known = make("weights", HOST, 1), *beside = make("weights", NONE, 2), *other = make("cache", NONE, 3);
  ck_assert_uint_eq(tms_keep_resident(known + BYTES / 2), BYTES);
  ck_assert_uint_eq(tms_keep_resident(known), BYTES);
  ck_assert_int_eq(tms_pause(NULL), 0);
  ck_state("weights/host", DROWSE_AWAKE);
  ck_state("weights/none", DROWSE_ASLEEP);
  ck_state("cache/none", DROWSE_ASLEEP);
  ck_assert(has_pattern(known, BYTES, 1));
  ck_assert_uint_eq(tms_keep_resident(beside), 0);
  ck_failed(DROWSE_ERR_ASLEEP);
  ck_assert_int_eq(tms_resume(NULL), 0);
  tms_torch_free(known, BYTES, 0, NULL);
  known = make("weights", HOST, 4); /* maybe at the same address, and nobody's */
  ck_assert_int_eq(tms_pause("weights"), 0);
  ck_state("weights/host", DROWSE_ASLEEP);
  ck_assert_int_eq(tms_resume(NULL), 0);
  ck_assert(has_pattern(known, BYTES, 4));
  ck_assert_uint_eq(tms_keep_resident(other), BYTES); /* in the place of the one that is gone */
  ck_assert_int_eq(tms_pause(NULL), 0);
  ck_state("weights/host", DROWSE_ASLEEP);
  ck_state("cache/none", DROWSE_AWAKE);
  ck_assert_int_eq(tms_resume(NULL), 0);
  ck_assert_uint_eq(tms_keep_resident(&known), 0);
  ck_failed(DROWSE_ERR_NOT_FOUND);
  tms_torch_free(known, BYTES, 0, NULL);
  tms_torch_free(beside, BYTES, 0, NULL);
  tms_torch_free(other, BYTES, 0, NULL);
}
END_TEST

START_TEST(what_is_done_already_is_done) {
  void *ptr = make("a", HOST, 1);
  ck_assert_int_eq(tms_resume("a"), 0);
  for (int time = 0; time < 2; time++) ck_assert_int_eq(tms_pause("a"), 0);
  ck_assert_int_eq(tms_pause("unknown"), 0);
  for (int time = 0; time < 2; time++) ck_assert_int_eq(tms_resume("a"), 0);
  ck_assert(has_pattern(ptr, BYTES, 1));
}
END_TEST

START_TEST(nothing_is_allocated_for_a_paused_tag) {
  (void)make("a", HOST, 1);
  ck_assert_int_eq(tms_pause("a"), 0);
  ck_assert_ptr_null(make_in("a", HOST, BYTES));
  ck_failed(DROWSE_ERR_ASLEEP);
  ck_assert_int_eq(tms_resume("a"), 0);
  ck_assert_ptr_nonnull(make_in("a", HOST, BYTES));
}
END_TEST

/* Another tenant has taken the memory meanwhile. */
START_TEST(a_resume_for_which_there_is_no_memory_can_be_made_again) {
  drowse_heap_options options = {.struct_size = sizeof options, .device = "host:64MiB"};
  drowse_alloc_options tenancy = {.struct_size = sizeof tenancy, .tag = "tenant"};
  drowse_heap *tenant;
  void *ptr = make("a", HOST, 1), *taken;
  ck_assert_int_eq(tms_pause(NULL), 0);
  ck_ok(drowse_heap_open(&tenant, &options));
  ck_ok(drowse_alloc_with(tenant, 63 * MIB, NULL, &tenancy, &taken));
  for (int time = 0; time < 2; time++) {
    ck_assert_int_eq(tms_resume(NULL), DZ_CUDA_MEMORY_ALLOCATION);
    ck_says("a/host");
  }
  ck_ok(drowse_heap_close(tenant));
  ck_assert_int_eq(tms_resume(NULL), 0);
  ck_assert(has_pattern(ptr, BYTES, 1));
}
END_TEST

START_TEST(memory_is_freed_whoever_does_it_and_goes_back) {
  uint64_t free_bytes = device_free_bytes();
  void *first = make("a", HOST, 1), *second = make("a", HOST, 2);
  ck_assert_int_eq(tms_pause(NULL), 0);
  tms_torch_free(first, BYTES, 0, NULL); /* no region is open */
  ck_assert_uint_eq(stats_of(NULL).backup_bytes, BYTES);
  ck_assert_int_eq(tms_resume(NULL), 0);
  ck_assert(has_pattern(second, BYTES, 2));
  tms_torch_free(second, BYTES, 0, NULL);
  ck_assert_uint_eq(device_free_bytes(), free_bytes);
  tms_torch_free(NULL, 0, 0, NULL);
  tms_torch_free(&free_bytes, BYTES, 0, NULL);
  tms_torch_free(&free_bytes, BYTES, 7, NULL);
}
END_TEST

/* ---- settings */

START_TEST(a_margin_is_left_free) {
  set_memory_margin_bytes(50 * MIB);
  ck_assert_ptr_null(make_in("a", NONE, 16 * MIB));
  ck_failed(DROWSE_ERR_NO_DEVICE_MEMORY);
  ck_says("52428800");
  ck_assert_uint_eq(stats_of(NULL).mapped_bytes, 0);
  void *ptr = make_in("a", NONE, 8 * MIB);
  ck_assert_ptr_nonnull(ptr);
  ck_ok(drowse_free(heap, ptr)); /* without a trim: what the heap keeps is free all the same */
  ck_assert_ptr_nonnull(make_in("a", NONE, 9 * MIB));
  set_memory_margin_bytes(UINT64_MAX);
  ck_assert_ptr_null(make_in("a", NONE, 1));
  set_memory_margin_bytes(0);
  ck_assert_ptr_nonnull(make_in("a", NONE, 16 * MIB));
}
END_TEST

START_TEST(host_memory_is_retained_if_that_is_said) {
  static unsigned char expected[BYTES];
  unsigned char *ptr = make("a", HOST, 1);
  fill_pattern(expected, BYTES, 1);
  for (int retained = 0; retained < 2; retained++) {
    tms_set_retain_cpu_backup(retained);
    ck_assert_int_eq(tms_get_retain_cpu_backup(), retained);
    ck_assert_int_eq(tms_pause(NULL), 0);
    ck_assert_uint_ge(stats_of(NULL).host_bytes, BYTES);
    ck_assert_int_eq(tms_resume(NULL), 0);
    ck_assert_int_eq(stats_of(NULL).host_bytes > 0, retained);
    ck_assert_int_eq(tms_get_cpu_backup_pointer(ptr, BYTES) != NULL, retained);
  }
  unsigned char *host = tms_get_cpu_backup_pointer(ptr, BYTES);
  ck_assert_mem_eq(host, expected, BYTES);
  ck_cu(MemsetD8Async((CUdeviceptr)(uintptr_t)ptr, 2, BYTES, NULL)); /* by the program: nobody tells drowse */
  ck_cu(CtxSynchronize());
  ck_assert_mem_eq(host, expected, BYTES); /* what is retained is the last pause's, and the next one's is new */
  ck_assert_int_eq(tms_pause(NULL), 0);
  ck_assert_int_eq(tms_resume(NULL), 0);
  ck_assert(is_filled(ptr, BYTES, 2));
  memset(expected, 2, BYTES);
  ck_assert_mem_eq(tms_get_cpu_backup_pointer(ptr, BYTES), expected, BYTES);
}
END_TEST

START_TEST(host_memory_goes_with_what_it_is_of) {
  tms_set_retain_cpu_backup(true);
  for (int paused = 0; paused < 2; paused++) {
    void *ptr = make("a", HOST, 1);
    ck_assert_int_eq(tms_pause(NULL), 0);
    if (!paused) ck_assert_int_eq(tms_resume(NULL), 0);
    ck_assert_uint_ge(stats_of(NULL).host_bytes, BYTES);
    tms_torch_free(ptr, BYTES, 0, NULL);
    ck_assert_uint_eq(stats_of(NULL).host_bytes, 0);
    ck_assert_int_eq(tms_resume(NULL), 0);
  }
}
END_TEST

START_TEST(a_backup_in_host_memory_can_be_looked_at) {
  unsigned char *expected = xmalloc(BYTES), *host = make("a", HOST, 1), *none = make("a", NONE, 2), *disk = make("a", DISK, 3);
  fill_pattern(expected, BYTES, 1);
  ck_assert_ptr_null(tms_get_cpu_backup_pointer(host, BYTES));
  ck_assert_int_eq(tms_pause(NULL), 0);
  ck_assert_mem_eq(tms_get_cpu_backup_pointer(host, BYTES), expected, BYTES);
  ck_assert_mem_eq(tms_get_cpu_backup_pointer(host + 100, 7), expected + 100, 7);
  ck_assert_ptr_null(tms_get_cpu_backup_pointer(host + 100, BYTES));
  ck_assert_ptr_null(tms_get_cpu_backup_pointer(none, BYTES));
  ck_assert_ptr_null(tms_get_cpu_backup_pointer(disk, BYTES));
  ck_assert_ptr_null(tms_get_cpu_backup_pointer(expected, 1));
  ck_assert_int_eq(tms_resume(NULL), 0);
  ck_assert_ptr_null(tms_get_cpu_backup_pointer(host, BYTES));
  free(expected);
}
END_TEST

static void ck_kept_on_disk(void) {
  void *ptr = make("a", DISK, 1);
  ck_assert_int_eq(tms_pause(NULL), 0);
  ck_assert_int_eq(tms_resume(NULL), 0);
  ck_assert(has_pattern(ptr, BYTES, 1));
}

START_TEST(the_directory_for_backups_is_made) {
  char top[] = "tms-test-XXXXXX", inner[32], nested[48];
  ck_assert_ptr_nonnull(mkdtemp(top));
  (void)snprintf(inner, sizeof inner, "%s/1", top);
  (void)snprintf(nested, sizeof nested, "%s/2", inner);
  ck_assert_int_eq(setenv("TMS_DISK_BACKUP_DIR", inner, 1), 0);
  ck_kept_on_disk();
  ck_assert_int_eq(unsetenv("TMS_DISK_BACKUP_DIR") | rmdir(inner), 0); /* which was there, and is empty */
  tms_set_disk_backup_dir(nested);
  tms_set_disk_backup_dir(NULL);
  ck_failed(DROWSE_ERR_INVALID);
  ck_kept_on_disk();
  ck_assert_int_eq(rmdir(nested) | rmdir(inner) | rmdir(top), 0);
}
END_TEST

START_TEST(a_pause_without_a_directory_changes_nothing) {
  void *ptr = make("a", DISK, 1);
  tms_set_disk_backup_dir("");
  ck_assert_int_eq(tms_pause("a"), DZ_CUDA_UNKNOWN);
  tms_set_disk_backup_dir("/dev/null/backups");
  ck_assert_int_eq(tms_pause("a"), DZ_CUDA_UNKNOWN);
  ck_failed(DROWSE_ERR_IO);
  ck_says("/dev/null/backups: Not a directory");
  ck_state("a/file", DROWSE_AWAKE);
  tms_set_disk_backup_dir("/tmp");
  ck_assert_int_eq(tms_pause("a"), 0);
  ck_assert_int_eq(tms_resume("a"), 0);
  ck_assert(has_pattern(ptr, BYTES, 1));
}
END_TEST

START_TEST(devices_of_a_tag_are_named) {
  int devices[2] = {-1, -1};
  drowse_heap_options options = {.struct_size = sizeof options, .device = "host:64MiB"};
  drowse_heap *sixth;
  ck_ok(drowse_heap_open(&sixth, &options));
  ck_ok(dz_heaps_set(5, sixth));
  void *gone = make("a", NONE, 1);
  open_region("a", HOST);
  void *ptr = tms_torch_malloc(BYTES, 5, NULL);
  ck_assert_ptr_nonnull(ptr);
  ck_assert_uint_eq(tms_affected_devices("a", devices, 1), 2);
  ck_assert_int_eq(devices[0], 0);
  ck_assert_int_eq(devices[1], -1);
  ck_assert_uint_eq(tms_affected_devices(NULL, devices, 2), 2);
  ck_assert_int_eq(devices[1], 5);
  ck_assert_uint_eq(tms_affected_devices("b", NULL, 0), 0);
  tms_torch_free(gone, BYTES, 0, NULL);
  ck_assert_uint_eq(tms_affected_devices("a", devices, 2), 1);
  ck_assert_int_eq(devices[0], 5);
  ck_assert_int_eq(tms_pause("a"), 0);
  drowse_stats stats = {.struct_size = sizeof stats};
  ck_ok(drowse_stats_get(sixth, "a/host", &stats));
  ck_assert_int_eq(stats.state, DROWSE_ASLEEP);
  ck_ok(dz_heaps_set(5, NULL));
  ck_ok(drowse_heap_close(sixth));
}
END_TEST

/* What a program that knows the runtime's errors alone makes of them: whether it asked for something wrong, there is too little
 * memory, or it is the wrong time. */
START_TEST(each_status_is_an_error_of_the_runtime) {
  static const struct {
    drowse_status status;
    enum dz_cuda_error error;
  } expected[] = {
      {DROWSE_OK, DZ_CUDA_SUCCESS},
      {DROWSE_ERR_INVALID, DZ_CUDA_INVALID_VALUE},
      {DROWSE_ERR_NOT_FOUND, DZ_CUDA_INVALID_VALUE},
      {DROWSE_ERR_NO_DEVICE_MEMORY, DZ_CUDA_MEMORY_ALLOCATION},
      {DROWSE_ERR_NO_HOST_MEMORY, DZ_CUDA_MEMORY_ALLOCATION},
      {DROWSE_ERR_NO_ADDRESS_SPACE, DZ_CUDA_MEMORY_ALLOCATION},
      {DROWSE_ERR_NO_DEVICE, DZ_CUDA_NO_DEVICE},
      {DROWSE_ERR_FORKED, DZ_CUDA_INITIALIZATION},
      {DROWSE_ERR_ASLEEP, DZ_CUDA_NOT_PERMITTED},
      {DROWSE_ERR_BUSY, DZ_CUDA_NOT_PERMITTED},
      {DROWSE_ERR_IO, DZ_CUDA_UNKNOWN},
      {(drowse_status)-9999, DZ_CUDA_UNKNOWN},
  };
  for (size_t i = 0; i < sizeof expected / sizeof *expected; i++)
    ck_assert_int_eq(dz_cuda_error(expected[i].status), expected[i].error);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("tms");
  TMS_TEST(suite, outside_of_regions_there_is_no_memory);
  TMS_TEST(suite, what_is_set_can_be_asked_for);
  TMS_TEST(suite, each_thread_has_a_region_of_its_own);
  TMS_TEST(suite, what_cannot_be_a_region_is_told);
  TMS_TEST(suite, a_tag_for_whose_name_there_is_no_memory_gets_none);
  TMS_TEST(suite, threads_begin_as_the_environment_says);
  TMS_TEST(suite, contents_are_kept_as_each_region_says);
  TMS_TEST(suite, a_tag_is_paused_by_itself);
  TMS_TEST(suite, what_somebody_else_knows_of_stays);
  TMS_TEST(suite, what_is_done_already_is_done);
  TMS_TEST(suite, nothing_is_allocated_for_a_paused_tag);
  TMS_TEST(suite, a_resume_for_which_there_is_no_memory_can_be_made_again);
  TMS_TEST(suite, memory_is_freed_whoever_does_it_and_goes_back);
  TMS_TEST(suite, a_margin_is_left_free);
  TMS_TEST(suite, host_memory_is_retained_if_that_is_said);
  TMS_TEST(suite, host_memory_goes_with_what_it_is_of);
  TMS_TEST(suite, a_backup_in_host_memory_can_be_looked_at);
  TMS_TEST(suite, the_directory_for_backups_is_made);
  TMS_TEST(suite, a_pause_without_a_directory_changes_nothing);
  TMS_TEST(suite, devices_of_a_tag_are_named);
  HARNESS_TEST(suite, each_status_is_an_error_of_the_runtime);
  return harness_run(suite);
}
