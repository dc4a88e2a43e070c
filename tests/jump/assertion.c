/* SPDX-License-Identifier: Apache-2.0
 *
 * A failed assertion of check is a longjmp() when tests run in one process: with libdrowse-jump the scopes that it leaves end.
 * Links the shared library, as libdrowse-jump does.
 */
#include <drowse.h>

#include "harness.h"

START_TEST(fails_inside_scopes) {
  drowse_scope *elsewhere = malloc(sizeof *elsewhere); /* lost with the jump */
  ck_ok(drowse_scope_enter(elsewhere, "weights", DROWSE_EXPANDABLE_OFF));
  DROWSE_SCOPE("kv_cache", DROWSE_EXPANDABLE_INHERIT) {
    ck_assert_uint_eq(drowse_scope_current().depth, 0);
  }
}
END_TEST

START_TEST(finds_none) {
  ck_assert_uint_eq(drowse_scope_current().depth, 0);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("assertion");
  HARNESS_TEST(suite, fails_inside_scopes);
  HARNESS_TEST(suite, finds_none);
  SRunner *runner = srunner_create(suite);
  srunner_set_fork_status(runner, CK_NOFORK);
  srunner_run_all(runner, CK_SILENT);
  int run = srunner_ntests_run(runner), failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return run == 2 && failed == 1 && drowse_scope_current().depth == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
