/* SPDX-License-Identifier: Apache-2.0
 *
 * Random operations by several threads against an oracle: some allocate, write, read and free, while others put tags to sleep and
 * wake them, seal them, cancel what they have started, and trim. Backups go to the host, which has too little room at times, and
 * to files. A call that comes while a tag moves is turned away, and then nothing has changed; the memory of a tag that is held is
 * there for the device.
 */
#include "fixture.h"

#include <unistd.h>

enum { WORKERS = 3, SLEEPERS = 2, TAGS = 4, SLOTS = 12, ROUNDS = 2500, MOTIONS = 400, BYTES_MAX = 300 * 1024, LIMIT = 4 << 20 };

static const char *const tags[TAGS] = {"a", "b", "c", "scratch"}; /* the last one is discarded */

struct slot {
  unsigned char *ptr; /* NULL: none */
  size_t bytes;
  int tag;
  uint64_t seed;
};

struct worker {
  pthread_t thread;
  uint64_t random;
  CUstream stream, other;
  struct slot slots[SLOTS];
  unsigned char expected[BYTES_MAX], found[BYTES_MAX];
  const char *failure;
  drowse_status status; /* what failed */
};

static struct worker workers[WORKERS];
static char directory[] = "drowse-test-XXXXXX";
static atomic_int sleeps, wakes, turned_away;

static const char *failed(struct worker *worker, drowse_status status, const char *what) {
  worker->status = status;
  return what;
}

static bool keeps_contents(const struct slot *slot) {
  return slot->tag != TAGS - 1;
}

/* With a hold or without: where a sleep waits already, it is turned away. */
static bool is_turned_away(drowse_status status) {
  bool turned = status == DROWSE_ERR_BUSY || status == DROWSE_ERR_ASLEEP;
  if (turned) atomic_fetch_add(&turned_away, 1);
  return turned;
}

/* The slot of a block with contents, or an empty one where the call was turned away. */
static const char *allocate_held(struct worker *worker, struct slot *new) {
  void *ptr;
  drowse_alloc_options options = {.struct_size = sizeof options,
                                  .tag = tags[new->tag],
                                  .expandable = (drowse_expandable)(1 + random_below(&worker->random, 2))};
  drowse_status status = drowse_alloc_with(heap, new->bytes, worker->stream, &options, &ptr);
  if (status != DROWSE_OK) return is_turned_away(status) ? NULL : failed(worker, status, "alloc");
  fill_pattern(worker->expected, new->bytes, new->seed);
  status = drowse_copy_in(heap, ptr, worker->expected, new->bytes);
  if (status == DROWSE_OK) {
    new->ptr = ptr;
    return NULL;
  }
  if (!is_turned_away(status)) return failed(worker, status, "copy_in");
  status = drowse_free(heap, ptr);
  return status == DROWSE_OK ? NULL : failed(worker, status, "free");
}

/* The hold waits until the tag is awake: else a worker would be turned away all the time that others sleep. */
static const char *allocate(struct worker *worker, struct slot *slot) {
  struct slot new = {.bytes = 1 + random_below(&worker->random, BYTES_MAX),
                     .tag = (int)random_below(&worker->random, TAGS),
                     .seed = next_random(&worker->random)};
  drowse_status status = drowse_hold(heap, tags[new.tag], -1);
  if (status != DROWSE_OK) return failed(worker, status, "hold");
  const char *failure = allocate_held(worker, &new);
  status = drowse_unhold(heap, tags[new.tag]);
  if (status != DROWSE_OK) return failed(worker, status, "unhold");
  *slot = new;
  return failure;
}

/* While a tag is held its memory is there for the device to use. */
static const char *use_held(struct worker *worker, const struct slot *slot) {
  drowse_status status = drowse_hold(heap, tags[slot->tag], -1);
  if (status != DROWSE_OK) return failed(worker, status, "hold");
  CUresult code = cu->MemcpyDtoHAsync(worker->found, (CUdeviceptr)(uintptr_t)slot->ptr, slot->bytes, worker->stream);
  if (code == CUDA_SUCCESS) code = cu->StreamSynchronize(worker->stream);
  status = drowse_unhold(heap, tags[slot->tag]);
  if (status != DROWSE_OK) return failed(worker, status, "unhold");
  if (code != CUDA_SUCCESS) return failed(worker, DROWSE_ERR_DRIVER, "the device's use of held memory");
  fill_pattern(worker->expected, slot->bytes, slot->seed);
  bool same = memcmp(worker->expected, worker->found, slot->bytes) == 0;
  return same || !keeps_contents(slot) ? NULL : failed(worker, DROWSE_OK, "held memory has other bytes than were written");
}

static const char *look(struct worker *worker, const struct slot *slot) {
  drowse_status status = drowse_copy_out(heap, worker->found, slot->ptr, slot->bytes);
  if (status == DROWSE_ERR_ASLEEP && keeps_contents(slot)) return failed(worker, status, "copy_out of a backup");
  if (is_turned_away(status)) return NULL;
  if (status != DROWSE_OK) return failed(worker, status, "copy_out");
  fill_pattern(worker->expected, slot->bytes, slot->seed);
  if (keeps_contents(slot) && memcmp(worker->expected, worker->found, slot->bytes) != 0)
    return failed(worker, DROWSE_OK, "other bytes than were written");
  drowse_block block = {.struct_size = sizeof block};
  status = drowse_block_get(heap, slot->ptr + slot->bytes - 1, &block);
  if (status != DROWSE_OK || block.base != slot->ptr || strcmp(block.tag, tags[slot->tag]) != 0)
    return failed(worker, status, "block_get");
  return NULL;
}

static const char *change(struct worker *worker, struct slot *slot) {
  uint64_t seed = next_random(&worker->random);
  fill_pattern(worker->expected, slot->bytes, seed);
  drowse_status status = drowse_copy_in(heap, slot->ptr, worker->expected, slot->bytes);
  if (status == DROWSE_OK) {
    slot->seed = seed;
    return NULL;
  }
  if (status == DROWSE_ERR_ASLEEP && keeps_contents(slot)) return failed(worker, status, "copy_in to a backup");
  return is_turned_away(status) ? NULL : failed(worker, status, "copy_in");
}

/* Whatever its tag does, another stream may have used it. */
static const char *use_elsewhere(struct worker *worker, const struct slot *slot) {
  drowse_status status = drowse_record_stream(heap, slot->ptr, worker->other);
  return status == DROWSE_OK ? NULL : failed(worker, status, "record_stream");
}

static const char *release(struct worker *worker, struct slot *slot) {
  bool elsewhere = random_below(&worker->random, 4) == 0;
  drowse_status status = elsewhere ? drowse_free_on(heap, slot->ptr, worker->other) : drowse_free(heap, slot->ptr);
  slot->ptr = NULL;
  return status == DROWSE_OK ? NULL : failed(worker, status, "free");
}

static void *work(void *argument) {
  struct worker *worker = argument;
  if (cu->CtxSetCurrent(heap->context) != CUDA_SUCCESS) worker->failure = "no context";
  for (int round = 0; round < ROUNDS && worker->failure == NULL; round++) {
    struct slot *slot = &worker->slots[random_below(&worker->random, SLOTS)];
    uint64_t kind = random_below(&worker->random, 6);
    worker->failure = slot->ptr == NULL ? allocate(worker, slot)
                      : kind == 0       ? release(worker, slot)
                      : kind == 1       ? change(worker, slot)
                      : kind == 2       ? use_held(worker, slot)
                      : kind == 3       ? use_elsewhere(worker, slot)
                                        : look(worker, slot);
  }
  return NULL;
}

/* ---- those who put to sleep */

struct sleeper {
  pthread_t thread;
  uint64_t random;
  drowse_status status; /* not OK: what nobody should get */
};

static drowse_action action_of(int tag) {
  return tag == TAGS - 1 ? DROWSE_DISCARD : DROWSE_OFFLOAD;
}

/* Waits for an operation, or not; some are canceled, early or late. */
static drowse_status end_op(struct sleeper *sleeper, drowse_op *op) {
  uint64_t kind = random_below(&sleeper->random, 8), done_bytes, total_bytes;
  drowse_status status = DROWSE_ERR_TIMEOUT;
  bool cancels = kind < 3, waits = kind != 0 && kind != 3;
  if (kind == 2) (void)drowse_op_wait(op, 1);
  if (cancels) status = drowse_op_cancel(op);
  if (waits) status = drowse_op_wait(op, 0);
  while (waits && status == DROWSE_ERR_TIMEOUT) status = drowse_op_wait(op, 1);
  if (drowse_op_progress(op, &done_bytes, &total_bytes) != DROWSE_OK || done_bytes > total_bytes) status = DROWSE_ERR_CORRUPT;
  drowse_op_release(op);
  return !waits || (cancels && status == DROWSE_ERR_CANCELED) ? DROWSE_OK : status;
}

static drowse_status run_sleep(struct sleeper *sleeper, const drowse_rule *rules, size_t count,
                               const drowse_sleep_options *options) {
  drowse_op *op;
  if (random_below(&sleeper->random, 2) == 0) return drowse_sleep(heap, rules, count, options);
  drowse_status status = drowse_sleep_start(heap, rules, count, options, &op);
  return status == DROWSE_OK ? end_op(sleeper, op) : status;
}

/* Files are slow. */
static drowse_backup choose_backup(struct sleeper *sleeper) {
  uint64_t kind = random_below(&sleeper->random, 16);
  return kind == 0 ? DROWSE_BACKUP_FILE : kind == 1 ? DROWSE_BACKUP_HOST_THEN_FILE : DROWSE_BACKUP_HOST;
}

static drowse_status fall_asleep(struct sleeper *sleeper) {
  drowse_rule rules[TAGS];
  size_t count = 0;
  for (int tag = 0; tag < TAGS; tag++) {
    if (random_below(&sleeper->random, 2) == 0) continue;
    rules[count++] = (drowse_rule){.tag = tags[tag], .action = action_of(tag)};
  }
  drowse_sleep_options options = {
      .struct_size = sizeof options, .backup = choose_backup(sleeper), .directory = directory, .drain_timeout_ms = 1000};
  drowse_status status = run_sleep(sleeper, rules, count, &options);
  if (status == DROWSE_OK) atomic_fetch_add(&sleeps, 1);
  if (status == DROWSE_ERR_NO_HOST_MEMORY && options.backup == DROWSE_BACKUP_HOST) return DROWSE_OK;
  return status == DROWSE_ERR_BUSY ? DROWSE_OK : status; /* the other one moves a tag already */
}

static drowse_status run_wake(struct sleeper *sleeper, const char *const *names, size_t count,
                              const drowse_wake_options *options) {
  drowse_op *op;
  if (random_below(&sleeper->random, 2) == 0) return drowse_wake(heap, names, count, options);
  drowse_status status = drowse_wake_start(heap, names, count, options, &op);
  return status == DROWSE_OK ? end_op(sleeper, op) : status;
}

static drowse_status wake_up(struct sleeper *sleeper) {
  const char *names[TAGS];
  size_t count = 0, first = random_below(&sleeper->random, TAGS);
  for (size_t i = 0; i < TAGS; i++) {
    if (random_below(&sleeper->random, 3) != 0) names[count++] = tags[(first + i) % TAGS];
  }
  drowse_wake_options options = {.struct_size = sizeof options,
                                 .flags = random_below(&sleeper->random, 2) == 0 ? DROWSE_WAKE_TOGETHER : DROWSE_WAKE_POISON};
  drowse_status status = run_wake(sleeper, names, count, &options);
  if (status == DROWSE_OK) atomic_fetch_add(&wakes, 1);
  return status == DROWSE_ERR_BUSY ? DROWSE_OK : status;
}

static drowse_status change_seal(struct sleeper *sleeper) {
  const char *tag = tags[random_below(&sleeper->random, TAGS)];
  drowse_status status = random_below(&sleeper->random, 3) == 0 ? drowse_unseal(heap, tag) : drowse_seal(heap, tag);
  return status == DROWSE_ERR_BUSY ? DROWSE_OK : status;
}

static drowse_status trim_something(struct sleeper *sleeper) {
  switch (random_below(&sleeper->random, 16)) {
  case 0:
    return drowse_trim(heap, MIB);
  case 1:
    return drowse_backup_trim(heap, random_below(&sleeper->random, MIB));
  default:
    return DROWSE_OK;
  }
}

static void *put_to_sleep(void *argument) {
  struct sleeper *sleeper = argument;
  for (int i = 0; i < MOTIONS && sleeper->status == DROWSE_OK; i++) {
    sleeper->status = fall_asleep(sleeper);
    if (sleeper->status == DROWSE_OK) sleeper->status = change_seal(sleeper);
    if (sleeper->status == DROWSE_OK) sleeper->status = wake_up(sleeper);
    if (sleeper->status == DROWSE_OK) sleeper->status = trim_something(sleeper);
  }
  return NULL;
}

/* Workers may wait for a tag that nobody would wake any more, so one thread wakes all until they have ended. */
static atomic_bool workers_ended;

static void *keep_waking(void *argument) {
  drowse_status *status = argument;
  while (!atomic_load(&workers_ended) && *status == DROWSE_OK) {
    drowse_status woken = wake_all_tags();
    if (woken != DROWSE_ERR_BUSY) *status = woken;
    (void)sched_yield();
  }
  return NULL;
}

/* Operations that were released may still run. */
static void await_operations(void) {
  for (int tag = 0; tag < TAGS; tag++) {
    drowse_state state;
    while ((state = stats_of(tags[tag]).state) != DROWSE_AWAKE && state != DROWSE_ASLEEP) (void)sched_yield();
  }
}

static void run_threads(void) {
  struct sleeper sleepers[SLEEPERS];
  pthread_t waker;
  drowse_status waker_status = DROWSE_OK;
  for (int i = 0; i < WORKERS; i++) {
    workers[i].stream = make_stream();
    ck_ok(drowse_free(heap, alloc_on("a", 1, workers[i].stream))); /* so that the heap has seen it, whatever comes */
  }
  for (int i = 0; i < WORKERS; i++) {
    workers[i].random = 100 + (uint64_t)i;
    workers[i].other = workers[(i + 1) % WORKERS].stream;
    ck_assert_int_eq(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
  }
  for (int i = 0; i < SLEEPERS; i++) {
    sleepers[i] = (struct sleeper){.random = 200 + (uint64_t)i};
    ck_assert_int_eq(pthread_create(&sleepers[i].thread, NULL, put_to_sleep, &sleepers[i]), 0);
  }
  for (int i = 0; i < SLEEPERS; i++) ck_assert_int_eq(pthread_join(sleepers[i].thread, NULL), 0);
  ck_assert_int_eq(pthread_create(&waker, NULL, keep_waking, &waker_status), 0);
  for (int i = 0; i < WORKERS; i++) ck_assert_int_eq(pthread_join(workers[i].thread, NULL), 0);
  atomic_store(&workers_ended, true);
  ck_assert_int_eq(pthread_join(waker, NULL), 0);
  ck_ok(waker_status);
  for (int i = 0; i < SLEEPERS; i++) ck_ok(sleepers[i].status);
}

static void ck_oracle(void) {
  uint64_t live_bytes = 0, live_blocks = 0;
  for (int i = 0; i < WORKERS; i++) {
    struct worker *worker = &workers[i];
    ck_assert_msg(worker->failure == NULL, "worker %d: %s: %s", i, worker->failure, drowse_status_name(worker->status));
    for (int n = 0; n < SLOTS; n++) {
      if (worker->slots[n].ptr == NULL) continue;
      const char *failure = look(worker, &worker->slots[n]);
      ck_assert_msg(failure == NULL, "%s", failure);
      live_bytes += (worker->slots[n].bytes + 511) / 512 * 512;
      live_blocks++;
    }
  }
  drowse_stats stats = stats_of(NULL);
  ck_assert_uint_eq(stats.live_bytes, live_bytes);
  ck_assert_uint_eq(stats.live_blocks, live_blocks);
  ck_assert_uint_eq(stats.holds, 0);
  ck_assert_uint_eq(stats.mapped_bytes, heap->total_bytes - device_free_bytes());
}

static void fall_asleep_at_last(void) {
  drowse_sleep_options options = {.struct_size = sizeof options, .backup = DROWSE_BACKUP_HOST_THEN_FILE, .directory = directory};
  ck_ok(drowse_sleep(heap, &(drowse_rule){.action = DROWSE_OFFLOAD}, 1, &options));
  drowse_stats stats = stats_of(NULL);
  ck_assert_uint_eq(stats.mapped_bytes, 0);
  ck_assert_uint_eq(stats.backup_bytes + stats.file_bytes, stats.live_bytes);
}

/* No backup is left behind, and nothing in the arena. */
static void unseal_all(void) {
  for (int tag = 0; tag < TAGS; tag++) ck_ok(drowse_unseal(heap, tags[tag]));
  ck_assert_uint_eq(stats_of(NULL).backup_bytes + stats_of(NULL).file_bytes, 0);
  ck_ok(drowse_backup_trim(heap, 0));
  ck_assert_uint_eq(stats_of(NULL).host_bytes, 0);
}

START_TEST(threads_against_the_oracle) {
  ck_assert_ptr_nonnull(mkdtemp(directory));
  open_with((drowse_heap_options){.device = "host:256MiB", .backup_limit = LIMIT});
  for (int tag = 0; tag < TAGS; tag++) (void)alloc_tag(tags[tag], 1); /* so that the tags are there to be held */
  for (int tag = 0; tag < TAGS; tag++) ck_ok(drowse_tag_clear(heap, tags[tag]));
  atomic_store(&workers_ended, false);
  run_threads();
  await_operations();
  ck_oracle();
  ck_ok(wake_all_tags());
  ck_oracle();
  fall_asleep_at_last();
  ck_oracle();
  ck_ok(wake_all_tags());
  unseal_all();
  ck_oracle();
  ck_assert_int_gt(sleeps, 0);
  ck_assert_int_gt(wakes, 0);
  for (int i = 0; i < WORKERS; i++) {
    ck_ok(drowse_stream_retire(heap, workers[i].stream));
    ck_cu(StreamDestroy(workers[i].stream));
  }
  close_heap();
  ck_assert_int_eq(rmdir(directory), 0);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("model");
  HARNESS_TEST(suite, threads_against_the_oracle);
  return harness_run(suite);
}
