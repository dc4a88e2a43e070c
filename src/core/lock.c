/* SPDX-License-Identifier: Apache-2.0
 *
 * Ranked locks, and waiting by the monotonic clock.
 */
#include "core/lock.h"

#include <assert.h>
#include <errno.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "core/tls.h"

#if DZ_DEBUG
static DZ_TLS uint32_t held; /* a bit for each rank */

void dz_rank_note(enum lock_rank rank, bool taken) {
  if (taken) {
    assert(held >> rank == 0 && "a lock of this or a higher rank is held already");
    held |= 1u << rank;
  } else {
    assert((held & 1u << rank) != 0 && "this thread does not hold the lock");
    held &= ~(1u << rank);
  }
}

void dz_lock_assert_held(const struct lock *lock) {
  assert((held & 1u << lock->rank) != 0);
}
#else
void dz_lock_assert_held(const struct lock *lock) {
  (void)lock;
}
#endif

int dz_lock_init(struct lock *lock, enum lock_rank rank) {
  lock->rank = rank;
  return pthread_mutex_init(&lock->mutex, NULL);
}

void dz_lock_destroy(struct lock *lock) {
  (void)pthread_mutex_destroy(&lock->mutex);
}

void dz_lock(struct lock *lock) {
  dz_rank_note(lock->rank, true);
  (void)pthread_mutex_lock(&lock->mutex);
}

void dz_unlock(struct lock *lock) {
  (void)pthread_mutex_unlock(&lock->mutex);
  dz_rank_note(lock->rank, false);
}

void dz_lock_for_fork(struct lock *lock) {
  (void)pthread_mutex_lock(&lock->mutex);
}

void dz_unlock_for_fork(struct lock *lock) {
  (void)pthread_mutex_unlock(&lock->mutex);
}

void dz_lock_remake(struct lock *lock, bool taken) {
  static const pthread_mutex_t made = PTHREAD_MUTEX_INITIALIZER;
  if (taken)
    (void)pthread_mutex_unlock(&lock->mutex);
  else
    lock->mutex = made;
}

/* ---- light locks. The futex is where those sleep who found the lock taken for longer than it takes to look again a few times.
 *
 * Whoever lets go stores that it is free, and then looks whether somebody waits, with no barrier between the two, because that
 * would cost as much as all the rest. So whoever is going to wait first says so and then has the system put a barrier into every
 * running thread of the process: behind it a thread that did not see him has made its store, which he sees, and any other sees
 * him. Where the system has no such barrier he looks again from time to time. */

enum { LOOKS = 100 };
static const struct timespec look_again = {.tv_nsec = 1000000};

static bool try_light(struct light_lock *lock) {
  unsigned was = 0;
  return atomic_load_explicit(&lock->taken, memory_order_relaxed) == 0 &&
         atomic_compare_exchange_strong_explicit(&lock->taken, &was, 1, memory_order_acquire, memory_order_relaxed);
}

/* A process has to register once, and, on some systems, once more when it has been forked. */
static bool put_barrier_into_all_threads(void) {
  if (syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0) return true;
  return errno == EPERM && syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0 &&
         syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0;
}

static void sleep_on(struct light_lock *lock) {
  atomic_fetch_add(&lock->waiters, 1);
  const struct timespec *timeout = put_barrier_into_all_threads() ? NULL : &look_again;
  while (!try_light(lock)) (void)syscall(SYS_futex, &lock->taken, FUTEX_WAIT_PRIVATE, 1, timeout, NULL, 0);
  atomic_fetch_sub(&lock->waiters, 1);
}

void dz_light_wait(struct light_lock *lock) {
  int saved = errno;
  bool taken = false;
  for (int looks = 0; looks < LOOKS && !taken; looks++) taken = try_light(lock);
  if (!taken) sleep_on(lock);
  errno = saved;
}

void dz_light_wake(struct light_lock *lock) {
  int saved = errno;
  (void)syscall(SYS_futex, &lock->taken, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
  errno = saved;
}

int dz_cond_init(pthread_cond_t *cond) {
  pthread_condattr_t attributes;
  int code = pthread_condattr_init(&attributes);
  if (code != 0) return code;
  code = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  if (code == 0) code = pthread_cond_init(cond, &attributes);
  (void)pthread_condattr_destroy(&attributes);
  return code;
}

static const int64_t second = 1000000000;

int64_t dz_now(void) {
  struct timespec now;
  (void)clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * second + now.tv_nsec;
}

int64_t dz_deadline(int64_t timeout_ms) {
  int64_t now = dz_now();
  if (timeout_ms < 0 || timeout_ms > (DZ_NEVER - now) / 1000000) return DZ_NEVER;
  return now + timeout_ms * 1000000;
}

bool dz_cond_wait(pthread_cond_t *cond, struct lock *lock, int64_t deadline) {
  int code, cancel;
  (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel); /* a thread canceled here would die with the lock */
  if (deadline == DZ_NEVER) {
    code = pthread_cond_wait(cond, &lock->mutex);
  } else {
    struct timespec until = {.tv_sec = deadline / second, .tv_nsec = deadline % second};
    code = pthread_cond_timedwait(cond, &lock->mutex, &until);
  }
  (void)pthread_setcancelstate(cancel, NULL);
  return code != ETIMEDOUT;
}
