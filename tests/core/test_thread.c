/* SPDX-License-Identifier: Apache-2.0
 *
 * Threads of the library's own: no signal reaches them, they have a name, and are joined also where a thread is being canceled.
 */
#include "core/thread.h"

#include <semaphore.h>
#include <signal.h>
#include <stdbool.h>

#include "harness.h"

enum { STANDARD_SIGNALS = 32 };

static char name[16];
static bool blocks_all;

static sem_t seen; /* its name: an ended thread has none */

static void *look_around(void *argument) {
  sigset_t blocked;
  int caught = 0;
  (void)pthread_sigmask(SIG_SETMASK, NULL, &blocked);
  for (int number = 1; number < STANDARD_SIGNALS; number++)
    caught += number != SIGKILL && number != SIGSTOP && sigismember(&blocked, number) == 0;
  blocks_all = caught == 0;
  while (sem_wait(&seen) != 0) continue;
  return argument;
}

START_TEST(no_signal_reaches_them) {
  sigset_t before, after;
  pthread_t thread;
  (void)pthread_sigmask(SIG_SETMASK, NULL, &before);
  ck_assert_int_eq(sem_init(&seen, 0, 0), 0);
  ck_assert_int_eq(dz_thread_start(&thread, "drowse-test", look_around, NULL), 0);
  ck_assert_int_eq(pthread_getname_np(thread, name, sizeof name), 0);
  (void)sem_post(&seen);
  dz_thread_join(thread);
  ck_assert_str_eq(name, "drowse-test");
  ck_assert(blocks_all);
  (void)pthread_sigmask(SIG_SETMASK, NULL, &after);
  for (int number = 1; number < STANDARD_SIGNALS; number++)
    ck_assert_int_eq(sigismember(&before, number), sigismember(&after, number));
}
END_TEST

static bool joined;

static void *join_while_canceled(void *thread) {
  (void)pthread_cancel(pthread_self());
  dz_thread_join(*(pthread_t *)thread);
  joined = true;
  return NULL;
}

START_TEST(a_canceled_thread_joins_first) {
  pthread_t thread, joiner;
  ck_assert_int_eq(sem_init(&seen, 0, 1), 0);
  ck_assert_int_eq(dz_thread_start(&thread, "drowse-test", look_around, NULL), 0);
  ck_assert_int_eq(pthread_create(&joiner, NULL, join_while_canceled, &thread), 0);
  ck_assert_int_eq(pthread_join(joiner, NULL), 0);
  ck_assert(joined);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("thread");
  HARNESS_TEST(suite, no_signal_reaches_them);
  HARNESS_TEST(suite, a_canceled_thread_joins_first);
  return harness_run(suite);
}
