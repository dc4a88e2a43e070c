/* SPDX-License-Identifier: Apache-2.0
 *
 * From an address to the live block that it lies in.
 */
#ifndef DZ_INDEX_H
#define DZ_INDEX_H

#include <bsd/sys/tree.h>
#include <stdint.h>

struct block;
RB_HEAD(index, block);

void dz_index_add(struct index *index, struct block *block);
void dz_index_remove(struct index *index, struct block *block);
struct block *dz_index_find(struct index *index, uint64_t address); /* NULL: none */

#endif
