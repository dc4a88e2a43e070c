/* SPDX-License-Identifier: Apache-2.0
 *
 * Forks under load: threads allocate, sleep and wake, wait for that, enter and leave scopes, off ones too, while the main thread
 * forks again and again; every fourth time by _Fork, which runs no handlers. Each child makes a few calls, and exits with a code
 * of its own for each step that goes wrong. A watchdog ends a storm that hangs.
 *
 *   storm [FORKS [DEVICE [ARENA_MIB]]]     default: 300 host:64MiB 16
 *
 * On a GPU the children open no heaps there: they are told FORKED, because the parent has initialised the driver.
 */
#include "config.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "driver/host.h"
#include "fork/child.h"
#include "heap/heap.h"
#include "scope/stack.h"

enum {
  SKIPPED = 77,
  ALLOCATORS = 2,
  SCOPERS = 2,
  SLEEPERS = 1,
  HOLDERS = 1,
  THREADS = ALLOCATORS + SCOPERS + SLEEPERS + HOLDERS
};

#define MIB (UINT64_C(1) << 20)
#define OFF DROWSE_EXPANDABLE_OFF
#define INHERIT DROWSE_EXPANDABLE_INHERIT

static const char *device = "host:64MiB";
static drowse_heap *heap;
static atomic_bool stop;
static atomic_ulong failures;
static atomic_ulong rounds[THREADS]; /* of each thread, so that the load can be seen to be one */

static bool check(const char *what, drowse_status status) {
  if (status == DROWSE_OK) return true;
  if (atomic_fetch_add(&failures, 1) < 10) {
    (void)fprintf(stderr, "storm: %s: %s: %s\n", what, drowse_status_name(status), drowse_last_error());
  }
  return false;
}

static void expect(const char *what, bool condition) {
  if (condition || atomic_fetch_add(&failures, 1) >= 10) return;
  (void)fprintf(stderr, "storm: %s\n", what);
}

/* ---- the framework: its flag is off inside every off scope */

static atomic_bool flag = true;

static int get_flag(void *context, bool *on) {
  (void)context;
  *on = atomic_load(&flag);
  return 0;
}

static int set_flag(void *context, bool on) {
  (void)context;
  atomic_store(&flag, on);
  return 0;
}

static bool attach(void) {
  drowse_framework framework = {.struct_size = sizeof framework, .get_expandable = get_flag, .set_expandable = set_flag};
  return check("attach", drowse_framework_attach(&framework));
}

/* ---- the load */

static void allocate(unsigned number) {
  static const char *const tags[] = {"first", "second"};
  drowse_scope scope;
  void *ptr = NULL;
  if (!check("enter", drowse_scope_enter(&scope, tags[number % 2], INHERIT))) return;
  if (check("alloc", drowse_alloc(heap, 1000 + number * 4096, NULL, &ptr))) check("free", drowse_free(heap, ptr));
  check("leave", drowse_scope_leave(&scope));
}

static void use_scopes(unsigned number) {
  drowse_scope outer, inner;
  if (!check("enter", drowse_scope_enter(&outer, "outer", OFF))) return;
  if (check("enter", drowse_scope_enter(&inner, "inner", number % 2 == 0 ? INHERIT : DROWSE_EXPANDABLE_ON))) {
    check("leave", drowse_scope_leave(&inner));
  }
  expect("the flag is on inside an off scope", !atomic_load(&flag));
  check("leave", drowse_scope_leave(&outer));
}

/* A tag sleeps and wakes with its contents; its backup is in the arena. */
static void sleep_and_wake(void *ptr, unsigned char *bytes, size_t count) {
  const char *tag = "sleeper";
  drowse_rule rule = {.tag = tag, .action = DROWSE_OFFLOAD};
  memset(bytes, 0, count);
  if (!check("sleep", drowse_sleep(heap, &rule, 1, NULL))) return;
  if (!check("wake", drowse_wake(heap, &tag, 1, NULL))) return;
  if (check("copy_out", drowse_copy_out(heap, bytes, ptr, count))) {
    expect("contents are lost", bytes[0] == 1 && bytes[count / 2] == 1 && bytes[count - 1] == 1);
  }
}

static void keep_sleeping(unsigned number) {
  const size_t count = 3 * MIB;
  drowse_alloc_options options = {.struct_size = sizeof options, .tag = "sleeper"};
  unsigned char *bytes = malloc(count);
  void *ptr = NULL;
  if (bytes == NULL || !check("alloc", drowse_alloc_with(heap, count, NULL, &options, &ptr))) abort();
  memset(bytes, 1, count);
  check("copy_in", drowse_copy_in(heap, ptr, bytes, count));
  for (; !atomic_load(&stop); atomic_fetch_add(&rounds[number], 1)) sleep_and_wake(ptr, bytes, count);
  check("free", drowse_free(heap, ptr));
  free(bytes);
}

/* Waits for the tag whenever it sleeps. Before its first block there is none. */
static void keep_holding(unsigned number) {
  while (!atomic_load(&stop)) {
    drowse_status status = drowse_hold(heap, "sleeper", -1);
    if (status == DROWSE_ERR_NOT_FOUND) continue;
    if (check("hold", status)) check("unhold", drowse_unhold(heap, "sleeper"));
    atomic_fetch_add(&rounds[number], 1);
  }
}

static void *load(void *argument) {
  unsigned number = *(unsigned *)argument;
  if (number >= ALLOCATORS + SCOPERS) {
    if (number < ALLOCATORS + SCOPERS + SLEEPERS)
      keep_sleeping(number);
    else
      keep_holding(number);
    return NULL;
  }
  for (; !atomic_load(&stop); atomic_fetch_add(&rounds[number], 1)) {
    if (number < ALLOCATORS)
      allocate(number);
    else
      use_scopes(number);
  }
  return NULL;
}

/* ---- a child */

static drowse_scope parents_scope;

static int open_own(const char *name) {
  drowse_heap *mine;
  drowse_heap_options options = {.struct_size = sizeof options, .device = name};
  drowse_status status = drowse_heap_open(&mine, &options);
  if (strncmp(name, "cuda", 4) == 0) return status == DROWSE_ERR_FORKED ? 0 : 30;
  void *ptr = NULL;
  char byte = 0;
  STEP(31, status == DROWSE_OK);
  STEP(32, drowse_alloc(mine, 4096, NULL, &ptr) == DROWSE_OK);
  STEP(33, drowse_copy_in(mine, ptr, "x", 1) == DROWSE_OK);
  STEP(34, drowse_copy_out(mine, &byte, ptr, 1) == DROWSE_OK && byte == 'x');
  STEP(35, drowse_heap_close(mine) == DROWSE_OK);
  return 0;
}

static int child_steps(unsigned round) {
  drowse_scope scope;
  drowse_frame frame = drowse_scope_current();
  bool off = frame.expandable == OFF;
  void *ptr = NULL;
  STEP(2, strcmp(frame.tag, "parent") == 0 && frame.depth == 1);
  STEP(3, drowse_scope_enter(&scope, "child", INHERIT) == DROWSE_OK);
  STEP(4, atomic_load(&flag) != off); /* right at the first call */
  STEP(5, drowse_scope_leave(&scope) == DROWSE_OK);
  STEP(6, drowse_scope_enter(&scope, "first use", OFF) == DROWSE_OK && !atomic_load(&flag));
  STEP(7, drowse_scope_leave(&parents_scope) == DROWSE_OK && atomic_load(&flag));
  STEP(8, drowse_scope_current().depth == 0);
  STEP(9, drowse_alloc(heap, 1, NULL, &ptr) == DROWSE_ERR_FORKED);
  STEP(10, drowse_trim(heap, 0) == DROWSE_ERR_FORKED);
  if (round % 8 == 0) {
    int step = open_own(round % 16 == 0 ? "host:64MiB" : device);
    STEP(step, step == 0);
  }
  STEP(11, drowse_heap_close(heap) == DROWSE_OK);
  STEP(12, dz_host_calls_after_fork() == 0);
  return 0;
}

/* Another thread may have been in malloc(), which nobody has told of the fork: only what allocates nothing. */
static int untold_child_steps(void) {
  drowse_scope scope;
  drowse_frame frame = drowse_scope_current();
  void *ptr = NULL;
  STEP(50, strcmp(frame.tag, "parent") == 0 && frame.depth == 1);
  STEP(51, drowse_scope_enter(&scope, "parent", INHERIT) == DROWSE_OK);
  STEP(52, drowse_scope_leave(&scope) == DROWSE_OK);
  STEP(53, drowse_alloc(heap, 1, NULL, &ptr) == DROWSE_ERR_FORKED);
  STEP(54, drowse_trim(heap, 0) == DROWSE_ERR_FORKED);
  STEP(55, drowse_hold(heap, "sleeper", -1) == DROWSE_ERR_FORKED);
  STEP(56, drowse_scope_leave(&parents_scope) == DROWSE_OK && drowse_scope_current().depth == 0);
  STEP(57, dz_host_calls_after_fork() == 0);
  return 0;
}

static _Atomic pid_t current_child;
static int64_t longest, total;

static bool storm_once(unsigned round) {
  if (!check("enter", drowse_scope_enter(&parents_scope, "parent", round % 3 == 0 ? OFF : INHERIT))) return false;
  int64_t begun = dz_now();
  bool told = round % 4 != 3;
  pid_t child = fork_by(told ? FORK : UNDERSCORE_FORK);
  if (child == 0) _exit(told ? child_steps(round) : untold_child_steps());
  int64_t took = dz_now() - begun;
  total += took;
  if (took > longest) longest = took;
  check("leave", drowse_scope_leave(&parents_scope));
  if (child < 0) {
    (void)fprintf(stderr, "storm: fork: %s\n", strerror(errno));
    return false;
  }
  atomic_store(&current_child, child);
  int end = end_of_child(child);
  atomic_store(&current_child, 0);
  if (end != 0) (void)fprintf(stderr, "storm: fork %u: the child ended with %d (from 256: a signal)\n", round, end);
  return end == 0;
}

/* ---- the watchdog: fails a storm in which no fork has come to its end for two minutes */

static atomic_uint done;

static void *watch(void *argument) {
  unsigned seen = 0, looks = 0;
  (void)argument;
  while (!atomic_load(&stop)) {
    (void)usleep(100 * 1000);
    if (atomic_load(&done) != seen) looks = 0;
    seen = atomic_load(&done);
    if (++looks < 1200) continue;
    (void)fprintf(stderr, "storm: fork %u hangs\n", seen);
    pid_t child = atomic_load(&current_child);
    if (child > 0) (void)kill(child, SIGABRT);
    abort();
  }
  return NULL;
}

/* ---- nothing leaks */

static size_t stack_count;

static void count_stack(struct drowse_stack *stack) {
  (void)stack;
  stack_count++;
}

static size_t count_stacks(void) {
  stack_count = 0;
  dz_stack_each(count_stack);
  return stack_count;
}

static bool run_forks(unsigned long forks) {
  size_t in_use = 0;
  for (unsigned i = 0; i < THREADS; i++) { /* not before all are at work */
    while (atomic_load(&rounds[i]) == 0 && atomic_load(&failures) == 0) (void)sched_yield();
  }
  for (unsigned round = 0; round < forks && atomic_load(&failures) == 0; round++) {
    if (round == forks / 10) in_use = mallinfo2().uordblks;
    if (!storm_once(round)) return false;
    atomic_fetch_add(&done, 1);
  }
  size_t grown = mallinfo2().uordblks;
  expect("memory in use grew by more than 1 MiB", grown <= in_use + MIB);
  return true;
}

static bool run_storm(unsigned long forks) {
  pthread_t threads[THREADS], watchdog;
  unsigned numbers[THREADS];
  for (unsigned i = 0; i < THREADS; i++) {
    numbers[i] = i;
    if (pthread_create(&threads[i], NULL, load, &numbers[i]) != 0) abort();
  }
  if (pthread_create(&watchdog, NULL, watch, NULL) != 0) abort();
  bool whole = run_forks(forks);
  atomic_store(&stop, true);
  for (unsigned i = 0; i < THREADS; i++) (void)pthread_join(threads[i], NULL);
  (void)pthread_join(watchdog, NULL);
  return whole;
}

static bool read_number(const char *text, unsigned long most, unsigned long *number) {
  char *end;
  *number = strtoul(text, &end, 10);
  return *text >= '0' && *text <= '9' && *end == '\0' && *number <= most;
}

static bool open_with_arena(uint64_t bytes) {
  drowse_heap_options options = {.struct_size = sizeof options, .device = device};
  struct guard guard;
  if (!check("open", drowse_heap_open(&heap, &options)) || !check("guard", dz_guard_enter(&guard, heap))) return false;
  return check("arena", dz_guard_leave(&guard, dz_arena_reserve(&heap->arena, bytes, true)));
}

int main(int argc, char **argv) {
  unsigned long forks = 300, arena_mib = 16;
  if (SANITIZED) {
    (void)puts("storm: skipped: a sanitizer's allocator is not whole in the child of a fork while other threads allocate");
    return SKIPPED;
  }
  if ((argc > 1 && !read_number(argv[1], 1000000, &forks)) || (argc > 3 && !read_number(argv[3], 65536, &arena_mib)) ||
      argc > 4) {
    (void)fprintf(stderr, "usage: storm [FORKS [DEVICE [ARENA_MIB]]]\n");
    return EXIT_FAILURE;
  }
  if (argc > 2) device = argv[2];
  size_t stacks = count_stacks();
  if (!open_with_arena(arena_mib * MIB) || !attach()) return EXIT_FAILURE;
  (void)drowse_free(NULL, NULL); /* so that this thread has its record of a failure before a child needs one */
  int64_t begun = dz_now();
  bool whole = run_storm(forks);
  double seconds = (double)(dz_now() - begun) / 1e9;

  expect("the flag is off at the end", atomic_load(&flag));
  check("detach", drowse_framework_detach());
  check("close", drowse_heap_close(heap));
  struct host_counts left = {0};
  dz_host_counts(&left);
  expect("something is left of the heap", left.contexts == 0 && left.registered == 0 && left.reservations == 0);
  expect("calls on the parent's device in a child", dz_host_calls_after_fork() == 0);
  expect("stacks are left", count_stacks() == stacks + 1); /* the main thread's own */
  (void)printf("%u forks in %.1f s, fork itself %.3f ms on average and %.3f ms at most; load:", atomic_load(&done), seconds,
               (double)total / 1e6 / (double)(forks > 0 ? forks : 1), (double)longest / 1e6);
  for (unsigned i = 0; i < THREADS; i++) (void)printf(" %lu", atomic_load(&rounds[i]));
  (void)printf("; failures %lu\n", atomic_load(&failures));
  return whole && atomic_load(&failures) == 0 && atomic_load(&done) == forks ? EXIT_SUCCESS : EXIT_FAILURE;
}
