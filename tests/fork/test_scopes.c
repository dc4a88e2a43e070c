/* SPDX-License-Identifier: Apache-2.0
 *
 * Forks and scopes: the child has the forking thread's frames and the parked stacks, and counts nothing of other threads; the
 * framework's flag is put right at the child's next call, not before. The parent notices nothing.
 */
#include <dlfcn.h>
#include <errno.h>
#include <sched.h>
#include <spawn.h>
#include <stdlib.h>

#include "child.h"
#include "core/fork.h"
#include "scope/frame.h"
#include "scope/framework.h"

extern char **environ;

static bool is_current(const char *tag, drowse_expandable expandable, size_t depth) {
  drowse_frame frame = drowse_scope_current();
  return strcmp(frame.tag, tag) == 0 && frame.expandable == expandable && frame.depth == depth;
}

static bool flag(void) {
  return atomic_load(&fw.on);
}

static int hooks_run(void) {
  return atomic_load(&fw.gets) + atomic_load(&fw.sets);
}

static void start(void) {
  reset_framework(true);
}

static void start_attached(void) {
  start();
  ck_ok(attach_with(0, true));
}

static void finish(void) {
  drowse_scope scope;
  ck_assert_uint_eq(drowse_scope_current().depth, 0);
  ck_assert_uint_eq(count_counted(), 0);
  ck_assert(flag());
  ck_ok(drowse_scope_enter(&scope, "finish", OFF));
  ck_assert(!flag());
  ck_ok(drowse_scope_leave(&scope));
  ck_assert(flag());
  ck_ok(drowse_framework_detach());
}

/* ---- the forking thread's frames */

static drowse_scope outer, inner;

static int child_leaves(void) {
  drowse_scope mine;
  STEP(1, is_current("inner", OFF, 2));
  STEP(2, !flag());
  STEP(3, drowse_scope_enter(&mine, "mine", ON) == DROWSE_OK);
  STEP(4, is_current("mine", ON, 3) && flag());
  STEP(5, drowse_scope_leave(&mine) == DROWSE_OK && !flag());
  STEP(6, drowse_scope_leave(&inner) == DROWSE_OK && flag());
  STEP(7, is_current("outer", INHERIT, 1));
  STEP(8, drowse_scope_leave(&inner) == DROWSE_ERR_SCOPE);
  STEP(9, drowse_scope_leave(&outer) == DROWSE_OK);
  STEP(10, is_current("default", INHERIT, 0));
  STEP(11, count_stacks() == 1);
  return 0;
}

START_TEST(scopes_go_on_in_the_child) {
  ck_ok(drowse_scope_enter(&outer, "outer", INHERIT));
  ck_ok(drowse_scope_enter(&inner, "inner", OFF));
  for (int round = 0; round < 3; round++) {
    ck_assert_int_eq(in_child_by((enum fork_kind)_i, child_leaves), 0);
    ck_assert(is_current("inner", OFF, 2));
    ck_assert(!flag());
  }
  ck_ok(drowse_scope_leave(&inner));
  ck_ok(drowse_scope_leave(&outer));
}
END_TEST

static int grandchild_kind;

static int child_forks(void) {
  drowse_scope mine;
  STEP(20, drowse_scope_enter(&mine, "child's", OFF) == DROWSE_OK);
  STEP(21, drowse_scope_leave(&mine) == DROWSE_OK);
  return in_child_by((enum fork_kind)grandchild_kind, child_leaves);
}

START_TEST(forks_of_forks) {
  grandchild_kind = _i / FORK_KINDS;
  ck_ok(drowse_scope_enter(&outer, "outer", INHERIT));
  ck_ok(drowse_scope_enter(&inner, "inner", OFF));
  ck_assert_int_eq(in_child_by((enum fork_kind)(_i % FORK_KINDS), child_forks), 0);
  ck_ok(drowse_scope_leave(&outer));
}
END_TEST

static int child_counts_generations(void) {
  static uint64_t seen[2];
  seen[0] = dz_fork_generation();
  STEP(1, seen[0] > seen[1]);
  return 0;
}

START_TEST(generations_never_come_twice_along_a_line) {
  uint64_t before = dz_fork_generation();
  ck_assert_int_eq(in_child_by((enum fork_kind)_i, child_counts_generations), 0);
  ck_assert_uint_eq(dz_fork_generation(), before);
  pid_t child = fork_by((enum fork_kind)_i);
  if (child == 0) {
    uint64_t mine = dz_fork_generation();
    if (mine <= before) _exit(1);
    pid_t grandchild = fork_by((enum fork_kind)_i);
    if (grandchild == 0) _exit(dz_fork_generation() > mine ? 0 : 2);
    _exit(grandchild < 0 ? 3 : end_of_child(grandchild));
  }
  ck_assert_int_eq(end_of_child(child), 0);
  ck_assert_uint_eq(dz_fork_generation(), before);
}
END_TEST

/* ---- scopes of other threads */

enum { HOLDERS = 3 };
static pthread_t holders[HOLDERS];
static sem_t held, release;
static drowse_stack *running_elsewhere;

static void *hold_off(void *argument) {
  drowse_scope scope;
  drowse_status status = DROWSE_OK;
  if (argument != NULL) status = drowse_stack_swap(argument, NULL);
  if (status == DROWSE_OK) status = drowse_scope_enter(&scope, "held", OFF);
  (void)sem_post(&held);
  wait_sem(&release);
  bool off = !flag() && is_current("held", OFF, 1);
  if (status == DROWSE_OK) status = drowse_scope_leave(&scope);
  if (argument != NULL) (void)drowse_stack_swap(NULL, NULL);
  return status == DROWSE_OK && off ? NULL : (void *)(uintptr_t) "a holder lost its scope";
}

/* Three threads in off scopes, one of them on a user's stack. */
static void start_holders(void) {
  ck_assert_int_eq(sem_init(&held, 0, 0), 0);
  ck_assert_int_eq(sem_init(&release, 0, 0), 0);
  ck_ok(drowse_stack_create(&running_elsewhere));
  for (int i = 0; i < HOLDERS; i++) {
    ck_assert_int_eq(pthread_create(&holders[i], NULL, hold_off, i == 0 ? running_elsewhere : NULL), 0);
  }
  for (int i = 0; i < HOLDERS; i++) wait_sem(&held);
  ck_assert(!flag());
}

static void end_holders(void) {
  ck_assert(!flag());
  for (int i = 0; i < HOLDERS; i++) ck_assert_int_eq(sem_post(&release), 0);
  for (int i = 0; i < HOLDERS; i++) {
    void *failed;
    ck_assert_int_eq(pthread_join(holders[i], &failed), 0);
    ck_assert_msg(failed == NULL, "%s", (const char *)failed);
  }
  drowse_stack_destroy(running_elsewhere);
}

static int hooks_before;

static int child_puts_right(void) {
  drowse_scope scope;
  STEP(1, !flag() && hooks_run() == hooks_before); /* not in the handler */
  STEP(2, drowse_scope_enter(&scope, "any", INHERIT) == DROWSE_OK);
  STEP(3, flag());
  STEP(4, count_counted() == 0);
  STEP(5, drowse_scope_leave(&scope) == DROWSE_OK);
  STEP(6, drowse_scope_enter(&scope, "off", OFF) == DROWSE_OK && !flag());
  STEP(7, drowse_scope_leave(&scope) == DROWSE_OK && flag());
  STEP(8, drowse_framework_detach() == DROWSE_OK);
  return 0;
}

START_TEST(scopes_of_other_threads_no_longer_count) {
  start_holders();
  hooks_before = hooks_run();
  ck_assert_int_eq(in_child_by((enum fork_kind)_i, child_puts_right), 0);
  end_holders();
}
END_TEST

static int child_leaves_own(void) {
  STEP(1, is_current("inner", OFF, 1) && !flag());
  STEP(2, drowse_scope_unwind(drowse_scope_mark()) == DROWSE_OK);
  STEP(3, !flag() && hooks_run() == hooks_before); /* right as it is */
  STEP(4, count_counted() == 1);
  STEP(5, drowse_scope_leave(&inner) == DROWSE_OK);
  STEP(6, flag());
  return 0;
}

START_TEST(the_forking_threads_own_scope_goes_on_counting) {
  start_holders();
  ck_ok(drowse_scope_enter(&inner, "inner", OFF));
  hooks_before = hooks_run();
  ck_assert_int_eq(in_child_by((enum fork_kind)_i, child_leaves_own), 0);
  ck_ok(drowse_scope_leave(&inner));
  end_holders();
}
END_TEST

static int child_calls_anything(void) {
  drowse_scope empty = DROWSE_SCOPE_NONE, scope;
  switch (hooks_before) {
  case 0:
    STEP(10, drowse_stack_swap(NULL, NULL) == DROWSE_OK && flag());
    return 0;
  case 1:
    STEP(11, drowse_scope_unwind(drowse_scope_mark()) == DROWSE_OK && flag());
    return 0;
  case 2:
    (void)dz_frame_current(); /* what an allocation begins with */
    STEP(12, flag());
    return 0;
  case 3:
    STEP(13, drowse_scope_leave(&empty) == DROWSE_OK);
    STEP(14, drowse_scope_enter(&scope, NULL, INHERIT) == DROWSE_OK && flag());
    return 0;
  default:
    STEP(15, drowse_framework_detach() == DROWSE_OK && flag());
    return 0;
  }
}

START_TEST(any_call_puts_it_right) {
  start_holders();
  for (hooks_before = 0; hooks_before < 5; hooks_before++) {
    ck_assert_int_eq(in_child_by((enum fork_kind)_i, child_calls_anything), 0);
  }
  end_holders();
}
END_TEST

static int child_cannot_put_right(void) {
  drowse_scope scope;
  atomic_store(&fw.fail_set, 1);
  STEP(1, drowse_scope_enter(&scope, "any", INHERIT) == DROWSE_OK); /* the failure is not this scope's */
  STEP(2, !flag() && atomic_load(&fw.fail_set) == 0);
  STEP(3, drowse_scope_leave(&scope) == DROWSE_OK);
  STEP(4, drowse_scope_enter(&scope, "off", OFF) == DROWSE_OK && !flag());
  STEP(5, drowse_scope_leave(&scope) == DROWSE_OK);
  STEP(6, flag());
  return 0;
}

START_TEST(a_hook_that_fails_in_the_child_leaves_a_debt) {
  start_holders();
  ck_assert_int_eq(in_child_by((enum fork_kind)_i, child_cannot_put_right), 0);
  end_holders();
}
END_TEST

static int child_leaves_framework_alone(void) {
  drowse_scope scope;
  STEP(1, drowse_scope_enter(&scope, "off", OFF) == DROWSE_OK);
  STEP(2, drowse_scope_leave(&scope) == DROWSE_OK);
  STEP(3, drowse_framework_detach() == DROWSE_ERR_NOT_FOUND);
  STEP(4, hooks_run() == hooks_before && !flag());
  STEP(5, attach_with(0, false) == DROWSE_OK); /* one of its own */
  atomic_store(&fw.on, true);
  STEP(6, drowse_scope_enter(&scope, "off", OFF) == DROWSE_OK && !flag());
  STEP(7, drowse_scope_leave(&scope) == DROWSE_OK && flag());
  return 0;
}

START_TEST(a_framework_of_the_parent_only) {
  ck_ok(drowse_framework_detach());
  ck_ok(attach_with(DROWSE_FRAMEWORK_PARENT_ONLY, false));
  start_holders();
  hooks_before = hooks_run();
  ck_assert_int_eq(in_child_by((enum fork_kind)_i, child_leaves_framework_alone), 0);
  end_holders();
}
END_TEST

/* ---- users' stacks */

static drowse_stack *parked;

static int child_uses_stacks(void) {
  (void)drowse_scope_unwind(drowse_scope_mark()); /* a call, which notices a fork without handlers */
  STEP(1, count_stacks() == 2);                   /* this thread's own, and the parked one */
  STEP(2, !flag());
  STEP(3, drowse_stack_swap(running_elsewhere, NULL) == DROWSE_ERR_BUSY);
  STEP(4, drowse_stack_swap(parked, NULL) == DROWSE_OK);
  STEP(5, is_current("parked", OFF, 1) && !flag());
  STEP(6, drowse_stack_swap(NULL, NULL) == DROWSE_OK);
  drowse_stack_destroy(running_elsewhere); /* which nobody runs on here */
  STEP(7, !flag() && count_counted() == 1);
  drowse_stack_destroy(parked);
  STEP(8, flag() && count_counted() == 0 && count_stacks() == 1);
  return 0;
}

START_TEST(parked_stacks_are_inherited_and_running_ones_are_not) {
  drowse_scope scope, own;
  ck_ok(drowse_scope_enter(&own, "own", INHERIT)); /* so that this thread has a stack */
  start_holders();
  ck_ok(drowse_stack_create(&parked));
  ck_ok(drowse_stack_swap(parked, NULL));
  ck_ok(drowse_scope_enter(&scope, "parked", OFF));
  ck_ok(drowse_stack_swap(NULL, NULL));
  ck_assert_int_eq(in_child_by((enum fork_kind)_i, child_uses_stacks), 0);
  drowse_stack_destroy(parked);
  end_holders();
  ck_ok(drowse_scope_leave(&own));
}
END_TEST

static int child_runs_on_stack(void) {
  drowse_stack *from;
  STEP(1, is_current("coroutine", OFF, 1) && !flag());
  STEP(2, drowse_scope_leave(&inner) == DROWSE_OK && flag());
  STEP(3, drowse_stack_swap(NULL, &from) == DROWSE_OK && from == parked);
  STEP(4, is_current("own", INHERIT, 1));
  STEP(5, drowse_scope_leave(&outer) == DROWSE_OK);
  drowse_stack_destroy(parked);
  return 0;
}

START_TEST(a_fork_on_a_users_stack) {
  ck_ok(drowse_scope_enter(&outer, "own", INHERIT));
  ck_ok(drowse_stack_create(&parked));
  ck_ok(drowse_stack_swap(parked, NULL));
  ck_ok(drowse_scope_enter(&inner, "coroutine", OFF));
  ck_assert_int_eq(in_child_by((enum fork_kind)_i, child_runs_on_stack), 0);
  ck_assert(is_current("coroutine", OFF, 1));
  drowse_stack_destroy(parked);
  ck_ok(drowse_scope_leave(&outer));
}
END_TEST

/* ---- while a hook runs on another thread */

static sem_t in_hook_now, go_on;
static bool stands_before; /* the flag changes */
static bool stands_at;     /* turning it to this */
static atomic_int stood;

static void stand_in_hook(bool on) {
  if (on != stands_at || atomic_fetch_add(&stood, 1) != 0) return;
  if (!stands_before) atomic_store(&fw.on, on), atomic_fetch_add(&fw.stamp, 1);
  (void)sem_post(&in_hook_now);
  wait_sem(&go_on);
}

static void *off_and_back(void *argument) {
  drowse_scope scope;
  (void)argument;
  if (drowse_scope_enter(&scope, "busy", OFF) != DROWSE_OK) return (void *)(uintptr_t) "enter";
  return drowse_scope_leave(&scope) == DROWSE_OK ? NULL : (void *)(uintptr_t) "leave";
}

static int child_of_the_middle(void) {
  drowse_scope scope;
  atomic_store(&fw.running, 0); /* whose hook it was is gone */
  STEP(1, drowse_scope_enter(&scope, "any", INHERIT) == DROWSE_OK);
  STEP(2, flag());
  STEP(3, drowse_scope_leave(&scope) == DROWSE_OK);
  STEP(4, drowse_scope_enter(&scope, "off", OFF) == DROWSE_OK && !flag());
  STEP(5, drowse_scope_leave(&scope) == DROWSE_OK && flag());
  STEP(6, !atomic_load(&fw.broken));
  return 0;
}

/* Another thread enters an off scope and stands where the hook has it stand; then it is let go and leaves. */
static pthread_t standing;

static void begin_standing(void) {
  atomic_store(&stood, 0);
  ck_assert_int_eq(sem_init(&in_hook_now, 0, 0), 0);
  ck_assert_int_eq(sem_init(&go_on, 0, 0), 0);
  ck_assert_int_eq(pthread_create(&standing, NULL, off_and_back, NULL), 0);
  wait_sem(&in_hook_now);
}

static void end_standing(void) {
  void *failed;
  ck_assert_int_eq(pthread_join(standing, &failed), 0);
  ck_assert_msg(failed == NULL, "%s", (const char *)failed);
}

START_TEST(a_fork_in_the_middle_of_a_hook) {
  enum fork_kind kind = (enum fork_kind)(_i / 4);
  stands_before = _i % 2 == 0;
  stands_at = _i / 2 % 2 == 0;
  fw.within_set = stand_in_hook;
  begin_standing();
  ck_assert_int_eq(in_child_by(kind, child_of_the_middle), 0);
  ck_assert_int_eq(sem_post(&go_on), 0);
  end_standing();
  fw.within_set = NULL;
}
END_TEST

/* The stamp is asked for, on the thread that has just turned the flag off, while another one forks. */
static void stand_in_stamp(void) {
  if (atomic_load(&fw.on) || atomic_fetch_add(&stood, 1) != 0) return;
  (void)sem_post(&in_hook_now);
  wait_sem(&go_on);
}

START_TEST(a_fork_before_the_stamp_is_read) {
  fw.within_stamp = stand_in_stamp;
  begin_standing();
  ck_assert_int_eq(in_child_by((enum fork_kind)_i, child_of_the_middle), 0);
  ck_assert_int_eq(sem_post(&go_on), 0);
  end_standing();
  fw.within_stamp = NULL;
}
END_TEST

/* A signal handler may fork at any moment, by a fork that runs no handlers: here it is the last one before signals are blocked.
 * In place of libc's. */
static _Thread_local enum fork_kind fork_before_mask; /* FORK: none */
static pid_t forked;

int pthread_sigmask(int how, const sigset_t *set, sigset_t *before) {
  static int (*libc)(int, const sigset_t *, sigset_t *);
  if (libc == NULL) *(void **)&libc = dlsym(RTLD_NEXT, "pthread_sigmask");
  if (fork_before_mask != FORK) {
    enum fork_kind kind = fork_before_mask;
    fork_before_mask = FORK;
    forked = fork_by(kind);
    if (forked == 0)
      (void)alarm(60), atomic_store(&fw.running, 0);
    else
      (void)sem_post(&go_on);
  }
  return libc(how, set, before);
}

START_TEST(a_fork_in_the_middle_of_a_call_while_a_hook_runs) {
  drowse_scope scope;
  stands_before = stands_at = false;
  fw.within_set = stand_in_hook;
  begin_standing();
  fork_before_mask = _i == 0 ? UNDERSCORE_FORK : CLONE;
  drowse_status entered = drowse_scope_enter(&scope, "off", OFF);
  bool off = !flag();
  drowse_status left = drowse_scope_leave(&scope);
  if (forked == 0) _exit(entered != DROWSE_OK ? 1 : !off ? 2 : left != DROWSE_OK ? 3 : !flag() ? 4 : 0);
  ck_assert_int_eq(end_of_child(forked), 0);
  ck_ok(entered);
  ck_assert(off);
  ck_ok(left);
  end_standing();
  fw.within_set = NULL;
}
END_TEST

/* ---- what the parent and the child find around the fork */

static sigset_t mask_before;

static bool same_mask(void) {
  sigset_t now;
  if (pthread_sigmask(SIG_SETMASK, NULL, &now) != 0) return false;
  for (int number = 1; number < NSIG; number++) {
    if (sigismember(&now, number) != sigismember(&mask_before, number)) return false;
  }
  return true;
}

static int child_has_mask(void) {
  drowse_scope scope;
  STEP(1, same_mask());
  STEP(2, drowse_scope_enter(&scope, "any", INHERIT) == DROWSE_OK && drowse_scope_leave(&scope) == DROWSE_OK);
  STEP(3, same_mask());
  return 0;
}

START_TEST(signals_are_as_before) {
  sigset_t some, mask;
  (void)sigemptyset(&some);
  (void)sigaddset(&some, SIGUSR2);
  start_holders();
  ck_assert_int_eq(pthread_sigmask(SIG_SETMASK, &some, &mask), 0);
  mask_before = some;
  errno = 1234;
  pid_t child = fork_by((enum fork_kind)_i);
  if (child == 0) _exit(child_has_mask());
  ck_assert_int_eq(errno, 1234);
  ck_assert_int_eq(end_of_child(child), 0);
  ck_assert(same_mask());
  ck_assert_int_eq(pthread_sigmask(SIG_SETMASK, &mask, NULL), 0);
  end_holders();
}
END_TEST

/* These share the parent's memory or leave it at once: nothing here is a fork. */
START_TEST(programs_that_are_started_change_nothing) {
  static char *const arguments[] = {(char *)(uintptr_t) "true", NULL};
  uint64_t generation = dz_fork_generation();
  pid_t child;
  start_holders();
  hooks_before = hooks_run();
  ck_assert_int_eq(posix_spawnp(&child, "true", NULL, NULL, arguments, environ), 0);
  ck_assert_int_eq(end_of_child(child), 0);
  child = vfork();
  if (child == 0) {
    (void)execvp("true", arguments);
    _exit(127);
  }
  ck_assert_int_eq(end_of_child(child), 0);
  ck_assert_int_eq(system("true"), 0);
  ck_assert_uint_eq(dz_fork_generation(), generation);
  ck_assert_int_eq(hooks_run(), hooks_before);
  end_holders();
}
END_TEST

/* A thread's first scope, and a name's first use, in a child. */
static int child_is_new(void) {
  drowse_scope scope;
  (void)drowse_scope_unwind(drowse_scope_mark());
  STEP(1, count_stacks() == 0);
  STEP(2, drowse_scope_enter(&scope, "only the child knows this name", OFF) == DROWSE_OK);
  STEP(3, is_current("only the child knows this name", OFF, 1) && !flag());
  STEP(4, drowse_scope_leave(&scope) == DROWSE_OK && flag());
  STEP(5, drowse_scope_mark().opaque[1] != 0);
  return 0;
}

static void *fork_here(void *kind) {
  return (void *)(intptr_t)in_child_by(*(enum fork_kind *)kind, child_is_new);
}

START_TEST(a_thread_without_scopes_forks) {
  enum fork_kind kind = (enum fork_kind)_i;
  pthread_t thread;
  void *step;
  start_holders();
  ck_assert_int_eq(pthread_create(&thread, NULL, fork_here, &kind), 0);
  ck_assert_int_eq(pthread_join(thread, &step), 0);
  ck_assert_int_eq((int)(intptr_t)step, 0);
  end_holders();
}
END_TEST

#define FORK_TEST(suite, test, count) HARNESS_LOOP_TEST(suite, test, start_attached, finish, count)

int main(void) {
  Suite *suite = suite_create("forks and scopes");
  FORK_TEST(suite, scopes_go_on_in_the_child, FORK_KINDS);
  FORK_TEST(suite, forks_of_forks, FORK_KINDS * FORK_KINDS);
  FORK_TEST(suite, generations_never_come_twice_along_a_line, FORK_KINDS);
  FORK_TEST(suite, scopes_of_other_threads_no_longer_count, FORK_KINDS);
  FORK_TEST(suite, the_forking_threads_own_scope_goes_on_counting, FORK_KINDS);
  FORK_TEST(suite, any_call_puts_it_right, FORK_KINDS);
  FORK_TEST(suite, a_hook_that_fails_in_the_child_leaves_a_debt, FORK_KINDS);
  FORK_TEST(suite, a_framework_of_the_parent_only, FORK_KINDS);
  FORK_TEST(suite, parked_stacks_are_inherited_and_running_ones_are_not, FORK_KINDS);
  FORK_TEST(suite, a_fork_on_a_users_stack, FORK_KINDS);
  FORK_TEST(suite, a_fork_in_the_middle_of_a_hook, 4 * FORK_KINDS);
  FORK_TEST(suite, a_fork_before_the_stamp_is_read, FORK_KINDS);
  if (UNTOLD_FORKS) FORK_TEST(suite, a_fork_in_the_middle_of_a_call_while_a_hook_runs, 2);
  FORK_TEST(suite, signals_are_as_before, FORK_KINDS);
  FORK_TEST(suite, programs_that_are_started_change_nothing, 1);
  if (CHILD_MAY_ALLOCATE) FORK_TEST(suite, a_thread_without_scopes_forks, FORK_KINDS);
  return harness_run(suite);
}
