/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory of regions, in heaps.
 */
#include "torch/saved.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "torch/heaps.h"
#include "torch/region.h"
#include "torch/resident.h"

/* ---- settings */

static atomic_uint_fast64_t margin;
static _Atomic(const char *) directory; /* NULL: as the environment says */
static atomic_int retain = -1;          /* likewise */

void dz_saved_set_margin(uint64_t bytes) {
  atomic_store(&margin, bytes);
}

void dz_saved_set_retain(bool on) {
  atomic_store(&retain, on);
}

bool dz_saved_retains(void) {
  int set = atomic_load(&retain);
  return set < 0 ? dz_region_variable("TMS_RETAIN_CPU_BACKUP") : set != 0;
}

drowse_status dz_saved_set_directory(const char *path) {
  const char *text = path == NULL ? NULL : dz_region_text(path);
  if (path == NULL) return drowse_error_set(DROWSE_ERR_INVALID, "the directory for backups is NULL");
  if (text == NULL) return drowse_error_set(DROWSE_ERR_NO_HOST_MEMORY, "no memory for the directory's name");
  atomic_store(&directory, text);
  return DROWSE_OK;
}

static const char *current_directory(void) {
  const char *set = atomic_load(&directory), *variable = getenv("TMS_DISK_BACKUP_DIR");
  return set != NULL ? set : variable != NULL ? variable : "/tmp";
}

/* ---- allocating */

static bool leaves_margin(drowse_heap *heap, size_t bytes, uint64_t keep) {
  drowse_heap_info info = {.struct_size = sizeof info};
  return drowse_heap_info_get(heap, &info) == DROWSE_OK && info.free_bytes >= keep && info.free_bytes - keep >= bytes;
}

/* What the heap keeps unused is free memory, too. */
static drowse_status check_margin(drowse_heap *heap, size_t bytes) {
  char text[128];
  uint64_t keep = atomic_load(&margin);
  if (keep == 0 || leaves_margin(heap, bytes, keep)) return DROWSE_OK;
  (void)drowse_trim(heap, 0);
  if (leaves_margin(heap, bytes, keep)) return DROWSE_OK;
  (void)snprintf(text, sizeof text, "%zu bytes would leave less free than the margin of %" PRIu64, bytes, keep);
  return drowse_error_set(DROWSE_ERR_NO_DEVICE_MEMORY, text);
}

drowse_status dz_saved_alloc(int device, size_t bytes, drowse_stream stream, void **ptr) {
  char tag[DZ_TAG_ROOM];
  drowse_error error = {.struct_size = sizeof error};
  drowse_alloc_options options = {.struct_size = sizeof options, .tag = tag};
  *ptr = NULL;
  drowse_status status = dz_region_name(tag);
  if (status != DROWSE_OK) return status;
  drowse_heap *heap = dz_heaps_get(device);
  if (heap == NULL) return drowse_error_get(&error) == DROWSE_OK ? error.status : DROWSE_ERR_NO_DEVICE;
  status = check_margin(heap, bytes);
  return status == DROWSE_OK ? drowse_alloc_with(heap, bytes, stream, &options, ptr) : status;
}

/* Whether its tag has contents in host memory. */
static bool is_backed_up(drowse_heap *heap, const void *ptr) {
  drowse_block block = {.struct_size = sizeof block};
  drowse_stats stats = {.struct_size = sizeof stats};
  return drowse_block_get(heap, ptr, &block) == DROWSE_OK && drowse_stats_get(heap, block.tag, &stats) == DROWSE_OK &&
         stats.backup_bytes > 0;
}

/* Outside of regions memory is somebody else's to give, so none that is unused stays here. */
void dz_saved_free(int device, void *ptr) {
  drowse_heap *heap = dz_heaps_opened(device);
  if (heap == NULL) return;
  bool backed_up = is_backed_up(heap, ptr);
  dz_resident_forget(device, ptr);
  if (drowse_free(heap, ptr) != DROWSE_OK) return;
  (void)drowse_trim(heap, 0);
  if (backed_up) (void)drowse_backup_trim(heap, 0);
}

int dz_saved_device(void *ptr) {
  for (int device = dz_heaps_next(0); device < DZ_DEVICES; device = dz_heaps_next(device + 1)) {
    drowse_block block = {.struct_size = sizeof block};
    if (drowse_block_get(dz_heaps_opened(device), ptr, &block) == DROWSE_OK && block.base == ptr) return device;
  }
  return -1;
}

void *dz_saved_backup(const void *ptr, size_t bytes) {
  void *host = NULL;
  for (int device = dz_heaps_next(0); device < DZ_DEVICES && host == NULL; device = dz_heaps_next(device + 1)) {
    if (drowse_backup_get(dz_heaps_opened(device), ptr, bytes, &host) != DROWSE_OK) host = NULL;
  }
  return host;
}

/* ---- tags of drowse's that a tag has */

typedef drowse_status action(int device, const char *name, enum dz_keep keep);

struct walk {
  const char *tag;
  int device;
  action *act; /* NULL: only count */
  drowse_status status;
  uint64_t blocks; /* live ones */
};

static int visit(void *context, const char *name, const drowse_stats *stats) {
  struct walk *walk = context;
  enum dz_keep keep = DZ_KEEP_NONE;
  if (!dz_region_owns(walk->tag, name, &keep)) return 0;
  walk->blocks += stats->live_blocks;
  if (walk->act != NULL) walk->status = walk->act(walk->device, name, keep);
  return walk->status != DROWSE_OK;
}

static struct walk act_on(int device, const char *tag, action *act) {
  struct walk walk = {.tag = tag, .device = device, .act = act};
  drowse_status status = drowse_tags(dz_heaps_opened(device), visit, &walk);
  if (status != DROWSE_OK) walk.status = status;
  return walk;
}

static drowse_status act_everywhere(const char *tag, action *act) {
  drowse_status status = DROWSE_OK;
  for (int device = dz_heaps_next(0); device < DZ_DEVICES && status == DROWSE_OK; device = dz_heaps_next(device + 1))
    status = act_on(device, tag, act).status;
  return status;
}

bool dz_saved_on(int device, const char *tag) {
  return dz_heaps_opened(device) != NULL && act_on(device, tag, NULL).blocks > 0;
}

/* ---- pausing and resuming */

/* Which of them are there already shows when the last one is made. */
static int make_directories(char *path) {
  for (char *slash = strchr(path, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
    *slash = '\0';
    (void)mkdir(path, S_IRWXU);
    *slash = '/';
  }
  return mkdir(path, S_IRWXU) == 0 || errno == EEXIST ? 0 : errno;
}

static drowse_status make_directory(const char *path) {
  char *copy = strdup(path), text[256], reason[64];
  if (copy == NULL) return drowse_error_set(DROWSE_ERR_NO_HOST_MEMORY, "no memory for the directory's name");
  int code = make_directories(copy);
  free(copy);
  if (code == 0) return DROWSE_OK;
  (void)snprintf(text, sizeof text, "the directory for backups, %.150s: %s", path, strerror_r(code, reason, sizeof reason));
  return drowse_error_set(DROWSE_ERR_IO, text);
}

static drowse_status pause_one(int device, const char *name, enum dz_keep keep) {
  drowse_rule rule = {.tag = name, .action = keep == DZ_KEEP_NONE ? DROWSE_DISCARD : DROWSE_OFFLOAD};
  drowse_sleep_options options = {.struct_size = sizeof options, .backup = DROWSE_BACKUP_HOST};
  drowse_status status = DROWSE_OK;
  if (dz_resident_has(device, name)) return DROWSE_OK;
  (void)drowse_unseal(dz_heaps_opened(device), name); /* what was retained: the contents may be others by now */
  if (keep == DZ_KEEP_FILE) {
    options.backup = DROWSE_BACKUP_FILE;
    options.directory = current_directory();
    status = make_directory(options.directory);
  }
  return status == DROWSE_OK ? drowse_sleep(dz_heaps_opened(device), &rule, 1, &options) : status;
}

static drowse_status resume_one(int device, const char *name, enum dz_keep keep) {
  if (keep == DZ_KEEP_HOST && dz_saved_retains()) (void)drowse_seal(dz_heaps_opened(device), name);
  return drowse_wake(dz_heaps_opened(device), &name, 1, NULL);
}

drowse_status dz_saved_pause(const char *tag) {
  return act_everywhere(tag, pause_one);
}

drowse_status dz_saved_resume(const char *tag) {
  drowse_status status = act_everywhere(tag, resume_one);
  if (status != DROWSE_OK || dz_saved_retains()) return status;
  for (int device = dz_heaps_next(0); device < DZ_DEVICES; device = dz_heaps_next(device + 1))
    (void)drowse_backup_trim(dz_heaps_opened(device), 0);
  return DROWSE_OK;
}
