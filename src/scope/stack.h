/* SPDX-License-Identifier: Apache-2.0
 *
 * Stacks of frames: one that each thread has, and those that users make for coroutines.
 */
#ifndef DZ_STACK_H
#define DZ_STACK_H

#include <stdatomic.h>
#include <stdint.h>

#include "core/tls.h"
#include "scope/frame.h"

enum { DZ_DEPTH_MAX = 64, DZ_RECENT = 16 };

/* A frame, and what tells whether it is the one that a token means and whether its owner still exists. Written by the running
 * thread; expandable is also read by whoever counts (arbiter). */
struct place {
  const drowse_tag *tag;
  _Atomic drowse_expandable expandable;
  uint64_t serial;
  uint64_t name;    /* the stack's id << DZ_PLACE_BITS | the place's number; never changes */
  uintptr_t object; /* the address of the scope object */
};

struct drowse_stack {
  uint64_t id;                 /* of all stacks of the process; never used again */
  uint64_t serial;             /* of the last push */
  _Atomic(struct place *) top; /* the current frame */
  uintptr_t low, high;         /* the C stack that its scope objects live on; equal: not known, nothing is pruned */

  atomic_bool running;               /* some thread's current one */
  bool own;                          /* a thread's, not a user's */
  _Atomic drowse_expandable counted; /* OFF: the arbiter counts it, off is current here; else INHERIT. The arbiter's */

  struct drowse_stack *next, **before;   /* of all stacks, under the registry's lock */
  const drowse_tag *recent[DZ_RECENT];   /* tags that were looked up by name last */
  struct place places[DZ_DEPTH_MAX + 1]; /* the first: no scope open */
};

extern DZ_TLS __attribute__((
    visibility("hidden"))) struct drowse_stack *dz_stack; /* what this thread runs on; NULL before its first scope */

/* Gives this thread its own stack and makes it current. */
drowse_status dz_stack_make_own(void);

/* Makes the stack of that id, which is this thread's own or a parked one, current; false: there is none. */
bool dz_stack_find(uint64_t id);

/* All stacks, under the registry's lock. */
void dz_stack_each(void (*each)(struct drowse_stack *stack));

static inline struct place *dz_stack_top(const struct drowse_stack *stack) {
  return atomic_load_explicit(&stack->top, memory_order_acquire);
}

static inline void dz_stack_set_top(struct drowse_stack *stack, struct place *top) {
  atomic_store_explicit(&stack->top, top, memory_order_release);
}

static inline bool dz_place_is_off(const struct place *place) {
  return atomic_load_explicit(&place->expandable, memory_order_relaxed) == DROWSE_EXPANDABLE_OFF;
}

/* Whether the frame's scope object lies in the C stack, below the stack pointer, which is in there too: then the function that
 * had it is gone. An object anywhere else is never called dead. */
static inline bool dz_place_looks_dead(const struct drowse_stack *stack, const struct place *place, const void *sp) {
  return place->object < (uintptr_t)sp && place->object >= stack->low && (uintptr_t)sp < stack->high;
}

/* The stack pointer as it was where this function was called: what lies below is nothing of the caller's. */
#define DZ_CALLERS_SP __builtin_dwarf_cfa()

/* The calling thread's current frame, where there is nothing to put right first: no fork, no dead frames; false: there is.
 * sp: DZ_CALLERS_SP. */
static inline bool dz_frame_glance(const void *sp, struct frame *frame) {
  const struct drowse_stack *stack = dz_stack;
  *frame = (struct frame){NULL, DROWSE_EXPANDABLE_INHERIT};
  if (stack == NULL) return true;
  const struct place *top = dz_stack_top(stack);
  *frame = (struct frame){top->tag, atomic_load_explicit(&top->expandable, memory_order_relaxed)};
  return !dz_place_looks_dead(stack, top, sp);
}

/* Whether off is current on a stack. */
static inline bool dz_stack_is_off(const struct drowse_stack *stack) {
  return dz_place_is_off(dz_stack_top(stack));
}

#endif
