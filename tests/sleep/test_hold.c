/* SPDX-License-Identifier: Apache-2.0
 *
 * Holds, and waiting for a tag's state.
 */
#include "fixture.h"

static void *block;

static void start_tag(void) {
  start();
  write_pattern(block = alloc_tag("a", MIB), MIB, 1);
}

static char tag_a[] = "a";

START_TEST(a_hold_keeps_awake) {
  struct call sleeper;
  drowse_sleep_options brief = {.struct_size = sizeof brief, .drain_timeout_ms = 1};
  ck_ok(drowse_hold(heap, "a", -1));
  ck_status(drowse_sleep(heap, &(drowse_rule){.action = DROWSE_OFFLOAD}, 1, &brief), DROWSE_ERR_BUSY);
  ck_state("a", DROWSE_AWAKE);
  ck_ok(drowse_hold(heap, "a", 0));
  call_start(&sleeper, run_offload, tag_a);
  ck_ok(drowse_tag_wait(heap, "a", DROWSE_FALLING_ASLEEP, -1));
  ck_ok(drowse_unhold(heap, "a"));
  ck_state("a", DROWSE_FALLING_ASLEEP); /* there is another */
  ck_assert_uint_gt(stats_of("a").mapped_bytes, 0);
  ck_ok(drowse_unhold(heap, "a"));
  ck_call_end(&sleeper, DROWSE_OK);
  ck_state("a", DROWSE_ASLEEP);
  ck_assert(has_pattern(block, MIB, 1));
}
END_TEST

START_TEST(a_hold_by_an_interned_name_is_the_same) {
  const drowse_tag *interned = drowse_tag_get("a"), *unknown = drowse_tag_get("not in this heap");
  drowse_sleep_options brief = {.struct_size = sizeof brief, .drain_timeout_ms = 1};
  ck_ok(drowse_hold_tag(heap, interned, 0));
  ck_assert_uint_eq(stats_of("a").holds, 1);
  ck_status(drowse_sleep(heap, &(drowse_rule){.action = DROWSE_OFFLOAD}, 1, &brief), DROWSE_ERR_BUSY);
  ck_ok(drowse_unhold(heap, "a"));
  ck_status(drowse_unhold_tag(heap, interned), DROWSE_ERR_INVALID);
  ck_ok(drowse_hold(heap, "a", 0));
  ck_ok(drowse_unhold_tag(heap, interned));
  ck_ok(sleep_tag("a", DROWSE_OFFLOAD));
  ck_status(drowse_hold_tag(heap, interned, 0), DROWSE_ERR_TIMEOUT);
  ck_ok(wake_tag("a"));
  ck_status(drowse_hold_tag(heap, unknown, 0), DROWSE_ERR_NOT_FOUND);
  ck_status(drowse_unhold_tag(heap, unknown), DROWSE_ERR_NOT_FOUND);
  ck_status(drowse_hold_tag(heap, NULL, 0), DROWSE_ERR_INVALID);
  ck_status(drowse_unhold_tag(heap, NULL), DROWSE_ERR_INVALID);
  ck_status(drowse_hold_tag(NULL, interned, 0), DROWSE_ERR_INVALID);
  ck_status(drowse_unhold_tag(NULL, interned), DROWSE_ERR_INVALID);
}
END_TEST

START_TEST(a_hold_on_another_tag_does_not_matter) {
  (void)alloc_tag("b", MIB);
  ck_ok(drowse_hold(heap, "b", 0));
  ck_ok(sleep_tag("a", DROWSE_OFFLOAD));
  ck_ok(wake_tag("a"));
  ck_ok(drowse_unhold(heap, "b"));
}
END_TEST

struct held {
  drowse_state state;
  bool whole;
};

static drowse_status hold_and_look(void *argument) {
  struct held *held = argument;
  drowse_status status = drowse_hold(heap, "a", -1);
  if (status != DROWSE_OK) return status;
  held->state = stats_of("a").state;
  held->whole = has_pattern(block, MIB, 1);
  return drowse_unhold(heap, "a");
}

START_TEST(a_hold_waits_for_the_wake) {
  enum { HOLDERS = 4 };
  struct call holders[HOLDERS];
  struct held held[HOLDERS];
  ck_ok(sleep_tag("a", DROWSE_OFFLOAD));
  for (int i = 0; i < HOLDERS; i++) call_start(&holders[i], hold_and_look, &held[i]);
  ck_ok(wake_tag("a"));
  for (int i = 0; i < HOLDERS; i++) {
    ck_call_end(&holders[i], DROWSE_OK);
    ck_assert_int_eq(held[i].state, DROWSE_AWAKE);
    ck_assert(held[i].whole);
  }
  ck_assert_uint_eq(stats_of("a").holds, 0);
}
END_TEST

START_TEST(a_hold_is_had_when_the_sleep_fails) {
  struct call sleeper, holder;
  struct held held;
  open_with((drowse_heap_options){.backup_limit = 4096});
  write_pattern(block = alloc_tag("a", MIB), MIB, 1);
  ck_ok(drowse_hold(heap, "a", 0));
  call_start(&sleeper, run_offload, tag_a);
  ck_ok(drowse_tag_wait(heap, "a", DROWSE_FALLING_ASLEEP, -1));
  call_start(&holder, hold_and_look, &held);
  ck_ok(drowse_unhold(heap, "a"));
  ck_call_end(&sleeper, DROWSE_ERR_NO_HOST_MEMORY);
  ck_call_end(&holder, DROWSE_OK);
  ck_assert_int_eq(held.state, DROWSE_AWAKE);
  ck_assert(held.whole);
  close_heap();
}
END_TEST

START_TEST(a_hold_gives_up_in_time) {
  ck_ok(sleep_tag("a", DROWSE_OFFLOAD));
  ck_status(drowse_hold(heap, "a", 0), DROWSE_ERR_TIMEOUT);
  ck_error_tag("a");
  ck_says("asleep");
  ck_status(drowse_hold(heap, "a", 1), DROWSE_ERR_TIMEOUT);
  ck_assert_uint_eq(stats_of("a").holds, 0);
  ck_ok(wake_tag("a"));
  ck_ok(drowse_hold(heap, "a", 1));
  ck_ok(drowse_unhold(heap, "a"));
}
END_TEST

START_TEST(bad_holds) {
  ck_status(drowse_hold(heap, "b", 0), DROWSE_ERR_NOT_FOUND);
  ck_status(drowse_hold(heap, NULL, 0), DROWSE_ERR_INVALID);
  ck_status(drowse_hold(NULL, "a", 0), DROWSE_ERR_INVALID);
  ck_status(drowse_unhold(heap, "a"), DROWSE_ERR_INVALID);
  ck_status(drowse_unhold(heap, "b"), DROWSE_ERR_NOT_FOUND);
  ck_status(drowse_unhold(heap, NULL), DROWSE_ERR_INVALID);
  ck_status(drowse_unhold(NULL, "a"), DROWSE_ERR_INVALID);
  ck_ok(drowse_hold(heap, "a", 0));
  ck_ok(drowse_unhold(heap, "a"));
  ck_status(drowse_unhold(heap, "a"), DROWSE_ERR_INVALID);
  ck_assert_uint_eq(stats_of("a").holds, 0);
}
END_TEST

static drowse_status unhold_it(void *tag) {
  return drowse_unhold(heap, tag);
}

START_TEST(any_thread_ends_a_hold) {
  struct call call;
  ck_ok(drowse_hold(heap, "a", 0));
  call_start(&call, unhold_it, tag_a);
  ck_call_end(&call, DROWSE_OK);
  ck_assert_uint_eq(stats_of("a").holds, 0);
}
END_TEST

/* ---- waiting for a state */

static drowse_status wait_asleep_then_awake(void *tag) {
  drowse_status status = drowse_tag_wait(heap, tag, DROWSE_ASLEEP, -1);
  return status != DROWSE_OK ? status : drowse_wake(heap, &(const char *){tag}, 1, NULL);
}

START_TEST(waiting_for_a_state) {
  struct call waiter;
  call_start(&waiter, wait_asleep_then_awake, tag_a);
  ck_ok(sleep_tag("a", DROWSE_OFFLOAD));
  ck_ok(drowse_tag_wait(heap, "a", DROWSE_AWAKE, -1)); /* it is woken by the other thread */
  ck_call_end(&waiter, DROWSE_OK);
  ck_assert(has_pattern(block, MIB, 1));
}
END_TEST

START_TEST(waiting_in_vain) {
  ck_ok(drowse_tag_wait(heap, "a", DROWSE_AWAKE, 0));
  ck_status(drowse_tag_wait(heap, "a", DROWSE_ASLEEP, 0), DROWSE_ERR_TIMEOUT);
  ck_status(drowse_tag_wait(heap, "a", DROWSE_WAKING, 1), DROWSE_ERR_TIMEOUT);
  ck_error_tag("a");
  ck_status(drowse_tag_wait(heap, "a", (drowse_state)5, 0), DROWSE_ERR_INVALID);
  ck_status(drowse_tag_wait(heap, "a", (drowse_state)-1, 0), DROWSE_ERR_INVALID);
  ck_status(drowse_tag_wait(heap, "b", DROWSE_AWAKE, 0), DROWSE_ERR_NOT_FOUND);
  ck_status(drowse_tag_wait(heap, NULL, DROWSE_AWAKE, 0), DROWSE_ERR_INVALID);
  ck_status(drowse_tag_wait(NULL, "a", DROWSE_AWAKE, 0), DROWSE_ERR_INVALID);
}
END_TEST

#define TAG_TEST(suite, test) HARNESS_FIXTURE_TEST(suite, test, start_tag, finish)

int main(void) {
  Suite *suite = suite_create("hold");
  TAG_TEST(suite, a_hold_keeps_awake);
  TAG_TEST(suite, a_hold_by_an_interned_name_is_the_same);
  TAG_TEST(suite, a_hold_on_another_tag_does_not_matter);
  TAG_TEST(suite, a_hold_waits_for_the_wake);
  HARNESS_TEST(suite, a_hold_is_had_when_the_sleep_fails);
  TAG_TEST(suite, a_hold_gives_up_in_time);
  TAG_TEST(suite, bad_holds);
  TAG_TEST(suite, any_thread_ends_a_hold);
  TAG_TEST(suite, waiting_for_a_state);
  TAG_TEST(suite, waiting_in_vain);
  return harness_run(suite);
}
