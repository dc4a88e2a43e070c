/* SPDX-License-Identifier: Apache-2.0
 *
 * Threads of the library's own.
 */
#include "core/thread.h"

#include <signal.h>

int dz_thread_start(pthread_t *thread, const char *name, void *(*run)(void *argument), void *argument) {
  sigset_t all, before;
  (void)sigfillset(&all);
  (void)pthread_sigmask(SIG_SETMASK, &all, &before);
  int code = pthread_create(thread, NULL, run, argument);
  (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (code == 0) (void)pthread_setname_np(*thread, name);
  return code;
}

void dz_thread_join(pthread_t thread) {
  int cancel;
  (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
  (void)pthread_join(thread, NULL);
  (void)pthread_setcancelstate(cancel, NULL);
}
