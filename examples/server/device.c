/* SPDX-License-Identifier: Apache-2.0
 *
 * The server's own work on the device. A server that is built with the CUDA toolkit includes cuda.h and links libcuda; this one
 * asks the heap for the few calls it makes, and so runs on the host device as well.
 */
#include "device.h"

#include <stdio.h>
#include <string.h>

#include "say.h"

static bool find_ordinal(struct device *device, drowse_heap *heap) {
  drowse_heap_info info = {.struct_size = sizeof info};
  drowse_status status = drowse_heap_info_get(heap, &info);
  if (status != DROWSE_OK) {
    say("asking about the device: %s", reason(status));
    return false;
  }
  (void)snprintf(device->name, sizeof device->name, "%s", info.device);
  if (strncmp(device->name, "cuda:", 5) != 0 || sscanf(device->name, "cuda:%d", &device->ordinal) == 1) return true;
  say("\"%s\": this server wants it by its number, as cuda:0", device->name);
  return false;
}

bool device_start(struct device *device, drowse_heap *heap) {
  *device = (struct device){.ordinal = 0};
  int (*retain)(void **context, int ordinal) = drowse_driver_entry(heap, "cuDevicePrimaryCtxRetain");
  device->make_current = drowse_driver_entry(heap, "cuCtxSetCurrent");
  device->read = drowse_driver_entry(heap, "cuMemcpyDtoH");
  if (!find_ordinal(device, heap)) return false;
  int code = retain(&device->context, device->ordinal);
  if (code != 0) say("%s: no context: CUresult %d", device->name, code);
  return code == 0;
}

void device_end(const struct device *device, drowse_heap *heap) {
  int (*release)(int ordinal) = drowse_driver_entry(heap, "cuDevicePrimaryCtxRelease");
  if (device->context != NULL) (void)release(device->ordinal);
}

/* On whichever thread has the request. */
int device_read(const struct device *device, void *out, const void *from, size_t bytes) {
  int code = device->make_current(device->context);
  return code != 0 ? code : device->read(out, (uint64_t)(uintptr_t)from, bytes);
}
