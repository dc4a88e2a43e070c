/* SPDX-License-Identifier: Apache-2.0
 *
 * Another user of the device, with a heap of its own, as a second model would have. What the pressure hook asks to yield.
 */
#ifndef SERVER_TENANT_H
#define SERVER_TENANT_H

#include <pthread.h>

#include "drowse.h"

struct tenant_figures {
  uint64_t bytes;          /* what it holds */
  uint64_t asked, yielded; /* how many times */
};

struct tenant {
  drowse_heap *heap;    /* NULL: there is no tenant */
  pthread_mutex_t lock; /* of what follows */
  struct tenant_figures figures;
  bool yields;
};

/* Before the server's own heap is opened, whose hook may ask it. */
void tenant_make(struct tenant *tenant);

/* Opens its heap; false: why not has been said. */
bool tenant_start(struct tenant *tenant, const char *device);

/* Behind the server's own heap. */
void tenant_end(struct tenant *tenant);

/* Has it hold as much, in place of what it held, and yield that when it is asked to, or not. After a failure it holds nothing. */
drowse_status tenant_hold(struct tenant *tenant, uint64_t bytes, bool yields);

/* drowse_heap_options.pressure of the server's heap: has the tenant give back what it holds. */
drowse_status tenant_yield(void *context, uint64_t missing_bytes);

struct tenant_figures tenant_look(struct tenant *tenant);

#endif
