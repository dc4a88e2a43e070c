/* SPDX-License-Identifier: Apache-2.0
 *
 * What bench/scope compares with.
 */
#include "plt.h"

#include <pthread.h>

enum { DEPTH = 1024 };

PLT_API void plt_empty_enter(void) {
}

PLT_API void plt_empty_leave(void) {
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *names[DEPTH];
static unsigned depth;

PLT_API void plt_mutex_enter(const char *name) {
  (void)pthread_mutex_lock(&lock);
  names[depth++ % DEPTH] = name;
  (void)pthread_mutex_unlock(&lock);
}

PLT_API void plt_mutex_leave(void) {
  (void)pthread_mutex_lock(&lock);
  names[--depth % DEPTH] = NULL;
  (void)pthread_mutex_unlock(&lock);
}
