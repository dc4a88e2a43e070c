/* SPDX-License-Identifier: Apache-2.0
 *
 * Pages that are to be pinned: mapping them, having the kernel give them, and which of them are huge.
 */
#ifndef DZ_PAGES_H
#define DZ_PAGES_H

#include <stdint.h>

/* Of x86-64, and of arm64 with pages of 4 KiB. Where huge pages are larger the kernel gives small ones. */
#define DZ_HUGE_PAGE_BYTES (UINT64_C(2) << 20)

uint64_t dz_page_bytes(void);

/* bytes rounded up to pages; down if there are not so many addresses. */
uint64_t dz_pages_round(uint64_t bytes);

/* Maps whole pages, private and untouched: huge ones are asked for, on that NUMA node (-1: on any), and no forked child gets
 * them. 0, or errno. */
int dz_pages_map(uint64_t bytes, int numa_node, uint64_t *base);
int dz_pages_unmap(uint64_t base, uint64_t bytes);

/* Has the kernel give every page now, while it can still say no. 0, or errno: ENOMEM, EFAULT, EHWPOISON. */
int dz_pages_touch(uint64_t base, uint64_t bytes);

/* No huge pages are looked for there from now on. */
void dz_pages_want_small(uint64_t base, uint64_t bytes);

/* How many of the bytes, which have been touched, are in huge pages. The kernel is asked (PAGEMAP_SCAN, since 6.7). An older one
 * is believed to have given what it was asked for, if it is set to give huge pages at all: asking it, by smaps, takes as long as
 * touching does. */
uint64_t dz_pages_huge(uint64_t base, uint64_t bytes);

/* Most that could be: the whole huge pages that lie in there. */
uint64_t dz_pages_huge_most(uint64_t base, uint64_t bytes);

#endif
