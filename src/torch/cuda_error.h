/* SPDX-License-Identifier: Apache-2.0
 *
 * The CUDA runtime's errors, as its functions return them.
 */
#ifndef DZ_CUDA_ERROR_H
#define DZ_CUDA_ERROR_H

#include "drowse.h"

enum dz_cuda_error {
  DZ_CUDA_SUCCESS = 0,
  DZ_CUDA_INVALID_VALUE = 1,
  DZ_CUDA_MEMORY_ALLOCATION = 2,
  DZ_CUDA_INITIALIZATION = 3,
  DZ_CUDA_NO_DEVICE = 100,
  DZ_CUDA_SYMBOL_NOT_FOUND = 302,
  DZ_CUDA_NOT_PERMITTED = 800,
  DZ_CUDA_UNKNOWN = 999
};

/* The one that comes closest to a status. */
static inline enum dz_cuda_error dz_cuda_error(drowse_status status) {
  switch ((int)status) {
  case DROWSE_OK:
    return DZ_CUDA_SUCCESS;
  case DROWSE_ERR_INVALID:
  case DROWSE_ERR_NOT_FOUND:
    return DZ_CUDA_INVALID_VALUE;
  case DROWSE_ERR_NO_DEVICE_MEMORY:
  case DROWSE_ERR_NO_HOST_MEMORY:
  case DROWSE_ERR_NO_ADDRESS_SPACE:
    return DZ_CUDA_MEMORY_ALLOCATION;
  case DROWSE_ERR_NO_DEVICE:
    return DZ_CUDA_NO_DEVICE;
  case DROWSE_ERR_FORKED:
    return DZ_CUDA_INITIALIZATION;
  case DROWSE_ERR_ASLEEP:
  case DROWSE_ERR_BUSY:
    return DZ_CUDA_NOT_PERMITTED;
  default:
    return DZ_CUDA_UNKNOWN;
  }
}

#endif
