/* SPDX-License-Identifier: Apache-2.0
 *
 * Nodes of one size, out of pages taken from the system. Made for what is allocated under a lock, where malloc must not be called
 * (a fork in another thread would wait for malloc's lock while malloc's owner waits for ours), and for paths that must not fail:
 * nodes reserved before are there after.
 *
 * Not locked: the owner's lock covers it. Pages go back when the slab ends.
 */
#ifndef DZ_SLAB_H
#define DZ_SLAB_H

#include <stdbool.h>
#include <stddef.h>

struct slab {
  size_t node_bytes;
  struct slab_node *free; /* a list through the free nodes */
  size_t free_count;
  char *fresh; /* nodes of the last page that nobody has had yet */
  size_t fresh_count;
  size_t kept; /* free nodes that are reserved */
  struct slab_page *pages;
  size_t page_bytes; /* of all pages */
};

void dz_slab_init(struct slab *slab, size_t node_bytes);
void dz_slab_end(struct slab *slab);

/* A zeroed node; NULL: no memory. Leaves the reserved nodes alone. */
void *dz_slab_take(struct slab *slab);

/* Sees to it that count more nodes can be taken by dz_slab_take_reserved(); false: no memory, nothing reserved. */
bool dz_slab_reserve(struct slab *slab, size_t count);

/* A zeroed node out of the reserved ones: cannot fail. */
void *dz_slab_take_reserved(struct slab *slab);

void dz_slab_give(struct slab *slab, void *node);

#endif
