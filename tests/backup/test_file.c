/* SPDX-License-Identifier: Apache-2.0
 *
 * Files for backups: that they have no name, are on the disk before they are used, go when the last extent does, and never leave
 * anything behind; what full disks, missing directories, and file systems that can less do.
 */
#include "backup/file.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/syscall.h>

#include "backup/files.h"
#include "fork/child.h"

#define MIB (UINT64_C(1) << 20)

static struct file *file;

static void start(void) {
  make_directory();
}

static void make(uint64_t bytes) {
  ck_ok(dz_file_make(directory, bytes, &file));
}

static struct stat about(int descriptor) {
  struct stat result;
  ck_assert_int_eq(fstat(descriptor, &result), 0);
  return result;
}

/* ---- being there */

/* What the file system does with a file that is allocated, and then has a hole. */
static uint64_t blocks_of_another(uint64_t bytes, bool punched) {
  int other = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, S_IRUSR | S_IWUSR);
  if (other < 0) return punched ? UINT64_MAX : 0;
  ck_assert_int_eq(posix_fallocate(other, 0, (off_t)bytes), 0);
  if (punched) (void)fallocate(other, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)bytes);
  uint64_t blocks = (uint64_t)about(other).st_blocks;
  (void)close(other);
  return blocks;
}

START_TEST(a_file_has_no_name_and_all_its_blocks) {
  int before = open_descriptors();
  make(3 * MIB + 1);
  int descriptor = dz_file_descriptor(file);
  ck_assert_int_eq(names_in(directory), 0);
  ck_assert_uint_eq(about(descriptor).st_nlink, 0);
  ck_assert_int_eq(about(descriptor).st_size, 3 * MIB + 4096);
  ck_assert_uint_ge((uint64_t)about(descriptor).st_blocks, blocks_of_another(3 * MIB + 4096, false));
  ck_assert_int_ne(fcntl(descriptor, F_GETFD) & FD_CLOEXEC, 0);
  ck_assert_int_eq((fcntl(descriptor, F_GETFL) & O_DIRECT) != 0, dz_file_is_direct(file));
  ck_assert_str_eq(dz_file_directory(file), directory);
  dz_file_release(file);
  ck_assert_int_eq(open_descriptors(), before);
}
END_TEST

START_TEST(an_empty_file_serves_nobody) {
  struct file_extent extent;
  make(0);
  ck_assert(!dz_file_take(file, 1, &extent));
  dz_file_release(file);
}
END_TEST

/* ---- extents */

START_TEST(extents_follow_each_other_to_the_end) {
  struct file_extent extents[8], none;
  static const uint64_t sizes[] = {1, 4096, 4097, 512, MIB - 512, 8192, 3, 4096};
  uint64_t offset = 0;
  make(MIB + 10 * 4096);
  for (size_t i = 0; i < 8; i++) {
    ck_assert(dz_file_take(file, sizes[i], &extents[i]));
    ck_assert_ptr_eq(extents[i].file, file);
    ck_assert_uint_eq(extents[i].offset, offset);
    ck_assert_uint_eq(extents[i].bytes, sizes[i]);
    offset += (sizes[i] + 4095) / 4096 * 4096;
  }
  uint64_t left = MIB + 10 * 4096 - offset;
  ck_assert(!dz_file_take(file, left + 1, &none));
  ck_assert(!dz_file_take(file, UINT64_MAX, &none));
  ck_assert(dz_file_take(file, left, &none));
  dz_file_give(&none);
  ck_assert(!dz_file_take(file, 1, &none));
  for (size_t i = 0; i < 8; i++) dz_file_give(&extents[i]);
  dz_file_release(file);
}
END_TEST

START_TEST(the_last_to_let_go_closes) {
  enum { EXTENTS = 5 };
  static const unsigned orders[] = {001234, 043210, 020413, 012043, 031402}; /* octal digits: extents */
  const unsigned order = orders[_i % 5];
  struct file_extent extents[EXTENTS];
  int before = open_descriptors();
  make(MIB);
  for (unsigned i = 0; i < EXTENTS; i++) ck_assert(dz_file_take(file, 5000, &extents[i]));
  if (_i < 5) dz_file_release(file);
  for (unsigned i = 0; i < EXTENTS; i++) {
    struct file_extent *extent = &extents[order >> 3 * (EXTENTS - 1 - i) & 7];
    ck_assert_int_eq(open_descriptors(), before + 1);
    dz_file_give(extent);
    ck_assert_ptr_null(extent->file);
    dz_file_give(extent); /* none: nothing */
  }
  ck_assert_int_eq(open_descriptors(), _i < 5 ? before : before + 1);
  if (_i >= 5) dz_file_release(file);
  ck_assert_int_eq(open_descriptors(), before);
}
END_TEST

START_TEST(what_is_given_back_leaves_the_disk) {
  struct file_extent first, second;
  make(8 * MIB);
  ck_assert(dz_file_take(file, 4 * MIB, &first));
  ck_assert(dz_file_take(file, 4 * MIB, &second));
  uint64_t before = (uint64_t)about(dz_file_descriptor(file)).st_blocks;
  dz_file_give(&first);
  if (blocks_of_another(4 * MIB, true) == 0)
    ck_assert_uint_le((uint64_t)about(dz_file_descriptor(file)).st_blocks, before - 4 * MIB / 512);
  ck_assert_int_eq(about(dz_file_descriptor(file)).st_size, 8 * MIB);
  dz_file_give(&second);
  dz_file_release(file);
}
END_TEST

START_TEST(what_is_not_given_back_stays) {
  _Alignas(4096) static char page[4096];
  struct file_extent extents[3];
  make(3 * MIB);
  for (int i = 0; i < 3; i++) ck_assert(dz_file_take(file, MIB, &extents[i]));
  for (uint64_t at = 0; at < 3 * MIB; at += 4096) {
    memset(page, (int)(1 + at / 4096 % 100), sizeof page);
    ck_assert_int_eq(pwrite(dz_file_descriptor(file), page, sizeof page, (off_t)at), 4096);
  }
  dz_file_give(&extents[1]);
  for (uint64_t at = 0; at < 3 * MIB; at += 4096) {
    ck_assert_int_eq(pread(dz_file_descriptor(file), page, sizeof page, (off_t)at), 4096);
    if (at / MIB != 1) ck_assert_int_eq(page[4095], (int)(1 + at / 4096 % 100));
  }
  dz_file_give(&extents[0]);
  dz_file_give(&extents[2]);
  dz_file_release(file);
}
END_TEST

/* ---- failures */

static void ck_fails(const char *where, uint64_t bytes, int code, const char *names) {
  drowse_error error = {.struct_size = sizeof error};
  int before = open_descriptors();
  file = NULL;
  ck_status(dz_file_make(where, bytes, &file), DROWSE_ERR_IO);
  ck_ok(drowse_error_get(&error));
  ck_assert_int_eq(error.system_errno, code);
  ck_assert_ptr_nonnull(strstr(drowse_last_error(), names));
  ck_assert_ptr_null(file);
  ck_assert_int_eq(open_descriptors(), before);
}

START_TEST(a_directory_must_be_given_and_be_there) {
  char path[512];
  ck_status(dz_file_make(NULL, MIB, &file), DROWSE_ERR_INVALID);
  (void)snprintf(path, sizeof path, "%s/nowhere", directory);
  ck_fails(path, MIB, ENOENT, path);
  ck_fails("/dev/null", MIB, ENOTDIR, "/dev/null");
  ck_fails("", MIB, ENOENT, "");
}
END_TEST

START_TEST(a_directory_must_be_writable) {
  if (geteuid() == 0) return;
  ck_assert_int_eq(chmod(directory, S_IRUSR | S_IXUSR), 0);
  ck_fails(directory, MIB, EACCES, directory);
  ck_assert_int_eq(chmod(directory, S_IRWXU), 0);
}
END_TEST

static void ck_full(uint64_t bytes) {
  drowse_error error = {.struct_size = sizeof error};
  int before = open_descriptors();
  char number[32];
  ck_status(dz_file_make(directory, bytes, &file), DROWSE_ERR_IO);
  ck_ok(drowse_error_get(&error));
  ck_assert(error.system_errno == EFBIG || error.system_errno == ENOSPC);
  ck_assert_uint_eq(error.wanted_bytes, bytes);
  ck_assert_uint_gt(error.free_bytes, 0);
  (void)snprintf(number, sizeof number, "%llu", (unsigned long long)bytes);
  ck_assert_ptr_nonnull(strstr(drowse_last_error(), number));
  (void)snprintf(number, sizeof number, "%llu", (unsigned long long)error.free_bytes);
  ck_assert_ptr_nonnull(strstr(drowse_last_error(), number));
  ck_assert_ptr_nonnull(strstr(drowse_last_error(), directory));
  ck_assert_int_eq(open_descriptors(), before);
}

START_TEST(a_disk_without_room_is_noticed_at_once) {
  (void)signal(SIGXFSZ, SIG_IGN);
  ck_full(UINT64_C(1) << 60);
  ck_full(UINT64_MAX - 1);
  limit_files(MIB);
  ck_full(4 * MIB);
  make(MIB); /* and what fits is made */
  dz_file_release(file);
  limit_files(RLIM_INFINITY);
  (void)signal(SIGXFSZ, SIG_DFL);
}
END_TEST

/* A file system of 1 MiB, in a mount namespace of the child's own, so nobody has to unmount it. */
static int on_a_small_disk(void) {
  drowse_error error = {.struct_size = sizeof error};
  struct file *fits;
  if (unshare(CLONE_NEWNS) != 0 && unshare(CLONE_NEWNS | CLONE_NEWUSER) != 0) return CANNOT;
  if (mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) != 0) return CANNOT;
  if (mount("none", directory, "tmpfs", 0, "size=1m") != 0) return CANNOT;
  STEP(1, dz_file_make(directory, MIB / 2, &fits) == DROWSE_OK);
  STEP(2, dz_file_make(directory, MIB, &file) == DROWSE_ERR_IO);
  STEP(3, drowse_error_get(&error) == DROWSE_OK && error.system_errno == ENOSPC && error.wanted_bytes == MIB);
  STEP(4, error.free_bytes > 0 && error.free_bytes <= MIB / 2); /* what the failed one had is free again */
  STEP(5, names_in(directory) == 0);
  dz_file_release(fits);
  STEP(6, dz_file_make(directory, MIB * 3 / 4, &fits) == DROWSE_OK);
  dz_file_release(fits);
  return 0;
}

START_TEST(a_small_disk_says_what_is_free) {
  ck_child_or_skip(on_a_small_disk);
}
END_TEST

/* ---- file systems that can less */

static int without_unnamed_files(void) {
  if (!refuse(SYS_openat, 2, O_TMPFILE & ~O_DIRECTORY, EOPNOTSUPP)) return CANNOT;
  STEP(1, open(directory, O_TMPFILE | O_RDWR, S_IRUSR) < 0 && errno == EOPNOTSUPP);
  STEP(2, dz_file_make(directory, MIB, &file) == DROWSE_OK);
  STEP(3, names_in(directory) == 0);
  struct stat result;
  STEP(4, fstat(dz_file_descriptor(file), &result) == 0 && result.st_nlink == 0 && result.st_size == (off_t)MIB);
  STEP(5, (fcntl(dz_file_descriptor(file), F_GETFD) & FD_CLOEXEC) != 0);
  dz_file_release(file);
  STEP(6, dz_file_make("/nowhere", MIB, &file) == DROWSE_ERR_IO);
  return 0;
}

static int without_unlink(void) {
  int before = open_descriptors();
  if (!refuse(SYS_openat, 2, O_TMPFILE & ~O_DIRECTORY, EOPNOTSUPP) || !refuse(SYS_unlink, 0, 0, EROFS)) return CANNOT;
  STEP(1, dz_file_make(directory, MIB, &file) == DROWSE_ERR_IO);
  STEP(2, open_descriptors() == before);
  return 0;
}

static int without_direct_io(void) {
  if (!refuse(SYS_fcntl, 2, O_DIRECT, EINVAL)) return CANNOT;
  STEP(1, dz_file_make(directory, MIB, &file) == DROWSE_OK);
  STEP(2, !dz_file_is_direct(file));
  STEP(3, (fcntl(dz_file_descriptor(file), F_GETFL, 0) & O_DIRECT) == 0);
  dz_file_release(file);
  return 0;
}

static int with_direct_io_that_fails(void) {
  if (!refuse(SYS_pread64, 0, 0, EINVAL)) return CANNOT;
  STEP(1, dz_file_make(directory, MIB, &file) == DROWSE_OK);
  STEP(2, !dz_file_is_direct(file));
  STEP(3, (fcntl(dz_file_descriptor(file), F_GETFL, 0) & O_DIRECT) == 0);
  dz_file_release(file);
  return 0;
}

static int without_holes(void) {
  struct file_extent extent;
  STEP(1, dz_file_make(directory, MIB, &file) == DROWSE_OK);
  if (!refuse(SYS_fallocate, 0, 0, EOPNOTSUPP)) return CANNOT;
  STEP(2, dz_file_take(file, MIB, &extent));
  dz_file_give(&extent);
  dz_file_release(file);
  return 0;
}

/* What is not there yet comes as it is written. */
static int without_allocation(void) {
  struct stat result;
  if (!refuse(SYS_fallocate, 0, 0, EINVAL)) return CANNOT;
  STEP(1, dz_file_make(directory, MIB + 1, &file) == DROWSE_OK);
  STEP(2, fstat(dz_file_descriptor(file), &result) == 0 && result.st_size == (off_t)MIB + 4096);
  dz_file_release(file);
  return 0;
}

START_TEST(file_systems_may_lack_something) {
  ck_child_or_skip(without_unnamed_files);
  ck_child_or_skip(without_direct_io);
  ck_child_or_skip(with_direct_io_that_fails);
  ck_child_or_skip(without_holes);
  ck_child_or_skip(without_allocation);
#ifdef SYS_unlink
  int before = names_in(directory);
  ck_child_or_skip(without_unlink); /* which leaves a name: there is no way to be rid of it */
  if (names_in(directory) > before) {
    char command[300];
    (void)snprintf(command, sizeof command, "rm -f '%s'/.drowse-*", directory);
    ck_assert_int_eq(system(command), 0);
  }
#endif
}
END_TEST

/* ---- processes */

static int told[2];

static void die_at_work(void) {
  struct file_extent extent;
  char page[4096] = "";
  if (dz_file_make(directory, 4 * MIB, &file) != DROWSE_OK || !dz_file_take(file, MIB, &extent)) _exit(1);
  (void)fcntl(dz_file_descriptor(file), F_SETFL, 0); /* the page is not aligned */
  if (write(told[1], "", 1) != 1) _exit(2);
  for (;;) (void)!pwrite(dz_file_descriptor(file), page, sizeof page, 0);
}

START_TEST(a_killed_process_leaves_nothing) {
  char byte;
  ck_assert_int_eq(pipe(told), 0);
  pid_t child = fork();
  if (child == 0) die_at_work();
  ck_assert_int_eq(read(told[0], &byte, 1), 1);
  ck_assert_int_eq(names_in(directory), 0);
  ck_assert_int_eq(kill(child, SIGKILL), 0);
  ck_assert_int_eq(end_of_child(child), 256 + SIGKILL);
  ck_assert_int_eq(names_in(directory), 0);
  (void)close(told[0]);
  (void)close(told[1]);
}
END_TEST

static struct file_extent inherited;

static int give_what_was_inherited(void) {
  int before = open_descriptors();
  dz_file_give(&inherited);
  dz_file_release(file);
  STEP(1, open_descriptors() == before - 1);
  return 0;
}

/* The number stands for something else in this child. */
static int give_what_was_closed(void) {
  int descriptor = dz_file_descriptor(file);
  STEP(1, dup2(STDERR_FILENO, descriptor) == descriptor);
  dz_file_give(&inherited);
  dz_file_release(file);
  STEP(2, fcntl(descriptor, F_GETFD) >= 0);
  return 0;
}

START_TEST(a_child_leaves_the_parents_data_alone) {
  make(MIB);
  ck_assert(dz_file_take(file, MIB, &inherited));
  struct stat before = about(dz_file_descriptor(file));
  for (int kind = 0; kind < FORK_KINDS; kind++) {
    ck_assert_int_eq(in_child_by((enum fork_kind)kind, give_what_was_inherited), 0);
    ck_assert_int_eq(in_child_by((enum fork_kind)kind, give_what_was_closed), 0);
  }
  ck_assert_int_eq(about(dz_file_descriptor(file)).st_size, before.st_size);
  ck_assert_int_eq(about(dz_file_descriptor(file)).st_blocks, before.st_blocks);
  dz_file_give(&inherited);
  dz_file_release(file);
}
END_TEST

static int is_cut(int descriptor) {
  char byte;
  struct stat result;
  STEP(1, read(told[0], &byte, 1) == 1); /* the parent has closed it */
  STEP(2, fstat(descriptor, &result) == 0 && result.st_size == 0 && result.st_blocks == 0);
  return 0;
}

START_TEST(a_child_keeps_no_room_on_the_disk) {
  make(MIB);
  ck_assert_int_eq(pipe(told), 0);
  pid_t child = fork();
  if (child == 0) _exit(is_cut(dz_file_descriptor(file)));
  dz_file_release(file);
  ck_assert_int_eq(write(told[1], "", 1), 1);
  ck_assert_int_eq(end_of_child(child), 0);
  (void)close(told[0]);
  (void)close(told[1]);
}
END_TEST

/* ---- what is in it */

START_TEST(what_came_back_changed_is_named) {
  static char memory[4096];
  char number[32];
  make(MIB);
  dz_file_note(file, 8192, memory, 1000);
  ck_ok(dz_file_check(file, 8192, memory, 1000));
  memory[999] ^= 4;
  ck_status(dz_file_check(file, 8192, memory, 1000), DROWSE_ERR_CORRUPT);
  ck_assert_ptr_nonnull(strstr(drowse_last_error(), directory));
  (void)snprintf(number, sizeof number, "%d", 8192);
  ck_assert_ptr_nonnull(strstr(drowse_last_error(), number));
  memory[999] ^= 4;
  ck_ok(dz_file_check(file, 8192, memory, 1000));
  dz_file_release(file);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("file");
  HARNESS_FIXTURE_TEST(suite, a_file_has_no_name_and_all_its_blocks, start, remove_directory);
  HARNESS_FIXTURE_TEST(suite, an_empty_file_serves_nobody, start, remove_directory);
  HARNESS_FIXTURE_TEST(suite, extents_follow_each_other_to_the_end, start, remove_directory);
  HARNESS_LOOP_TEST(suite, the_last_to_let_go_closes, start, remove_directory, 10);
  HARNESS_FIXTURE_TEST(suite, what_is_given_back_leaves_the_disk, start, remove_directory);
  HARNESS_FIXTURE_TEST(suite, what_is_not_given_back_stays, start, remove_directory);
  HARNESS_FIXTURE_TEST(suite, a_directory_must_be_given_and_be_there, start, remove_directory);
  HARNESS_FIXTURE_TEST(suite, a_directory_must_be_writable, start, remove_directory);
  HARNESS_FIXTURE_TEST(suite, a_disk_without_room_is_noticed_at_once, start, remove_directory);
  HARNESS_FIXTURE_TEST(suite, a_small_disk_says_what_is_free, start, remove_directory);
  HARNESS_FIXTURE_TEST(suite, file_systems_may_lack_something, start, remove_directory);
  HARNESS_FIXTURE_TEST(suite, a_killed_process_leaves_nothing, start, remove_directory);
  HARNESS_FIXTURE_TEST(suite, a_child_leaves_the_parents_data_alone, start, remove_directory);
  HARNESS_FIXTURE_TEST(suite, a_child_keeps_no_room_on_the_disk, start, remove_directory);
  HARNESS_FIXTURE_TEST(suite, what_came_back_changed_is_named, start, remove_directory);
  return harness_run(suite);
}
