/* SPDX-License-Identifier: Apache-2.0
 *
 * Statuses and each thread's last failure. The failure is a record that a thread gets at its first one: a library that is loaded
 * at run time has little thread-local storage, so only a pointer lives there.
 */
#include "core/error.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/options.h"
#include "core/tls.h"

/* X(name without DROWSE_, one sentence for a person) */
#define STATUSES(X)                                                                                  \
  X(OK, "Success.")                                                                                  \
  X(ERR_INVALID, "An argument is not valid.")                                                        \
  X(ERR_NO_DEVICE, "There is no such device, or no driver for it.")                                  \
  X(ERR_NO_DEVICE_MEMORY, "The device has not enough free memory.")                                  \
  X(ERR_NO_HOST_MEMORY, "The host has not enough memory, or its limit is reached.")                  \
  X(ERR_NO_ADDRESS_SPACE, "No range of device addresses could be reserved.")                         \
  X(ERR_DRIVER, "A call of the device's driver failed.")                                             \
  X(ERR_DEVICE_LOST, "The device is lost to this process: restart it; sleeping tags stay readable.") \
  X(ERR_ASLEEP, "The tag is asleep, or on its way there or back.")                                   \
  X(ERR_BUSY, "Somebody else is at work on it: try again later.")                                    \
  X(ERR_NOT_FOUND, "There is no such tag or block.")                                                 \
  X(ERR_SCOPE, "The scope was left twice, belongs to another thread, or is nested too deep.")        \
  X(ERR_HOOK, "A framework's hook failed.")                                                          \
  X(ERR_SETTINGS, "A settings string does not parse.")                                               \
  X(ERR_FORKED, "It was inherited through fork and cannot be used in the child.")                    \
  X(ERR_POISONED, "Where the tag's bytes are is not known.")                                         \
  X(ERR_TIMEOUT, "The time is over; what was waited for goes on.")                                   \
  X(ERR_CANCELED, "The operation was canceled; everything is as it was before.")                     \
  X(ERR_IO, "A file could not be read or written.")                                                  \
  X(ERR_CORRUPT, "A checksum does not match.")                                                       \
  X(ERR_SYSTEM, "The system refused a call.")                                                        \
  X(ERR_UNSUPPORTED, "This version, or this driver, cannot do it.")

DROWSE_API const char *drowse_status_name(drowse_status status) {
  switch (status) {
#define NAME(name, text) \
  case DROWSE_##name:    \
    return "DROWSE_" #name;
    STATUSES(NAME)
#undef NAME
  }
  return "DROWSE_ERR_UNKNOWN";
}

DROWSE_API const char *drowse_status_text(drowse_status status) {
  switch (status) {
#define TEXT(name, text) \
  case DROWSE_##name:    \
    return text;
    STATUSES(TEXT)
#undef TEXT
  }
  return "The status is unknown.";
}

DROWSE_API const char *drowse_version(void) {
#define DIGITS_(number) #number
#define DIGITS(number) DIGITS_(number)
  return DIGITS(DROWSE_VERSION_MAJOR) "." DIGITS(DROWSE_VERSION_MINOR) "." DIGITS(DROWSE_VERSION_PATCH);
}

static DZ_TLS struct error *failure;          /* this thread's, NULL before its first */
static DZ_TLS drowse_status failure_unstored; /* ... for which there was no memory */
static struct thread_key failure_key;

static void failure_end(void *record) {
  failure = NULL;
  free(record);
}

/* This thread's record, made if need be; NULL: no memory. Without a key nothing would free it, so then there is none either. */
static struct error *failure_record(void) {
  if (failure != NULL) return failure;
  if (dz_key_make(&failure_key, failure_end) != 0) return NULL;
  struct error *record = calloc(1, sizeof *record);
  if (record == NULL) return NULL;
  if (pthread_setspecific(dz_key(&failure_key), record) != 0) {
    free(record);
    return NULL;
  }
  return failure = record;
}

void dz_error_prepare(void) {
  (void)failure_record();
}

static struct error *failure_start(drowse_status status) {
  struct error *record = failure_record();
  if (record == NULL) {
    failure_unstored = status;
    return NULL;
  }
  failure_unstored = DROWSE_OK;
  memset(&record->detail, 0, sizeof record->detail);
  record->detail.status = status;
  return record;
}

drowse_status dz_error(drowse_status status, const char *format, ...) {
  int saved = errno;
  struct error *record = failure_start(status);
  if (record != NULL) {
    va_list values;
    va_start(values, format);
    (void)vsnprintf(record->text, sizeof record->text, format, values);
    va_end(values);
  }
  errno = saved;
  return status;
}

drowse_status dz_error_system(drowse_status status, int system_errno, const char *format, ...) {
  int saved = errno;
  struct error *record = failure_start(status);
  if (record != NULL) {
    char what[sizeof record->text / 2];
    char reason[128];
    va_list values;
    va_start(values, format);
    (void)vsnprintf(what, sizeof what, format, values);
    va_end(values);
    (void)snprintf(record->text, sizeof record->text, "%s: %s", what, strerror_r(system_errno, reason, sizeof reason));
    record->detail.system_errno = system_errno;
  }
  errno = saved;
  return status;
}

drowse_status dz_error_last(void) {
  return failure_unstored != DROWSE_OK || failure == NULL ? failure_unstored : failure->detail.status;
}

drowse_status dz_error_status(drowse_status status) {
  if (failure != NULL) failure->detail.status = status;
  if (failure_unstored != DROWSE_OK) failure_unstored = status;
  return status;
}

void dz_error_tag(const char *tag) {
  if (failure != NULL) (void)snprintf(failure->detail.tag, sizeof failure->detail.tag, "%s", tag);
}

void dz_error_driver_code(int driver_code) {
  if (failure != NULL) failure->detail.driver_code = driver_code;
}

void dz_error_bytes(uint64_t wanted, uint64_t free_bytes, uint64_t largest_free) {
  if (failure == NULL) return;
  failure->detail.wanted_bytes = wanted;
  failure->detail.free_bytes = free_bytes;
  failure->detail.largest_free_bytes = largest_free;
}

void dz_error_save(struct error *error) {
  if (failure != NULL) {
    *error = *failure;
  } else {
    memset(error, 0, sizeof *error);
    error->detail.status = failure_unstored;
    (void)snprintf(error->text, sizeof error->text, "%s", drowse_last_error());
  }
}

drowse_status dz_error_restore(const struct error *error) {
  struct error *record = failure_start(error->detail.status);
  if (record != NULL) *record = *error;
  return error->detail.status;
}

DROWSE_API const char *drowse_last_error(void) {
  if (failure_unstored != DROWSE_OK) return drowse_status_text(failure_unstored);
  return failure == NULL ? "" : failure->text;
}

DROWSE_API drowse_status drowse_error_get(drowse_error *error) {
  if (error == NULL || error->struct_size < sizeof error->struct_size) return DROWSE_ERR_INVALID;
  drowse_error detail = {.status = dz_error_last()};
  if (failure != NULL && failure_unstored == DROWSE_OK) detail = failure->detail;
  dz_result_write(error, &detail, sizeof detail);
  return DROWSE_OK;
}

DROWSE_API drowse_status drowse_error_set(drowse_status status, const char *text) {
  if (status >= DROWSE_OK || status < DROWSE_ERR_UNSUPPORTED)
    return dz_error(DROWSE_ERR_INVALID, "%d is no status of a failure", (int)status);
  if (text == NULL) return dz_error(DROWSE_ERR_INVALID, "text is NULL");
  char copy[sizeof((struct error *)NULL)->text]; /* text may be drowse_last_error()'s, which is written now */
  (void)snprintf(copy, sizeof copy, "%s", text);
  return dz_error(status, "%s", copy);
}
