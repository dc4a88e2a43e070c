/* SPDX-License-Identifier: Apache-2.0
 *
 * Forks and heaps: what a child inherits answers FORKED and makes no call on the device; it may open heaps of its own. The parent
 * notices nothing, whatever runs meanwhile.
 */
#include "fixture.h"

#include "child.h"

enum { BYTES = 3 * 1024 * 1024 };

static CUstream stream;
static void *block, *streamed;

static void start_blocks(void) {
  start();
  stream = make_stream();
  write_pattern(block = alloc_tag("a", BYTES), BYTES, 1);
  write_pattern(streamed = alloc_on("a", BYTES, stream), BYTES, 2);
}

static void finish_blocks(void) {
  ck_assert_uint_eq(dz_host_calls_after_fork(), 0);
  if (stats_of("a").state == DROWSE_ASLEEP) ck_ok(wake_tag("a"));
  ck_assert(has_pattern(block, BYTES, 1));
  ck_assert(has_pattern(streamed, BYTES, 2));
  drop_stream(stream);
  close_heap();
}

/* ---- every call */

static int stop_at_once(void *context, const char *tag, const drowse_stats *stats) {
  (void)context;
  (void)tag;
  (void)stats;
  return 1;
}

#define FORKED(call) ((call) == DROWSE_ERR_FORKED)

static int child_calls(void) {
  unsigned char byte = 0;
  void *ptr = &byte;
  drowse_alloc_options options = {.struct_size = sizeof options, .tag = "a"};
  drowse_stats stats = {.struct_size = sizeof stats};
  drowse_heap_info info = {.struct_size = sizeof info};
  drowse_block found = {.struct_size = sizeof found};
  drowse_rule rule = {.tag = "a", .action = DROWSE_OFFLOAD};
  const char *tag = "a";
  STEP(1, FORKED(drowse_alloc(heap, 1, NULL, &ptr)) && ptr == NULL);
  ptr = &byte;
  STEP(2, FORKED(drowse_alloc_with(heap, 1, stream, &options, &ptr)) && ptr == NULL);
  STEP(3, FORKED(drowse_free(heap, block)));
  STEP(4, FORKED(drowse_stream_retire(heap, stream)));
  STEP(5, FORKED(drowse_tag_clear(heap, "a")));
  STEP(6, FORKED(drowse_trim(heap, 0)));
  STEP(7, FORKED(drowse_copy_in(heap, block, &byte, 1)));
  STEP(8, FORKED(drowse_copy_out(heap, &byte, block, 1)));
  STEP(23, FORKED(drowse_backup_get(heap, block, 1, &ptr)) && ptr == NULL);
  STEP(9, FORKED(drowse_sleep(heap, &rule, 1, NULL)));
  STEP(10, FORKED(drowse_wake(heap, &tag, 1, NULL)));
  STEP(11, FORKED(drowse_hold(heap, "a", -1)));
  STEP(12, FORKED(drowse_unhold(heap, "a")));
  STEP(13, FORKED(drowse_stats_get(heap, "a", &stats)));
  STEP(14, FORKED(drowse_tags(heap, stop_at_once, NULL)));
  STEP(15, FORKED(drowse_tag_wait(heap, "a", DROWSE_ASLEEP, -1)));
  STEP(16, FORKED(drowse_block_get(heap, block, &found)));
  STEP(17, FORKED(drowse_heap_info_get(heap, &info)));
  STEP(18, drowse_driver_entry(heap, "cuStreamCreate") == NULL);
  STEP(22, FORKED(drowse_hold_tag(heap, drowse_tag_get("a"), -1)) && FORKED(drowse_unhold_tag(heap, drowse_tag_get("a"))));
  STEP(20, FORKED(drowse_seal(heap, "a")) && FORKED(drowse_unseal(heap, "a")));
  STEP(21, FORKED(drowse_backup_reserve(heap, 1)) && FORKED(drowse_backup_trim(heap, 0)));
  STEP(19, strstr(drowse_last_error(), "forked") != NULL);
  STEP(20, drowse_heap_close(heap) == DROWSE_OK);
  STEP(21, dz_host_calls_after_fork() == 0);
  return 0;
}

START_TEST(an_inherited_heap_answers_forked) {
  for (int round = 0; round < 2; round++) {
    ck_assert_int_eq(in_child_by((enum fork_kind)_i, child_calls), 0);
    ck_assert(has_pattern(block, BYTES, 1));
    ck_ok(sleep_tag("a", DROWSE_OFFLOAD)); /* and once more with it asleep */
  }
}
END_TEST

/* ---- operations */

static drowse_op *running, *ended;

static int child_has_operations(void) {
  STEP(1, FORKED(drowse_op_wait(running, -1)) && FORKED(drowse_op_wait(ended, -1)));
  STEP(2, FORKED(drowse_op_progress(running, NULL, NULL)) && FORKED(drowse_op_cancel(running)));
  STEP(3, strstr(drowse_last_error(), "forked") != NULL);
  drowse_op_release(running);
  drowse_op_release(ended);
  STEP(4, drowse_heap_close(heap) == DROWSE_OK);
  return 0;
}

static drowse_op *start_sleep(const char *tag) {
  drowse_op *op = NULL;
  ck_ok(drowse_sleep_start(heap, &(drowse_rule){.tag = tag, .action = DROWSE_OFFLOAD}, 1, NULL, &op));
  return op;
}

START_TEST(inherited_operations_answer_forked) {
  (void)alloc_tag("b", BYTES);
  ck_ok(drowse_hold(heap, "a", 0));
  running = start_sleep("a");
  ended = start_sleep("b");
  ck_ok(drowse_op_wait(ended, -1));
  ck_assert_int_eq(in_child_by((enum fork_kind)_i, child_has_operations), 0);
  ck_ok(drowse_unhold(heap, "a"));
  ck_ok(drowse_op_wait(running, -1));
  drowse_op_release(running);
  drowse_op_release(ended);
}
END_TEST

/* ---- heaps of the child's own */

static int use_own_heap(void) {
  drowse_heap *mine;
  drowse_heap_options options = {.struct_size = sizeof options, .device = "host:64MiB"};
  const char *tag = "weights";
  drowse_rule rule = {.tag = tag, .action = DROWSE_OFFLOAD};
  drowse_scope scope;
  struct host_counts counts;
  void *ptr;
  unsigned char *in = malloc(BYTES), *out = malloc(BYTES);
  STEP(30, in != NULL && out != NULL);
  fill_pattern(in, BYTES, 7);
  STEP(31, drowse_heap_open(&mine, &options) == DROWSE_OK);
  STEP(32, drowse_scope_enter(&scope, tag, DROWSE_EXPANDABLE_INHERIT) == DROWSE_OK);
  STEP(33, drowse_alloc(mine, BYTES, NULL, &ptr) == DROWSE_OK);
  STEP(34, drowse_scope_leave(&scope) == DROWSE_OK);
  STEP(35, drowse_copy_in(mine, ptr, in, BYTES) == DROWSE_OK);
  STEP(36, drowse_sleep(mine, &rule, 1, NULL) == DROWSE_OK);
  STEP(37, drowse_wake(mine, &tag, 1, NULL) == DROWSE_OK);
  STEP(38, drowse_copy_out(mine, out, ptr, BYTES) == DROWSE_OK && memcmp(in, out, BYTES) == 0);
  STEP(39, heap == NULL || FORKED(drowse_free(heap, block))); /* beside the inherited one */
  STEP(40, drowse_heap_close(mine) == DROWSE_OK);
  dz_host_counts(&counts);
  STEP(41, counts.contexts == 0 && counts.reclaimed == 0 && counts.registered == 0 && counts.reservations == 0);
  STEP(42, heap == NULL || drowse_heap_close(heap) == DROWSE_OK);
  free(in);
  free(out);
  return 0;
}

static drowse_heap *between;

static int grandchild_calls(void) {
  void *ptr;
  STEP(60, FORKED(drowse_alloc(between, 1, NULL, &ptr)));
  STEP(61, drowse_heap_close(between) == DROWSE_OK);
  return use_own_heap();
}

static int child_forks(void) {
  drowse_heap_options options = {.struct_size = sizeof options, .device = "host:64MiB"};
  void *ptr;
  unsigned char byte = 0;
  STEP(50, drowse_heap_open(&between, &options) == DROWSE_OK);
  STEP(51, drowse_alloc(between, 1, NULL, &ptr) == DROWSE_OK);
  STEP(52, drowse_copy_in(between, ptr, "x", 1) == DROWSE_OK);
  int step = in_child(grandchild_calls);
  STEP(step, step == 0);
  STEP(53, drowse_copy_out(between, &byte, ptr, 1) == DROWSE_OK && byte == 'x');
  STEP(54, drowse_heap_close(between) == DROWSE_OK);
  return 0;
}

START_TEST(a_child_opens_its_own) {
  ck_child(use_own_heap);
  ck_child(child_forks);
}
END_TEST

/* A server that forks its workers, before or after it has opened a heap itself. */
static void serve(void) {
  pid_t workers[4];
  for (int i = 0; i < 4; i++) {
    workers[i] = fork();
    if (workers[i] == 0) {
      (void)alarm(60);
      _exit(use_own_heap());
    }
  }
  for (int i = 0; i < 4; i++) ck_assert_int_eq(end_of_child(workers[i]), 0);
}

START_TEST(workers_open_a_heap_each) {
  serve();
  ck_ok(sleep_tag("a", DROWSE_OFFLOAD));
  serve();
  ck_ok(wake_tag("a"));
}
END_TEST

START_TEST(workers_of_a_parent_without_heaps) {
  ck_assert_ptr_null(heap);
  serve();
}
END_TEST

/* ---- while a sleep or a wake runs on another thread */

static char tag_a[] = "a";

START_TEST(a_fork_while_a_tag_falls_asleep) {
  struct gate gate;
  struct call sleeper;
  close_gate(&gate, stream); /* which the sleep waits for */
  call_start(&sleeper, run_offload, tag_a);
  ck_ok(drowse_tag_wait(heap, "a", DROWSE_FALLING_ASLEEP, -1));
  for (int round = 0; round < 5; round++) {
    ck_assert_int_eq(in_child_by((enum fork_kind)_i, child_calls), 0);
    ck_state("a", DROWSE_FALLING_ASLEEP);
  }
  open_gate(&gate);
  ck_call_end(&sleeper, DROWSE_OK);
  ck_state("a", DROWSE_ASLEEP);
}
END_TEST

/* ---- from inside callbacks, which return twice */

static int callbacks;
static pid_t child_of_callback;
static enum fork_kind kind_of_callback;

static void fork_once(void) {
  if (callbacks++ > 0) return;
  child_of_callback = fork_by(kind_of_callback);
}

static void fork_in_progress(void *context, const drowse_progress *progress) {
  (void)context;
  ck_assert_uint_le(progress->done_bytes, progress->total_bytes);
  fork_once();
}

/* In the child the heap is gone when the callback returns. */
static void fork_and_close(void *context, const drowse_progress *progress) {
  fork_in_progress(context, progress);
  if (callbacks == 1 && child_of_callback == 0 && drowse_heap_close(heap) != DROWSE_OK) _exit(1);
}

START_TEST(a_child_closes_the_heap_inside_a_callback) {
  drowse_sleep_options options = {.struct_size = sizeof options, .progress = fork_and_close};
  callbacks = 0;
  kind_of_callback = (enum fork_kind)_i;
  drowse_status status = drowse_sleep(heap, &(drowse_rule){.tag = "a", .action = DROWSE_OFFLOAD}, 1, &options);
  if (child_of_callback == 0) _exit(FORKED(status) ? 0 : 2);
  ck_status(status, DROWSE_OK);
  ck_assert_int_eq(end_of_child(child_of_callback), 0);
}
END_TEST

static int fork_in_tags(void *context, const char *tag, const drowse_stats *stats) {
  (void)context;
  (void)tag;
  (void)stats;
  fork_once();
  return 0;
}

/* The first time it says that there is more memory now; there is not. */
static drowse_status fork_in_pressure(void *context, uint64_t missing_bytes) {
  (void)context;
  (void)missing_bytes;
  fork_once();
  return callbacks == 1 ? DROWSE_OK : DROWSE_ERR_NOT_FOUND;
}

/* It has nothing to give, in the child either. */
static drowse_status fork_and_decline(void *context, uint64_t missing_bytes) {
  (void)context;
  (void)missing_bytes;
  fork_once();
  return DROWSE_ERR_NOT_FOUND;
}

/* What the child does once the call has returned there. */
static int after_callback(drowse_status status) {
  int cancel;
  STEP(70, status == DROWSE_ERR_FORKED);
  STEP(71, pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &cancel) == 0 && cancel == PTHREAD_CANCEL_ENABLE);
  return child_calls();
}

static void fork_from_callback(drowse_status (*call)(void), drowse_status expected) {
  callbacks = 0;
  child_of_callback = -1;
  drowse_status status = call();
  if (child_of_callback == 0) {
    (void)alarm(60);
    _exit(after_callback(status));
  }
  ck_assert_int_gt(callbacks, 0);
  ck_assert_int_eq(end_of_child(child_of_callback), 0);
  ck_status(status, expected);
}

static drowse_status sleep_with_progress(void) {
  drowse_sleep_options options = {.struct_size = sizeof options, .progress = fork_in_progress};
  return drowse_sleep(heap, &(drowse_rule){.tag = "a", .action = DROWSE_OFFLOAD}, 1, &options);
}

static drowse_status wake_with_progress(void) {
  drowse_wake_options options = {.struct_size = sizeof options, .progress = fork_in_progress};
  return drowse_wake(heap, NULL, 0, &options);
}

static drowse_status walk_tags(void) {
  return drowse_tags(heap, fork_in_tags, NULL);
}

static drowse_status allocate_too_much(void) {
  void *ptr;
  return drowse_alloc(heap, 65 * MIB, NULL, &ptr);
}

START_TEST(a_fork_inside_a_callback) {
  kind_of_callback = (enum fork_kind)_i;
  fork_from_callback(sleep_with_progress, DROWSE_OK);
  ck_state("a", DROWSE_ASLEEP);
  fork_from_callback(wake_with_progress, DROWSE_OK);
  ck_state("a", DROWSE_AWAKE);
  fork_from_callback(walk_tags, DROWSE_OK);
}
END_TEST

static drowse_heap *tenant; /* has the memory that the waking tag needs */

static drowse_status fork_and_make_room(void *context, uint64_t missing_bytes) {
  (void)context;
  (void)missing_bytes;
  fork_once();
  if (child_of_callback != 0) ck_ok(drowse_heap_close(tenant));
  return DROWSE_OK;
}

static drowse_status wake_under_pressure(void) {
  drowse_wake_options options = {.struct_size = sizeof options, .deadline_ms = -1};
  return drowse_wake(heap, NULL, 0, &options);
}

START_TEST(a_fork_inside_the_pressure_hook) {
  void *all;
  kind_of_callback = (enum fork_kind)_i;
  open_with((drowse_heap_options){.pressure = fork_in_pressure});
  write_pattern(block = alloc_tag("a", BYTES), BYTES, 1);
  fork_from_callback(allocate_too_much, DROWSE_ERR_NO_DEVICE_MEMORY);
  ck_assert(has_pattern(block, BYTES, 1));
  close_heap();

  open_with((drowse_heap_options){.pressure = fork_and_decline});
  write_pattern(block = alloc_tag("a", BYTES), BYTES, 1);
  fork_from_callback(allocate_too_much, DROWSE_ERR_NO_DEVICE_MEMORY);
  close_heap();

  open_with((drowse_heap_options){.pressure = fork_and_make_room});
  write_pattern(block = alloc_tag("a", BYTES), BYTES, 1);
  ck_ok(sleep_tag("a", DROWSE_OFFLOAD));
  ck_ok(drowse_heap_open(&tenant, &(drowse_heap_options){.struct_size = sizeof(drowse_heap_options), .device = "host:64MiB"}));
  ck_ok(drowse_alloc(tenant, 62 * MIB, NULL, &all));
  fork_from_callback(wake_under_pressure, DROWSE_OK);
  ck_assert(has_pattern(block, BYTES, 1));
  close_heap();
}
END_TEST

/* ---- what is closed in the child is closed there alone */

static int child_closes_and_exits(void) {
  STEP(1, drowse_heap_close(heap) == DROWSE_OK);
  exit(dz_host_calls_after_fork() == 0 ? 0 : 2); /* with everything that runs at exit */
}

START_TEST(a_child_that_exits) {
  ck_child(child_closes_and_exits);
  ck_assert(has_pattern(streamed, BYTES, 2));
}
END_TEST

#define FORK_TEST(suite, test, count) HARNESS_LOOP_TEST(suite, test, start_blocks, finish_blocks, count)

int main(void) {
  Suite *suite = suite_create("forks and heaps");
  if (CHILD_MAY_START_THREADS) HARNESS_TEST(suite, workers_of_a_parent_without_heaps);
  FORK_TEST(suite, an_inherited_heap_answers_forked, FORK_KINDS);
  FORK_TEST(suite, inherited_operations_answer_forked, FORK_KINDS);
  FORK_TEST(suite, a_fork_while_a_tag_falls_asleep, FORK_KINDS);
  FORK_TEST(suite, a_fork_inside_a_callback, FORK_KINDS);
  FORK_TEST(suite, a_child_closes_the_heap_inside_a_callback, FORK_KINDS);
  if (CHILD_MAY_START_THREADS) {
    FORK_TEST(suite, a_child_that_exits, 1);
    FORK_TEST(suite, a_child_opens_its_own, 1);
    FORK_TEST(suite, workers_open_a_heap_each, 1);
  }
  TCase *pressure = tcase_create("a_fork_inside_the_pressure_hook");
  tcase_set_timeout(pressure, 120);
  tcase_add_loop_test(pressure, a_fork_inside_the_pressure_hook, 0, FORK_KINDS);
  suite_add_tcase(suite, pressure);
  return harness_run(suite);
}
