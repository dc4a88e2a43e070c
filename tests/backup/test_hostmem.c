/* SPDX-License-Identifier: Apache-2.0
 *
 * How much memory the host can still give. Limits of cgroups come from the system, so only that they are not exceeded is tested.
 */
#include "backup/hostmem.h"

#include <inttypes.h>
#include <stdio.h>

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

int main(void) {
  Suite *suite = suite_create("hostmem");
  HARNESS_TEST(suite, there_is_some_and_no_more_than_the_machine_has);
  return harness_run(suite);
}
