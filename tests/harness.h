/* SPDX-License-Identifier: Apache-2.0
 *
 * What every test program ends with:
 *
 *   int main(void) {
 *     Suite *suite = suite_create("error");
 *     HARNESS_TEST(suite, text_names_the_culprit);
 *     return harness_run(suite);
 *   }
 */
#ifndef HARNESS_H
#define HARNESS_H

#include <check.h>
#include <stdlib.h>

/* Each test is a case of its own, named after it; count times, between start and finish, which may be NULL. */
#define HARNESS_LOOP_TEST(suite, test, start, finish, count) \
  do {                                                       \
    TCase *test_case = tcase_create(#test);                  \
    tcase_set_timeout(test_case, 120);                       \
    tcase_add_checked_fixture(test_case, start, finish);     \
    tcase_add_loop_test(test_case, test, 0, (int)(count));   \
    suite_add_tcase(suite, test_case);                       \
  } while (0)

#define HARNESS_FIXTURE_TEST(suite, test, start, finish) HARNESS_LOOP_TEST(suite, test, start, finish, 1)
#define HARNESS_TEST(suite, test) HARNESS_FIXTURE_TEST(suite, test, NULL, NULL)

static inline int harness_run(Suite *suite) {
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_ENV);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#define ck_ok(call) harness_status(call, DROWSE_OK, #call)
#define ck_status(call, expected) harness_status(call, expected, #call)
#define harness_status(call, expected, text)                                                              \
  do {                                                                                                    \
    drowse_status harness_got = (call);                                                                   \
    ck_assert_msg(harness_got == (expected), "%s: %s, not %s: %s", text, drowse_status_name(harness_got), \
                  drowse_status_name(expected), drowse_last_error());                                     \
  } while (0)

#endif
