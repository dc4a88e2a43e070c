/* SPDX-License-Identifier: Apache-2.0
 *
 * What a process has of the system, as /proc says.
 */
#include "watch.h"

#include <dirent.h>
#include <stdio.h>
#include <unistd.h>

static bool read_status(pid_t pid, struct figures *figures) {
  char path[64], line[256];
  (void)snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
  FILE *status = fopen(path, "re");
  if (status == NULL) return false;
  while (fgets(line, sizeof line, status) != NULL) {
    (void)sscanf(line, "VmRSS: %zu", &figures->resident_kib);
    (void)sscanf(line, "Threads: %zu", &figures->threads);
  }
  (void)fclose(status);
  return true;
}

static bool count_files(pid_t pid, size_t *files) {
  char path[64];
  (void)snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
  DIR *directory = opendir(path);
  if (directory == NULL) return false;
  *files = 0;
  for (const struct dirent *entry; (entry = readdir(directory)) != NULL;) {
    if (entry->d_name[0] != '.') ++*files;
  }
  (void)closedir(directory);
  return true;
}

bool watch_look(pid_t pid, struct figures *figures) {
  *figures = (struct figures){0};
  return read_status(pid, figures) && count_files(pid, &figures->files) && figures->threads > 0;
}

bool watch_settle(pid_t pid, struct figures *figures) {
  enum { LOOKS = 500, SAME = 15 };
  struct figures before;
  if (!watch_look(pid, &before)) return false;
  for (int looks = 0, same = 0; looks < LOOKS && same < SAME; looks++) {
    (void)usleep(20000);
    if (!watch_look(pid, figures)) return false;
    same = figures->threads == before.threads && figures->files == before.files ? same + 1 : 0;
    before = *figures;
  }
  return true;
}
