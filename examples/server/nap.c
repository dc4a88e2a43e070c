/* SPDX-License-Identifier: Apache-2.0
 *
 * Sleeping by itself, when there has been no request for some time.
 */
#include "nap.h"

#include <string.h>

#include "clock.h"
#include "say.h"

static void wait_until(struct nap *nap, int64_t ns) {
  struct timespec time = {.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
  (void)pthread_cond_timedwait(&nap->changed, &nap->lock, &time);
}

/* Without the lock meanwhile. One that was called off is tried again when whoever did so is through; one that failed, in as much
 * time again. */
static void sleep_now(struct nap *nap) {
  nap->wanted = false;
  (void)pthread_mutex_unlock(&nap->lock);
  drowse_status status = keeper_sleep(nap->keeper, INT64_MAX, true);
  if (status != DROWSE_OK && status != DROWSE_ERR_CANCELED) say("going to sleep: %s", reason(status));
  (void)pthread_mutex_lock(&nap->lock);
  if (status == DROWSE_OK) return;
  nap->used_at = now_ns();
  nap->wanted = true;
}

static void *run(void *context) {
  struct nap *nap = context;
  (void)pthread_mutex_lock(&nap->lock);
  while (!nap->stopping) {
    if (nap->in_use > 0 || !nap->wanted)
      (void)pthread_cond_wait(&nap->changed, &nap->lock);
    else if (now_ns() < nap->used_at + nap->idle_ns)
      wait_until(nap, nap->used_at + nap->idle_ns);
    else
      sleep_now(nap);
  }
  (void)pthread_mutex_unlock(&nap->lock);
  return NULL;
}

bool nap_start(struct nap *nap, struct keeper *keeper, unsigned idle_ms) {
  pthread_condattr_t attributes;
  *nap = (struct nap){.keeper = keeper, .idle_ns = (int64_t)idle_ms * 1000000, .used_at = now_ns(), .wanted = true};
  (void)pthread_mutex_init(&nap->lock, NULL);
  (void)pthread_condattr_init(&attributes);
  (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  (void)pthread_cond_init(&nap->changed, &attributes);
  (void)pthread_condattr_destroy(&attributes);
  int code = idle_ms == 0 ? 0 : pthread_create(&nap->thread, NULL, run, nap);
  if (code != 0) say("no thread to sleep by itself: %s", strerror(code));
  return code == 0;
}

void nap_stop(struct nap *nap) {
  (void)pthread_mutex_lock(&nap->lock);
  nap->stopping = true;
  (void)pthread_cond_signal(&nap->changed);
  (void)pthread_mutex_unlock(&nap->lock);
  if (nap->idle_ns > 0) (void)pthread_join(nap->thread, NULL);
  (void)pthread_cond_destroy(&nap->changed);
  (void)pthread_mutex_destroy(&nap->lock);
}

void nap_not_now(struct nap *nap) {
  (void)pthread_mutex_lock(&nap->lock);
  nap->in_use++;
  (void)pthread_mutex_unlock(&nap->lock);
}

void nap_later(struct nap *nap) {
  (void)pthread_mutex_lock(&nap->lock);
  nap->in_use--;
  nap->used_at = now_ns();
  nap->wanted = true;
  (void)pthread_cond_signal(&nap->changed);
  (void)pthread_mutex_unlock(&nap->lock);
}
