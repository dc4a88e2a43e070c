/* SPDX-License-Identifier: Apache-2.0
 *
 * One sleep or wake at a time, and everybody who needs its end waits for the same one.
 *
 * A tag in motion takes no second order: DROWSE_ERR_BUSY. So the operation that is under way is known here, whoever comes joins
 * it, and then looks again. Each waits with his own deadline, and drowse_op_wait() gives each the operation's error in words.
 */
#include "keeper.h"

#include <stdlib.h>

#include "cache.h"
#include "clock.h"
#include "model.h"

/* In the order in which they wake: what a request cannot do without comes first. */
static const char *const tags[] = {MODEL_TAG, CACHE_TAG};
static const drowse_rule rules[] = {{.tag = MODEL_TAG, .action = DROWSE_OFFLOAD}, {.tag = CACHE_TAG, .action = DROWSE_DISCARD}};

enum { TAGS = sizeof tags / sizeof *tags };

enum kind { WAKE, SLEEP, NAP };

struct motion {
  drowse_op *op;
  enum kind kind;
  unsigned waiting; /* how many wait for it; with the keeper's lock */
};

void keeper_start(struct keeper *keeper, drowse_heap *heap, const struct options *options) {
  *keeper = (struct keeper){
      .heap = heap,
      .weights = drowse_tag_get(MODEL_TAG), /* not NULL: the name is in use */
      .sleeping = {.struct_size = sizeof keeper->sleeping,
                   .drain_timeout_ms = options->deadline_ms,
                   .backup = options->directory == NULL ? DROWSE_BACKUP_HOST : DROWSE_BACKUP_HOST_THEN_FILE,
                   .directory = options->directory},
      /* POISON: what was discarded is no answer, and a cache that took it for one would show. */
      .waking = {.struct_size = sizeof keeper->waking, .flags = DROWSE_WAKE_POISON, .deadline_ms = options->patience_ms},
  };
  (void)pthread_mutex_init(&keeper->lock, NULL);
}

static void forget(struct motion *motion) {
  drowse_op_release(motion->op);
  free(motion);
}

void keeper_stop(struct keeper *keeper) {
  (void)pthread_mutex_lock(&keeper->lock);
  keeper->stopping = true;
  if (keeper->current != NULL) (void)drowse_op_cancel(keeper->current->op);
  (void)pthread_mutex_unlock(&keeper->lock);
}

void keeper_end(struct keeper *keeper) {
  if (keeper->current != NULL) forget(keeper->current);
  (void)pthread_mutex_destroy(&keeper->lock);
}

/* ---- one motion: begun, joined, left */

/* With the lock: it only starts the operation. */
static drowse_status begin(struct keeper *keeper, enum kind kind) {
  struct motion *motion = malloc(sizeof *motion);
  if (motion == NULL) return DROWSE_ERR_NO_HOST_MEMORY;
  *motion = (struct motion){.kind = kind};
  drowse_status status = kind == WAKE ? drowse_wake_start(keeper->heap, tags, TAGS, &keeper->waking, &motion->op)
                                      : drowse_sleep_start(keeper->heap, rules, TAGS, &keeper->sleeping, &motion->op);
  if (status == DROWSE_OK)
    keeper->current = motion;
  else
    free(motion);
  return status;
}

/* Forgets one that has ended while nobody waited: how it ended is no answer for those who come now. With the lock. */
static void forget_ended(struct keeper *keeper) {
  struct motion *motion = keeper->current;
  if (motion == NULL || motion->waiting > 0 || drowse_op_wait(motion->op, 0) == DROWSE_ERR_TIMEOUT) return;
  keeper->current = NULL;
  forget(motion);
}

/* Joins what is under way, else begins what is wanted. */
static drowse_status join(struct keeper *keeper, enum kind kind, struct motion **motion, bool *began) {
  drowse_status status = DROWSE_OK;
  (void)pthread_mutex_lock(&keeper->lock);
  forget_ended(keeper);
  if (keeper->stopping) {
    status = DROWSE_ERR_CANCELED;
  } else if (keeper->current == NULL) {
    status = begin(keeper, kind);
    if (status == DROWSE_OK) *began = true;
  } else if (kind == WAKE && keeper->current->kind == NAP) {
    (void)drowse_op_cancel(keeper->current->op);
  }
  if (status == DROWSE_OK) {
    *motion = keeper->current;
    (*motion)->waiting++;
  }
  (void)pthread_mutex_unlock(&keeper->lock);
  return status;
}

static void leave(struct keeper *keeper, struct motion *motion, bool ended) {
  (void)pthread_mutex_lock(&keeper->lock);
  if (ended && keeper->current == motion) keeper->current = NULL;
  bool last = --motion->waiting == 0 && keeper->current != motion;
  (void)pthread_mutex_unlock(&keeper->lock);
  if (last) forget(motion);
}

/* Waits for the end of what is under way, which is begun if there is nothing. *again: it was something else than what is wanted.
 */
static drowse_status take_part(struct keeper *keeper, enum kind kind, int64_t until_ns, bool *began, bool *again) {
  struct motion *motion;
  *again = false;
  drowse_status status = join(keeper, kind, &motion, began);
  if (status != DROWSE_OK) return status;
  bool other = (motion->kind == WAKE) != (kind == WAKE);
  status = drowse_op_wait(motion->op, left_ms(until_ns));
  leave(keeper, motion, status != DROWSE_ERR_TIMEOUT);
  *again = other && status != DROWSE_ERR_TIMEOUT;
  return status;
}

static drowse_status move(struct keeper *keeper, enum kind kind, int64_t until_ns, bool *began) {
  bool again;
  drowse_status status;
  do status = take_part(keeper, kind, until_ns, began, &again);
  while (again);
  return status;
}

drowse_status keeper_wake(struct keeper *keeper, int64_t until_ns, bool *woke) {
  return move(keeper, WAKE, until_ns, woke);
}

drowse_status keeper_sleep(struct keeper *keeper, int64_t until_ns, bool nap) {
  bool began = false;
  return move(keeper, nap ? NAP : SLEEP, until_ns, &began);
}

/* ---- what a request does */

drowse_state keeper_state(struct keeper *keeper) {
  drowse_stats stats = {.struct_size = sizeof stats};
  return drowse_stats_get(keeper->heap, MODEL_TAG, &stats) == DROWSE_OK ? stats.state : DROWSE_POISONED;
}

drowse_status keeper_hold(struct keeper *keeper, int64_t until_ns, bool *woke) {
  for (;;) {
    bool again;
    /* While the weights are awake this is all that a request pays. */
    drowse_status status = drowse_hold_tag(keeper->heap, keeper->weights, 0);
    if (status != DROWSE_ERR_TIMEOUT) return status;
    status = take_part(keeper, WAKE, until_ns, woke, &again);
    /* Now they are awake, or were: somebody may have put them to sleep again before they are held. Or it is only the cache that
     * could not be woken, and the request can do without. Or a nap was called off. So look again. */
    if (status != DROWSE_OK && !again && keeper_state(keeper) != DROWSE_AWAKE) return status;
  }
}

void keeper_let_go(struct keeper *keeper) {
  (void)drowse_unhold_tag(keeper->heap, keeper->weights);
}
