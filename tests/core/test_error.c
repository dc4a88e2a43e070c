/* SPDX-License-Identifier: Apache-2.0
 *
 * Statuses, and each thread's last failure.
 */
#include "core/error.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "harness.h"

START_TEST(every_status_has_a_name_and_a_sentence) {
  for (int status = DROWSE_OK; status >= DROWSE_ERR_UNSUPPORTED; status--) {
    const char *name = drowse_status_name((drowse_status)status), *text = drowse_status_text((drowse_status)status);
    ck_assert_msg(strncmp(name, "DROWSE_", 7) == 0 && strcmp(name, "DROWSE_ERR_UNKNOWN") != 0, "%d: %s", status, name);
    ck_assert(strlen(text) > 1 && text[strlen(text) - 1] == '.');
    for (int other = DROWSE_OK; other > status; other--) {
      ck_assert_str_ne(name, drowse_status_name((drowse_status)other));
      ck_assert_str_ne(text, drowse_status_text((drowse_status)other));
    }
  }
  ck_assert_str_eq(drowse_status_name(DROWSE_ERR_ASLEEP), "DROWSE_ERR_ASLEEP");
  ck_assert_int_eq(DROWSE_ERR_UNSUPPORTED, -21);
}
END_TEST

START_TEST(unknown_status_has_a_name_too) {
  ck_assert_str_eq(drowse_status_name((drowse_status)1), "DROWSE_ERR_UNKNOWN");
  ck_assert_str_eq(drowse_status_name((drowse_status)-22), "DROWSE_ERR_UNKNOWN");
  ck_assert(strlen(drowse_status_text((drowse_status)-1000)) > 0);
}
END_TEST

START_TEST(version_is_the_header_s) {
  char expected[32];
  (void)snprintf(expected, sizeof expected, "%d.%d.%d", DROWSE_VERSION_MAJOR, DROWSE_VERSION_MINOR, DROWSE_VERSION_PATCH);
  ck_assert_str_eq(drowse_version(), expected);
}
END_TEST

START_TEST(failure_is_kept_with_its_text) {
  errno = EBADF;
  ck_status(dz_error(DROWSE_ERR_INVALID, "%d apples", 3), DROWSE_ERR_INVALID);
  ck_assert_int_eq(errno, EBADF);
  ck_assert_str_eq(drowse_last_error(), "3 apples");
  ck_assert_int_eq(dz_error_last(), DROWSE_ERR_INVALID);
  ck_ok(drowse_heap_close(NULL)); /* a call that succeeds leaves it alone */
  ck_assert_str_eq(drowse_last_error(), "3 apples");
}
END_TEST

START_TEST(long_text_is_cut) {
  ck_status(dz_error(DROWSE_ERR_IO, "%0600d", 1), DROWSE_ERR_IO);
  ck_assert_uint_eq(strlen(drowse_last_error()), 511);
}
END_TEST

START_TEST(system_failure_has_errno_and_its_message) {
  drowse_error error = {.struct_size = sizeof error};
  errno = EBADF;
  ck_status(dz_error_system(DROWSE_ERR_SYSTEM, ENOENT, "the file %s", "x"), DROWSE_ERR_SYSTEM);
  ck_assert_int_eq(errno, EBADF);
  ck_assert_str_eq(drowse_last_error(), "the file x: No such file or directory");
  ck_ok(drowse_error_get(&error));
  ck_assert_int_eq(error.system_errno, ENOENT);
  ck_assert_int_eq(error.driver_code, 0);
}
END_TEST

static void fail_with_everything(void) {
  (void)dz_error(DROWSE_ERR_DRIVER, "everything");
  ck_status(dz_error_status(DROWSE_ERR_NO_DEVICE_MEMORY), DROWSE_ERR_NO_DEVICE_MEMORY);
  dz_error_driver_code(2);
  dz_error_bytes(30, 20, 10);
  dz_error_tag("weights");
}

START_TEST(error_get_tells_all_members) {
  drowse_error error = {.struct_size = sizeof error};
  fail_with_everything();
  ck_ok(drowse_error_get(&error));
  ck_assert_uint_eq(error.struct_size, sizeof error);
  ck_assert_int_eq(error.status, DROWSE_ERR_NO_DEVICE_MEMORY);
  ck_assert_int_eq(error.driver_code, 2);
  ck_assert_int_eq(error.system_errno, 0);
  ck_assert_uint_eq(error.wanted_bytes, 30);
  ck_assert_uint_eq(error.free_bytes, 20);
  ck_assert_uint_eq(error.largest_free_bytes, 10);
  ck_assert_str_eq(error.tag, "weights");
  (void)dz_error(DROWSE_ERR_INVALID, "another"); /* nothing of the one before shines through */
  ck_ok(drowse_error_get(&error));
  ck_assert_int_eq(error.driver_code, 0);
  ck_assert_uint_eq(error.wanted_bytes, 0);
  ck_assert_str_eq(error.tag, "");
}
END_TEST

START_TEST(error_get_writes_no_more_than_a_smaller_struct_has) {
  drowse_error error;
  memset(&error, 0x5a, sizeof error);
  error.struct_size = offsetof(drowse_error, wanted_bytes);
  fail_with_everything();
  ck_ok(drowse_error_get(&error));
  ck_assert_uint_eq(error.struct_size, offsetof(drowse_error, wanted_bytes));
  ck_assert_int_eq(error.driver_code, 2);
  for (size_t at = offsetof(drowse_error, wanted_bytes); at < sizeof error; at++) {
    ck_assert_uint_eq(((unsigned char *)&error)[at], 0x5a);
  }
}
END_TEST

START_TEST(error_get_zeroes_what_a_larger_struct_has_beyond) {
  struct {
    drowse_error known;
    uint64_t later[3], beyond;
  } error;
  memset(&error, 0x5a, sizeof error);
  error.known.struct_size = offsetof(typeof(error), beyond);
  fail_with_everything();
  ck_ok(drowse_error_get(&error.known));
  ck_assert_str_eq(error.known.tag, "weights");
  for (size_t at = 0; at < 3; at++) ck_assert_uint_eq(error.later[at], 0);
  ck_assert_uint_eq(error.beyond, UINT64_C(0x5a5a5a5a5a5a5a5a));
}
END_TEST

START_TEST(error_get_refuses_without_storing_a_failure) {
  drowse_error error = {.struct_size = sizeof error.struct_size - 1};
  (void)dz_error(DROWSE_ERR_IO, "the one before");
  ck_assert_int_eq(drowse_error_get(NULL), DROWSE_ERR_INVALID);
  ck_assert_int_eq(drowse_error_get(&error), DROWSE_ERR_INVALID);
  ck_assert_str_eq(drowse_last_error(), "the one before");
}
END_TEST

START_TEST(a_library_above_stores_failures_too) {
  drowse_error error = {.struct_size = sizeof error};
  fail_with_everything();
  errno = EBADF;
  ck_status(drowse_error_set(DROWSE_ERR_BUSY, "100% of it is taken"), DROWSE_ERR_BUSY);
  ck_assert_int_eq(errno, EBADF);
  ck_assert_str_eq(drowse_last_error(), "100% of it is taken");
  ck_ok(drowse_error_get(&error));
  ck_assert_int_eq(error.status, DROWSE_ERR_BUSY);
  ck_assert_uint_eq(error.wanted_bytes, 0);
  ck_status(drowse_error_set(DROWSE_ERR_IO, drowse_last_error() + 5), DROWSE_ERR_IO); /* text and place overlap */
  ck_assert_str_eq(drowse_last_error(), "of it is taken");
  ck_status(drowse_error_set(DROWSE_OK, "fine"), DROWSE_ERR_INVALID);
  ck_status(drowse_error_set((drowse_status)(DROWSE_ERR_UNSUPPORTED - 1), "what"), DROWSE_ERR_INVALID);
  ck_assert_ptr_nonnull(strstr(drowse_last_error(), "-22"));
  ck_status(drowse_error_set(DROWSE_ERR_IO, NULL), DROWSE_ERR_INVALID);
  ck_assert_str_eq(drowse_last_error(), "text is NULL");
}
END_TEST

START_TEST(failure_travels_as_a_value) {
  struct error saved;
  drowse_error error = {.struct_size = sizeof error};
  fail_with_everything();
  dz_error_save(&saved);
  (void)dz_error(DROWSE_ERR_INVALID, "another");
  ck_status(dz_error_restore(&saved), DROWSE_ERR_NO_DEVICE_MEMORY);
  ck_assert_str_eq(drowse_last_error(), "everything");
  ck_ok(drowse_error_get(&error));
  ck_assert_uint_eq(error.wanted_bytes, 30);
}
END_TEST

static void *fail_on_another_thread(void *ok) {
  drowse_error error = {.struct_size = sizeof error, .status = DROWSE_ERR_IO};
  bool fresh = drowse_last_error()[0] == '\0' && drowse_error_get(&error) == DROWSE_OK && error.status == DROWSE_OK;
  (void)dz_error(DROWSE_ERR_BUSY, "of the other thread");
  *(bool *)ok = fresh && strcmp(drowse_last_error(), "of the other thread") == 0;
  return NULL;
}

START_TEST(failures_belong_to_their_thread) {
  pthread_t thread;
  bool ok = false;
  (void)dz_error(DROWSE_ERR_IO, "of this thread");
  ck_assert_int_eq(pthread_create(&thread, NULL, fail_on_another_thread, &ok), 0);
  ck_assert_int_eq(pthread_join(thread, NULL), 0);
  ck_assert(ok);
  ck_assert_str_eq(drowse_last_error(), "of this thread");
}
END_TEST

int main(void) {
  Suite *suite = suite_create("error");
  HARNESS_TEST(suite, every_status_has_a_name_and_a_sentence);
  HARNESS_TEST(suite, unknown_status_has_a_name_too);
  HARNESS_TEST(suite, version_is_the_header_s);
  HARNESS_TEST(suite, failure_is_kept_with_its_text);
  HARNESS_TEST(suite, long_text_is_cut);
  HARNESS_TEST(suite, system_failure_has_errno_and_its_message);
  HARNESS_TEST(suite, error_get_tells_all_members);
  HARNESS_TEST(suite, error_get_writes_no_more_than_a_smaller_struct_has);
  HARNESS_TEST(suite, error_get_zeroes_what_a_larger_struct_has_beyond);
  HARNESS_TEST(suite, error_get_refuses_without_storing_a_failure);
  HARNESS_TEST(suite, a_library_above_stores_failures_too);
  HARNESS_TEST(suite, failure_travels_as_a_value);
  HARNESS_TEST(suite, failures_belong_to_their_thread);
  return harness_run(suite);
}
