/* SPDX-License-Identifier: Apache-2.0
 *
 * The copy pipeline: copies between a tag's blocks and their backups, several pieces in flight, on a stream of its own.
 */
#ifndef DZ_COPY_H
#define DZ_COPY_H

#include "heap/block.h"
#include "sleep/op.h"

enum { DZ_COPIES_IN_FLIGHT = 4 };

struct copier {
  struct drowse_op *op;
  CUstream stream;
  struct {
    CUevent event;
    const struct tag *tag;
    uint64_t bytes; /* 0: nothing in flight here */
  } flights[DZ_COPIES_IN_FLIGHT];
  unsigned next; /* the flight that started first, and will be used next */
};

/* All with the guard entered and without the lock. After a failure the copier is still to be ended. */
drowse_status dz_copier_begin(struct copier *copier, struct drowse_op *op);
drowse_status dz_copy_out_tag(struct copier *copier, const struct tag *tag);                  /* live blocks to their backups */
drowse_status dz_copy_in_tag(struct copier *copier, const struct tag *tag);                   /* and back */
drowse_status dz_fill_tag(struct copier *copier, const struct tag *tag, unsigned char value); /* live blocks without one */
drowse_status dz_copier_finish(struct copier *copier); /* waits until everything has landed */
void dz_copier_end(struct copier *copier);

#endif
