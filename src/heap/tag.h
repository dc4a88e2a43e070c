/* SPDX-License-Identifier: Apache-2.0
 *
 * A tag's memory on one heap, and its state.
 *
 *              sleep: dz_tag_begin_sleep           its commit: dz_tag_end
 *    +-------+ ------------------------> +---------+ ----------------> +--------+
 *    | AWAKE |                           | FALLING |                   | ASLEEP |
 *    +-------+ <------------------------ +---------+                   +--------+
 *        ^      it fails: dz_tag_end                                    |      ^
 *        |                               +---------+ <------------------+      |
 *        +------------------------------ | WAKING  |  wake: dz_tag_begin_wake  |
 *           its commit: dz_tag_end       +---------+ --------------------------+
 *                                                     it fails: dz_tag_end
 *
 * Discarding a sleeping tag's backup leads from ASLEEP through FALLING back to ASLEEP.
 *
 * FALLING and WAKING belong to one operation, which alone touches the tag's segments then, without the heap's lock; frees are
 * noted and take effect when the motion ends. POISONED is for when it is not known where bytes are: nothing in this version leads
 * there, because whatever fails leaves either the device's copy or the backup whole.
 *
 *                          AWAKE            FALLING, WAKING       ASLEEP
 *    extents               cover live and   the operation's       none, but stuck ones
 *                          free blocks
 *    free blocks           in bins          not looked for        none: all holes
 *    a live block's backup none, or sealed  the operation's       there, unless discarded
 *    holds                 any              0 once it has begun   0
 */
#ifndef DZ_TAG_H
#define DZ_TAG_H

#include "heap/heap.h"

struct tag {
  const drowse_tag *name;
  drowse_heap *heap;
  struct tag *next; /* in the heap */
  struct pool *pools;
  drowse_state state;
  bool sealed;      /* its contents do not change: backups stay when it wakes */
  atomic_uint held; /* how many holds users have; DZ_HOLDS_WAIT: it is not awake. Changed without the lock while it is */
  uint32_t pins;    /* drowse's own: a segment grows, a block is copied; never for longer than one call */
  bool discarded;   /* it sleeps without contents */
  bool unmapping;   /* it sleeps, and somebody tries again to unmap what is stuck */

  /* while a call looks at its arguments */
  bool named;
  drowse_action wanted;

  /* while in motion */
  struct operation *op;
  drowse_state before; /* to which it returns if the operation fails */
  struct tag *op_next;
  drowse_action action;
  struct block *freed; /* freed meanwhile */

  uint64_t mapped_bytes, reserved_bytes, backup_bytes, file_bytes, stuck_bytes, sleeps, wakes;
  uint64_t handles; /* that are mapped */
};

/* In tag->held. */
#define DZ_HOLDS_WAIT (1u << 31)

static inline uint32_t dz_tag_holds(const struct tag *tag) {
  return atomic_load(&tag->held) & ~DZ_HOLDS_WAIT;
}

/* The heap's tag of that name, or NULL, without a lock. */
struct tag *dz_tag_glance(const drowse_heap *heap, const drowse_tag *name);

/* All below with the heap's lock held. */

/* The heap's tag of that name, made if it has none; NULL: no memory, failure stored. */
struct tag *dz_tag_make(drowse_heap *heap, const drowse_tag *name);

/* The tag that the user named; NULL: failure stored in *status. */
struct tag *dz_tag_named(drowse_heap *heap, const char *name, drowse_status *status);

/* Begin a motion, and end it in the state AWAKE or ASLEEP; the end frees what was freed meanwhile. */
void dz_tag_begin_sleep(struct tag *tag, struct operation *op, drowse_action action);
void dz_tag_begin_wake(struct tag *tag, struct operation *op);
void dz_tag_end(struct tag *tag, drowse_state state);

void dz_tag_pin(struct tag *tag);
void dz_tag_unpin(struct tag *tag);

/* "weights" is ASLEEP, in words and as a status: why a tag in that state cannot be used as an awake one. */
drowse_status dz_tag_refuse(const struct tag *tag);

/* BUSY: why a tag in motion cannot be used at all. */
drowse_status dz_tag_busy(const struct tag *tag);
const char *dz_state_word(drowse_state state);

/* Debug builds: asserts what the table above says. */
void dz_tag_assert(const struct tag *tag);

#endif
