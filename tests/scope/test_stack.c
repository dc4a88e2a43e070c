/* SPDX-License-Identifier: Apache-2.0
 *
 * Stacks of frames that are not a thread's own: coroutines take their scopes along, to other threads too, and the framework's
 * flag counts them running or parked.
 */
#include "framework.h"

#include <sched.h>
#include <setjmp.h>
#include <stdlib.h>
#include <ucontext.h>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

#include "harness.h"
#include "scope/frame.h"

/* The thread sanitizer wants to be told of switches. */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define FIBERS 1
#endif
#endif
#ifdef FIBERS
void *__tsan_get_current_fiber(void);
void *__tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void *fiber);
void __tsan_switch_to_fiber(void *fiber, unsigned flags);
#else
#define __tsan_get_current_fiber() NULL
#define __tsan_create_fiber(flags) NULL
#define __tsan_destroy_fiber(fiber) ((void)(fiber))
#define __tsan_switch_to_fiber(fiber, flags) ((void)(fiber))
#endif

/* ---- coroutines */

enum { C_STACK_BYTES = 256 * 1024 };

/* Whether frames are swapped before the C stack or behind. */
enum order { BEFORE, BEHIND, ORDERS };

struct coroutine {
  ucontext_t here, resumer;
  void *fiber, *resumer_fiber;
  char *c_stack;
  drowse_stack *frames;
  enum order order;
  const char *(*body)(struct coroutine *self); /* NULL, or what went wrong */
  const char *failed;
  bool ended;
  unsigned number;
};

static void note_failure(struct coroutine *co, const char *failed) {
  if (co->failed == NULL) co->failed = failed;
}

static void swap_frames(struct coroutine *co, drowse_stack *to) {
  if (drowse_stack_swap(to, NULL) != DROWSE_OK) note_failure(co, "swap");
}

static void switch_out(struct coroutine *co) {
  if (co->order == BEFORE) swap_frames(co, NULL);
  __tsan_switch_to_fiber(co->resumer_fiber, 0);
  (void)swapcontext(&co->here, &co->resumer);
}

static void yield(struct coroutine *co) {
  switch_out(co);
  if (co->order == BEHIND) swap_frames(co, co->frames);
}

static void resume(struct coroutine *co) {
  if (co->order == BEFORE) swap_frames(co, co->frames);
  co->resumer_fiber = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(co->fiber, 0);
  (void)swapcontext(&co->resumer, &co->here);
  if (co->order == BEHIND) swap_frames(co, NULL);
}

static void run_coroutine(unsigned high, unsigned low) {
  struct coroutine *co = (struct coroutine *)(uintptr_t)((uint64_t)high << 32 | low);
  if (co->order == BEHIND) swap_frames(co, co->frames);
  note_failure(co, co->body(co));
  co->ended = true;
  switch_out(co);
}

/* On a C stack given, or one of its own. */
static void make_coroutine(struct coroutine *co, const char *(*body)(struct coroutine *self), char *c_stack) {
  uint64_t self = (uint64_t)(uintptr_t)co;
  co->body = body;
  co->c_stack = c_stack != NULL ? c_stack : malloc(C_STACK_BYTES);
  ck_assert_ptr_nonnull(co->c_stack);
  co->fiber = __tsan_create_fiber(0);
  ck_ok(drowse_stack_create_at(&co->frames, co->c_stack, C_STACK_BYTES));
  ck_assert_int_eq(getcontext(&co->here), 0);
  co->here.uc_stack.ss_sp = co->c_stack;
  co->here.uc_stack.ss_size = C_STACK_BYTES;
  co->here.uc_link = NULL;
  makecontext(&co->here, (void (*)(void))run_coroutine, 2, (unsigned)(self >> 32), (unsigned)self);
}

static void end_coroutine(struct coroutine *co, bool own_c_stack) {
  ck_assert_msg(co->failed == NULL, "coroutine %u: %s", co->number, co->failed);
  drowse_stack_destroy(co->frames);
  __tsan_destroy_fiber(co->fiber);
  if (own_c_stack) free(co->c_stack);
}

static bool is_frame(drowse_frame frame, const char *tag, drowse_expandable expandable, size_t depth) {
  return strcmp(frame.tag, tag) == 0 && frame.expandable == expandable && frame.depth == depth;
}

/* A macro, so that the stack pointer is that of who asks. */
#define is_current(tag, expandable, depth) is_frame(drowse_scope_current(), tag, expandable, depth)

static bool flag(void) {
  return atomic_load(&fw.on);
}

static void start(void) {
  reset_framework(true);
  ck_ok(attach_with(0, false));
}

static void finish(void) {
  ck_assert(is_current("default", INHERIT, 0));
  ck_assert_uint_eq(count_counted(), 0);
  ck_assert(flag());
  ck_assert(!atomic_load(&fw.broken));
  ck_ok(drowse_framework_detach());
}

/* ---- taking scopes along */

#define SAY(condition) \
  if (!(condition)) return #condition

static const char *scopes_between_yields(struct coroutine *self) {
  drowse_scope outer, inner;
  char tag[16];
  (void)snprintf(tag, sizeof tag, "co %u", self->number);
  SAY(is_current("default", INHERIT, 0));
  SAY(drowse_scope_enter(&outer, tag, OFF) == DROWSE_OK);
  yield(self);
  SAY(is_current(tag, OFF, 1) && !flag());
  SAY(drowse_scope_enter(&inner, "inner", ON) == DROWSE_OK);
  yield(self);
  SAY(is_current("inner", ON, 2));
  SAY(drowse_scope_leave(&inner) == DROWSE_OK);
  yield(self);
  SAY(is_current(tag, OFF, 1) && !flag());
  SAY(drowse_scope_leave(&outer) == DROWSE_OK);
  SAY(is_current("default", INHERIT, 0));
  return NULL;
}

START_TEST(coroutines_take_their_scopes_along) {
  struct coroutine co[3] = {0};
  drowse_scope scope;
  for (unsigned i = 0; i < 3; i++) {
    co[i].number = i;
    co[i].order = (enum order)_i;
    make_coroutine(&co[i], scopes_between_yields, NULL);
  }
  ck_ok(drowse_scope_enter(&scope, "main", INHERIT));
  for (int round = 0; round < 4; round++) {
    for (int i = 0; i < 3; i++) {
      resume(&co[i]);
      ck_assert(is_current("main", INHERIT, 1));
    }
    ck_assert_int_eq(flag(), round == 1 || round == 3);
  }
  for (int i = 0; i < 3; i++) {
    ck_assert(co[i].ended);
    end_coroutine(&co[i], true);
  }
  ck_ok(drowse_scope_leave(&scope));
}
END_TEST

/* ---- a C stack inside the thread's own: what lies below the stack pointer there is alive all the same */

static const char *scopes_and_yields(struct coroutine *self) {
  drowse_scope scope;
  for (int i = 0; i < 3; i++) {
    SAY(drowse_scope_enter(&scope, "nested", OFF) == DROWSE_OK);
    yield(self);
    SAY(is_current("nested", OFF, 1));
    SAY(drowse_scope_leave(&scope) == DROWSE_OK);
  }
  return NULL;
}

START_TEST(a_c_stack_inside_the_threads_own) {
  struct {
    drowse_scope below;
    _Alignas(16) char c_stack[C_STACK_BYTES];
    drowse_scope above;
  } local;
  struct coroutine co = {.order = (enum order)_i};
  make_coroutine(&co, scopes_and_yields, local.c_stack);
  ck_ok(drowse_scope_enter(&local.above, "above", INHERIT));
  ck_ok(drowse_scope_enter(&local.below, "below", ON));
  while (!co.ended) {
    resume(&co);
    ck_assert(is_current("below", ON, 2));
  }
  end_coroutine(&co, false);
  ck_ok(drowse_scope_leave(&local.below));
  ck_ok(drowse_scope_leave(&local.above));
}
END_TEST

/* ---- a scheduler: each coroutine goes on wherever a thread is free */

enum { COROUTINES = 12, WORKERS = 3, STEPS = 40 };

static struct {
  pthread_mutex_t lock;
  struct coroutine *ready[COROUTINES];
  unsigned first, count, alive;
  atomic_uint moves; /* a coroutine went on on another thread */
} scheduler;

static struct coroutine *take_ready(bool *over) {
  struct coroutine *co = NULL;
  (void)pthread_mutex_lock(&scheduler.lock);
  if (scheduler.count > 0) {
    co = scheduler.ready[scheduler.first++ % COROUTINES];
    scheduler.count--;
  }
  *over = scheduler.alive == 0;
  (void)pthread_mutex_unlock(&scheduler.lock);
  return co;
}

static void give_back(struct coroutine *co) {
  (void)pthread_mutex_lock(&scheduler.lock);
  if (co->ended)
    scheduler.alive--;
  else
    scheduler.ready[(scheduler.first + scheduler.count++) % COROUTINES] = co;
  (void)pthread_mutex_unlock(&scheduler.lock);
}

static void *work(void *argument) {
  drowse_scope scope;
  bool kept = true;
  (void)argument;
  if (drowse_scope_enter(&scope, "worker", INHERIT) != DROWSE_OK) return (void *)(uintptr_t) "enter";
  for (bool over = false; !over;) {
    struct coroutine *co = take_ready(&over);
    if (co == NULL) {
      (void)sched_yield();
      continue;
    }
    resume(co);
    kept &= is_current("worker", INHERIT, 1);
    give_back(co);
  }
  if (!kept) return (void *)(uintptr_t) "the worker's own scope";
  return drowse_scope_leave(&scope) == DROWSE_OK ? NULL : (void *)(uintptr_t) "leave";
}

static const char *wander(struct coroutine *self) {
  drowse_scope scopes[4];
  char tag[32];
  pid_t thread = thread_id();
  for (unsigned step = 0; step < STEPS; step++) {
    unsigned depth = 1 + (step + self->number) % 4;
    drowse_expandable current = INHERIT;
    for (unsigned i = 0; i < depth; i++) {
      drowse_expandable expandable = (drowse_expandable)((step + i) % 3);
      if (expandable != INHERIT) current = expandable;
      (void)snprintf(tag, sizeof tag, "%u.%u", self->number, i);
      SAY(drowse_scope_enter(&scopes[i], tag, expandable) == DROWSE_OK);
    }
    yield(self);
    SAY(is_current(tag, current, depth));
    SAY(current != OFF || !flag());
    if (thread_id() != thread) atomic_fetch_add(&scheduler.moves, 1);
    thread = thread_id();
    SAY(drowse_scope_leave(&scopes[0]) == DROWSE_OK);
    SAY(is_current("default", INHERIT, 0));
  }
  return NULL;
}

START_TEST(a_scheduler_resumes_on_other_threads) {
  static struct coroutine co[COROUTINES];
  pthread_t threads[WORKERS];
  memset(co, 0, sizeof co);
  memset(&scheduler, 0, sizeof scheduler);
  ck_assert_int_eq(pthread_mutex_init(&scheduler.lock, NULL), 0);
  for (unsigned i = 0; i < COROUTINES; i++) {
    co[i].number = i;
    co[i].order = (enum order)_i;
    make_coroutine(&co[i], wander, NULL);
    scheduler.ready[i] = &co[i];
  }
  scheduler.count = scheduler.alive = COROUTINES;
  for (int i = 0; i < WORKERS; i++) ck_assert_int_eq(pthread_create(&threads[i], NULL, work, NULL), 0);
  for (int i = 0; i < WORKERS; i++) {
    void *failed;
    ck_assert_int_eq(pthread_join(threads[i], &failed), 0);
    ck_assert_msg(failed == NULL, "%s", (const char *)failed);
  }
  for (int i = 0; i < COROUTINES; i++) end_coroutine(&co[i], true);
  ck_assert_int_eq(pthread_mutex_destroy(&scheduler.lock), 0);
}
END_TEST

/* One coroutine, handed from thread to thread, so that it does move. */
static struct coroutine traveller;
static sem_t may_end;

/* All these threads live until the end, so that none has another's id. */
static void *resume_traveller(void *went) {
  resume(&traveller);
  (void)sem_post(went);
  wait_sem(&may_end);
  return NULL;
}

START_TEST(a_coroutine_moves_from_thread_to_thread) {
  pthread_t threads[STEPS + 1];
  sem_t went;
  ck_assert_int_eq(sem_init(&may_end, 0, 0), 0);
  ck_assert_int_eq(sem_init(&went, 0, 0), 0);
  memset(&traveller, 0, sizeof traveller);
  atomic_store(&scheduler.moves, 0);
  traveller.order = (enum order)_i;
  make_coroutine(&traveller, wander, NULL);
  for (int i = 0; i <= STEPS; i++) {
    ck_assert_int_eq(pthread_create(&threads[i], NULL, resume_traveller, &went), 0);
    wait_sem(&went);
  }
  for (int i = 0; i <= STEPS; i++) ck_assert_int_eq(sem_post(&may_end), 0);
  for (int i = 0; i <= STEPS; i++) ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
  ck_assert(traveller.ended);
  end_coroutine(&traveller, true);
  ck_assert_uint_eq(atomic_load(&scheduler.moves), STEPS);
}
END_TEST

/* ---- destroying */

static const char *stay_inside(struct coroutine *self) {
  drowse_scope outer, inner;
  SAY(drowse_scope_enter(&outer, "outer", OFF) == DROWSE_OK);
  SAY(drowse_scope_enter(&inner, "inner", INHERIT) == DROWSE_OK);
  yield(self);
  return "resumed";
}

START_TEST(a_coroutine_destroyed_inside_scopes) {
  struct coroutine co = {.order = (enum order)_i};
  drowse_scope own;
  ck_ok(drowse_scope_enter(&own, "own", INHERIT));
  size_t stacks = count_stacks();
  make_coroutine(&co, stay_inside, NULL);
  resume(&co);
  ck_assert(!flag());
  ck_assert_uint_eq(count_counted(), 1);
  end_coroutine(&co, true);
  ck_assert(flag());
  ck_assert_uint_eq(count_stacks(), stacks);
  ck_ok(drowse_scope_leave(&own));
}
END_TEST

START_TEST(destroying_the_current_stack_makes_the_threads_own_current) {
  drowse_stack *stack;
  drowse_scope own, other;
  ck_ok(drowse_scope_enter(&own, "own", INHERIT));
  ck_ok(drowse_stack_create(&stack));
  ck_ok(drowse_stack_swap(stack, NULL));
  ck_ok(drowse_scope_enter(&other, "other", OFF));
  ck_assert(!flag());
  drowse_stack_destroy(stack);
  ck_assert(flag());
  ck_assert(is_current("own", INHERIT, 1));
  ck_status(drowse_scope_leave(&other), DROWSE_ERR_SCOPE);
  ck_ok(drowse_scope_leave(&own));
  drowse_stack_destroy(NULL);
}
END_TEST

/* ---- swapping */

START_TEST(a_swap_runs_no_hook) {
  drowse_stack *stack, *from = NULL;
  drowse_scope scope;
  ck_ok(drowse_stack_create(&stack));
  ck_ok(drowse_stack_swap(stack, &from));
  ck_assert_ptr_null(from); /* this thread's own */
  ck_ok(drowse_scope_enter(&scope, "off", OFF));
  int hooks = atomic_load(&fw.gets) + atomic_load(&fw.sets);
  for (int i = 0; i < 10; i++) {
    ck_ok(drowse_stack_swap(NULL, &from));
    ck_assert_ptr_eq(from, stack);
    ck_assert(is_current("default", INHERIT, 0));
    ck_assert(!flag()); /* parked it counts */
    ck_assert_ptr_null(drowse_stack_switch(stack));
    ck_assert(is_current("off", OFF, 1));
    ck_assert_ptr_eq(drowse_stack_switch(stack), stack); /* it is that already */
  }
  ck_assert_int_eq(atomic_load(&fw.gets) + atomic_load(&fw.sets), hooks);
  ck_ok(drowse_scope_leave(&scope));
  ck_assert_ptr_eq(drowse_stack_switch(NULL), stack);
  drowse_stack_destroy(stack);
}
END_TEST

static drowse_stack *shared;
static sem_t running;

static void *run_on_shared(void *argument) {
  (void)argument;
  drowse_status status = drowse_stack_swap(shared, NULL);
  (void)sem_post(&running);
  wait_sem(&may_end);
  return status == DROWSE_OK ? NULL : (void *)(uintptr_t) "swap"; /* ends on it */
}

START_TEST(a_stack_that_runs_elsewhere_is_refused) {
  pthread_t thread;
  void *failed;
  drowse_stack *mine, *from;
  drowse_scope scope, on_shared;
  ck_assert_int_eq(sem_init(&running, 0, 0), 0);
  ck_assert_int_eq(sem_init(&may_end, 0, 0), 0);
  ck_ok(drowse_stack_create(&shared));
  ck_ok(drowse_stack_create(&mine));
  ck_ok(drowse_stack_swap(shared, NULL));
  ck_ok(drowse_scope_enter(&on_shared, "shared", OFF));
  drowse_mark mark = drowse_scope_mark();
  ck_ok(drowse_stack_swap(mine, NULL));
  ck_ok(drowse_scope_enter(&scope, "mine", INHERIT));
  ck_assert_int_eq(pthread_create(&thread, NULL, run_on_shared, NULL), 0);
  wait_sem(&running);

  ck_status(drowse_stack_swap(shared, &from), DROWSE_ERR_BUSY);
  ck_assert_ptr_eq(from, mine);
  ck_assert_ptr_eq(drowse_stack_switch(shared), mine);
  ck_status(drowse_scope_unwind(mark), DROWSE_ERR_SCOPE);
  ck_status(drowse_scope_leave(&on_shared), DROWSE_ERR_SCOPE);
  ck_assert(is_current("mine", INHERIT, 1));
  ck_assert(!flag());

  ck_assert_int_eq(sem_post(&may_end), 0);
  ck_assert_int_eq(pthread_join(thread, &failed), 0);
  ck_assert_msg(failed == NULL, "%s", (const char *)failed);
  ck_assert(!flag()); /* it is parked as it was */
  ck_ok(drowse_stack_swap(shared, NULL));
  ck_assert(is_current("shared", OFF, 1));
  ck_ok(drowse_scope_leave(&on_shared));
  drowse_stack_destroy(shared);
  drowse_stack_destroy(mine);
}
END_TEST

/* ---- marks */

START_TEST(a_mark_on_another_stack_makes_it_current) {
  drowse_stack *stack;
  drowse_scope own, first, second;
  ck_ok(drowse_scope_enter(&own, "own", INHERIT));
  drowse_mark on_own = drowse_scope_mark();
  ck_ok(drowse_stack_create(&stack));
  ck_ok(drowse_stack_swap(stack, NULL));
  drowse_mark empty = drowse_scope_mark();
  ck_ok(drowse_scope_enter(&first, "first", INHERIT));
  drowse_mark on_stack = drowse_scope_mark();
  ck_ok(drowse_scope_enter(&second, "second", OFF));

  ck_ok(drowse_scope_unwind(on_own)); /* the other stays as it is */
  ck_assert(is_current("own", INHERIT, 1));
  ck_assert(!flag());
  ck_ok(drowse_scope_unwind(on_stack));
  ck_assert(is_current("first", INHERIT, 1));
  ck_assert(flag());
  ck_ok(drowse_scope_unwind(on_own));
  ck_assert(is_current("own", INHERIT, 1));
  ck_ok(drowse_scope_unwind(empty));
  ck_assert(is_current("default", INHERIT, 0));
  ck_assert_ptr_eq(drowse_stack_switch(NULL), stack);
  drowse_stack_destroy(stack);
  ck_status(drowse_scope_unwind(empty), DROWSE_ERR_SCOPE);
  ck_status(drowse_scope_unwind(on_stack), DROWSE_ERR_SCOPE);
  ck_assert(is_current("own", INHERIT, 1));
  ck_ok(drowse_scope_leave(&own));
}
END_TEST

/* ---- frames that died on a coroutine's C stack */

static __attribute__((noinline)) void jump_out(jmp_buf back, drowse_expandable expandable) {
  drowse_scope dead;
  if (drowse_scope_enter(&dead, "dead", expandable) == DROWSE_OK) longjmp(back, 1);
  abort();
}

/* Deep enough below who called setjmp that his own calls do not reach there. */
static __attribute__((noinline)) void jump_from_below(jmp_buf back, drowse_expandable expandable) {
  volatile char frame[512];
  frame[0] = 0;
  jump_out(back, expandable);
  frame[1] = frame[0];
}

/* The address sanitizer does not know where a coroutine's stack ends, and does not clean what a jump has left there. */
static void forget_left_frames(const struct coroutine *self) {
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(self->c_stack, C_STACK_BYTES);
#else
  (void)self;
#endif
}

static const char *jump_inside(struct coroutine *self) {
  drowse_scope live, next;
  jmp_buf back;
  volatile int expandable = INHERIT;
  for (; expandable <= OFF; expandable++) {
    SAY(drowse_scope_enter(&live, "live", INHERIT) == DROWSE_OK);
    if (setjmp(back) == 0) jump_from_below(back, (drowse_expandable)expandable);
    forget_left_frames(self);
    SAY(is_current("live", INHERIT, 1));
    SAY(flag() == (expandable != OFF)); /* nobody has looked */
    SAY(drowse_scope_enter(&next, "next", INHERIT) == DROWSE_OK);
    SAY(is_current("next", INHERIT, 2) && flag());
    yield(self);
    SAY(is_current("next", INHERIT, 2));
    SAY(drowse_scope_leave(&live) == DROWSE_OK);
  }
  return NULL;
}

START_TEST(dead_frames_on_a_coroutines_stack_are_dropped) {
  struct coroutine co = {.order = (enum order)_i};
  make_coroutine(&co, jump_inside, NULL);
  while (!co.ended) resume(&co);
  end_coroutine(&co, true);
}
END_TEST

/* ---- arguments */

START_TEST(bad_arguments_make_no_stack) {
  drowse_stack *stack = (drowse_stack *)&stack;
  size_t stacks = count_stacks();
  ck_status(drowse_stack_create(NULL), DROWSE_ERR_INVALID);
  ck_status(drowse_stack_create_at(&stack, NULL, 1), DROWSE_ERR_INVALID);
  ck_assert_ptr_null(stack);
  stack = (drowse_stack *)&stack;
  ck_status(drowse_stack_create_at(&stack, &stack, SIZE_MAX), DROWSE_ERR_INVALID);
  ck_assert_ptr_null(stack);
  ck_assert_uint_eq(count_stacks(), stacks);
}
END_TEST

#define STACK_TEST(suite, test, count) HARNESS_LOOP_TEST(suite, test, start, finish, count)

int main(void) {
  Suite *suite = suite_create("stack");
  STACK_TEST(suite, coroutines_take_their_scopes_along, ORDERS);
  STACK_TEST(suite, a_c_stack_inside_the_threads_own, ORDERS);
  STACK_TEST(suite, a_scheduler_resumes_on_other_threads, ORDERS);
  STACK_TEST(suite, a_coroutine_moves_from_thread_to_thread, ORDERS);
  STACK_TEST(suite, a_coroutine_destroyed_inside_scopes, ORDERS);
  STACK_TEST(suite, destroying_the_current_stack_makes_the_threads_own_current, 1);
  STACK_TEST(suite, a_swap_runs_no_hook, 1);
  STACK_TEST(suite, a_stack_that_runs_elsewhere_is_refused, 1);
  STACK_TEST(suite, a_mark_on_another_stack_makes_it_current, 1);
  STACK_TEST(suite, dead_frames_on_a_coroutines_stack_are_dropped, ORDERS);
  STACK_TEST(suite, bad_arguments_make_no_stack, 1);
  return harness_run(suite);
}
