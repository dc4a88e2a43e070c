/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory of regions: allocated, paused, resumed, freed. A pause or resume that fails leaves each tag paused or awake, whole, and
 * can be made again; what it has done stays done. Done again it does nothing.
 */
#ifndef DZ_SAVED_H
#define DZ_SAVED_H

#include "drowse.h"

/* Memory for this thread's region on a device. SCOPE: none is open; else what drowse_alloc() fails with. */
drowse_status dz_saved_alloc(int device, size_t bytes, drowse_stream stream, void **ptr);

/* Frees what dz_saved_alloc() gave on the device, and gives unused memory back to it. */
void dz_saved_free(int device, void *ptr);

/* The device on which dz_saved_alloc() gave ptr; -1: it did not. */
int dz_saved_device(void *ptr);

/* A tag's memory, NULL or "": all, on every device. */
drowse_status dz_saved_pause(const char *tag);
drowse_status dz_saved_resume(const char *tag);

/* Whether a device has memory of the tag. */
bool dz_saved_on(int device, const char *tag);

/* Where bytes from ptr on are in host memory while they are paused, or what the last pause retained; NULL: they are not. */
void *dz_saved_backup(const void *ptr, size_t bytes);

/* For the process: how much of a device's memory is to stay free; the directory for backups on disk, made when it is needed, at
 * first $TMS_DISK_BACKUP_DIR, else /tmp; whether backups in host memory stay after a resume, at first what $TMS_RETAIN_CPU_BACKUP
 * says. */
void dz_saved_set_margin(uint64_t bytes);
drowse_status dz_saved_set_directory(const char *path);
void dz_saved_set_retain(bool on);
bool dz_saved_retains(void);

#endif
