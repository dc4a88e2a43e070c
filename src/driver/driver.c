/* SPDX-License-Identifier: Apache-2.0
 *
 * What all drivers share: entries for what a driver lacks, and its errors in words.
 */
#include "driver/driver.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/error.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#define UNSUPPORTED(name, version, need, parameters) \
  static CUresult unsupported_##name parameters {    \
    return CUDA_ERROR_NOT_SUPPORTED;                 \
  }
DZ_DRIVER_ENTRIES(UNSUPPORTED)
#undef UNSUPPORTED
#pragma GCC diagnostic pop

#define ENTRY(name, version, need, parameters) .name = unsupported_##name,
const struct driver dz_driver_unsupported = {DZ_DRIVER_ENTRIES(ENTRY)};
#undef ENTRY

void *dz_driver_find(const struct driver *driver, const char *name) {
#define FIND(entry, version, need, parameters) \
  if (strcmp(name, #entry) == 0) return (void *)driver->entry;
  DZ_DRIVER_ENTRIES(FIND)
#undef FIND
  return NULL;
}

/* The errors after which, as the manual says, the process is to be ended: the context is unusable, or the device is. By number,
 * since older headers lack some. */
static bool is_loss(CUresult code) {
  static const unsigned short losses[] = {
      46,  /* DEVICE_UNAVAILABLE: taken by another process's exclusive mode, or fallen off */
      214, /* ECC_UNCORRECTABLE */
      220, /* NVLINK_UNCORRECTABLE */
      226, /* CONTAINED: an error contained to this process */
      700, /* ILLEGAL_ADDRESS */
      702, /* LAUNCH_TIMEOUT */
      709, /* CONTEXT_IS_DESTROYED */
      710, /* ASSERT */
      714, /* HARDWARE_STACK_ERROR */
      715, /* ILLEGAL_INSTRUCTION */
      716, /* MISALIGNED_ADDRESS */
      717, /* INVALID_ADDRESS_SPACE */
      718, /* INVALID_PC */
      719, /* LAUNCH_FAILED */
      721, /* TENSOR_MEMORY_LEAK */
      806, /* MPS_RPC_FAILURE */
      810, /* MPS_CLIENT_TERMINATED */
      4,   /* DEINITIALIZED: the process is exiting */
  };
  for (size_t i = 0; i < sizeof losses / sizeof *losses; i++) {
    if ((unsigned)code == losses[i]) return true;
  }
  return false;
}

static drowse_status status_of(CUresult code) {
  if (code == CUDA_ERROR_OUT_OF_MEMORY) return DROWSE_ERR_NO_DEVICE_MEMORY;
  if (code == CUDA_ERROR_NOT_INITIALIZED)
    return DROWSE_ERR_FORKED; /* whoever has a table has initialised it: in a parent process */
  return is_loss(code) ? DROWSE_ERR_DEVICE_LOST : DROWSE_ERR_DRIVER;
}

__attribute__((format(printf, 4, 0))) static drowse_status store(drowse_status status, const struct driver *driver, CUresult code,
                                                                 const char *format, va_list values) {
  char what[256], number[24];
  const char *name = NULL, *text = NULL;
  (void)vsnprintf(what, sizeof what, format, values);
  (void)snprintf(number, sizeof number, "error %d", (int)code);
  if (driver->GetErrorName(code, &name) != CUDA_SUCCESS || name == NULL) name = number;
  if (driver->GetErrorString(code, &text) != CUDA_SUCCESS || text == NULL) text = "the driver has no words for it";
  (void)dz_error(status, "%s failed: %s (%s)", what, name, text);
  dz_error_driver_code((int)code);
  return status;
}

drowse_status dz_driver_error(const struct driver *driver, CUresult code, const char *format, ...) {
  va_list values;
  va_start(values, format);
  drowse_status status = store(status_of(code), driver, code, format, values);
  va_end(values);
  return status;
}

drowse_status dz_driver_error_as(drowse_status status, const struct driver *driver, CUresult code, const char *format, ...) {
  va_list values;
  va_start(values, format);
  (void)store(status, driver, code, format, values);
  va_end(values);
  return status;
}
