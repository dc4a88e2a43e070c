/* SPDX-License-Identifier: Apache-2.0
 *
 * A signal handler that jumps at any moment: at each single instruction of enter, leave, setjmp() and longjmp(), one after
 * another, by the processor's single-step trap (x86-64); and at random ones, by another thread's signals. Behind each the frame
 * is exact, and everything works on. Needs libdrowse-jump.
 *
 * With AddressSanitizer only at random moments: a longjmp() of its own takes fifty thousand instructions, too many to try each.
 * With ThreadSanitizer not at all: there a handler waits until the sanitizer calls it.
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

static NOINLINE void set_another(void) {
  jmp_buf another;
  if (setjmp(another) != 0) expect("nobody jumps here", false);
}

static NOINLINE void set_and_jump(void) {
  drowse_status entered = drowse_scope_enter_tag(&tokens[1], tag, INHERIT);
  if (setjmp(inner) == 0) {
    set_another();
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

static void jump_out(void) {
  siglongjmp(outer, 1);
}

static volatile long countdown; /* instructions before it happens */
static volatile bool stepping;
static void (*happens)(void);

static void step(int number, siginfo_t *info, void *context) {
  (void)number, (void)info;
  greg_t *flags = &((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL];
  *flags &= ~(greg_t)TRAP_FLAG;
  if (!stepping) return;
  if (countdown-- > 0) {
    *flags |= TRAP_FLAG;
  } else {
    happens();
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
  at_each_instruction(set, 251);
  drowse_stack_destroy(away);
  free(places);
}

/* The note of one jump makes room for that of another, and the handler jumps to either. The one that goes was set on another
 * stack of frames, in a scope with a serial number far from those here. The one that comes was set before, unnoticed: it is a
 * copy of outer. */
static sigjmp_buf going, coming;

static void jump_to_going(void) {
  siglongjmp(going, 1);
}

/* Unless libc has begun to write it. */
static void jump_to_coming(void) {
  if (memcmp(coming, outer, sizeof coming) == 0) siglongjmp(coming, 1);
}

static NOINLINE void set_coming(void) {
  if (sigsetjmp(coming, 1) != 0) expect("nobody jumps here", false);
}

/* Sets jumps until all places for notes are taken; the going one's makes room first, as the oldest of those that are away. */
static NOINLINE void replace(drowse_stack *away, jmp_buf *places, long instructions) {
  if (sigsetjmp(outer, 1) != 0) return;
  (void)drowse_stack_switch(away);
  if (sigsetjmp(going, 1) != 0) return;
  set_many(places, 200);
  (void)drowse_stack_switch(NULL);
  memcpy(coming, outer, sizeof coming);
  begin_stepping(instructions);
  set_coming();
}

/* The scopes of both stacks are open as before. True: the jump went to the one that is away. */
static bool is_intact(drowse_stack *away) {
  bool went_there = drowse_stack_switch(away) == away;
  expect_frame("on the stack that is away", "away", 1);
  (void)drowse_stack_switch(NULL);
  expect_frame("on its own", "outer", 1);
  return went_there;
}

static bool is_intact_after(drowse_stack *away, jmp_buf *places, long instructions) {
  replace(away, places, instructions);
  stepping = false;
  return is_intact(away);
}

/* The instruction from which on the jump that goes is no longer known, and those around it. */
static void at_each_instruction_of_replacing(void) {
  enum { AROUND = 25 };
  jmp_buf *places = calloc(200, sizeof *places);
  drowse_stack *away;
  expect_ok("a stack", drowse_stack_create(&away));
  (void)drowse_stack_switch(away);
  for (int i = 0; i < 1000; i++) {
    enter_at(&tokens[5], "passing");
    expect_ok("leave", drowse_scope_leave(&tokens[5]));
  }
  enter_at(&tokens[5], "away");
  (void)drowse_stack_switch(NULL);
  happens = jump_to_going;
  long known = 0, unknown = 1 << 20; /* more than there are */
  while (unknown - known > 1) {
    long middle = known + (unknown - known) / 2;
    if (is_intact_after(away, places, middle)) {
      known = middle;
    } else {
      unknown = middle;
    }
  }
  expect("it is known to begin with", known > 100);
  for (int i = 0; i < 2; i++) {
    happens = i == 0 ? jump_to_going : jump_to_coming;
    for (long at = known - AROUND; at < known + AROUND; at++) (void)is_intact_after(away, places, at);
  }
  drowse_stack_destroy(away);
  free(places);
}

static void by_steps(void) {
  struct sigaction action = {.sa_sigaction = step, .sa_flags = SA_SIGINFO};
  sigemptyset(&action.sa_mask);
  sigaction(SIGTRAP, &action, NULL);
  static void (*const handlers[])(void) = {jump_out, set_some};
  for (size_t i = 0; i < 2; i++) {
    happens = handlers[i];
    at_each_instruction(enter_and_leave, 1);
    at_each_instruction(set, 1);
    at_each_instruction(set_and_jump, 7);
  }
  for (size_t i = 0; i < 2; i++) {
    happens = handlers[i];
    at_each_instruction_with_many_set();
  }
  at_each_instruction_of_replacing();
}
#else
static void by_steps(void) {
}
#endif

/* ---- random moments. How many jumps there are is fixed, when they come does not matter. */

enum { JUMPS = 1000 };

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
  if (WITH_TSAN) return 77;
  tokens = calloc(8, sizeof *tokens);
  tag = drowse_tag_get("first");
  enter_at(&tokens[0], "left");
  (void)drowse_scope_leave(&tokens[0]);
  enter_at(&tokens[0], "outer");
  if (!WITH_ASAN) by_steps();
  by_chance();
  expect_frame("at the end", "outer", 1);
  free(tokens);
  return failures == 0 ? 0 : 1;
}
