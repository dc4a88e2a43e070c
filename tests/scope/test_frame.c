/* SPDX-License-Identifier: Apache-2.0
 *
 * The per-thread stack of frames: what is current, and that every way out of a scope ends it. Needs -fexceptions.
 */
#include "scope/frame.h"

#include <malloc.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>

#include "harness.h"

enum { DEPTH = 64 };

#define INHERIT DROWSE_EXPANDABLE_INHERIT
#define ON DROWSE_EXPANDABLE_ON
#define OFF DROWSE_EXPANDABLE_OFF

static void ck_current(const char *tag, drowse_expandable expandable, size_t depth) {
  drowse_frame frame = drowse_scope_current();
  ck_assert_str_eq(frame.tag, tag);
  ck_assert_int_eq(frame.expandable, expandable);
  ck_assert_uint_eq(frame.depth, depth);
}

#define ck_outside() ck_current("default", INHERIT, 0)

static bool is_empty(const drowse_scope *scope) {
  return scope->opaque[0] == 0 && scope->opaque[1] == 0;
}

/* ---- enter and leave */

START_TEST(frames_inherit_what_they_do_not_say) {
  drowse_scope a, b, c, d;
  ck_outside();
  ck_ok(drowse_scope_enter(&a, "weights", INHERIT));
  ck_current("weights", INHERIT, 1);
  ck_ok(drowse_scope_enter(&b, NULL, OFF));
  ck_current("weights", OFF, 2);
  ck_ok(drowse_scope_enter(&c, "kv_cache", INHERIT));
  ck_current("kv_cache", OFF, 3);
  ck_ok(drowse_scope_enter_tag(&d, NULL, ON));
  ck_current("kv_cache", ON, 4);
  ck_ok(drowse_scope_leave(&d));
  ck_current("kv_cache", OFF, 3);
  ck_ok(drowse_scope_leave(&c));
  ck_current("weights", OFF, 2);
  ck_ok(drowse_scope_leave(&b));
  ck_current("weights", INHERIT, 1);
  ck_ok(drowse_scope_leave(&a));
  ck_outside();
}
END_TEST

START_TEST(an_interned_tag_is_the_name) {
  drowse_scope scope;
  const drowse_tag *tag = drowse_tag_get("weights");
  ck_assert_ptr_nonnull(tag);
  ck_ok(drowse_scope_enter_tag(&scope, tag, ON));
  ck_current("weights", ON, 1);
  ck_assert_ptr_eq(dz_frame_current().tag, tag);
  ck_ok(drowse_scope_leave(&scope));
  ck_assert_ptr_null(dz_frame_current().tag);
}
END_TEST

START_TEST(the_current_name_outlives_its_scope) {
  drowse_scope scope;
  ck_ok(drowse_scope_enter(&scope, "short-lived", INHERIT));
  drowse_frame frame = drowse_scope_current();
  ck_ok(drowse_scope_leave(&scope));
  ck_assert_str_eq(frame.tag, "short-lived");
}
END_TEST

START_TEST(leaving_an_outer_scope_drops_the_inner_ones) {
  drowse_scope outer, middle, inner;
  ck_ok(drowse_scope_enter(&outer, "outer", INHERIT));
  ck_ok(drowse_scope_enter(&middle, "middle", INHERIT));
  ck_ok(drowse_scope_enter(&inner, "inner", INHERIT));
  ck_ok(drowse_scope_leave(&middle));
  ck_current("outer", INHERIT, 1);
  ck_status(drowse_scope_leave(&inner), DROWSE_ERR_SCOPE);
  ck_status(drowse_scope_leave(&middle), DROWSE_ERR_SCOPE);
  ck_current("outer", INHERIT, 1);
  ck_ok(drowse_scope_leave(&outer));
  ck_outside();
}
END_TEST

START_TEST(leaving_twice_changes_nothing) {
  drowse_scope first, second;
  ck_ok(drowse_scope_enter(&first, "first", INHERIT));
  ck_ok(drowse_scope_leave(&first));
  ck_status(drowse_scope_leave(&first), DROWSE_ERR_SCOPE);
  ck_ok(drowse_scope_enter(&second, "second", INHERIT)); /* where the first one was */
  ck_status(drowse_scope_leave(&first), DROWSE_ERR_SCOPE);
  ck_current("second", INHERIT, 1);
  ck_ok(drowse_scope_leave(&second));
}
END_TEST

START_TEST(a_token_is_a_value) {
  drowse_scope scope, copy;
  ck_ok(drowse_scope_enter(&scope, "weights", INHERIT));
  copy = scope;
  memset(&scope, 0xff, sizeof scope);
  ck_ok(drowse_scope_leave(&copy));
  ck_outside();
}
END_TEST

START_TEST(the_empty_token_is_left_at_will) {
  drowse_scope empty = DROWSE_SCOPE_NONE, scope;
  ck_ok(drowse_scope_leave(&empty));
  ck_ok(drowse_scope_enter(&scope, "weights", INHERIT));
  ck_ok(drowse_scope_leave(&empty));
  ck_ok(drowse_scope_leave(&empty));
  ck_current("weights", INHERIT, 1);
  ck_ok(drowse_scope_leave(&scope));
}
END_TEST

START_TEST(nonsense_is_no_token) {
  drowse_scope scope;
  ck_ok(drowse_scope_enter(&scope, "weights", INHERIT));
  for (unsigned bit = 0; bit < 64; bit++) {
    drowse_scope bad = scope;
    bad.opaque[1] ^= UINT64_C(1) << bit;
    ck_status(drowse_scope_leave(&bad), DROWSE_ERR_SCOPE);
  }
  drowse_scope bad = {{UINT64_MAX, scope.opaque[1]}};
  ck_status(drowse_scope_leave(&bad), DROWSE_ERR_SCOPE);
  ck_current("weights", INHERIT, 1);
  ck_ok(drowse_scope_leave(&scope));
}
END_TEST

START_TEST(bad_arguments_push_nothing) {
  drowse_scope scope;
  memset(&scope, 0xff, sizeof scope);
  ck_status(drowse_scope_enter(&scope, "bad\n", INHERIT), DROWSE_ERR_INVALID);
  ck_assert(is_empty(&scope));
  memset(&scope, 0xff, sizeof scope);
  ck_status(drowse_scope_enter(&scope, "good", (drowse_expandable)3), DROWSE_ERR_INVALID);
  ck_assert(is_empty(&scope));
  memset(&scope, 0xff, sizeof scope);
  ck_status(drowse_scope_enter_tag(&scope, NULL, (drowse_expandable)-1), DROWSE_ERR_INVALID);
  ck_assert(is_empty(&scope));
  ck_status(drowse_scope_enter(NULL, "good", INHERIT), DROWSE_ERR_INVALID);
  ck_status(drowse_scope_enter_tag(NULL, NULL, INHERIT), DROWSE_ERR_INVALID);
  ck_status(drowse_scope_leave(NULL), DROWSE_ERR_INVALID);
  ck_outside();
}
END_TEST

START_TEST(sixty_four_deep_and_no_deeper) {
  drowse_scope scopes[DEPTH], more;
  char name[16];
  for (int round = 0; round < 2; round++) {
    for (unsigned i = 0; i < DEPTH; i++) {
      (void)snprintf(name, sizeof name, "depth %u", i);
      ck_ok(drowse_scope_enter(&scopes[i], name, i % 2 == 0 ? ON : OFF));
    }
    memset(&more, 0xff, sizeof more);
    ck_status(drowse_scope_enter(&more, "one more", INHERIT), DROWSE_ERR_SCOPE);
    ck_assert(is_empty(&more));
    ck_current("depth 63", OFF, DEPTH);
    for (unsigned i = DEPTH; i-- > 1;) {
      ck_ok(drowse_scope_leave(&scopes[i]));
      (void)snprintf(name, sizeof name, "depth %u", i - 1);
      ck_current(name, (i - 1) % 2 == 0 ? ON : OFF, i);
    }
    ck_ok(drowse_scope_leave(&scopes[0]));
    ck_outside();
  }
}
END_TEST

/* ---- threads */

static void *leave_foreign(void *scope) {
  static drowse_status statuses[2];
  drowse_scope own;
  statuses[0] = drowse_scope_leave(scope); /* a thread that has no stack yet */
  if (drowse_scope_enter(&own, "own", INHERIT) != DROWSE_OK) return NULL;
  statuses[1] = drowse_scope_leave(scope); /* ... and one at the same depth */
  if (drowse_scope_leave(&own) != DROWSE_OK) return NULL;
  return statuses;
}

START_TEST(another_thread_cannot_leave) {
  drowse_scope scope;
  pthread_t thread;
  void *result = NULL;
  ck_ok(drowse_scope_enter(&scope, "weights", INHERIT));
  ck_assert_int_eq(pthread_create(&thread, NULL, leave_foreign, &scope), 0);
  ck_assert_int_eq(pthread_join(thread, &result), 0);
  ck_assert_ptr_nonnull(result);
  ck_assert_int_eq(((drowse_status *)result)[0], DROWSE_ERR_SCOPE);
  ck_assert_int_eq(((drowse_status *)result)[1], DROWSE_ERR_SCOPE);
  ck_current("weights", INHERIT, 1);
  ck_ok(drowse_scope_leave(&scope));
}
END_TEST

static void *enter_and_exit(void *token) {
  drowse_scope scopes[10];
  drowse_frame frame = drowse_scope_current();
  if (frame.depth != 0 || strcmp(frame.tag, "default") != 0) return NULL;
  for (int i = 0; i < 10; i++) {
    if (drowse_scope_enter(&scopes[i], "gone with the thread", OFF) != DROWSE_OK) return NULL;
  }
  *(drowse_scope *)token = scopes[0];
  pthread_exit(token);
}

static void exit_inside_scopes(drowse_scope *token) {
  pthread_t thread;
  void *result = NULL;
  ck_assert_int_eq(pthread_create(&thread, NULL, enter_and_exit, token), 0);
  ck_assert_int_eq(pthread_join(thread, &result), 0);
  ck_assert_ptr_eq(result, token);
}

START_TEST(a_thread_that_exits_inside_scopes_leaves_nothing) {
  drowse_scope token, mine;
  ck_ok(drowse_scope_enter(&mine, "mine", INHERIT));
  exit_inside_scopes(&token);
  size_t before = mallinfo2().uordblks;
  for (int i = 0; i < 200; i++) {
    exit_inside_scopes(&token);
    if (drowse_scope_leave(&token) != DROWSE_ERR_SCOPE) ck_abort_msg("a dead thread's scope was left");
  }
  size_t now = mallinfo2().uordblks;
  ck_assert_msg(now < before + 100000, "%zu bytes more", now - before); /* 200 stacks would be 300 KB */
  ck_current("mine", INHERIT, 1);
  ck_ok(drowse_scope_leave(&mine));
}
END_TEST

/* ---- DROWSE_SCOPE */

static int leave_by_return(void) {
  DROWSE_SCOPE("weights", ON) {
    DROWSE_SCOPE("inner", OFF) {
      if (drowse_scope_current().depth == 2) return 7;
    }
  }
  return 0;
}

START_TEST(every_way_out_of_the_block_ends_it) {
  int ran = 0;
  DROWSE_SCOPE("weights", ON) {
    ck_current("weights", ON, 1);
    ran++;
  }
  ck_outside();
  ck_assert_int_eq(leave_by_return(), 7);
  ck_outside();
  for (int i = 0; i < 3; i++) {
    DROWSE_SCOPE("loop", INHERIT) {
      ran++;
      if (i == 0) continue; /* both end the block, not the loop around it */
      if (i == 1) break;
      ran++;
    }
    ck_outside();
  }
  ck_assert_int_eq(ran, 5);
  DROWSE_SCOPE("a", INHERIT) {
    DROWSE_SCOPE("b", INHERIT) {
      ck_current("b", INHERIT, 2);
      goto out;
    }
  }
out:
  ck_outside();
  ck_assert_int_eq(ran, 5);
}
END_TEST

START_TEST(a_scope_without_braces_is_a_statement) {
  size_t depth = 0;
  if (depth == 0) DROWSE_SCOPE("a", INHERIT)
  DROWSE_SCOPE("b", INHERIT)
  depth = drowse_scope_current().depth;
  ck_assert_uint_eq(depth, 2);
  ck_outside();
}
END_TEST

START_TEST(a_block_whose_scope_cannot_be_entered_does_not_run) {
  drowse_status status = DROWSE_ERR_IO;
  bool ran = false;
  DROWSE_SCOPE_TRY(status, "bad\t", INHERIT) ran = true;
  ck_assert(!ran);
  ck_assert_int_eq(status, DROWSE_ERR_INVALID);
  DROWSE_SCOPE("", INHERIT) ran = true;
  ck_assert(!ran);
  ck_outside();
  DROWSE_SCOPE_TRY(status, "good", INHERIT) ran = true;
  ck_assert(ran);
  ck_assert_int_eq(status, DROWSE_OK);
}
END_TEST

static void nest(unsigned levels, drowse_status *last) {
  if (levels == 0) return;
  DROWSE_SCOPE_TRY(*last, "deep", INHERIT) nest(levels - 1, last);
}

START_TEST(too_deep_a_block_does_not_run) {
  drowse_status last = DROWSE_OK;
  nest(DEPTH, &last);
  ck_assert_int_eq(last, DROWSE_OK);
  nest(DEPTH + 1, &last);
  ck_assert_int_eq(last, DROWSE_ERR_SCOPE);
  ck_outside();
}
END_TEST

/* ---- cancellation */

struct canceled {
  sem_t inside, never;
  size_t depth_inside, depth_after;
};

static void note_depth(void *argument) {
  struct canceled *canceled = argument;
  canceled->depth_after = drowse_scope_current().depth;
}

static void wait_inside_scopes(struct canceled *canceled) {
  DROWSE_SCOPE("a", INHERIT) {
    DROWSE_SCOPE("b", INHERIT) {
      canceled->depth_inside = drowse_scope_current().depth;
      (void)sem_post(&canceled->inside);
      while (sem_wait(&canceled->never) != 0) continue;
    }
  }
}

static void *wait_to_be_canceled(void *argument) {
  pthread_cleanup_push(note_depth, argument);
  wait_inside_scopes(argument);
  pthread_cleanup_pop(0);
  return NULL;
}

START_TEST(cancellation_ends_the_scopes) {
  struct canceled canceled = {.depth_after = 99};
  pthread_t thread;
  void *result = NULL;
  ck_assert_int_eq(sem_init(&canceled.inside, 0, 0), 0);
  ck_assert_int_eq(sem_init(&canceled.never, 0, 0), 0);
  ck_assert_int_eq(pthread_create(&thread, NULL, wait_to_be_canceled, &canceled), 0);
  while (sem_wait(&canceled.inside) != 0) continue;
  ck_assert_int_eq(pthread_cancel(thread), 0);
  ck_assert_int_eq(pthread_join(thread, &result), 0);
  ck_assert_ptr_eq(result, PTHREAD_CANCELED);
  ck_assert_uint_eq(canceled.depth_inside, 2);
  ck_assert_uint_eq(canceled.depth_after, 0);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("frame");
  HARNESS_TEST(suite, frames_inherit_what_they_do_not_say);
  HARNESS_TEST(suite, an_interned_tag_is_the_name);
  HARNESS_TEST(suite, the_current_name_outlives_its_scope);
  HARNESS_TEST(suite, leaving_an_outer_scope_drops_the_inner_ones);
  HARNESS_TEST(suite, leaving_twice_changes_nothing);
  HARNESS_TEST(suite, a_token_is_a_value);
  HARNESS_TEST(suite, the_empty_token_is_left_at_will);
  HARNESS_TEST(suite, nonsense_is_no_token);
  HARNESS_TEST(suite, bad_arguments_push_nothing);
  HARNESS_TEST(suite, sixty_four_deep_and_no_deeper);
  HARNESS_TEST(suite, another_thread_cannot_leave);
  HARNESS_TEST(suite, a_thread_that_exits_inside_scopes_leaves_nothing);
  HARNESS_TEST(suite, every_way_out_of_the_block_ends_it);
  HARNESS_TEST(suite, a_scope_without_braces_is_a_statement);
  HARNESS_TEST(suite, a_block_whose_scope_cannot_be_entered_does_not_run);
  HARNESS_TEST(suite, too_deep_a_block_does_not_run);
  HARNESS_TEST(suite, cancellation_ends_the_scopes);
  return harness_run(suite);
}
