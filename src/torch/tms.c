/* SPDX-License-Identifier: Apache-2.0
 *
 * libdrowse-tms: torch_memory_saver's functions. Where its own would end the process these return an error, or what says that
 * there is nothing; drowse_last_error() has the reason.
 */
#include "torch/tms.h"

#include "torch/cuda_error.h"
#include "torch/heaps.h"
#include "torch/region.h"
#include "torch/resident.h"
#include "torch/saved.h"

/* ---- this thread's region */

DROWSE_API void tms_set_interesting_region(bool on) {
  dz_region_switch(DZ_SWITCH_REGION, on);
}

DROWSE_API bool tms_get_interesting_region(void) {
  return dz_region_is_on(DZ_SWITCH_REGION);
}

DROWSE_API void tms_set_current_tag(const char *tag) {
  if (tag == NULL)
    (void)drowse_error_set(DROWSE_ERR_INVALID, "the tag is NULL");
  else
    dz_region_tag_set(tag);
}

DROWSE_API const char *tms_get_current_tag(void) {
  return dz_region_tag();
}

DROWSE_API void tms_set_enable_cpu_backup(bool on) {
  dz_region_switch(DZ_SWITCH_HOST, on);
}

DROWSE_API bool tms_get_enable_cpu_backup(void) {
  return dz_region_is_on(DZ_SWITCH_HOST);
}

DROWSE_API void tms_set_cpu_backup_backend(const char *backend) {
  dz_region_backend_set(backend);
}

DROWSE_API const char *tms_get_cpu_backup_backend(void) {
  return dz_region_backend();
}

DROWSE_API void tms_set_enable_disk_backup(bool on) {
  dz_region_switch(DZ_SWITCH_FILE, on);
}

DROWSE_API bool tms_get_enable_disk_backup(void) {
  return dz_region_is_on(DZ_SWITCH_FILE);
}

/* ---- the process's settings */

DROWSE_API void tms_set_disk_backup_dir(const char *directory) {
  (void)dz_saved_set_directory(directory);
}

DROWSE_API void tms_set_retain_cpu_backup(bool on) {
  dz_saved_set_retain(on);
}

DROWSE_API bool tms_get_retain_cpu_backup(void) {
  return dz_saved_retains();
}

DROWSE_API void set_memory_margin_bytes(uint64_t bytes) {
  dz_saved_set_margin(bytes);
}

/* ---- a tag's memory */

DROWSE_API int tms_pause(const char *tag) {
  return (int)dz_cuda_error(dz_saved_pause(tag));
}

DROWSE_API int tms_resume(const char *tag) {
  return (int)dz_cuda_error(dz_saved_resume(tag));
}

DROWSE_API uint64_t tms_keep_resident(const void *ptr) {
  uint64_t bytes = 0;
  return dz_resident_keep(ptr, &bytes) == DROWSE_OK ? bytes : 0;
}

DROWSE_API uint32_t tms_affected_devices(const char *tag, int *devices, uint32_t room) {
  uint32_t count = 0;
  for (int device = dz_heaps_next(0); device < DZ_DEVICES; device = dz_heaps_next(device + 1)) {
    if (!dz_saved_on(device, tag)) continue;
    if (count < room) devices[count] = device;
    count++;
  }
  return count;
}

DROWSE_API uint8_t *tms_get_cpu_backup_pointer(const uint8_t *ptr, uint64_t bytes) {
  return dz_saved_backup(ptr, bytes);
}

/* ---- for PyTorch's pluggable allocator */

DROWSE_API void *tms_torch_malloc(ssize_t bytes, int device, drowse_stream stream) {
  void *ptr = NULL;
  return dz_saved_alloc(device, (size_t)bytes, stream, &ptr) == DROWSE_OK ? ptr : NULL;
}

DROWSE_API void tms_torch_free(void *ptr, ssize_t bytes, int device, drowse_stream stream) {
  (void)bytes;
  (void)stream;
  dz_saved_free(device, ptr);
}
