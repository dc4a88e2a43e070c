/* SPDX-License-Identifier: Apache-2.0
 *
 * How long sleep and wake take, beside what the machine needs for their parts, measured in the same run: machines differ, ratios
 * say more than rates.
 *
 *   sleep [-d DEVICE] [-g GIB] [-b BLOCKS] [-m MANY] [-n ROUNDS]      default: auto 1 16 4096 5
 *   sleep [-d DEVICE] [-g GIB] [-b BLOCKS] [-n ROUNDS] -f DIRECTORY   with backups in files, and nothing else
 *   sleep [-d DEVICE] [-g GIB] [-n ROUNDS] -l                         the limits' lines alone
 *
 * Tab-separated: a line a measurement; ms is the median of ROUNDS, least and most are their spread, and ratio is the median over
 * the limit, of which the column "limit" says what it is:
 *
 *   link      the bytes over the rate of one large copy between the device and pinned memory, in that direction
 *   unmap     the driver's unmapping and releasing of as many bytes in handles of 1 GiB
 *   map       its creating, mapping and giving access to them
 *   slowest   the slowest of touching the host memory (huge pages, a thread for each processor), pinning it, and the link
 *
 * Several of them are added up. MANY blocks of the same bytes in all are measured beside BLOCKS, in a row and scattered. The
 * limits' own lines come first.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "device.h"

enum { ROUNDS_MAX = 101, THREADS_MAX = 64, HANDLE_BYTES = 1 << 30 };

static struct {
  const char *device, *directory;
  size_t bytes, blocks, many;
  unsigned rounds;
  bool limits;
} asked = {.device = "auto", .bytes = (size_t)1 << 30, .blocks = 16, .many = 4096, .rounds = 5};

static void ok(const char *what, drowse_status status) {
  if (status != DROWSE_OK) bench_fail("%s: %s", what, drowse_last_error());
}

static double now(void) {
  return bench_seconds(CLOCK_MONOTONIC);
}

/* ---- samples */

struct sample {
  unsigned count;
  double seconds[ROUNDS_MAX];
};

static void add(struct sample *sample, double begun) {
  sample->seconds[sample->count++] = now() - begun;
}

static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double median(struct sample *sample) {
  qsort(sample->seconds, sample->count, sizeof *sample->seconds, compare);
  return sample->seconds[sample->count / 2];
}

/* limit_name NULL: it is a limit itself. */
static void print(const char *what, size_t blocks, struct sample *sample, const char *limit_name, double limit) {
  double middle = median(sample);
  printf("%s\t%s\t%.2f\t%zu\t%.3f\t%.3f\t%.3f\t", bench_device(), what, (double)asked.bytes / (1 << 30), blocks, middle * 1e3,
         sample->seconds[0] * 1e3, sample->seconds[sample->count - 1] * 1e3);
  if (limit_name == NULL)
    printf("-\t-\t-\n");
  else
    printf("%s\t%.3f\t%.3f\n", limit_name, limit * 1e3, middle / limit);
  fflush(stdout);
}

/* ---- the driver by itself */

static const struct bench_driver *cu;

static void cu_ok(const char *what, CUresult code) {
  if (code != CUDA_SUCCESS) bench_fail("%s: CUresult %d", what, (int)code);
}

static void open_heap(void) {
  if (!bench_open(asked.device, true)) exit(EXIT_FAILURE);
  cu = bench_driver();
}

/* ---- limits */

/* Memory that was released the driver clears in the background, and who creates some at once waits for that: a tag that sleeps
 * does so for longer. */
static void rest(void) {
  const struct timespec time = {.tv_nsec = 300000000};
  (void)nanosleep(&time, NULL);
}

static struct { double link_out, link_in, touch, pin, map, unmap; /* seconds for all bytes */ } limit;

struct touch {
  pthread_t thread;
  char *memory;
  size_t bytes;
};

static void *touch_main(void *argument) {
  const struct touch *touch = argument;
  for (size_t at = 0; at < touch->bytes; at += 4096) touch->memory[at] = 1;
  return NULL;
}

static void touch_all(char *memory, size_t bytes) {
  struct touch touches[THREADS_MAX];
  long processors = sysconf(_SC_NPROCESSORS_ONLN);
  size_t threads = processors < 1 ? 1 : processors > THREADS_MAX ? THREADS_MAX : (size_t)processors;
  for (size_t i = 0; i < threads; i++) {
    size_t from = bytes / threads * i / 4096 * 4096, to = i + 1 < threads ? bytes / threads * (i + 1) / 4096 * 4096 : bytes;
    touches[i] = (struct touch){.memory = memory + from, .bytes = to - from};
    if (pthread_create(&touches[i].thread, NULL, touch_main, &touches[i]) != 0) bench_fail("starting a thread");
  }
  for (size_t i = 0; i < threads; i++) (void)pthread_join(touches[i].thread, NULL);
}

static void measure_link(char *memory, size_t bytes, struct sample *out, struct sample *in) {
  drowse_alloc_options options = {.struct_size = sizeof options, .tag = "link"};
  CUstream stream;
  void *ptr;
  ok("allocating", drowse_alloc_with(bench_heap, bytes, NULL, &options, &ptr));
  cu_ok("cuStreamCreate", cu->StreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  for (unsigned round = 0; round < asked.rounds; round++) {
    double begun = now();
    cu_ok("a copy", cu->MemcpyDtoHAsync(memory, (CUdeviceptr)(uintptr_t)ptr, bytes, stream));
    cu_ok("a copy", cu->StreamSynchronize(stream));
    add(out, begun);
    begun = now();
    cu_ok("a copy", cu->MemcpyHtoDAsync((CUdeviceptr)(uintptr_t)ptr, memory, bytes, stream));
    cu_ok("a copy", cu->StreamSynchronize(stream));
    add(in, begun);
  }
  cu_ok("cuStreamDestroy", cu->StreamDestroy(stream));
  ok("freeing", drowse_free(bench_heap, ptr));
  ok("trimming", drowse_trim(bench_heap, 0));
}

/* All of the bytes: a virtual machine gets pages that it has never touched from its host first, which a round before the first
 * one is for, and the rate of reading host memory depends on how much of it there is. */
static void measure_host(void) {
  struct sample touch = {0}, pin = {0}, out = {0}, in = {0};
  size_t bytes = asked.bytes;
  for (int round = -1; round < (int)asked.rounds; round++) {
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) bench_fail("mmap");
    (void)madvise(memory, bytes, MADV_HUGEPAGE);
    double begun = now();
    touch_all(memory, bytes);
    if (round >= 0) add(&touch, begun);
    begun = now();
    cu_ok("cuMemHostRegister", cu->MemHostRegister(memory, bytes, 0));
    if (round >= 0) add(&pin, begun);
    if (round == 0) measure_link(memory, bytes, &out, &in);
    cu_ok("cuMemHostUnregister", cu->MemHostUnregister(memory));
    (void)munmap(memory, bytes);
  }
  print("link out", 1, &out, NULL, 0);
  print("link in", 1, &in, NULL, 0);
  print("touch", 1, &touch, NULL, 0);
  print("pin", 1, &pin, NULL, 0);
  limit.link_out = median(&out);
  limit.link_in = median(&in);
  limit.touch = median(&touch);
  limit.pin = median(&pin);
}

/* Once; beside the device memory that the heap has. */
static void measure_mapping(struct sample *map, struct sample *unmap) {
  CUmemAllocationProp prop = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                              .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = cu->ordinal}};
  CUmemAccessDesc access = {.location = prop.location, .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
  size_t count = (asked.bytes + HANDLE_BYTES - 1) / HANDLE_BYTES;
  CUmemGenericAllocationHandle *handles = calloc(count, sizeof *handles);
  CUdeviceptr range;
  if (handles == NULL) bench_fail("malloc");
  rest();
  cu_ok("cuMemAddressReserve", cu->MemAddressReserve(&range, count * HANDLE_BYTES, 0, 0, 0));
  double begun = now();
  for (size_t i = 0; i < count; i++) {
    cu_ok("cuMemCreate", cu->MemCreate(&handles[i], HANDLE_BYTES, &prop, 0));
    cu_ok("cuMemMap", cu->MemMap(range + i * HANDLE_BYTES, HANDLE_BYTES, 0, handles[i], 0));
  }
  cu_ok("cuMemSetAccess", cu->MemSetAccess(range, count * HANDLE_BYTES, &access, 1));
  add(map, begun);
  begun = now();
  cu_ok("cuMemUnmap", cu->MemUnmap(range, count * HANDLE_BYTES));
  for (size_t i = 0; i < count; i++) cu_ok("cuMemRelease", cu->MemRelease(handles[i]));
  add(unmap, begun);
  cu_ok("cuMemAddressFree", cu->MemAddressFree(range, count * HANDLE_BYTES));
  free(handles);
}

static void print_mapping(struct sample *map, struct sample *unmap) {
  print("map", 1, map, NULL, 0);
  print("unmap", 1, unmap, NULL, 0);
  limit.map = median(map);
  limit.unmap = median(unmap);
}

static void measure_mappings(void) {
  struct sample map = {0}, unmap = {0};
  for (unsigned round = 0; round < asked.rounds; round++) measure_mapping(&map, &unmap);
  print_mapping(&map, &unmap);
}

/* ---- sleep and wake */

/* between: not NULL: there is one of 512 bytes behind each. */
static void allocate(size_t blocks, void **between) {
  drowse_alloc_options options = {.struct_size = sizeof options, .tag = "bench"};
  size_t each = asked.bytes / blocks / 512 * 512;
  for (size_t i = 0; i < blocks; i++) {
    size_t bytes = i + 1 < blocks ? each : asked.bytes - each * i;
    void *ptr;
    ok("allocating", drowse_alloc_with(bench_heap, bytes, NULL, &options, &ptr));
    if (i == 0) ok("writing", drowse_copy_in(bench_heap, ptr, "drowse", 6));
    if (between != NULL) ok("allocating", drowse_alloc_with(bench_heap, 512, NULL, &options, &between[i]));
  }
}

static void fall_asleep(struct sample *sample, drowse_action action, const char *directory) {
  drowse_rule rule = {.tag = "bench", .action = action};
  drowse_sleep_options options = {.struct_size = sizeof options,
                                  .backup = directory == NULL ? DROWSE_BACKUP_HOST : DROWSE_BACKUP_FILE,
                                  .directory = directory};
  double begun = now();
  ok("sleeping", drowse_sleep(bench_heap, &rule, 1, &options));
  if (sample != NULL) add(sample, begun);
}

static void wake_up(struct sample *sample) {
  rest();
  double begun = now();
  ok("waking", drowse_wake(bench_heap, NULL, 0, NULL));
  if (sample != NULL) add(sample, begun);
}

static double most(double a, double b) {
  return a > b ? a : b;
}

static void measure_first(void) {
  struct sample fresh = {0}, reserved = {0};
  double ratio = 0;
  for (unsigned round = 0; round < asked.rounds; round++) {
    for (int reserve = 0; reserve < 2; reserve++) {
      open_heap();
      allocate(asked.blocks, NULL);
      if (reserve) ok("reserving", drowse_backup_reserve(bench_heap, asked.bytes));
      fall_asleep(reserve ? &reserved : &fresh, DROWSE_OFFLOAD, NULL);
      drowse_stats stats = {.struct_size = sizeof stats};
      ok("asking", drowse_stats_get(bench_heap, NULL, &stats));
      ratio = most(ratio, (double)stats.host_bytes / (double)stats.live_bytes);
      bench_close();
    }
  }
  print("first sleep", asked.blocks, &fresh, "slowest", most(limit.link_out, most(limit.touch, limit.pin)));
  print("first sleep, reserved", asked.blocks, &reserved, "link+unmap", limit.link_out + limit.unmap);
  printf("%s\thost memory\t%.2f\t%zu\t-\t-\t-\tpayload\t-\t%.3f\n", bench_device(), (double)asked.bytes / (1 << 30), asked.blocks,
         ratio);
}

/* scattered: with 512 bytes that are free between each block and the next, so that no two of them are one copy. */
static void allocate_for_later(size_t blocks, bool scattered) {
  void **between = scattered ? malloc(blocks * sizeof *between) : NULL;
  if (scattered && between == NULL) bench_fail("malloc");
  allocate(blocks, between);
  for (size_t i = 0; scattered && i < blocks; i++) ok("freeing", drowse_free(bench_heap, between[i]));
  free(between);
}

static void measure_later(size_t blocks, bool scattered) {
  struct sample sleeps = {0}, wakes = {0};
  open_heap();
  allocate_for_later(blocks, scattered);
  fall_asleep(NULL, DROWSE_OFFLOAD, NULL);
  wake_up(NULL);
  for (unsigned round = 0; round < asked.rounds; round++) {
    fall_asleep(&sleeps, DROWSE_OFFLOAD, NULL);
    wake_up(&wakes);
  }
  bench_close();
  print(scattered ? "sleep, scattered" : "sleep", blocks, &sleeps, "link+unmap", limit.link_out + limit.unmap);
  print(scattered ? "wake, scattered" : "wake", blocks, &wakes, "link+map", limit.link_in + limit.map);
}

/* What copies nothing takes turns with the driver, which is twice as fast in one minute as in the next. */
static void measure_short(size_t blocks) {
  struct sample sealed = {0}, discards = {0}, discarded = {0}, map = {0}, unmap = {0};
  open_heap();
  allocate(blocks, NULL);
  ok("sealing", drowse_seal(bench_heap, "bench"));
  fall_asleep(NULL, DROWSE_OFFLOAD, NULL);
  for (unsigned round = 0; round < asked.rounds; round++) {
    measure_mapping(&map, &unmap);
    wake_up(NULL);
    fall_asleep(&sealed, DROWSE_OFFLOAD, NULL);
  }
  wake_up(NULL);
  fall_asleep(NULL, DROWSE_DISCARD, NULL);
  for (unsigned round = 0; round < asked.rounds; round++) {
    wake_up(&discarded);
    fall_asleep(&discards, DROWSE_DISCARD, NULL);
    measure_mapping(&map, &unmap);
  }
  bench_close();
  print_mapping(&map, &unmap);
  print("sleep, sealed", blocks, &sealed, "unmap", limit.unmap);
  print("sleep, discarding", blocks, &discards, "unmap", limit.unmap);
  print("wake, discarded", blocks, &discarded, "map", limit.map);
}

/* As servers do with every request. */
static void hold_a_million_times(const drowse_tag *tag) {
  for (int i = 0; i < 1000000; i++) {
    ok("holding", tag != NULL ? drowse_hold_tag(bench_heap, tag, -1) : drowse_hold(bench_heap, "bench", -1));
    ok("letting go", tag != NULL ? drowse_unhold_tag(bench_heap, tag) : drowse_unhold(bench_heap, "bench"));
  }
}

static void measure_holds(void) {
  struct sample named = {0}, interned = {0};
  drowse_alloc_options options = {.struct_size = sizeof options, .tag = "bench"};
  void *ptr;
  open_heap();
  ok("allocating", drowse_alloc_with(bench_heap, 512, NULL, &options, &ptr));
  for (unsigned round = 0; round < asked.rounds; round++) {
    double begun = now();
    hold_a_million_times(NULL);
    add(&named, begun);
    begun = now();
    hold_a_million_times(drowse_tag_get("bench"));
    add(&interned, begun);
  }
  bench_close();
  print("a million holds", 1, &named, NULL, 0);
  print("a million holds, interned", 1, &interned, NULL, 0);
}

/* Until the tag can be used; the call returns when the file has gone too, which fio does not do. */
static void wake_from_file(struct sample *usable, struct sample *whole) {
  drowse_op *op;
  rest();
  double begun = now();
  ok("waking", drowse_wake_start(bench_heap, NULL, 0, NULL, &op));
  ok("waking", drowse_tag_wait(bench_heap, "bench", DROWSE_AWAKE, -1));
  add(usable, begun);
  ok("waking", drowse_op_wait(op, -1));
  add(whole, begun);
  drowse_op_release(op);
}

/* Beside the link; how it compares with fio, bench/sleep.sh tells. */
static void measure_file(void) {
  struct sample sleeps = {0}, usable = {0}, whole = {0};
  open_heap();
  allocate(asked.blocks, NULL);
  for (unsigned round = 0; round < asked.rounds; round++) {
    fall_asleep(&sleeps, DROWSE_OFFLOAD, asked.directory);
    wake_from_file(&usable, &whole);
  }
  bench_close();
  print("sleep, file", asked.blocks, &sleeps, "link+unmap", limit.link_out + limit.unmap);
  print("wake, file, usable", asked.blocks, &usable, "link+map", limit.link_in + limit.map);
  print("wake, file", asked.blocks, &whole, "link+map", limit.link_in + limit.map);
}

/* ---- arguments */

static bool parse(int argc, char **argv) {
  int option;
  while ((option = getopt(argc, argv, "d:g:b:m:n:f:l")) != -1) {
    switch (option) {
    case 'd':
      asked.device = optarg;
      break;
    case 'g':
      asked.bytes = bench_number(optarg, 1 << 10) << 30;
      break;
    case 'b':
      asked.blocks = bench_number(optarg, 1 << 20);
      break;
    case 'm':
      asked.many = bench_number(optarg, 1 << 20);
      break;
    case 'n':
      asked.rounds = (unsigned)bench_number(optarg, ROUNDS_MAX);
      break;
    case 'f':
      asked.directory = optarg;
      break;
    case 'l':
      asked.limits = true;
      break;
    default:
      return false;
    }
  }
  return optind == argc;
}

int main(int argc, char **argv) {
  if (!parse(argc, argv)) {
    fprintf(stderr, "usage: sleep [-d DEVICE] [-g GIB] [-b BLOCKS] [-m MANY] [-n ROUNDS] [-f DIRECTORY | -l]\n");
    return 2;
  }
  printf("device\twhat\tgib\tblocks\tms\tleast\tmost\tlimit\tlimit_ms\tratio\n");
  open_heap();
  measure_host();
  measure_mappings();
  bench_close();
  if (asked.limits) return EXIT_SUCCESS;
  if (asked.directory != NULL) {
    measure_file();
    return EXIT_SUCCESS;
  }
  measure_holds();
  measure_first();
  measure_later(asked.blocks, false);
  measure_later(asked.many, false);
  measure_later(asked.many, true);
  measure_short(asked.blocks);
  measure_short(asked.many);
  return EXIT_SUCCESS;
}
