/* SPDX-License-Identifier: Apache-2.0
 *
 * The copy pipeline: copies between live blocks and their backups, on a stream of its own. What lies in a row on both sides is
 * one copy; copies are gathered and sent many by one call; what is not pinned, or in a file, goes by the relay.
 */
#ifndef DZ_COPY_H
#define DZ_COPY_H

#include "heap/backup.h"
#include "sleep/op.h"
#include "sleep/relay.h"

enum { DZ_COPIES_IN_FLIGHT = 8, DZ_FLIGHT_COPIES = 256 };

/* Copies that wait to be sent together. */
struct batch {
  CUdeviceptr to[DZ_FLIGHT_COPIES], from[DZ_FLIGHT_COPIES];
  size_t bytes[DZ_FLIGHT_COPIES];
  unsigned count;
};

/* Some copies with an event behind them. */
struct flight {
  CUevent event;
  const struct tag *tag;
  uint64_t bytes;
  unsigned copies;
  bool away;
};

struct copier {
  struct drowse_op *op;
  enum relay_way way;
  CUstream stream;
  struct flight flights[DZ_COPIES_IN_FLIGHT];
  unsigned next;      /* the flight that copies are added to; the one behind it started first */
  struct batch batch; /* its copies */
  struct relay relay;
};

/* All with the guard entered and without locks. After a failure the copier is still to be ended. */
drowse_status dz_copier_begin(struct copier *copier, struct drowse_op *op, enum relay_way way);

/* A tag's or a segment's live blocks: out to the backups that the operation has made; in from all of them; compared with those
 * that were made before. Returns while the last ones are on their way. */
drowse_status dz_copy_tag(struct copier *copier, const struct tag *tag);
drowse_status dz_copy_segment(struct copier *copier, const struct segment *segment);

/* Writes a value to all of a segment's live blocks. */
drowse_status dz_fill_segment(struct copier *copier, const struct segment *segment, unsigned char value);

drowse_status dz_copier_finish(struct copier *copier); /* waits until everything has landed */
void dz_copier_end(struct copier *copier);

#endif
