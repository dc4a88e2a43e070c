/* SPDX-License-Identifier: Apache-2.0
 *
 * What libdrowse-tms exports: the functions that torch_memory_saver's Python package calls, with its names and types, and those
 * of the CUDA runtime that it stands before when it is preloaded.
 */
#ifndef DZ_TMS_H
#define DZ_TMS_H

#include <sys/types.h>

#include "drowse.h"

/* ---- this thread's region */

DROWSE_API void tms_set_interesting_region(bool on);
DROWSE_API bool tms_get_interesting_region(void);
DROWSE_API void tms_set_current_tag(const char *tag);
DROWSE_API const char *tms_get_current_tag(void);
DROWSE_API void tms_set_enable_cpu_backup(bool on);
DROWSE_API bool tms_get_enable_cpu_backup(void);
DROWSE_API void tms_set_cpu_backup_backend(const char *backend);
DROWSE_API const char *tms_get_cpu_backup_backend(void);
DROWSE_API void tms_set_enable_disk_backup(bool on);
DROWSE_API bool tms_get_enable_disk_backup(void);

/* ---- the process's settings */

DROWSE_API void tms_set_disk_backup_dir(const char *directory);
DROWSE_API void tms_set_retain_cpu_backup(bool on);
DROWSE_API bool tms_get_retain_cpu_backup(void);
DROWSE_API void set_memory_margin_bytes(uint64_t bytes);

/* ---- a tag's memory: NULL or "": all. 0, or an error of the CUDA runtime's and drowse_last_error() */

DROWSE_API int tms_pause(const char *tag);
DROWSE_API int tms_resume(const char *tag);

/* No pause takes the allocation that ptr points into, until it is freed: its size. What shares its tag, and what becomes of the
 * contents, stays with it. 0: it is no allocation of a region's, or is paused, or there is no memory to remember it in. */
DROWSE_API uint64_t tms_keep_resident(const void *ptr);

/* How many devices have memory of the tag; the first so many of their numbers are stored. */
DROWSE_API uint32_t tms_affected_devices(const char *tag, int *devices, uint32_t room);

/* Where the bytes are while they are paused, or what the last pause retained; NULL: they are not in host memory. */
DROWSE_API uint8_t *tms_get_cpu_backup_pointer(const uint8_t *ptr, uint64_t bytes);

/* ---- for PyTorch's pluggable allocator */

DROWSE_API void *tms_torch_malloc(ssize_t bytes, int device, drowse_stream stream);
DROWSE_API void tms_torch_free(void *ptr, ssize_t bytes, int device, drowse_stream stream);

/* ---- the CUDA runtime's (preload.c) */

DROWSE_API int cudaMalloc(void **ptr, size_t bytes);
DROWSE_API int cudaFree(void *ptr);

#endif
