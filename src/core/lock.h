/* SPDX-License-Identifier: Apache-2.0
 *
 * Locks with ranks. While a thread holds a lock it may take only locks of a higher rank, so no two threads can wait for each
 * other; debug builds check it. No lock is held across a copy, a wait for the device, malloc, a callback, or driver calls on more
 * than one handle.
 */
#ifndef DZ_LOCK_H
#define DZ_LOCK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "config.h"

/* The order in which locks nest: outermost first. */
enum lock_rank {
  DZ_RANK_NAMES,     /* names of tags */
  DZ_RANK_STACKS,    /* the list of all stacks of frames */
  DZ_RANK_ARBITER,   /* waiting for a framework's hook to end */
  DZ_RANK_HEAPS,     /* the list of all heaps */
  DZ_RANK_OPERATION, /* one operation: how far it is, and who waits for it */
  DZ_RANK_HEAP,      /* one heap: tags and their states, segments, the list of operations */
  DZ_RANK_POOL,      /* one pool of a heap: its blocks */
  DZ_RANK_ARENA,     /* one arena: what of it is free */
  DZ_RANK_LEAF       /* nothing is taken inside: the log's sink, a driver's tables */
};

/* Debug builds: asserts that a lock of that rank may be taken, or let go, by this thread. */
#if DZ_DEBUG
void dz_rank_note(enum lock_rank rank, bool taken);
#else
static inline void dz_rank_note(enum lock_rank rank, bool taken) {
  (void)rank;
  (void)taken;
}
#endif

struct lock {
  pthread_mutex_t mutex;
  enum lock_rank rank;
};

#define DZ_LOCK_INIT(rank) \
  { PTHREAD_MUTEX_INITIALIZER, rank }

int dz_lock_init(struct lock *lock, enum lock_rank rank); /* 0 or errno */
void dz_lock_destroy(struct lock *lock);
void dz_lock(struct lock *lock);
void dz_unlock(struct lock *lock);

/* A light lock: two words. Taking one that nobody else wants is one atomic instruction, letting go of it a store and a load,
 * inline; it cannot be waited on with a condition. For what is held for some tens of instructions. Zero: free. */
struct light_lock {
  atomic_uint taken;
  atomic_uint waiters; /* who sleep until it is free, or are about to */
};
void dz_light_wait(struct light_lock *lock);
void dz_light_wake(struct light_lock *lock);

static inline void dz_light_lock(struct light_lock *lock, enum lock_rank rank) {
  unsigned was = 0;
  dz_rank_note(rank, true);
  if (!atomic_compare_exchange_strong_explicit(&lock->taken, &was, 1, memory_order_acquire, memory_order_relaxed))
    dz_light_wait(lock);
}

/* Takes it if that needs no waiting. */
static inline bool dz_light_try(struct light_lock *lock, enum lock_rank rank) {
  unsigned was = 0;
  bool taken = atomic_compare_exchange_strong_explicit(&lock->taken, &was, 1, memory_order_acquire, memory_order_relaxed);
  if (taken) dz_rank_note(rank, true);
  return taken;
}

static inline void dz_light_unlock(struct light_lock *lock, enum lock_rank rank) {
  atomic_store_explicit(&lock->taken, 0, memory_order_release);
  atomic_signal_fence(memory_order_seq_cst); /* the processor may look first all the same: see dz_light_wait() */
  if (atomic_load_explicit(&lock->waiters, memory_order_relaxed) != 0) dz_light_wake(lock);
  dz_rank_note(rank, false);
}

/* For fork's handlers, which take many locks of one rank: not checked. Remake: in a child; taken: by this thread, in prepare,
 * else by whoever is gone. */
void dz_lock_for_fork(struct lock *lock);
void dz_unlock_for_fork(struct lock *lock);
void dz_lock_remake(struct lock *lock, bool taken);

/* Debug builds: asserts that the calling thread holds a lock of that rank. */
void dz_lock_assert_held(const struct lock *lock);

/* Conditions wait by the monotonic clock, so that setting the machine's clock wakes nobody. */
int dz_cond_init(pthread_cond_t *cond); /* 0 or errno */

/* A moment of the monotonic clock, nanoseconds; DZ_NEVER lies behind all of them. */
#define DZ_NEVER INT64_MAX
int64_t dz_now(void);
int64_t dz_deadline(int64_t timeout_ms); /* < 0: DZ_NEVER */

/* Waits for a signal of cond; false: the deadline is over. As ever with conditions it may wake for nothing. */
bool dz_cond_wait(pthread_cond_t *cond, struct lock *lock, int64_t deadline);

#endif
