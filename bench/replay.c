/* SPDX-License-Identifier: Apache-2.0
 *
 * Replays allocation traces (trace.h) and tells how much more memory drowse maps than is live: one tag, one stream, a new heap
 * for each replay.
 *
 *   replay [-d DEVICE] [-n ROUNDS] TRACE...     default: auto, 3 rounds; a trace "-" is stdin; its name loses .trace
 *
 * Tab-separated: a line for each trace with expandable segments and one without. peak_live: blocks rounded up to 512 bytes, as
 * other allocators round them. peak_mapped: the most that was mapped after any allocation. ns: elapsed time an event, driver
 * calls included, of the quickest of ROUNDS replays in which nobody looks at what is mapped.
 */
#include <inttypes.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "drowse.h"
#include "trace.h"

struct replay {
  const struct trace *trace;
  const char *device;
  bool expandable;
  drowse_heap *heap;
  void **blocks; /* by id */
  char opened[64];
};

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static bool replay_open(struct replay *replay) {
  drowse_heap_options options = {.struct_size = sizeof options,
                                 .device = replay->device,
                                 .settings = replay->expandable ? "expandable_segments:True" : "expandable_segments:False"};
  drowse_heap_info info = {.struct_size = sizeof info};
  if (drowse_heap_open(&replay->heap, &options) != DROWSE_OK) return false;
  if (drowse_heap_info_get(replay->heap, &info) != DROWSE_OK) return false;
  memcpy(replay->opened, info.device, sizeof replay->opened);
  return true;
}

static drowse_status play(struct replay *replay, const struct event *event) {
  void **block = &replay->blocks[event->id];
  return event->bytes > 0 ? drowse_alloc(replay->heap, event->bytes, NULL, block) : drowse_free(replay->heap, *block);
}

static bool play_all(struct replay *replay) {
  for (size_t i = 0; i < replay->trace->count; i++) {
    if (play(replay, &replay->trace->events[i]) != DROWSE_OK) return false;
  }
  return true;
}

/* What is mapped grows in allocations alone. */
static bool play_and_look(struct replay *replay, uint64_t *peak_mapped) {
  drowse_stats stats = {.struct_size = sizeof stats};
  *peak_mapped = 0;
  for (size_t i = 0; i < replay->trace->count; i++) {
    const struct event *event = &replay->trace->events[i];
    if (play(replay, event) != DROWSE_OK) return false;
    if (event->bytes == 0) continue;
    if (drowse_stats_get(replay->heap, NULL, &stats) != DROWSE_OK) return false;
    if (stats.mapped_bytes > *peak_mapped) *peak_mapped = stats.mapped_bytes;
  }
  return true;
}

static bool look(struct replay *replay, uint64_t *peak_mapped) {
  bool done = replay_open(replay) && play_and_look(replay, peak_mapped);
  if (!done) fprintf(stderr, "bench/replay: %s\n", drowse_last_error());
  return drowse_heap_close(replay->heap) == DROWSE_OK && done;
}

static bool time_it(struct replay *replay, double *seconds) {
  bool done = replay_open(replay);
  double begun = now();
  done = done && play_all(replay);
  *seconds = now() - begun;
  if (!done) fprintf(stderr, "bench/replay: %s\n", drowse_last_error());
  return drowse_heap_close(replay->heap) == DROWSE_OK && done;
}

static void print(const struct replay *replay, const char *name, uint64_t peak_mapped, double seconds) {
  const struct trace *trace = replay->trace;
  printf("%s\t%s\tdrowse\t%s\t%zu\t%" PRIu64 "\t%" PRIu64 "\t%.4f\t%.1f\n", replay->opened, name,
         replay->expandable ? "expandable" : "discrete", trace->count, trace->peak_bytes, peak_mapped,
         (double)peak_mapped / (double)trace->peak_bytes, seconds * 1e9 / (double)trace->count);
  fflush(stdout);
}

static bool measure(struct replay *replay, const char *name, size_t rounds) {
  uint64_t peak_mapped;
  double seconds, best = 0;
  if (!look(replay, &peak_mapped)) return false;
  for (size_t round = 0; round < rounds; round++) {
    if (!time_it(replay, &seconds)) return false;
    if (round == 0 || seconds < best) best = seconds;
  }
  print(replay, name, peak_mapped, best);
  return true;
}

static bool measure_both(const char *path, const char *device, size_t rounds) {
  struct trace trace;
  if (!trace_read(&trace, path)) return false;
  char copy[4096];
  snprintf(copy, sizeof copy, "%s", path);
  char *name = basename(copy), *suffix = strstr(name, ".trace");
  if (suffix != NULL) *suffix = '\0';
  struct replay replay = {.trace = &trace, .device = device, .blocks = calloc(trace.ids, sizeof *replay.blocks)};
  bool done = replay.blocks != NULL;
  for (int expandable = 1; expandable >= 0 && done; expandable--) {
    replay.expandable = expandable;
    done = measure(&replay, name, rounds);
  }
  free(replay.blocks);
  trace_free(&trace);
  return done;
}

int main(int argc, char **argv) {
  const char *device = "auto";
  unsigned long rounds = 3;
  int option;
  while ((option = getopt(argc, argv, "+d:n:")) != -1) {
    if (option == 'd') device = optarg;
    if (option == 'n') rounds = strtoul(optarg, NULL, 10);
    if ((option != 'd' && option != 'n') || rounds < 1 || rounds > 1000) optind = argc;
  }
  if (optind >= argc) {
    fprintf(stderr, "usage: replay [-d DEVICE] [-n ROUNDS] TRACE...\n");
    return 2;
  }
  printf("device\ttrace\tallocator\tkind\tevents\tpeak_live\tpeak_mapped\tratio\tns\n");
  bool done = true;
  for (int i = optind; i < argc; i++) done = measure_both(argv[i], device, rounds) && done;
  return done ? EXIT_SUCCESS : EXIT_FAILURE;
}
