/* SPDX-License-Identifier: Apache-2.0
 *
 * Frames: entering, leaving, marks, and frames that died.
 *
 *   stack -> | 0 (no scope) | 1 weights, inherit | 2 weights, off | ... 64 |
 *                                                  ^ depth
 *
 * Frames are values in an array: a scope that was abandoned leaves nothing behind that points into a dead C stack. A token names
 * the stack, the place and the serial number of its push; serial numbers never come twice, so a token that is spent, or whose
 * place has been taken by another push, is told apart from one that is open. Ending sets the depth, whatever lies above.
 *
 * Only the thread that runs on a stack writes it, without a lock. A signal handler may read it at any moment, and may jump away:
 * a push fills the frame and then counts it by one store, so it has happened or it has not. The arbiter comes after the store and
 * looks at what is there, not at what was meant, so a jump in between is put right by the next call.
 */
#include "scope/frame.h"

#include <signal.h>

#include "core/error.h"
#include "scope/arbiter.h"
#include "scope/name.h"
#include "scope/stack.h"

enum { PLACE_BITS = 8 };

/* ---- frames that died: their function was left by a longjmp that nobody told us of */

/* Whether the frame's scope object lies in the C stack, below the stack pointer: then the function that had it is gone. An object
 * anywhere else is never called dead. */
static bool looks_dead(const struct drowse_stack *stack, const struct place *place, uintptr_t sp) {
  return sp - stack->low < stack->high - stack->low && place->object - stack->low < stack->high - stack->low &&
         place->object < sp;
}

/* On an alternate signal stack, which may lie inside the C stack, the stack pointer says nothing about what is below it. */
static bool on_signal_stack(void) {
  stack_t alternate;
  return sigaltstack(NULL, &alternate) != 0 || (alternate.ss_flags & SS_ONSTACK) != 0;
}

/* The depth without the dead frames on top. Writes nothing. */
static size_t live_depth(const struct drowse_stack *stack, const void *sp) {
  size_t depth = dz_stack_depth(stack), live = depth;
  while (live > 0 && looks_dead(stack, &stack->places[live], (uintptr_t)sp)) live--;
  return live == depth || on_signal_stack() ? depth : live;
}

void dz_frame_prune(struct drowse_stack *stack, const void *sp) {
  size_t depth = live_depth(stack, sp);
  if (depth != dz_stack_depth(stack)) (void)dz_frame_end(stack, depth);
}

/* ---- ending */

/* Whether the arbiter has to look: off is current or was. It is also counted where a jump has come between a change and the look
 * at it. */
static bool concerns_arbiter(const struct drowse_stack *stack, const struct place *before, const struct place *now) {
  return dz_place_is_off(before) || dz_place_is_off(now) || atomic_load_explicit(&stack->counted, memory_order_relaxed);
}

drowse_status dz_frame_end(struct drowse_stack *stack, size_t depth) {
  const struct place *before = &stack->places[dz_stack_depth(stack)];
  atomic_store_explicit(&stack->depth, depth, memory_order_release);
  return concerns_arbiter(stack, before, &stack->places[depth]) ? dz_arbiter_settle(stack, true) : DROWSE_OK;
}

static drowse_status refuse_leave(const drowse_scope *scope) {
  if (dz_stack == NULL || scope->opaque[1] >> PLACE_BITS != dz_stack->id) {
    return dz_error(DROWSE_ERR_SCOPE, "the scope was entered on another thread or stack");
  }
  return dz_error(DROWSE_ERR_SCOPE, "the scope has ended already");
}

DROWSE_API drowse_status drowse_scope_leave(drowse_scope *scope) {
  if (scope == NULL) return dz_error(DROWSE_ERR_INVALID, "scope is NULL");
  if (scope->opaque[0] == 0) return DROWSE_OK;
  dz_arbiter_check_fork();
  struct drowse_stack *stack = dz_stack;
  size_t place = scope->opaque[1] & ((1u << PLACE_BITS) - 1);
  if (stack == NULL || scope->opaque[1] >> PLACE_BITS != stack->id || place > dz_stack_depth(stack) ||
      stack->places[place].serial != scope->opaque[0]) {
    return refuse_leave(scope);
  }
  drowse_status status = dz_frame_end(stack, place - 1);
  dz_frame_prune(stack, __builtin_frame_address(0));
  return status;
}

/* ---- entering */

static drowse_status refuse_enter(const drowse_scope *scope, drowse_expandable expandable) {
  if (scope == NULL) return dz_error(DROWSE_ERR_INVALID, "scope is NULL");
  return dz_error(DROWSE_ERR_INVALID, "expandable is %d, which is no drowse_expandable", (int)expandable);
}

/* The frame is there, and the framework's flag is as it wants it; or neither. */
static drowse_status push(struct drowse_stack *stack, drowse_scope *scope, const drowse_tag *tag, drowse_expandable expandable) {
  size_t depth = dz_stack_depth(stack);
  const struct place *under = &stack->places[depth];
  struct place *place = &stack->places[++depth];
  drowse_expandable inherited = atomic_load_explicit(&under->expandable, memory_order_relaxed);
  place->tag = tag == NULL ? under->tag : tag;
  atomic_store_explicit(&place->expandable, expandable == DROWSE_EXPANDABLE_INHERIT ? inherited : expandable,
                        memory_order_relaxed);
  place->serial = ++stack->serial;
  place->object = (uintptr_t)scope;
  atomic_signal_fence(memory_order_release);
  atomic_store_explicit(&stack->depth, depth, memory_order_release);
  if (concerns_arbiter(stack, under, place)) {
    drowse_status status = dz_arbiter_settle(stack, false);
    if (status != DROWSE_OK) {
      atomic_store_explicit(&stack->depth, depth - 1, memory_order_release);
      return status;
    }
  }
  *scope = (drowse_scope){{place->serial, stack->id << PLACE_BITS | depth}};
  return DROWSE_OK;
}

static inline drowse_status enter(drowse_scope *scope, const drowse_tag *tag, drowse_expandable expandable, const void *sp) {
  if (scope != NULL) *scope = (drowse_scope)DROWSE_SCOPE_NONE;
  if (scope == NULL || (unsigned)expandable > DROWSE_EXPANDABLE_OFF) return refuse_enter(scope, expandable);
  dz_arbiter_check_fork();
  if (dz_stack == NULL) {
    drowse_status status = dz_stack_make_own();
    if (status != DROWSE_OK) return status;
  }
  struct drowse_stack *stack = dz_stack;
  dz_frame_prune(stack, sp);
  if (dz_stack_depth(stack) == DZ_DEPTH_MAX) {
    return dz_error(DROWSE_ERR_SCOPE, "%d scopes are open on this stack: no more fit", DZ_DEPTH_MAX);
  }
  return push(stack, scope, tag, expandable);
}

DROWSE_API drowse_status drowse_scope_enter_tag(drowse_scope *scope, const drowse_tag *tag, drowse_expandable expandable) {
  return enter(scope, tag, expandable, __builtin_frame_address(0));
}

DROWSE_API drowse_status drowse_scope_enter(drowse_scope *scope, const char *tag, drowse_expandable expandable) {
  const drowse_tag *interned = NULL;
  if (scope != NULL && tag != NULL) {
    *scope = (drowse_scope)DROWSE_SCOPE_NONE;
    interned = drowse_tag_get(tag);
    if (interned == NULL) return dz_error_last();
  }
  return enter(scope, interned, expandable, __builtin_frame_address(0));
}

/* ---- marks: the stack, the depth, and the serial number of the frame there */

DROWSE_API drowse_mark drowse_scope_mark(void) {
  const struct drowse_stack *stack = dz_stack;
  if (stack == NULL) return (drowse_mark){{0, 0}};
  size_t depth = live_depth(stack, __builtin_frame_address(0));
  return (drowse_mark){{stack->places[depth].serial, stack->id << PLACE_BITS | depth}};
}

DROWSE_API drowse_status drowse_scope_unwind(drowse_mark mark) {
  uint64_t id = mark.opaque[1] >> PLACE_BITS;
  dz_arbiter_check_fork();
  if ((dz_stack == NULL || dz_stack->id != id) && !dz_stack_find(id)) {
    return dz_error(DROWSE_ERR_SCOPE, "the mark was set on another thread, or on a stack that is gone");
  }
  struct drowse_stack *stack = dz_stack;
  if (stack == NULL) return DROWSE_OK; /* no scope was open at the mark, and none is */
  /* The scope that was current at the mark may have ended, and others begun: serial numbers tell which came later. */
  size_t depth = dz_stack_depth(stack);
  while (stack->places[depth].serial > mark.opaque[0]) depth--;
  return dz_frame_end(stack, depth);
}

/* ---- what is current */

struct frame dz_frame_current(void) {
  dz_arbiter_check_fork();
  struct drowse_stack *stack = dz_stack;
  if (stack == NULL) return (struct frame){NULL, DROWSE_EXPANDABLE_INHERIT};
  dz_frame_prune(stack, __builtin_frame_address(0));
  const struct place *place = &stack->places[dz_stack_depth(stack)];
  return (struct frame){place->tag, atomic_load_explicit(&place->expandable, memory_order_relaxed)};
}

DROWSE_API drowse_frame drowse_scope_current(void) {
  const struct drowse_stack *stack = dz_stack;
  if (stack == NULL) return (drowse_frame){"default", DROWSE_EXPANDABLE_INHERIT, 0};
  size_t depth = live_depth(stack, __builtin_frame_address(0));
  const struct place *place = &stack->places[depth];
  return (drowse_frame){
      .tag = place->tag == NULL ? "default" : place->tag->name,
      .expandable = atomic_load_explicit(&place->expandable, memory_order_relaxed),
      .depth = depth,
  };
}
