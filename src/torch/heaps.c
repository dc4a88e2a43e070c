/* SPDX-License-Identifier: Apache-2.0
 *
 * Heaps of devices. There is no lock: a heap is opened by who needs it first, and where several come at once each opens one and
 * all but the first close theirs, which are empty.
 */
#include "torch/heaps.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Atomic(drowse_heap *) heaps[DZ_DEVICES];

static drowse_status check_device(int device) {
  char text[64];
  if (device >= 0 && device < DZ_DEVICES) return DROWSE_OK;
  (void)snprintf(text, sizeof text, "device %d: there are numbers from 0 to %d", device, DZ_DEVICES - 1);
  return drowse_error_set(DROWSE_ERR_INVALID, text);
}

drowse_heap *dz_heaps_opened(int device) {
  return device >= 0 && device < DZ_DEVICES ? atomic_load_explicit(&heaps[device], memory_order_acquire) : NULL;
}

int dz_heaps_next(int device) {
  while (device < DZ_DEVICES && dz_heaps_opened(device) == NULL) device++;
  return device;
}

/* $DROWSE_DEVICE may not say which GPU: the framework has. */
static bool is_host(const char *name) {
  return name != NULL && (strcmp(name, "host") == 0 || strncmp(name, "host:", 5) == 0);
}

static drowse_heap *open_heap(int device) {
  char gpu[16];
  drowse_heap *heap = NULL, *first = NULL;
  const char *name = getenv("DROWSE_DEVICE");
  (void)snprintf(gpu, sizeof gpu, "cuda:%d", device);
  drowse_heap_options options = {
      .struct_size = sizeof options, .device = is_host(name) ? name : gpu, .flags = DROWSE_HEAP_RDMA_WHERE_POSSIBLE};
  if (drowse_heap_open(&heap, &options) != DROWSE_OK) return dz_heaps_opened(device);
  if (atomic_compare_exchange_strong(&heaps[device], &first, heap)) return heap;
  (void)drowse_heap_close(heap);
  return first;
}

drowse_heap *dz_heaps_get(int device) {
  drowse_heap *heap = dz_heaps_opened(device);
  if (heap != NULL || check_device(device) != DROWSE_OK) return heap;
  return open_heap(device);
}

drowse_status dz_heaps_set(int device, drowse_heap *heap) {
  char text[64];
  drowse_heap *none = NULL;
  drowse_status status = check_device(device);
  if (status != DROWSE_OK) return status;
  if (heap == NULL) {
    atomic_store(&heaps[device], NULL);
    return DROWSE_OK;
  }
  if (atomic_compare_exchange_strong(&heaps[device], &none, heap)) return DROWSE_OK;
  (void)snprintf(text, sizeof text, "device %d has a heap already", device);
  return drowse_error_set(DROWSE_ERR_BUSY, text);
}
