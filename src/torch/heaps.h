/* SPDX-License-Identifier: Apache-2.0
 *
 * A heap for each of a framework's devices, opened at its first use. libdrowse-torch and libdrowse-tms have a set of heaps each.
 */
#ifndef DZ_HEAPS_H
#define DZ_HEAPS_H

#include "drowse.h"

enum { DZ_DEVICES = 128 }; /* PyTorch is built for fewer */

/* The device's heap, opened if need be; NULL: drowse_last_error(). */
drowse_heap *dz_heaps_get(int device);

/* The same if it is open; NULL: it is not, or there is no such device. */
drowse_heap *dz_heaps_opened(int device);

/* The next device from this one on that has a heap; DZ_DEVICES: none has. */
int dz_heaps_next(int device);

/* Makes heap the device's; NULL: it has none then. INVALID: no such device; BUSY: it has one. */
drowse_status dz_heaps_set(int device, drowse_heap *heap);

#endif
