/* SPDX-License-Identifier: Apache-2.0
 *
 * The process's log.
 */
#include "core/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>

#include "core/fork.h"
#include "core/lock.h"

struct sink {
  void (*log)(void *context, int level, const char *text);
  void *context;
};

static struct lock sink_lock = DZ_LOCK_INIT(DZ_RANK_LEAF);
static struct sink sink;      /* under sink_lock */
static atomic_int sink_level; /* 0: nobody listens; read without the lock, so that silence costs one load */

DROWSE_API void drowse_log_set(void (*log)(void *context, int level, const char *text), void *context, int level) {
  dz_lock(&sink_lock);
  sink = (struct sink){log, context};
  atomic_store_explicit(&sink_level, log == NULL ? 0 : level, memory_order_relaxed);
  dz_unlock(&sink_lock);
}

void dz_log(int level, const char *format, ...) {
  if (level > atomic_load_explicit(&sink_level, memory_order_relaxed)) return;
  int saved = errno;
  dz_lock(&sink_lock);
  struct sink now = sink;
  dz_unlock(&sink_lock);
  if (now.log != NULL) {
    char text[512];
    va_list values;
    va_start(values, format);
    (void)vsnprintf(text, sizeof text, format, values);
    va_end(values);
    now.log(now.context, level, text);
  }
  errno = saved;
}

/* ---- fork */

static void prepare(void) {
  dz_lock_for_fork(&sink_lock);
}

static void parent(void) {
  dz_unlock_for_fork(&sink_lock);
}

static void child(bool held) {
  if (!held) sink = (struct sink){NULL, NULL}; /* perhaps half written */
  dz_lock_remake(&sink_lock, held);
}

static struct fork_part part = {.rank = DZ_RANK_LEAF, .prepare = prepare, .parent = parent, .child = child};

static __attribute__((constructor)) void begin(void) {
  dz_fork_register(&part);
}
