/* SPDX-License-Identifier: Apache-2.0
 *
 * A framework with one flag, for tests of the arbiter: it notes what its hooks are asked, fails when told to, and sees when two
 * hooks run at once or with a signal that is not blocked.
 */
#ifndef TESTS_FRAMEWORK_H
#define TESTS_FRAMEWORK_H

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "drowse.h"
#include "scope/stack.h"

#define INHERIT DROWSE_EXPANDABLE_INHERIT
#define ON DROWSE_EXPANDABLE_ON
#define OFF DROWSE_EXPANDABLE_OFF

enum { HOOK_FAILED = 77 };

static struct {
  atomic_bool on;             /* the flag */
  atomic_int other;           /* the other settings */
  atomic_uint_fast64_t stamp; /* counts changes */
  atomic_int fail_get;        /* so many calls fail; < 0: all */
  atomic_int fail_set;
  atomic_int gets, sets, running;
  atomic_bool broken;          /* two hooks at once, or signals not blocked */
  char log[64];                /* what was set: 0 or 1 each */
  void (*within_get)(void);    /* done in a hook */
  void (*within_set)(bool on); /* before the flag changes */
  void (*within_stamp)(void);
} fw;

static inline bool takes_failure(atomic_int *failures) {
  int left = atomic_load(failures);
  if (left > 0) atomic_store(failures, left - 1);
  return left != 0;
}

static inline bool is_blocked(int number) {
  sigset_t mask;
  return pthread_sigmask(SIG_SETMASK, NULL, &mask) == 0 && sigismember(&mask, number) == 1;
}

static inline void hook_begins(void) {
  if (atomic_fetch_add(&fw.running, 1) != 0 || !is_blocked(SIGUSR1) || !is_blocked(SIGALRM)) atomic_store(&fw.broken, true);
}

static inline int hook_ends(int code) {
  (void)atomic_fetch_sub(&fw.running, 1);
  return code;
}

static inline int get_flag(void *context, bool *on) {
  (void)context;
  hook_begins();
  atomic_fetch_add(&fw.gets, 1);
  if (fw.within_get != NULL) fw.within_get();
  if (takes_failure(&fw.fail_get)) return hook_ends(HOOK_FAILED);
  *on = atomic_load(&fw.on);
  return hook_ends(0);
}

static inline int put_flag(void *context, bool on) {
  (void)context;
  hook_begins();
  if (fw.within_set != NULL) fw.within_set(on);
  if (takes_failure(&fw.fail_set)) return hook_ends(HOOK_FAILED);
  int at = atomic_fetch_add(&fw.sets, 1);
  if (at < (int)sizeof fw.log - 1) fw.log[at] = on ? '1' : '0';
  atomic_store(&fw.on, on);
  atomic_fetch_add(&fw.stamp, 1);
  return hook_ends(0);
}

static inline uint64_t get_stamp(void *context) {
  (void)context;
  if (fw.within_stamp != NULL) fw.within_stamp();
  return atomic_load(&fw.stamp);
}

/* What somebody else does to the flag. */
static inline void change_foreign(bool on) {
  atomic_store(&fw.on, on);
  atomic_fetch_add(&fw.stamp, 1);
}

static inline drowse_status attach_with(uint32_t flags, bool with_stamp) {
  drowse_framework given = {
      .struct_size = sizeof given,
      .flags = flags,
      .get_expandable = get_flag,
      .set_expandable = put_flag,
      .stamp = with_stamp ? get_stamp : NULL,
  };
  return drowse_framework_attach(&given);
}

static inline void reset_framework(bool on) {
  memset(&fw, 0, sizeof fw);
  atomic_store(&fw.on, on);
  atomic_store(&fw.other, 42);
}

/* ---- stacks that there are, and those that the arbiter counts */

static size_t stacks_seen, stacks_counted;

static inline void see_stack(struct drowse_stack *stack) {
  stacks_seen++;
  if (atomic_load(&stack->counted)) stacks_counted++;
}

static inline size_t count_stacks(void) {
  stacks_seen = stacks_counted = 0;
  dz_stack_each(see_stack);
  return stacks_seen;
}

static inline size_t count_counted(void) {
  (void)count_stacks();
  return stacks_counted;
}

/* ---- other threads */

static inline void wait_sem(sem_t *semaphore) {
  while (sem_wait(semaphore) != 0) continue;
}

static inline pid_t thread_id(void) {
  return (pid_t)syscall(SYS_gettid);
}

/* Whether a thread of this process waits for something in the kernel. */
static inline bool thread_sleeps(pid_t thread) {
  char path[64], line[256] = "", state = 'R';
  (void)snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)thread);
  FILE *file = fopen(path, "r");
  if (file == NULL) return false;
  if (fgets(line, sizeof line, file) != NULL && strrchr(line, ')') != NULL) state = strrchr(line, ')')[2];
  (void)fclose(file);
  return state == 'S';
}

#endif
