/* SPDX-License-Identifier: Apache-2.0
 *
 * How much memory the host device has where nobody says: limits, not what is free at the moment, so that two runs see the same
 * device. Limits of cgroups count from the process's own up to the root, in version 2 (one tree) and version 1 (a tree for
 * memory).
 */
#include "driver/host/state.h"

#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "driver/host/capacity.h"

static uint64_t machine_bytes(void) {
  long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
  return pages <= 0 || page <= 0 ? UINT64_MAX : (uint64_t)pages * (uint64_t)page;
}

/* What a limit's file says; "max", or no such file: no limit. */
static uint64_t read_limit(const char *root, const char *group, const char *file) {
  char path[PATH_MAX];
  uint64_t limit;
  int length = snprintf(path, sizeof path, "%s%s/%s", root, group, file);
  if (length < 0 || (size_t)length >= sizeof path) return UINT64_MAX;
  FILE *stream = fopen(path, "re");
  if (stream == NULL) return UINT64_MAX;
  if (fscanf(stream, "%" SCNu64, &limit) != 1) limit = UINT64_MAX;
  (void)fclose(stream);
  return limit;
}

/* The tightest limit on the way from group to the root of its tree. */
static uint64_t tree_limit(const char *root, char *group, const char *file) {
  uint64_t tightest = UINT64_MAX;
  for (;;) {
    uint64_t limit = read_limit(root, group, file);
    if (limit < tightest) tightest = limit;
    char *slash = strrchr(group, '/');
    if (slash == NULL) return tightest;
    *slash = '\0';
  }
}

/* A line is "hierarchy:controllers:path"; version 2's has no controllers. */
static uint64_t line_limit(char *line) {
  char *controllers = strchr(line, ':');
  char *group = controllers == NULL ? NULL : strchr(controllers + 1, ':');
  if (group == NULL) return UINT64_MAX;
  *group++ = '\0';
  if (controllers[1] == '\0') return tree_limit("/sys/fs/cgroup", group, "memory.max");
  if (strcmp(controllers + 1, "memory") != 0) return UINT64_MAX;
  return tree_limit("/sys/fs/cgroup/memory", group, "memory.limit_in_bytes");
}

static uint64_t cgroup_bytes(void) {
  char line[PATH_MAX + 64];
  uint64_t tightest = UINT64_MAX;
  FILE *stream = fopen("/proc/self/cgroup", "re");
  if (stream == NULL) return UINT64_MAX;
  while (fgets(line, sizeof line, stream) != NULL) {
    line[strcspn(line, "\n")] = '\0';
    uint64_t limit = line_limit(line);
    if (limit < tightest) tightest = limit;
  }
  (void)fclose(stream);
  return tightest;
}

uint64_t dz_host_default_capacity(void) {
  uint64_t machine = machine_bytes(), cgroup = cgroup_bytes();
  uint64_t half = (machine < cgroup ? machine : cgroup) / 2;
  if (half > UINT64_C(1) << 46) half = UINT64_C(1) << 46; /* neither says: what addresses allow */
  uint64_t whole = half - half % DZ_HOST_GRANULARITY;
  return whole == 0 ? DZ_HOST_GRANULARITY : whole;
}
