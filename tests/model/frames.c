/* SPDX-License-Identifier: Apache-2.0
 *
 * Steps of scopes, marks, jumps and stacks of frames, and a framework whose flag they turn off.
 */
#include <string.h>

#include "model/model.h"

/* A thread's own stack exists from the beginning. */
static struct ref_stack *current(struct actor *actor) {
  return &actor->stacks[actor->current];
}

static const struct ref_frame *top_of(const struct ref_stack *stack) {
  static const struct ref_frame bottom = {.tag = TAG_DEFAULT, .expandable = DROWSE_EXPANDABLE_INHERIT};
  return stack->depth == 0 ? &bottom : &stack->frames[stack->depth - 1];
}

const struct ref_frame *frames_current(const struct actor *actor) {
  return top_of(&actor->stacks[actor->current]);
}

/* ---- the framework */

static struct {
  bool attached, on, owes; /* owes: a hook has failed since the flag was last what it was to be */
  unsigned fails, failures;
} framework = {.on = true};

static int fails(void) {
  if (framework.fails == 0) return 0;
  framework.fails--;
  framework.failures++;
  framework.owes = true;
  return 1;
}

static int get_flag(void *nothing, bool *on) {
  (void)nothing;
  *on = framework.on;
  return fails();
}

static int set_flag(void *nothing, bool on) {
  (void)nothing;
  if (fails() != 0) return 1;
  framework.on = on;
  return 0;
}

/* The flag is off exactly while a stack's current frame says so; what a failing hook left undone is done later. */
static void check_flag(const struct actor *actor) {
  bool off = false;
  for (size_t i = 0; i < STACKS; i++)
    off |= actor->stacks[i].exists && top_of(&actor->stacks[i])->expandable == DROWSE_EXPANDABLE_OFF;
  if (framework.on != off) framework.owes = false;
  if (!framework.attached) return;
  EXPECT_MSG(framework.on != off || framework.owes, "%s frame says off, and the framework's flag is %s", off ? "a" : "no",
             framework.on ? "on" : "off");
}

/* A call that ran a hook which failed says so. */
static uint64_t allowed_after(unsigned failures_before) {
  return framework.failures == failures_before ? STATUS(OK) : STATUS(ERR_HOOK);
}

void step_framework(struct actor *actor, const struct step *step) {
  const unsigned before = framework.failures;
  const drowse_framework given = {.struct_size = sizeof given, .get_expandable = get_flag, .set_expandable = set_flag};
  drowse_status status = (step->a & 1) == 0 ? drowse_framework_attach(&given) : drowse_framework_detach();
  uint64_t allowed = allowed_after(before);
  if ((step->a & 1) == 0) {
    if (framework.attached) allowed = STATUS(ERR_BUSY);
    status = ref_check(actor, status, allowed, "framework_attach");
    framework.attached |= status == DROWSE_OK;
  } else {
    if (!framework.attached) allowed = STATUS(ERR_NOT_FOUND);
    status = ref_check(actor, status, allowed, "framework_detach");
    framework.attached &= status != DROWSE_OK;
    EXPECT(framework.attached || framework.on);
  }
}

void step_hook_fails(struct actor *actor, const struct step *step) {
  framework.fails = step->a % 3;
  model_say(actor, "the next %u calls of hooks fail", framework.fails);
}

/* ---- scopes */

static void push(struct actor *actor, unsigned tag, drowse_expandable expandable) {
  struct ref_stack *stack = current(actor);
  struct ref_frame frame = {.tag = tag, .expandable = expandable, .serial = ++stack->serial};
  if (expandable == DROWSE_EXPANDABLE_INHERIT) frame.expandable = top_of(stack)->expandable;
  stack->frames[stack->depth++] = frame;
}

/* By name, by interned name, or with the tag of the enclosing frame. Some ask for many at once. */
static drowse_status enter(struct actor *actor, const struct step *step, unsigned *tag) {
  struct ref_stack *stack = current(actor);
  drowse_scope *scope = &stack->scopes[stack->depth];
  const drowse_expandable expandable = (drowse_expandable)(step->b % 3);
  const char *name = actor->tags[*tag].name;
  switch (step->c % 3) {
  case 0:
    return drowse_scope_enter(scope, name, expandable);
  case 1:
    return drowse_scope_enter_tag(scope, drowse_tag_get(name), expandable);
  default:
    *tag = top_of(stack)->tag;
    return drowse_scope_enter(scope, NULL, expandable);
  }
}

void step_enter(struct actor *actor, const struct step *step) {
  const unsigned times = step->a >= 250 ? 66 : 1; /* more than fit */
  for (unsigned i = 0; i < times; i++) {
    const unsigned before = framework.failures;
    const bool full = current(actor)->depth == 64;
    unsigned tag = step->a % TAGS;
    drowse_status status = enter(actor, step, &tag);
    status = ref_check(actor, status, full ? STATUS(ERR_SCOPE) : allowed_after(before), "scope_enter %s, expandable %u",
                       actor->tags[tag].name, step->b % 3);
    if (status != DROWSE_OK) return;
    push(actor, tag, (drowse_expandable)(step->b % 3));
  }
}

/* Any of those that are open, or one that has ended. Whatever the hook says, it has ended then. */
void step_leave(struct actor *actor, const struct step *step) {
  struct ref_stack *stack = current(actor);
  const unsigned before = framework.failures;
  drowse_scope spent = stack->scopes[stack->depth], none = DROWSE_SCOPE_NONE;
  if (step->b % 8 == 0) {
    (void)ref_check(actor, drowse_scope_leave(&none), STATUS(OK), "scope_leave of none");
  } else if (step->b % 8 == 1 && spent.opaque[0] != 0) {
    (void)ref_check(actor, drowse_scope_leave(&spent), STATUS(ERR_SCOPE), "scope_leave of one that has ended");
  } else if (stack->depth > 0) {
    const size_t ended = step->b % 2 == 0 ? stack->depth - 1 : step->a % stack->depth;
    drowse_status status = drowse_scope_leave(&stack->scopes[ended]);
    (void)ref_check(actor, status, allowed_after(before), "scope_leave %zu of %zu", ended, stack->depth);
    stack->depth = ended;
  }
}

/* ---- marks and jumps */

static struct ref_mark *mark_of(struct actor *actor, const struct step *step) {
  return &actor->marks[step->a % MARKS];
}

void step_mark(struct actor *actor, const struct step *step) {
  model_say(actor, "scope_mark %u", step->a % MARKS);
  *mark_of(actor, step) = (struct ref_mark){.mark = drowse_scope_mark(),
                                            .stack = actor->current,
                                            .serial = top_of(current(actor))->serial,
                                            .life = actor->lives[actor->current],
                                            .set = true};
}

static void unwind_to(struct actor *actor, unsigned number, uint64_t serial) {
  struct ref_stack *stack = &actor->stacks[number];
  actor->current = number;
  while (top_of(stack)->serial > serial) stack->depth--;
}

void step_unwind(struct actor *actor, const struct step *step) {
  const struct ref_mark *mark = mark_of(actor, step);
  const unsigned before = framework.failures;
  if (!mark->set) return;
  const bool gone = mark->life != actor->lives[mark->stack];
  drowse_status status = drowse_scope_unwind(mark->mark);
  (void)ref_check(actor, status, gone ? STATUS(ERR_SCOPE) : allowed_after(before), "scope_unwind %u", step->a % MARKS);
  if (!gone) unwind_to(actor, mark->stack, mark->serial);
}

/* Scopes that a jump ends. Nothing is told of a hook that fails on the way. */
void step_jump(struct actor *actor, const struct step *step) {
  static _Thread_local drowse_jump jump;
  static _Thread_local drowse_scope scopes[4];
  struct actor *volatile kept = actor;
  const unsigned stack = actor->current;
  const uint64_t serial = top_of(current(actor))->serial;
  if (current(actor)->depth > 60) return;
  model_say(actor, "setjmp, scope_enter up to %u times, longjmp", step->a % 4);
  if (drowse_setjmp(&jump) == 0) {
    for (unsigned i = 0; i < step->a % 4; i++) {
      drowse_status status = drowse_scope_enter(&scopes[i], actor->tags[step->b % TAGS].name, (drowse_expandable)(step->c % 3));
      if (status == DROWSE_OK) push(actor, step->b % TAGS, (drowse_expandable)(step->c % 3));
      if (status != DROWSE_OK) ref_forgive();
    }
    drowse_longjmp(&jump, 1);
  }
  unwind_to(kept, stack, serial);
  ref_forgive();
}

/* ---- stacks */

void step_stack(struct actor *actor, const struct step *step) {
  const unsigned number = 1 + step->a % (STACKS - 1);
  struct ref_stack *stack = &actor->stacks[number];
  if (!stack->exists) {
    drowse_status status =
        (step->b & 1) == 0 ? drowse_stack_create(&stack->stack) : drowse_stack_create_at(&stack->stack, NULL, 0);
    status = ref_check(actor, status, STATUS(OK), "stack_create %u", number);
    stack->exists = status == DROWSE_OK;
    return;
  }
  model_say(actor, "stack_destroy %u", number);
  drowse_stack_destroy(stack->stack);
  ref_forgive(); /* its hook may have failed */
  *stack = (struct ref_stack){.stack = NULL};
  actor->lives[number]++;
  if (actor->current == number) actor->current = 0;
}

void step_swap(struct actor *actor, const struct step *step) {
  const unsigned number = step->a % STACKS;
  struct ref_stack *to = &actor->stacks[number];
  drowse_stack *from = NULL;
  if (!to->exists) return;
  if ((step->b & 1) == 0) {
    (void)ref_check(actor, drowse_stack_swap(to->stack, &from), STATUS(OK), "stack_swap to %u", number);
  } else {
    model_say(actor, "stack_switch to %u", number);
    from = drowse_stack_switch(to->stack);
  }
  EXPECT(from == actor->stacks[actor->current].stack);
  actor->current = number;
}

/* ---- after each step, and the end */

void frames_check(struct actor *actor) {
  const struct ref_stack *stack = current(actor);
  const drowse_frame found = drowse_scope_current();
  const struct ref_frame *expected = top_of(stack);
  EXPECT_MSG(strcmp(found.tag, actor->tags[expected->tag].name) == 0 && found.expandable == expected->expandable &&
                 found.depth == stack->depth,
             "thread %u: the current frame is %s, %d, %zu deep, and should be %s, %d, %zu deep", actor->number, found.tag,
             (int)found.expandable, found.depth, actor->tags[expected->tag].name, (int)expected->expandable, stack->depth);
  if (is_alone()) check_flag(actor);
}

void frames_end(struct actor *actor) {
  if (is_alone()) framework.fails = 0;
  for (unsigned number = 1; number < STACKS; number++) {
    if (actor->stacks[number].exists) drowse_stack_destroy(actor->stacks[number].stack);
    actor->stacks[number] = (struct ref_stack){.stack = NULL};
  }
  actor->current = 0;
  actor->stacks[0].depth = 0;
  (void)ref_check(actor, drowse_scope_unwind((drowse_mark){{0, 0}}), STATUS(OK), "scope_unwind of all");
  frames_check(actor);
  if (!framework.attached) return;
  (void)ref_check(actor, drowse_framework_detach(), STATUS(OK), "framework_detach");
  framework.attached = false;
  EXPECT(framework.on);
}
