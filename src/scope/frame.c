/* SPDX-License-Identifier: Apache-2.0
 *
 * Frames: entering, leaving, marks, and frames that died.
 *
 *   stack -> | 0 (no scope) | 1 weights, inherit | 2 weights, off | ... 64 |
 *                                                  ^ top
 *
 * Frames are values in an array: a scope that was abandoned leaves nothing behind that points into a dead C stack. A token is the
 * serial number of its push and the name of its place; serial numbers never come twice, so a token that is spent, or whose place
 * has been taken by another push, is told apart from one that is open. Ending sets the top, whatever lies above.
 *
 * Only the thread that runs on a stack writes it, without a lock. A signal handler may read it at any moment, and may jump away:
 * a push fills the frame and then sets the top by one store, so it has happened or it has not. The arbiter comes after the store
 * and looks at what is there, not at what was meant, so a jump in between is put right by the next call.
 */
#include "scope/frame.h"

#include <signal.h>
#include <string.h>

#include "core/error.h"
#include "scope/arbiter.h"
#include "scope/name.h"
#include "scope/stack.h"

/* ---- frames that died: their function was left by a longjmp that nobody told us of */

/* On an alternate signal stack, which may lie inside the C stack, the stack pointer says nothing about what is below it. */
static bool on_signal_stack(void) {
  stack_t alternate;
  return sigaltstack(NULL, &alternate) != 0 || (alternate.ss_flags & SS_ONSTACK) != 0;
}

/* The top without the dead frames. Writes nothing. The first place never looks dead. */
static struct place *live_top(const struct drowse_stack *stack, const void *sp) {
  struct place *top = dz_stack_top(stack), *live = top;
  while (dz_place_looks_dead(stack, live, sp)) live--;
  return live == top || on_signal_stack() ? top : live;
}

void dz_frame_prune(struct drowse_stack *stack, const void *sp) {
  struct place *top = live_top(stack, sp);
  if (top != dz_stack_top(stack)) (void)dz_frame_end(stack, top);
}

/* ---- ending */

static inline drowse_expandable expandable_of(const struct place *place) {
  return atomic_load_explicit(&place->expandable, memory_order_relaxed);
}

_Static_assert((DROWSE_EXPANDABLE_INHERIT | DROWSE_EXPANDABLE_ON) == 1 && DROWSE_EXPANDABLE_OFF == 2, "off is a bit of its own");

/* What the arbiter has to look at has the bit of off: off is current or was, or the stack is still counted because a jump has
 * come between a change and the look at it. */
static inline unsigned look_at(const struct drowse_stack *stack, drowse_expandable before, drowse_expandable now) {
  return (unsigned)before | (unsigned)now | (unsigned)atomic_load_explicit(&stack->counted, memory_order_relaxed);
}

static inline bool concerns_arbiter(const struct drowse_stack *stack, drowse_expandable before, drowse_expandable now) {
  return look_at(stack, before, now) >= DROWSE_EXPANDABLE_OFF;
}

drowse_status dz_frame_end(struct drowse_stack *stack, struct place *top) {
  drowse_expandable before = expandable_of(dz_stack_top(stack));
  dz_stack_set_top(stack, top);
  return concerns_arbiter(stack, before, expandable_of(top)) ? dz_arbiter_settle(stack, NULL) : DROWSE_OK;
}

/* ---- leaving and entering. Most calls have nothing special about them: these are short and call nothing. What makes a call
 * special is seen before anything is changed, and the whole of it left to a function that is out of the way. */

#define ALWAYS_INLINE static inline __attribute__((always_inline))
#define OUT_OF_THE_WAY __attribute__((noinline, cold))

static inline bool is_usual(const struct drowse_stack *stack, const drowse_scope *scope) {
  return scope != NULL && stack != NULL && dz_fork_quiet();
}

/* The place of the push that wrote the token; NULL: it has ended, or was on another stack. */
static struct place *find_open(struct drowse_stack *stack, const drowse_scope *scope) {
  uint64_t number = scope->opaque[1] ^ stack->places[0].name;
  if (number > DZ_DEPTH_MAX) return NULL;
  struct place *place = &stack->places[number];
  return place <= dz_stack_top(stack) && place->serial == scope->opaque[0] ? place : NULL;
}

static drowse_status refuse_leave(const struct drowse_stack *stack, const drowse_scope *scope) {
  if (stack == NULL || scope->opaque[1] >> DZ_PLACE_BITS != stack->id) {
    return dz_error(DROWSE_ERR_SCOPE, "the scope was entered on another thread or stack");
  }
  return dz_error(DROWSE_ERR_SCOPE, "the scope has ended already");
}

OUT_OF_THE_WAY static drowse_status leave_special(const drowse_scope *scope, const void *sp) {
  if (scope == NULL) return dz_error(DROWSE_ERR_INVALID, "scope is NULL");
  if (scope->opaque[0] == 0) return DROWSE_OK;
  dz_arbiter_check_fork();
  struct drowse_stack *stack = dz_stack;
  struct place *place = stack == NULL ? NULL : find_open(stack, scope);
  if (place == NULL) return refuse_leave(stack, scope);
  drowse_status status = dz_frame_end(stack, place - 1);
  dz_frame_prune(stack, sp);
  return status;
}

/* Usual: the innermost scope. */
DROWSE_API drowse_status drowse_scope_leave(drowse_scope *scope) {
  struct drowse_stack *stack = dz_stack;
  if (!is_usual(stack, scope)) return leave_special(scope, DZ_CALLERS_SP);
  struct place *place = dz_stack_top(stack);
  uint64_t serial = scope->opaque[0];
  if (scope->opaque[1] != place->name || serial != place->serial || serial == 0) return leave_special(scope, DZ_CALLERS_SP);
  struct place *under = place - 1;
  if (concerns_arbiter(stack, expandable_of(place), expandable_of(under)) || dz_place_looks_dead(stack, under, DZ_CALLERS_SP)) {
    return leave_special(scope, DZ_CALLERS_SP);
  }
  dz_stack_set_top(stack, under);
  return DROWSE_OK;
}

/* Fills the place above under and makes it the top. What the frame says of off is not looked at. */
ALWAYS_INLINE void push(struct drowse_stack *stack, struct place *under, drowse_scope *scope, const drowse_tag *tag,
                        drowse_expandable expandable) {
  struct place *place = under + 1;
  uint64_t serial = ++stack->serial;
  place->tag = tag == NULL ? under->tag : tag;
  atomic_store_explicit(&place->expandable, expandable, memory_order_relaxed);
  place->object = (uintptr_t)scope;
  place->serial = serial;
  dz_stack_set_top(stack, place);
  scope->opaque[0] = serial;
  scope->opaque[1] = place->name;
}

static inline bool is_full(const struct place *top) {
  return (top->name & ((1u << DZ_PLACE_BITS) - 1)) == DZ_DEPTH_MAX;
}

/* Pushes a frame, and the framework's flag is as it wants it; or neither. */
static drowse_status push_and_settle(struct drowse_stack *stack, drowse_scope *scope, const drowse_tag *tag,
                                     drowse_expandable expandable) {
  struct place *under = dz_stack_top(stack);
  drowse_expandable before = expandable_of(under);
  if (expandable == DROWSE_EXPANDABLE_INHERIT) expandable = before;
  push(stack, under, scope, tag, expandable);
  drowse_status status = DROWSE_OK;
  if (concerns_arbiter(stack, before, expandable)) status = dz_arbiter_settle(stack, under);
  if (status != DROWSE_OK) *scope = (drowse_scope)DROWSE_SCOPE_NONE;
  return status;
}

OUT_OF_THE_WAY static drowse_status enter_special(drowse_scope *scope, const drowse_tag *tag, drowse_expandable expandable,
                                                  const void *sp) {
  if (scope == NULL) return dz_error(DROWSE_ERR_INVALID, "scope is NULL");
  *scope = (drowse_scope)DROWSE_SCOPE_NONE;
  if ((unsigned)expandable > DROWSE_EXPANDABLE_OFF) {
    return dz_error(DROWSE_ERR_INVALID, "expandable is %d, which is no drowse_expandable", (int)expandable);
  }
  dz_arbiter_check_fork();
  if (dz_stack == NULL) {
    drowse_status status = dz_stack_make_own();
    if (status != DROWSE_OK) return status;
  }
  struct drowse_stack *stack = dz_stack;
  dz_frame_prune(stack, sp);
  if (is_full(dz_stack_top(stack))) {
    return dz_error(DROWSE_ERR_SCOPE, "%d scopes are open on this stack: no more fit", DZ_DEPTH_MAX);
  }
  return push_and_settle(stack, scope, tag, expandable);
}

/* Usual: nothing is said of off, here or below; then on is what remains of on and inherit. */
ALWAYS_INLINE drowse_status enter(struct drowse_stack *stack, drowse_scope *scope, const drowse_tag *tag,
                                  drowse_expandable expandable) {
  if (!is_usual(stack, scope)) return enter_special(scope, tag, expandable, DZ_CALLERS_SP);
  struct place *under = dz_stack_top(stack);
  unsigned both = look_at(stack, expandable_of(under), expandable);
  if (both > DROWSE_EXPANDABLE_ON || is_full(under) || dz_place_looks_dead(stack, under, DZ_CALLERS_SP)) {
    return enter_special(scope, tag, expandable, DZ_CALLERS_SP);
  }
  push(stack, under, scope, tag, (drowse_expandable)both);
  return DROWSE_OK;
}

DROWSE_API drowse_status drowse_scope_enter_tag(drowse_scope *scope, const drowse_tag *tag, drowse_expandable expandable) {
  return enter(dz_stack, scope, tag, expandable);
}

/* Where a stack keeps the tag that a name at this address had the last time. */
static inline const drowse_tag **recent_of(struct drowse_stack *stack, const char *name) {
  return &stack->recent[((uintptr_t)name >> 3) % DZ_RECENT];
}

OUT_OF_THE_WAY static drowse_status enter_new_name(drowse_scope *scope, const char *name, drowse_expandable expandable,
                                                   const void *sp) {
  const drowse_tag *tag = NULL;
  if (scope != NULL && name != NULL) {
    *scope = (drowse_scope)DROWSE_SCOPE_NONE;
    tag = drowse_tag_get(name);
    if (tag == NULL) return dz_error_last();
    if (dz_stack != NULL) *recent_of(dz_stack, name) = tag;
  }
  return enter_special(scope, tag, expandable, sp);
}

/* A program names its tags by few strings, again and again. What is at an address may have changed, so it is compared. */
DROWSE_API drowse_status drowse_scope_enter(drowse_scope *scope, const char *name, drowse_expandable expandable) {
  struct drowse_stack *stack = dz_stack;
  if (stack == NULL || name == NULL) return enter_new_name(scope, name, expandable, DZ_CALLERS_SP);
  const drowse_tag *tag = *recent_of(stack, name);
  if (tag == NULL || strcmp(tag->name, name) != 0) return enter_new_name(scope, name, expandable, DZ_CALLERS_SP);
  return enter(stack, scope, tag, expandable);
}

/* ---- marks: the name of the current place, and the serial number of the frame there */

DROWSE_API drowse_mark drowse_scope_mark(void) {
  const struct drowse_stack *stack = dz_stack;
  if (stack == NULL) return (drowse_mark){{0, 0}};
  const struct place *top = live_top(stack, DZ_CALLERS_SP);
  return (drowse_mark){{top->serial, top->name}};
}

DROWSE_API drowse_status drowse_scope_unwind(drowse_mark mark) {
  uint64_t id = mark.opaque[1] >> DZ_PLACE_BITS;
  dz_arbiter_check_fork();
  if ((dz_stack == NULL || dz_stack->id != id) && !dz_stack_find(id)) {
    return dz_error(DROWSE_ERR_SCOPE, "the mark was set on another thread, or on a stack that is gone");
  }
  struct drowse_stack *stack = dz_stack;
  if (stack == NULL) return DROWSE_OK; /* no scope was open at the mark, and none is */
  /* The scope that was current at the mark may have ended, and others begun: serial numbers tell which came later. */
  struct place *top = dz_stack_top(stack);
  while (top->serial > mark.opaque[0]) top--;
  return dz_frame_end(stack, top);
}

/* ---- what is current */

struct frame dz_frame_current(void) {
  dz_arbiter_check_fork();
  struct drowse_stack *stack = dz_stack;
  if (stack == NULL) return (struct frame){NULL, DROWSE_EXPANDABLE_INHERIT};
  dz_frame_prune(stack, DZ_CALLERS_SP);
  const struct place *top = dz_stack_top(stack);
  return (struct frame){top->tag, expandable_of(top)};
}

DROWSE_API drowse_frame drowse_scope_current(void) {
  const struct drowse_stack *stack = dz_stack;
  if (stack == NULL) return (drowse_frame){"default", DROWSE_EXPANDABLE_INHERIT, 0};
  const struct place *top = live_top(stack, DZ_CALLERS_SP);
  return (drowse_frame){
      .tag = top->tag == NULL ? "default" : top->tag->name,
      .expandable = expandable_of(top),
      .depth = (size_t)(top - stack->places),
  };
}
