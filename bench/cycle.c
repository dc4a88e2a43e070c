/* SPDX-License-Identifier: Apache-2.0
 *
 * How long sleep and wake take, beside a plain memcpy of as many bytes in the same run: machines differ, the ratio says more than
 * the rate.
 *
 *   cycle [DEVICE [MIB [BLOCKS [ROUNDS]]]]     default: auto 1024 16 5
 *
 * Tab-separated: a line a measurement. Every round first copies memory to memory, touched before, then sleeps, then wakes; ratio
 * is the rate over that of the round's memcpy. The first sleep also pays for pinned host memory, which later ones find there.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "drowse.h"

struct bench {
  const char *device;
  size_t bytes, block_count;
  unsigned rounds;
  drowse_heap *heap;
  char opened[64];
  unsigned char *from, *to;
};

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void print(const struct bench *bench, unsigned round, const char *what, double seconds, double memcpy_seconds) {
  double gib = (double)bench->bytes / (1 << 30);
  printf("%s\t%zu\t%zu\t%u\t%s\t%.6f\t%.3f\t%.3f\n", bench->opened, bench->bytes, bench->block_count, round, what, seconds,
         gib / seconds, memcpy_seconds / seconds);
  fflush(stdout);
}

static bool parse_number(const char *text, unsigned long most, unsigned long *number) {
  char *end;
  *number = strtoul(text, &end, 10);
  if (*text >= '0' && *text <= '9' && *end == '\0' && *number >= 1 && *number <= most) return true;
  fprintf(stderr, "bench/cycle: \"%s\" is not a number from 1 to %lu\n", text, most);
  return false;
}

static bool parse(struct bench *bench, int argc, char **argv) {
  unsigned long mib = 1024, blocks = 16, rounds = 5;
  bench->device = argc > 1 ? argv[1] : "auto";
  if (argc > 2 && !parse_number(argv[2], 1 << 20, &mib)) return false;
  if (argc > 3 && !parse_number(argv[3], 1 << 20, &blocks)) return false;
  if (argc > 4 && !parse_number(argv[4], 1000, &rounds)) return false;
  bench->bytes = (size_t)mib << 20;
  bench->block_count = blocks;
  bench->rounds = (unsigned)rounds;
  return true;
}

static bool allocate(struct bench *bench) {
  size_t block_bytes = bench->bytes / bench->block_count;
  drowse_alloc_options options = {.struct_size = sizeof options, .tag = "bench"};
  for (size_t i = 0; i < bench->block_count; i++) {
    size_t bytes = i + 1 < bench->block_count ? block_bytes : bench->bytes - block_bytes * i;
    void *ptr;
    if (drowse_alloc_with(bench->heap, bytes, NULL, &options, &ptr) != DROWSE_OK) return false;
    if (drowse_copy_in(bench->heap, ptr, bench->from + block_bytes * i, bytes) != DROWSE_OK) return false;
  }
  return true;
}

static bool run_round(const struct bench *bench, unsigned round) {
  double start = now();
  memcpy(bench->to, bench->from, bench->bytes);
  double memcpy_seconds = now() - start;
  print(bench, round, "memcpy", memcpy_seconds, memcpy_seconds);

  drowse_rule rule = {.tag = "bench", .action = DROWSE_OFFLOAD};
  start = now();
  if (drowse_sleep(bench->heap, &rule, 1, NULL) != DROWSE_OK) return false;
  print(bench, round, "sleep", now() - start, memcpy_seconds);

  start = now();
  if (drowse_wake(bench->heap, NULL, 0, NULL) != DROWSE_OK) return false;
  print(bench, round, "wake", now() - start, memcpy_seconds);
  return true;
}

static bool run(struct bench *bench) {
  drowse_heap_options options = {.struct_size = sizeof options, .device = bench->device};
  if (drowse_heap_open(&bench->heap, &options) != DROWSE_OK) return false;
  drowse_heap_info info = {.struct_size = sizeof info};
  if (drowse_heap_info_get(bench->heap, &info) != DROWSE_OK) return false;
  snprintf(bench->opened, sizeof bench->opened, "%s", info.device);
  printf("device\tbytes\tblocks\tround\twhat\tseconds\tgib_per_s\tratio\n");
  if (!allocate(bench)) return false;
  for (unsigned round = 1; round <= bench->rounds; round++) {
    if (!run_round(bench, round)) return false;
  }
  drowse_heap *heap = bench->heap;
  bench->heap = NULL;
  return drowse_heap_close(heap) == DROWSE_OK;
}

int main(int argc, char **argv) {
  struct bench bench = {0};
  if (!parse(&bench, argc, argv)) return 2;
  bench.from = malloc(bench.bytes);
  bench.to = malloc(bench.bytes);
  bool done = bench.from != NULL && bench.to != NULL;
  if (done) {
    for (size_t i = 0; i < bench.bytes; i++) bench.from[i] = (unsigned char)(i * 167 + (i >> 12));
    memset(bench.to, 0, bench.bytes);
    done = run(&bench);
    if (!done) fprintf(stderr, "bench/cycle: %s\n", drowse_last_error());
    (void)drowse_heap_close(bench.heap);
  } else {
    fprintf(stderr, "bench/cycle: no memory for %zu bytes twice\n", bench.bytes);
  }
  free(bench.to);
  free(bench.from);
  return done ? EXIT_SUCCESS : EXIT_FAILURE;
}
