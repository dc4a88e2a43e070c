/* SPDX-License-Identifier: Apache-2.0
 *
 * The frame that is current, for those above who allocate by it.
 */
#ifndef DZ_FRAME_H
#define DZ_FRAME_H

#include "drowse.h"

/* How a place on a stack of frames is named, in tokens and in marks (opaque[1]): its number in the lowest bits, above them the
 * stack's id. A mark on no stack, before the thread's first scope, has id 0. libdrowse-jump has this compiled in. */
enum { DZ_PLACE_BITS = 8 };

static inline uint64_t dz_mark_stack(drowse_mark mark) {
  return mark.opaque[1] >> DZ_PLACE_BITS;
}

struct frame {
  const drowse_tag *tag; /* NULL: the tag "default", which is interned when it is first needed */
  drowse_expandable expandable;
};

/* The calling thread's current frame, dead ones dropped. */
struct frame dz_frame_current(void);

struct drowse_stack;
struct place;

/* Drops frames of a stack that nobody can leave any more; sp is the stack pointer. */
void dz_frame_prune(struct drowse_stack *stack, const void *sp);

/* Ends all frames of a stack above a place. HOOK: they have ended, but the framework's hook failed. */
drowse_status dz_frame_end(struct drowse_stack *stack, struct place *top);

#endif
