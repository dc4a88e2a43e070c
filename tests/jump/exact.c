/* SPDX-License-Identifier: Apache-2.0
 *
 * Jumps out of scopes: behind each the frame is current that was current at the setjmp().
 *
 * Compiled as it is, it calls plain setjmp() and longjmp() and needs libdrowse-jump; with -DDROWSE_JUMPS it calls drowse_setjmp()
 * and drowse_longjmp() and needs libdrowse alone. Scope objects are on the heap or in the function that calls setjmp(): there
 * drowse cannot tell by itself that they are dead.
 */
#include "expect.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <malloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#ifdef DROWSE_JUMPS
typedef drowse_jump place;
#define SET(place) drowse_setjmp(place)
#define SIGSET(place, savemask) drowse_sigsetjmp(place, savemask)
#define GO(place, value) drowse_longjmp(place, value)
#define SIGGO(place, value) drowse_longjmp(place, value)
#else
typedef struct {
  sigjmp_buf env;
} place;
#define SET(place) setjmp((place)->env)
#define SIGSET(place, savemask) sigsetjmp((place)->env, savemask)
#define GO(place, value) longjmp((place)->env, value)
#define SIGGO(place, value) siglongjmp((place)->env, value)
#endif

enum { DEPTH = 64 };

/* Of each thread, for handlers and callbacks. */
static _Thread_local place there;
static _Thread_local drowse_scope *tokens; /* DEPTH of them, on the heap */

/* ---- how deep, and where */

static void from_any_depth(void) {
  for (volatile size_t depth = 0; depth <= DEPTH; depth++) {
    if (SET(&there) == 0) {
      for (size_t i = 0; i < depth; i++) enter_at(&tokens[i], "left");
      expect_frame("before the jump", depth == 0 ? "default" : "left", depth);
      GO(&there, 1);
    }
    expect_frame("out of some scopes", "default", 0);
  }
}

static void to_any_depth(void) {
  for (volatile size_t depth = 1; depth < DEPTH; depth++) {
    for (size_t i = 0; i < depth; i++) enter_at(&tokens[i], i + 1 == depth ? "stays" : "under");
    if (SET(&there) == 0) {
      for (size_t i = depth; i < DEPTH; i++) enter_at(&tokens[i], "left");
      GO(&there, 1);
    }
    expect_frame("into a scope", "stays", depth);
    expect_ok("leaving what the jump left open", drowse_scope_leave(&tokens[depth - 1]));
    expect_frame("... and it is gone", depth == 1 ? "default" : "under", depth - 1);
    if (depth > 1) expect_ok("leaving all", drowse_scope_leave(&tokens[0]));
  }
}

/* The scopes are in the function that called setjmp(). */
static void inlined(void) {
  for (volatile int round = 0; round < 100; round++) {
    if (SET(&there) == 0) {
      DROWSE_SCOPE("one", INHERIT) {
        DROWSE_SCOPE("two", DROWSE_EXPANDABLE_ON) {
          DROWSE_SCOPE("three", DROWSE_EXPANDABLE_OFF) {
            expect_frame("inside", "three", 3);
            GO(&there, 1);
          }
        }
      }
    }
    expect_frame("out of scopes of the same function", "default", 0);
  }
}

/* The setjmp() is inside a scope of the same function, and so is the place that jumps. */
static void inlined_inside(void) {
  DROWSE_SCOPE("stays", INHERIT) {
    volatile int jumps = 0;
    if (SET(&there) < 5) {
      DROWSE_SCOPE("left", INHERIT) {
        if (jumps < 10) GO(&there, ++jumps);
      }
    }
    expect_frame("from a scope to the one around it", "stays", 1);
    expect("it came back five times", jumps == 5);
  }
  expect_frame("at its end", "default", 0);
}

static NOINLINE void descend(size_t levels) {
  if (levels == 0) GO(&there, 1);
  DROWSE_SCOPE(levels % 2 == 0 ? "even" : "odd", INHERIT) {
    enter_at(&tokens[levels], "elsewhere");
    descend(levels - 1);
    expect("a jump does not return", false);
  }
}

static void across_functions(void) {
  for (volatile size_t levels = 0; levels < DEPTH / 2; levels++) {
    if (SET(&there) == 0) descend(levels);
    expect_frame("across functions", "default", 0);
  }
}

static int compare_and_jump(const void *left, const void *right) {
  (void)left, (void)right;
  enter_at(&tokens[1], "callback");
  DROWSE_SCOPE("callback", INHERIT) {
    GO(&there, 1);
  }
  return 0;
}

static void out_of_callbacks(void) {
  int numbers[64] = {0};
  DROWSE_SCOPE("caller", INHERIT) {
    if (SET(&there) == 0) qsort(numbers, 64, sizeof *numbers, compare_and_jump);
    expect_frame("out of qsort", "caller", 1);
    if (SET(&there) == 0)
      expect("bsearch does not return", bsearch(numbers, numbers, 64, sizeof *numbers, compare_and_jump) == NULL);
    expect_frame("out of bsearch", "caller", 1);
  }
}

/* ---- several places to go to */

static NOINLINE void nest(place *places, size_t level, size_t levels, size_t target) {
  if (level == levels) GO(&places[target], 1);
  enter_at(&tokens[level], "nested");
  if (SET(&places[level]) == 0) {
    nest(places, level + 1, levels, target);
    return;
  }
  expect("it is the right place", level == target);
  expect_frame("to one of several places", "nested", target + 1);
}

static void to_each_of_several(void) {
  place *places = calloc(DEPTH, sizeof *places);
  for (size_t target = 0; target < DEPTH; target++) {
    nest(places, 0, DEPTH, target);
    expect_ok("leave", drowse_scope_leave(&tokens[0]));
  }
  free(places);
}

/* One jmp_buf, set again further in, and again when that function has returned. */
static NOINLINE void set_again(volatile int *arrivals) {
  enter_at(&tokens[1], "inner");
  if (SET(&there) == 0) {
    enter_at(&tokens[2], "left");
    GO(&there, 1);
  }
  expect_frame("to the inner setting", "inner", 2);
  ++*arrivals;
}

static void one_buffer_set_again(void) {
  volatile int arrivals = 0;
  enter_at(&tokens[0], "outer");
  set_again(&arrivals);
  expect_ok("leave", drowse_scope_leave(&tokens[1]));
  if (SET(&there) == 0) {
    enter_at(&tokens[2], "left");
    GO(&there, 1);
  }
  expect_frame("to the outer setting", "outer", 1);
  expect("the inner one was arrived at", arrivals == 1);
  expect_ok("leave", drowse_scope_leave(&tokens[0]));
}

/* The scope that was current at the setjmp() has ended meanwhile: what was entered since ends all the same. */
static void to_a_place_whose_scope_ended(void) {
  enter_at(&tokens[0], "around");
  enter_at(&tokens[1], "ended");
  if (SET(&there) == 0) {
    expect_ok("leave", drowse_scope_leave(&tokens[1]));
    enter_at(&tokens[2], "left");
    enter_at(&tokens[3], "left");
    GO(&there, 1);
  }
  expect_frame("to where a scope was that has ended", "around", 1);
  if (SET(&there) == 0) {
    expect_ok("leave", drowse_scope_leave(&tokens[0]));
    GO(&there, 1);
  }
  expect_frame("... the last one", "default", 0);
}

/* ---- signals */

static void jump_out(int number) {
  (void)number;
  SIGGO(&there, 1);
}

/* A handler that sets jumps of its own, jumps among them, and then returns or jumps out. */
static _Thread_local bool handler_jumps;

static void set_and_jump(int number) {
  (void)number;
  place here[3];
  volatile int arrivals = 0;
  if (SIGSET(&here[0], 1) == 0) SIGGO(&here[0], 1);
  if (SIGSET(&here[1], 0) == 0 && SIGSET(&here[2], 0) == 0) SIGGO(&here[1], 1);
  arrivals++;
  expect("a handler's own jumps arrive", arrivals == 1);
  if (handler_jumps) SIGGO(&there, 1);
}

static void handle(int number, void (*handler)(int), int flags) {
  struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
  sigemptyset(&action.sa_mask);
  expect("sigaction", sigaction(number, &action, NULL) == 0);
}

static bool is_blocked(int number) {
  sigset_t mask;
  pthread_sigmask(SIG_SETMASK, NULL, &mask);
  return sigismember(&mask, number) == 1;
}

static void unblock(int number) {
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, number);
  pthread_sigmask(SIG_UNBLOCK, &mask, NULL);
}

static NOINLINE void raise_inside(int number) {
  DROWSE_SCOPE("interrupted", INHERIT) {
    enter_at(&tokens[1], "elsewhere");
    raise(number);
  }
}

static void out_of_handlers_of(int number) {
  DROWSE_SCOPE("caller", INHERIT) {
    if (SIGSET(&there, 1) == 0) raise_inside(number);
    expect_frame("out of a handler", "caller", 1);
    expect("the mask is as it was at sigsetjmp", WITH_TSAN || !is_blocked(number));
    unblock(number);
    if (SIGSET(&there, 0) == 0) raise_inside(number);
    expect_frame("out of a handler, the mask not saved", "caller", 1);
    expect("the mask is the handler's", WITH_TSAN || is_blocked(number));
    unblock(number);
    if (SIGSET(&there, 1) == 0) {
      DROWSE_SCOPE("inlined", INHERIT) {
        raise(number);
      }
    }
    expect_frame("out of a handler, the scope inlined", "caller", 1);
  }
}

static void out_of_handlers(void) {
  out_of_handlers_of(SIGUSR1);
}

static void on_alternate_stack(void *low) {
  stack_t alternate = {.ss_sp = low, .ss_size = 65536}, before;
  expect("sigaltstack", sigaltstack(&alternate, &before) == 0);
  out_of_handlers_of(SIGUSR2);
  expect("sigaltstack", sigaltstack(&before, NULL) == 0);
}

/* The alternate stack may be anywhere, above and below the thread's own, and in it. */
static void out_of_handlers_on_alternate_stacks(void) {
  char inside[65536];
  void *heap = malloc(65536);
  on_alternate_stack(inside);
  on_alternate_stack(heap);
  free(heap);
}

static NOINLINE void interrupt(int number, bool jumps) {
  enter_at(&tokens[1], "interrupted");
  handler_jumps = jumps;
  raise(number);
  GO(&there, 1);
}

/* ... and with the mask saved each time, since these handlers jump. */
static void handlers_that_set_jumps(void) {
  char inside[65536];
  stack_t alternate = {.ss_sp = inside, .ss_size = sizeof inside}, before;
  expect("sigaltstack", sigaltstack(&alternate, &before) == 0);
  static const int numbers[] = {SIGHUP, SIGWINCH};
  enter_at(&tokens[0], "caller");
  for (volatile size_t i = 0; i < 400; i++) {
    if (SIGSET(&there, 1) == 0) interrupt(numbers[i % 2], i % 4 < 2);
    expect_frame("behind a handler that sets jumps", "caller", 1);
  }
  expect_ok("leave", drowse_scope_leave(&tokens[0]));
  expect("sigaltstack", sigaltstack(&before, NULL) == 0);
}

/* ---- coroutines, each with its C stack and its stack of frames */

enum { ROOM = 256 << 10 }; /* for a C stack */

struct coroutine {
  ucontext_t caller, self;
  drowse_stack *stack;
  drowse_scope *tokens;
};
static _Thread_local struct coroutine *coroutine; /* the one there is */

static void yield(void) {
  struct coroutine *self = coroutine;
  expect("swapcontext", swapcontext(&self->self, &self->caller) == 0);
}

static NOINLINE void resume(void) {
  (void)drowse_stack_switch(coroutine->stack);
  expect("swapcontext", swapcontext(&coroutine->caller, &coroutine->self) == 0);
  (void)drowse_stack_switch(NULL);
}

static void begin_coroutine(void *low, void (*body)(void)) {
  coroutine = calloc(1, sizeof *coroutine);
  coroutine->tokens = calloc(DEPTH, sizeof *coroutine->tokens);
  expect_ok("a stack", drowse_stack_create_at(&coroutine->stack, low, ROOM));
  expect("getcontext", getcontext(&coroutine->self) == 0);
  coroutine->self.uc_link = &coroutine->caller;
  coroutine->self.uc_stack = (stack_t){.ss_sp = low, .ss_size = ROOM};
  makecontext(&coroutine->self, body, 0);
}

static void end_coroutine(void) {
  drowse_stack_destroy(coroutine->stack);
  free(coroutine->tokens);
  free(coroutine);
  coroutine = NULL;
}

/* Jumps within itself, with a scope on its C stack and one elsewhere, from one resumption to another. */
static void jump_between_yields(void) {
  place *here = calloc(1, sizeof *here);
  DROWSE_SCOPE("coroutine", INHERIT) {
    for (volatile int i = 0; i < 3; i++) {
      if (SET(here) == 0) {
        DROWSE_SCOPE("left", INHERIT) {
          enter_at(&coroutine->tokens[0], "elsewhere");
          yield();
          expect_frame("when it goes on", "elsewhere", 3);
          GO(here, 1);
        }
      }
      expect_frame("in the coroutine", "coroutine", 1);
    }
  }
  expect_frame("at its end", "default", 0);
  free(here);
}

static NOINLINE void set_beside_a_coroutine(void *low) {
  enter_at(&tokens[0], "caller");
  begin_coroutine(low, jump_between_yields);
  for (volatile int i = 0; i < 4; i++) {
    if (SET(&there) == 0) {
      DROWSE_SCOPE("left", INHERIT) {
        enter_at(&tokens[1], "elsewhere");
        resume();
        expect_frame("back from the coroutine", "elsewhere", 3);
        GO(&there, 1);
      }
    }
    expect_frame("in its caller", "caller", 1);
  }
  end_coroutine();
  expect_ok("leave", drowse_scope_leave(&tokens[0]));
}

/* The C stack of a coroutine may be above its caller's, inside the thread's, or anywhere else. */
static void on_coroutines(void (*test)(void *low)) {
  char inside[ROOM];
  char *elsewhere = malloc(ROOM);
  if (WITH_TSAN) return free(elsewhere); /* which does not know of swapcontext() */
  test(inside);
  test(elsewhere);
  free(elsewhere);
}

/* ---- what setjmp() and longjmp() promise besides */

static void values(void) {
  static const int sent[] = {0, 1, 2, -1, INT_MAX, INT_MIN};
  for (volatile size_t i = 0; i < sizeof sent / sizeof *sent; i++) {
    volatile int got = 0;
    switch (SET(&there)) { /* the contexts that C allows: the whole of a switch or if, or compared with a constant */
    case 0:
      GO(&there, sent[i]);
    case 1:
      got = 1;
      break;
    case 2:
      got = 2;
      break;
    case -1:
      got = -1;
      break;
    case INT_MAX:
      got = INT_MAX;
      break;
    case INT_MIN:
      got = INT_MIN;
      break;
    }
    expect("the value arrives, 0 as 1", got == (sent[i] == 0 ? 1 : sent[i]));
  }
}

/* What is in registers at the first return is what was there at the call; errno is as it was at the jump. */
static void registers(void) {
  for (volatile long seed = 1; seed < 100; seed++) {
    long a = seed * 3, b = seed * 5, c = seed * 7, d = seed * 11, e = seed * 13, f = seed * 17, g = seed * 19;
    double x = (double)seed / 2, y = (double)seed / 3;
    if (SET(&there) == 0) {
      expect("locals", a + b + c + d + e + f + g == seed * 75 && x + y == (double)seed / 2 + (double)seed / 3);
      errno = (int)seed;
      GO(&there, 1);
    }
    expect("errno", errno == (int)seed);
  }
}

/* What ends a scope may call a framework's hooks. */
static bool flag = true; /* one thread's */

static int get_flag(void *context, bool *on) {
  (void)context;
  *on = flag;
  errno = EIO;
  return 0;
}

static int set_flag(void *context, bool on) {
  (void)context;
  flag = on;
  errno = EIO;
  expect("the stack is aligned", (uintptr_t)__builtin_frame_address(0) % 16 == 0);
  return 0;
}

static void hooks(void) {
  static const drowse_framework framework = {
      .struct_size = sizeof framework, .get_expandable = get_flag, .set_expandable = set_flag};
  expect_ok("attach", drowse_framework_attach(&framework));
  if (SET(&there) == 0) {
    enter_at(&tokens[0], "around");
    expect_ok("enter", drowse_scope_enter(&tokens[1], "left", DROWSE_EXPANDABLE_OFF));
    expect("off is current", !flag);
    errno = EDOM;
    GO(&there, 1);
  }
  expect("errno is not the hook's", errno == EDOM);
  expect("the flag is as it was", flag);
  expect_frame("out of a scope with off", "default", 0);
  expect_ok("detach", drowse_framework_detach());
}

#ifndef DROWSE_JUMPS
/* The other names. setjmp() as a function, not as the macro, saves the signal mask in glibc. */
static void other_names(void) {
  jmp_buf env, other;
  DROWSE_SCOPE("caller", INHERIT) {
    if (_setjmp(env) == 0) {
      DROWSE_SCOPE("left", INHERIT) _longjmp(env, 1);
    }
    expect_frame("_setjmp", "caller", 1);
    if ((setjmp)(other) == 0) {
      DROWSE_SCOPE("left", INHERIT)(longjmp)(other, 1);
    }
    expect_frame("the function setjmp", "caller", 1);
  }
}

/* ---- jmp_bufs that died */

static NOINLINE void set_and_forget(size_t bytes) {
  volatile char *room = __builtin_alloca(bytes);
  jmp_buf env;
  room[0] = 0;
  if (setjmp(env) != 0) expect("nobody jumps here", false);
}

/* Pages that the process has for itself. */
static long data_pages(void) {
  char text[128];
  int file = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
  ssize_t length = read(file, text, sizeof text - 1);
  close(file);
  long data = -1;
  text[length < 0 ? 0 : length] = '\0';
  if (sscanf(text, "%*d %*d %*d %*d %*d %ld", &data) != 1) expect("/proc/self/statm can be read", false);
  return data;
}

/* A million of them, on the stack at many depths and elsewhere, take no memory, and the place that was set before them all is
 * still known; so are those that are set among them. */
static void a_million_dead(void) {
  enum { PLACES = 4096 };
  jmp_buf *elsewhere = calloc(PLACES, sizeof *elsewhere), last_resort;
  volatile size_t jumps = 0;
  enter_at(&tokens[0], "caller");
  if (setjmp(last_resort) == 0) {
    enter_at(&tokens[1], "around");
    long pages = data_pages();
    size_t used = mallinfo2().uordblks;
    for (volatile size_t i = 0; i < 500000; i++) {
      set_and_forget(16 + i * 7919 % 509 * 16);
      if (setjmp(elsewhere[i * 31 % PLACES]) != 0) {
        expect_frame("a jump among dead ones", "around", 2);
        jumps++;
      } else if (i % 1000 == 0) {
        enter_at(&tokens[2], "left");
        set_and_forget(64);
        longjmp(elsewhere[i * 31 % PLACES], 1);
      }
    }
    expect("nothing was allocated", mallinfo2().uordblks == used);
    expect("nothing was mapped", data_pages() == pages);
    longjmp(last_resort, 1);
  }
  expect("all jumps arrived", jumps == 500);
  expect_frame("to the place that was set before a million others", "caller", 1);
  expect_ok("leave", drowse_scope_leave(&tokens[0]));
  free(elsewhere);
}

/* More are live at once than can be remembered. To those that are not a jump may keep dead frames, but it never drops live
 * ones. */
struct nest {
  jmp_buf *places;
  drowse_scope *scopes;
  size_t levels, target; /* it jumps from the last level to the target */
  bool is_remembered;    /* the target */
  void (*at_the_bottom)(void);
};

static NOINLINE void nest_many(const struct nest *nest, size_t level) {
  if (level == nest->levels) {
    nest->at_the_bottom();
    enter_at(&nest->scopes[DEPTH - 1], "left");
    longjmp(nest->places[nest->target], 1);
  }
  if (level % 10 == 0) enter_at(&nest->scopes[level / 10], "every tenth");
  if (setjmp(nest->places[level]) == 0) {
    nest_many(nest, level + 1);
    return;
  }
  size_t open = level / 10 + 1, depth = drowse_scope_current().depth;
  expect("it is the right place", level == nest->target);
  expect("a jump to what is remembered is exact", !nest->is_remembered || depth == open);
  expect("no live frame is dropped", depth >= open);
}

static NOINLINE void nest_and_jump(drowse_scope *scopes, size_t levels, size_t target, bool is_remembered,
                                   void (*at_the_bottom)(void)) {
  struct nest nest = {calloc(levels, sizeof *nest.places), scopes, levels, target, is_remembered, at_the_bottom};
  nest_many(&nest, 0);
  expect_ok("leave", drowse_scope_leave(&scopes[0]));
  free(nest.places);
}

static void nothing_more(void) {
}

enum { MANY = 300, OUTERMOST = 100 };

static void more_than_are_remembered(void) {
  for (size_t target = 0; target < MANY; target += 7) nest_and_jump(tokens, MANY, target, target < OUTERMOST, nothing_more);
}

/* A setjmp() out here tells that what was set further in is dead. */
static NOINLINE void set_here(void) {
  if (setjmp(there.env) != 0) expect("nobody jumps here", false);
}

/* Those of a coroutine that is away make room first, the oldest before the others. */
static void nest_away(void) {
  nest_and_jump(coroutine->tokens, OUTERMOST, OUTERMOST - 5, true, yield);
}

static NOINLINE void away_ones_make_room(void *low) {
  begin_coroutine(low, nest_away);
  resume();
  for (size_t target = 0; target < OUTERMOST; target += 9) nest_and_jump(tokens, OUTERMOST, target, true, nothing_more);
  resume();
  end_coroutine();
}

/* Those that a handler set on an alternate stack are dead when it has returned, though they lie above the stack pointer. */
static NOINLINE void set_and_return(size_t levels) {
  jmp_buf here;
  if (setjmp(here) != 0) expect("nobody jumps here", false);
  if (levels > 1) set_and_return(levels - 1);
}

static void set_many_and_return(int number) {
  (void)number;
  set_and_return(OUTERMOST);
}

static void dead_ones_of_alternate_stacks(void) {
  char inside[ROOM];
  stack_t alternate = {.ss_sp = inside, .ss_size = sizeof inside}, before;
  expect("sigaltstack", sigaltstack(&alternate, &before) == 0);
  raise(SIGURG);
  set_and_forget(4096);
  nest_and_jump(tokens, OUTERMOST, OUTERMOST - 2, true, nothing_more); /* the last one always finds room */
  expect("sigaltstack", sigaltstack(&before, NULL) == 0);
}
#endif

/* ---- processes, threads */

static void in_a_child(void) {
  enter_at(&tokens[0], "caller");
  volatile pid_t child = -1;
  if (SET(&there) == 0) {
    enter_at(&tokens[1], "left");
    child = fork();
    if (child != 0) {
      int status = -1;
      expect("the child ends well", waitpid(child, &status, 0) == child && status == 0);
    }
    GO(&there, 1);
  }
  expect_frame("after a fork", "caller", 1);
  if (child == 0) _exit(failures == 0 ? 0 : 1);
  expect_ok("leave", drowse_scope_leave(&tokens[0]));
}

/* One thread at a time may fork and look at the memory of all; the others do this. */
static void run_everywhere(void) {
  from_any_depth();
  to_any_depth();
  inlined();
  inlined_inside();
  across_functions();
  out_of_callbacks();
  to_each_of_several();
  one_buffer_set_again();
  to_a_place_whose_scope_ended();
  out_of_handlers();
  out_of_handlers_on_alternate_stacks();
  handlers_that_set_jumps();
  values();
  registers();
  on_coroutines(set_beside_a_coroutine);
#ifndef DROWSE_JUMPS
  other_names();
  more_than_are_remembered();
  set_here();
  on_coroutines(away_ones_make_room);
  set_here();
  dead_ones_of_alternate_stacks();
#endif
}

static void *run_thread(void *nothing) {
  tokens = calloc(DEPTH + 1, sizeof *tokens);
  jmp_buf before_all; /* set before the thread has a stack of frames */
  volatile int arrivals = 0;
  if (setjmp(before_all) != 0) arrivals++;
  for (int i = 0; i < 3 && arrivals == 0; i++) run_everywhere();
#ifndef DROWSE_JUMPS
  if (arrivals == 0) {
    enter_at(&tokens[0], "left");
    longjmp(before_all, 1);
  }
#endif
  expect_frame("at a thread's end", "default", 0);
  free(tokens);
  return nothing;
}

/* With an argument: only what cannot be exact without help, to show that this program notices. */
int main(int count, char **arguments) {
  (void)arguments;
  if (count > 1) {
    inlined();
    return failures == 0 ? 0 : 1;
  }
  handle(SIGUSR1, jump_out, 0);
  handle(SIGUSR2, jump_out, SA_ONSTACK);
  handle(SIGHUP, set_and_jump, 0);
  handle(SIGWINCH, set_and_jump, SA_ONSTACK);
#ifndef DROWSE_JUMPS
  handle(SIGURG, set_many_and_return, SA_ONSTACK);
#endif

  tokens = calloc(DEPTH + 1, sizeof *tokens);
  run_everywhere();
  in_a_child();
  hooks();
#ifndef DROWSE_JUMPS
  a_million_dead();
#endif
  run_everywhere();
  free(tokens);

  pthread_t threads[4];
  for (size_t i = 0; i < 4; i++) expect("a thread", pthread_create(&threads[i], NULL, run_thread, NULL) == 0);
  for (size_t i = 0; i < 4; i++) pthread_join(threads[i], NULL);
  return failures == 0 ? 0 : 1;
}
