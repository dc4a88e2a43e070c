/* SPDX-License-Identifier: Apache-2.0
 *
 * The per-thread stack of frames.
 *
 *   stack -> | 0 (no scope) | 1 weights, inherit | 2 weights, off | ... 64 |
 *                                                  ^ depth
 *
 * Frames are values in an array: a scope that was abandoned leaves nothing behind that points into a dead C stack. A token names
 * the stack, the place and the serial number of its push; serial numbers never come twice, so a token that is spent, or whose
 * place has been taken by another push, is told apart from one that is open. Leaving sets the depth, whatever lies above.
 *
 * Only its own thread writes a stack, without a lock. A signal handler may read it at any moment: a push fills the frame first
 * and then counts it.
 */
#include "scope/frame.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "core/error.h"
#include "core/tls.h"
#include "scope/name.h"

enum { DEPTH_MAX = 64, PLACE_BITS = 8 };

struct place {
  struct frame frame;
  uint64_t serial;
};

struct stack {
  uint64_t id;     /* of all stacks of the process; never used again */
  uint64_t serial; /* of the last push */
  size_t depth;
  struct place places[DEPTH_MAX + 1]; /* the first: no scope open */
};

static DZ_TLS struct stack *stack; /* this thread's; NULL before its first scope */
static atomic_uint_fast64_t stacks;
static pthread_key_t stack_key;
static pthread_once_t stack_once = PTHREAD_ONCE_INIT;
static int stack_key_code;

static void stack_end(void *ended) {
  stack = NULL;
  free(ended);
}

static void stack_init(void) {
  stack_key_code = pthread_key_create(&stack_key, stack_end);
}

/* Gives this thread a stack. Its end is the key's destructor's business. */
static __attribute__((noinline)) drowse_status stack_make(void) {
  (void)pthread_once(&stack_once, stack_init);
  if (stack_key_code != 0) return dz_error_system(DROWSE_ERR_SYSTEM, stack_key_code, "no key for this thread's frames");
  struct stack *made = calloc(1, sizeof *made);
  if (made == NULL) return dz_error(DROWSE_ERR_NO_HOST_MEMORY, "no memory for this thread's frames");
  if (pthread_setspecific(stack_key, made) != 0) {
    free(made);
    return dz_error(DROWSE_ERR_NO_HOST_MEMORY, "no memory for this thread's frames");
  }
  made->id = 1 + atomic_fetch_add_explicit(&stacks, 1, memory_order_relaxed);
  stack = made;
  return DROWSE_OK;
}

static drowse_status refuse_enter(const drowse_scope *scope, drowse_expandable expandable) {
  if (scope == NULL) return dz_error(DROWSE_ERR_INVALID, "scope is NULL");
  return dz_error(DROWSE_ERR_INVALID, "expandable is %d, which is no drowse_expandable", (int)expandable);
}

static void push(drowse_scope *scope, const drowse_tag *tag, drowse_expandable expandable) {
  const struct frame *under = &stack->places[stack->depth].frame;
  struct place *place = &stack->places[stack->depth + 1];
  place->frame.tag = tag == NULL ? under->tag : tag;
  place->frame.expandable = expandable == DROWSE_EXPANDABLE_INHERIT ? under->expandable : expandable;
  place->serial = ++stack->serial;
  atomic_signal_fence(memory_order_release);
  stack->depth++;
  *scope = (drowse_scope){{place->serial, stack->id << PLACE_BITS | stack->depth}};
}

DROWSE_API drowse_status drowse_scope_enter_tag(drowse_scope *scope, const drowse_tag *tag, drowse_expandable expandable) {
  if (scope == NULL || (unsigned)expandable > DROWSE_EXPANDABLE_OFF) {
    if (scope != NULL) *scope = (drowse_scope)DROWSE_SCOPE_NONE;
    return refuse_enter(scope, expandable);
  }
  *scope = (drowse_scope)DROWSE_SCOPE_NONE;
  if (stack == NULL) {
    drowse_status status = stack_make();
    if (status != DROWSE_OK) return status;
  }
  if (stack->depth == DEPTH_MAX) return dz_error(DROWSE_ERR_SCOPE, "%d scopes are open on this thread: no more fit", DEPTH_MAX);
  push(scope, tag, expandable);
  return DROWSE_OK;
}

DROWSE_API drowse_status drowse_scope_enter(drowse_scope *scope, const char *tag, drowse_expandable expandable) {
  const drowse_tag *interned = NULL;
  if (scope != NULL && tag != NULL) {
    interned = drowse_tag_get(tag);
    if (interned == NULL) {
      *scope = (drowse_scope)DROWSE_SCOPE_NONE;
      return dz_error_last();
    }
  }
  return drowse_scope_enter_tag(scope, interned, expandable);
}

static drowse_status refuse_leave(const drowse_scope *scope) {
  if (stack == NULL || scope->opaque[1] >> PLACE_BITS != stack->id) {
    return dz_error(DROWSE_ERR_SCOPE, "the scope was entered on another thread");
  }
  return dz_error(DROWSE_ERR_SCOPE, "the scope has ended already");
}

DROWSE_API drowse_status drowse_scope_leave(drowse_scope *scope) {
  if (scope == NULL) return dz_error(DROWSE_ERR_INVALID, "scope is NULL");
  if (scope->opaque[0] == 0) return DROWSE_OK;
  size_t place = scope->opaque[1] & ((1u << PLACE_BITS) - 1);
  if (stack == NULL || scope->opaque[1] >> PLACE_BITS != stack->id || place == 0 || place > stack->depth ||
      stack->places[place].serial != scope->opaque[0]) {
    return refuse_leave(scope);
  }
  stack->depth = place - 1;
  return DROWSE_OK;
}

struct frame dz_frame_current(void) {
  return stack == NULL ? (struct frame){NULL, DROWSE_EXPANDABLE_INHERIT} : stack->places[stack->depth].frame;
}

DROWSE_API drowse_frame drowse_scope_current(void) {
  struct frame frame = dz_frame_current();
  return (drowse_frame){
      .tag = frame.tag == NULL ? "default" : frame.tag->name,
      .expandable = frame.expandable,
      .depth = stack == NULL ? 0 : stack->depth,
  };
}
