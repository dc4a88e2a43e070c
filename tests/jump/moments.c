/* SPDX-License-Identifier: Apache-2.0
 *
 * A signal handler that jumps at any moment: at each single instruction of enter, leave, setjmp() and longjmp(), one after
 * another, by the processor's single-step trap (x86-64); and at random ones, by another thread's signals. Behind each the frame
 * is exact, and everything works on. Needs libdrowse-jump.
 */
#include "expect.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static sigjmp_buf outer, inner;
static drowse_scope *tokens; /* on the heap */
static const drowse_tag *tag;

/* What is interrupted. Nothing in it is a first use, which takes memory: no handler may jump out of that. */
static NOINLINE void enter_and_leave(void) {
  drowse_status entered = drowse_scope_enter(&tokens[1], "first", DROWSE_EXPANDABLE_OFF);
  drowse_status left = drowse_scope_leave(&tokens[1]);
  expect("enter and leave", entered == DROWSE_OK && left == DROWSE_OK);
}

static NOINLINE void set(void) {
  if (setjmp(inner) != 0) expect("nobody jumps here", false);
}

static NOINLINE void set_and_jump(void) {
  drowse_status entered = drowse_scope_enter_tag(&tokens[1], tag, INHERIT);
  if (setjmp(inner) == 0) {
    entered = drowse_scope_enter_tag(&tokens[2], tag, DROWSE_EXPANDABLE_OFF);
    longjmp(inner, 1);
  }
  size_t depth = drowse_scope_current().depth;
  drowse_status left = drowse_scope_leave(&tokens[1]);
  expect("the inner jump is exact", entered == DROWSE_OK && depth == 2 && left == DROWSE_OK);
}

/* What a handler does that returns: it sets jumps and jumps among them, so that its notes get into the way of those it found. */
static NOINLINE void set_some(void) {
  sigjmp_buf here[20];
  volatile int arrivals = 0;
  for (volatile int i = 0; i < 20; i++) {
    if (sigsetjmp(here[i], 0) == 0) siglongjmp(here[i], 1);
    arrivals++;
  }
  expect("a handler's own jumps arrive", arrivals == 20);
}

static void check_all_works(void) {
  jmp_buf here;
  expect_frame("out of a handler", "outer", 1);
  if (setjmp(here) == 0) {
    enter_at(&tokens[4], "left");
    longjmp(here, 1);
  }
  expect_frame("the next jump", "outer", 1);
}

/* ---- each instruction */

#ifdef __x86_64__
enum { TRAP_FLAG = 0x100 };

static volatile long countdown;          /* instructions before it happens */
static volatile bool stepping, and_jump; /* ... jumping out, or else setting jumps and returning */

static void step(int number, siginfo_t *info, void *context) {
  (void)number, (void)info;
  greg_t *flags = &((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL];
  *flags &= ~(greg_t)TRAP_FLAG;
  if (!stepping) return;
  if (countdown-- > 0) {
    *flags |= TRAP_FLAG;
  } else if (and_jump) {
    siglongjmp(outer, 1);
  } else {
    set_some();
  }
}

/* From here on the processor traps behind each instruction. */
static void begin_stepping(long instructions) {
  countdown = instructions;
  stepping = true;
  syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGTRAP);
}

static void at_each_instruction(void (*region)(void), long stride) {
  volatile bool reached = true;
  volatile long instructions = 0;
  region(); /* what is looked up once is looked up now */
  for (; reached; instructions += stride) {
    if (sigsetjmp(outer, 1) == 0) {
      begin_stepping(instructions);
      region();
      stepping = false;
      reached = countdown < 0;
    }
    stepping = false;
    check_all_works();
  }
  expect("there was something to interrupt", instructions > 100);
}

/* With places for notes at a premium: most belong to a stack of frames that is away. */
static NOINLINE void set_many(jmp_buf *places, size_t count) {
  if (count == 0) return;
  (void)setjmp(places[count - 1]);
  set_many(places, count - 1);
  __asm__ volatile("" ::: "memory"); /* no tail call */
}

static void at_each_instruction_with_many_set(void) {
  jmp_buf *places = calloc(200, sizeof *places);
  drowse_stack *away;
  expect_ok("a stack", drowse_stack_create(&away));
  drowse_stack *own = drowse_stack_switch(away);
  set_many(places, 200);
  (void)drowse_stack_switch(own);
  at_each_instruction(set, 101);
  drowse_stack_destroy(away);
  free(places);
}

static void by_steps(void) {
  struct sigaction action = {.sa_sigaction = step, .sa_flags = SA_SIGINFO};
  sigemptyset(&action.sa_mask);
  sigaction(SIGTRAP, &action, NULL);
  for (int i = 0; i < 2; i++) {
    and_jump = i == 0;
    at_each_instruction(enter_and_leave, 1);
    at_each_instruction(set, 1);
    at_each_instruction(set_and_jump, 3);
  }
  for (int i = 0; i < 2; i++) {
    and_jump = i == 0;
    at_each_instruction_with_many_set();
  }
}
#else
static void by_steps(void) {
}
#endif

/* ---- random moments. How many jumps there are is fixed, when they come does not matter. */

enum { JUMPS = 5000 };

static volatile bool armed;
static volatile int jumps, signals;
static bool done; /* atomic */

static void jump_or_set(int number) {
  (void)number;
  signals++;
  if (signals % 3 == 0) set_some();
  if (!armed || signals % 3 == 1) return;
  armed = false;
  jumps++;
  siglongjmp(outer, 1);
}

static void *send_signals(void *thread) {
  while (!__atomic_load_n(&done, __ATOMIC_ACQUIRE)) {
    pthread_kill(*(pthread_t *)thread, SIGUSR1);
    sched_yield();
  }
  return NULL;
}

static void by_chance(void) {
  struct sigaction action = {.sa_handler = jump_or_set};
  sigemptyset(&action.sa_mask);
  sigaction(SIGUSR1, &action, NULL);
  pthread_t self = pthread_self(), sender;
  expect("a thread", pthread_create(&sender, NULL, send_signals, &self) == 0);
  while (jumps < JUMPS) {
    if (sigsetjmp(outer, 1) == 0) {
      armed = true;
      for (;;) {
        enter_and_leave();
        set();
        set_and_jump();
      }
    }
    check_all_works();
  }
  __atomic_store_n(&done, true, __ATOMIC_RELEASE);
  pthread_join(sender, NULL);
}

int main(void) {
  tokens = calloc(8, sizeof *tokens);
  tag = drowse_tag_get("first");
  enter_at(&tokens[0], "left");
  (void)drowse_scope_leave(&tokens[0]);
  enter_at(&tokens[0], "outer");
  by_steps();
  by_chance();
  expect_frame("at the end", "outer", 1);
  free(tokens);
  return failures == 0 ? 0 : 1;
}
