/* SPDX-License-Identifier: Apache-2.0
 *
 * A sequence in a process of its own, so that whatever it does, crash or hang, is told, and can be tried again.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "model/model.h"

enum { PATIENCE_S = 100 }; /* under valgrind a sequence takes seconds */

/* What the process leaves. */
static struct report {
  atomic_bool failed;
  char failure[1024];
  pthread_mutex_t lock;
  size_t length;
  char story[128 * 1024];
} * report;

static void note_line(const char *line) {
  (void)pthread_mutex_lock(&report->lock);
  size_t room = sizeof report->story - report->length;
  int length = snprintf(report->story + report->length, room, "%s\n", line);
  if (length > 0 && (size_t)length < room) report->length += (size_t)length;
  (void)pthread_mutex_unlock(&report->lock);
}

/* The first failure counts. */
static void note_failure(const char *what) {
  if (!atomic_exchange(&report->failed, true)) (void)snprintf(report->failure, sizeof report->failure, "%s", what);
  _exit(EXIT_FAILURE);
}

static void begin_report(void) {
  pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  if (report == NULL) report = mmap(NULL, sizeof *report, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (report == MAP_FAILED) abort();
  memset(report, 0, offsetof(struct report, story) + 1);
  report->lock = lock;
}

static void run(const struct sequence *sequence, bool tells) {
  (void)alarm(PATIENCE_S);
  model_failed = note_failure;
  run_prepare();
  if (tells) model_tell = note_line;
  run_sequence(sequence);
  exit(EXIT_SUCCESS); /* a sanitizer may have something to say */
}

bool child_run(const struct sequence *sequence, char *failure, size_t failure_size, char *story, size_t story_size) {
  begin_report();
  (void)fflush(NULL);
  pid_t child = fork();
  if (child == 0) run(sequence, story != NULL);
  int ended = 0;
  while (child > 0 && waitpid(child, &ended, 0) < 0 && errno == EINTR) continue;
  if (story != NULL) (void)snprintf(story, story_size, "%s", report->story);
  if (child > 0 && WIFEXITED(ended) && WEXITSTATUS(ended) == 0) return true;
  if (child < 0)
    (void)snprintf(failure, failure_size, "no process: %s", strerror(errno));
  else if (report->failure[0] != '\0')
    (void)snprintf(failure, failure_size, "%s", report->failure);
  else if (WIFSIGNALED(ended) && WTERMSIG(ended) == SIGALRM)
    (void)snprintf(failure, failure_size, "it hangs");
  else
    (void)snprintf(failure, failure_size, "it is %s %d", WIFSIGNALED(ended) ? "killed by signal" : "ended with status",
                   WIFSIGNALED(ended) ? WTERMSIG(ended) : WEXITSTATUS(ended));
  return false;
}
