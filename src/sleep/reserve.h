/* SPDX-License-Identifier: Apache-2.0
 *
 * Before a sleep: a place for every backup.
 */
#ifndef DZ_RESERVE_H
#define DZ_RESERVE_H

#include "sleep/op.h"

/* Gives every live block of the tags that are offloaded, and has no backup, a place for one: in the arena, which grows in the
 * background, in a file, or in the arena as far as the host can give and then in a file. *bytes: how much that is. After a
 * failure the operation's new backups are still to be dropped: NO_HOST_MEMORY, IO, INVALID. With the guard entered, without
 * locks. */
drowse_status dz_reserve_backups(struct drowse_op *op, uint64_t *bytes);

#endif
