/* SPDX-License-Identifier: Apache-2.0
 *
 * What cannot be copied between the device and where it is kept at once goes by a ring of pinned slots: to and from files, and
 * host memory that is not pinned. Several slots are on their way at any time, so that the device, the processor, which makes or
 * compares checksums, and the disk all work.
 */
#ifndef DZ_RELAY_H
#define DZ_RELAY_H

#include "backup/file.h"
#include "backup/io.h"
#include "backup/ring.h"
#include "sleep/op.h"

/* One piece: a range of the device, and where it is kept. */
struct errand {
  const struct tag *tag;
  CUdeviceptr device;
  uint64_t bytes;
  char *memory;      /* where it is kept, or */
  struct file *file; /* in which file */
  uint64_t offset;
};

enum relay_way {
  DZ_RELAY_OUT,    /* from the device */
  DZ_RELAY_IN,     /* to the device */
  DZ_RELAY_COMPARE /* looks whether the device still has what is kept: CORRUPT if not */
};

enum slot_state { DZ_SLOT_FREE, DZ_SLOT_COPYING, DZ_SLOT_MOVING };

struct relay_slot {
  enum slot_state state;
  struct errand errand;
  CUevent event;
  uint64_t turn; /* the slots that copy come in this order */
};

struct relay {
  struct drowse_op *op;
  enum relay_way way;
  CUstream stream;
  bool begun;
  uint64_t turns;
  struct ring ring;
  struct io io;
  struct relay_slot slots[DZ_RING_SLOTS];
};

/* All with the guard entered and without locks. Begins with the first errand; after a failure it is still to be ended. */
void dz_relay_init(struct relay *relay, struct drowse_op *op, enum relay_way way, CUstream stream);
drowse_status dz_relay_send(struct relay *relay, const struct errand *errand); /* of at most a slot */
drowse_status dz_relay_finish(struct relay *relay);                            /* waits until everything has arrived */
void dz_relay_end(struct relay *relay);

#endif
