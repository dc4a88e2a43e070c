/* SPDX-License-Identifier: Apache-2.0
 *
 * The sweep of scopes, names, stacks of frames and settings: what they need is had at a thread's and a name's first use, and
 * nothing after that can fail.
 */
#include "fault/world.h"

#define ENTERS (SWEEP_BIT(ERR_NO_HOST_MEMORY) | SWEEP_BIT(ERR_SYSTEM))

/* ---- names */

static drowse_status get_tag(void) {
  drowse_error error = {.struct_size = sizeof error};
  if (drowse_tag_get("a name that is new") != NULL) return DROWSE_OK;
  (void)drowse_error_get(&error);
  return error.status;
}

/* ---- frames */

static drowse_status enter_and_leave(void) {
  drowse_scope scope;
  drowse_status status = drowse_scope_enter(&scope, "a tag", DROWSE_EXPANDABLE_OFF);
  if (status != DROWSE_OK) {
    EXPECT(drowse_scope_current().depth == 0);
    EXPECT(drowse_scope_leave(&scope) == DROWSE_OK); /* it is empty */
    return status;
  }
  EXPECT(drowse_scope_current().depth == 1);
  return drowse_scope_leave(&scope);
}

static void enter_once(void) {
  EXPECT_OK(enter_and_leave());
}

static drowse_status use_frames(void) {
  drowse_scope scopes[3];
  drowse_mark mark = drowse_scope_mark();
  drowse_status status = DROWSE_OK;
  for (int i = 0; i < 3 && status == DROWSE_OK; i++) status = drowse_scope_enter(&scopes[i], "a tag", DROWSE_EXPANDABLE_ON);
  return status == DROWSE_OK ? drowse_scope_unwind(mark) : status;
}

/* ---- stacks */

static drowse_status use_stack(void) {
  drowse_stack *stack = NULL, *from = NULL;
  drowse_status status = drowse_stack_create(&stack);
  if (status != DROWSE_OK) {
    EXPECT(stack == NULL);
    return status;
  }
  status = drowse_stack_swap(stack, &from);
  EXPECT(from == NULL);
  if (status == DROWSE_OK) EXPECT_OK(drowse_stack_swap(NULL, &from));
  EXPECT(from == (status == DROWSE_OK ? stack : NULL));
  drowse_stack_destroy(stack);
  return status;
}

/* ---- a framework */

static bool flag = true;

static int get_flag(void *nothing, bool *on) {
  (void)nothing;
  *on = flag;
  return 0;
}

static int set_flag(void *nothing, bool on) {
  (void)nothing;
  flag = on;
  return 0;
}

static drowse_status use_framework(void) {
  const drowse_framework framework = {.struct_size = sizeof framework, .get_expandable = get_flag, .set_expandable = set_flag};
  drowse_status status = drowse_framework_attach(&framework);
  if (status != DROWSE_OK) return status;
  status = enter_and_leave();
  EXPECT(flag);
  EXPECT_OK(drowse_framework_detach());
  return status;
}

/* ---- settings */

static drowse_status use_settings(void) {
  drowse_settings settings = {.struct_size = sizeof settings};
  char text[64];
  size_t room = sizeof text;
  drowse_status status = drowse_settings_parse("expandable_segments:True", DROWSE_SETTINGS_TORCH_2_10, &settings, NULL);
  if (status != DROWSE_OK) return status;
  return drowse_settings_edit("max_split_size_mb:64", "expandable_segments", "False", text, &room);
}

static const struct scenario scenarios[] = {
    {"tag-get", NULL, get_tag, NULL, SWEEP_BIT(ERR_NO_HOST_MEMORY), SWEEP_FRESH},
    {"scope-first", NULL, enter_and_leave, NULL, ENTERS, SWEEP_FRESH},
    {"scope", enter_once, enter_and_leave, NULL, 0, SWEEP_CALLS_NOTHING},
    {"scopes", enter_once, use_frames, NULL, 0, SWEEP_CALLS_NOTHING},
    {"stack-first", NULL, use_stack, NULL, ENTERS, SWEEP_FRESH},
    {"stack", NULL, use_stack, NULL, SWEEP_BIT(ERR_NO_HOST_MEMORY), 0},
    {"framework-first", NULL, use_framework, NULL, ENTERS, SWEEP_FRESH},
    {"framework", enter_once, use_framework, NULL, 0, SWEEP_CALLS_NOTHING},
    {"settings", NULL, use_settings, NULL, 0, SWEEP_CALLS_NOTHING | SWEEP_FRESH},
};

int main(int argc, char **argv) {
  return sweep_main(argc, argv, scenarios, sizeof scenarios / sizeof *scenarios);
}
