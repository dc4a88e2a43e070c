/* SPDX-License-Identifier: Apache-2.0
 *
 * Stacks of frames: life, registry, swapping.
 */
#include "scope/stack.h"

#include <pthread.h>
#include <stdlib.h>

#include "core/error.h"
#include "core/fork.h"
#include "core/lock.h"
#include "scope/arbiter.h"

DZ_TLS struct drowse_stack *dz_stack;
static DZ_TLS struct drowse_stack *own; /* this thread's own; NULL before it needs one */

static atomic_uint_fast64_t ids;
static struct lock registry_lock = DZ_LOCK_INIT(DZ_RANK_STACKS);
static struct drowse_stack *registry; /* under registry_lock */

/* ---- life */

static struct drowse_stack *make(void) {
  struct drowse_stack *stack = calloc(1, sizeof *stack);
  if (stack == NULL) {
    dz_error(DROWSE_ERR_NO_HOST_MEMORY, "no memory for a stack of frames");
    return NULL;
  }
  stack->id = 1 + atomic_fetch_add_explicit(&ids, 1, memory_order_relaxed);
  for (size_t i = 0; i <= DZ_DEPTH_MAX; i++) stack->places[i].name = stack->id << DZ_PLACE_BITS | i;
  stack->places[0].object = UINTPTR_MAX; /* never dead */
  atomic_init(&stack->top, stack->places);
  return stack;
}

static void enlist(struct drowse_stack *stack) {
  dz_lock(&registry_lock);
  stack->next = registry;
  stack->before = &registry;
  if (registry != NULL) registry->before = &stack->next;
  registry = stack;
  dz_unlock(&registry_lock);
}

/* Ends a stack's frames and frees it. */
static void end(struct drowse_stack *stack) {
  (void)dz_frame_end(stack, stack->places);
  dz_lock(&registry_lock);
  *stack->before = stack->next;
  if (stack->next != NULL) stack->next->before = stack->before;
  dz_unlock(&registry_lock);
  free(stack);
}

void dz_stack_each(void (*each)(struct drowse_stack *stack)) {
  dz_lock(&registry_lock);
  for (struct drowse_stack *stack = registry; stack != NULL; stack = stack->next) each(stack);
  dz_unlock(&registry_lock);
}

/* ---- a thread's own */

static struct thread_key own_key;

/* The thread ends: its own frames with it. A user's stack that it was running on is parked as it is. */
static void own_end(void *ended) {
  if (dz_stack != ended && dz_stack != NULL) atomic_store_explicit(&dz_stack->running, false, memory_order_release);
  dz_stack = ended;
  end(ended);
  dz_stack = NULL;
  own = NULL;
}

/* The C stack of this thread. Not knowing it is no failure: then nothing is pruned. */
static void find_bounds(struct drowse_stack *stack) {
  pthread_attr_t attributes;
  void *low = NULL;
  size_t bytes = 0;
  if (pthread_getattr_np(pthread_self(), &attributes) != 0) return;
  if (pthread_attr_getstack(&attributes, &low, &bytes) == 0) {
    stack->low = (uintptr_t)low;
    stack->high = (uintptr_t)low + bytes;
  }
  (void)pthread_attr_destroy(&attributes);
}

static drowse_status make_own(void) {
  int code = dz_key_make(&own_key, own_end);
  if (code != 0) return dz_error_system(DROWSE_ERR_SYSTEM, code, "no key for this thread's frames");
  struct drowse_stack *stack = make();
  if (stack == NULL) return DROWSE_ERR_NO_HOST_MEMORY;
  if (pthread_setspecific(dz_key(&own_key), stack) != 0) {
    free(stack);
    return dz_error(DROWSE_ERR_NO_HOST_MEMORY, "no memory for this thread's frames");
  }
  find_bounds(stack);
  stack->own = true;
  own = stack;
  enlist(stack);
  return DROWSE_OK;
}

drowse_status dz_stack_make_own(void) {
  if (own == NULL) {
    drowse_status status = make_own();
    if (status != DROWSE_OK) return status;
  }
  atomic_store_explicit(&own->running, true, memory_order_relaxed);
  dz_stack = own;
  return DROWSE_OK;
}

/* ---- users' stacks */

DROWSE_API drowse_status drowse_stack_create_at(drowse_stack **result, void *low, size_t bytes) {
  if (result == NULL) return dz_error(DROWSE_ERR_INVALID, "stack is NULL");
  *result = NULL;
  if (bytes > UINTPTR_MAX - (uintptr_t)low) return dz_error(DROWSE_ERR_INVALID, "%zu bytes at %p: that wraps around", bytes, low);
  if (low == NULL && bytes > 0) return dz_error(DROWSE_ERR_INVALID, "low is NULL, and bytes %zu", bytes);
  struct drowse_stack *stack = make();
  if (stack == NULL) return DROWSE_ERR_NO_HOST_MEMORY;
  stack->low = (uintptr_t)low;
  stack->high = (uintptr_t)low + bytes;
  enlist(stack);
  *result = stack;
  return DROWSE_OK;
}

DROWSE_API drowse_status drowse_stack_create(drowse_stack **stack) {
  return drowse_stack_create_at(stack, NULL, 0);
}

/* Makes to, NULL for the thread's own, current; the one before is parked. A thread that runs on a user's stack has one of its own
 * too, with whose end the user's is parked. */
static drowse_status swap_to(struct drowse_stack *to) {
  struct drowse_stack *from = dz_stack;
  if (to != NULL && own == NULL) {
    drowse_status status = make_own();
    if (status != DROWSE_OK) return status;
  }
  if (to == NULL) to = own;
  if (to == from) return DROWSE_OK;
  if (to != NULL && to != own && atomic_exchange_explicit(&to->running, true, memory_order_acquire)) {
    return dz_error(DROWSE_ERR_BUSY, "the stack is another thread's current one");
  }
  dz_stack = to;
  if (from != NULL && from != own) atomic_store_explicit(&from->running, false, memory_order_release);
  return DROWSE_OK;
}

/* The C stack may have been switched already, to one that lies inside that of the frames before. */
static bool may_be_on(const struct drowse_stack *to, const void *sp) {
  if (to == NULL) return false;
  return to->low == to->high || (uintptr_t)sp - to->low < to->high - to->low;
}

DROWSE_API drowse_status drowse_stack_swap(drowse_stack *to, drowse_stack **from) {
  dz_arbiter_check_fork();
  struct drowse_stack *before = dz_stack == own ? NULL : dz_stack;
  if (dz_stack != NULL && !may_be_on(to, __builtin_frame_address(0))) dz_frame_prune(dz_stack, __builtin_frame_address(0));
  drowse_status status = swap_to(to);
  if (from != NULL) *from = before;
  return status;
}

DROWSE_API drowse_stack *drowse_stack_switch(drowse_stack *to) {
  drowse_stack *from;
  (void)drowse_stack_swap(to, &from);
  return from;
}

DROWSE_API void drowse_stack_destroy(drowse_stack *stack) {
  if (stack == NULL) return;
  dz_arbiter_check_fork();
  if (stack == dz_stack) dz_stack = own;
  end(stack);
}

bool dz_stack_find(uint64_t id) {
  if (id == 0 || (own != NULL && own->id == id)) return swap_to(NULL) == DROWSE_OK;
  struct drowse_stack *found = NULL;
  dz_lock(&registry_lock);
  for (struct drowse_stack *stack = registry; stack != NULL && found == NULL; stack = stack->next) {
    if (stack->id == id && !stack->own) found = stack;
  }
  dz_unlock(&registry_lock);
  return found != NULL && swap_to(found) == DROWSE_OK;
}

/* ---- fork */

static void prepare(void) {
  dz_lock_for_fork(&registry_lock);
}

static void parent(void) {
  dz_unlock_for_fork(&registry_lock);
}

/* The thread that ran on it is gone, and its frames with it. A thread's own stack is freed by nobody else; a user's is still
 * known to him: he may destroy it. */
static void lose(struct drowse_stack *stack, bool held) {
  stack->next = NULL;
  stack->before = &stack->next;
  atomic_store_explicit(&stack->top, stack->places, memory_order_relaxed);
  atomic_store_explicit(&stack->counted, DROWSE_EXPANDABLE_INHERIT, memory_order_relaxed);
  if (stack->own && held) free(stack); /* malloc is not usable in the child of a fork without handlers */
}

/* A fork without handlers may have come while another thread was linking: forward links are whole at every moment. */
static void child(bool held) {
  dz_lock_remake(&registry_lock, held);
  for (struct drowse_stack **at = &registry; *at != NULL;) {
    struct drowse_stack *stack = *at;
    stack->before = at;
    if (stack == dz_stack || stack == own || (!stack->own && !atomic_load_explicit(&stack->running, memory_order_relaxed))) {
      at = &stack->next;
    } else {
      *at = stack->next;
      lose(stack, held);
    }
  }
  dz_arbiter_child();
}

static struct fork_part part = {.rank = DZ_RANK_STACKS, .prepare = prepare, .parent = parent, .child = child};

static __attribute__((constructor)) void begin(void) {
  dz_fork_register(&part);
}
