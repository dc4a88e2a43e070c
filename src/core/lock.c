/* SPDX-License-Identifier: Apache-2.0
 *
 * Ranked locks, and waiting by the monotonic clock.
 */
#include "core/lock.h"

#include <assert.h>
#include <errno.h>
#include <time.h>

#include "config.h"
#include "core/tls.h"

#if DZ_DEBUG
static DZ_TLS uint32_t held; /* a bit for each rank */

static void note_locked(const struct lock *lock) {
  assert(held >> lock->rank == 0 && "a lock of this or a higher rank is held already");
  held |= 1u << lock->rank;
}

static void note_unlocked(const struct lock *lock) {
  assert((held & 1u << lock->rank) != 0 && "this thread does not hold the lock");
  held &= ~(1u << lock->rank);
}

void dz_lock_assert_held(const struct lock *lock) {
  assert((held & 1u << lock->rank) != 0);
}
#else
static void note_locked(const struct lock *lock) {
  (void)lock;
}

static void note_unlocked(const struct lock *lock) {
  (void)lock;
}

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
  note_locked(lock);
  (void)pthread_mutex_lock(&lock->mutex);
}

void dz_unlock(struct lock *lock) {
  (void)pthread_mutex_unlock(&lock->mutex);
  note_unlocked(lock);
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
