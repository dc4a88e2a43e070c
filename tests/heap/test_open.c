/* SPDX-License-Identifier: Apache-2.0
 *
 * Opening and closing heaps: options, the environment, contexts, and that nothing is left.
 */
#include "fixture.h"

#include <unistd.h>

static void clear_environment(void) {
  (void)unsetenv("DROWSE_DEVICE");
  (void)unsetenv("DROWSE_SETTINGS");
}

/* Opening fails with that status, says so in words, and leaves nothing. */
static void ck_refused(const drowse_heap_options *options, drowse_status expected, const char *word) {
  drowse_heap *opened = (drowse_heap *)8;
  struct usage before = usage_now();
  ck_status(drowse_heap_open(&opened, options), expected);
  ck_assert_ptr_null(opened);
  ck_says(word);
  ck_nothing_left(&before);
}

#define options_with(...) (&(drowse_heap_options){.struct_size = sizeof(drowse_heap_options), __VA_ARGS__})

static drowse_heap_info info_of(drowse_heap *opened) {
  drowse_heap_info info = {.struct_size = sizeof info};
  ck_ok(drowse_heap_info_get(opened, &info));
  return info;
}

/* ---- options */

START_TEST(a_heap_opens_and_tells_about_itself) {
  drowse_heap *opened;
  struct usage before = usage_now();
  ck_ok(drowse_heap_open(&opened,
                         options_with(.device = "host:64MiB", .settings = "expandable_segments:False", .backup_limit = 5 * MIB)));
  drowse_heap_info info = info_of(opened);
  ck_assert_str_eq(info.device, "host:64MiB");
  ck_assert_str_eq(info.device_source, "option");
  ck_assert_str_eq(info.settings_source, "option");
  ck_assert(!info.expandable);
  ck_assert_uint_eq(info.granularity, GRANULE);
  ck_assert_uint_eq(info.total_bytes, 64 * MIB);
  ck_assert_uint_eq(info.free_bytes, 64 * MIB);
  ck_assert_uint_eq(info.backup_limit, 5 * MIB);
  ck_ok(drowse_heap_close(opened));
  ck_nothing_left(&before);
}
END_TEST

START_TEST(info_is_cut_to_the_caller_s_size) {
  drowse_heap *opened;
  drowse_heap_info info;
  memset(&info, 0x5a, sizeof info);
  info.struct_size = offsetof(drowse_heap_info, granularity);
  ck_ok(drowse_heap_open(&opened, options_with(.device = "host:64MiB")));
  ck_ok(drowse_heap_info_get(opened, &info));
  ck_assert_str_eq(info.device, "host:64MiB");
  ck_assert_uint_eq(info.granularity, UINT64_C(0x5a5a5a5a5a5a5a5a));
  info.struct_size = 7;
  ck_status(drowse_heap_info_get(opened, &info), DROWSE_ERR_INVALID);
  ck_status(drowse_heap_info_get(opened, NULL), DROWSE_ERR_INVALID);
  ck_status(drowse_heap_info_get(NULL, &info), DROWSE_ERR_INVALID);
  ck_ok(drowse_heap_close(opened));
}
END_TEST

START_TEST(bad_devices_are_refused) {
  drowse_heap *opened;
  clear_environment();
  /* A real driver, if there is one, starts threads of its own. */
  ck_status(drowse_heap_open(&opened, options_with(.device = "cuda:9999")), DROWSE_ERR_NO_DEVICE);
  ck_refused(options_with(.device = "nonsense"), DROWSE_ERR_INVALID, "\"nonsense\"");
  ck_refused(options_with(.device = ""), DROWSE_ERR_INVALID, "empty");
  ck_refused(options_with(.device = "host:1KiB"), DROWSE_ERR_INVALID, "host:1KiB");
  ck_refused(options_with(.device = "host:lots"), DROWSE_ERR_INVALID, "lots");
  ck_refused(options_with(.device = "cuda:x"), DROWSE_ERR_INVALID, "cuda:x");
  ck_refused(options_with(.device = "cuda:9999"), DROWSE_ERR_NO_DEVICE, "");
}
END_TEST

START_TEST(bad_options_are_refused) {
  clear_environment();
  ck_status(drowse_heap_open(NULL, NULL), DROWSE_ERR_INVALID);
  drowse_heap_options options = {.struct_size = 0, .device = "host:64MiB"};
  ck_refused(&options, DROWSE_ERR_INVALID, "struct_size is 0");
  options.struct_size = 7;
  ck_refused(&options, DROWSE_ERR_INVALID, "struct_size is 7");
  ck_refused(options_with(.device = "host:64MiB", .flags = 0x80), DROWSE_ERR_UNSUPPORTED, "flags");
  ck_refused(options_with(.device = "host:64MiB", .settings = "expandable_segments:True,garbage:1"), DROWSE_ERR_SETTINGS,
             "byte 25");
  ck_refused(options_with(.device = "host:64MiB", .settings = "expandable_segments:maybe"), DROWSE_ERR_SETTINGS, "maybe");
}
END_TEST

START_TEST(options_of_a_later_version) {
  struct {
    drowse_heap_options known;
    uint64_t later;
  } options = {.known = {.struct_size = sizeof options, .device = "host:64MiB"}};
  drowse_heap *opened;
  ck_ok(drowse_heap_open(&opened, &options.known)); /* not used: no matter */
  ck_ok(drowse_heap_close(opened));
  options.later = UINT64_C(1) << 63;
  ck_refused(&options.known, DROWSE_ERR_UNSUPPORTED, "drowse_heap_options");
}
END_TEST

START_TEST(options_of_an_earlier_version) {
  drowse_heap_options options = {
      .struct_size = offsetof(drowse_heap_options, flags), .device = "host:64MiB", .flags = 0xffffffff};
  drowse_heap *opened;
  ck_ok(drowse_heap_open(&opened, &options)); /* what lies behind is not looked at */
  ck_ok(drowse_heap_close(opened));
}
END_TEST

/* ---- the environment */

START_TEST(the_environment_is_the_default) {
  drowse_heap *opened;
  clear_environment();
  ck_assert_int_eq(setenv("DROWSE_DEVICE", "host:128MiB", 1), 0);
  ck_assert_int_eq(setenv("DROWSE_SETTINGS", "expandable_segments:False", 1), 0);
  ck_ok(drowse_heap_open(&opened, NULL));
  drowse_heap_info info = info_of(opened);
  ck_assert_str_eq(info.device, "host:128MiB");
  ck_assert_str_eq(info.device_source, "DROWSE_DEVICE");
  ck_assert_str_eq(info.settings_source, "DROWSE_SETTINGS");
  ck_assert(!info.expandable);
  ck_ok(drowse_heap_close(opened));
  ck_ok(drowse_heap_open(&opened, options_with(.device = "host:64MiB", .settings = "")));
  info = info_of(opened);
  ck_assert_str_eq(info.device, "host:64MiB"); /* what the program says goes first */
  ck_assert_str_eq(info.settings_source, "option");
  ck_assert(info.expandable);
  ck_ok(drowse_heap_close(opened));
  clear_environment();
}
END_TEST

START_TEST(nonsense_in_the_environment_is_refused) {
  clear_environment();
  ck_assert_int_eq(setenv("DROWSE_DEVICE", "toaster", 1), 0);
  ck_refused(NULL, DROWSE_ERR_INVALID, "\"toaster\"");
  ck_assert_int_eq(setenv("DROWSE_DEVICE", "host:64MiB", 1), 0);
  ck_assert_int_eq(setenv("DROWSE_SETTINGS", "expandable_segments", 1), 0);
  ck_refused(NULL, DROWSE_ERR_SETTINGS, "DROWSE_SETTINGS: ");
  clear_environment();
}
END_TEST

START_TEST(an_empty_variable_is_none) {
  drowse_heap *opened;
  ck_assert_int_eq(setenv("DROWSE_SETTINGS", "", 1), 0);
  ck_ok(drowse_heap_open(&opened, options_with(.device = "host:64MiB")));
  ck_assert_str_eq(info_of(opened).settings_source, "default");
  ck_assert(info_of(opened).expandable);
  ck_ok(drowse_heap_close(opened));
  clear_environment();
}
END_TEST

/* ---- contexts */

START_TEST(a_context_of_the_caller_s) {
  drowse_heap *first, *second;
  ck_ok(drowse_heap_open(&first, options_with(.device = "host:64MiB")));
  ck_ok(drowse_heap_open(&second, options_with(.device = "host:64MiB", .cuda_context = first->context)));
  void *ptr;
  ck_ok(drowse_alloc(second, MIB, NULL, &ptr));
  ck_ok(drowse_heap_close(second));
  ck_ok(drowse_alloc(first, MIB, NULL, &ptr)); /* it was not released with the heap that had borrowed it */
  ck_ok(drowse_heap_close(first));
}
END_TEST

START_TEST(a_context_of_another_device_is_refused) {
  drowse_heap *other, *opened = (drowse_heap *)8;
  ck_ok(drowse_heap_open(&other, options_with(.device = "host:128MiB")));
  ck_status(drowse_heap_open(&opened, options_with(.device = "host:64MiB", .cuda_context = other->context)), DROWSE_ERR_INVALID);
  ck_assert_ptr_null(opened);
  ck_says("host:64MiB");
  ck_status(drowse_heap_open(&opened, options_with(.device = "host:64MiB", .cuda_context = (void *)0x1234)), DROWSE_ERR_DRIVER);
  ck_assert_ptr_null(opened);
  ck_ok(drowse_heap_close(other));
}
END_TEST

static CUcontext caller_context; /* what has to stay current */

static void ck_context(const char *call) {
  CUcontext now = (CUcontext)1;
  CUresult (*get_current)(CUcontext *) = (CUresult(*)(CUcontext *))drowse_driver_entry(heap, "cuCtxGetCurrent");
  ck_assert_ptr_nonnull(get_current);
  ck_assert_int_eq(get_current(&now), CUDA_SUCCESS);
  ck_assert_msg(now == caller_context, "%s has changed the current context", call);
}

#define ck_keeps(call) \
  do {                 \
    ck_ok(call);       \
    ck_context(#call); \
  } while (0)
#define ck_keeps_failing(call)                \
  do {                                        \
    ck_assert_int_ne((int)(call), DROWSE_OK); \
    ck_context(#call);                        \
  } while (0)

static int see_context(void *nothing, const char *tag, const drowse_stats *stats) {
  (void)nothing;
  (void)stats;
  ck_context(tag);
  return 0;
}

static void call_everything(void) {
  const char *tag = "default";
  void *ptr, *none;
  char byte = 1;
  drowse_stats stats = {.struct_size = sizeof stats};
  drowse_block block = {.struct_size = sizeof block};
  drowse_heap_info info = {.struct_size = sizeof info};
  drowse_alloc_options alloc = {.struct_size = sizeof alloc, .alignment = 4096};
  CUstream stream;
  CUcontext current = caller_context;
  ck_cu(CtxSetCurrent(heap->context));
  stream = make_stream();
  ck_cu(CtxSetCurrent(current));
  ck_keeps(drowse_heap_info_get(heap, &info));
  ck_keeps(drowse_alloc(heap, MIB, NULL, &ptr));
  ck_keeps_failing(drowse_alloc(heap, 65 * MIB, NULL, &none));
  ck_keeps_failing(drowse_alloc(heap, 1, (drowse_stream)0x999, &none));
  ck_keeps(drowse_copy_in(heap, ptr, &byte, 1));
  ck_keeps(drowse_copy_out(heap, &byte, ptr, 1));
  ck_keeps_failing(drowse_copy_out(heap, &byte, &byte, 1));
  ck_keeps(drowse_stats_get(heap, NULL, &stats));
  ck_keeps(drowse_tags(heap, see_context, NULL));
  ck_keeps(drowse_block_get(heap, ptr, &block));
  ck_keeps(sleep_tag(tag, DROWSE_OFFLOAD));
  ck_keeps(drowse_copy_out(heap, &byte, ptr, 1));
  ck_keeps(wake_tag(tag));
  ck_keeps(drowse_hold(heap, tag, 0));
  ck_keeps(drowse_unhold(heap, tag));
  ck_keeps(drowse_tag_wait(heap, tag, DROWSE_AWAKE, 0));
  ck_keeps(drowse_alloc_with(heap, MIB, stream, &alloc, &none));
  ck_keeps(drowse_free(heap, none));
  ck_keeps(drowse_stream_retire(heap, stream));
  ck_keeps_failing(drowse_stream_retire(heap, stream));
  ck_keeps(drowse_free(heap, ptr));
  ck_keeps(drowse_trim(heap, 0));
  ck_keeps(drowse_tag_clear(heap, tag));
  ck_cu(StreamDestroy(stream));
}

START_TEST(no_call_changes_the_current_context) {
  drowse_heap *other;
  open_with((drowse_heap_options){0});
  ck_ok(drowse_heap_open(&other, options_with(.device = "host:128MiB")));
  CUcontext contexts[] = {NULL, other->context, heap->context};
  for (size_t i = 0; i < sizeof contexts / sizeof *contexts; i++) {
    drowse_heap *third;
    caller_context = contexts[i];
    ck_cu(CtxSetCurrent(caller_context));
    ck_keeps(drowse_heap_open(&third, options_with(.device = "host:96MiB")));
    ck_keeps(drowse_heap_close(third));
    ck_keeps_failing(drowse_heap_open(&third, options_with(.device = "nonsense")));
    call_everything();
  }
  ck_cu(CtxSetCurrent(NULL));
  ck_ok(drowse_heap_close(other));
  close_heap();
}
END_TEST

/* ---- entries */

START_TEST(entries_by_name) {
  open_with((drowse_heap_options){0});
#define EACH(name, version, need, parameters) \
  ck_assert_ptr_eq(drowse_driver_entry(heap, "cu" #name), (void *)heap->device.driver.name);
  DZ_DRIVER_ENTRIES(EACH)
#undef EACH
  ck_assert_ptr_null(drowse_driver_entry(heap, "StreamCreate"));
  ck_assert_ptr_null(drowse_driver_entry(heap, "cuNoSuchThing"));
  ck_assert_ptr_null(drowse_driver_entry(heap, "cu"));
  ck_assert_ptr_null(drowse_driver_entry(heap, ""));
  ck_assert_ptr_null(drowse_driver_entry(heap, NULL));
  ck_assert_ptr_null(drowse_driver_entry(NULL, "cuStreamCreate"));
  close_heap();
}
END_TEST

/* ---- close */

START_TEST(close_takes_everything_in_any_state) {
  open_with((drowse_heap_options){0});
  for (int i = 0; i < 5; i++) {
    (void)alloc_tag("awake", MIB);
    (void)alloc_tag("offloaded", MIB);
    (void)alloc_tag("discarded", MIB);
    (void)alloc_tag("held", MIB);
    ck_ok(drowse_free(heap, alloc_tag("freed", MIB)));
  }
  ck_ok(drowse_hold(heap, "held", 0));
  ck_ok(sleep_tag("offloaded", DROWSE_OFFLOAD));
  ck_ok(sleep_tag("discarded", DROWSE_DISCARD));
  ck_ok(drowse_free(heap, NULL));
  close_heap();
  ck_ok(drowse_heap_close(NULL));
}
END_TEST

START_TEST(heaps_come_and_go) {
  for (int i = 0; i < 20; i++) {
    open_with((drowse_heap_options){.device = i % 2 == 0 ? "host:64MiB" : "host:32MiB"});
    void *ptr = alloc_tag("a", 20 * MIB);
    write_pattern(ptr, MIB, (uint64_t)i);
    ck_ok(sleep_tag("a", DROWSE_OFFLOAD));
    if (i % 3 != 0) ck_ok(wake_all_tags());
    close_heap();
  }
}
END_TEST

START_TEST(close_waits_for_the_work_of_the_device) {
  open_with((drowse_heap_options){0});
  CUstream stream = make_stream();
  void *ptr = alloc_on("a", 32 * MIB, stream);
  for (int i = 0; i < 20; i++) ck_cu(MemsetD8Async((CUdeviceptr)(uintptr_t)ptr, 1, 32 * MIB, stream));
  ck_ok(drowse_heap_close(heap));
  ck_assert_int_eq(dz_host_driver.CtxSetCurrent(NULL), CUDA_SUCCESS);
  /* Work that had met no memory would have cost the device its context for good. */
  open_with((drowse_heap_options){0});
  close_heap();
}
END_TEST

int main(void) {
  Suite *suite = suite_create("open");
  HARNESS_TEST(suite, a_heap_opens_and_tells_about_itself);
  HARNESS_TEST(suite, info_is_cut_to_the_caller_s_size);
  HARNESS_TEST(suite, bad_devices_are_refused);
  HARNESS_TEST(suite, bad_options_are_refused);
  HARNESS_TEST(suite, options_of_a_later_version);
  HARNESS_TEST(suite, options_of_an_earlier_version);
  HARNESS_TEST(suite, the_environment_is_the_default);
  HARNESS_TEST(suite, nonsense_in_the_environment_is_refused);
  HARNESS_TEST(suite, an_empty_variable_is_none);
  HARNESS_TEST(suite, a_context_of_the_caller_s);
  HARNESS_TEST(suite, a_context_of_another_device_is_refused);
  HARNESS_TEST(suite, no_call_changes_the_current_context);
  HARNESS_TEST(suite, entries_by_name);
  HARNESS_TEST(suite, close_takes_everything_in_any_state);
  HARNESS_TEST(suite, heaps_come_and_go);
  HARNESS_TEST(suite, close_waits_for_the_work_of_the_device);
  return harness_run(suite);
}
