/* SPDX-License-Identifier: Apache-2.0
 *
 * The process's log.
 */
#include "core/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "harness.h"

struct heard {
  atomic_int count;
  int level;
  char text[600];
};

static void hear(void *context, int level, const char *text) {
  struct heard *heard = context;
  errno = EIO;
  atomic_fetch_add(&heard->count, 1);
  heard->level = level;
  (void)snprintf(heard->text, sizeof heard->text, "%s", text);
}

static void count_only(void *context, int level, const char *text) {
  struct heard *heard = context;
  if (level == DROWSE_LOG_INFO && strcmp(text, "line 7") == 0) atomic_fetch_add(&heard->count, 1);
}

START_TEST(nobody_listens_at_first) {
  struct heard heard = {.count = 0};
  dz_log(DROWSE_LOG_ERROR, "into the void");
  drowse_log_set(hear, &heard, DROWSE_LOG_DEBUG);
  drowse_log_set(NULL, &heard, DROWSE_LOG_DEBUG);
  dz_log(DROWSE_LOG_ERROR, "into the void");
  ck_assert_int_eq(heard.count, 0);
}
END_TEST

START_TEST(messages_up_to_the_level_are_heard) {
  struct heard heard = {.count = 0};
  drowse_log_set(hear, &heard, DROWSE_LOG_WARNING);
  dz_log(DROWSE_LOG_INFO, "too low");
  ck_assert_int_eq(heard.count, 0);
  errno = EBADF;
  dz_log(DROWSE_LOG_WARNING, "%s %d", "answer", 42);
  ck_assert_int_eq(errno, EBADF);
  ck_assert_int_eq(heard.count, 1);
  ck_assert_int_eq(heard.level, DROWSE_LOG_WARNING);
  ck_assert_str_eq(heard.text, "answer 42");
  dz_log(DROWSE_LOG_ERROR, "%0600d", 1);
  ck_assert_uint_eq(strlen(heard.text), 511);
  drowse_log_set(NULL, NULL, 0);
}
END_TEST

static void hear_and_call(void *context, int level, const char *text) {
  (void)level;
  (void)text;
  drowse_scope scope;
  drowse_log_set(hear, context, DROWSE_LOG_ERROR);
  ck_ok(drowse_scope_enter(&scope, "a tag first used in the log", DROWSE_EXPANDABLE_INHERIT));
  ck_ok(drowse_scope_leave(&scope));
}

START_TEST(the_log_may_call_drowse) {
  struct heard heard = {.count = 0};
  drowse_log_set(hear_and_call, &heard, DROWSE_LOG_ERROR);
  dz_log(DROWSE_LOG_ERROR, "one");
  dz_log(DROWSE_LOG_ERROR, "two");
  ck_assert_str_eq(heard.text, "two");
  drowse_log_set(NULL, NULL, 0);
}
END_TEST

enum { THREADS = 4, LINES = 1000 };

static void *say_much(void *nothing) {
  for (int i = 0; i < LINES; i++) dz_log(DROWSE_LOG_INFO, "line %d", 7);
  return nothing;
}

START_TEST(threads_may_speak_at_once) {
  struct heard heard = {.count = 0};
  pthread_t threads[THREADS];
  drowse_log_set(count_only, &heard, DROWSE_LOG_INFO);
  for (int i = 0; i < THREADS; i++) ck_assert_int_eq(pthread_create(&threads[i], NULL, say_much, NULL), 0);
  for (int i = 0; i < THREADS; i++) ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
  ck_assert_int_eq(heard.count, THREADS * LINES);
  drowse_log_set(NULL, NULL, 0);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("log");
  HARNESS_TEST(suite, nobody_listens_at_first);
  HARNESS_TEST(suite, messages_up_to_the_level_are_heard);
  HARNESS_TEST(suite, the_log_may_call_drowse);
  HARNESS_TEST(suite, threads_may_speak_at_once);
  return harness_run(suite);
}
