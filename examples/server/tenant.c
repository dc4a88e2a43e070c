/* SPDX-License-Identifier: Apache-2.0
 *
 * Another user of the device, with a heap of its own.
 */
#include "tenant.h"

#include "say.h"

#define TENANT_TAG "tenant"

void tenant_make(struct tenant *tenant) {
  *tenant = (struct tenant){.yields = true};
  (void)pthread_mutex_init(&tenant->lock, NULL);
}

bool tenant_start(struct tenant *tenant, const char *device) {
  drowse_heap_options options = {.struct_size = sizeof options, .device = device};
  drowse_status status = drowse_heap_open(&tenant->heap, &options);
  if (status != DROWSE_OK) say("opening the tenant's heap: %s", reason(status));
  return status == DROWSE_OK;
}

void tenant_end(struct tenant *tenant) {
  if (drowse_heap_close(tenant->heap) != DROWSE_OK) say("closing the tenant's heap: %s", drowse_last_error());
  (void)pthread_mutex_destroy(&tenant->lock);
}

/* To the device, not only to the tenant's heap, which would keep it for the tenant's next block. Also what the driver would not
 * take the last time. With the lock. */
static drowse_status give_back(struct tenant *tenant) {
  drowse_status status = tenant->figures.bytes == 0 ? DROWSE_OK : drowse_tag_clear(tenant->heap, TENANT_TAG);
  tenant->figures.bytes = 0;
  return status == DROWSE_OK ? drowse_trim(tenant->heap, 0) : status;
}

drowse_status tenant_hold(struct tenant *tenant, uint64_t bytes, bool yields) {
  const drowse_alloc_options options = {.struct_size = sizeof options, .tag = TENANT_TAG};
  void *ptr;
  (void)pthread_mutex_lock(&tenant->lock);
  drowse_status status = give_back(tenant);
  if (status == DROWSE_OK) status = drowse_alloc_with(tenant->heap, (size_t)bytes, NULL, &options, &ptr);
  if (status == DROWSE_OK) tenant->figures.bytes = bytes;
  tenant->yields = yields;
  (void)pthread_mutex_unlock(&tenant->lock);
  return status;
}

/* Runs on a thread that waits for the weights, and holds no lock of the keeper's. Anything but DROWSE_OK: there is nothing to be
 * had here at the moment. */
drowse_status tenant_yield(void *context, uint64_t missing_bytes) {
  struct tenant *tenant = context;
  drowse_status status = DROWSE_ERR_NO_DEVICE_MEMORY;
  (void)missing_bytes;
  (void)pthread_mutex_lock(&tenant->lock);
  tenant->figures.asked++;
  if (tenant->figures.bytes > 0 && tenant->yields) {
    status = give_back(tenant);
    if (status == DROWSE_OK) tenant->figures.yielded++;
  }
  (void)pthread_mutex_unlock(&tenant->lock);
  return status;
}

struct tenant_figures tenant_look(struct tenant *tenant) {
  (void)pthread_mutex_lock(&tenant->lock);
  struct tenant_figures figures = tenant->figures;
  (void)pthread_mutex_unlock(&tenant->lock);
  return figures;
}
