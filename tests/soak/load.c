/* SPDX-License-Identifier: Apache-2.0
 *
 * Load: threads that ask at random.
 */
#include "load.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct load {
  const struct target *target;
  struct amount amount;
  double begun;
  atomic_uint_fast64_t next;
  pthread_rwlock_t quiet; /* whoever wants silence writes, all others read */
};

struct worker {
  struct load *load;
  uint64_t random;
  struct wire wire;
  struct totals totals;
};

static double now(void) {
  struct timespec time;
  (void)clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* From 0 to below limit. */
static uint64_t draw(struct worker *worker, uint64_t limit) {
  worker->random ^= worker->random << 13;
  worker->random ^= worker->random >> 7;
  worker->random ^= worker->random << 17;
  return worker->random % limit;
}

/* ---- what a worker does */

/* A quarter are ones that others ask for too, and fit into the cache; most are small; some are as large as may be. */
static void draw_range(struct worker *worker, size_t *offset, size_t *bytes) {
  size_t all = worker->load->target->file_bytes;
  uint64_t kind = draw(worker, 100);
  size_t most = kind < 25 ? 32768 : kind < 90 ? 100000 : WIRE_BODY_MOST;
  if (most > all) most = all;
  *bytes = kind < 25 ? most : 1 + (size_t)draw(worker, most);
  *offset = kind < 25 ? (size_t)draw(worker, 50) * (all - *bytes) / 50 : (size_t)draw(worker, all - *bytes + 1);
}

static void range(struct worker *worker) {
  size_t offset, bytes;
  draw_range(worker, &offset, &bytes);
  double begun = now();
  enum verdict verdict = expect_range(&worker->wire, worker->load->target, offset, bytes);
  double ms = (now() - begun) * 1e3;
  worker->totals.ranges++;
  if (verdict == RIGHT) latency_add(&worker->totals.latency, ms);
  if (verdict == RIGHT && worker->wire.woke) latency_add(&worker->totals.first, ms);
  worker->totals.refusals += verdict == REFUSED;
  worker->totals.failures += verdict == FAILED;
  worker->totals.wrong_bytes += verdict == WRONG_BYTES;
  worker->totals.wrong_answers += verdict == WRONG_ANSWER;
}

/* Before the answer, inside it, or behind it. */
static void break_off(struct worker *worker) {
  char path[96];
  size_t offset, bytes;
  draw_range(worker, &offset, &bytes);
  (void)snprintf(path, sizeof path, "/weights?offset=%zu&bytes=%zu", offset, bytes);
  size_t some = draw(worker, 2) == 0 ? 0 : (size_t)draw(worker, bytes + 300);
  if (wire_abort(&worker->wire, "GET", path, some))
    worker->totals.aborts++;
  else
    worker->totals.wrong_answers++;
}

/* Something that may be refused; true: it was done. */
static bool order(struct worker *worker, const char *path) {
  if (!expect_passing(&worker->wire, worker->load->target, "POST", path)) {
    worker->totals.wrong_answers++;
    return false;
  }
  worker->totals.refusals += worker->wire.status == 503;
  worker->totals.failures += worker->wire.status == 500;
  return worker->wire.status == 200;
}

static void look(struct worker *worker, const char *path) {
  static const char *const states[] = {"\"awake\"", "\"asleep\"", "\"waking\""};
  bool known = false;
  if (expect_status(&worker->wire, "GET", path, 200)) {
    for (size_t i = 0; i < 3; i++) known = known || strstr(worker->wire.body, states[i]) != NULL;
    if (!known) (void)wrong("%s: no such state: %s", path, worker->wire.body);
  }
  worker->totals.wrong_answers += !known;
}

static void have_tenant(struct worker *worker) {
  char path[96];
  unsigned long long bytes = draw(worker, worker->load->target->tenant_bytes + 1);
  (void)snprintf(path, sizeof path, "/tenant?bytes=%llu&yields=%d", bytes, draw(worker, 3) > 0);
  (void)order(worker, path);
}

/* As when the machine is short of everything. */
static void stop_server(struct worker *worker) {
  (void)kill(worker->load->target->pid, SIGSTOP);
  (void)usleep((useconds_t)draw(worker, 20000));
  (void)kill(worker->load->target->pid, SIGCONT);
  worker->totals.stops++;
}

/* Nobody asks for anything: until the server sleeps, or for so long that it is about to; then all ask at once. */
static void be_quiet(struct worker *worker) {
  bool until_asleep = draw(worker, 2) == 0;
  if (!until_asleep) (void)usleep((useconds_t)draw(worker, 20000));
  while (until_asleep) {
    if (!expect_status(&worker->wire, "GET", "/health?wait=asleep", 200)) {
      worker->totals.wrong_answers++;
      return;
    }
    until_asleep = strstr(worker->wire.body, "asleep") == NULL;
    worker->totals.naps += !until_asleep;
  }
}

static void act(struct worker *worker) {
  const struct target *target = worker->load->target;
  uint64_t kind = draw(worker, 1000);
  if (kind < 80)
    break_off(worker);
  else if (kind < 140)
    look(worker, "/health");
  else if (kind < 160)
    look(worker, "/stats");
  else if (kind < 200)
    worker->totals.sleeps += order(worker, "/sleep");
  else if (kind < 230)
    worker->totals.wakes += order(worker, "/wake");
  else if (kind < 260 && target->tenant_bytes > 0)
    have_tenant(worker);
  else if (kind < 264 && target->stops)
    stop_server(worker);
  else
    range(worker);
}

static bool goes_on(struct load *load) {
  if (load->amount.requests > 0) return atomic_fetch_add(&load->next, 1) < load->amount.requests;
  return now() - load->begun < load->amount.seconds;
}

static void *work(void *context) {
  struct worker *worker = context;
  struct load *load = worker->load;
  wire_make(&worker->wire, load->target->port);
  while (goes_on(load)) {
    bool quiet = load->target->naps && draw(worker, 200) == 0;
    (void)(quiet ? pthread_rwlock_wrlock(&load->quiet) : pthread_rwlock_rdlock(&load->quiet));
    quiet ? be_quiet(worker) : act(worker);
    (void)pthread_rwlock_unlock(&load->quiet);
    worker->totals.requests++;
    if (draw(worker, 10) == 0) wire_close(&worker->wire);
  }
  wire_end(&worker->wire);
  return NULL;
}

/* ---- all of them */

static void add(struct totals *totals, struct totals *other) {
  totals->requests += other->requests;
  totals->ranges += other->ranges;
  totals->aborts += other->aborts;
  totals->sleeps += other->sleeps;
  totals->wakes += other->wakes;
  totals->refusals += other->refusals;
  totals->failures += other->failures;
  totals->naps += other->naps;
  totals->stops += other->stops;
  totals->wrong_bytes += other->wrong_bytes;
  totals->wrong_answers += other->wrong_answers;
  latency_merge(&totals->latency, &other->latency);
  latency_merge(&totals->first, &other->first);
}

static void make_quiet(pthread_rwlock_t *quiet) {
  pthread_rwlockattr_t attributes;
  (void)pthread_rwlockattr_init(&attributes);
  (void)pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
  (void)pthread_rwlock_init(quiet, &attributes);
  (void)pthread_rwlockattr_destroy(&attributes);
}

void load_run(const struct target *target, unsigned threads, struct amount amount, uint64_t seed, struct totals *totals) {
  struct load load = {.target = target, .amount = amount, .begun = now()};
  struct worker *workers = calloc(threads, sizeof *workers);
  pthread_t *handles = calloc(threads, sizeof *handles);
  if (workers == NULL || handles == NULL) abort();
  make_quiet(&load.quiet);
  for (unsigned i = 0; i < threads; i++) {
    workers[i] = (struct worker){.load = &load, .random = (seed + i + 1) * UINT64_C(0x9e3779b97f4a7c15)};
    if (pthread_create(&handles[i], NULL, work, &workers[i]) != 0) abort();
  }
  for (unsigned i = 0; i < threads; i++) {
    (void)pthread_join(handles[i], NULL);
    add(totals, &workers[i].totals);
  }
  (void)pthread_rwlock_destroy(&load.quiet);
  free(handles);
  free(workers);
}
