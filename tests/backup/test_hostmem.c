/* SPDX-License-Identifier: Apache-2.0
 *
 * How much memory the host can still give. Limits of cgroups come from the system, so only that they are not exceeded is tested;
 * and claims.
 */
#include "backup/hostmem.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"

static uint64_t machine_bytes(void) {
  char line[128];
  uint64_t kibibytes = 0;
  FILE *file = fopen("/proc/meminfo", "re");
  ck_assert_ptr_nonnull(file);
  while (fgets(line, sizeof line, file) != NULL) {
    if (sscanf(line, "MemTotal: %" SCNu64, &kibibytes) == 1) break;
  }
  (void)fclose(file);
  return kibibytes * 1024;
}

START_TEST(there_is_some_and_no_more_than_the_machine_has) {
  uint64_t total = machine_bytes(), available = dz_host_available();
  ck_assert_uint_gt(total, 0);
  ck_assert_uint_gt(available, 0);
  ck_assert_uint_le(available, total);
}
END_TEST

/* Others use the machine meanwhile, so only large parts of it are told apart. */
START_TEST(what_is_claimed_is_not_there_for_others) {
  uint64_t most = dz_host_available() / 4 * 3, available = 0;
  ck_assert(!dz_host_claim(UINT64_MAX, &available));
  ck_assert_uint_gt(available, most / 2);
  ck_assert(dz_host_claim(most, &available));
  ck_assert(!dz_host_claim(most, &available));
  ck_assert_uint_lt(available, most);
  ck_assert(dz_host_claim(4096, &available));
  dz_host_unclaim(most);
  ck_assert(dz_host_claim(most, &available));
  dz_host_unclaim(most);
  dz_host_unclaim(4096);
}
END_TEST

static int claim_in_child(uint64_t bytes) {
  uint64_t available;
  return dz_host_claim(bytes, &available) ? 0 : 1;
}

/* The child does not have the threads that would unclaim them. */
START_TEST(a_parents_claims_are_not_its_childs) {
  int status;
  uint64_t most = dz_host_available() / 4 * 3, available;
  ck_assert(dz_host_claim(most, &available));
  pid_t child = fork();
  if (child == 0) _exit(claim_in_child(most));
  ck_assert_int_eq(waitpid(child, &status, 0), child);
  ck_assert_int_eq(status, 0);
  dz_host_unclaim(most);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("hostmem");
  HARNESS_TEST(suite, there_is_some_and_no_more_than_the_machine_has);
  HARNESS_TEST(suite, what_is_claimed_is_not_there_for_others);
  HARNESS_TEST(suite, a_parents_claims_are_not_its_childs);
  return harness_run(suite);
}
