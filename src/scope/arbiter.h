/* SPDX-License-Identifier: Apache-2.0
 *
 * The arbiter: keeps a hosting framework's one expandable flag right for the frames of all stacks.
 */
#ifndef DZ_ARBITER_H
#define DZ_ARBITER_H

#include "core/fork.h"
#include "drowse.h"

struct drowse_stack;

/* To be called by the thread that runs on a stack when a scope begins or ends there in which off is current, or was: returns when
 * the flag is right. HOOK: a hook failed. Back is what was current before the scope that begins: it is again, before anybody else
 * goes on. NULL: a scope ends; the flag is in debt, which the next one to come here pays. */
struct place;
drowse_status dz_arbiter_settle(struct drowse_stack *stack, struct place *back);

/* In a forked child: counts anew; the flag itself is put right at the next call. */
void dz_arbiter_child(void);

/* Does that, if this is that call. */
void dz_arbiter_after_fork(void);

static inline void dz_arbiter_check_fork(void) {
  if (__builtin_expect(!dz_fork_quiet(), 0)) dz_arbiter_after_fork();
}

#endif
