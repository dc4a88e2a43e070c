/* SPDX-License-Identifier: Apache-2.0
 *
 * Operations: a sleep or a wake, on a thread of its own. The thread that asked for it waits and runs the callbacks, so whatever
 * these do, a jump out of them included, the operation goes on.
 */
#ifndef DZ_OP_H
#define DZ_OP_H

#include "heap/heap.h"
#include "heap/tag.h"

struct drowse_op {
  struct operation operation; /* first: the heap knows it as this */
  drowse_heap *heap;
  drowse_status (*run)(struct drowse_op *op);
  struct tag *tags, **tags_end; /* those that move, in order, by op_next */

  /* what was asked for */
  uint32_t flags;
  drowse_drain drain;
  int64_t deadline;
  void (*progress)(void *context, const drowse_progress *progress);
  void *context;

  /* under the heap's lock */
  drowse_progress now;
  uint64_t wants_bytes; /* of device memory, which the waiting thread is to ask the pressure hook for; 0: not */
  drowse_status pressure_answer;
  drowse_status status;
  struct error error; /* if the status is one */

  size_t stream_count;
  drowse_stream streams[]; /* to drain */
};

/* A new operation; NULL: no memory. */
struct drowse_op *dz_op_make(drowse_heap *heap, drowse_status (*run)(struct drowse_op *op), const drowse_stream *streams,
                             size_t count);

/* Adds a tag whose motion has begun. With the lock held. */
void dz_op_add(struct drowse_op *op, struct tag *tag);

/* Runs it, waits for its end and frees it. With the lock held, which is let go. Where no thread can be started the tags are put
 * back. */
drowse_status dz_op_run(struct drowse_op *op);

/* For the operation's thread, without the lock. */

/* CANCELED once the heap is being closed. */
drowse_status dz_op_check(struct drowse_op *op);
void dz_op_expect(struct drowse_op *op, uint64_t bytes);                        /* that many more will be copied */
void dz_op_copied(struct drowse_op *op, const struct tag *tag, uint64_t bytes); /* that many more have been */

/* Wants the waiting thread to call the pressure hook, if there is one; true: it has freed memory. Else false, once it is until: a
 * thread that has jumped out of a callback answers nothing. */
bool dz_op_ask_for_memory(struct drowse_op *op, uint64_t bytes, int64_t until);

/* Waits until drowse itself is at work on none of the tags, and nobody holds one. BUSY: the deadline is over. */
drowse_status dz_op_wait_idle(struct drowse_op *op, int64_t deadline);

#endif
