/* SPDX-License-Identifier: Apache-2.0
 *
 * The real driver's table.
 */
#ifndef DZ_CUDA_DRIVER_H
#define DZ_CUDA_DRIVER_H

#include "driver/driver.h"

/* Loads libcuda.so.1 and initialises it. The table lives as long as the process. Fails with dz_error() set: NO_DEVICE (there is
 * none, it lacks entries: all of them are named; cuInit fails: in the driver's words), FORKED (an ancestor had initialised it),
 * NO_HOST_MEMORY. */
drowse_status dz_cuda_open(const struct driver **driver);

/* Whether there is a libcuda.so.1, of whatever use. */
bool dz_cuda_present(void);

#endif
