/* SPDX-License-Identifier: Apache-2.0
 *
 * What a call may say after a fault.
 */
#include "fault/promise.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

void promise_take_error(struct promise_error *error) {
  error->detail = (drowse_error){.struct_size = sizeof error->detail};
  (void)drowse_error_get(&error->detail);
  (void)snprintf(error->text, sizeof error->text, "%s", drowse_last_error());
}

/* ---- of which status a failure of a call is */

static uint64_t of_entry(enum fault_point point, enum fault_variant variant) {
  switch (variant) {
  case FAULT_FULL:
    return point == FAULT_MemAddressReserve ? SWEEP_BIT(ERR_NO_ADDRESS_SPACE) : SWEEP_BIT(ERR_NO_DEVICE_MEMORY);
  case FAULT_STICKY:
  case FAULT_LOST:
    return SWEEP_BIT(ERR_DEVICE_LOST);
  case FAULT_SLOW:
  case FAULT_SHORT:
    return 0;
  case FAULT_REFUSED:
  case FAULT_DONE:
  case FAULT_LATE:
  case FAULT_VARIANTS:
    break;
  }
  return SWEEP_BIT(ERR_DRIVER);
}

/* Of a call that the host device makes: it tells it as a driver does. */
static uint64_t of_host(void) {
  return SWEEP_BIT(ERR_NO_DEVICE_MEMORY) | SWEEP_BIT(ERR_NO_ADDRESS_SPACE) | SWEEP_BIT(ERR_NO_HOST_MEMORY) |
         SWEEP_BIT(ERR_DRIVER);
}

static uint64_t of_libc(enum fault_point point) {
  switch ((int)point) {
  case FAULT_malloc:
  case FAULT_calloc:
  case FAULT_realloc:
  case FAULT_strdup:
  case FAULT_mmap:
  case FAULT_madvise:
    return SWEEP_BIT(ERR_NO_HOST_MEMORY);
  case FAULT_pthread_setspecific:
    return SWEEP_BIT(ERR_NO_HOST_MEMORY);
  case FAULT_munmap:
  case FAULT_pthread_create:
  case FAULT_pthread_mutex_init:
  case FAULT_pthread_cond_init:
  case FAULT_pthread_key_create:
    return SWEEP_BIT(ERR_SYSTEM);
  case FAULT_open:
  case FAULT_mkostemp:
  case FAULT_unlink:
  case FAULT_fstat:
  case FAULT_ftruncate:
  case FAULT_posix_fallocate:
  case FAULT_pread:
  case FAULT_pwrite:
  case FAULT_io_uring_result:
    return SWEEP_BIT(ERR_IO);
  default:
    return 0; /* the library does without */
  }
}

static uint64_t promised(const struct fault_case *wanted) {
  if (wanted->k == 0 || wanted->variant == FAULT_SLOW || wanted->variant == FAULT_SHORT) return 0;
  if (wanted->mode == FAULT_ALL) return UINT64_MAX;
  if (fault_is_entry(wanted->point)) return of_entry(wanted->point, wanted->variant);
  return fault_is_host(wanted->point) ? of_host() : of_libc(wanted->point);
}

/* ---- what is said of it */

/* What the driver would not take back is counted, and no single call is named. */
static bool is_about_stuck(const struct promise_error *error) {
  return error->detail.status == DROWSE_ERR_DRIVER && strstr(error->text, "not take") != NULL;
}

static void check_error(const struct fault_case *wanted, drowse_status status, const struct promise_error *error) {
  bool kept = is_about_stuck(error);
  EXPECT_MSG(error->detail.status == status, "%s, but the error stored is %s", drowse_status_name(status),
             drowse_status_name(error->detail.status));
  EXPECT_MSG(error->text[0] != '\0', "%s has no text", drowse_status_name(status));
  if (wanted->mode != FAULT_ONCE && !fault_is_entry(wanted->point)) return; /* there may have been no memory to store more */
  if (wanted->mode == FAULT_ALL) return;
  if (status == DROWSE_ERR_DRIVER && !kept) EXPECT_MSG(error->detail.driver_code != 0, "no CUresult: \"%s\"", error->text);
  if (status == DROWSE_ERR_SYSTEM || status == DROWSE_ERR_IO)
    EXPECT_MSG(error->detail.system_errno != 0, "no errno: \"%s\"", error->text);
  if (status == DROWSE_ERR_DRIVER && !kept && wanted->mode == FAULT_ONCE && fault_is_entry(wanted->point))
    EXPECT_MSG(strstr(error->text, " failed: ") != NULL, "\"%s\" names no call", error->text);
}

static struct promise_error before;

void promise_begin(void) {
  (void)drowse_scope_leave(NULL);
  promise_take_error(&before);
}

void promise_check(const struct fault_case *wanted, const struct scenario *scenario, drowse_status status,
                   const struct promise_error *error) {
  if (status == DROWSE_OK) {
    EXPECT_MSG((scenario->flags & SWEEP_FRESH) != 0 || strcmp(error->text, before.text) == 0,
               "it succeeds, but the last error is \"%s\"", error->text);
    return;
  }
  uint64_t bit = UINT64_C(1) << -status, short_of = SWEEP_BIT(ERR_NO_DEVICE_MEMORY);
  if ((scenario->flags & SWEEP_SHORT) != 0 && bit == short_of && wanted->variant != FAULT_SLOW) return;
  EXPECT_MSG(fault_injected(), "%s though nothing failed: %s", drowse_status_name(status), error->text);
  EXPECT_MSG((bit & promised(wanted)) != 0 || is_about_stuck(error), "%s is not what this is: %s", drowse_status_name(status),
             error->text);
  EXPECT_MSG((bit & scenario->statuses) != 0, "%s is not what the header says: %s", drowse_status_name(status), error->text);
  check_error(wanted, status, error);
}
