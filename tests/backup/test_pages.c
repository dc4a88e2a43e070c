/* SPDX-License-Identifier: Apache-2.0
 *
 * Pages: mapped as asked for, hidden from children, touched whole, and honestly counted.
 */
#include "fixture.h"

#include <sys/wait.h>

enum { BYTES = 9 * 1024 * 1024 + 4096 };

static uint64_t base;

static void map(void) {
  ck_assert_int_eq(dz_pages_map(BYTES, -1, &base), 0);
}

static void unmap(void) {
  ck_assert_int_eq(dz_pages_unmap(base, BYTES), 0);
  ck_assert(!is_mapped(base) && !is_mapped(base + BYTES - 1));
}

/* Resident, of the mapping; in_huge: in huge pages. */
static uint64_t resident(bool in_huge) {
  return proc_bytes("/proc/self/smaps", in_huge ? "AnonHugePages" : "Rss", base, base + BYTES);
}

START_TEST(sizes_are_rounded_to_pages) {
  uint64_t page = dz_page_bytes();
  ck_assert_uint_eq(dz_pages_round(1), page);
  ck_assert_uint_eq(dz_pages_round(page), page);
  ck_assert_uint_eq(dz_pages_round(page + 1), 2 * page);
  ck_assert_uint_eq(dz_pages_round(UINT64_MAX), UINT64_MAX - page + 1);
}
END_TEST

START_TEST(exactly_what_was_asked_for_is_mapped_and_nothing_touched) {
  map();
  ck_assert_uint_eq(base % DZ_HUGE_PAGE_BYTES, 0);
  ck_assert_uint_eq(proc_bytes("/proc/self/smaps", "Size", base, base + BYTES), BYTES);
  ck_assert_uint_eq(resident(false), 0);
  ck_assert_uint_eq(dz_pages_huge(base, BYTES), 0);
  unmap();
}
END_TEST

START_TEST(touching_makes_all_of_it_resident) {
  static const int codes[] = {0, EINVAL}; /* EINVAL: a kernel that has to be made to give each page */
  for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
    touch_code = codes[i];
    map();
    ck_assert_int_eq(dz_pages_touch(base, BYTES), 0);
    ck_assert_uint_eq(resident(false), BYTES);
    unmap();
  }
}
END_TEST

START_TEST(what_cannot_be_touched_is_an_error) {
  map();
  untouchable = base + BYTES - 1;
  static const int codes[] = {ENOMEM, EFAULT, EHWPOISON};
  for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
    touch_code = codes[i];
    ck_assert_int_eq(dz_pages_touch(base, BYTES), codes[i]);
    ck_assert_int_eq(dz_pages_touch(base, BYTES - 4096), 0);
  }
  unmap();
}
END_TEST

START_TEST(huge_pages_are_counted_as_the_kernel_counts_them) {
  map();
  ck_assert_int_eq(dz_pages_touch(base, 4 * MIB), 0);
  dz_pages_want_small(base + 4 * MIB, BYTES - 4 * MIB);
  ck_assert_int_eq(dz_pages_touch(base, BYTES), 0);
  uint64_t huge = dz_pages_huge(base, BYTES);
  ck_assert_uint_eq(huge, resident(true));
  ck_assert_uint_le(huge, 4 * MIB);
  ck_assert_int_eq(dz_pages_unmap(base + 4096, 4096), 0); /* cuts the first one */
  ck_assert_uint_eq(dz_pages_huge(base, BYTES), resident(true));
  unmap();
}
END_TEST

START_TEST(a_kernel_that_cannot_tell_is_believed) {
  map();
  uint64_t most = dz_pages_huge_most(base, BYTES);
  ck_assert_uint_eq(most, 8 * MIB);
  ck_assert_uint_eq(dz_pages_huge_most(base + 4096, 4 * MIB - 4096), 2 * MIB);
  ck_assert_uint_eq(dz_pages_huge_most(base + 4096, 2 * MIB), 0);
  scan_refused = true;
  uint64_t huge = dz_pages_huge(base, BYTES);
  ck_assert(huge == most || huge == 0); /* 0: the machine is set to give none */
  unmap();
}
END_TEST

START_TEST(a_child_does_not_have_them) {
  int status;
  map();
  ck_assert_int_eq(dz_pages_touch(base, BYTES), 0);
  pid_t child = fork();
  if (child == 0) _exit(is_mapped(base) || is_mapped(base + BYTES - 1));
  ck_assert_int_eq(waitpid(child, &status, 0), child);
  ck_assert_int_eq(status, 0);
  unmap();
}
END_TEST

START_TEST(mappings_that_fail_leave_nothing) {
  uint64_t before = proc_bytes("/proc/self/status", "VmSize", 0, 0);
  refused_size = BYTES;
  ck_assert_int_eq(dz_pages_map(BYTES, -1, &base), ENOMEM);
  refused_size = 0;
  ck_assert_int_eq(dz_pages_map(UINT64_MAX - 4095, -1, &base), ENOMEM);
  ck_assert_uint_lt(proc_bytes("/proc/self/status", "VmSize", 0, 0), before + BYTES);
}
END_TEST

/* Nodes that are not there, too: it is a wish. */
START_TEST(a_node_is_preferred) {
  static const int nodes[] = {0, 1, 63, 64, 1023, 1024, 1 << 30};
  for (size_t i = 0; i < sizeof nodes / sizeof *nodes; i++) {
    ck_assert_int_eq(dz_pages_map(BYTES, nodes[i], &base), 0);
    ck_assert_int_eq(dz_pages_touch(base, BYTES), 0);
    unmap();
  }
}
END_TEST

static void start(void) {
  open_device();
}

static void finish(void) {
  close_device();
}

int main(void) {
  Suite *suite = suite_create("pages");
  BACKUP_TEST(suite, sizes_are_rounded_to_pages, start);
  BACKUP_TEST(suite, exactly_what_was_asked_for_is_mapped_and_nothing_touched, start);
  BACKUP_TEST(suite, touching_makes_all_of_it_resident, start);
  BACKUP_TEST(suite, what_cannot_be_touched_is_an_error, start);
  BACKUP_TEST(suite, huge_pages_are_counted_as_the_kernel_counts_them, start);
  BACKUP_TEST(suite, a_kernel_that_cannot_tell_is_believed, start);
  BACKUP_TEST(suite, a_child_does_not_have_them, start);
  BACKUP_TEST(suite, mappings_that_fail_leave_nothing, start);
  BACKUP_TEST(suite, a_node_is_preferred, start);
  return harness_run(suite);
}
