/* SPDX-License-Identifier: Apache-2.0
 *
 * Ranges and bins.
 */
#include "core/range.h"

#include <assert.h>

enum { STEP_BITS = 4, LOOK_AT = 16 };

struct bin {
  unsigned class, step;
};

/* The bin that a range of that size lives in. Sizes below 16 units have a bin each, in class 0. */
static struct bin bin_of(uint64_t bytes) {
  uint64_t units = bytes / DZ_UNIT;
  if (units < DZ_BIN_STEPS) return (struct bin){0, (unsigned)units};
  unsigned log = 63u - (unsigned)__builtin_clzll(units);
  struct bin bin = {log - STEP_BITS + 1, (unsigned)(units >> (log - STEP_BITS)) & (DZ_BIN_STEPS - 1)};
  return bin.class < DZ_BIN_CLASSES ? bin : (struct bin) { DZ_BIN_CLASSES - 1, DZ_BIN_STEPS - 1 };
}

void dz_bins_put(struct bins *bins, struct range *range) {
  assert(range->bin_before == NULL);
  struct bin bin = bin_of(range->bytes);
  struct range **head = &bins->heads[bin.class][bin.step];
  range->bin_next = *head;
  range->bin_before = head;
  if (*head != NULL) (*head)->bin_before = &range->bin_next;
  *head = range;
  bins->classes |= UINT64_C(1) << bin.class;
  bins->steps[bin.class] |= (uint16_t)(1u << bin.step);
}

void dz_bins_drop(struct bins *bins, struct range *range) {
  assert(range->bin_before != NULL);
  *range->bin_before = range->bin_next;
  if (range->bin_next != NULL) range->bin_next->bin_before = range->bin_before;
  range->bin_before = NULL;
  range->bin_next = NULL;
  struct bin bin = bin_of(range->bytes);
  if (bins->heads[bin.class][bin.step] != NULL) return;
  bins->steps[bin.class] &= (uint16_t) ~(1u << bin.step);
  if (bins->steps[bin.class] == 0) bins->classes &= ~(UINT64_C(1) << bin.class);
}

/* The tightest of the first few of a bin that are large enough. */
static struct range *find_in_bin(const struct bins *bins, struct bin bin, uint64_t bytes, size_t few) {
  struct range *best = NULL;
  struct range *range = bins->heads[bin.class][bin.step];
  for (size_t looked = 0; range != NULL && looked < few; range = range->bin_next, looked++) {
    if (range->bytes >= bytes && (best == NULL || range->bytes < best->bytes)) best = range;
  }
  return best;
}

/* The first bin behind bin that has something: all in it are large enough. */
static bool find_larger_bin(const struct bins *bins, struct bin *bin) {
  unsigned steps = bins->steps[bin->class] & (0xfffeu << bin->step) & 0xffffu;
  if (steps == 0) {
    uint64_t classes = bins->classes & ~UINT64_C(1) << bin->class;
    if (classes == 0) return false;
    bin->class = (unsigned)__builtin_ctzll(classes);
    steps = bins->steps[bin->class];
  }
  bin->step = (unsigned)__builtin_ctz(steps);
  return true;
}

struct range *dz_bins_find(const struct bins *bins, uint64_t bytes) {
  struct bin bin = bin_of(bytes);
  struct bin own = bin;
  struct range *range = find_in_bin(bins, bin, bytes, LOOK_AT);
  if (range != NULL) return range;
  if (find_larger_bin(bins, &bin)) return find_in_bin(bins, bin, bytes, LOOK_AT);
  /* Before whoever asks goes to greater lengths, all of the bin are looked at. */
  return find_in_bin(bins, own, bytes, SIZE_MAX);
}

static struct range *first_behind(const struct bins *bins, struct bin bin) {
  return find_larger_bin(bins, &bin) ? bins->heads[bin.class][bin.step] : NULL;
}

struct range *dz_bins_first(const struct bins *bins, uint64_t bytes) {
  struct bin bin = bin_of(bytes);
  struct range *head = bins->heads[bin.class][bin.step];
  return head != NULL ? head : first_behind(bins, bin);
}

struct range *dz_bins_after(const struct bins *bins, const struct range *range) {
  return range->bin_next != NULL ? range->bin_next : first_behind(bins, bin_of(range->bytes));
}

uint64_t dz_bins_largest(const struct bins *bins) {
  uint64_t largest = 0;
  if (bins->classes == 0) return 0;
  unsigned class = 63u - (unsigned)__builtin_clzll(bins->classes);
  unsigned step = 31u - (unsigned)__builtin_clz((unsigned)bins->steps[class]);
  for (const struct range *range = bins->heads[class][step]; range != NULL; range = range->bin_next) {
    if (range->bytes > largest) largest = range->bytes;
  }
  return largest;
}

void dz_range_split(struct range *range, uint64_t address, struct range *rest) {
  assert(range->bin_before == NULL && rest->bin_before == NULL);
  assert(address > range->base && address < dz_range_end(range));
  rest->base = address;
  rest->bytes = dz_range_end(range) - address;
  range->bytes = address - range->base;
  rest->before = range;
  rest->after = range->after;
  if (rest->after != NULL) rest->after->before = rest;
  range->after = rest;
}

void dz_range_join(struct range *kept, struct range *gone) {
  assert(kept->bin_before == NULL && gone->bin_before == NULL);
  assert(kept->after == gone && dz_range_end(kept) == gone->base);
  kept->bytes += gone->bytes;
  kept->after = gone->after;
  if (kept->after != NULL) kept->after->before = kept;
}
