/* SPDX-License-Identifier: Apache-2.0
 *
 * Sequences from seeds, each in a process of its own. What fails is made shorter, and told: its seed, the steps that are left
 * with what came of each, and how to run it again.
 *
 *   tests/model/test_model                                 a few of each kind, as make check does
 *   DROWSE_MODEL_RUNS=500 tests/model/test_model           so many of each kind
 *   DROWSE_MODEL_SECONDS=600 tests/model/test_model        new ones for so long (./dev deep)
 *   DROWSE_MODEL_SEED=threads:7 tests/model/test_model     one of them, and what it did
 *   DROWSE_MODEL_FILE=PATH tests/model/test_model          a sequence in a file: what has been shrunk, what a fuzzer has found
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "harness.h"
#include "model/model.h"

/* ---- kinds of sequences */

static const struct suit {
  const char *name;
  unsigned threads_least, threads_most;
  bool faults;
  size_t steps;
} suits[] = {
    {"alone", 1, 1, false, 250},
    {"threads", 2, THREADS_MOST, false, 300},
    {"faults", 1, 1, true, 250},
};
enum { SUITS = sizeof suits / sizeof *suits };

static struct sequence make(const struct suit *suit, uint64_t seed) {
  model_faults = suit->faults;
  return sequence_make(seed, suit->threads_least + (unsigned)(seed % (suit->threads_most - suit->threads_least + 1)),
                       suit->steps);
}

/* ---- a failure. With several threads it may not come every time. */

static char failure[1024], story[128 * 1024];

/* Up to where it is noticed: the shrunk sequence is to show what the whole one has. */
static size_t place_length(const char *what) {
  const char *end = strstr(what, ": ");
  return end == NULL ? strlen(what) : (size_t)(end - what);
}

static bool fails_again(void *context, const struct sequence *sequence) {
  const unsigned tries = *(const unsigned *)context;
  char other[sizeof failure];
  for (unsigned i = 0; i < tries; i++) {
    if (!child_run(sequence, other, sizeof other, NULL, 0) && strncmp(failure, other, place_length(failure)) == 0) return true;
  }
  return false;
}

static void tell_story(const struct sequence *sequence, unsigned tries) {
  for (unsigned i = 0; i < tries; i++) {
    if (!child_run(sequence, failure, sizeof failure, story, sizeof story)) break;
  }
  (void)printf("%s%s\n", story, failure);
}

static void save(const struct sequence *sequence, const char *path) {
  FILE *file = fopen(path, "wb");
  bool saved = file != NULL && fwrite(sequence->bytes, 1, sequence->size, file) == sequence->size;
  if (file != NULL) saved &= fclose(file) == 0;
  (void)printf(saved ? "again: DROWSE_MODEL_FILE=%s tests/model/test_model\n" : "%s could not be written\n", path);
}

static void report(const struct suit *suit, uint64_t seed, struct sequence *sequence) {
  char path[64];
  unsigned tries = suit->threads_most > 1 ? 10 : 1;
  (void)printf("%s:%" PRIu64 " fails: %s\nit is shrunk from %zu steps\n", suit->name, seed, failure, sequence_steps(sequence));
  (void)fflush(stdout);
  shrink(sequence, fails_again, &tries);
  (void)printf("to %zu steps:\n", sequence_steps(sequence));
  tell_story(sequence, tries);
  (void)snprintf(path, sizeof path, "model-%s-%" PRIu64 ".sequence", suit->name, seed);
  save(sequence, path);
  (void)printf("whole: DROWSE_MODEL_SEED=%s:%" PRIu64 " tests/model/test_model\n", suit->name, seed);
  (void)fflush(stdout);
}

static bool run_seed(const struct suit *suit, uint64_t seed) {
  struct sequence sequence = make(suit, seed);
  bool passed = child_run(&sequence, failure, sizeof failure, NULL, 0);
  if (!passed) report(suit, seed, &sequence);
  free(sequence.bytes);
  return passed;
}

/* ---- as make check does */

static unsigned runs_wanted(void) {
  const char *runs = getenv("DROWSE_MODEL_RUNS");
  return runs == NULL ? 8 : (unsigned)strtoul(runs, NULL, 10);
}

START_TEST(sequences_do_what_the_reference_says) {
  const unsigned runs = runs_wanted();
  for (uint64_t seed = 1; seed <= runs; seed++)
    ck_assert_msg(run_seed(&suits[_i], seed), "%s:%" PRIu64 ": %s", suits[_i].name, seed, failure);
}
END_TEST

/* ---- the shrinker itself, with a failure that is known: a write of more than 100 somewhere behind a sleep */

static bool fails_by_rule(void *context, const struct sequence *sequence) {
  bool slept = false;
  (void)context;
  for (size_t i = 0; i < sequence_steps(sequence); i++) {
    struct step step = sequence_step(sequence, i);
    if (model_kinds[step.kind].run == step_sleep) slept = true;
    if (slept && model_kinds[step.kind].run == step_write && step.b > 100) return true;
  }
  return false;
}

START_TEST(the_shrinker_leaves_what_is_needed) {
  uint64_t seed = 1;
  struct sequence sequence = sequence_make(seed, 2, 300);
  while (!fails_by_rule(NULL, &sequence)) {
    free(sequence.bytes);
    sequence = sequence_make(++seed, 2, 300);
  }
  shrink(&sequence, fails_by_rule, NULL);
  ck_assert_uint_eq(sequence_steps(&sequence), 2);
  struct step sleep = sequence_step(&sequence, 0), write = sequence_step(&sequence, 1);
  ck_assert_ptr_eq(model_kinds[sleep.kind].run, step_sleep);
  ck_assert_ptr_eq(model_kinds[write.kind].run, step_write);
  ck_assert_uint_eq(sleep.a + sleep.b + sleep.c + write.a + write.c, 0);
  ck_assert_uint_gt(write.b, 100);
  free(sequence.bytes);
}
END_TEST

/* ---- as whoever looks for something does */

static int run_one(const struct sequence *sequence) {
  bool passed = child_run(sequence, failure, sizeof failure, story, sizeof story);
  (void)printf("%s%s\n", story, passed ? "ok" : failure);
  return passed ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int run_file(const char *path) {
  static unsigned char bytes[1 << 20];
  FILE *file = fopen(path, "rb");
  struct sequence sequence = {.bytes = bytes, .size = file == NULL ? 0 : fread(bytes, 1, sizeof bytes, file)};
  if (file == NULL || ferror(file) != 0 || fclose(file) != 0) {
    perror(path);
    return EXIT_FAILURE;
  }
  model_faults = true;
  return run_one(&sequence);
}

static int run_named(const char *text) {
  for (const struct suit *suit = suits; suit < suits + SUITS; suit++) {
    size_t length = strlen(suit->name);
    if (strncmp(text, suit->name, length) != 0 || text[length] != ':') continue;
    struct sequence sequence = make(suit, strtoull(text + length + 1, NULL, 10));
    int status = run_one(&sequence);
    free(sequence.bytes);
    return status;
  }
  (void)fprintf(stderr, "DROWSE_MODEL_SEED=%s: alone:N, threads:N or faults:N is wanted\n", text);
  return 2;
}

/* Seeds that no other run has had. */
static int run_for(const char *seconds) {
  const time_t begun = time(NULL), end = begun + (time_t)strtol(seconds, NULL, 10);
  unsigned runs = 0, failed = 0;
  for (uint64_t seed = (uint64_t)begun << 20; time(NULL) < end && failed < 5; seed++) {
    for (const struct suit *suit = suits; suit < suits + SUITS; suit++, runs++) failed += !run_seed(suit, seed);
  }
  (void)printf("%u sequences, %u failed\n", runs, failed);
  return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(void) {
  const char *file = getenv("DROWSE_MODEL_FILE"), *seed = getenv("DROWSE_MODEL_SEED"), *seconds = getenv("DROWSE_MODEL_SECONDS");
  if (file != NULL) return run_file(file);
  if (seed != NULL) return run_named(seed);
  if (seconds != NULL) return run_for(seconds);
  Suite *suite = suite_create("model");
  HARNESS_TEST(suite, the_shrinker_leaves_what_is_needed);
  HARNESS_LOOP_TEST(suite, sequences_do_what_the_reference_says, NULL, NULL, SUITS);
  return harness_run(suite);
}
