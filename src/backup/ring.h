/* SPDX-License-Identifier: Apache-2.0
 *
 * A ring of small pieces of pinned memory, through which goes what is copied from or to memory that is not pinned, and files.
 * Whose turn a slot is, is the business of whoever copies.
 */
#ifndef DZ_RING_H
#define DZ_RING_H

#include <stdbool.h>

#include "driver/driver.h"

/* A slot takes 160 us on a link of 50 GiB/s, long beside the 5 us that starting a copy costs, and fits into a large cache with
 * its neighbour, so that a processor finds there what the device has just written. With eight of them a thread that moves them on
 * may fall behind by 1 ms before the link has nothing to do. */
enum { DZ_RING_SLOTS = 8, DZ_RING_SLOT_BYTES = 8 << 20 };

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
