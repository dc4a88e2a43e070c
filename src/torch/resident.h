/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory of regions that no pause takes away, because somebody outside knows where it lies: NCCL, another process. drowse puts
 * whole tags to sleep, so what shares drowse's tag with it stays, too.
 */
#ifndef DZ_RESIDENT_H
#define DZ_RESIDENT_H

#include "drowse.h"

/* Keeps the live block that ptr points into, until it is freed. DROWSE_OK: *bytes is its size. ASLEEP: it is paused; NOT_FOUND:
 * no device has it; NO_HOST_MEMORY. */
drowse_status dz_resident_keep(const void *ptr, uint64_t *bytes);

/* The block is about to be freed. */
void dz_resident_forget(int device, const void *base);

/* Whether such a block of the device's has this name of drowse's as its tag. */
bool dz_resident_has(int device, const char *name);

#endif
