/* SPDX-License-Identifier: Apache-2.0
 *
 * Nodes of one size. Pages are mapped 256 KiB at a time and chained through their first bytes.
 */
#include "core/slab.h"

#include <assert.h>
#include <string.h>
#include <sys/mman.h>

enum { PAGE_BYTES = 256 * 1024, PAGE_HEADER_BYTES = 64 };

struct slab_node {
  struct slab_node *next;
};

struct slab_page {
  struct slab_page *next;
};

void dz_slab_init(struct slab *slab, size_t node_bytes) {
  *slab = (struct slab){.node_bytes = (node_bytes + 15) & ~(size_t)15};
}

void dz_slab_end(struct slab *slab) {
  for (struct slab_page *page = slab->pages; page != NULL;) {
    struct slab_page *next = page->next;
    (void)munmap(page, PAGE_BYTES);
    page = next;
  }
  *slab = (struct slab){.node_bytes = slab->node_bytes};
}

static void push(struct slab *slab, void *node) {
  struct slab_node *free_node = node;
  free_node->next = slab->free;
  slab->free = free_node;
  slab->free_count++;
}

static bool grow(struct slab *slab) {
  void *memory = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return false;
  struct slab_page *page = memory;
  page->next = slab->pages;
  slab->pages = page;
  slab->page_bytes += PAGE_BYTES;
  /* Fewer than were promised are left of the page before: they go to the list. */
  for (; slab->fresh_count > 0; slab->fresh_count--, slab->fresh += slab->node_bytes) push(slab, slab->fresh);
  slab->fresh = (char *)memory + PAGE_HEADER_BYTES;
  slab->fresh_count = (PAGE_BYTES - PAGE_HEADER_BYTES) / slab->node_bytes;
  return true;
}

/* Nodes of a new page are not touched before they are needed, and are zero. */
static void *pop(struct slab *slab) {
  struct slab_node *node = slab->free;
  if (node != NULL) {
    slab->free = node->next;
    slab->free_count--;
    return memset(node, 0, slab->node_bytes);
  }
  void *fresh = slab->fresh;
  slab->fresh += slab->node_bytes;
  slab->fresh_count--;
  return fresh;
}

static size_t at_hand(const struct slab *slab) {
  return slab->free_count + slab->fresh_count;
}

void *dz_slab_take(struct slab *slab) {
  if (at_hand(slab) <= slab->kept && !grow(slab)) return NULL;
  return pop(slab);
}

bool dz_slab_reserve(struct slab *slab, size_t count) {
  while (at_hand(slab) < slab->kept + count) {
    if (!grow(slab)) return false;
  }
  slab->kept += count;
  return true;
}

void *dz_slab_take_reserved(struct slab *slab) {
  assert(slab->kept > 0 && at_hand(slab) >= slab->kept);
  slab->kept--;
  return pop(slab);
}

void dz_slab_give(struct slab *slab, void *node) {
  push(slab, node);
}
