/* SPDX-License-Identifier: Apache-2.0
 *
 * Sequences and their steps.
 */
#include <stdlib.h>

#include "model/model.h"

bool model_faults;

const struct kind model_kinds[] = {
    {"alloc", step_alloc, 6, false},
    {"alloc with", step_alloc_with, 12, false},
    {"alloc odd", step_alloc_odd, 1, false},
    {"free", step_free, 8, false},
    {"free on", step_free_on, 3, false},
    {"free odd", step_free_odd, 1, false},
    {"record stream", step_record, 3, false},
    {"retire stream", step_retire, 1, false},
    {"clear", step_clear, 1, false},
    {"trim", step_trim, 2, false},
    {"write", step_write, 8, false},
    {"read", step_read, 8, false},
    {"use", step_use, 6, false},
    {"sleep", step_sleep, 10, false},
    {"wake", step_wake, 10, false},
    {"sleep odd", step_sleep_odd, 1, false},
    {"wait", step_op_wait, 5, false},
    {"look at an operation", step_op_look, 1, false},
    {"cancel", step_op_cancel, 2, false},
    {"release", step_op_release, 1, false},
    {"hold", step_hold, 3, false},
    {"unhold", step_unhold, 4, false},
    {"seal", step_seal, 4, false},
    {"reserve", step_reserve, 1, false},
    {"trim backups", step_backup_trim, 2, false},
    {"tenant", step_tenant, 2, true},
    {"stats", step_stats, 3, false},
    {"tags", step_tags, 1, false},
    {"wait for a tag", step_tag_wait, 2, false},
    {"block", step_block, 2, false},
    {"look", step_look, 1, false},
    {"enter", step_enter, 6, false},
    {"leave", step_leave, 4, false},
    {"mark", step_mark, 2, false},
    {"unwind", step_unwind, 2, false},
    {"jump", step_jump, 1, false},
    {"stack", step_stack, 2, false},
    {"swap", step_swap, 3, false},
    {"framework", step_framework, 1, true},
    {"a hook fails", step_hook_fails, 1, true},
    {"reopen", step_reopen, 1, true},
    {"fault", step_fault, 30, true},
};
const unsigned model_kind_count = sizeof model_kinds / sizeof *model_kinds;

/* ---- reading */

struct setting sequence_setting(const struct sequence *sequence) {
  unsigned head = sequence->size == 0 ? 0 : sequence->bytes[0];
  struct setting setting = {
      .threads = 1 + head % THREADS_MOST,
      .limited = (head & 8) != 0,
      .discrete = (head & 16) != 0,
      .presses = (head & 32) != 0,
      .abrupt = (head & 64) != 0,
  };
  return setting;
}

size_t sequence_steps(const struct sequence *sequence) {
  return sequence->size < HEAD_BYTES ? 0 : (sequence->size - HEAD_BYTES) / STEP_BYTES;
}

struct step sequence_step(const struct sequence *sequence, size_t number) {
  const unsigned char *at = sequence->bytes + HEAD_BYTES + number * STEP_BYTES;
  return (struct step){at[0] % sequence_setting(sequence).threads, at[1] % model_kind_count, at[2], at[3], at[4]};
}

/* ---- making */

uint64_t next_random(uint64_t *state) {
  uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
  z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
  return z ^ z >> 31;
}

static unsigned weight_of(const struct kind *kind, unsigned threads) {
  bool fits = threads == 1 || !kind->alone;
  return !fits || (kind->run == step_fault && !model_faults) ? 0 : kind->weight;
}

static unsigned char choose_kind(uint64_t *state, unsigned threads) {
  unsigned sum = 0, kind = 0;
  for (unsigned i = 0; i < model_kind_count; i++) sum += weight_of(&model_kinds[i], threads);
  for (unsigned left = (unsigned)(next_random(state) % sum); left >= weight_of(&model_kinds[kind], threads); kind++)
    left -= weight_of(&model_kinds[kind], threads);
  return (unsigned char)kind;
}

struct sequence sequence_make(uint64_t seed, unsigned threads, size_t steps) {
  struct sequence made = {.size = HEAD_BYTES + steps * STEP_BYTES};
  uint64_t state = seed;
  made.bytes = malloc(made.size);
  if (made.bytes == NULL) abort();
  do made.bytes[0] = (unsigned char)next_random(&state);
  while (sequence_setting(&made).threads != threads);
  for (size_t at = HEAD_BYTES; at < made.size; at += STEP_BYTES) {
    for (size_t i = 0; i < STEP_BYTES; i++) made.bytes[at + i] = (unsigned char)next_random(&state);
    made.bytes[at + 1] = choose_kind(&state, threads);
  }
  return made;
}
