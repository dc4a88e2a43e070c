/* SPDX-License-Identifier: Apache-2.0
 *
 * Waking: in which order, what discarded memory holds, and what happens when somebody else has the memory: a tenant, which is a
 * second heap on the same device.
 */
#include "fixture.h"

enum { BYTES = 4 * 1024 * 1024, FOREVER = -1, LONG = 60000 };

static void *block[3];
static const char *const names[] = {"a", "b", "c"};
static drowse_heap *tenant;

static void make_tags(void) {
  for (uint64_t i = 0; i < 3; i++) write_pattern(block[i] = alloc_tag(names[i], BYTES), BYTES, i);
}

static void start_tags(void) {
  open_with((drowse_heap_options){.device = "host:16MiB"});
  make_tags();
}

static void ck_states(drowse_state a, drowse_state b, drowse_state c) {
  ck_state("a", a);
  ck_state("b", b);
  ck_state("c", c);
}

static void ck_all_whole(void) {
  for (uint64_t i = 0; i < 3; i++) ck_assert(has_pattern(block[i], BYTES, i));
}

static void sleep_all(drowse_action action) {
  ck_ok(drowse_sleep(heap, &(drowse_rule){.action = action}, 1, NULL));
  ck_states(DROWSE_ASLEEP, DROWSE_ASLEEP, DROWSE_ASLEEP);
}

static void tenant_comes(size_t bytes) {
  void *ptr;
  ck_ok(drowse_heap_open(&tenant, &(drowse_heap_options){.struct_size = sizeof(drowse_heap_options), .device = "host:16MiB"}));
  ck_ok(drowse_alloc(tenant, bytes, NULL, &ptr));
}

static void tenant_goes(void) {
  ck_ok(drowse_heap_close(tenant));
  tenant = NULL;
}

static drowse_status wake_with(drowse_wake_options options, size_t count, const char *const *tags) {
  options.struct_size = sizeof options;
  return drowse_wake(heap, tags, count, &options);
}

#define wake_names(...) \
  drowse_wake(heap, (const char *[]){__VA_ARGS__}, sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *), NULL)

/* ---- which tags */

START_TEST(named_tags_wake_and_no_others) {
  sleep_all(DROWSE_OFFLOAD);
  ck_ok(wake_names("c", "a"));
  ck_states(DROWSE_AWAKE, DROWSE_ASLEEP, DROWSE_AWAKE);
  ck_ok(wake_names("a", "b")); /* one is awake already */
  ck_states(DROWSE_AWAKE, DROWSE_AWAKE, DROWSE_AWAKE);
  ck_assert_uint_eq(stats_of("a").wakes, 1);
  ck_all_whole();
}
END_TEST

START_TEST(no_names_but_a_list_are_none) {
  sleep_all(DROWSE_OFFLOAD);
  ck_ok(drowse_wake(heap, names, 0, NULL));
  ck_states(DROWSE_ASLEEP, DROWSE_ASLEEP, DROWSE_ASLEEP);
  ck_ok(drowse_wake(heap, NULL, 0, NULL));
  ck_states(DROWSE_AWAKE, DROWSE_AWAKE, DROWSE_AWAKE);
  ck_all_whole();
}
END_TEST

START_TEST(bad_arguments_change_nothing) {
  sleep_all(DROWSE_OFFLOAD);
  ck_status(wake_names("a", "b", "a"), DROWSE_ERR_INVALID);
  ck_says("\"a\"");
  ck_status(wake_names("a", "unknown"), DROWSE_ERR_NOT_FOUND);
  ck_says("\"unknown\"");
  ck_status(wake_names("a", NULL), DROWSE_ERR_INVALID);
  ck_status(drowse_wake(heap, NULL, 1, NULL), DROWSE_ERR_INVALID);
  ck_status(drowse_wake(NULL, names, 1, NULL), DROWSE_ERR_INVALID);
  ck_status(wake_with((drowse_wake_options){.flags = DROWSE_WAKE_ZERO | DROWSE_WAKE_POISON}, 1, names), DROWSE_ERR_INVALID);
  ck_status(wake_with((drowse_wake_options){.flags = 8}, 1, names), DROWSE_ERR_UNSUPPORTED);
  drowse_wake_options options = {.struct_size = 3};
  ck_status(drowse_wake(heap, names, 1, &options), DROWSE_ERR_INVALID);
  ck_states(DROWSE_ASLEEP, DROWSE_ASLEEP, DROWSE_ASLEEP);
  ck_all_whole();
}
END_TEST

/* ---- discarded memory */

START_TEST(discarded_memory_wakes_as_the_flag_says) {
  static const struct {
    uint32_t flags;
    unsigned char value;
  } cases[] = {{DROWSE_WAKE_ZERO, 0}, {DROWSE_WAKE_POISON, 0xdb}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    ck_ok(drowse_sleep(heap, (drowse_rule[]){{.tag = "a", .action = DROWSE_DISCARD}, {.tag = "b", .action = DROWSE_OFFLOAD}}, 2,
                       NULL));
    ck_ok(wake_with((drowse_wake_options){.flags = cases[i].flags}, 0, NULL));
    ck_assert(is_filled(block[0], BYTES, cases[i].value));
    ck_assert(has_pattern(block[1], BYTES, 1));
    ck_assert(has_pattern(block[2], BYTES, 2));
  }
}
END_TEST

START_TEST(only_live_blocks_of_a_discarded_tag_come_back) {
  ck_ok(sleep_tag("a", DROWSE_DISCARD));
  ck_ok(drowse_free(heap, block[0]));
  ck_ok(wake_with((drowse_wake_options){.flags = DROWSE_WAKE_ZERO}, 1, names));
  ck_assert_uint_eq(stats_of("a").mapped_bytes, 0);
}
END_TEST

/* ---- no memory */

START_TEST(it_stops_at_the_first_that_cannot_be_woken) {
  drowse_error error = {.struct_size = sizeof error};
  sleep_all(DROWSE_OFFLOAD);
  tenant_comes(10 * MIB);
  ck_status(wake_names("b", "a", "c"), DROWSE_ERR_NO_DEVICE_MEMORY); /* room for one */
  ck_ok(drowse_error_get(&error));
  ck_assert_str_eq(error.tag, "a");
  ck_assert_uint_eq(error.wanted_bytes, BYTES);
  ck_assert_uint_eq(error.free_bytes, 2 * MIB);
  ck_states(DROWSE_ASLEEP, DROWSE_AWAKE, DROWSE_ASLEEP);
  ck_assert_uint_eq(stats_of("a").mapped_bytes + stats_of("c").mapped_bytes, 0);
  ck_assert_uint_eq(stats_of("a").backup_bytes, BYTES);
  ck_all_whole();
  ck_status(wake_names("b", "a", "c"), DROWSE_ERR_NO_DEVICE_MEMORY);
  ck_states(DROWSE_ASLEEP, DROWSE_AWAKE, DROWSE_ASLEEP);
  tenant_goes();
  ck_ok(wake_names("b", "a", "c"));
  ck_states(DROWSE_AWAKE, DROWSE_AWAKE, DROWSE_AWAKE);
  ck_all_whole();
}
END_TEST

START_TEST(together_none_is_awake_when_one_cannot_be) {
  sleep_all(DROWSE_OFFLOAD);
  tenant_comes(10 * MIB);
  ck_status(wake_with((drowse_wake_options){.flags = DROWSE_WAKE_TOGETHER}, 3, names), DROWSE_ERR_NO_DEVICE_MEMORY);
  ck_states(DROWSE_ASLEEP, DROWSE_ASLEEP, DROWSE_ASLEEP);
  ck_assert_uint_eq(stats_of(NULL).mapped_bytes, 0);
  ck_assert_uint_eq(stats_of(NULL).wakes, 0);
  ck_all_whole();
  ck_ok(wake_with((drowse_wake_options){.flags = DROWSE_WAKE_TOGETHER}, 1, names + 1)); /* one alone has room */
  ck_states(DROWSE_ASLEEP, DROWSE_AWAKE, DROWSE_ASLEEP);
  tenant_goes();
  ck_ok(wake_with((drowse_wake_options){.flags = DROWSE_WAKE_TOGETHER}, 0, NULL));
  ck_states(DROWSE_AWAKE, DROWSE_AWAKE, DROWSE_AWAKE);
  ck_all_whole();
}
END_TEST

/* Whether a tag was awake while something was still to be copied. */
static bool awake_at_a_copy;

static CUresult look_and_copy(CUdeviceptr to, const void *from, size_t bytes, CUstream stream) {
  for (int i = 0; i < 3; i++) awake_at_a_copy |= stats_of(names[i]).state == DROWSE_AWAKE;
  return dz_host_driver.MemcpyHtoDAsync(to, from, bytes, stream);
}

START_TEST(together_none_is_awake_before_all_are_copied) {
  heap->device.driver.MemcpyHtoDAsync = look_and_copy;
  for (int together = 0; together < 2; together++) {
    sleep_all(DROWSE_OFFLOAD);
    awake_at_a_copy = false;
    ck_ok(wake_with((drowse_wake_options){.flags = together ? DROWSE_WAKE_TOGETHER : 0}, 3, names));
    ck_assert(awake_at_a_copy == !together);
    ck_all_whole();
  }
}
END_TEST

START_TEST(unused_memory_of_awake_tags_makes_room) {
  sleep_all(DROWSE_OFFLOAD);
  ck_ok(drowse_free(heap, alloc_tag("d", 14 * MIB)));
  ck_ok(wake_all_tags());
  ck_all_whole();
}
END_TEST

START_TEST(the_deadline_passes) {
  sleep_all(DROWSE_OFFLOAD);
  tenant_comes(14 * MIB);
  ck_status(wake_with((drowse_wake_options){.deadline_ms = 1}, 3, names), DROWSE_ERR_NO_DEVICE_MEMORY);
  ck_error_tag("a");
  ck_states(DROWSE_ASLEEP, DROWSE_ASLEEP, DROWSE_ASLEEP);
  ck_all_whole();
  tenant_goes();
}
END_TEST

static drowse_status run_wake_for_ever(void *nothing) {
  (void)nothing;
  return wake_with((drowse_wake_options){.deadline_ms = FOREVER}, 3, names);
}

START_TEST(it_is_tried_until_the_tenant_goes) {
  struct call waker;
  sleep_all(DROWSE_OFFLOAD);
  tenant_comes(14 * MIB);
  call_start(&waker, run_wake_for_ever, NULL);
  ck_ok(drowse_tag_wait(heap, "c", DROWSE_WAKING, FOREVER));
  tenant_goes();
  ck_call_end(&waker, DROWSE_OK);
  ck_states(DROWSE_AWAKE, DROWSE_AWAKE, DROWSE_AWAKE);
  ck_all_whole();
}
END_TEST

/* ---- the pressure hook */

static int asked;
static void *spare;

static drowse_status send_tenant_away(void *context, uint64_t missing_bytes) {
  (void)context;
  ck_assert_uint_ge(missing_bytes, 1);
  asked++;
  if (tenant == NULL) return DROWSE_ERR_BUSY;
  tenant_goes();
  return DROWSE_OK;
}

static drowse_status free_spare(void *context, uint64_t missing_bytes) {
  (void)context;
  (void)missing_bytes;
  if (asked++ > 0) return DROWSE_ERR_BUSY;
  ck_ok(drowse_free(heap, spare));
  return DROWSE_OK;
}

static void open_with_pressure(drowse_status (*pressure)(void *context, uint64_t missing_bytes)) {
  open_with((drowse_heap_options){.device = "host:16MiB", .pressure = pressure});
  asked = 0;
  make_tags();
  sleep_all(DROWSE_OFFLOAD);
}

START_TEST(the_hook_sends_the_tenant_away) {
  open_with_pressure(send_tenant_away);
  tenant_comes(10 * MIB);
  ck_ok(wake_with((drowse_wake_options){.deadline_ms = LONG}, 3, names));
  ck_assert_int_eq(asked, 1);
  ck_all_whole();
  close_heap();
}
END_TEST

START_TEST(what_the_hook_frees_in_the_same_heap_makes_room) {
  open_with_pressure(free_spare);
  spare = alloc_tag("d", 14 * MIB);
  ck_ok(wake_with((drowse_wake_options){.deadline_ms = LONG}, 3, names));
  ck_assert_int_ge(asked, 1);
  ck_all_whole();
  close_heap();
}
END_TEST

START_TEST(without_a_deadline_the_hook_is_not_asked) {
  open_with_pressure(send_tenant_away);
  tenant_comes(10 * MIB);
  ck_status(wake_with((drowse_wake_options){.deadline_ms = 0}, 3, names), DROWSE_ERR_NO_DEVICE_MEMORY);
  ck_assert_int_eq(asked, 0);
  tenant_goes();
  close_heap();
}
END_TEST

#define TAGS_TEST(suite, test) HARNESS_FIXTURE_TEST(suite, test, start_tags, finish)

int main(void) {
  Suite *suite = suite_create("wake");
  TAGS_TEST(suite, named_tags_wake_and_no_others);
  TAGS_TEST(suite, no_names_but_a_list_are_none);
  TAGS_TEST(suite, bad_arguments_change_nothing);
  TAGS_TEST(suite, discarded_memory_wakes_as_the_flag_says);
  TAGS_TEST(suite, only_live_blocks_of_a_discarded_tag_come_back);
  TAGS_TEST(suite, it_stops_at_the_first_that_cannot_be_woken);
  TAGS_TEST(suite, together_none_is_awake_when_one_cannot_be);
  TAGS_TEST(suite, together_none_is_awake_before_all_are_copied);
  TAGS_TEST(suite, unused_memory_of_awake_tags_makes_room);
  TAGS_TEST(suite, the_deadline_passes);
  TAGS_TEST(suite, it_is_tried_until_the_tenant_goes);
  HARNESS_TEST(suite, the_hook_sends_the_tenant_away);
  HARNESS_TEST(suite, what_the_hook_frees_in_the_same_heap_makes_room);
  HARNESS_TEST(suite, without_a_deadline_the_hook_is_not_asked);
  return harness_run(suite);
}
