/* SPDX-License-Identifier: Apache-2.0
 *
 * The arbiter: a framework's flag is off exactly while the current frame of some stack says off, however scopes begin and end, on
 * whatever threads, and whatever the hooks do.
 */
#include "framework.h"

#include <setjmp.h>

#include "harness.h"
#include "scope/frame.h"

static void start(void) {
  reset_framework(true);
}

static void finish(void) {
  ck_ok(drowse_framework_detach());
  ck_assert_uint_eq(drowse_scope_current().depth, 0);
  ck_assert(!atomic_load(&fw.broken));
  ck_assert_int_eq(atomic_load(&fw.other), 42);
}

static void start_attached(void) {
  start();
  ck_ok(attach_with(0, false));
}

#define ck_flag(expected) ck_assert_int_eq(atomic_load(&fw.on), expected)
#define ck_log(expected) ck_assert_str_eq(fw.log, expected)

/* Nothing counts and nothing is owed: the next off scope turns the flag off and back. */
static void ck_settled(void) {
  drowse_scope scope;
  ck_assert_uint_eq(count_counted(), 0);
  ck_flag(true);
  ck_ok(drowse_scope_enter(&scope, "settled", OFF));
  ck_flag(false);
  ck_ok(drowse_scope_leave(&scope));
  ck_flag(true);
}

/* Runs a function on a thread of its own and waits for its end. */
static void on_thread(void *(*main)(void *argument), void *argument) {
  pthread_t thread;
  void *failed = NULL;
  ck_assert_int_eq(pthread_create(&thread, NULL, main, argument), 0);
  ck_assert_int_eq(pthread_join(thread, &failed), 0);
  ck_assert_msg(failed == NULL || failed == PTHREAD_CANCELED, "the thread failed: %s", (const char *)failed);
}

/* ---- crossings */

START_TEST(only_the_first_and_the_last_run_hooks) {
  drowse_scope a, b, c, d;
  ck_ok(drowse_scope_enter(&a, "a", INHERIT));
  ck_log("");
  ck_ok(drowse_scope_enter(&b, "b", OFF));
  ck_log("0");
  ck_ok(drowse_scope_enter(&c, "c", OFF));
  ck_ok(drowse_scope_enter(&d, "d", INHERIT));
  ck_log("0");
  ck_assert_int_eq(atomic_load(&fw.gets), 1);
  ck_ok(drowse_scope_leave(&d));
  ck_ok(drowse_scope_leave(&c));
  ck_log("0");
  ck_ok(drowse_scope_leave(&b));
  ck_log("01");
  ck_ok(drowse_scope_leave(&a));
  ck_log("01");
}
END_TEST

START_TEST(on_inside_off_is_on) {
  drowse_scope a, b, c;
  ck_ok(drowse_scope_enter(&a, "a", OFF));
  ck_ok(drowse_scope_enter(&b, "b", ON));
  ck_flag(true);
  ck_ok(drowse_scope_enter(&c, "c", OFF));
  ck_flag(false);
  ck_ok(drowse_scope_leave(&c));
  ck_flag(true);
  ck_ok(drowse_scope_leave(&b));
  ck_flag(false);
  ck_ok(drowse_scope_leave(&a));
  ck_flag(true);
  ck_log("010101");
}
END_TEST

START_TEST(leaving_an_outer_scope_counts_once) {
  drowse_scope a, b, c;
  ck_ok(drowse_scope_enter(&a, "a", OFF));
  ck_ok(drowse_scope_enter(&b, "b", OFF));
  ck_ok(drowse_scope_enter(&c, "c", OFF));
  ck_ok(drowse_scope_leave(&a));
  ck_log("01");
  ck_settled();
}
END_TEST

START_TEST(a_flag_that_was_off_stays_off) {
  drowse_scope scope, inner;
  atomic_store(&fw.on, false);
  ck_ok(drowse_scope_enter(&scope, "a", OFF));
  ck_ok(drowse_scope_enter(&inner, "b", ON)); /* on is what was there before, which is off */
  ck_ok(drowse_scope_leave(&inner));
  ck_ok(drowse_scope_leave(&scope));
  ck_log("");
  ck_flag(false);
}
END_TEST

START_TEST(the_value_from_before_the_scope_comes_back) {
  drowse_scope scope;
  for (int on = 0; on < 4; on++) {
    change_foreign(on % 2 != 0);
    ck_ok(drowse_scope_enter(&scope, "a", OFF));
    ck_flag(false);
    ck_ok(drowse_scope_leave(&scope));
    ck_flag(on % 2 != 0);
  }
}
END_TEST

/* ---- threads: in each round every thread makes a nest of scopes of its own; while all stand still the flag is compared */

enum { NESTERS = 4, ROUNDS = 150, NEST = 6 };

static pthread_barrier_t meet;
static drowse_expandable nest_current[NESTERS];

static uint64_t roll(uint64_t *state) {
  *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  return *state >> 33;
}

/* Enters and leaves at random; where its own frame is off it finds the flag off. */
static const char *nest(drowse_scope *scopes, unsigned *depth, uint64_t *state) {
  for (int step = 0; step < 20; step++) {
    if (*depth < NEST && roll(state) % 2 == 0) {
      if (drowse_scope_enter(&scopes[(*depth)++], "nest", (drowse_expandable)(roll(state) % 3)) != DROWSE_OK) return "enter";
    } else if (*depth > 0) {
      *depth = (unsigned)roll(state) % *depth;
      if (drowse_scope_leave(&scopes[*depth]) != DROWSE_OK) return "leave";
    }
    if (drowse_scope_current().expandable == OFF && atomic_load(&fw.on)) return "the flag is on inside an off scope";
  }
  return NULL;
}

static void *nester(void *argument) {
  unsigned number = *(unsigned *)argument, depth = 0;
  drowse_scope scopes[NEST];
  uint64_t state = number + 1;
  const char *failed = NULL;
  for (int round = 0; round < ROUNDS; round++) {
    const char *now = nest(scopes, &depth, &state);
    if (failed == NULL) failed = now;
    nest_current[number] = drowse_scope_current().expandable;
    (void)pthread_barrier_wait(&meet); /* all stand still: the flag is looked at */
    (void)pthread_barrier_wait(&meet);
  }
  return (void *)(uintptr_t)failed; /* inside scopes */
}

START_TEST(the_flag_is_off_exactly_while_somebody_is) {
  pthread_t threads[NESTERS];
  unsigned numbers[NESTERS];
  bool seen[2] = {false, false};
  ck_assert_int_eq(pthread_barrier_init(&meet, NULL, NESTERS + 1), 0);
  for (unsigned i = 0; i < NESTERS; i++) {
    numbers[i] = i;
    ck_assert_int_eq(pthread_create(&threads[i], NULL, nester, &numbers[i]), 0);
  }
  for (int round = 0; round < ROUNDS; round++) {
    bool off = false;
    (void)pthread_barrier_wait(&meet);
    for (unsigned i = 0; i < NESTERS; i++) off |= nest_current[i] == OFF;
    ck_flag(!off);
    seen[off] = true;
    (void)pthread_barrier_wait(&meet);
  }
  for (unsigned i = 0; i < NESTERS; i++) {
    void *failed;
    ck_assert_int_eq(pthread_join(threads[i], &failed), 0);
    ck_assert_msg(failed == NULL, "%s", (const char *)failed);
  }
  ck_assert(seen[0] && seen[1]);
  ck_assert_int_eq(pthread_barrier_destroy(&meet), 0);
  ck_settled();
}
END_TEST

/* ---- busy: a second thread waits for the first one's hook */

static sem_t in_hook_now, go_on;
static atomic_bool hook_done, second_through;
static atomic_int second_id;

static void stand_in_hook(bool on) {
  if (on || atomic_load(&hook_done)) return;
  (void)sem_post(&in_hook_now);
  wait_sem(&go_on);
  atomic_store(&hook_done, true);
}

static void *first_off(void *argument) {
  drowse_scope scope;
  (void)argument;
  if (drowse_scope_enter(&scope, "first", OFF) != DROWSE_OK) return (void *)(uintptr_t) "enter";
  return atomic_load(&fw.on) ? (void *)(uintptr_t) "the flag is on" : NULL;
}

static void *second_off(void *argument) {
  drowse_scope scope;
  (void)argument;
  atomic_store(&second_id, thread_id());
  drowse_status status = drowse_scope_enter(&scope, "second", OFF);
  bool on = atomic_load(&fw.on), done = atomic_load(&hook_done);
  atomic_store(&second_through, true);
  if (status != DROWSE_OK) return (void *)(uintptr_t) "enter";
  return on || !done ? (void *)(uintptr_t) "entered while the hook was running" : NULL;
}

static void *second_detaches(void *argument) {
  (void)argument;
  atomic_store(&second_id, thread_id());
  drowse_status status = drowse_framework_detach();
  bool on = atomic_load(&fw.on), done = atomic_load(&hook_done);
  atomic_store(&second_through, true);
  if (status != DROWSE_OK) return (void *)(uintptr_t) "detach";
  return !on || !done ? (void *)(uintptr_t) "detached while the hook was running" : NULL;
}

/* The flag is his for no longer than the other one waits. */
static void *first_enters(void *argument) {
  drowse_scope scope;
  (void)argument;
  return drowse_scope_enter(&scope, "first", OFF) != DROWSE_OK ? (void *)(uintptr_t) "enter" : NULL;
}

static void ck_waits_for_the_hook(void *(*enters)(void *argument), void *(*comes)(void *argument)) {
  pthread_t first, second;
  void *failed[2];
  atomic_store(&hook_done, false);
  atomic_store(&second_through, false);
  atomic_store(&second_id, 0);
  ck_assert_int_eq(sem_init(&in_hook_now, 0, 0), 0);
  ck_assert_int_eq(sem_init(&go_on, 0, 0), 0);
  fw.within_set = stand_in_hook;
  ck_assert_int_eq(pthread_create(&first, NULL, enters, NULL), 0);
  wait_sem(&in_hook_now);
  ck_assert_int_eq(pthread_create(&second, NULL, comes, NULL), 0);
  while (!atomic_load(&second_through) && (atomic_load(&second_id) == 0 || !thread_sleeps(atomic_load(&second_id)))) continue;
  ck_assert_int_eq(sem_post(&go_on), 0);
  ck_assert_int_eq(pthread_join(first, &failed[0]), 0);
  ck_assert_int_eq(pthread_join(second, &failed[1]), 0);
  ck_assert_msg(failed[0] == NULL, "%s", (const char *)failed[0]);
  ck_assert_msg(failed[1] == NULL, "%s", (const char *)failed[1]);
}

START_TEST(who_comes_while_a_hook_runs_waits_for_it) {
  ck_waits_for_the_hook(first_off, second_off);
  ck_settled();
}
END_TEST

START_TEST(who_detaches_while_a_hook_runs_waits_for_it) {
  ck_waits_for_the_hook(first_enters, second_detaches);
  ck_flag(true);
  ck_ok(attach_with(0, false));
  ck_settled();
}
END_TEST

/* ---- a hook that fails when a scope begins: nothing has happened */

static void ck_refused(drowse_expandable expandable, bool flag, size_t depth) {
  drowse_scope scope;
  memset(&scope, 0xff, sizeof scope);
  size_t counted = count_counted();
  ck_status(drowse_scope_enter(&scope, "refused", expandable), DROWSE_ERR_HOOK);
  ck_assert_msg(strstr(drowse_last_error(), "77") != NULL, "%s", drowse_last_error());
  ck_assert(scope.opaque[0] == 0 && scope.opaque[1] == 0);
  ck_assert_uint_eq(drowse_scope_current().depth, depth);
  ck_flag(flag);
  ck_assert_uint_eq(count_counted(), counted);
}

START_TEST(a_scope_whose_hook_fails_is_not_entered) {
  atomic_store(&fw.fail_get, 1);
  ck_refused(OFF, true, 0);
  ck_assert_str_eq(drowse_scope_current().tag, "default");
  atomic_store(&fw.fail_set, 1);
  ck_refused(OFF, true, 0);
  ck_settled();
}
END_TEST

/* Once the others may go on, nothing is left of the scope: a signal that came during the hook finds it gone. */
static size_t depth_in_handler;

static void look_at_depth(int number) {
  (void)number;
  depth_in_handler = drowse_scope_current().depth;
}

static void raise_in_get(void) {
  (void)pthread_kill(pthread_self(), SIGUSR1);
}

START_TEST(a_scope_whose_hook_fails_is_gone_before_anybody_goes_on) {
  drowse_scope scope;
  struct sigaction before, action = {.sa_handler = look_at_depth};
  ck_assert_int_eq(sigaction(SIGUSR1, &action, &before), 0);
  depth_in_handler = 77;
  fw.within_get = raise_in_get;
  atomic_store(&fw.fail_get, 1);
  ck_status(drowse_scope_enter(&scope, "off", OFF), DROWSE_ERR_HOOK);
  fw.within_get = NULL;
  ck_assert_uint_eq(depth_in_handler, 0);
  ck_assert_int_eq(sigaction(SIGUSR1, &before, NULL), 0);
}
END_TEST

START_TEST(on_inside_off_whose_hook_fails_is_not_entered) {
  drowse_scope scope;
  ck_ok(drowse_scope_enter(&scope, "outer", OFF));
  atomic_store(&fw.fail_set, -1);
  atomic_store(&fw.fail_get, -1);
  ck_refused(ON, false, 1);
  ck_assert_str_eq(drowse_scope_current().tag, "outer");
  atomic_store(&fw.fail_set, 0);
  atomic_store(&fw.fail_get, 0);
  ck_ok(drowse_scope_leave(&scope));
  ck_settled();
}
END_TEST

START_TEST(a_block_whose_hook_fails_does_not_run) {
  drowse_status status = DROWSE_OK;
  atomic_store(&fw.fail_set, 1);
  DROWSE_SCOPE_TRY(status, "refused", OFF) {
    ck_abort_msg("the block runs");
  }
  ck_assert_int_eq(status, DROWSE_ERR_HOOK);
  ck_settled();
}
END_TEST

/* ---- a hook that fails when a scope ends: it has ended, and the flag is put right at the next crossing */

static drowse_status end_by_leave(void) {
  drowse_scope scope;
  ck_ok(drowse_scope_enter(&scope, "a", OFF));
  atomic_store(&fw.fail_set, 1);
  drowse_status status = drowse_scope_leave(&scope);
  ck_status(drowse_scope_leave(&scope), DROWSE_ERR_SCOPE); /* consumed */
  return status;
}

static drowse_status end_by_outer_leave(void) {
  drowse_scope scope, inner;
  ck_ok(drowse_scope_enter(&scope, "a", INHERIT));
  ck_ok(drowse_scope_enter(&inner, "b", OFF));
  atomic_store(&fw.fail_set, 1);
  return drowse_scope_leave(&scope);
}

static drowse_status end_by_unwind(void) {
  drowse_scope scope;
  drowse_mark mark = drowse_scope_mark();
  ck_ok(drowse_scope_enter(&scope, "a", OFF));
  atomic_store(&fw.fail_set, 1);
  return drowse_scope_unwind(mark);
}

/* The end of a block, and of a thread, have nobody to tell. */
static drowse_status end_by_block(void) {
  DROWSE_SCOPE("a", OFF) {
    atomic_store(&fw.fail_set, 1);
  }
  return DROWSE_ERR_HOOK;
}

static void *exit_inside(void *argument) {
  drowse_scope scope;
  (void)argument;
  if (drowse_scope_enter(&scope, "a", OFF) != DROWSE_OK) return (void *)(uintptr_t) "enter";
  atomic_store(&fw.fail_set, 1);
  return NULL;
}

static drowse_status end_by_thread_exit(void) {
  on_thread(exit_inside, NULL);
  return DROWSE_ERR_HOOK;
}

static drowse_status end_by_destroy(void) {
  drowse_scope scope;
  drowse_stack *stack;
  ck_ok(drowse_stack_create(&stack));
  ck_ok(drowse_stack_swap(stack, NULL));
  ck_ok(drowse_scope_enter(&scope, "a", OFF));
  atomic_store(&fw.fail_set, 1);
  drowse_stack_destroy(stack);
  return DROWSE_ERR_HOOK;
}

static jmp_buf jump;

static __attribute__((noinline)) void jump_out_of_scope(void) {
  drowse_scope scope;
  ck_ok(drowse_scope_enter(&scope, "a", OFF));
  longjmp(jump, 1);
}

static drowse_status end_by_prune(void) {
  drowse_scope scope;
  if (setjmp(jump) == 0) jump_out_of_scope();
  atomic_store(&fw.fail_set, 1);
  ck_ok(drowse_scope_enter(&scope, "b", INHERIT)); /* drops the dead one, and is not the one that failed */
  ck_assert_uint_eq(drowse_scope_current().depth, 1);
  ck_ok(drowse_scope_leave(&scope));
  return DROWSE_ERR_HOOK;
}

static const struct {
  const char *name;
  drowse_status (*end)(void);
} ends[] = {
    {"leave", end_by_leave},
    {"leave of an outer scope", end_by_outer_leave},
    {"unwind", end_by_unwind},
    {"end of a block", end_by_block},
    {"thread exit", end_by_thread_exit},
    {"stack_destroy", end_by_destroy},
    {"prune", end_by_prune},
};

START_TEST(every_end_ends_though_the_hook_fails) {
  drowse_status status = ends[_i].end();
  ck_assert_msg(status == DROWSE_ERR_HOOK, "%s: %s", ends[_i].name, drowse_status_name(status));
  ck_assert_int_eq(atomic_load(&fw.fail_set), 0);
  ck_assert_uint_eq(drowse_scope_current().depth, 0);
  ck_assert_uint_eq(count_counted(), 0);
  ck_flag(false);
  drowse_scope scope;
  ck_ok(drowse_scope_enter(&scope, "next", OFF));
  ck_flag(false);
  ck_ok(drowse_scope_leave(&scope)); /* the next crossing pays */
  ck_settled();
}
END_TEST

START_TEST(a_debt_is_paid_whenever_it_can_be) {
  drowse_scope scope;
  ck_ok(drowse_scope_enter(&scope, "a", OFF));
  atomic_store(&fw.fail_set, 3);
  ck_status(drowse_scope_leave(&scope), DROWSE_ERR_HOOK);
  for (int i = 0; i < 2; i++) {
    ck_ok(drowse_scope_enter(&scope, "b", OFF));
    ck_status(drowse_scope_leave(&scope), DROWSE_ERR_HOOK);
    ck_flag(false);
  }
  ck_ok(drowse_scope_enter(&scope, "c", OFF));
  ck_ok(drowse_scope_leave(&scope));
  ck_settled();
}
END_TEST

/* Another thread's scope, in which the flag is off. */
static void *off_and_leave(void *argument) {
  drowse_scope scope;
  (void)argument;
  if (drowse_scope_enter(&scope, "other", OFF) != DROWSE_OK) return (void *)(uintptr_t) "enter";
  bool on = atomic_load(&fw.on);
  if (drowse_scope_leave(&scope) != DROWSE_OK) return (void *)(uintptr_t) "leave";
  return on ? (void *)(uintptr_t) "the flag is on inside an off scope" : NULL;
}

/* On inside off ends, and the hook that should turn the flag off again fails: the outer frame says off and goes on counting. */
START_TEST(a_debt_to_turn_off_is_paid_by_the_next_one_too) {
  drowse_scope outer, inner;
  ck_ok(drowse_scope_enter(&outer, "outer", OFF));
  ck_ok(drowse_scope_enter(&inner, "inner", ON));
  atomic_store(&fw.fail_set, 1);
  ck_status(drowse_scope_leave(&inner), DROWSE_ERR_HOOK);
  ck_assert_str_eq(drowse_scope_current().tag, "outer");
  ck_assert_uint_eq(count_counted(), 1);
  ck_flag(true);
  on_thread(off_and_leave, NULL);
  ck_flag(false); /* for the outer one */
  ck_ok(drowse_scope_leave(&outer));
  ck_settled();
}
END_TEST

START_TEST(with_a_debt_to_turn_off_no_off_scope_is_entered_that_is_on) {
  drowse_scope outer, inner;
  ck_ok(drowse_scope_enter(&outer, "outer", OFF));
  ck_ok(drowse_scope_enter(&inner, "inner", ON));
  atomic_store(&fw.fail_set, 2);
  ck_status(drowse_scope_leave(&inner), DROWSE_ERR_HOOK);
  ck_refused(INHERIT, true, 1);
  ck_ok(drowse_scope_enter(&inner, "inner", INHERIT));
  ck_flag(false);
  ck_ok(drowse_scope_leave(&outer));
  ck_settled();
}
END_TEST

/* A signal handler may jump away between the change of a frame and the look at it: here the change alone. */
START_TEST(a_change_that_was_not_looked_at_is_at_the_next_call) {
  drowse_scope scope, next;
  ck_ok(drowse_scope_enter(&scope, "a", OFF));
  atomic_store(&dz_stack->top, dz_stack->places);
  ck_flag(false);
  ck_ok(drowse_scope_enter(&next, "b", INHERIT));
  ck_flag(true);
  ck_ok(drowse_scope_leave(&next));
  ck_settled();
  ck_ok(drowse_scope_enter(&scope, "a", OFF));
  atomic_store(&dz_stack->top, dz_stack->places);
  ck_ok(drowse_scope_unwind(drowse_scope_mark()));
  ck_settled();
}
END_TEST

/* ---- hooks that call drowse */

static drowse_expandable hook_enters;
static drowse_status hook_saw[4];

static void use_scopes(void) {
  drowse_scope scope, inner;
  hook_saw[0] = drowse_scope_enter(&scope, "hook", hook_enters);
  hook_saw[1] = drowse_scope_enter(&inner, "hook inner", OFF);
  hook_saw[2] = drowse_scope_leave(&inner);
  hook_saw[3] = drowse_scope_leave(&scope);
}

static void use_scopes_in_set(bool on) {
  (void)on;
  use_scopes();
}

START_TEST(hooks_may_use_scopes) {
  drowse_scope outer, inner;
  hook_enters = (drowse_expandable)_i;
  fw.within_get = use_scopes;
  fw.within_set = use_scopes_in_set;
  for (int fails = 0; fails < 2; fails++) {
    atomic_store(&fw.fail_set, fails);
    if (fails > 0) ck_status(drowse_scope_enter(&outer, "a", OFF), DROWSE_ERR_HOOK);
    ck_assert_uint_eq(count_counted(), 0);
    ck_ok(drowse_scope_enter(&outer, "a", OFF));
    ck_assert_uint_eq(count_counted(), 1);
    ck_flag(false);
    ck_ok(drowse_scope_enter(&inner, "b", ON));
    ck_assert_uint_eq(count_counted(), 0);
    ck_flag(true);
    ck_ok(drowse_scope_leave(&inner));
    ck_assert_uint_eq(count_counted(), 1);
    ck_flag(false);
    ck_ok(drowse_scope_leave(&outer));
    ck_flag(true);
    for (int i = 0; i < 4; i++) ck_assert_int_eq(hook_saw[i], DROWSE_OK);
  }
  on_thread(off_and_leave, NULL);
  ck_settled();
}
END_TEST

static void change_frameworks(void) {
  hook_saw[0] = drowse_framework_detach();
  hook_saw[1] = attach_with(0, false);
}

START_TEST(a_hook_cannot_detach) {
  drowse_scope scope;
  fw.within_get = change_frameworks;
  ck_ok(drowse_scope_enter(&scope, "a", OFF));
  ck_assert_int_eq(hook_saw[0], DROWSE_ERR_BUSY);
  ck_assert_int_eq(hook_saw[1], DROWSE_ERR_BUSY);
  ck_ok(drowse_scope_leave(&scope));
  ck_settled();
}
END_TEST

/* ---- what surrounds a hook */

static atomic_int handled;

static void handle(int number) {
  (void)number;
  atomic_fetch_add(&handled, 1);
}

static int handled_in_hook;

static void raise_in_hook(bool on) {
  (void)on;
  (void)pthread_kill(pthread_self(), SIGUSR1);
  handled_in_hook = atomic_load(&handled);
}

START_TEST(signals_wait_for_the_end_of_a_hook) {
  drowse_scope scope;
  struct sigaction action = {.sa_handler = handle}, before;
  sigset_t usr2, mask, now;
  ck_assert_int_eq(sigaction(SIGUSR1, &action, &before), 0);
  (void)sigemptyset(&usr2);
  (void)sigaddset(&usr2, SIGUSR2);
  ck_assert_int_eq(pthread_sigmask(SIG_BLOCK, &usr2, &mask), 0);
  fw.within_set = raise_in_hook;
  handled_in_hook = -1;
  ck_ok(drowse_scope_enter(&scope, "a", OFF));
  ck_assert_int_eq(handled_in_hook, 0);
  ck_assert_int_eq(atomic_load(&handled), 1);
  ck_ok(drowse_scope_leave(&scope));
  ck_assert_int_eq(handled_in_hook, 1);
  ck_assert_int_eq(atomic_load(&handled), 2);
  ck_assert_int_eq(pthread_sigmask(SIG_SETMASK, &mask, &now), 0);
  ck_assert_int_eq(sigismember(&now, SIGUSR2), 1); /* as it was */
  ck_assert_int_eq(sigismember(&now, SIGUSR1), 0);
  ck_assert_int_eq(sigaction(SIGUSR1, &before, NULL), 0);
}
END_TEST

static void cancel_here(bool on) {
  if (on) return;
  (void)pthread_cancel(pthread_self());
  pthread_testcancel();
}

static void *canceled_in_hook(void *argument) {
  drowse_scope scope;
  (void)argument;
  if (drowse_scope_enter(&scope, "a", OFF) != DROWSE_OK) return (void *)(uintptr_t) "enter";
  atomic_store(&hook_done, true);
  pthread_testcancel();
  return (void *)(uintptr_t) "the thread was not canceled";
}

START_TEST(cancellation_waits_for_the_end_of_a_hook) {
  fw.within_set = cancel_here;
  atomic_store(&hook_done, false);
  on_thread(canceled_in_hook, NULL);
  ck_assert(atomic_load(&hook_done));
  fw.within_set = NULL;
  ck_settled();
}
END_TEST

/* ---- attaching and detaching */

static sem_t holders_in, holders_out;

static void *hold_off(void *argument) {
  drowse_scope scope;
  drowse_expandable expandable = *(drowse_expandable *)argument;
  drowse_status status = drowse_scope_enter(&scope, "held", expandable);
  (void)sem_post(&holders_in);
  wait_sem(&holders_out);
  return status == DROWSE_OK && drowse_scope_leave(&scope) == DROWSE_OK ? NULL : (void *)(uintptr_t) "scope";
}

START_TEST(scopes_that_are_open_count_when_a_framework_comes) {
  static drowse_expandable wants[] = {OFF, ON, OFF};
  pthread_t threads[3];
  drowse_scope scope, parked_scope;
  drowse_stack *parked;
  ck_assert_int_eq(sem_init(&holders_in, 0, 0), 0);
  ck_assert_int_eq(sem_init(&holders_out, 0, 0), 0);
  for (int i = 0; i < 3; i++) ck_assert_int_eq(pthread_create(&threads[i], NULL, hold_off, &wants[i]), 0);
  for (int i = 0; i < 3; i++) wait_sem(&holders_in);
  ck_ok(drowse_stack_create(&parked));
  ck_ok(drowse_stack_swap(parked, NULL));
  ck_ok(drowse_scope_enter(&parked_scope, "parked", OFF));
  ck_ok(drowse_stack_swap(NULL, NULL));
  ck_ok(drowse_scope_enter(&scope, "here", OFF));

  ck_ok(attach_with(0, false));
  ck_log("0");
  ck_assert_uint_eq(count_counted(), 4);
  for (int i = 0; i < 3; i++) ck_assert_int_eq(sem_post(&holders_out), 0);
  for (int i = 0; i < 3; i++) {
    void *failed;
    ck_assert_int_eq(pthread_join(threads[i], &failed), 0);
    ck_assert_ptr_null(failed);
  }
  ck_ok(drowse_scope_leave(&scope));
  ck_log("0");
  ck_flag(false); /* for the parked one */
  drowse_stack_destroy(parked);
  ck_log("01");
  ck_settled();
}
END_TEST

START_TEST(detaching_gives_the_flag_back) {
  drowse_scope scope;
  for (int round = 0; round < 3; round++) {
    ck_ok(attach_with(0, false));
    ck_ok(drowse_scope_enter(&scope, "a", OFF));
    ck_flag(false);
    ck_ok(drowse_framework_detach());
    ck_flag(true);
    int hooks = atomic_load(&fw.gets) + atomic_load(&fw.sets);
    ck_ok(drowse_scope_leave(&scope));
    ck_ok(drowse_scope_enter(&scope, "b", OFF));
    ck_ok(drowse_scope_leave(&scope));
    ck_assert_int_eq(atomic_load(&fw.gets) + atomic_load(&fw.sets), hooks);
    ck_flag(true);
  }
  ck_ok(attach_with(0, false));
  ck_settled();
}
END_TEST

START_TEST(a_framework_that_cannot_be_given_its_flag_back_stays) {
  drowse_scope scope;
  ck_ok(attach_with(0, false));
  ck_ok(drowse_scope_enter(&scope, "a", OFF));
  atomic_store(&fw.fail_set, 1);
  ck_status(drowse_framework_detach(), DROWSE_ERR_HOOK);
  ck_flag(false);
  ck_status(attach_with(0, false), DROWSE_ERR_BUSY);
  ck_ok(drowse_scope_leave(&scope));
  ck_settled();
}
END_TEST

START_TEST(a_framework_whose_hook_fails_is_not_attached) {
  drowse_scope scope;
  ck_ok(drowse_scope_enter(&scope, "a", OFF));
  atomic_store(&fw.fail_get, 1);
  ck_status(attach_with(0, false), DROWSE_ERR_HOOK);
  ck_status(drowse_framework_detach(), DROWSE_ERR_NOT_FOUND);
  ck_flag(true);
  ck_ok(attach_with(0, false));
  ck_flag(false);
  ck_ok(drowse_scope_leave(&scope));
  ck_settled();
}
END_TEST

START_TEST(one_framework_at_a_time) {
  ck_status(drowse_framework_detach(), DROWSE_ERR_NOT_FOUND);
  ck_status(drowse_framework_attach(NULL), DROWSE_ERR_INVALID);
  drowse_framework bad = {.struct_size = sizeof bad, .get_expandable = get_flag};
  ck_status(drowse_framework_attach(&bad), DROWSE_ERR_INVALID);
  bad = (drowse_framework){.struct_size = sizeof bad, .set_expandable = put_flag};
  ck_status(drowse_framework_attach(&bad), DROWSE_ERR_INVALID);
  ck_status(attach_with(2, false), DROWSE_ERR_UNSUPPORTED);
  ck_ok(attach_with(0, false));
  ck_status(attach_with(0, false), DROWSE_ERR_BUSY);
  ck_settled();
}
END_TEST

/* Attaching and detaching over and over, while threads enter and leave. */
static atomic_bool stop;

static void *enter_and_leave(void *argument) {
  uint64_t state = *(unsigned *)argument + 1;
  while (!atomic_load(&stop)) {
    drowse_scope outer, inner;
    if (drowse_scope_enter(&outer, "outer", (drowse_expandable)(roll(&state) % 3)) != DROWSE_OK)
      return (void *)(uintptr_t) "outer";
    if (drowse_scope_enter(&inner, "inner", (drowse_expandable)(roll(&state) % 3)) != DROWSE_OK)
      return (void *)(uintptr_t) "inner";
    if (drowse_scope_leave(&outer) != DROWSE_OK) return (void *)(uintptr_t) "leave";
  }
  return NULL;
}

START_TEST(frameworks_come_and_go_while_threads_run) {
  pthread_t threads[3];
  unsigned numbers[3];
  atomic_store(&stop, false);
  for (unsigned i = 0; i < 3; i++) {
    numbers[i] = i;
    ck_assert_int_eq(pthread_create(&threads[i], NULL, enter_and_leave, &numbers[i]), 0);
  }
  for (int round = 0; round < 300; round++) {
    ck_ok(attach_with(0, round % 2 == 0));
    ck_ok(drowse_framework_detach());
    ck_flag(true);
  }
  ck_ok(attach_with(0, false));
  atomic_store(&stop, true);
  for (unsigned i = 0; i < 3; i++) {
    void *failed;
    ck_assert_int_eq(pthread_join(threads[i], &failed), 0);
    ck_assert_msg(failed == NULL, "%s", (const char *)failed);
  }
  ck_settled();
}
END_TEST

/* ---- stamps: with one, what somebody else has set is left */

START_TEST(a_foreign_change_is_respected) {
  drowse_scope scope;
  ck_ok(attach_with(0, true));
  ck_ok(drowse_scope_enter(&scope, "a", OFF));
  change_foreign(false);
  ck_ok(drowse_scope_leave(&scope));
  ck_log("0");
  ck_flag(false);
  change_foreign(true);
  ck_settled();
}
END_TEST

START_TEST(a_foreign_change_of_another_setting_is_one_too) {
  drowse_scope scope;
  ck_ok(attach_with(0, true));
  ck_ok(drowse_scope_enter(&scope, "a", OFF));
  change_foreign(true);
  ck_ok(drowse_scope_leave(&scope));
  ck_log("0");
  ck_flag(true);
  ck_settled();
}
END_TEST

START_TEST(without_a_stamp_the_value_from_before_comes_back) {
  drowse_scope scope;
  ck_ok(attach_with(0, false));
  ck_ok(drowse_scope_enter(&scope, "a", OFF));
  change_foreign(false);
  ck_ok(drowse_scope_leave(&scope));
  ck_log("01");
  ck_flag(true);
}
END_TEST

START_TEST(our_own_changes_are_not_foreign) {
  drowse_scope outer, inner;
  ck_ok(attach_with(0, true));
  ck_ok(drowse_scope_enter(&outer, "a", OFF));
  ck_ok(drowse_scope_enter(&inner, "b", ON));
  ck_ok(drowse_scope_leave(&inner));
  ck_ok(drowse_scope_leave(&outer));
  ck_log("0101");
  ck_settled();
}
END_TEST

static void fail_after_change(bool on) {
  if (on && atomic_load(&fw.fail_set) > 0) atomic_fetch_add(&fw.stamp, 1);
}

/* A hook that fails half way has changed the stamp itself. */
START_TEST(a_failed_hook_is_not_foreign) {
  drowse_scope scope;
  ck_ok(attach_with(0, true));
  fw.within_set = fail_after_change;
  ck_ok(drowse_scope_enter(&scope, "a", OFF));
  atomic_store(&fw.fail_set, 1);
  ck_status(drowse_scope_leave(&scope), DROWSE_ERR_HOOK);
  ck_ok(drowse_scope_enter(&scope, "b", OFF));
  ck_ok(drowse_scope_leave(&scope));
  ck_settled();
}
END_TEST

START_TEST(a_foreign_change_settles_a_debt) {
  drowse_scope scope;
  ck_ok(attach_with(0, true));
  ck_ok(drowse_scope_enter(&scope, "a", OFF));
  atomic_store(&fw.fail_set, 1);
  ck_status(drowse_scope_leave(&scope), DROWSE_ERR_HOOK);
  change_foreign(false);
  ck_ok(drowse_scope_enter(&scope, "b", OFF));
  ck_ok(drowse_scope_leave(&scope));
  ck_log("0");
  ck_flag(false); /* as somebody else wants it */
}
END_TEST

#define ARBITER_TEST_N(suite, test, start, count)          \
  do {                                                     \
    TCase *test_case = tcase_create(#test);                \
    tcase_set_timeout(test_case, 120);                     \
    tcase_add_checked_fixture(test_case, start, finish);   \
    tcase_add_loop_test(test_case, test, 0, (int)(count)); \
    suite_add_tcase(suite, test_case);                     \
  } while (0)
#define ATTACHED_TEST(suite, test) ARBITER_TEST_N(suite, test, start_attached, 1)
#define DETACHED_TEST(suite, test) ARBITER_TEST_N(suite, test, start, 1)

int main(void) {
  Suite *suite = suite_create("arbiter");
  ATTACHED_TEST(suite, only_the_first_and_the_last_run_hooks);
  ATTACHED_TEST(suite, on_inside_off_is_on);
  ATTACHED_TEST(suite, leaving_an_outer_scope_counts_once);
  ATTACHED_TEST(suite, a_flag_that_was_off_stays_off);
  ATTACHED_TEST(suite, the_value_from_before_the_scope_comes_back);
  ATTACHED_TEST(suite, the_flag_is_off_exactly_while_somebody_is);
  ATTACHED_TEST(suite, who_comes_while_a_hook_runs_waits_for_it);
  ATTACHED_TEST(suite, who_detaches_while_a_hook_runs_waits_for_it);
  ATTACHED_TEST(suite, a_scope_whose_hook_fails_is_not_entered);
  ATTACHED_TEST(suite, a_scope_whose_hook_fails_is_gone_before_anybody_goes_on);
  ATTACHED_TEST(suite, on_inside_off_whose_hook_fails_is_not_entered);
  ATTACHED_TEST(suite, a_block_whose_hook_fails_does_not_run);
  ARBITER_TEST_N(suite, every_end_ends_though_the_hook_fails, start_attached, sizeof ends / sizeof *ends);
  ATTACHED_TEST(suite, a_debt_is_paid_whenever_it_can_be);
  ATTACHED_TEST(suite, a_debt_to_turn_off_is_paid_by_the_next_one_too);
  ATTACHED_TEST(suite, with_a_debt_to_turn_off_no_off_scope_is_entered_that_is_on);
  ATTACHED_TEST(suite, a_change_that_was_not_looked_at_is_at_the_next_call);
  ARBITER_TEST_N(suite, hooks_may_use_scopes, start_attached, 3);
  ATTACHED_TEST(suite, a_hook_cannot_detach);
  ATTACHED_TEST(suite, signals_wait_for_the_end_of_a_hook);
  ATTACHED_TEST(suite, cancellation_waits_for_the_end_of_a_hook);
  DETACHED_TEST(suite, scopes_that_are_open_count_when_a_framework_comes);
  DETACHED_TEST(suite, detaching_gives_the_flag_back);
  DETACHED_TEST(suite, a_framework_that_cannot_be_given_its_flag_back_stays);
  DETACHED_TEST(suite, a_framework_whose_hook_fails_is_not_attached);
  DETACHED_TEST(suite, one_framework_at_a_time);
  DETACHED_TEST(suite, frameworks_come_and_go_while_threads_run);
  DETACHED_TEST(suite, a_foreign_change_is_respected);
  DETACHED_TEST(suite, a_foreign_change_of_another_setting_is_one_too);
  DETACHED_TEST(suite, without_a_stamp_the_value_from_before_comes_back);
  DETACHED_TEST(suite, our_own_changes_are_not_foreign);
  DETACHED_TEST(suite, a_failed_hook_is_not_foreign);
  DETACHED_TEST(suite, a_foreign_change_settles_a_debt);
  return harness_run(suite);
}
