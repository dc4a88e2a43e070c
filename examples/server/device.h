/* SPDX-License-Identifier: Apache-2.0
 *
 * The server's own work on the device, by driver calls of its own on the addresses that drowse has given it. Reading bytes stands
 * for a kernel that is launched. Whoever does this must hold the memory's tag: the driver does not know that it may sleep.
 */
#ifndef SERVER_DEVICE_H
#define SERVER_DEVICE_H

#include "drowse.h"

struct device {
  char name[64];
  int ordinal;
  void *context; /* a CUcontext: the primary one, which drowse uses too */
  int (*make_current)(void *context);
  int (*read)(void *out, uint64_t from, size_t bytes);
};

/* Finds what is needed in the heap's driver. False: why it cannot has been said. device_end() comes before the heap's end. */
bool device_start(struct device *device, drowse_heap *heap);
void device_end(const struct device *device, drowse_heap *heap);

/* Copies bytes at a device address to host memory. Returns a CUresult; 0: it is done. */
int device_read(const struct device *device, void *out, const void *from, size_t bytes);

#endif
