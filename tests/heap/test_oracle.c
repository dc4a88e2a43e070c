/* SPDX-License-Identifier: Apache-2.0
 *
 * Random operations from 16 threads against an oracle that knows every block: none overlaps another, each keeps its bytes, what
 * is live is counted exactly whenever all rest, and no memory is handed out while another stream still writes to it: much of it
 * is written to by such a stream just before it is freed.
 *
 *   test_oracle [DEVICE [OPERATIONS]]     also $ORACLE_DEVICE, $ORACLE_OPERATIONS
 */
#include "fixture.h"

enum { THREADS = 16, SLOTS = 32, COMMONS = 4, RESTS = 4, TAGS = 4, PART = 64 };

static const char *device = "host:16GiB";
static unsigned long operations = 40000;
static bool on_host = true;

/* All threads allocate in the first three; the third's contents are discarded when it sleeps. The last is each thread's own. */
enum { DISCARDED = 2, OWN = 3 };
static const char *const shared_tags[] = {"a", "b", "scratch"};

struct slot {
  unsigned char *ptr; /* NULL: none */
  size_t bytes;
  int tag;
  bool known;   /* contents have been written, to both ends */
  bool settled; /* what its own stream wrote there for the block before it has been waited for */
  uint64_t seed;
};

struct worker {
  pthread_t thread;
  int number;
  uint64_t random;
  CUstream stream;
  bool seen; /* by the heap */
  char own_tag[16];
  struct slot slots[SLOTS];
  const char *failure;
  drowse_status status;
  char error[256];
};

static struct worker workers[THREADS];
static pthread_mutex_t oracle = PTHREAD_MUTEX_INITIALIZER; /* the slots' ptr and bytes, which all threads look at */
static CUstream commons[COMMONS];                          /* streams that use blocks of all threads */
static pthread_mutex_t motions[TAGS];                      /* who has it may put the tag to sleep */
static pthread_barrier_t rest;
static bool short_of_memory;
static atomic_int turned_away, out_of_memory, sleeps, clears, trims, renewals;

static const char *failed(struct worker *worker, drowse_status status, const char *what) {
  worker->status = status;
  (void)snprintf(worker->error, sizeof worker->error, "%s", drowse_last_error());
  return what;
}

static const char *tag_of(const struct worker *worker, int tag) {
  return tag == OWN ? worker->own_tag : shared_tags[tag];
}

static bool is_turned_away(drowse_status status) {
  bool turned = status == DROWSE_ERR_BUSY || status == DROWSE_ERR_ASLEEP;
  if (turned) atomic_fetch_add(&turned_away, 1);
  return turned;
}

/* ---- the oracle */

static uint64_t rounded(uint64_t bytes) {
  return (bytes + 511) / 512 * 512;
}

static bool overlaps_one(const unsigned char *ptr, size_t bytes) {
  for (int thread = 0; thread < THREADS; thread++) {
    for (int i = 0; i < SLOTS; i++) {
      const struct slot *slot = &workers[thread].slots[i];
      if (slot->ptr != NULL && slot->ptr < ptr + bytes && ptr < slot->ptr + slot->bytes) return true;
    }
  }
  return false;
}

static bool enter(struct slot *slot, const struct slot *new) {
  (void)pthread_mutex_lock(&oracle);
  bool overlaps = overlaps_one(new->ptr, new->bytes);
  *slot = *new;
  (void)pthread_mutex_unlock(&oracle);
  return !overlaps;
}

/* Before it is freed: afterwards somebody else may have it. */
static void leave(struct slot *slot) {
  (void)pthread_mutex_lock(&oracle);
  slot->ptr = NULL;
  (void)pthread_mutex_unlock(&oracle);
}

/* ---- contents: known at both ends of a block */

static size_t part_of(const struct slot *slot) {
  return slot->bytes < PART ? slot->bytes : PART;
}

static const char *write_contents(struct worker *worker, struct slot *slot) {
  unsigned char bytes[PART];
  size_t part = part_of(slot);
  uint64_t seed = next_random(&worker->random);
  fill_pattern(bytes, part, seed);
  slot->known = false;
  drowse_status status = drowse_copy_in(heap, slot->ptr, bytes, part);
  if (status == DROWSE_OK && slot->bytes >= 2 * PART) status = drowse_copy_in(heap, slot->ptr + slot->bytes - part, bytes, part);
  if (is_turned_away(status)) return NULL;
  if (status != DROWSE_OK) return failed(worker, status, "copy_in");
  slot->seed = seed;
  slot->settled = true;
  slot->known = slot->tag != DISCARDED;
  return NULL;
}

static const char *check_part(struct worker *worker, const struct slot *slot, size_t at) {
  unsigned char expected[PART], found[PART];
  size_t part = part_of(slot);
  drowse_status status = drowse_copy_out(heap, found, slot->ptr + at, part);
  if (status == DROWSE_ERR_BUSY) return NULL;
  if (status != DROWSE_OK) return failed(worker, status, "copy_out");
  fill_pattern(expected, part, slot->seed);
  return memcmp(expected, found, part) == 0 ? NULL : failed(worker, DROWSE_OK, "other bytes than were written");
}

static const char *check_contents(struct worker *worker, const struct slot *slot) {
  if (!slot->known) return NULL;
  const char *failure = check_part(worker, slot, 0);
  return failure == NULL && slot->bytes >= 2 * PART ? check_part(worker, slot, slot->bytes - PART) : failure;
}

/* ---- operations on blocks */

static size_t random_bytes(uint64_t *random) {
  switch (random_below(random, 16)) {
  case 0:
    return 1 + random_below(random, 6 * MIB);
  case 1:
  case 2:
    return 1 + random_below(random, 512 * KIB);
  case 3:
  case 4:
  case 5:
    return 4096; /* of a size that comes again and again */
  default:
    return 1 + random_below(random, 40 * KIB);
  }
}

static const char *allocate(struct worker *worker, struct slot *slot) {
  struct slot new = {.bytes = random_bytes(&worker->random), .tag = (int)random_below(&worker->random, TAGS)};
  drowse_alloc_options options = {.struct_size = sizeof options,
                                  .tag = tag_of(worker, new.tag),
                                  .expandable = (drowse_expandable)random_below(&worker->random, 3)};
  if (random_below(&worker->random, 8) == 0) options.alignment = UINT64_C(512) << random_below(&worker->random, 13);
  drowse_status status = DROWSE_ERR_SCOPE;
  void *ptr = NULL;
  if (options.alignment == 0) {
    DROWSE_SCOPE(options.tag, options.expandable) status = drowse_alloc(heap, new.bytes, worker->stream, &ptr);
  } else {
    status = drowse_alloc_with(heap, new.bytes, worker->stream, &options, &ptr);
  }
  if (status == DROWSE_ERR_NO_DEVICE_MEMORY && short_of_memory) {
    atomic_fetch_add(&out_of_memory, 1);
    return NULL;
  }
  if (status != DROWSE_OK) return is_turned_away(status) ? NULL : failed(worker, status, "alloc");
  worker->seen = true;
  new.ptr = ptr;
  if ((uintptr_t)ptr % (options.alignment == 0 ? 512 : options.alignment) != 0) return failed(worker, status, "alignment");
  if (!enter(slot, &new)) return failed(worker, status, "a block overlaps another");
  return random_below(&worker->random, 2) == 0 ? write_contents(worker, slot) : NULL;
}

static const char *release(struct worker *worker, struct slot *slot) {
  void *ptr = slot->ptr;
  const char *failure = check_contents(worker, slot);
  leave(slot);
  drowse_status status = drowse_free(heap, ptr);
  return failure != NULL || status == DROWSE_OK ? failure : failed(worker, status, "free");
}

static drowse_status free_used(struct worker *worker, void *ptr, CUstream user) {
  if (user == worker->stream || random_below(&worker->random, 2) == 0) return drowse_free_on(heap, ptr, user);
  drowse_status status = drowse_record_stream(heap, ptr, user);
  return status == DROWSE_OK ? drowse_free(heap, ptr) : status;
}

/* A stream, its own or another, writes to the block, late, and then it is freed. A hold keeps the memory there until that is
 * under way. Its own may be another one by now than the block's: it is told in any case. A block is its stream's at once, and
 * another one's only when that has been waited for, as copying to it does. */
static const char *release_used(struct worker *worker, struct slot *slot) {
  if (!slot->settled) return release(worker, slot);
  const char *tag = tag_of(worker, slot->tag);
  CUstream user = random_below(&worker->random, 3) == 0 ? worker->stream : commons[random_below(&worker->random, COMMONS)];
  void *ptr = slot->ptr;
  size_t bytes = slot->bytes;
  drowse_status status = drowse_hold(heap, tag, 0);
  if (status == DROWSE_ERR_TIMEOUT) return NULL;
  if (status != DROWSE_OK) return failed(worker, status, "hold");
  const char *failure = check_contents(worker, slot);
  leave(slot);
  if (cu->MemsetD8Async((CUdeviceptr)(uintptr_t)ptr, 0xee, bytes, user) != CUDA_SUCCESS)
    failure = failed(worker, DROWSE_ERR_DRIVER, "the write of a stream");
  status = free_used(worker, ptr, user);
  if (status != DROWSE_OK) failure = failed(worker, status, "free of what a stream uses");
  worker->seen = worker->seen || user == worker->stream;
  status = drowse_unhold(heap, tag);
  return failure != NULL || status == DROWSE_OK ? failure : failed(worker, status, "unhold");
}

static const char *look(struct worker *worker, const struct slot *slot) {
  drowse_block block = {.struct_size = sizeof block};
  drowse_status status = drowse_block_get(heap, slot->ptr + random_below(&worker->random, slot->bytes), &block);
  bool right = status == DROWSE_OK && block.base == slot->ptr && block.bytes == slot->bytes &&
               strcmp(block.tag, tag_of(worker, slot->tag)) == 0;
  if (!right) return failed(worker, status, "block_get");
  status = drowse_free(heap, slot->ptr + 1); /* no block starts there, and nothing happens */
  return status == DROWSE_ERR_NOT_FOUND ? NULL : failed(worker, status, "free of no block");
}

static const char *use_slot(struct worker *worker, struct slot *slot) {
  if (slot->ptr == NULL) return allocate(worker, slot);
  switch (random_below(&worker->random, 8)) {
  case 0:
  case 1:
  case 2:
    return release(worker, slot);
  case 3:
  case 4:
    return release_used(worker, slot);
  case 5:
    return look(worker, slot);
  case 6:
    return check_contents(worker, slot);
  default:
    return write_contents(worker, slot);
  }
}

/* ---- operations on tags, streams and the heap */

/* One thread at a time moves a tag, and leaves it awake if it can, so that nobody is turned away for ever. */
static const char *sleep_and_wake(struct worker *worker) {
  int tag = (int)random_below(&worker->random, TAGS - 1);
  if (pthread_mutex_trylock(&motions[tag]) != 0) return NULL;
  const char *failure = NULL;
  drowse_status status = sleep_tag(shared_tags[tag], tag == DISCARDED ? DROWSE_DISCARD : DROWSE_OFFLOAD);
  if (status == DROWSE_OK) atomic_fetch_add(&sleeps, 1);
  if (status != DROWSE_OK) failure = failed(worker, status, "sleep");
  status = wake_tag(shared_tags[tag]);
  if (status == DROWSE_ERR_NO_DEVICE_MEMORY && short_of_memory)
    status = DROWSE_OK; /* others have the memory: a later wake may do */
  if (status != DROWSE_OK) failure = failed(worker, status, "wake");
  (void)pthread_mutex_unlock(&motions[tag]);
  return failure;
}

static const char *clear_own(struct worker *worker) {
  for (int i = 0; i < SLOTS; i++) {
    struct slot *slot = &worker->slots[i];
    if (slot->ptr != NULL && slot->tag == OWN) leave(slot);
  }
  drowse_status status = drowse_tag_clear(heap, worker->own_tag);
  drowse_stats stats = {.struct_size = sizeof stats};
  if (status == DROWSE_OK) status = drowse_stats_get(heap, worker->own_tag, &stats);
  atomic_fetch_add(&clears, 1);
  return status == DROWSE_OK && stats.live_blocks == 0 && stats.live_bytes == 0 ? NULL : failed(worker, status, "tag_clear");
}

/* What was allocated for the old one lives on. */
static const char *renew_stream(struct worker *worker) {
  if (!worker->seen) return NULL;
  drowse_status status = drowse_stream_retire(heap, worker->stream);
  if (status != DROWSE_OK) return failed(worker, status, "stream_retire");
  CUresult code = cu->StreamDestroy(worker->stream);
  if (code == CUDA_SUCCESS) code = cu->StreamCreate(&worker->stream, CU_STREAM_NON_BLOCKING);
  worker->seen = false;
  atomic_fetch_add(&renewals, 1);
  return code == CUDA_SUCCESS ? NULL : failed(worker, DROWSE_ERR_DRIVER, "a new stream");
}

static const char *trim(struct worker *worker) {
  drowse_status (*give)(drowse_heap *, uint64_t) = random_below(&worker->random, 2) == 0 ? drowse_trim : drowse_trim_idle;
  drowse_status status = give(heap, random_below(&worker->random, 64 * MIB));
  atomic_fetch_add(&trims, 1);
  return status == DROWSE_OK ? NULL : failed(worker, status, "trim");
}

static const char *operate(struct worker *worker) {
  switch (random_below(&worker->random, 1600)) {
  case 0:
    return sleep_and_wake(worker);
  case 1:
    return clear_own(worker);
  case 2:
    return renew_stream(worker);
  case 3:
    return trim(worker);
  default:
    return use_slot(worker, &worker->slots[random_below(&worker->random, SLOTS)]);
  }
}

/* ---- when all rest */

static const char *check_counts(struct worker *worker) {
  uint64_t bytes = 0, blocks = 0;
  for (int thread = 0; thread < THREADS; thread++) {
    for (int i = 0; i < SLOTS; i++) {
      const struct slot *slot = &workers[thread].slots[i];
      if (slot->ptr == NULL) continue;
      bytes += rounded(slot->bytes);
      blocks++;
    }
  }
  drowse_stats stats = {.struct_size = sizeof stats};
  drowse_heap_info info = {.struct_size = sizeof info};
  drowse_status status = drowse_trim(heap, 0);
  if (status == DROWSE_OK) status = drowse_stats_get(heap, NULL, &stats);
  if (status == DROWSE_OK) status = drowse_heap_info_get(heap, &info);
  if (status != DROWSE_OK) return failed(worker, status, "stats_get");
  if (stats.live_bytes != bytes || stats.live_blocks != blocks) return failed(worker, status, "live_bytes or live_blocks");
  if (stats.stuck_bytes != 0 || stats.holds != 0 || (stats.state != DROWSE_AWAKE && !short_of_memory))
    return failed(worker, status, "stats");
  if (on_host && stats.mapped_bytes != info.total_bytes - info.free_bytes) return failed(worker, status, "mapped_bytes");
  return NULL;
}

static const char *check_all(struct worker *worker) {
  const char *failure = NULL;
  for (int i = 0; failure == NULL && i < SLOTS; i++) {
    if (worker->slots[i].ptr != NULL) failure = check_contents(worker, &worker->slots[i]);
    if (failure == NULL && worker->slots[i].ptr != NULL) failure = look(worker, &worker->slots[i]);
  }
  return failure;
}

static void *work(void *argument) {
  struct worker *worker = argument;
  if (cu->CtxSetCurrent(heap->context) != CUDA_SUCCESS) worker->failure = "no context";
  for (int round = 0; round < RESTS; round++) {
    for (unsigned long i = 0; i < operations / THREADS / RESTS && worker->failure == NULL; i++) worker->failure = operate(worker);
    (void)pthread_barrier_wait(&rest);
    if (worker->failure == NULL && worker->number == 0) worker->failure = check_counts(worker);
    (void)pthread_barrier_wait(&rest);
    if (worker->failure == NULL) worker->failure = check_all(worker);
    (void)pthread_barrier_wait(&rest);
  }
  return NULL;
}

/* ---- a run */

static void begin_run(void) {
  memset(workers, 0, sizeof workers);
  atomic_store(&turned_away, 0);
  atomic_store(&out_of_memory, 0);
  ck_assert_int_eq(pthread_barrier_init(&rest, NULL, THREADS), 0);
  for (int tag = 0; tag < TAGS - 1; tag++) {
    ck_assert_int_eq(pthread_mutex_init(&motions[tag], NULL), 0);
    ck_ok(drowse_free(heap, alloc_tag(shared_tags[tag], 1)));
  }
  for (int i = 0; i < COMMONS; i++) {
    commons[i] = make_stream();
    ck_ok(drowse_free(heap, alloc_on("a", 1, commons[i])));
  }
  for (int i = 0; i < THREADS; i++) {
    struct worker *worker = &workers[i];
    worker->number = i;
    worker->random = 100 + (uint64_t)i;
    worker->stream = make_stream();
    (void)snprintf(worker->own_tag, sizeof worker->own_tag, "own %d", i);
    ck_ok(drowse_free(heap, alloc_tag(worker->own_tag, 1)));
  }
}

static void end_run(void) {
  for (int i = 0; i < THREADS; i++) {
    drowse_status status = drowse_stream_retire(heap, workers[i].stream);
    ck_assert(status == DROWSE_OK || status == DROWSE_ERR_NOT_FOUND);
    ck_cu(StreamDestroy(workers[i].stream));
    for (int n = 0; n < SLOTS; n++) ck_ok(drowse_free(heap, workers[i].slots[n].ptr));
  }
  for (int i = 0; i < COMMONS; i++) drop_stream(commons[i]);
  drowse_stats stats = stats_of(NULL);
  ck_assert_uint_eq(stats.live_bytes, 0);
  ck_assert_uint_eq(stats.live_blocks, 0);
  ck_ok(drowse_trim(heap, 0));
  ck_assert_uint_eq(stats_of(NULL).mapped_bytes, 0);
  ck_assert_int_eq(pthread_barrier_destroy(&rest), 0);
}

static void run(void) {
  begin_run();
  for (int i = 0; i < THREADS; i++) ck_assert_int_eq(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
  for (int i = 0; i < THREADS; i++) ck_assert_int_eq(pthread_join(workers[i].thread, NULL), 0);
  for (int i = 0; i < THREADS; i++) {
    const struct worker *worker = &workers[i];
    ck_assert_msg(worker->failure == NULL, "thread %d: %s: %s: %s", i, worker->failure, drowse_status_name(worker->status),
                  worker->error);
  }
  end_run();
}

START_TEST(a_million_operations_or_as_many_as_are_wanted) {
  short_of_memory = false;
  open_with((drowse_heap_options){.device = device});
  run();
  ck_assert_int_gt(sleeps, 0);
  ck_assert_int_gt(clears, 0);
  ck_assert_int_gt(trims, 0);
  ck_assert_int_gt(renewals, 0);
  if (on_host) {
    close_heap();
  } else { /* a driver keeps threads and files of its own */
    ck_cu(CtxSetCurrent(NULL));
    ck_ok(drowse_heap_close(heap));
  }
}
END_TEST

START_TEST(short_of_memory_all_the_time) {
  short_of_memory = true;
  open_with((drowse_heap_options){.device = "host:160MiB"});
  run();
  ck_assert_int_gt(out_of_memory, 0);
  close_heap();
}
END_TEST

static const char *argument_or(int count, char **arguments, int at, const char *variable) {
  return count > at ? arguments[at] : getenv(variable);
}

int main(int count, char **arguments) {
  const char *wanted_device = argument_or(count, arguments, 1, "ORACLE_DEVICE");
  const char *wanted_operations = argument_or(count, arguments, 2, "ORACLE_OPERATIONS");
  if (wanted_device != NULL) device = wanted_device;
  if (wanted_operations != NULL) operations = strtoul(wanted_operations, NULL, 10);
  on_host = strncmp(device, "host", 4) == 0;
  Suite *suite = suite_create("oracle");
  HARNESS_TEST(suite, a_million_operations_or_as_many_as_are_wanted);
  if (on_host) HARNESS_TEST(suite, short_of_memory_all_the_time);
  return harness_run(suite);
}
