/* SPDX-License-Identifier: Apache-2.0
 *
 * Ranges of addresses, and bins that find a free one of a size in constant time. Metadata only: nothing here touches the memory
 * itself, so it serves device addresses (heap) and pinned host memory (backup) alike.
 *
 * The ranges of one span form a list in address order that covers it without gaps; the owner says what a range's state means.
 * Sizes are multiples of DZ_UNIT.
 *
 * Bins: a size class is a power of two, cut into 16 (two-level segregated fit, Masmano et al. 2004). Bitmaps tell which bins have
 * something, so a search is two bit scans; it looks through a few of the wanted size's own bin first, where the fit is tightest,
 * and through the whole of it only when nothing larger is left.
 */
#ifndef DZ_RANGE_H
#define DZ_RANGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DZ_UNIT UINT64_C(512)

struct range {
  uint64_t base, bytes;
  struct range *before, *after;         /* neighbours in the span, in address order */
  struct range *bin_next, **bin_before; /* in a bin: the next one, and what points here; bin_before NULL: in no bin */
};

/* Room for 2^38 units = 128 TiB; larger ranges share the last bin. */
enum { DZ_BIN_CLASSES = 36, DZ_BIN_STEPS = 16 };

struct bins {
  uint64_t classes;               /* bit c: class c has something */
  uint16_t steps[DZ_BIN_CLASSES]; /* bit s: the bin [c][s] has something */
  struct range *heads[DZ_BIN_CLASSES][DZ_BIN_STEPS];
};

static inline uint64_t dz_round_up(uint64_t value, uint64_t power_of_two) {
  return (value + power_of_two - 1) & ~(power_of_two - 1);
}

static inline uint64_t dz_round_down(uint64_t value, uint64_t power_of_two) {
  return value & ~(power_of_two - 1);
}

static inline uint64_t dz_range_end(const struct range *range) {
  return range->base + range->bytes;
}

/* Puts a range that is in no bin into its bin; takes one out of the bin it is in. */
void dz_bins_put(struct bins *bins, struct range *range);
void dz_bins_drop(struct bins *bins, struct range *range);

/* A range of at least bytes, still in its bin; NULL: none. */
struct range *dz_bins_find(const struct bins *bins, uint64_t bytes);

/* All ranges that are of the same bin as bytes, or larger, one by one; NULL: no more. The size of the largest; 0: none. */
struct range *dz_bins_first(const struct bins *bins, uint64_t bytes);
struct range *dz_bins_after(const struct bins *bins, const struct range *range);
uint64_t dz_bins_largest(const struct bins *bins);

/* Cuts range at address, which lies inside it: range keeps what is below, rest becomes what is above. Neither may be in a bin. */
void dz_range_split(struct range *range, uint64_t address, struct range *rest);

/* Adds gone, the range after kept, to kept. Neither may be in a bin; gone is the caller's to give back. */
void dz_range_join(struct range *kept, struct range *gone);

#endif
