/* SPDX-License-Identifier: Apache-2.0
 *
 * Operations that nobody waits for at once: start, wait, progress, cancel, release, the hooks that they call, and the end of the
 * heap under them.
 */
#include "fixture.h"

#include <setjmp.h>

static void *block_a, *block_b;

static void start_tags(void) {
  start();
  write_pattern(block_a = alloc_tag("a", MIB), MIB, 1);
  write_pattern(block_b = alloc_tag("b", MIB), MIB, 2);
}

static const drowse_rule rule_a = {.tag = "a", .action = DROWSE_OFFLOAD}, rule_b = {.tag = "b", .action = DROWSE_OFFLOAD};
static const char *const only_a[] = {"a"};

static drowse_op *start_sleep(const drowse_rule *rule) {
  drowse_op *op = NULL;
  ck_ok(drowse_sleep_start(heap, rule, 1, NULL, &op));
  ck_assert_ptr_nonnull(op);
  return op;
}

static drowse_op *start_wake(const char *const *tags, size_t count) {
  drowse_op *op = NULL;
  ck_ok(drowse_wake_start(heap, tags, count, NULL, &op));
  ck_assert_ptr_nonnull(op);
  return op;
}

START_TEST(started_waited_for_released) {
  uint64_t done, total;
  drowse_op *op = start_sleep(&rule_a);
  ck_ok(drowse_op_wait(op, -1));
  ck_ok(drowse_op_wait(op, 0)); /* again */
  ck_ok(drowse_op_progress(op, &done, &total));
  ck_assert_uint_eq(done, MIB);
  ck_assert_uint_eq(total, MIB);
  drowse_op_release(op);
  ck_state("a", DROWSE_ASLEEP);
  ck_state("b", DROWSE_AWAKE);
  op = start_wake(only_a, 1);
  ck_ok(drowse_op_wait(op, -1));
  drowse_op_release(op);
  ck_state("a", DROWSE_AWAKE);
  ck_assert(has_pattern(block_a, MIB, 1));
}
END_TEST

START_TEST(nothing_to_do_is_done) {
  uint64_t done = 1, total = 1;
  drowse_op *op = start_wake(only_a, 1);
  ck_ok(drowse_op_wait(op, 0));
  ck_ok(drowse_op_progress(op, &done, &total));
  ck_assert_uint_eq(done + total, 0);
  ck_ok(drowse_op_cancel(op));
  ck_ok(drowse_op_wait(op, 0));
  drowse_op_release(op);
}
END_TEST

START_TEST(bad_calls) {
  drowse_op *op = (drowse_op *)&op;
  const drowse_rule unknown = {.tag = "c", .action = DROWSE_OFFLOAD};
  ck_status(drowse_sleep_start(heap, &rule_a, 1, NULL, NULL), DROWSE_ERR_INVALID);
  ck_status(drowse_wake_start(heap, NULL, 0, NULL, NULL), DROWSE_ERR_INVALID);
  ck_status(drowse_sleep_start(heap, &unknown, 1, NULL, &op), DROWSE_ERR_NOT_FOUND);
  ck_assert_ptr_null(op);
  op = (drowse_op *)&op;
  ck_status(drowse_wake_start(heap, &unknown.tag, 1, NULL, &op), DROWSE_ERR_NOT_FOUND);
  ck_assert_ptr_null(op);
  ck_status(drowse_sleep_start(NULL, &rule_a, 1, NULL, &op), DROWSE_ERR_INVALID);
  ck_status(drowse_op_wait(NULL, -1), DROWSE_ERR_INVALID);
  ck_status(drowse_op_cancel(NULL), DROWSE_ERR_INVALID);
  ck_status(drowse_op_progress(NULL, NULL, NULL), DROWSE_ERR_INVALID);
  drowse_op_release(NULL);
  ck_state("a", DROWSE_AWAKE);
}
END_TEST

/* ---- while it runs: a hold keeps a sleep from going on */

START_TEST(others_see_it_run) {
  drowse_op *op = NULL, *second = (drowse_op *)&op;
  ck_ok(drowse_hold(heap, "a", 0));
  op = start_sleep(&rule_a);
  ck_status(drowse_op_wait(op, 0), DROWSE_ERR_TIMEOUT);
  ck_status(drowse_op_wait(op, 1), DROWSE_ERR_TIMEOUT);
  ck_state("a", DROWSE_FALLING_ASLEEP);
  ck_status(drowse_sleep_start(heap, &rule_a, 1, NULL, &second), DROWSE_ERR_BUSY);
  ck_assert_ptr_null(second);
  ck_ok(drowse_unhold(heap, "a"));
  ck_ok(drowse_op_wait(op, -1));
  drowse_op_release(op);
}
END_TEST

START_TEST(several_at_once) {
  ck_ok(drowse_hold(heap, "a", 0));
  drowse_op *slow = start_sleep(&rule_a), *quick = start_sleep(&rule_b);
  ck_ok(drowse_op_wait(quick, -1));
  ck_state("a", DROWSE_FALLING_ASLEEP);
  ck_state("b", DROWSE_ASLEEP);
  drowse_op_release(quick);
  ck_ok(drowse_unhold(heap, "a"));
  ck_ok(drowse_op_wait(slow, -1));
  drowse_op_release(slow);
}
END_TEST

START_TEST(released_it_goes_on) {
  ck_ok(drowse_hold(heap, "a", 0));
  drowse_op_release(start_sleep(&rule_a));
  ck_ok(drowse_unhold(heap, "a"));
  ck_ok(drowse_tag_wait(heap, "a", DROWSE_ASLEEP, -1));
}
END_TEST

static drowse_status wait_for_op(void *op) {
  return drowse_op_wait(op, -1);
}

START_TEST(several_wait) {
  enum { WAITERS = 4 };
  struct call waiters[WAITERS];
  ck_ok(drowse_hold(heap, "a", 0));
  drowse_op *op = start_sleep(&rule_a);
  for (int i = 0; i < WAITERS; i++) call_start(&waiters[i], wait_for_op, op);
  ck_ok(drowse_unhold(heap, "a"));
  for (int i = 0; i < WAITERS; i++) ck_call_end(&waiters[i], DROWSE_OK);
  drowse_op_release(op);
}
END_TEST

/* ---- failing and canceling */

START_TEST(each_waiter_has_the_error) {
  struct call waiter;
  open_with((drowse_heap_options){.backup_limit = 4096});
  (void)alloc_tag("a", MIB);
  drowse_op *op = start_sleep(&rule_a);
  call_start(&waiter, wait_for_op, op);
  ck_call_end(&waiter, DROWSE_ERR_NO_HOST_MEMORY);
  ck_assert_ptr_nonnull(strstr(waiter.error, "limit"));
  ck_status(drowse_op_wait(op, -1), DROWSE_ERR_NO_HOST_MEMORY);
  ck_says("limit");
  drowse_op_release(op);
  ck_state("a", DROWSE_AWAKE);
  close_heap();
}
END_TEST

START_TEST(canceled_while_it_waits_for_a_hold) {
  ck_ok(drowse_hold(heap, "a", 0));
  drowse_op *op = start_sleep(&rule_a);
  ck_ok(drowse_op_cancel(op));
  ck_status(drowse_op_wait(op, -1), DROWSE_ERR_CANCELED);
  ck_says("canceled");
  drowse_op_release(op);
  ck_state("a", DROWSE_AWAKE);
  ck_assert_uint_eq(stats_of("a").backup_bytes, 0);
  ck_ok(drowse_unhold(heap, "a"));
  ck_ok(sleep_tag("a", DROWSE_OFFLOAD));
}
END_TEST

/* In place of EventSynchronize: the operation is canceled while its first copies are on their way. */
static drowse_op *canceled_meanwhile;

static CUresult cancel_and_wait(CUevent event) {
  while (__atomic_load_n(&canceled_meanwhile, __ATOMIC_ACQUIRE) == NULL) (void)sched_yield();
  (void)drowse_op_cancel(canceled_meanwhile);
  return dz_host_driver.EventSynchronize(event);
}

static void cancel_in_the_middle(drowse_op *(*begin)(void)) {
  heap->device.driver.EventSynchronize = cancel_and_wait;
  drowse_op *op = begin();
  __atomic_store_n(&canceled_meanwhile, op, __ATOMIC_RELEASE);
  ck_status(drowse_op_wait(op, -1), DROWSE_ERR_CANCELED);
  drowse_op_release(op);
  heap->device.driver = dz_host_driver;
  __atomic_store_n(&canceled_meanwhile, NULL, __ATOMIC_RELEASE);
}

static drowse_op *sleep_both(void) {
  static const drowse_rule all = {.action = DROWSE_OFFLOAD};
  return start_sleep(&all);
}

static drowse_op *wake_both(void) {
  return start_wake(NULL, 0);
}

START_TEST(canceled_in_the_middle_of_a_sleep) {
  cancel_in_the_middle(sleep_both);
  ck_state("a", DROWSE_AWAKE);
  ck_state("b", DROWSE_AWAKE);
  ck_assert_uint_eq(stats_of(NULL).backup_bytes, 0);
  ck_assert(has_pattern(block_a, MIB, 1) && has_pattern(block_b, MIB, 2));
}
END_TEST

START_TEST(canceled_in_the_middle_of_a_wake) {
  ck_ok(drowse_sleep(heap, &(drowse_rule){.action = DROWSE_OFFLOAD}, 1, NULL));
  cancel_in_the_middle(wake_both);
  ck_state("a", DROWSE_ASLEEP);
  ck_state("b", DROWSE_ASLEEP);
  ck_assert_uint_eq(stats_of(NULL).mapped_bytes, 0);
  ck_assert(has_pattern(block_a, MIB, 1) && has_pattern(block_b, MIB, 2));
  ck_ok(wake_all_tags());
  ck_assert(has_pattern(block_a, MIB, 1) && has_pattern(block_b, MIB, 2));
}
END_TEST

START_TEST(too_late_to_cancel) {
  drowse_op *op = start_sleep(&rule_a);
  ck_ok(drowse_tag_wait(heap, "a", DROWSE_ASLEEP, -1));
  ck_ok(drowse_op_cancel(op));
  ck_ok(drowse_op_wait(op, -1));
  drowse_op_release(op);
  ck_state("a", DROWSE_ASLEEP);
}
END_TEST

/* ---- the heap's end */

START_TEST(the_heap_is_closed_under_it) {
  start_tags();
  ck_ok(drowse_hold(heap, "a", 0));
  drowse_op *running = start_sleep(&rule_a), *ended = start_sleep(&rule_b);
  ck_ok(drowse_op_wait(ended, -1));
  ck_cu(CtxSetCurrent(NULL));
  ck_ok(drowse_heap_close(heap));
  ck_nothing_left(&usage_before);
  uint64_t done;
  ck_status(drowse_op_wait(running, -1), DROWSE_ERR_CANCELED);
  ck_ok(drowse_op_wait(ended, -1));
  ck_ok(drowse_op_progress(ended, &done, NULL));
  ck_assert_uint_eq(done, MIB);
  ck_ok(drowse_op_cancel(running));
  drowse_op_release(running);
  drowse_op_release(ended);
}
END_TEST

static drowse_status cancel_op(void *op) {
  return drowse_op_cancel(op);
}

/* It has nothing to give. */
static drowse_status decline(void *context, uint64_t missing_bytes) {
  (void)context, (void)missing_bytes;
  return DROWSE_ERR_NO_DEVICE_MEMORY;
}

static void close_under(drowse_op *op) {
  struct call waiters[2], canceler;
  for (int i = 0; i < 2; i++) call_start(&waiters[i], wait_for_op, op);
  call_start(&canceler, cancel_op, op);
  ck_cu(CtxSetCurrent(NULL));
  ck_ok(drowse_heap_close(heap));
  ck_call_end(&canceler, DROWSE_OK);
  drowse_status status = drowse_op_wait(op, 0);
  ck_assert(status == DROWSE_OK || status == DROWSE_ERR_CANCELED);
  for (int i = 0; i < 2; i++) ck_call_end(&waiters[i], status);
  ck_nothing_left(&usage_before);
  drowse_op_release(op);
}

START_TEST(closed_while_others_wait_and_cancel) {
  start_tags();
  close_under(sleep_both());
}
END_TEST

START_TEST(canceled_while_it_wants_memory) {
  CUmemGenericAllocationHandle handle;
  drowse_op *op;
  open_with((drowse_heap_options){.pressure = decline});
  (void)alloc_tag("a", MIB);
  ck_ok(sleep_tag("a", DROWSE_OFFLOAD));
  ck_cu(MemCreate(&handle, 64 * MIB, &heap->properties, 0)); /* another tenant has it all */
  ck_ok(drowse_wake_start(heap, NULL, 0, &(drowse_wake_options){.struct_size = sizeof(drowse_wake_options), .deadline_ms = -1},
                          &op));
  struct call waiter;
  call_start(&waiter, wait_for_op, op);
  ck_status(drowse_op_wait(op, 1), DROWSE_ERR_TIMEOUT);
  ck_ok(drowse_op_cancel(op));
  ck_call_end(&waiter, DROWSE_ERR_CANCELED);
  drowse_op_release(op);
  ck_cu(MemRelease(handle));
  ck_ok(wake_all_tags());
  close_heap();
}
END_TEST

/* ---- callbacks */

static unsigned long shown;
static drowse_op *waited_for;
static jmp_buf out;

static CUresult refuse_to_register(void *host, size_t bytes, unsigned int flags) {
  (void)host, (void)bytes, (void)flags;
  return CUDA_ERROR_OUT_OF_MEMORY;
}

static void count_progress(void *context, const drowse_progress *progress) {
  ck_assert_ptr_eq(context, &shown);
  ck_assert_uint_le(progress->done_bytes, progress->total_bytes);
  shown = progress->done_bytes;
}

static void jump_out(void *context, const drowse_progress *progress) {
  (void)context;
  shown = progress->done_bytes;
  longjmp(out, 1);
}

START_TEST(progress_is_shown_to_who_waits) {
  drowse_sleep_options options = {.struct_size = sizeof options, .progress = count_progress, .context = &shown};
  shown = 0;
  ck_ok(drowse_sleep_start(heap, &rule_a, 1, &options, &waited_for));
  ck_ok(drowse_tag_wait(heap, "a", DROWSE_ASLEEP, -1));
  ck_assert_uint_eq(shown, 0); /* nobody has waited */
  ck_ok(drowse_op_wait(waited_for, -1));
  ck_assert_uint_eq(shown, MIB);
  drowse_op_release(waited_for);
}
END_TEST

/* In place of EventSynchronize: the next flight lands once the progress hook has been called for the one before. */
static sem_t may_land;

static CUresult wait_to_land(CUevent event) {
  wait_semaphore(&may_land);
  return dz_host_driver.EventSynchronize(event);
}

/* Returns when there is more to show, as long as there will be. */
static void let_one_land(void *context, const drowse_progress *progress) {
  uint64_t done = progress->done_bytes;
  (void)context;
  shown++;
  (void)sem_post(&may_land);
  while (done == progress->done_bytes && done < progress->total_bytes) ck_ok(drowse_op_progress(waited_for, &done, NULL));
}

START_TEST(callbacks_do_not_prolong_the_wait) {
  enum { BLOCKS = 12 };
  open_with((drowse_heap_options){0});
  ck_assert_int_eq(sem_init(&may_land, 0, 1), 0);
  heap->device.driver.EventSynchronize = wait_to_land;
  heap->device.driver.MemHostRegister = refuse_to_register; /* so that each block is a copy of its own */
  for (int i = 0; i < BLOCKS; i++) (void)alloc_tag("a", 4 * MIB);
  drowse_sleep_options options = {.struct_size = sizeof options, .progress = let_one_land};
  uint64_t done = 0;
  shown = 0;
  ck_ok(drowse_sleep_start(heap, &rule_a, 1, &options, &waited_for));
  while (done == 0) ck_ok(drowse_op_progress(waited_for, &done, NULL));
  ck_status(drowse_op_wait(waited_for, 0), DROWSE_ERR_TIMEOUT);
  ck_assert_uint_eq(shown, 1);
  ck_ok(drowse_op_wait(waited_for, -1));
  ck_assert_uint_eq(shown, BLOCKS);
  drowse_op_release(waited_for);
  heap->device.driver = dz_host_driver;
  close_heap();
}
END_TEST

START_TEST(a_jump_out_of_a_callback_leaves_the_operation) {
  drowse_sleep_options options = {.struct_size = sizeof options, .progress = jump_out};
  shown = 0;
  ck_ok(drowse_sleep_start(heap, &rule_a, 1, &options, &waited_for));
  if (setjmp(out) == 0) {
    (void)drowse_op_wait(waited_for, -1);
    ck_abort_msg("the callback was not called");
  }
  while (setjmp(out) != 0) continue; /* as long as there is more to show */
  ck_ok(drowse_op_wait(waited_for, -1));
  ck_assert_uint_eq(shown, MIB);
  drowse_op_release(waited_for);
}
END_TEST

START_TEST(a_jump_out_of_a_call_leaves_nothing_behind) {
  drowse_sleep_options options = {.struct_size = sizeof options, .progress = jump_out};
  if (setjmp(out) == 0) {
    (void)drowse_sleep(heap, &rule_a, 1, &options);
    ck_abort_msg("the callback was not called");
  }
  ck_ok(drowse_tag_wait(heap, "a", DROWSE_ASLEEP, -1));
  ck_ok(wake_tag("a"));
}
END_TEST

static char woken[64];

static void note_woken(void *context, const char *tag) {
  ck_assert_ptr_eq(context, woken);
  ck_state(tag, DROWSE_AWAKE); /* it may call drowse */
  (void)strncat(woken, tag, sizeof woken - 1 - strlen(woken));
}

static void open_with_hook(void) {
  open_with((drowse_heap_options){.woken = note_woken, .woken_context = woken});
  woken[0] = '\0';
  write_pattern(block_a = alloc_tag("a", MIB), MIB, 1);
  write_pattern(block_b = alloc_tag("b", MIB), MIB, 2);
}

START_TEST(the_hook_hears_of_each_tag_in_their_order) {
  static const char *const order[] = {"b", "a"};
  open_with_hook();
  ck_ok(drowse_sleep(heap, &(drowse_rule){.action = DROWSE_OFFLOAD}, 1, NULL));
  ck_assert_str_eq(woken, "");
  ck_ok(drowse_wake(heap, order, 2, NULL));
  ck_assert_str_eq(woken, "ba");
  ck_ok(drowse_sleep(heap, &(drowse_rule){.action = DROWSE_OFFLOAD}, 1, NULL));
  ck_ok(drowse_wake(heap, NULL, 0,
                    &(drowse_wake_options){.struct_size = sizeof(drowse_wake_options), .flags = DROWSE_WAKE_TOGETHER}));
  ck_assert_str_eq(woken, "baab");
  close_heap();
}
END_TEST

START_TEST(the_hook_runs_when_somebody_waits) {
  open_with_hook();
  ck_ok(sleep_tag("a", DROWSE_OFFLOAD));
  drowse_op *op = start_wake(only_a, 1);
  ck_ok(drowse_tag_wait(heap, "a", DROWSE_AWAKE, -1));
  ck_assert_str_eq(woken, "");
  ck_ok(drowse_op_wait(op, -1));
  ck_assert_str_eq(woken, "a");
  ck_ok(drowse_op_wait(op, -1));
  ck_assert_str_eq(woken, "a"); /* once */
  drowse_op_release(op);
  close_heap();
}
END_TEST

START_TEST(the_hook_hears_only_of_those_that_are_awake) {
  static const char *const order[] = {"a", "b"};
  open_with_hook();
  ck_ok(drowse_sleep(heap, &(drowse_rule){.action = DROWSE_OFFLOAD}, 1, NULL));
  CUmemGenericAllocationHandle handle;
  ck_cu(MemCreate(&handle, 64 * MIB - GRANULE, &heap->properties, 0)); /* another tenant leaves room for one of them */
  ck_status(drowse_wake(heap, order, 2, NULL), DROWSE_ERR_NO_DEVICE_MEMORY);
  ck_assert_str_eq(woken, "a");
  ck_cu(MemRelease(handle));
  ck_ok(wake_all_tags());
  ck_assert_str_eq(woken, "ab");
  close_heap();
}
END_TEST

#define TAGS_TEST(suite, test) HARNESS_FIXTURE_TEST(suite, test, start_tags, finish)

int main(void) {
  Suite *suite = suite_create("op");
  TAGS_TEST(suite, started_waited_for_released);
  TAGS_TEST(suite, nothing_to_do_is_done);
  TAGS_TEST(suite, bad_calls);
  TAGS_TEST(suite, others_see_it_run);
  TAGS_TEST(suite, several_at_once);
  TAGS_TEST(suite, released_it_goes_on);
  TAGS_TEST(suite, several_wait);
  HARNESS_TEST(suite, each_waiter_has_the_error);
  TAGS_TEST(suite, canceled_while_it_waits_for_a_hold);
  TAGS_TEST(suite, canceled_in_the_middle_of_a_sleep);
  TAGS_TEST(suite, canceled_in_the_middle_of_a_wake);
  TAGS_TEST(suite, too_late_to_cancel);
  HARNESS_TEST(suite, the_heap_is_closed_under_it);
  HARNESS_LOOP_TEST(suite, closed_while_others_wait_and_cancel, NULL, NULL, 20);
  HARNESS_TEST(suite, canceled_while_it_wants_memory);
  TAGS_TEST(suite, progress_is_shown_to_who_waits);
  HARNESS_TEST(suite, callbacks_do_not_prolong_the_wait);
  TAGS_TEST(suite, a_jump_out_of_a_callback_leaves_the_operation);
  TAGS_TEST(suite, a_jump_out_of_a_call_leaves_nothing_behind);
  HARNESS_TEST(suite, the_hook_hears_of_each_tag_in_their_order);
  HARNESS_TEST(suite, the_hook_runs_when_somebody_waits);
  HARNESS_TEST(suite, the_hook_hears_only_of_those_that_are_awake);
  return harness_run(suite);
}
