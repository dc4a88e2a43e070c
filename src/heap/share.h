/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory for more than one: other devices of the process, other processes, network cards.
 */
#ifndef DZ_SHARE_H
#define DZ_SHARE_H

#include "heap/heap.h"

/* Notes what the options say in what the heap creates memory with, and in whom it gives access. INVALID, NO_DEVICE, UNSUPPORTED:
 * naming what cannot be. The heap's device is open and its context current. */
drowse_status dz_share_read(drowse_heap *heap, const drowse_heap_options *options);

#endif
