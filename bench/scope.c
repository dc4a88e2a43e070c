/* SPDX-License-Identifier: Apache-2.0
 *
 * What entering and leaving a scope costs, beside a pair of calls that do nothing and a stack that all threads share under a
 * mutex. No framework is attached.
 *
 *   scope [THREADS [PAIRS]]     default: 16 2000000; threads from 1 to THREADS, doubled each time
 *   scope count KIND PAIRS      that many pairs of a kind on one thread: bench/scope.sh counts its instructions
 *
 * Tab-separated: a line a measurement. ns is processor time for one pair: that of all threads over all their pairs, the least of
 * some rounds. Ratio is to the pair that does nothing on as many threads. Kinds take turns, so that
 * a machine that gets slower meanwhile does so for all.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "drowse.h"
#include "plt.h"

enum { ROUNDS = 7, THREADS_MAX = 256 };

static const drowse_tag *interned;

static void run_empty(size_t pairs) {
  for (size_t i = 0; i < pairs; i++) {
    plt_empty_enter();
    plt_empty_leave();
  }
}

static void run_tag(size_t pairs) {
  drowse_scope scope;
  const drowse_tag *tag = interned;
  for (size_t i = 0; i < pairs; i++) {
    if (drowse_scope_enter_tag(&scope, tag, DROWSE_EXPANDABLE_INHERIT) != DROWSE_OK) abort();
    (void)drowse_scope_leave(&scope);
  }
}

static void run_name(size_t pairs, const char *name) {
  drowse_scope scope;
  for (size_t i = 0; i < pairs; i++) {
    if (drowse_scope_enter(&scope, name, DROWSE_EXPANDABLE_INHERIT) != DROWSE_OK) abort();
    (void)drowse_scope_leave(&scope);
  }
}

static void run_name7(size_t pairs) {
  run_name(pairs, "weights");
}

static void run_name15(size_t pairs) {
  run_name(pairs, "optimizer state");
}

static void run_mutex(size_t pairs) {
  for (size_t i = 0; i < pairs; i++) {
    plt_mutex_enter("weights");
    plt_mutex_leave();
  }
}

static const struct kind {
  const char *name;
  void (*run)(size_t pairs);
} kinds[] = {
    {"empty", run_empty}, {"tag", run_tag}, {"name7", run_name7}, {"name15", run_name15}, {"mutex", run_mutex},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

/* Of this thread's processor time. */
static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

struct team {
  const struct kind *kind;
  size_t pairs;
  pthread_barrier_t begin;
};

struct member {
  pthread_t thread;
  struct team *team;
  double seconds;
};

static void *work(void *argument) {
  struct member *member = argument;
  struct team *team = member->team;
  team->kind->run(1); /* a thread's first scope allocates */
  (void)pthread_barrier_wait(&team->begin);
  double begun = now();
  team->kind->run(team->pairs);
  member->seconds = now() - begun;
  return NULL;
}

/* Seconds of processor time that a team of threads takes, all together. */
static double time_team(const struct kind *kind, unsigned count, size_t pairs) {
  struct team team = {.kind = kind, .pairs = pairs};
  struct member members[THREADS_MAX];
  double seconds = 0;
  (void)pthread_barrier_init(&team.begin, NULL, count);
  for (unsigned i = 0; i < count; i++) {
    members[i].team = &team;
    if (pthread_create(&members[i].thread, NULL, work, &members[i]) != 0) abort();
  }
  for (unsigned i = 0; i < count; i++) {
    (void)pthread_join(members[i].thread, NULL);
    seconds += members[i].seconds;
  }
  (void)pthread_barrier_destroy(&team.begin);
  return seconds;
}

static void measure(unsigned threads, size_t pairs) {
  double best[KINDS] = {0};
  for (unsigned round = 0; round < ROUNDS; round++) {
    for (unsigned i = 0; i < KINDS; i++) {
      double seconds = time_team(&kinds[i], threads, pairs / threads);
      if (round == 0 || seconds < best[i]) best[i] = seconds;
    }
  }
  for (unsigned i = 0; i < KINDS; i++) {
    printf("%s\t%u\t%.2f\t%.2f\n", kinds[i].name, threads, best[i] * 1e9 / (double)(pairs / threads * threads),
           best[i] / best[0]);
  }
  fflush(stdout);
}

static bool parse(const char *text, unsigned long most, unsigned long *number) {
  char *end;
  *number = strtoul(text, &end, 10);
  return *text >= '0' && *text <= '9' && *end == '\0' && *number >= 1 && *number <= most;
}

static int count(const char *name, size_t pairs) {
  for (unsigned i = 0; i < KINDS; i++) {
    if (strcmp(kinds[i].name, name) != 0) continue;
    kinds[i].run(pairs);
    return EXIT_SUCCESS;
  }
  fprintf(stderr, "bench/scope: there is no kind \"%s\"\n", name);
  return EXIT_FAILURE;
}

int main(int argc, char **argv) {
  unsigned long threads = 16, pairs = 2000000;
  interned = drowse_tag_get("weights");
  if (interned == NULL) return EXIT_FAILURE;
  if (argc == 4 && strcmp(argv[1], "count") == 0 && parse(argv[3], 1000000000, &pairs)) return count(argv[2], pairs);
  if (argc > 3 || (argc > 1 && !parse(argv[1], THREADS_MAX, &threads)) || (argc > 2 && !parse(argv[2], 1000000000, &pairs))) {
    fprintf(stderr, "usage: scope [THREADS [PAIRS]] or scope count KIND PAIRS\n");
    return EXIT_FAILURE;
  }
  printf("kind\tthreads\tns\tratio\n");
  for (unsigned used = 1; used <= threads; used *= 2) measure(used, pairs);
  return EXIT_SUCCESS;
}
