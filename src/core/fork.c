/* SPDX-License-Identifier: Apache-2.0
 *
 * Forks: the one place with handlers.
 */
#include "core/fork.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

static struct fork_part *parts; /* by rank; registered before a second thread is, or under parts_lock */
static pthread_mutex_t parts_lock = PTHREAD_MUTEX_INITIALIZER;
atomic_uint_fast64_t dz_fork_number = 1; /* the generation */

/* In a page that the kernel empties in the child of whatever kind of fork: 0 there. Where it does not know how, a plain variable,
 * and forks without handlers are not noticed. */
static atomic_int plain_cell = DZ_FORK_QUIET;
atomic_int *dz_fork_cell = &plain_cell;

static sigset_t mask_before; /* of the forking thread, under parts_lock */

/* A handler of the user's must not run in the middle: it might call drowse, which would wait for locks that its own thread holds.
 */
static void prepare(void) {
  int saved = errno;
  sigset_t all, before;
  (void)sigfillset(&all);
  (void)pthread_sigmask(SIG_SETMASK, &all, &before);
  (void)pthread_mutex_lock(&parts_lock);
  mask_before = before;
  for (struct fork_part *part = parts; part != NULL; part = part->next) part->prepare();
  errno = saved;
}

/* The lock and the mask come last, the mask read before the lock goes. */
static void finish(void) {
  sigset_t before = mask_before;
  (void)pthread_mutex_unlock(&parts_lock);
  (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void release(struct fork_part *part) {
  if (part == NULL) return;
  release(part->next); /* in the reverse order */
  part->parent();
}

static void parent(void) {
  int saved = errno;
  release(parts);
  finish();
  errno = saved;
}

static void begin_generation(bool held) {
  (void)atomic_fetch_add_explicit(&dz_fork_number, 1, memory_order_relaxed);
  atomic_store_explicit(dz_fork_cell, DZ_FORK_QUIET, memory_order_relaxed);
  for (struct fork_part *part = parts; part != NULL; part = part->next) part->child(held);
}

static void child(void) {
  int saved = errno;
  begin_generation(true);
  finish();
  errno = saved;
}

/* The child of a fork without handlers: locks are as other threads left them. Nobody else is there. */
static __attribute__((noinline)) void notice_fork(void) {
  static const pthread_mutex_t new_lock = PTHREAD_MUTEX_INITIALIZER;
  sigset_t all, before;
  (void)sigfillset(&all);
  (void)pthread_sigmask(SIG_SETMASK, &all, &before);
  parts_lock = new_lock;
  begin_generation(false);
  (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
}

uint64_t dz_fork_generation(void) {
  if (__builtin_expect(atomic_load_explicit(dz_fork_cell, memory_order_relaxed) == 0, 0)) notice_fork();
  return atomic_load_explicit(&dz_fork_number, memory_order_relaxed);
}

void dz_fork_pend(void) {
  atomic_store_explicit(dz_fork_cell, DZ_FORK_PENDING, memory_order_relaxed);
}

bool dz_fork_settle(void) {
  int pending = DZ_FORK_PENDING;
  (void)dz_fork_generation();
  return atomic_compare_exchange_strong(dz_fork_cell, &pending, DZ_FORK_QUIET);
}

/* Handlers are there before a second thread can be, and the library is never unloaded from under them (-z nodelete). */
static __attribute__((constructor)) void begin(void) {
  size_t bytes = (size_t)sysconf(_SC_PAGESIZE);
  void *page = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page != MAP_FAILED && madvise(page, bytes, MADV_WIPEONFORK) == 0) {
    dz_fork_cell = page;
    atomic_store_explicit(dz_fork_cell, DZ_FORK_QUIET, memory_order_relaxed);
  } else if (page != MAP_FAILED) {
    (void)munmap(page, bytes);
  }
  (void)pthread_atfork(prepare, parent, child);
}

void dz_fork_register(struct fork_part *part) {
  (void)pthread_mutex_lock(&parts_lock);
  struct fork_part **at = &parts;
  while (*at != NULL && (*at)->rank <= part->rank) at = &(*at)->next;
  part->next = *at;
  *at = part;
  (void)pthread_mutex_unlock(&parts_lock);
}
