/* SPDX-License-Identifier: Apache-2.0
 *
 * A competing tenant takes and gives back device memory at random, while a heap allocates, sleeps and wakes on the same device.
 * Whatever the tenant has, a call succeeds, or says NO_DEVICE_MEMORY and changes nothing, and the same call succeeds when the
 * tenant has given back what it had; every byte is whole.
 *
 *   tenant [ROUNDS [SEED]]     default: 100 1. With DROWSE_TEST_DEVICE=cuda:0 it is done there
 *
 * On the host device, which is a process's own, the tenant is a thread with another heap; on a GPU it is another process: this
 * program, started once more.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <spawn.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gpu/expect.h"

extern char **environ;

enum { BLOCKS = 8, PLAY = 4, HELD = 16, SHORT_AT_LEAST = 10, BLOCK_MOST = 128 << 20 };

static const char *device = "host:96MiB";

static uint64_t next_random(uint64_t *state) {
  uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
  z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
  return z ^ z >> 27;
}

static drowse_heap *open_heap(void) {
  drowse_heap *opened;
  drowse_heap_options options = {.struct_size = sizeof options, .device = device};
  EXPECT_OK(drowse_heap_open(&opened, &options));
  return opened;
}

static uint64_t free_bytes(drowse_heap *of) {
  drowse_heap_info info = {.struct_size = sizeof info};
  EXPECT_OK(drowse_heap_info_get(of, &info));
  return info.free_bytes;
}

/* ---- the tenant: at work until a byte asks for a pause without memory, which it answers, and another one ends; at the end of
 * its input it leaves */

struct tenant {
  int in, out;
  uint64_t random;
  drowse_heap *heap;
  void *held[HELD];
};

static void give_back(struct tenant *tenant, unsigned i) {
  EXPECT_OK(drowse_free(tenant->heap, tenant->held[i]));
  EXPECT_OK(drowse_trim(tenant->heap, 0));
  tenant->held[i] = NULL;
}

static void give_all_back(struct tenant *tenant) {
  for (unsigned i = 0; i < HELD; i++) {
    if (tenant->held[i] != NULL) give_back(tenant, i);
  }
}

/* At most half of what is free, so that it comes close to all of it and never has just that. */
static void take_or_give(struct tenant *tenant) {
  unsigned i = (unsigned)(next_random(&tenant->random) % HELD);
  if (tenant->held[i] != NULL) {
    give_back(tenant, i);
    return;
  }
  uint64_t bytes = next_random(&tenant->random) % (free_bytes(tenant->heap) / 2 + 1);
  drowse_status status = drowse_alloc(tenant->heap, bytes, NULL, &tenant->held[i]);
  EXPECT(status == DROWSE_OK || status == DROWSE_ERR_NO_DEVICE_MEMORY);
}

static bool is_asked(const struct tenant *tenant) {
  struct pollfd input = {.fd = tenant->in, .events = POLLIN};
  return poll(&input, 1, 0) > 0;
}

static void *tenant_main(void *argument) {
  struct tenant *tenant = argument;
  char byte;
  tenant->heap = open_heap();
  for (;;) {
    if (!is_asked(tenant)) {
      take_or_give(tenant);
    } else {
      if (read(tenant->in, &byte, 1) != 1) break;
      give_all_back(tenant);
      EXPECT(write(tenant->out, &byte, 1) == 1);
      if (read(tenant->in, &byte, 1) != 1) break;
    }
  }
  give_all_back(tenant);
  EXPECT_OK(drowse_heap_close(tenant->heap));
  return NULL;
}

/* ---- its end here */

static struct {
  struct tenant tenant; /* the thread's */
  pthread_t thread;
  pid_t process; /* 0: it is a thread */
  int to, from;
} other;

static void spawn_tenant(const int to[2], const int from[2], char *seed) {
  char program[] = "/proc/self/exe", word[] = "tenant", *arguments[] = {program, word, seed, NULL};
  posix_spawn_file_actions_t actions;
  EXPECT(posix_spawn_file_actions_init(&actions) == 0);
  EXPECT(posix_spawn_file_actions_adddup2(&actions, to[0], STDIN_FILENO) == 0);
  EXPECT(posix_spawn_file_actions_adddup2(&actions, from[1], STDOUT_FILENO) == 0);
  EXPECT(posix_spawn_file_actions_addclose(&actions, to[1]) == 0);
  EXPECT(posix_spawn(&other.process, program, &actions, NULL, arguments, environ) == 0);
  EXPECT(posix_spawn_file_actions_destroy(&actions) == 0);
  EXPECT(close(to[0]) == 0 && close(from[1]) == 0);
}

static void start_tenant(uint64_t seed) {
  int to[2], from[2];
  char text[32];
  EXPECT(pipe(to) == 0 && pipe(from) == 0);
  other.to = to[1];
  other.from = from[0];
  if (strncmp(device, "cuda", 4) == 0) {
    (void)snprintf(text, sizeof text, "%" PRIu64, seed);
    spawn_tenant(to, from, text);
  } else {
    other.tenant = (struct tenant){.in = to[0], .out = from[1], .random = seed};
    EXPECT(pthread_create(&other.thread, NULL, tenant_main, &other.tenant) == 0);
  }
}

static void pause_tenant(void) {
  char byte = 'p';
  EXPECT(write(other.to, &byte, 1) == 1 && read(other.from, &byte, 1) == 1);
}

static void continue_tenant(void) {
  EXPECT(write(other.to, "", 1) == 1);
}

static void end_tenant(void) {
  int status = 0;
  EXPECT(close(other.to) == 0);
  if (other.process == 0)
    EXPECT(pthread_join(other.thread, NULL) == 0);
  else
    EXPECT(waitpid(other.process, &status, 0) == other.process && status == 0);
  EXPECT(close(other.from) == 0);
}

/* ---- the heap that has to live with it */

static drowse_heap *heap;
static void *blocks[BLOCKS], *extra;
static size_t block_bytes, extra_bytes;
static unsigned char *bytes_wanted, *bytes_found;
static unsigned long times_short;

static const char *const tag = "a";

static drowse_status allocate(void) {
  return drowse_alloc(heap, extra_bytes, NULL, &extra);
}

static drowse_status offload(void) {
  return drowse_sleep(heap, &(drowse_rule){.tag = tag, .action = DROWSE_OFFLOAD}, 1, NULL);
}

static drowse_status wake(void) {
  return drowse_wake(heap, &tag, 1, NULL);
}

static drowse_state state(void) {
  drowse_stats stats = {.struct_size = sizeof stats};
  EXPECT_OK(drowse_stats_get(heap, tag, &stats));
  return stats.state;
}

static void fill(uint64_t seed) {
  for (size_t at = 0; at < block_bytes; at += sizeof seed) {
    uint64_t word = next_random(&seed);
    memcpy(bytes_wanted + at, &word, sizeof word);
  }
}

static void make_blocks(void) {
  drowse_alloc_options options = {.struct_size = sizeof options, .tag = tag};
  for (unsigned i = 0; i < BLOCKS; i++) {
    EXPECT_OK(drowse_alloc_with(heap, block_bytes, NULL, &options, &blocks[i]));
    fill(i);
    EXPECT_OK(drowse_copy_in(heap, blocks[i], bytes_wanted, block_bytes));
  }
}

/* All but what is in play is taken for good: on a large device nobody would ever be short of memory. */
static void take_the_rest(void) {
  drowse_alloc_options options = {.struct_size = sizeof options, .tag = "the rest"};
  uint64_t has = free_bytes(heap), in_play = (uint64_t)PLAY * BLOCKS * block_bytes;
  void *rest;
  if (block_bytes == BLOCK_MOST && has > in_play) EXPECT_OK(drowse_alloc_with(heap, has - in_play, NULL, &options, &rest));
}

static void expect_whole(unsigned i) {
  memset(bytes_found, 0, block_bytes);
  fill(i);
  EXPECT_OK(drowse_copy_out(heap, bytes_found, blocks[i], block_bytes));
  EXPECT(memcmp(bytes_found, bytes_wanted, block_bytes) == 0);
}

static void expect_short(drowse_status status, drowse_state before) {
  drowse_error error = {.struct_size = sizeof error};
  EXPECT(status == DROWSE_ERR_NO_DEVICE_MEMORY);
  EXPECT_OK(drowse_error_get(&error));
  EXPECT(error.wanted_bytes > 0 && strstr(drowse_last_error(), device) != NULL);
  EXPECT(state() == before && extra == NULL);
  times_short++;
}

static void call_beside_tenant(drowse_status (*call)(void)) {
  drowse_state before = state();
  drowse_status status = call();
  if (status == DROWSE_OK) return;
  expect_short(status, before);
  expect_whole((unsigned)(times_short % BLOCKS));
  pause_tenant();
  EXPECT_OK(call());
  continue_tenant();
}

static void live_beside_tenant(uint64_t *random) {
  extra_bytes = (size_t)(next_random(random) % (BLOCKS * block_bytes)) + 1;
  call_beside_tenant(allocate);
  EXPECT_OK(drowse_free(heap, extra));
  extra = NULL;
  call_beside_tenant(offload);
  EXPECT_OK(drowse_trim(heap, 0));
  call_beside_tenant(wake);
  expect_whole((unsigned)(next_random(random) % BLOCKS));
}

static void run(unsigned long rounds, uint64_t seed) {
  uint64_t random = seed;
  heap = open_heap();
  block_bytes = (size_t)(free_bytes(heap) / (PLAY * BLOCKS) / 4096 * 4096);
  if (block_bytes > BLOCK_MOST) block_bytes = BLOCK_MOST;
  bytes_wanted = malloc(block_bytes);
  bytes_found = malloc(block_bytes);
  EXPECT(bytes_wanted != NULL && bytes_found != NULL);
  take_the_rest();
  make_blocks();
  start_tenant(seed + 1);
  unsigned long round = 0;
  for (; round < rounds || times_short < SHORT_AT_LEAST; round++) live_beside_tenant(&random);
  end_tenant();
  for (unsigned i = 0; i < BLOCKS; i++) expect_whole(i);
  EXPECT_OK(drowse_heap_close(heap));
  free(bytes_wanted);
  free(bytes_found);
  printf("%lu rounds on %s, seed %" PRIu64 ": short of memory %lu times\n", round, device, seed, times_short);
}

static bool read_number(const char *text, uint64_t *number) {
  char *end;
  *number = strtoull(text, &end, 10);
  return *text >= '0' && *text <= '9' && *end == '\0';
}

int main(int argc, char **argv) {
  uint64_t rounds = 100, seed = 1;
  const char *chosen = getenv("DROWSE_TEST_DEVICE");
  if (chosen != NULL) device = chosen;
  if (argc == 3 && strcmp(argv[1], "tenant") == 0 && read_number(argv[2], &seed)) {
    struct tenant tenant = {.in = STDIN_FILENO, .out = STDOUT_FILENO, .random = seed};
    (void)tenant_main(&tenant);
    return EXIT_SUCCESS;
  }
  if (argc > 3 || (argc > 1 && !read_number(argv[1], &rounds)) || (argc > 2 && !read_number(argv[2], &seed))) {
    (void)fprintf(stderr, "usage: tenant [ROUNDS [SEED]]\n");
    return EXIT_FAILURE;
  }
  run((unsigned long)rounds, seed);
  return EXIT_SUCCESS;
}
