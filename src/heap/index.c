/* SPDX-License-Identifier: Apache-2.0
 *
 * The index is a red-black tree through the blocks themselves, so that adding to it cannot fail.
 */
#include "heap/index.h"

#include "heap/block.h"

static int compare(const struct block *a, const struct block *b) {
  return (a->range.base > b->range.base) - (a->range.base < b->range.base);
}

/* RB_GENERATE_STATIC needs an attribute macro that only BSD has. */
RB_GENERATE_INTERNAL(index, block, in_index, compare, __attribute__((unused)) static)

void dz_index_add(struct index *index, struct block *block) {
  (void)RB_INSERT(index, index, block);
}

void dz_index_remove(struct index *index, struct block *block) {
  (void)RB_REMOVE(index, index, block);
}

struct block *dz_index_find(struct index *index, uint64_t address) {
  struct block *found = NULL;
  for (struct block *at = RB_ROOT(index); at != NULL;) {
    if (address < at->range.base) {
      at = RB_LEFT(at, in_index);
    } else {
      found = at;
      at = RB_RIGHT(at, in_index);
    }
  }
  return found != NULL && address < dz_range_end(&found->range) ? found : NULL;
}
