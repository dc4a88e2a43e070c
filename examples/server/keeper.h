/* SPDX-License-Identifier: Apache-2.0
 *
 * Who may use the weights now, and who has to wait: sleeping, waking, and the claim that each request has on the memory while it
 * uses it.
 */
#ifndef SERVER_KEEPER_H
#define SERVER_KEEPER_H

#include <pthread.h>

#include "drowse.h"
#include "options.h"

struct keeper {
  drowse_heap *heap;
  const drowse_tag *weights;
  drowse_sleep_options sleeping;
  drowse_wake_options waking;
  pthread_mutex_t lock; /* of what follows */
  struct motion *current;
  bool stopping;
};

/* The weights and the cache are there. */
void keeper_start(struct keeper *keeper, drowse_heap *heap, const struct options *options);

/* From here on nothing begins, and what goes on is called off: nobody waits for long. */
void keeper_stop(struct keeper *keeper);

/* Nobody uses it any more. The heap is still open. */
void keeper_end(struct keeper *keeper);

/* Sees to it that the weights are awake and stay so until keeper_let_go(). *woke: it was this call that began to wake them.
 * Fails with what waking fails with, and DROWSE_ERR_TIMEOUT: waking goes on. */
drowse_status keeper_hold(struct keeper *keeper, int64_t until_ns, bool *woke);
void keeper_let_go(struct keeper *keeper);

/* Wakes weights and cache. Fails likewise; the weights may be awake then and the cache asleep. */
drowse_status keeper_wake(struct keeper *keeper, int64_t until_ns, bool *woke);

/* Puts both to sleep once no request uses them. nap: nobody has asked for it, and whoever needs the weights meanwhile calls it
 * off: DROWSE_ERR_CANCELED. */
drowse_status keeper_sleep(struct keeper *keeper, int64_t until_ns, bool nap);

/* What the weights are doing. */
drowse_state keeper_state(struct keeper *keeper);

#endif
