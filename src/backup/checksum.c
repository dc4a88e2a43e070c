/* SPDX-License-Identifier: Apache-2.0
 *
 * Checksums: XXH3, 64 bits wide, 18 GiB/s on one core of 2023 as compilers build it without being told of the processor.
 *
 * Where pieces lie is known only when they are written, but the room for their checksums is taken before. So there is a table for
 * each power of two of units: a piece of [2^k, 2^(k+1)) units is noted in table k under its first unit / 2^k, and the next one of
 * that size begins at least 2^k units further. Of the tables, which have room for pieces of every size everywhere, memory is used
 * only where something is noted: 8 bytes a piece.
 */
#include "backup/checksum.h"

#include <assert.h>
#include <stddef.h>
#include <stdlib.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { TABLES = 11 };
_Static_assert(DZ_FILE_PIECE / DZ_FILE_ALIGN == 1 << (TABLES - 1), "a whole piece is noted in the last table");

/* Of table k. */
static uint64_t entries(uint64_t units, unsigned k) {
  return (units >> k) + 1;
}

bool dz_checksums_init(struct checksums *checksums, uint64_t bytes) {
  uint64_t count = 0;
  checksums->units = bytes / DZ_FILE_ALIGN + (bytes % DZ_FILE_ALIGN != 0);
  for (unsigned k = 0; k < TABLES; k++) count += entries(checksums->units, k);
  checksums->table = count > SIZE_MAX / sizeof *checksums->table ? NULL : calloc(count, sizeof *checksums->table);
  return checksums->table != NULL;
}

void dz_checksums_end(struct checksums *checksums) {
  free(checksums->table);
}

static uint64_t *entry_of(const struct checksums *checksums, uint64_t offset, uint64_t bytes) {
  uint64_t units = (bytes + DZ_FILE_ALIGN - 1) / DZ_FILE_ALIGN, first = offset / DZ_FILE_ALIGN;
  assert(offset % DZ_FILE_ALIGN == 0 && bytes > 0 && bytes <= DZ_FILE_PIECE && first + units <= checksums->units);
  uint64_t *table = checksums->table;
  unsigned k = 0;
  for (; units >> k > 1; k++) table += entries(checksums->units, k);
  return table + (first >> k);
}

void dz_checksums_note(struct checksums *checksums, uint64_t offset, const void *memory, uint64_t bytes) {
  *entry_of(checksums, offset, bytes) = XXH3_64bits(memory, bytes);
}

bool dz_checksums_match(const struct checksums *checksums, uint64_t offset, const void *memory, uint64_t bytes) {
  return *entry_of(checksums, offset, bytes) == XXH3_64bits(memory, bytes);
}
