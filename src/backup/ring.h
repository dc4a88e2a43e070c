/* SPDX-License-Identifier: Apache-2.0
 *
 * A ring of small pieces of pinned memory, through which goes what is copied from or to memory that is not pinned, and files.
 * Whose turn a slot is, is the business of whoever copies.
 */
#ifndef DZ_RING_H
#define DZ_RING_H

#include <stdbool.h>

#include "driver/driver.h"

/* A slot takes 80 us on a link of 50 GiB/s, long beside the 5 us that starting a copy costs, and fits into a processor's cache,
 * which finds there what the device has just written. It has a file's piece. Disks want many requests at a time. */
enum { DZ_RING_SLOTS = 16, DZ_RING_SLOT_BYTES = 4 << 20 };

struct ring_slot {
  void *memory;
  bool pinned;
};

struct ring {
  const struct driver *driver;
  struct ring_slot slots[DZ_RING_SLOTS];
};

/* The driver's context must be current. NO_HOST_MEMORY: the machine has not as much. Slots that cannot be pinned are pageable. */
drowse_status dz_ring_begin(struct ring *ring, const struct driver *driver);

/* No copy may be under way. false: the driver has not unpinned all. Does nothing to a ring of zeros, or one that has not begun.
 */
bool dz_ring_end(struct ring *ring);

#endif
