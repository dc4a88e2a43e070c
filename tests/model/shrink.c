/* SPDX-License-Identifier: Apache-2.0
 *
 * Makes a sequence that fails shorter: takes steps out, half of them at a time, then a quarter, down to single ones, as long as
 * it still fails; then makes the numbers of those that are left small.
 */
#include <stdlib.h>
#include <string.h>

#include "model/model.h"

struct shrinker {
  struct sequence *sequence;
  bool (*fails)(void *context, const struct sequence *sequence);
  void *context;
};

static void keep(struct sequence *sequence, const struct sequence *smaller) {
  memcpy(sequence->bytes, smaller->bytes, smaller->size);
  sequence->size = smaller->size;
}

/* Without so many steps from one on. */
static bool take_out(const struct shrinker *shrinker, size_t first, size_t count) {
  struct sequence *sequence = shrinker->sequence;
  const size_t from = HEAD_BYTES + first * STEP_BYTES, to = from + count * STEP_BYTES;
  struct sequence smaller = {.bytes = malloc(sequence->size), .size = sequence->size - (to - from)};
  if (smaller.bytes == NULL) abort();
  memcpy(smaller.bytes, sequence->bytes, from);
  memcpy(smaller.bytes + from, sequence->bytes + to, sequence->size - to);
  bool fails = shrinker->fails(shrinker->context, &smaller);
  if (fails) keep(sequence, &smaller);
  free(smaller.bytes);
  return fails;
}

/* Whether any could be taken out. From the end: what comes late needs what came before. */
static bool take_out_pieces(const struct shrinker *shrinker, size_t count) {
  bool any = false;
  for (size_t first = sequence_steps(shrinker->sequence); first > 0;) {
    size_t piece = first < count ? first : count;
    first -= piece;
    any |= take_out(shrinker, first, piece);
  }
  return any;
}

static void make_small(const struct shrinker *shrinker, unsigned char *byte) {
  const unsigned char before = *byte;
  for (unsigned char smaller = 0; smaller < before; smaller = (unsigned char)(smaller == 0 ? (before + 1) / 2 : before)) {
    *byte = smaller;
    if (shrinker->fails(shrinker->context, shrinker->sequence)) return;
  }
  *byte = before;
}

void shrink(struct sequence *sequence, bool (*fails)(void *context, const struct sequence *sequence), void *context) {
  const struct shrinker shrinker = {sequence, fails, context};
  for (size_t count = (sequence_steps(sequence) + 1) / 2; count > 1; count /= 2) (void)take_out_pieces(&shrinker, count);
  while (take_out_pieces(&shrinker, 1)) continue;
  for (size_t at = HEAD_BYTES; at < sequence->size; at++) {
    if ((at - HEAD_BYTES) % STEP_BYTES > 1) make_small(&shrinker, &sequence->bytes[at]); /* thread and kind are what they are */
  }
}
