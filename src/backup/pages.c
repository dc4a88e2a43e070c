/* SPDX-License-Identifier: Apache-2.0
 *
 * Pages that are to be pinned.
 */
#include "backup/pages.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/mempolicy.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/range.h"

uint64_t dz_page_bytes(void) {
  return (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t dz_pages_round(uint64_t bytes) {
  uint64_t page = dz_page_bytes();
  return bytes > UINT64_MAX - page ? dz_round_down(bytes, page) : dz_round_up(bytes, page);
}

static void *address(uint64_t base) {
  return (void *)(uintptr_t)base;
}

/* ---- mapping */

/* A wish: pages of another node serve as well, only more slowly. There is no wrapper for this call in libc. */
static void prefer_node(uint64_t base, uint64_t bytes, int node) {
  unsigned long nodes[16] = {0};
  const unsigned bits = sizeof *nodes * CHAR_BIT, most = sizeof nodes * CHAR_BIT;
  if (node < 0 || (unsigned)node >= most) return;
  nodes[(unsigned)node / bits] = 1ul << ((unsigned)node % bits);
  (void)syscall(SYS_mbind, address(base), bytes, MPOL_PREFERRED, nodes, (unsigned long)most + 1, 0);
}

/* Begins at a huge page, so that as many as possible fit in. */
static int map_aligned(uint64_t bytes, uint64_t *base) {
  const uint64_t align = DZ_HUGE_PAGE_BYTES;
  if (bytes > SIZE_MAX - align) return ENOMEM;
  void *memory = mmap(NULL, bytes + align, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return errno;
  uint64_t at = (uint64_t)(uintptr_t)memory, below = dz_round_up(at, align) - at;
  if (below > 0) (void)munmap(memory, below);
  if (below < align) (void)munmap(address(at + below + bytes), align - below);
  *base = at + below;
  return 0;
}

/* Hidden from children before anything is pinned: a fork would copy every pinned page. */
int dz_pages_map(uint64_t bytes, int numa_node, uint64_t *base) {
  int code = map_aligned(bytes, base);
  if (code != 0) return code;
  if (madvise(address(*base), bytes, MADV_DONTFORK) != 0) {
    code = errno;
    (void)munmap(address(*base), bytes);
    return code;
  }
  (void)madvise(address(*base), bytes, MADV_HUGEPAGE); /* a wish: a kernel without huge pages gives small ones */
  prefer_node(*base, bytes, numa_node);
  return 0;
}

int dz_pages_unmap(uint64_t base, uint64_t bytes) {
  return munmap(address(base), bytes) == 0 ? 0 : errno;
}

/* ---- touching */

static void write_to(uint64_t base) {
  *(volatile char *)address(base) = 0;
}

/* A write brings a whole huge page, without the lock that the request takes: with many threads a quarter faster. The request then
 * brings small pages where there were no huge ones, and can say no. Kernels before 5.14 do not know it: there each page is
 * written to. */
int dz_pages_touch(uint64_t base, uint64_t bytes) {
  for (uint64_t at = dz_round_up(base, DZ_HUGE_PAGE_BYTES); at < base + bytes; at += DZ_HUGE_PAGE_BYTES) write_to(at);
#ifdef MADV_POPULATE_WRITE
  int code;
  do {
    code = madvise(address(base), bytes, MADV_POPULATE_WRITE) == 0 ? 0 : errno;
  } while (code == EINTR || code == EAGAIN);
  if (code != EINVAL) return code;
#endif
  const uint64_t page = dz_page_bytes();
  for (uint64_t at = base; at < base + bytes; at += page) write_to(at);
  return 0;
}

void dz_pages_want_small(uint64_t base, uint64_t bytes) {
  (void)madvise(address(base), bytes, MADV_NOHUGEPAGE);
}

/* ---- huge pages. What linux/fs.h has of it is written down here, for older headers. */

struct scan {
  uint64_t size, flags, start, end, walk_end, regions, region_count, most_pages;
  uint64_t inverted, all_of, any_of, returned; /* kinds of pages */
};

struct region {
  uint64_t start, end, kinds;
};

static const unsigned long scan_request = _IOWR('f', 16, struct scan);
static const uint64_t kind_huge = 1 << 6;

/* false: this kernel cannot tell. */
static bool scan_huge(uint64_t base, uint64_t bytes, uint64_t *huge) {
  enum { REGIONS = 64 };
  struct region regions[REGIONS] = {{0, 0, 0}};
  struct scan scan = {.size = sizeof scan, .start = base, .end = base + bytes, .all_of = kind_huge, .returned = kind_huge};
  int file = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC), count = file < 0 ? -1 : 0;
  *huge = 0;
  while (count >= 0 && scan.start < scan.end) {
    scan.regions = (uint64_t)(uintptr_t)regions;
    scan.region_count = REGIONS;
    count = ioctl(file, scan_request, &scan);
    for (int i = 0; i < count; i++) *huge += regions[i].end - regions[i].start;
    if (count >= 0 && scan.walk_end <= scan.start) count = -1; /* it did not get on */
    scan.start = scan.walk_end;
  }
  if (file >= 0) (void)close(file);
  return count >= 0;
}

/* "always [madvise] never" */
static bool are_enabled(void) {
  char text[64];
  int file = open("/sys/kernel/mm/transparent_hugepage/enabled", O_RDONLY | O_CLOEXEC);
  if (file < 0) return false;
  ssize_t length = read(file, text, sizeof text - 1);
  (void)close(file);
  if (length < 0) return false;
  text[length] = '\0';
  return strstr(text, "[never]") == NULL;
}

uint64_t dz_pages_huge_most(uint64_t base, uint64_t bytes) {
  uint64_t first = dz_round_up(base, DZ_HUGE_PAGE_BYTES), end = dz_round_down(base + bytes, DZ_HUGE_PAGE_BYTES);
  return end > first ? end - first : 0;
}

uint64_t dz_pages_huge(uint64_t base, uint64_t bytes) {
  uint64_t huge;
  if (scan_huge(base, bytes, &huge)) return huge;
  return are_enabled() ? dz_pages_huge_most(base, bytes) : 0;
}
