/* SPDX-License-Identifier: Apache-2.0
 *
 * Ranked locks and waiting. That debug builds abort on a lock taken out of rank is seen in forked children, whatever CK_FORK
 * says.
 */
#include "core/lock.h"

#include <sched.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "config.h"
#include "harness.h"

static struct lock names = DZ_LOCK_INIT(DZ_RANK_NAMES), heap = DZ_LOCK_INIT(DZ_RANK_HEAP), heap_2 = DZ_LOCK_INIT(DZ_RANK_HEAP),
                   leaf = DZ_LOCK_INIT(DZ_RANK_LEAF);

START_TEST(locks_nest_by_rank) {
  for (int i = 0; i < 2; i++) {
    dz_lock(&names);
    dz_lock(&heap);
    dz_lock(&leaf);
    dz_lock_assert_held(&heap);
    dz_unlock(&leaf);
    dz_unlock(&heap);
    dz_lock(&heap_2);
    dz_unlock(&heap_2);
    dz_unlock(&names);
  }
}
END_TEST

START_TEST(locks_are_let_go_in_any_order) {
  dz_lock(&names);
  dz_lock(&leaf);
  dz_unlock(&names);
  dz_unlock(&leaf);
  dz_lock(&names);
  dz_unlock(&names);
}
END_TEST

#if DZ_DEBUG
/* Whether the violation aborts a child. */
static bool aborts(void (*violate)(void)) {
  int status = 0;
  pid_t child = fork();
  ck_assert_int_ge(child, 0);
  if (child == 0) {
    (void)setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    (void)close(STDERR_FILENO); /* where the assertion would be told */
    violate();
    _exit(0);
  }
  ck_assert_int_eq(waitpid(child, &status, 0), child);
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void lock_in_order(void) {
  dz_lock(&heap);
  dz_lock(&leaf);
}

static void lock_outer_inside_inner(void) {
  dz_lock(&heap);
  dz_lock(&names);
}

static void lock_two_of_one_rank(void) {
  dz_lock(&heap);
  dz_lock(&heap_2);
}

static void unlock_what_is_not_held(void) {
  dz_lock(&names);
  (void)pthread_mutex_lock(&heap.mutex);
  dz_unlock(&heap);
}

static void assert_what_is_not_held(void) {
  dz_lock(&names);
  dz_lock_assert_held(&heap);
}

START_TEST(violations_abort) {
  ck_assert(!aborts(lock_in_order));
  ck_assert(aborts(lock_outer_inside_inner));
  ck_assert(aborts(lock_two_of_one_rank));
  ck_assert(aborts(unlock_what_is_not_held));
  ck_assert(aborts(assert_what_is_not_held));
}
END_TEST
#endif

START_TEST(deadlines_are_moments_of_the_monotonic_clock) {
  int64_t before = dz_now();
  ck_assert_int_ge(dz_deadline(0), before);
  ck_assert_int_ge(dz_deadline(1000), before + INT64_C(1000000000));
  ck_assert_int_lt(dz_deadline(1000), DZ_NEVER);
  ck_assert_int_eq(dz_deadline(-1), DZ_NEVER);
  ck_assert_int_eq(dz_deadline(INT64_MAX), DZ_NEVER); /* not an overflow into the past */
  ck_assert_int_eq(dz_deadline(INT64_MAX / 1000000), DZ_NEVER);
}
END_TEST

struct signaled {
  struct lock lock;
  pthread_cond_t cond;
  bool done;
};

static void *signal_it(void *argument) {
  struct signaled *signaled = argument;
  dz_lock(&signaled->lock);
  signaled->done = true;
  (void)pthread_cond_signal(&signaled->cond);
  dz_unlock(&signaled->lock);
  return NULL;
}

START_TEST(waiting_ends_by_signal_or_deadline) {
  struct signaled signaled = {.done = false};
  pthread_t thread;
  ck_assert_int_eq(dz_lock_init(&signaled.lock, DZ_RANK_HEAP), 0);
  ck_assert_int_eq(dz_cond_init(&signaled.cond), 0);
  dz_lock(&signaled.lock);
  while (dz_cond_wait(&signaled.cond, &signaled.lock, dz_deadline(1))) continue;
  ck_assert_int_eq(pthread_create(&thread, NULL, signal_it, &signaled), 0);
  while (!signaled.done) ck_assert(dz_cond_wait(&signaled.cond, &signaled.lock, DZ_NEVER));
  dz_unlock(&signaled.lock);
  ck_assert_int_eq(pthread_join(thread, NULL), 0);
  (void)pthread_cond_destroy(&signaled.cond);
  dz_lock_destroy(&signaled.lock);
}
END_TEST

/* ---- light locks */

enum { COUNTERS = 8, COUNTS = 20000 };

static struct light_lock light;
static unsigned counted; /* under it */

static void *count_up(void *nothing) {
  for (int i = 0; i < COUNTS; i++) {
    dz_light_lock(&light, DZ_RANK_POOL);
    counted++;
    if (i % 100 == 0) sched_yield(); /* so that others do not get it by looking again */
    dz_light_unlock(&light, DZ_RANK_POOL);
  }
  return nothing;
}

START_TEST(a_light_lock_lets_one_in_at_a_time) {
  pthread_t threads[COUNTERS];
  counted = 0;
  for (int i = 0; i < COUNTERS; i++) ck_assert_int_eq(pthread_create(&threads[i], NULL, count_up, NULL), 0);
  for (int i = 0; i < COUNTERS; i++) ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
  ck_assert_uint_eq(counted, COUNTERS * COUNTS);
  ck_assert_uint_eq(light.waiters, 0);
  ck_assert_uint_eq(light.taken, 0);
}
END_TEST

START_TEST(who_sleeps_on_a_light_lock_is_woken) {
  pthread_t thread;
  for (int round = 0; round < 200; round++) {
    counted = 0;
    dz_light_lock(&light, DZ_RANK_POOL);
    ck_assert_int_eq(pthread_create(&thread, NULL, count_up, NULL), 0);
    while (atomic_load(&light.waiters) == 0) sched_yield();
    ck_assert_uint_eq(counted, 0);
    dz_light_unlock(&light, DZ_RANK_POOL);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert_uint_eq(counted, COUNTS);
  }
}
END_TEST

int main(void) {
  Suite *suite = suite_create("lock");
  HARNESS_TEST(suite, locks_nest_by_rank);
  HARNESS_TEST(suite, locks_are_let_go_in_any_order);
#if DZ_DEBUG
  HARNESS_TEST(suite, violations_abort);
#endif
  HARNESS_TEST(suite, deadlines_are_moments_of_the_monotonic_clock);
  HARNESS_TEST(suite, waiting_ends_by_signal_or_deadline);
  HARNESS_TEST(suite, a_light_lock_lets_one_in_at_a_time);
  HARNESS_TEST(suite, who_sleeps_on_a_light_lock_is_woken);
  return harness_run(suite);
}
