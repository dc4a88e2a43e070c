/* SPDX-License-Identifier: Apache-2.0
 *
 * Names of tags. Names stay for the life of the process, so the test that uses up all of them is the last one.
 */
#include "scope/name.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "harness.h"

static void ck_refused(const char *name) {
  ck_assert_msg(drowse_tag_get(name) == NULL, "\"%s\" was taken", name);
  drowse_error error = {.struct_size = sizeof error};
  ck_ok(drowse_error_get(&error));
  ck_assert_int_eq(error.status, DROWSE_ERR_INVALID);
}

START_TEST(lengths_from_1_to_63) {
  char name[66];
  memset(name, 'x', sizeof name);
  for (size_t length = 1; length < 64; length++) {
    name[length] = '\0';
    const drowse_tag *tag = drowse_tag_get(name);
    ck_assert_ptr_nonnull(tag);
    ck_assert_str_eq(tag->name, name);
    name[length] = 'x';
  }
  name[64] = '\0';
  ck_refused(name);
  name[64] = 'x';
  name[65] = '\0';
  ck_refused(name);
  ck_refused("");
  ck_refused(NULL);
}
END_TEST

START_TEST(utf8_is_taken) {
  static const char *const good[] = {
      " ",
      "~",
      "a b",
      "\xc2\xa0",
      "\xdf\xbf",
      "\xe0\xa0\x80",
      "\xec\xbf\xbf",
      "\xed\x80\x80",
      "\xed\x9f\xbf",
      "\xee\x80\x80",
      "\xef\xbf\xbf",
      "\xf0\x90\x80\x80",
      "\xf3\xbf\xbf\xbf",
      "\xf4\x8f\xbf\xbf",
      "poids \xc3\xa9t\xc3\xa9 \xf0\x9f\x98\xb4",
  };
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
    const drowse_tag *tag = drowse_tag_get(good[i]);
    ck_assert_msg(tag != NULL, "%zu: %s", i, drowse_last_error());
    ck_assert_str_eq(tag->name, good[i]);
    ck_assert_ptr_eq(drowse_tag_get(good[i]), tag);
    ck_assert_ptr_eq(dz_name_find(good[i]), tag);
  }
}
END_TEST

START_TEST(what_is_not_utf8_or_a_control_character_is_refused) {
  static const char *const bad[] = {
      "\x01",
      "a\nb",
      "\x1f",
      "\x7f",
      "tab\t",
      "\xc2\x80" /* C1 */,
      "\xc2\x9f",
      "\x80",
      "\xbf",
      "\xc0\xaf" /* overlong */,
      "\xc1\xbf",
      "\xc3",
      "\xc3(",
      "\xe0\x80\x80",
      "\xe0\x9f\xbf",
      "\xe1\x80",
      "\xe1\x80(",
      "\xed\xa0\x80" /* surrogate */,
      "\xed\xbf\xbf",
      "\xf0\x80\x80\x80",
      "\xf0\x8f\xbf\xbf",
      "\xf0\x90\x80",
      "\xf4\x90\x80\x80" /* beyond the last */,
      "\xf5\x80\x80\x80",
      "\xff",
      "good, then \xfe",
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    ck_refused(bad[i]);
    ck_assert_ptr_null(dz_name_find(bad[i]));
  }
  ck_refused("0123456\x05");
  ck_assert_msg(strstr(drowse_last_error(), "byte 7 ") != NULL, "%s", drowse_last_error());
}
END_TEST

START_TEST(sequences_of_every_kind_at_the_very_end) {
  char name[65];
  memset(name, 'x', sizeof name);
  memcpy(name + 60, "\xe2\x82\xac", 4); /* 63 bytes: it just fits */
  ck_assert_ptr_nonnull(drowse_tag_get(name));
  memcpy(name + 61, "\xe2\x82\xac", 4); /* 64 */
  ck_refused(name);
}
END_TEST

START_TEST(find_does_not_intern) {
  ck_assert_ptr_null(dz_name_find("never seen"));
  ck_assert_ptr_null(dz_name_find(""));
  ck_assert_ptr_null(dz_name_find("never seen"));
  const drowse_tag *tag = drowse_tag_get("never seen");
  ck_assert_ptr_nonnull(tag);
  ck_assert_ptr_eq(dz_name_find("never seen"), tag);
}
END_TEST

enum { THREADS = 8, NAMES = 3000 };

static const drowse_tag *got[THREADS][NAMES];
static pthread_barrier_t barrier;

static void *intern_all(void *row) {
  const drowse_tag **tags = row;
  char name[DZ_NAME_BYTES];
  (void)pthread_barrier_wait(&barrier);
  for (int i = 0; i < NAMES; i++) {
    (void)snprintf(name, sizeof name, "shared name %d", i);
    tags[i] = drowse_tag_get(name);
  }
  return NULL;
}

START_TEST(threads_at_once_get_the_same_pointers) {
  pthread_t threads[THREADS];
  ck_assert_int_eq(pthread_barrier_init(&barrier, NULL, THREADS), 0);
  for (int i = 0; i < THREADS; i++) ck_assert_int_eq(pthread_create(&threads[i], NULL, intern_all, got[i]), 0);
  for (int i = 0; i < THREADS; i++) ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
  for (int name = 0; name < NAMES; name++) {
    bool same = got[0][name] != NULL && (name == 0 || got[0][name]->number != got[0][name - 1]->number);
    for (int i = 1; i < THREADS; i++) same = same && got[i][name] == got[0][name];
    if (!same) ck_abort_msg("name %d", name);
  }
  (void)pthread_barrier_destroy(&barrier);
}
END_TEST

START_TEST(a_process_has_65535_names) {
  static bool numbers[DZ_NAMES_MAX];
  char name[DZ_NAME_BYTES];
  unsigned count = 0;
  const drowse_tag *tag;
  while ((void)snprintf(name, sizeof name, "name %u", count), (tag = drowse_tag_get(name)) != NULL) {
    if (tag->number >= DZ_NAMES_MAX || numbers[tag->number]) ck_abort_msg("number %u comes twice", tag->number);
    numbers[tag->number] = true;
    count++;
  }
  ck_assert_msg(strstr(drowse_last_error(), "65535") != NULL, "%s", drowse_last_error());
  ck_assert_uint_le(count, DZ_NAMES_MAX);
  /* All numbers are given: here, or by the tests before. */
  const drowse_tag *last = NULL;
  for (unsigned i = 0; i < count; i++) {
    (void)snprintf(name, sizeof name, "name %u", i);
    last = drowse_tag_get(name);
    if (last == NULL || strcmp(last->name, name) != 0) ck_abort_msg("%s is gone", name);
  }
  ck_assert_ptr_nonnull(last);
  ck_assert_uint_eq(last->number, DZ_NAMES_MAX - 1);
  drowse_scope scope;
  ck_status(drowse_scope_enter(&scope, "one too many", DROWSE_EXPANDABLE_INHERIT), DROWSE_ERR_INVALID);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("name");
  HARNESS_TEST(suite, lengths_from_1_to_63);
  HARNESS_TEST(suite, utf8_is_taken);
  HARNESS_TEST(suite, what_is_not_utf8_or_a_control_character_is_refused);
  HARNESS_TEST(suite, sequences_of_every_kind_at_the_very_end);
  HARNESS_TEST(suite, find_does_not_intern);
  HARNESS_TEST(suite, threads_at_once_get_the_same_pointers);
  HARNESS_TEST(suite, a_process_has_65535_names);
  return harness_run(suite);
}
