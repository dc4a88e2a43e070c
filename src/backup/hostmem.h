/* SPDX-License-Identifier: Apache-2.0
 *
 * How much memory the host can still give.
 */
#ifndef DZ_HOSTMEM_H
#define DZ_HOSTMEM_H

#include <stdint.h>

/* Bytes that this process can touch before the machine or one of its cgroups runs out, as the kernel estimates; UINT64_MAX where
 * neither says. A look at the moment, not a promise. */
uint64_t dz_host_available(void);

#endif
