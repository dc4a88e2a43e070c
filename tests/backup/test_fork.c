/* SPDX-License-Identifier: Apache-2.0
 *
 * Forks at each step of an arena's growth: in the child there is nothing of its memory and none of its threads, in the parent it
 * goes on.
 */
#include "arena_fixture.h"

#include <sys/wait.h>

static int child_forgets(const struct range *space) {
  if (is_mapped(space->base) || is_mapped(dz_range_end(space) - 1)) return 1;
  dz_arena_forget(&arena);
  return 0;
}

static void ck_fork(const struct range *space) {
  int status;
  pid_t child = fork();
  if (child == 0) _exit(child_forgets(space));
  ck_assert_int_eq(waitpid(child, &status, 0), child);
  ck_assert_int_eq(status, 0);
}

START_TEST(a_fork_while_it_grows_is_harmless) {
  driver.CtxSetCurrent = stand_before_touching;
  driver.MemHostRegister = stand_before_pinning;
  struct range *space = grow(PIECE + 4 * MIB);
  for (int gates = 0; gates < 3; gates++) {
    await_arrival();
    ck_fork(space);
    let_pass();
  }
  ck_ok(dz_arena_wait(&arena, space, space->bytes));
  memset(dz_space_memory(space), 7, space->bytes);
  ck_fork(space);
  ck_assert_uint_eq(((unsigned char *)dz_space_memory(space))[PIECE], 7);
  ck_stats(space->bytes, space->bytes, space->bytes, 0);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("forks and the arena");
  BACKUP_TEST(suite, a_fork_while_it_grows_is_harmless, start_at_gate);
  return harness_run(suite);
}
