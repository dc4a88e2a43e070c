/* SPDX-License-Identifier: Apache-2.0
 *
 * Children: each runs a function of steps and exits with the number of the first one that went wrong, 0 if none. No assertion
 * runs in a child: another thread may have held the test framework's locks.
 */
#ifndef TESTS_CHILD_H
#define TESTS_CHILD_H

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"

/* Sanitizers and children: their allocators are no match for a fork while other threads allocate, and the one for threads lets no
 * child of a process with threads start any, and knows nothing of a fork that runs no handlers. */
#if defined(__has_feature)
#define SANITIZER_FEATURE(name) __has_feature(name)
#else
#define SANITIZER_FEATURE(name) 0
#endif
#if defined(__SANITIZE_THREAD__) || SANITIZER_FEATURE(thread_sanitizer)
enum { CHILD_MAY_START_THREADS = 0, CHILD_MAY_ALLOCATE = 0, UNTOLD_FORKS = 0, SANITIZED = 1 };
#elif defined(__SANITIZE_ADDRESS__) || SANITIZER_FEATURE(address_sanitizer)
enum { CHILD_MAY_START_THREADS = 1, CHILD_MAY_ALLOCATE = 0, UNTOLD_FORKS = 1, SANITIZED = 1 };
#else
enum { CHILD_MAY_START_THREADS = 1, CHILD_MAY_ALLOCATE = 1, UNTOLD_FORKS = 1, SANITIZED = 0 };
#endif

#define STEP(number, condition) \
  if (!(condition)) return number

/* How a process gets a child. The last two run no handlers. */
enum fork_kind { FORK, UNDERSCORE_FORK, CLONE };
enum { FORK_KINDS = UNTOLD_FORKS ? 3 : 1 };

static inline pid_t fork_by(enum fork_kind kind) {
  switch (kind) {
  case UNDERSCORE_FORK:
    return _Fork();
  case CLONE:
    return (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
  case FORK:
    break;
  }
  return fork();
}

/* How a child ended; a signal is told as 256 and more. A child that hangs is ended by the alarm that it set itself. */
static inline int end_of_child(pid_t child) {
  int status = 0;
  pid_t ended;
  do ended = waitpid(child, &status, 0);
  while (ended < 0 && errno == EINTR);
  if (ended != child) return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
}

static inline int in_child_by(enum fork_kind kind, int (*steps)(void)) {
  pid_t child = fork_by(kind);
  if (child == 0) {
    (void)alarm(60);
    _exit(steps());
  }
  return child < 0 ? -1 : end_of_child(child);
}

static inline int in_child(int (*steps)(void)) {
  return in_child_by(FORK, steps);
}

#define ck_child(steps) ck_assert_int_eq(in_child(steps), 0)

#endif
