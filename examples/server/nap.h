/* SPDX-License-Identifier: Apache-2.0
 *
 * Sleeping by itself, when there has been no request for some time.
 */
#ifndef SERVER_NAP_H
#define SERVER_NAP_H

#include <pthread.h>

#include "keeper.h"

struct nap {
  struct keeper *keeper;
  int64_t idle_ns;
  pthread_t thread;
  pthread_mutex_t lock; /* of what follows */
  pthread_cond_t changed;
  unsigned in_use; /* requests that need the weights, at this moment */
  int64_t used_at; /* when the last one ended */
  bool wanted;     /* there has been one since the last nap */
  bool stopping;
};

/* idle_ms 0: it never sleeps by itself. False: there is no thread for it. */
bool nap_start(struct nap *nap, struct keeper *keeper, unsigned idle_ms);
void nap_stop(struct nap *nap);

/* Around whatever needs the weights, or has just woken them. */
void nap_not_now(struct nap *nap);
void nap_later(struct nap *nap);

#endif
