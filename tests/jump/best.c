/* SPDX-License-Identifier: Apache-2.0
 *
 * Plain longjmp() without libdrowse-jump: a dead frame may be kept, a live one is never dropped.
 */
#include "expect.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>

static _Thread_local jmp_buf there;
static _Thread_local drowse_scope *tokens; /* on the heap */

static NOINLINE void descend(int levels) {
  DROWSE_SCOPE("dead", INHERIT) {
    if (levels == 0) longjmp(there, 1);
    descend(levels - 1);
  }
}

/* With a frame of its own that is large: drowse's functions, when asked, have theirs in it, not in those of the dead. */
static NOINLINE void descend_far(int levels) {
  char room[4096];
  __asm__ volatile("" : : "r"(room) : "memory");
  descend(levels);
  __asm__ volatile("" : : "r"(room) : "memory");
}

/* Scopes of functions that were left lie below the stack pointer and are dropped. */
static void functions_that_were_left(void) {
  DROWSE_SCOPE("live", INHERIT) {
    enter_at(&tokens[0], "elsewhere");
    for (volatile int levels = 0; levels < 30; levels++) {
      if (setjmp(there) == 0) descend_far(levels);
      expect_frame("out of functions", "elsewhere", 2);
    }
    expect_ok("the live scope is there", drowse_scope_leave(&tokens[0]));
    expect_frame("... and the one around it", "live", 1);
  }
  expect_frame("at its end", "default", 0);
}

/* Scopes of the function itself, and scopes on the heap, may stay; what was live before is live still. */
static void scopes_that_may_stay(void) {
  drowse_scope outer;
  enter_at(&outer, "outer");
  enter_at(&tokens[0], "elsewhere");
  for (volatile int i = 0; i < 10; i++) {
    if (setjmp(there) == 0) {
      enter_at(&tokens[1], "stays");
      DROWSE_SCOPE("may stay", INHERIT) longjmp(there, 1);
    }
    expect("nothing live is dropped", drowse_scope_current().depth >= 2);
  }
  expect_ok("leave", drowse_scope_leave(&tokens[0]));
  expect_frame("leaving ends what stayed", "outer", 1);
  expect_ok("leave", drowse_scope_leave(&outer));
}

/* On an alternate signal stack above the scopes they look as if they were dead: they are not. */
static volatile size_t seen;

static void use_scopes(int number) {
  (void)number;
  drowse_mark mark = drowse_scope_mark();
  seen = drowse_scope_current().depth;
  DROWSE_SCOPE("handler", INHERIT) expect_frame("in the handler", "handler", seen + 1);
  expect_ok("back to where the handler began", drowse_scope_unwind(mark));
}

static NOINLINE void raise_inside(int levels) {
  DROWSE_SCOPE("interrupted", INHERIT) {
    if (levels > 0) raise_inside(levels - 1);
    if (levels > 0) continue;
    size_t before = drowse_scope_current().depth;
    raise(SIGUSR1);
    expect("the handler saw all of them", seen == before);
    expect_frame("behind the handler", "interrupted", before);
  }
}

static void handlers_on_an_alternate_stack(void) {
  char inside[65536];
  stack_t alternate = {.ss_sp = inside, .ss_size = sizeof inside}, before;
  struct sigaction action = {.sa_handler = use_scopes, .sa_flags = SA_ONSTACK};
  sigemptyset(&action.sa_mask);
  expect("sigaltstack", sigaltstack(&alternate, &before) == 0 && sigaction(SIGUSR1, &action, NULL) == 0);
  expect("a tag", drowse_tag_get("handler") != NULL); /* a name's first use takes memory, and is not for handlers */
  raise_inside(20);
  expect_frame("at the end", "default", 0);
  expect("sigaltstack", sigaltstack(&before, NULL) == 0);
}

static void *run(void *nothing) {
  tokens = calloc(2, sizeof *tokens);
  functions_that_were_left();
  scopes_that_may_stay();
  handlers_on_an_alternate_stack();
  free(tokens);
  return nothing;
}

int main(void) {
  (void)run(NULL);
  pthread_t thread;
  expect("a thread", pthread_create(&thread, NULL, run, NULL) == 0 && pthread_join(thread, NULL) == 0);
  return failures == 0 ? 0 : 1;
}
