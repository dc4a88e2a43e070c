/* SPDX-License-Identifier: Apache-2.0
 *
 * What allocating and freeing costs, beside other allocators in the same run. Tab-separated: a line a measurement.
 *
 *   alloc [-d DEVICE] pair                              2 MiB and free, one thread, on the default stream and on one of its own
 *   alloc [-d DEVICE] threads [THREADS [INSTRUCTIONS]]  the same on 1 to THREADS (16) threads, a stream each, beside a loop of
 *                                                       about INSTRUCTIONS (650) a pair on data that no other thread has
 *   alloc [-d DEVICE] random [MOST]                     free a random block of 1000, of MOST (1000000) and allocate another
 *   alloc [-d DEVICE] growth [GIB]                      from nothing to GIB (40) in steps of 20 MiB
 *   alloc [-d DEVICE] count KIND PAIRS [LIVE]           PAIRS of a kind (pair, own, loop, random, large, none) and
 *                                                       nothing else, for bench/alloc.sh, which counts instructions
 *
 * own is pair on a stream of its own, large is random with large sizes, none is random with nothing allocated.
 *
 * ns is for one pair of allocate and free; processor time in pair and random, elapsed time in threads and growth, where waiting
 * counts; of some rounds, in which the allocators take turns so that a machine that gets slower meanwhile does so for all, the
 * best, but in threads the median: one thread may have a lucky round, sixteen hardly all at once. DEVICE: auto, cuda:0,
 * host:200GiB.
 *
 * The loop takes as many instructions as a pair on a stream of its own, the driver's included, and is of the same kind: locks
 * that nobody wants, loads, stores and branches on a few cache lines, little of which waits for what came before. A thread beside
 * it on the same core slows it as it slows what allocates; a chain of arithmetic, which leaves most of a core idle, would not be.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "allocator.h"
#include "device.h"

enum { ROUNDS = 5, THREADS_MAX = 256, PAIR_BYTES = 2 << 20, STEP_BYTES = 20 << 20 };

/* Of the loop: by default, of which 310 are drowse's, 35 the benchmark's and about 300, by their time, the driver's; of its parts
 * (alloc.sh). */
enum { LOOP_INSTRUCTIONS = 650, LOOP_STEP_INSTRUCTIONS = 23, LOOP_HALF_INSTRUCTIONS = 12 };
static const double round_seconds = 0.15;

/* ---- what is repeated */

/* Waits for what an allocator has given the device to do, so that the next one's turn is not beside it. */
static void let_rest(drowse_stream stream) {
  if (bench_driver()->StreamSynchronize(stream) != CUDA_SUCCESS) bench_fail("a stream cannot be waited for");
}

static void *take(const struct allocator *allocator, size_t bytes, drowse_stream stream) {
  void *ptr = allocator->alloc(bytes, stream);
  if (ptr == NULL) bench_fail("%s has no %zu bytes: %s", allocator->name, bytes, drowse_last_error());
  return ptr;
}

static void run_pairs(const struct allocator *allocator, drowse_stream stream, size_t pairs) {
  for (size_t i = 0; i < pairs; i++) allocator->free(take(allocator, PAIR_BYTES, stream), stream);
}

/* What the loop works on: some cache lines that no other thread has. */
struct private_data {
  _Alignas(128) atomic_uint lock;
  _Alignas(128) uint64_t lines[8][8];
};

/* About LOOP_STEP_INSTRUCTIONS: loads, stores, branches that always go one way, and arithmetic that seldom waits for what came
 * just before. */
static inline void loop_step(volatile uint64_t *line, uint64_t step) {
  uint64_t count = line[0], mask = line[1], sum = line[2];
  if (count == UINT64_MAX) abort();
  line[0] = count + 1;
  if ((mask & 1) != 0) line[3] = sum;
  line[4] = step >> 3;
  line[5] = (step ^ mask) + 1;
}

/* What one call does: takes a lock that nobody wants, works, and lets go of it. */
static inline void loop_half(struct private_data *data, size_t steps) {
  unsigned was = 0;
  if (!atomic_compare_exchange_strong_explicit(&data->lock, &was, 1, memory_order_acquire, memory_order_relaxed)) abort();
  for (size_t step = 0; step < steps; step++) loop_step(data->lines[step % 8], step);
  atomic_store_explicit(&data->lock, 0, memory_order_release);
}

static void run_loop(size_t pairs, size_t instructions) {
  struct private_data data = {0};
  size_t half = instructions / 2, fixed = LOOP_HALF_INSTRUCTIONS;
  size_t steps = half < fixed ? 0 : (half - fixed + LOOP_STEP_INSTRUCTIONS / 2) / LOOP_STEP_INSTRUCTIONS;
  for (size_t i = 0; i < 2 * pairs; i++) loop_half(&data, steps);
}

/* Live blocks, of which a random one goes at a time; the same sequence for every allocator. */
struct crowd {
  const struct allocator *allocator;
  drowse_stream stream;
  const size_t *sizes; /* 8 */
  size_t live;
  void **blocks;
  uint64_t random;
};

static uint64_t next_random(struct crowd *crowd) {
  crowd->random ^= crowd->random >> 12;
  crowd->random ^= crowd->random << 25;
  crowd->random ^= crowd->random >> 27;
  return crowd->random * UINT64_C(0x2545f4914f6cdd1d);
}

static void replace_blocks(struct crowd *crowd, size_t pairs) {
  for (size_t i = 0; i < pairs; i++) {
    uint64_t random = next_random(crowd);
    void **block = &crowd->blocks[(random >> 32) * crowd->live >> 32];
    crowd->allocator->free(*block, crowd->stream);
    *block = take(crowd->allocator, crowd->sizes[random >> 28 & 7], crowd->stream);
  }
}

static void crowd_begin(struct crowd *crowd) {
  crowd->random = 1;
  crowd->blocks = calloc(crowd->live, sizeof *crowd->blocks);
  if (crowd->blocks == NULL) bench_fail("no memory for %zu pointers", crowd->live);
  for (size_t i = 0; i < crowd->live; i++) {
    crowd->blocks[i] = take(crowd->allocator, crowd->sizes[next_random(crowd) >> 28 & 7], crowd->stream);
  }
  replace_blocks(crowd, crowd->live); /* holes where there were none */
}

static void crowd_end(struct crowd *crowd) {
  for (size_t i = 0; i < crowd->live; i++) crowd->allocator->free(crowd->blocks[i], crowd->stream);
  free(crowd->blocks);
}

/* ---- pair */

static double time_pairs(const struct allocator *allocator, drowse_stream stream, size_t pairs) {
  double begun = bench_seconds(CLOCK_THREAD_CPUTIME_ID);
  run_pairs(allocator, stream, pairs);
  double seconds = bench_seconds(CLOCK_THREAD_CPUTIME_ID) - begun;
  let_rest(stream);
  return seconds / (double)pairs;
}

static size_t pairs_in_round(double seconds_each) {
  double pairs = round_seconds / seconds_each;
  return pairs < 100 ? 100 : pairs > 1e8 ? (size_t)1e8 : (size_t)pairs;
}

static void measure_pairs_on(drowse_stream stream, const char *stream_name) {
  const struct allocator *allocators[] = {&bench_none, &bench_drowse, bench_cuda_async()};
  double best[3];
  size_t pairs[3];
  for (int round = -1; round < ROUNDS; round++) {
    for (unsigned i = 0; i < 3; i++) {
      if (allocators[i] == NULL) continue;
      double seconds = time_pairs(allocators[i], stream, round < 0 ? 1000 : pairs[i]);
      if (round < 0) pairs[i] = pairs_in_round(seconds);
      if (round <= 0 || seconds < best[i]) best[i] = seconds;
    }
  }
  for (unsigned i = 0; i < 3; i++) {
    if (allocators[i] != NULL) printf("%s\t%s\t%s\t%.2f\n", bench_device(), allocators[i]->name, stream_name, best[i] * 1e9);
  }
}

static void measure_pairs(void) {
  drowse_stream stream = bench_stream_create();
  printf("device\tallocator\tstream\tns\n");
  measure_pairs_on(NULL, "default");
  measure_pairs_on(stream, "own");
  bench_stream_destroy(stream);
}

/* ---- threads */

struct team {
  const struct allocator *allocator; /* NULL: the loop */
  size_t pairs, instructions;
  pthread_barrier_t begin;
};

struct member {
  pthread_t thread;
  struct team *team;
  drowse_stream stream;
  double begun, ended;
};

static void work_on(const struct member *member, size_t pairs) {
  if (member->team->allocator == NULL) {
    run_loop(pairs, member->team->instructions);
  } else {
    run_pairs(member->team->allocator, member->stream, pairs);
  }
}

static void *work(void *argument) {
  struct member *member = argument;
  bench_thread_begin();
  work_on(member, 100); /* the first ones map memory */
  (void)pthread_barrier_wait(&member->team->begin);
  member->begun = bench_seconds(CLOCK_MONOTONIC);
  work_on(member, member->team->pairs);
  member->ended = bench_seconds(CLOCK_MONOTONIC);
  return NULL;
}

/* Pairs a second of all threads together, from the first one's begin to the last one's end. */
static double team_rate(struct team *team, const drowse_stream *streams, unsigned threads) {
  struct member members[THREADS_MAX];
  (void)pthread_barrier_init(&team->begin, NULL, threads);
  for (unsigned i = 0; i < threads; i++) {
    members[i] = (struct member){.team = team, .stream = streams[i]};
    if (pthread_create(&members[i].thread, NULL, work, &members[i]) != 0) bench_fail("no thread");
  }
  for (unsigned i = 0; i < threads; i++) (void)pthread_join(members[i].thread, NULL);
  for (unsigned i = 0; i < threads; i++) let_rest(streams[i]);
  (void)pthread_barrier_destroy(&team->begin);
  double begun = members[0].begun, ended = members[0].ended;
  for (unsigned i = 1; i < threads; i++) {
    if (members[i].begun < begun) begun = members[i].begun;
    if (members[i].ended > ended) ended = members[i].ended;
  }
  return (double)(team->pairs * threads) / (ended - begun);
}

enum { LOOP, DROWSE, CUDA_ASYNC, TEAMS };

static int compare_rates(const void *a, const void *b) {
  return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

static double median(const double *rounds) {
  double sorted[ROUNDS];
  memcpy(sorted, rounds, sizeof sorted);
  qsort(sorted, ROUNDS, sizeof *sorted, compare_rates);
  return sorted[ROUNDS / 2];
}

/* A team's rates round by round, all threads' and the gain over one thread's. That one is measured right before, because whoever
 * else is on the machine comes and goes: a gain over what it was alone, or beside somebody, would tell of that. */
struct rates {
  double all[ROUNDS], gain[ROUNDS], of_loop[ROUNDS];
  size_t one_pairs, all_pairs;
};

static double time_team(struct team *team, const drowse_stream *streams, unsigned threads, int round, size_t *pairs) {
  team->pairs = round < 0 ? 1000 : *pairs;
  double rate = team_rate(team, streams, threads);
  if (round < 0) *pairs = pairs_in_round((double)threads / rate);
  return rate;
}

static void time_round(struct team *teams, const drowse_stream *streams, unsigned threads, int round, struct rates *rates) {
  for (unsigned i = 0; i < TEAMS; i++) {
    if (i != LOOP && teams[i].allocator == NULL) continue;
    double one = time_team(&teams[i], streams, 1, round, &rates[i].one_pairs);
    double all = time_team(&teams[i], streams, threads, round, &rates[i].all_pairs);
    if (round < 0) continue;
    rates[i].all[round] = all;
    rates[i].gain[round] = all / one;
    rates[i].of_loop[round] = rates[i].gain[round] / rates[LOOP].gain[round];
  }
}

static void measure_threads(unsigned threads_max, size_t instructions) {
  const char *names[TEAMS] = {"loop", bench_drowse.name, "cuMemAllocAsync"};
  struct team teams[TEAMS] = {[LOOP] = {.instructions = instructions},
                              [DROWSE] = {.allocator = &bench_drowse},
                              [CUDA_ASYNC] = {.allocator = bench_cuda_async()}};
  drowse_stream streams[THREADS_MAX];
  for (unsigned i = 0; i < threads_max; i++) streams[i] = bench_stream_create();
  /* gain: over one thread; of_loop: that over the loop's */
  printf("device\tallocator\tthreads\tmpairs_per_s\tns\tgain\tof_loop\n");
  for (unsigned threads = 1; threads <= threads_max; threads *= 2) {
    struct rates rates[TEAMS];
    for (int round = -1; round < ROUNDS; round++) time_round(teams, streams, threads, round, rates);
    for (unsigned i = 0; i < TEAMS; i++) {
      if (i != LOOP && teams[i].allocator == NULL) continue;
      double rate = median(rates[i].all);
      printf("%s\t%s\t%u\t%.3f\t%.2f\t%.3f\t%.3f\n", bench_device(), names[i], threads, rate / 1e6, 1e9 * (double)threads / rate,
             median(rates[i].gain), median(rates[i].of_loop));
    }
    fflush(stdout);
  }
  for (unsigned i = 0; i < threads_max; i++) bench_stream_destroy(streams[i]);
}

/* ---- random */

/* Tensors of a model: 13 MiB on average. */
static const size_t large_sizes[8] = {512, 2560, 14 << 10, 96 << 10, 640 << 10, 4 << 20, 28 << 20, 64 << 20};
/* 28 KiB on average, so that there is room for a million. */
static const size_t small_sizes[8] = {512, 1024, 2048, 3584, 8 << 10, 16 << 10, 64 << 10, 128 << 10};

static double time_replace(struct crowd *crowd, size_t pairs) {
  double begun = bench_seconds(CLOCK_THREAD_CPUTIME_ID);
  replace_blocks(crowd, pairs);
  double seconds = bench_seconds(CLOCK_THREAD_CPUTIME_ID) - begun;
  let_rest(crowd->stream);
  return seconds / (double)pairs;
}

enum { CROWDS = 5 };

/* Two rounds come before those that count: in the first memory is still mapped, so that only the second tells how many pairs
 * there should be. */
static void best_replaces(struct crowd *crowds, double *best) {
  size_t pairs[CROWDS];
  for (int round = -2; round < ROUNDS; round++) {
    for (unsigned i = 0; i < CROWDS; i++) {
      if (crowds[i].allocator == NULL) continue;
      double seconds = time_replace(&crowds[i], round == -2 ? 10000 : pairs[i]);
      if (round < 0) pairs[i] = pairs_in_round(seconds);
      if (round <= 0 || seconds < best[i]) best[i] = seconds;
    }
  }
}

static void measure_crowds(const char *sizes_name, const size_t *sizes, size_t live, const struct allocator *const *allocators,
                           drowse_stream stream) {
  struct crowd crowds[CROWDS];
  double best[CROWDS];
  for (unsigned i = 0; i < CROWDS; i++) {
    crowds[i] = (struct crowd){.allocator = allocators[i], .stream = stream, .sizes = sizes, .live = live};
    if (crowds[i].allocator != NULL) crowd_begin(&crowds[i]);
  }
  best_replaces(crowds, best);
  for (unsigned i = 0; i < CROWDS; i++) {
    if (crowds[i].allocator == NULL) continue;
    crowd_end(&crowds[i]);
    printf("%s\t%s\t%s\t%zu\t%.2f\n", bench_device(), allocators[i]->name, sizes_name, live, best[i] * 1e9);
  }
  fflush(stdout);
}

static void measure_random(size_t most) {
  drowse_stream stream = bench_stream_create();
  const struct allocator *few[CROWDS] = {&bench_none, bench_floor(1000), &bench_drowse, bench_jemalloc(), bench_cuda_async()};
  printf("device\tallocator\tsizes\tlive\tns\n");
  measure_crowds("large", large_sizes, 1000, few, stream);
  measure_crowds("small", small_sizes, 1000, few, stream);
  const struct allocator *many[CROWDS] = {&bench_none, bench_floor(most), &bench_drowse, few[3]};
  measure_crowds("small", small_sizes, most, many, stream);
  bench_stream_destroy(stream);
}

/* ---- growth */

/* Seconds that the driver alone takes to put bytes behind one range of addresses. */
static double grow_driver(size_t bytes, size_t handle_bytes) {
  const struct bench_driver *driver = bench_driver();
  CUmemAllocationProp prop = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                              .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = driver->ordinal}};
  CUmemAccessDesc access = {.location = prop.location, .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
  size_t count = bytes / handle_bytes;
  CUdeviceptr range;
  CUmemGenericAllocationHandle *handles = calloc(count, sizeof *handles);
  if (handles == NULL) bench_fail("no memory for %zu handles", count);
  double begun = bench_seconds(CLOCK_MONOTONIC);
  bool done = driver->MemAddressReserve(&range, count * handle_bytes, 0, 0, 0) == CUDA_SUCCESS;
  for (size_t i = 0; i < count && done; i++) {
    done = driver->MemCreate(&handles[i], handle_bytes, &prop, 0) == CUDA_SUCCESS &&
           driver->MemMap(range + i * handle_bytes, handle_bytes, 0, handles[i], 0) == CUDA_SUCCESS;
  }
  done = done && driver->MemSetAccess(range, count * handle_bytes, &access, 1) == CUDA_SUCCESS;
  double seconds = bench_seconds(CLOCK_MONOTONIC) - begun;
  done = done && driver->MemUnmap(range, count * handle_bytes) == CUDA_SUCCESS;
  for (size_t i = 0; i < count && done; i++) done = driver->MemRelease(handles[i]) == CUDA_SUCCESS;
  if (!done || driver->MemAddressFree(range, count * handle_bytes) != CUDA_SUCCESS) bench_fail("a driver call failed");
  free(handles);
  return seconds;
}

/* Seconds that a new heap takes for the same. */
static double grow_drowse(size_t bytes, const char *device, bool expandable) {
  if (!bench_open(device, expandable)) exit(EXIT_FAILURE);
  double begun = bench_seconds(CLOCK_MONOTONIC);
  for (size_t i = 0; i < bytes / STEP_BYTES; i++) (void)take(&bench_drowse, STEP_BYTES, NULL);
  double seconds = bench_seconds(CLOCK_MONOTONIC) - begun;
  bench_close();
  return seconds;
}

static double grow(unsigned way, size_t bytes, const char *device) {
  if (way >= 2) return grow_drowse(bytes, device, way == 2);
  if (!bench_open(device, true)) exit(EXIT_FAILURE);
  double seconds = grow_driver(bytes, way == 0 ? (size_t)1 << 30 : STEP_BYTES);
  bench_close();
  return seconds;
}

static void measure_growth(const char *device, size_t gib) {
  static const char *const ways[] = {"driver by 1 GiB", "driver by 20 MiB", "drowse, expandable", "drowse, discrete"};
  double best[4];
  for (unsigned round = 0; round < 3; round++) {
    for (unsigned way = 0; way < 4; way++) {
      double seconds = grow(way, gib << 30, device);
      if (round == 0 || seconds < best[way]) best[way] = seconds;
    }
  }
  /* ratio: over the driver with handles of 1 GiB */
  printf("device\tway\tgib\tms\tratio\n");
  for (unsigned way = 0; way < 4; way++) {
    printf("%s\t%s\t%zu\t%.3f\t%.2f\n", bench_device(), ways[way], gib, best[way] * 1e3, best[way] / best[0]);
  }
}

/* ---- count */

static int count(const char *kind, size_t pairs, size_t live) {
  struct crowd crowd = {.sizes = *kind == 'l' ? large_sizes : small_sizes, .live = live};
  if (strcmp(kind, "pair") == 0) {
    run_pairs(&bench_drowse, NULL, pairs);
  } else if (strcmp(kind, "own") == 0) {
    drowse_stream stream = bench_stream_create();
    run_pairs(&bench_drowse, stream, pairs);
    bench_stream_destroy(stream);
  } else if (strcmp(kind, "loop") == 0) {
    run_loop(pairs, LOOP_INSTRUCTIONS);
  } else if (strcmp(kind, "random") == 0 || strcmp(kind, "large") == 0 || strcmp(kind, "none") == 0) {
    crowd.allocator = *kind == 'n' ? &bench_none : &bench_drowse;
    crowd_begin(&crowd);
    replace_blocks(&crowd, pairs);
    crowd_end(&crowd);
  } else {
    fprintf(stderr, "bench/alloc: there is no kind \"%s\"\n", kind);
    return 2;
  }
  return EXIT_SUCCESS;
}

static int usage(void) {
  fprintf(stderr, "usage: alloc [-d DEVICE] pair | threads [THREADS [INSTRUCTIONS]] | random [MOST] | growth [GIB] |\n"
                  "             count KIND PAIRS [LIVE]\n");
  return 2;
}

/* What needs one heap with expandable segments throughout. */
static int measure(int argc, char **argv) {
  size_t first = argc > 1 && strcmp(argv[0], "count") != 0 ? bench_number(argv[1], 1 << 30) : 0;
  if (strcmp(argv[0], "pair") == 0 && argc == 1) {
    measure_pairs();
  } else if (strcmp(argv[0], "threads") == 0 && argc <= 3) {
    if (first > THREADS_MAX) return usage();
    measure_threads(first > 0 ? (unsigned)first : 16, argc > 2 ? bench_number(argv[2], 1 << 20) : LOOP_INSTRUCTIONS);
  } else if (strcmp(argv[0], "random") == 0 && argc <= 2) {
    measure_random(first > 0 ? first : 1000000);
  } else if (strcmp(argv[0], "count") == 0 && (argc == 3 || argc == 4)) {
    return count(argv[1], bench_number(argv[2], 1 << 30), argc > 3 ? bench_number(argv[3], 1 << 30) : 1000);
  } else {
    return usage();
  }
  return EXIT_SUCCESS;
}

int main(int argc, char **argv) {
  const char *device = "auto";
  int option;
  while ((option = getopt(argc, argv, "+d:")) != -1) {
    if (option != 'd') return usage();
    device = optarg;
  }
  argc -= optind;
  argv += optind;
  if (argc < 1) return usage();
  if (strcmp(argv[0], "growth") == 0 && argc <= 2) {
    measure_growth(device, argc > 1 ? bench_number(argv[1], 1 << 10) : 40);
    return EXIT_SUCCESS;
  }
  if (!bench_open(device, true)) return EXIT_FAILURE;
  int status = measure(argc, argv);
  bench_close();
  return status;
}
