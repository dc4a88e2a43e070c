/* SPDX-License-Identifier: Apache-2.0
 *
 * Threads that end inside scopes, in each way that a thread can end: nothing of them is left, and the framework's flag no longer
 * counts them.
 */
#include "framework.h"

#include <malloc.h>

#include "fixture.h"

static void start_threads(void) {
  reset_framework(true);
  ck_ok(attach_with(0, false));
}

static void finish_threads(void) {
  ck_assert_uint_eq(count_counted(), 0);
  ck_assert(atomic_load(&fw.on));
  ck_assert(!atomic_load(&fw.broken));
  ck_ok(drowse_framework_detach());
}

static bool flag(void) {
  return atomic_load(&fw.on);
}

/* ---- ways to end */

static sem_t inside, never;
static atomic_int ended_at; /* the depth when the thread's last cleanup ran */

static void note_end(void *argument) {
  (void)argument;
  atomic_store(&ended_at, (int)drowse_scope_current().depth);
}

static const char *enter_two(drowse_scope *scopes) {
  if (drowse_scope_enter(&scopes[0], "outer", INHERIT) != DROWSE_OK) return "outer";
  if (drowse_scope_enter(&scopes[1], "inner", OFF) != DROWSE_OK) return "inner";
  return flag() ? "the flag is on" : NULL;
}

static void *returns(void *argument) {
  drowse_scope scopes[2];
  (void)argument;
  return (void *)(uintptr_t)enter_two(scopes);
}

static void *exits(void *argument) {
  drowse_scope scopes[2];
  (void)argument;
  pthread_exit((void *)(uintptr_t)enter_two(scopes));
}

/* Deep in calls, each with a scope of its own that the unwinding ends. */
static void exit_deep(unsigned depth) {
  DROWSE_SCOPE("deep", depth % 2 == 0 ? OFF : ON) {
    if (depth == 0) pthread_exit(drowse_scope_current().depth == 9 ? NULL : (void *)(uintptr_t) "depth");
    exit_deep(depth - 1);
  }
}

static void *exits_in_blocks(void *argument) {
  pthread_cleanup_push(note_end, argument);
  exit_deep(8);
  pthread_cleanup_pop(0);
  return (void *)(uintptr_t) "returned";
}

static void wait_in_blocks(void) {
  DROWSE_SCOPE("outer", INHERIT) {
    DROWSE_SCOPE("inner", OFF) {
      (void)sem_post(&inside);
      while (sem_wait(&never) != 0) continue;
    }
  }
}

static void *canceled_in_blocks(void *argument) {
  pthread_cleanup_push(note_end, argument);
  wait_in_blocks();
  pthread_cleanup_pop(0);
  return (void *)(uintptr_t) "returned";
}

/* Tokens that nothing unwinds: they end with the thread. (What the address sanitizer marks around them would outlive the
 * cancellation, and its own end of the thread stumble over it.) */
__attribute__((no_sanitize("address"))) static void *canceled_in_scopes(void *argument) {
  drowse_scope scopes[2];
  (void)argument;
  if (enter_two(scopes) != NULL) return (void *)(uintptr_t) "enter";
  (void)sem_post(&inside);
  while (sem_wait(&never) != 0) continue;
  return (void *)(uintptr_t) "returned";
}

/* Scopes that are entered while the thread ends, after its stack of frames has. */
static pthread_key_t late_key;
static atomic_int late_uses, late_failures;

static void use_scopes_late(void *rounds) {
  drowse_scope scope;
  atomic_fetch_add(&late_uses, 1);
  if (drowse_scope_enter(&scope, "late", OFF) != DROWSE_OK || flag()) atomic_fetch_add(&late_failures, 1);
  if ((uintptr_t)rounds > 1) (void)pthread_setspecific(late_key, (void *)((uintptr_t)rounds - 1));
}

static void *uses_scopes_at_its_end(void *argument) {
  drowse_scope scopes[2];
  (void)argument;
  if (pthread_setspecific(late_key, (void *)2) != 0) return (void *)(uintptr_t) "setspecific";
  return (void *)(uintptr_t)enter_two(scopes);
}

static const struct {
  void *(*main)(void *argument);
  bool canceled, blocks;
  int late;
} ways[] = {
    {returns, false, false, 0},           {exits, false, false, 0},
    {exits_in_blocks, false, true, 0},    {canceled_in_blocks, true, true, 0},
    {canceled_in_scopes, true, false, 0}, {uses_scopes_at_its_end, false, false, 2},
};
enum { WAYS = sizeof ways / sizeof *ways };

static void prepare_ways(void) {
  ck_assert_int_eq(sem_init(&inside, 0, 0), 0);
  ck_assert_int_eq(sem_init(&never, 0, 0), 0);
  ck_assert_int_eq(pthread_key_create(&late_key, use_scopes_late), 0);
  atomic_store(&late_uses, 0);
  atomic_store(&late_failures, 0);
  atomic_store(&ended_at, -1);
}

static void run_way(unsigned way) {
  pthread_t thread;
  void *result;
  ck_assert_int_eq(pthread_create(&thread, NULL, ways[way].main, NULL), 0);
  if (ways[way].canceled) {
    wait_semaphore(&inside);
    ck_assert(!flag());
    ck_assert_int_eq(pthread_cancel(thread), 0);
  }
  ck_assert_int_eq(pthread_join(thread, &result), 0);
  if (ways[way].canceled)
    ck_assert_ptr_eq(result, PTHREAD_CANCELED);
  else
    ck_assert_msg(result == NULL, "%s", (const char *)result);
}

START_TEST(a_thread_that_ends_leaves_nothing) {
  size_t stacks = count_stacks();
  prepare_ways();
  run_way((unsigned)_i);
  ck_assert(flag());
  ck_assert_int_eq(atomic_load(&ended_at), ways[_i].blocks ? 0 : -1); /* they had ended when the outermost cleanup ran */
  ck_assert_int_eq(atomic_load(&late_uses), ways[_i].late);
  ck_assert_int_eq(atomic_load(&late_failures), 0);
  ck_assert_uint_eq(count_stacks(), stacks);
  ck_assert_int_eq(pthread_key_delete(late_key), 0);
}
END_TEST

/* On a user's stack, whose scopes are parked as they are: with a stack of its own before, and without. */
static drowse_stack *users;
static drowse_scope on_users;

static void *ends_on_a_users_stack(void *with_own) {
  drowse_scope own;
  if (with_own != NULL && drowse_scope_enter(&own, "own", OFF) != DROWSE_OK) return (void *)(uintptr_t) "own";
  if (drowse_stack_swap(users, NULL) != DROWSE_OK) return (void *)(uintptr_t) "swap";
  return drowse_scope_enter(&on_users, "users", OFF) == DROWSE_OK ? NULL : (void *)(uintptr_t) "enter";
}

START_TEST(a_users_stack_outlives_its_thread) {
  pthread_t thread;
  void *failed;
  size_t stacks = count_stacks();
  ck_ok(drowse_stack_create(&users));
  ck_assert_int_eq(pthread_create(&thread, NULL, ends_on_a_users_stack, _i == 0 ? NULL : users), 0);
  ck_assert_int_eq(pthread_join(thread, &failed), 0);
  ck_assert_msg(failed == NULL, "%s", (const char *)failed);
  ck_assert_uint_eq(count_stacks(), stacks + 1);
  ck_assert_uint_eq(count_counted(), 1);
  ck_assert(!flag());
  ck_ok(drowse_stack_swap(users, NULL));
  ck_ok(drowse_scope_leave(&on_users));
  ck_assert(flag());
  drowse_stack_destroy(users);
}
END_TEST

/* ---- many */

enum { CROWD = 8, ROUNDS = 250, WARM = 50 };

static void run_crowd(void) {
  pthread_t threads[CROWD];
  void *result;
  for (unsigned i = 0; i < CROWD; i++) ck_assert_int_eq(pthread_create(&threads[i], NULL, ways[i % 3].main, NULL), 0);
  for (unsigned i = 0; i < CROWD; i++) {
    ck_assert_int_eq(pthread_join(threads[i], &result), 0);
    ck_assert_msg(result == NULL, "%s", (const char *)result);
  }
}

START_TEST(thousands_of_threads_come_and_go) {
  size_t stacks = count_stacks(), in_use = 0;
  for (unsigned round = 0; round < ROUNDS; round++) {
    if (round == WARM) in_use = mallinfo2().uordblks;
    run_crowd();
    ck_assert(flag());
    ck_assert_uint_eq(count_counted(), 0);
  }
  ck_assert_uint_eq(count_stacks(), stacks);
  /* A stack of frames is 2 KiB: were one left of each round it would be far more. */
  ck_assert_uint_le(mallinfo2().uordblks, in_use + 64 * KIB);
}
END_TEST

/* ---- cancellation inside the library's own waits: what it waits for goes on, and no lock is lost */

static char tag_a[] = "a";

static void *hold_in_scope(void *argument) {
  (void)argument;
  DROWSE_SCOPE("waiting", OFF) {
    (void)sem_post(&inside);
    if (drowse_hold(heap, tag_a, -1) != DROWSE_OK) return (void *)(uintptr_t) "hold";
    (void)drowse_unhold(heap, tag_a);
    pthread_testcancel();
  }
  return (void *)(uintptr_t) "returned";
}

static void *sleep_in_scope(void *argument) {
  (void)argument;
  DROWSE_SCOPE("waiting", OFF) {
    (void)sem_post(&inside);
    if (sleep_tag(tag_a, DROWSE_OFFLOAD) != DROWSE_OK) return (void *)(uintptr_t) "sleep";
    pthread_testcancel();
  }
  return (void *)(uintptr_t) "returned";
}

static void cancel_inside(pthread_t *thread, void *(*main)(void *argument)) {
  ck_assert_int_eq(pthread_create(thread, NULL, main, NULL), 0);
  wait_semaphore(&inside);
  ck_assert_int_eq(pthread_cancel(*thread), 0);
}

static void ck_canceled(pthread_t thread) {
  void *result;
  ck_assert_int_eq(pthread_join(thread, &result), 0);
  ck_assert_ptr_eq(result, PTHREAD_CANCELED);
}

START_TEST(canceled_while_the_library_waits) {
  pthread_t sleeper, holder;
  struct gate gate;
  prepare_ways();
  start();
  CUstream stream = make_stream();
  void *ptr = alloc_on(tag_a, MIB, stream);
  write_pattern(ptr, MIB, 1);
  close_gate(&gate, stream);
  cancel_inside(&sleeper, sleep_in_scope); /* waits for the stream */
  ck_ok(drowse_tag_wait(heap, tag_a, DROWSE_FALLING_ASLEEP, -1));
  cancel_inside(&holder, hold_in_scope); /* waits for the tag */
  open_gate(&gate);
  ck_canceled(sleeper);
  ck_state(tag_a, DROWSE_ASLEEP);
  ck_ok(wake_tag(tag_a));
  ck_canceled(holder);
  ck_assert(flag());
  ck_assert(has_pattern(ptr, MIB, 1));
  ck_assert_uint_eq(stats_of(tag_a).holds, 0);
  drop_stream(stream);
  finish();
  ck_assert_int_eq(pthread_key_delete(late_key), 0);
}
END_TEST

#define THREAD_TEST(suite, test, count) HARNESS_LOOP_TEST(suite, test, start_threads, finish_threads, count)

int main(void) {
  Suite *suite = suite_create("threads and scopes");
  THREAD_TEST(suite, a_thread_that_ends_leaves_nothing, WAYS);
  THREAD_TEST(suite, a_users_stack_outlives_its_thread, 2);
  THREAD_TEST(suite, thousands_of_threads_come_and_go, 1);
  THREAD_TEST(suite, canceled_while_the_library_waits, 1);
  return harness_run(suite);
}
