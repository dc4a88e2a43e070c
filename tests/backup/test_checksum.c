/* SPDX-License-Identifier: Apache-2.0
 *
 * Checksums: pieces of all sizes side by side, each with a checksum of its own, and every bit of them counts.
 */
#include "backup/checksum.h"

#include <string.h>

#include "harness.h"

#define MIB (UINT64_C(1) << 20)

enum { FILE_BYTES = 16 << 20, PIECES = FILE_BYTES / DZ_FILE_ALIGN };

static struct piece { uint64_t offset, bytes; } pieces[PIECES];

static unsigned char memory[DZ_FILE_PIECE];

static uint64_t next_random(uint64_t *state) {
  *state = *state * UINT64_C(6364136223846793005) + 1;
  return *state >> 33;
}

/* Cuts the file into pieces; a size of 0 is drawn, of every order of magnitude as often. */
static unsigned cut(uint64_t size, uint64_t *state) {
  unsigned count = 0;
  for (uint64_t offset = 0, bytes; offset < FILE_BYTES; count++) {
    bytes = size != 0 ? size : 1 + next_random(state) % (DZ_FILE_PIECE >> next_random(state) % 23);
    if (bytes > FILE_BYTES - offset) bytes = FILE_BYTES - offset;
    pieces[count] = (struct piece){offset, bytes};
    offset += (bytes + DZ_FILE_ALIGN - 1) / DZ_FILE_ALIGN * DZ_FILE_ALIGN;
  }
  return count;
}

/* A piece's contents are its number: two that share a place for their checksums cannot both match. */
static void number(unsigned i) {
  memcpy(memory, &i, sizeof i);
}

static void ck_each_has_its_own(uint64_t size, uint64_t *state) {
  struct checksums checksums;
  unsigned count = cut(size, state);
  ck_assert(dz_checksums_init(&checksums, FILE_BYTES));
  for (unsigned i = 0; i < count; i++) {
    number(i);
    dz_checksums_note(&checksums, pieces[i].offset, memory, pieces[i].bytes);
  }
  for (unsigned i = 0; i < count; i++) {
    number(i);
    if (!dz_checksums_match(&checksums, pieces[i].offset, memory, pieces[i].bytes)) ck_abort_msg("piece %u of %u", i, count);
  }
  dz_checksums_end(&checksums);
}

START_TEST(pieces_have_checksums_of_their_own) {
  static const uint64_t sizes[] = {4096, 8192,       12288,   5 * 4096,          65536,
                                   MIB,  MIB + 4096, 2 * MIB, DZ_FILE_PIECE - 1, DZ_FILE_PIECE};
  uint64_t state = 1;
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) ck_each_has_its_own(sizes[i], &state);
  for (int round = 0; round < 4; round++) ck_each_has_its_own(0, &state);
}
END_TEST

/* The first piece begins one unit further than a multiple of its size, and the last ends where the file does. */
START_TEST(pieces_may_begin_anywhere) {
  struct checksums checksums;
  const uint64_t bytes = 4096 + 2 * (uint64_t)DZ_FILE_PIECE;
  ck_assert(dz_checksums_init(&checksums, bytes));
  for (unsigned i = 0; i < 3; i++) {
    number(i);
    dz_checksums_note(&checksums, i == 0 ? 0 : 4096 + (i - 1) * (uint64_t)DZ_FILE_PIECE, memory, i == 0 ? 1 : DZ_FILE_PIECE);
  }
  for (unsigned i = 0; i < 3; i++) {
    number(i);
    ck_assert(dz_checksums_match(&checksums, i == 0 ? 0 : 4096 + (i - 1) * (uint64_t)DZ_FILE_PIECE, memory,
                                 i == 0 ? 1 : DZ_FILE_PIECE));
  }
  dz_checksums_end(&checksums);
}
END_TEST

START_TEST(every_bit_counts) {
  static const uint64_t sizes[] = {1, 3, 17, 255, 4096, 4097, 1000003};
  struct checksums checksums;
  ck_assert(dz_checksums_init(&checksums, 2 * MIB));
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    uint64_t step = sizes[i] < 4096 ? 1 : sizes[i] / 1009;
    dz_checksums_note(&checksums, 4096, memory, sizes[i]);
    for (uint64_t at = 0; at < sizes[i]; at += step) {
      memory[at] ^= (unsigned char)(1u << at % 8);
      if (dz_checksums_match(&checksums, 4096, memory, sizes[i])) ck_abort_msg("byte %llu", (unsigned long long)at);
      memory[at] ^= (unsigned char)(1u << at % 8);
    }
    ck_assert(dz_checksums_match(&checksums, 4096, memory, sizes[i]));
  }
  dz_checksums_end(&checksums);
}
END_TEST

START_TEST(what_is_behind_a_piece_does_not_count) {
  struct checksums checksums;
  ck_assert(dz_checksums_init(&checksums, 4096));
  dz_checksums_note(&checksums, 0, memory, 100);
  memory[100] ^= 1;
  ck_assert(dz_checksums_match(&checksums, 0, memory, 100));
  memory[100] ^= 1;
  dz_checksums_end(&checksums);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("checksum");
  HARNESS_TEST(suite, pieces_have_checksums_of_their_own);
  HARNESS_TEST(suite, pieces_may_begin_anywhere);
  HARNESS_TEST(suite, every_bit_counts);
  HARNESS_TEST(suite, what_is_behind_a_piece_does_not_count);
  return harness_run(suite);
}
