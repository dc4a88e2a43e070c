/* SPDX-License-Identifier: Apache-2.0
 *
 * For tests of files: a directory of their own, what a process has open, and a kernel that refuses a call.
 */
#ifndef TESTS_FILES_H
#define TESTS_FILES_H

#include <dirent.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness.h"

static char directory[256];

static inline void make_directory(void) {
  const char *parent = getenv("TMPDIR");
  (void)snprintf(directory, sizeof directory, "%s/drowse-file-XXXXXX", parent == NULL ? "/tmp" : parent);
  ck_assert_ptr_nonnull(mkdtemp(directory));
}

/* -1: the directory cannot be read. */
static inline int names_in(const char *path) {
  int count = 0;
  DIR *stream = opendir(path);
  if (stream == NULL) return -1;
  for (const struct dirent *entry; (entry = readdir(stream)) != NULL;)
    count += entry->d_name[0] != '.' || strlen(entry->d_name) > 2;
  (void)closedir(stream);
  return count;
}

static inline void remove_directory(void) {
  ck_assert_int_eq(names_in(directory), 0);
  ck_assert_int_eq(rmdir(directory), 0);
}

static inline int open_descriptors(void) {
  return names_in("/proc/self/fd");
}

static inline uint64_t next_random(uint64_t *state) {
  *state = *state * UINT64_C(6364136223846793005) + 1;
  return *state >> 33;
}

/* How large a file this process may write. */
static inline void limit_files(rlim_t bytes) {
  struct rlimit limit;
  ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &limit), 0);
  limit.rlim_cur = bytes < limit.rlim_max ? bytes : limit.rlim_max;
  ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

/* From now on a system call fails in this process, if this argument of it has one of these bits, or always if there are none. For
 * children. false: the kernel has no such filters. */
static inline bool refuse(unsigned call, unsigned argument, uint32_t bits, int code) {
  const uint32_t low = offsetof(struct seccomp_data, args) + 8 * argument + (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? 4 : 0);
  struct sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, low),
      BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, bits, 0, bits == 0 ? 0 : 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)code),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {.len = sizeof filter / sizeof *filter, .filter = filter};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

/* What a child of such a test returns when the kernel does not let it be set up. */
enum { CANNOT = 200 };

#define ck_child_or_skip(steps)                                  \
  do {                                                           \
    int child_ended = in_child(steps);                           \
    if (child_ended != CANNOT) ck_assert_int_eq(child_ended, 0); \
  } while (0)

#endif
