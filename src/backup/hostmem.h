/* SPDX-License-Identifier: Apache-2.0
 *
 * How much memory the host can still give.
 */
#ifndef DZ_HOSTMEM_H
#define DZ_HOSTMEM_H

#include <stdbool.h>
#include <stdint.h>

/* Bytes that this process can touch before the machine or one of its cgroups runs out, as the kernel estimates; UINT64_MAX where
 * neither says. A look at the moment, not a promise. */
uint64_t dz_host_available(void);

/* Whether there are bytes besides what others of this process have claimed and not touched yet, which the kernel does not see: if
 * so, they are claimed. *available is what there was. What has been touched, or will not be, is unclaimed. */
bool dz_host_claim(uint64_t bytes, uint64_t *available);
void dz_host_unclaim(uint64_t bytes);

#endif
