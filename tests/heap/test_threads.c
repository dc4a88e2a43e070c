/* SPDX-License-Identifier: Apache-2.0
 *
 * Many threads on one heap, against an oracle that knows every block: none overlaps another, each keeps its bytes.
 */
#include "fixture.h"

enum { THREADS = 4, SLOTS = 24, ROUNDS = 500 };

struct slot {
  unsigned char *ptr; /* NULL: none */
  size_t bytes;
  uint64_t seed;
};

/* All threads' slots, so that each can look whether a new block overlaps another. */
static struct slot slots[THREADS][SLOTS];
static pthread_mutex_t slots_lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_int out_of_memory;

struct worker {
  pthread_t thread;
  int number;
  CUstream stream;
  const char *failure;
};

static bool overlaps_another(const struct slot *new) {
  for (int thread = 0; thread < THREADS; thread++) {
    for (int i = 0; i < SLOTS; i++) {
      const struct slot *slot = &slots[thread][i];
      if (slot->ptr != NULL && slot->ptr < new->ptr + new->bytes &&new->ptr < slot->ptr + slot->bytes) return true;
    }
  }
  return false;
}

static const char *fill(struct worker *worker, struct slot *slot, uint64_t *random) {
  static const char *const tags[] = {"a", "b", "c"};
  struct slot new = {.bytes = 1 + random_below(random, random_below(random, 16) == 0 ? 3 * MIB : 100 * KIB)};
  drowse_alloc_options options = {.struct_size = sizeof options,
                                  .tag = tags[random_below(random, 3)],
                                  .alignment = 512ull << random_below(random, 6),
                                  .expandable = (drowse_expandable)(1 + random_below(random, 2))};
  void *ptr;
  drowse_status status = drowse_alloc_with(heap, new.bytes, worker->stream, &options, &ptr);
  if (status == DROWSE_ERR_NO_DEVICE_MEMORY) {
    atomic_fetch_add(&out_of_memory, 1);
    return NULL;
  }
  if (status != DROWSE_OK) return "alloc";
  new.ptr = ptr;
  new.seed = next_random(random);
  if ((uintptr_t)ptr % options.alignment != 0) return "alignment";
  (void)pthread_mutex_lock(&slots_lock);
  bool overlaps = overlaps_another(&new);
  *slot = new;
  (void)pthread_mutex_unlock(&slots_lock);
  if (overlaps) return "overlap";
  unsigned char bytes[64];
  fill_pattern(bytes, sizeof bytes, new.seed);
  size_t part = new.bytes < sizeof bytes ? new.bytes : sizeof bytes;
  if (drowse_copy_in(heap, new.ptr, bytes, part) != DROWSE_OK) return "copy_in";
  if (drowse_copy_in(heap, new.ptr + new.bytes - part, bytes, part) != DROWSE_OK) return "copy_in at the end";
  return NULL;
}

static const char *empty(struct slot *slot) {
  unsigned char expected[64], found[64];
  fill_pattern(expected, sizeof expected, slot->seed);
  size_t part = slot->bytes < sizeof expected ? slot->bytes : sizeof expected;
  if (drowse_copy_out(heap, found, slot->ptr + slot->bytes - part, part) != DROWSE_OK) return "copy_out";
  if (memcmp(expected, found, part) != 0) return "another's bytes at the end";
  if (part < slot->bytes && slot->bytes < 2 * part) part = 1; /* where both parts overlap */
  if (drowse_copy_out(heap, found, slot->ptr, part) != DROWSE_OK) return "copy_out";
  if (part > 1 && memcmp(expected, found, part) != 0) return "another's bytes";
  (void)pthread_mutex_lock(&slots_lock);
  void *ptr = slot->ptr;
  slot->ptr = NULL;
  (void)pthread_mutex_unlock(&slots_lock);
  return drowse_free(heap, ptr) == DROWSE_OK ? NULL : "free";
}

static void *work(void *argument) {
  struct worker *worker = argument;
  uint64_t random = 1000 + (uint64_t)worker->number;
  for (int round = 0; round < ROUNDS && worker->failure == NULL; round++) {
    struct slot *slot = &slots[worker->number][random_below(&random, SLOTS)];
    worker->failure = slot->ptr == NULL ? fill(worker, slot, &random) : empty(slot);
    if (worker->failure == NULL && round % 100 == 50 && drowse_trim(heap, MIB) != DROWSE_OK) worker->failure = "trim";
  }
  return NULL;
}

static void run_workers(void) {
  struct worker workers[THREADS];
  memset(slots, 0, sizeof slots);
  atomic_store(&out_of_memory, 0);
  for (int i = 0; i < THREADS; i++) {
    workers[i] = (struct worker){.number = i, .stream = make_stream()};
    ck_assert_int_eq(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
  }
  for (int i = 0; i < THREADS; i++) {
    ck_assert_int_eq(pthread_join(workers[i].thread, NULL), 0);
    ck_assert_msg(workers[i].failure == NULL, "thread %d: %s", i, workers[i].failure);
  }
  uint64_t live = 0, blocks = 0;
  for (int i = 0; i < THREADS; i++) {
    for (int n = 0; n < SLOTS; n++) {
      if (slots[i][n].ptr == NULL) continue;
      live += (slots[i][n].bytes + 511) / 512 * 512;
      blocks++;
    }
  }
  drowse_stats stats = stats_of(NULL);
  ck_assert_uint_eq(stats.live_bytes, live);
  ck_assert_uint_eq(stats.live_blocks, blocks);
  ck_assert_uint_eq(stats.mapped_bytes, heap->total_bytes - device_free_bytes());
  for (int i = 0; i < THREADS; i++) {
    for (int n = 0; n < SLOTS; n++) {
      const char *failure = slots[i][n].ptr == NULL ? NULL : empty(&slots[i][n]);
      ck_assert_msg(failure == NULL, "%s", failure);
    }
    ck_ok(drowse_stream_retire(heap, workers[i].stream));
    ck_cu(StreamDestroy(workers[i].stream));
  }
  ck_ok(drowse_trim(heap, 0));
  ck_assert_uint_eq(stats_of(NULL).mapped_bytes, 0);
  ck_assert_uint_eq(stats_of(NULL).reserved_bytes, 0);
}

START_TEST(threads_with_plenty_of_memory) {
  open_with((drowse_heap_options){.device = "host:512MiB"});
  run_workers();
  ck_assert_int_eq(out_of_memory, 0);
  close_heap();
}
END_TEST

START_TEST(threads_short_of_memory) {
  open_with((drowse_heap_options){.device = "host:32MiB"});
  run_workers();
  ck_assert_int_gt(out_of_memory, 0);
  close_heap();
}
END_TEST

int main(void) {
  Suite *suite = suite_create("threads");
  HARNESS_TEST(suite, threads_with_plenty_of_memory);
  HARNESS_TEST(suite, threads_short_of_memory);
  return harness_run(suite);
}
