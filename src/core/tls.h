/* SPDX-License-Identifier: Apache-2.0
 *
 * Thread-local storage. A library that is opened at run time shares a small static reserve with all others, and only that can be
 * reached without __tls_get_addr(), which may allocate and is not async-signal-safe. So: initial-exec, and at most 64 bytes in
 * all of drowse, pointers to records that are made at first use.
 */
#ifndef DZ_TLS_H
#define DZ_TLS_H

#include <pthread.h>
#include <stdatomic.h>

#define DZ_TLS _Thread_local __attribute__((tls_model("initial-exec")))

/* A key by which a thread's end is heard of, made at its first use; zero before. Made anew where that failed: unlike by
 * pthread_once(), which would have it failed for good. */
struct thread_key {
  atomic_uint number; /* the key + 1 */
};

static inline pthread_key_t dz_key(const struct thread_key *key) {
  return (pthread_key_t)(atomic_load(&key->number) - 1);
}

/* 0 or errno. Threads that come at the same time each make one: the first wins. */
static inline int dz_key_make(struct thread_key *key, void (*end)(void *value)) {
  pthread_key_t made;
  unsigned none = 0;
  if (atomic_load(&key->number) != 0) return 0;
  int code = pthread_key_create(&made, end);
  if (code == 0 && !atomic_compare_exchange_strong(&key->number, &none, (unsigned)made + 1)) (void)pthread_key_delete(made);
  return code;
}

#endif
