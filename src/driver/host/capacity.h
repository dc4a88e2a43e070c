/* SPDX-License-Identifier: Apache-2.0
 *
 * How much memory the host device has where nobody says.
 */
#ifndef DZ_HOST_CAPACITY_H
#define DZ_HOST_CAPACITY_H

#include <stdint.h>

/* Half of the machine's memory, or of the tightest limit among this process's cgroups, in whole granules. */
uint64_t dz_host_default_capacity(void);

#endif
