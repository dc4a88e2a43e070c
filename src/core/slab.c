/* SPDX-License-Identifier: Apache-2.0
 *
 * Nodes of one size. Pages are mapped 256 KiB at a time and chained through their first bytes; huge ones where there are many, so
 * that a walk from node to node does not miss the processor's table of pages with each step.
 */
#include "core/slab.h"

#include <assert.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

enum { PAGE_BYTES = 256 * 1024, HUGE_BYTES = 2 * 1024 * 1024, PAGE_HEADER_BYTES = 128 };

struct slab_node {
  struct slab_node *next;
};

struct slab_page {
  struct slab_page *next;
  size_t bytes;
};

void dz_slab_init(struct slab *slab, size_t node_bytes) {
  *slab = (struct slab){.node_bytes = (node_bytes + 15) & ~(size_t)15};
}

void dz_slab_end(struct slab *slab) {
  for (struct slab_page *page = slab->pages; page != NULL;) {
    struct slab_page *next = page->next;
    (void)munmap(page, page->bytes);
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

static void *map(size_t bytes) {
  void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return memory == MAP_FAILED ? NULL : memory;
}

/* Aligned to its size, and huge if the system has huge pages for those who ask. */
static void *map_huge(void) {
  char *memory = map(2 * (size_t)HUGE_BYTES);
  if (memory == NULL) return NULL;
  size_t below = -(uintptr_t)memory & (HUGE_BYTES - 1);
  if (below > 0) (void)munmap(memory, below);
  (void)munmap(memory + below + HUGE_BYTES, HUGE_BYTES - below);
  (void)madvise(memory + below, HUGE_BYTES, MADV_HUGEPAGE);
  return memory + below;
}

static struct slab_page *make_page(const struct slab *slab) {
  struct slab_page *page = NULL;
  if (slab->page_bytes >= HUGE_BYTES && (page = map_huge()) != NULL) {
    page->bytes = HUGE_BYTES;
  } else if ((page = map(PAGE_BYTES)) != NULL) {
    page->bytes = PAGE_BYTES;
  }
  return page;
}

static bool grow(struct slab *slab) {
  struct slab_page *page = make_page(slab);
  if (page == NULL) return false;
  page->next = slab->pages;
  slab->pages = page;
  slab->page_bytes += page->bytes;
  /* Fewer than were promised are left of the page before: they go to the list. */
  for (; slab->fresh_count > 0; slab->fresh_count--, slab->fresh += slab->node_bytes) push(slab, slab->fresh);
  slab->fresh = (char *)page + PAGE_HEADER_BYTES;
  slab->fresh_count = (page->bytes - PAGE_HEADER_BYTES) / slab->node_bytes;
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
