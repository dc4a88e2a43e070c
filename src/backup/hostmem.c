/* SPDX-License-Identifier: Apache-2.0
 *
 * How much memory the host can still give: MemAvailable, and the room in each memory cgroup from the process's own up to the root
 * (version 2, and the memory controller of version 1). Asked before pages are touched, because a process that touches more is
 * killed rather than told.
 */
#include "backup/hostmem.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/fork.h"

/* Reads a small file whole; false: it is not there or does not fit. */
static bool read_file(const char *path, char *text, size_t room) {
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return false;
  size_t length = 0;
  ssize_t got;
  while ((got = read(file, text + length, room - 1 - length)) > 0 || (got < 0 && errno == EINTR)) {
    if (got > 0) length += (size_t)got;
  }
  (void)close(file);
  text[length] = '\0';
  return got == 0 && length < room - 1;
}

/* The number behind name at the beginning of a line of text. */
static bool find_number(const char *text, const char *name, uint64_t *number) {
  size_t length = strlen(name);
  for (const char *line = text; line != NULL; line = strchr(line, '\n')) {
    if (*line == '\n') line++;
    if (strncmp(line, name, length) == 0) return sscanf(line + length, "%" SCNu64, number) == 1;
  }
  return false;
}

static uint64_t least(uint64_t a, uint64_t b) {
  return a < b ? a : b;
}

static uint64_t machine_available(void) {
  char text[8192];
  uint64_t kibibytes;
  if (!read_file("/proc/meminfo", text, sizeof text) || !find_number(text, "MemAvailable:", &kibibytes)) return UINT64_MAX;
  return kibibytes * 1024;
}

/* The files of one version of cgroups. */
struct cgroup_files {
  const char *root, *limit, *usage, *cache; /* cache: the line of memory.stat with what the kernel drops first */
};

static const struct cgroup_files version_2 = {"/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file "};
static const struct cgroup_files version_1 = {"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
                                              "total_inactive_file "};

static bool read_cgroup(const struct cgroup_files *files, const char *group, const char *name, char *text, size_t room) {
  char path[4096];
  int length = snprintf(path, sizeof path, "%s%s/%s", files->root, group, name);
  return length > 0 && (size_t)length < sizeof path && read_file(path, text, room);
}

/* The room in one group; UINT64_MAX: it has no limit ("max", or the file is not there). */
static uint64_t group_available(const struct cgroup_files *files, const char *group) {
  char text[16384];
  uint64_t limit, usage, cache;
  if (!read_cgroup(files, group, files->limit, text, sizeof text) || sscanf(text, "%" SCNu64, &limit) != 1) return UINT64_MAX;
  if (!read_cgroup(files, group, files->usage, text, sizeof text) || sscanf(text, "%" SCNu64, &usage) != 1) return UINT64_MAX;
  if (!read_cgroup(files, group, "memory.stat", text, sizeof text) || !find_number(text, files->cache, &cache)) cache = 0;
  usage -= least(usage, cache);
  return limit > usage ? limit - usage : 0;
}

/* group is shortened, component by component, up to the root. */
static uint64_t groups_available(const struct cgroup_files *files, char *group) {
  uint64_t available = UINT64_MAX;
  for (;;) {
    available = least(available, group_available(files, group));
    char *slash = strrchr(group, '/');
    if (slash == NULL) return available;
    *slash = '\0';
  }
}

static uint64_t cgroup_available(void) {
  char text[8192];
  if (!read_file("/proc/self/cgroup", text, sizeof text)) return UINT64_MAX;
  uint64_t available = UINT64_MAX;
  char *rest = NULL;
  for (char *line = strtok_r(text, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
    char *controllers = strchr(line, ':'), *group = controllers == NULL ? NULL : strchr(controllers + 1, ':');
    if (group == NULL) continue;
    *group++ = '\0';
    bool second = controllers[1] == '\0';
    if (!second && strstr(controllers, "memory") == NULL) continue;
    available = least(available, groups_available(second ? &version_2 : &version_1, group));
  }
  return available;
}

uint64_t dz_host_available(void) {
  return least(machine_available(), cgroup_available());
}

/* ---- claims */

static atomic_uint_fast64_t claimed;

bool dz_host_claim(uint64_t bytes, uint64_t *available) {
  uint64_t all = dz_host_available(), others = atomic_load(&claimed);
  do {
    *available = all > others ? all - others : 0;
    if (bytes > *available) return false;
  } while (!atomic_compare_exchange_weak(&claimed, &others, others + bytes));
  return true;
}

void dz_host_unclaim(uint64_t bytes) {
  (void)atomic_fetch_sub(&claimed, bytes);
}

/* The parent's claims are not the child's: there nobody is left who would unclaim them. */
static void do_nothing(void) {
}

static void child(bool held) {
  (void)held;
  atomic_store(&claimed, 0);
}

static struct fork_part part = {.rank = DZ_RANK_LEAF, .prepare = do_nothing, .parent = do_nothing, .child = child};

static __attribute__((constructor)) void begin(void) {
  dz_fork_register(&part);
}
