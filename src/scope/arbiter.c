/* SPDX-License-Identifier: Apache-2.0
 *
 * The arbiter. One word says how many stacks' current frame is off, and in what state the framework's flag is:
 *
 *   attachment | count | debt | attached | busy
 *
 * Each stack knows whether it is counted. A thread that has changed its stack's current frame compares the two and, if they
 * differ, counts by one compare-and-swap, which is allowed only while nobody is busy. One that takes the count from or to zero
 * swaps in the busy bit instead, runs the hook that turns the flag off or back, counts and stops being busy. So whoever has
 * counted finds the flag right, and hooks run one after another. Who finds it busy waits and looks again. A hook that fails while
 * a scope begins changes nothing; while one ends, the count goes on and the flag is in debt: whoever comes next runs the hook
 * too, whether he takes the count from or to zero or not. Attachments have numbers, so that a compare-and-swap that was begun
 * under one fails under the next.
 *
 * Without a framework nothing is counted, and entering and leaving touch nothing that is shared. Attaching counts all stacks
 * itself, busy meanwhile: a thread changes its frame, then looks at the word; attaching changes the word, then looks at the
 * frames; with a fence between each, one of the two sees the other. (doc/model/ has all of this as a model, and what it was
 * checked for.)
 */
#include "scope/arbiter.h"

#include <signal.h>

#include "core/error.h"
#include "core/lock.h"
#include "core/options.h"
#include "core/tls.h"
#include "scope/stack.h"

#define BUSY UINT64_C(1)
#define ATTACHED UINT64_C(2)
#define DEBT UINT64_C(4)               /* a hook failed while a scope ended: the flag is not what the count says */
#define ONE UINT64_C(8)                /* of the count */
#define ATTACHMENT (UINT64_C(1) << 40) /* one of the attachments' numbers; below it are the count and the bits */

static atomic_uint_fast64_t word;
static DZ_TLS bool in_hook; /* this thread is the busy one, and a hook is running */

static struct lock idle_lock = DZ_LOCK_INIT(DZ_RANK_ARBITER);
static pthread_cond_t idle = PTHREAD_COND_INITIALIZER; /* nobody is busy any more */

/* The busy one's. */
static drowse_framework framework;
static bool ours;    /* the flag is off because of us */
static bool value;   /* ... what it was before */
static bool stamped; /* ... and stamp is the framework's since we had turned it off */
static uint64_t stamp;

/* How many stacks are counted. */
static uint64_t count_of(uint64_t now) {
  return now % ATTACHMENT / ONE;
}

/* ---- hooks. Signals are blocked: a handler might call drowse, which would wait for its own thread */

static drowse_status refuse(const char *hook, int code) {
  return dz_error(DROWSE_ERR_HOOK, "the framework's hook %s failed: it returned %d", hook, code);
}

static drowse_status set_flag(bool on) {
  int code = framework.set_expandable(framework.context, on);
  return code == 0 ? DROWSE_OK : refuse("set_expandable", code);
}

/* stamped comes last: a child may be forked in between, by another thread. */
static void note_stamp(void) {
  if (framework.stamp != NULL) stamp = framework.stamp(framework.context);
  atomic_signal_fence(memory_order_release);
  stamped = framework.stamp != NULL;
}

/* Somebody else has changed the framework's settings since we did. */
static bool is_foreign(void) {
  return stamped && framework.stamp(framework.context) != stamp;
}

/* What the flag was is noted before it is changed, so that a child forked in the middle can put it right too. A flag that is off
 * since an earlier hook failed to turn it back stays ours, with the value from then. */
static drowse_status turn_off(void) {
  bool on = false;
  int code = framework.get_expandable(framework.context, &on);
  if (code != 0) return refuse("get_expandable", code);
  bool was_ours = ours && !is_foreign();
  if (!was_ours) value = on;
  ours = true;
  stamped = false;
  drowse_status status = on ? set_flag(false) : DROWSE_OK;
  if (status != DROWSE_OK) ours = was_ours;
  note_stamp();
  return status;
}

/* Who changed the framework's settings meanwhile meant it: then it is left as it is. */
static drowse_status turn_back(void) {
  drowse_status status = DROWSE_OK;
  if (ours && value && !is_foreign()) {
    status = set_flag(true);
    if (status != DROWSE_OK) note_stamp();
  }
  if (status == DROWSE_OK) ours = false;
  return status;
}

/* A thread that was canceled in the middle of a hook would stay busy for ever. */
static drowse_status run_hook(bool off) {
  int cancel;
  (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
  in_hook = true;
  drowse_status status = off ? turn_off() : turn_back();
  in_hook = false;
  (void)pthread_setcancelstate(cancel, NULL);
  return status;
}

/* ---- being busy */

static void wait_idle(void) {
  dz_lock(&idle_lock);
  while ((atomic_load(&word) & BUSY) != 0) (void)dz_cond_wait(&idle, &idle_lock, DZ_NEVER);
  dz_unlock(&idle_lock);
}

/* Stops being busy; then is the new word. Nobody else changes it meanwhile. */
static void stop_busy(uint64_t then) {
  dz_lock(&idle_lock);
  atomic_store(&word, then & ~BUSY);
  (void)pthread_cond_broadcast(&idle);
  dz_unlock(&idle_lock);
}

/* Becomes busy if the word has these bits, or waits for that; false: no framework is attached. */
static bool become_busy(void) {
  for (;;) {
    uint64_t now = atomic_load(&word);
    if ((now & ATTACHED) == 0) return false;
    if ((now & BUSY) != 0)
      wait_idle();
    else if (atomic_compare_exchange_weak(&word, &now, now | BUSY))
      return true;
  }
}

/* ---- counting */

static bool is_counted(const struct drowse_stack *stack) {
  return atomic_load_explicit(&stack->counted, memory_order_relaxed) == DROWSE_EXPANDABLE_OFF;
}

/* What it adds to the word that a stack counts, or does not. */
static uint64_t difference(const struct drowse_stack *stack, bool counts) {
  return counts == is_counted(stack) ? 0 : counts ? ONE : -ONE;
}

static void note_counted(struct drowse_stack *stack, bool counts) {
  atomic_store_explicit(&stack->counted, counts ? DROWSE_EXPANDABLE_OFF : DROWSE_EXPANDABLE_INHERIT, memory_order_relaxed);
}

/* The busy one has the hook make the flag what it is to be, then counts. The hook may have entered and left scopes on this very
 * stack, and counted it: so how it differs is looked at again. */
static drowse_status cross(struct drowse_stack *stack, struct place *back) {
  bool counted = is_counted(stack);
  drowse_status status = run_hook(count_of(atomic_load(&word) + difference(stack, dz_stack_is_off(stack))) > 0);
  if (status != DROWSE_OK && back != NULL) dz_stack_set_top(stack, back);
  bool counts = dz_stack_is_off(stack);
  uint64_t then = atomic_load(&word) + difference(stack, counts);
  note_counted(stack, counts);
  if (status == DROWSE_OK)
    then &= ~DEBT;
  else if (back == NULL || counts != counted)
    then |= DEBT;
  stop_busy(then);
  return status;
}

static drowse_status settle(struct drowse_stack *stack, struct place *back) {
  for (;;) {
    uint64_t now = atomic_load(&word);
    if ((now & ATTACHED) == 0) return DROWSE_OK;
    if ((now & BUSY) != 0 && !in_hook) {
      wait_idle();
      continue;
    }
    bool off = dz_stack_is_off(stack);
    uint64_t then = now + difference(stack, off);
    bool crosses = (count_of(now) == 0) != (count_of(then) == 0) || (now & DEBT) != 0;
    if (then == now && !crosses) return DROWSE_OK;
    crosses = crosses && !in_hook;
    if (!atomic_compare_exchange_weak(&word, &now, crosses ? now | BUSY : then)) continue;
    if (crosses) return cross(stack, back);
    note_counted(stack, off);
    return DROWSE_OK;
  }
}

static void block_signals(sigset_t *before) {
  sigset_t all;
  (void)sigfillset(&all);
  (void)pthread_sigmask(SIG_SETMASK, &all, before);
}

/* A signal handler may have forked since the call began, by a fork that runs no handlers: whoever was busy is gone then. That is
 * noticed once no handler can run any more. What the flag has to be put right for is left to the next call: the hook would find
 * this one's scope half begun. */
drowse_status dz_arbiter_settle(struct drowse_stack *stack, struct place *back) {
  atomic_thread_fence(memory_order_seq_cst);
  if ((atomic_load_explicit(&word, memory_order_relaxed) & ATTACHED) == 0) return DROWSE_OK;
  sigset_t before;
  block_signals(&before);
  (void)dz_fork_generation();
  drowse_status status = settle(stack, back);
  (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
  return status;
}

/* ---- attaching */

static uint64_t found_off; /* of the one who counts all */

static void count_stack(struct drowse_stack *stack) {
  note_counted(stack, dz_stack_is_off(stack));
  if (is_counted(stack)) found_off++;
}

static uint64_t count_all(void) {
  found_off = 0;
  dz_stack_each(count_stack);
  return found_off;
}

static drowse_status attach(const drowse_framework *given) {
  uint64_t now = atomic_load(&word);
  if ((now & (ATTACHED | BUSY)) != 0 || !atomic_compare_exchange_strong(&word, &now, now | BUSY)) {
    return dz_error(DROWSE_ERR_BUSY, "a framework is attached already");
  }
  framework = *given;
  ours = stamped = false;
  uint64_t attached = now | BUSY | ATTACHED;
  atomic_store(&word, attached);
  atomic_thread_fence(memory_order_seq_cst);
  attached += count_all() * ONE;
  atomic_store(&word, attached);
  drowse_status status = count_of(attached) > 0 ? run_hook(true) : DROWSE_OK;
  stop_busy(status == DROWSE_OK ? attached : now);
  return status;
}

DROWSE_API drowse_status drowse_framework_attach(const drowse_framework *given) {
  drowse_framework wanted;
  if (given == NULL) return dz_error(DROWSE_ERR_INVALID, "framework is NULL");
  drowse_status status = dz_options_read(&wanted, sizeof wanted, given, "drowse_framework");
  if (status != DROWSE_OK) return status;
  if ((wanted.flags & ~(uint32_t)DROWSE_FRAMEWORK_PARENT_ONLY) != 0) {
    return dz_error(DROWSE_ERR_UNSUPPORTED, "drowse_framework: flags is 0x%x, and 0x%x is known", wanted.flags,
                    DROWSE_FRAMEWORK_PARENT_ONLY);
  }
  if (wanted.get_expandable == NULL || wanted.set_expandable == NULL) {
    return dz_error(DROWSE_ERR_INVALID, "drowse_framework: get_expandable or set_expandable is NULL");
  }
  sigset_t before;
  block_signals(&before);
  dz_arbiter_check_fork();
  status = attach(&wanted);
  (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
  return status;
}

static drowse_status detach(void) {
  if (!become_busy()) return dz_error(DROWSE_ERR_NOT_FOUND, "no framework is attached");
  drowse_status status = ours ? run_hook(false) : DROWSE_OK;
  uint64_t now = atomic_load(&word);
  stop_busy(status == DROWSE_OK ? now - now % ATTACHMENT + ATTACHMENT : now);
  return status;
}

DROWSE_API drowse_status drowse_framework_detach(void) {
  if (in_hook) return dz_error(DROWSE_ERR_BUSY, "a hook cannot detach its own framework");
  sigset_t before;
  block_signals(&before);
  dz_arbiter_check_fork();
  drowse_status status = detach();
  (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
  return status;
}

/* ---- fork */

void dz_arbiter_child(void) {
  static const pthread_cond_t new_idle = PTHREAD_COND_INITIALIZER;
  idle = new_idle; /* threads that waited are gone, and still counted in it */
  dz_lock_remake(&idle_lock, false);
  in_hook = false;
  uint64_t now = atomic_load(&word), detached = now - now % ATTACHMENT + ATTACHMENT;
  if ((now & ATTACHED) == 0 || (framework.flags & DROWSE_FRAMEWORK_PARENT_ONLY) != 0) {
    atomic_store(&word, detached); /* also where somebody was about to attach */
    return;
  }
  uint64_t then = detached | ATTACHED | count_all() * ONE;
  bool wrong = (now & (BUSY | DEBT)) != 0 || (count_of(then) > 0) != ours; /* whoever was busy is gone */
  atomic_store(&word, wrong ? then | DEBT : then);
  if (wrong) dz_fork_pend();
}

void dz_arbiter_after_fork(void) {
  sigset_t before;
  block_signals(&before);
  if (dz_fork_settle() && !in_hook && become_busy()) {
    uint64_t now = atomic_load(&word);
    drowse_status status = run_hook(count_of(now) > 0);
    stop_busy(status == DROWSE_OK ? atomic_load(&word) & ~DEBT : atomic_load(&word));
  }
  (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
}
