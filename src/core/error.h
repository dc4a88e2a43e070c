/* SPDX-License-Identifier: Apache-2.0
 *
 * Each thread's last failure. A function that fails calls one of these with a sentence that names the culprit and returns what it
 * returns (a driver call's failure: dz_driver_error() in driver/driver.h):
 *
 *   if (bytes > limit) return dz_error(DROWSE_ERR_INVALID, "%zu bytes: more than %zu", bytes, limit);
 */
#ifndef DZ_ERROR_H
#define DZ_ERROR_H

#include "drowse.h"

/* Makes the calling thread's record of a failure, if it has none: for what may fail with a lock held later, where nothing may be
 * allocated. */
void dz_error_prepare(void);

/* Stores a failure with its text (cut at 511 bytes) and returns status. Preserves errno. Allocates nothing after the thread's
 * first use; where that first use finds no memory the text is that of the status. */
drowse_status dz_error(drowse_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same, and stores a system call's errno; the text gets ": " and its message behind it. */
drowse_status dz_error_system(drowse_status status, int system_errno, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Change members of the failure just stored; the first returns the status. */
drowse_status dz_error_status(drowse_status status);
void dz_error_tag(const char *tag);
void dz_error_driver_code(int driver_code);
void dz_error_bytes(uint64_t wanted, uint64_t free_bytes, uint64_t largest_free);

/* The status of the failure just stored. */
drowse_status dz_error_last(void);

/* A failure as a value, to carry from one thread to another. */
struct error {
  drowse_error detail;
  char text[512];
};
void dz_error_save(struct error *error);
drowse_status dz_error_restore(const struct error *error);

#endif
