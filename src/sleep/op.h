/* SPDX-License-Identifier: Apache-2.0
 *
 * Operations: a sleep or a wake, on a thread of its own. Callbacks run on a thread that waits for it, so whatever these do, a
 * jump out of them included, the operation goes on.
 *
 * An operation is the user's, until he releases it, and the heap's, until its thread has ended: it goes when neither has it. What
 * those who wait look at has a lock of its own, and once it has finished nothing of it looks at the heap, which may have been
 * closed since.
 */
#ifndef DZ_OP_H
#define DZ_OP_H

#include "heap/heap.h"
#include "heap/tag.h"

struct drowse_op {
  struct operation operation; /* first: the heap knows it as this */
  atomic_uint owners;
  uint64_t generation; /* of the process that started it */
  drowse_heap *heap;   /* there until it has finished */
  drowse_status (*run)(struct drowse_op *op);
  struct tag *tags, **tags_end; /* those that move, in order, by op_next */

  /* what was asked for */
  uint32_t flags;
  drowse_drain drain;
  drowse_backup backup;
  int64_t deadline;
  bool has_backups; /* a sleep has made some, or may have */
  void (*progress)(void *context, const drowse_progress *progress);
  void *context;
  void (*on_woken)(void *context, const char *tag); /* the heap's hook, which may be closed before somebody waits */
  void *woken_context;
  const char **names; /* of the tags, in order */

  atomic_bool canceled;
  struct lock lock;
  pthread_cond_t changed;

  /* under its lock */
  drowse_progress now, shown; /* how far it is; what the progress hook has been told */
  uint64_t wants_bytes;       /* of device memory, which whoever waits is to ask the pressure hook for; 0: not */
  drowse_status pressure_answer;
  size_t woken, told; /* how many of the tags are awake; how many of these the woken hook has been told of */
  bool has_teller;    /* somebody who waits runs the callbacks */
  pthread_t teller;
  bool finished;
  drowse_status status;
  struct error error; /* if the status is one */

  char *directory; /* for files; NULL: none */
};

/* A new operation, with a copy of the directory; failure stored if it is NULL. */
struct drowse_op *dz_op_make(drowse_heap *heap, drowse_status (*run)(struct drowse_op *op), const char *directory);

/* Adds a tag whose motion has begun. With the heap's lock. */
void dz_op_add(struct drowse_op *op, struct tag *tag);

/* Starts it and hands it out; with no tags it has finished. status: how its making ended; if that has failed, so does this. After
 * a failure the tags are as they were, and it is gone. Without locks. */
drowse_status dz_op_start(struct drowse_op *op, drowse_status status, struct drowse_op **result);

/* The same, and waits for its end. */
drowse_status dz_op_run(struct drowse_op *op, drowse_status status);

/* Where a start puts it: INVALID if that is nowhere; NULL until it has started. */
drowse_status dz_op_result(struct drowse_op **result);

/* For the operation's thread, without locks. */

/* CANCELED once somebody has asked for it. */
drowse_status dz_op_check(struct drowse_op *op);
void dz_op_expect(struct drowse_op *op, uint64_t bytes);                        /* that many more will be copied */
void dz_op_copied(struct drowse_op *op, const struct tag *tag, uint64_t bytes); /* that many more have been */

/* Wants whoever waits to call the pressure hook, if there is one; true: it has freed memory. Else false, once it is until: a
 * thread that has jumped out of a callback answers nothing, and there may be none. */
bool dz_op_ask_for_memory(struct drowse_op *op, uint64_t bytes, int64_t until);

/* The next of the tags is awake, which whoever waits is to be told. */
void dz_op_woken(struct drowse_op *op);

/* Waits until drowse itself is at work on none of the tags, and nobody holds one. BUSY: the deadline is over. */
drowse_status dz_op_wait_idle(struct drowse_op *op, int64_t deadline);

#endif
