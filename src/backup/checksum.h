/* SPDX-License-Identifier: Apache-2.0
 *
 * The checksums of the pieces of a file, kept in memory, so that what comes back is known to be what went.
 */
#ifndef DZ_CHECKSUM_H
#define DZ_CHECKSUM_H

#include <stdbool.h>
#include <stdint.h>

/* Pieces begin at multiples of the first, and are of at most the second. */
enum { DZ_FILE_ALIGN = 4096, DZ_FILE_PIECE = 4 << 20 };

struct checksums {
  uint64_t units;  /* of DZ_FILE_ALIGN bytes */
  uint64_t *table; /* see checksum.c */
};

/* For the pieces of bytes bytes; false: no memory. Nothing fails later. */
bool dz_checksums_init(struct checksums *checksums, uint64_t bytes);
void dz_checksums_end(struct checksums *checksums);

/* Notes what a piece is, or tells whether it still is that. Pieces do not overlap. One piece is one thread's at a time. */
void dz_checksums_note(struct checksums *checksums, uint64_t offset, const void *memory, uint64_t bytes);
bool dz_checksums_match(const struct checksums *checksums, uint64_t offset, const void *memory, uint64_t bytes);

#endif
