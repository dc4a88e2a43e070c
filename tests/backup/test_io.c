/* SPDX-License-Identifier: Apache-2.0
 *
 * Queues of reads and writes, of both kinds: that what was written comes back, whatever its size, that a changed bit is noticed
 * and the rest is not lost, that failures are told with their tokens, and that no thread, descriptor or library stays behind. The
 * program is linked so that what a queue is made of comes from here (--wrap).
 */
#include "backup/io.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "backup/files.h"
#include "backup/io_kind.h"
#include "fork/child.h"

#define MIB (UINT64_C(1) << 20)

/* ---- kinds: a test's number says which, and where the machine has no rings only one is tested */

static const char *const libraries[] = {NULL, "liburing.so.2"};
enum { KINDS = sizeof libraries / sizeof *libraries };

static struct io io;
static struct file *file;
static char *memory; /* of MEMORY bytes, aligned */
enum { MEMORY = 96 << 20 };

static void start(void) {
  make_directory();
  memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ck_assert_ptr_ne(memory, MAP_FAILED);
}

static void finish(void) {
  (void)munmap(memory, MEMORY);
  remove_directory();
}

static void begin(int kind, unsigned depth) {
  ck_ok(dz_io_begin_with(&io, depth, libraries[kind]));
  if (kind == 0) ck_assert_str_eq(dz_io_kind(&io), "threads");
}

static void make(uint64_t bytes) {
  ck_ok(dz_file_make(directory, bytes, &file));
}

/* ---- extents of random sizes, each with a memory of its own */

enum { EXTENTS = 120 };

static struct held {
  struct file_extent extent;
  char *memory;
  unsigned times; /* that it was waited for */
} held[EXTENTS];

static uint64_t draw_bytes(unsigned i, uint64_t *state) {
  static const uint64_t sizes[] = {1, 511, 4095, 4096, 4097, 12288, DZ_FILE_PIECE - 1, DZ_FILE_PIECE, MIB};
  if (i < sizeof sizes / sizeof *sizes) return sizes[i];
  return 1 + next_random(state) % (MIB >> next_random(state) % 20);
}

static void take_extents(uint64_t *state) {
  uint64_t used = 0;
  make(MEMORY);
  for (unsigned i = 0; i < EXTENTS; i++) {
    ck_assert(dz_file_take(file, draw_bytes(i, state), &held[i].extent));
    held[i].memory = memory + used;
    used += (held[i].extent.bytes + 4095) / 4096 * 4096;
    ck_assert_uint_le(used, MEMORY);
  }
}

static void give_extents(void) {
  for (unsigned i = 0; i < EXTENTS; i++) dz_file_give(&held[i].extent);
  dz_file_release(file);
}

static void fill(void) {
  uint64_t state = 7;
  for (unsigned i = 0; i < EXTENTS; i++) {
    for (uint64_t at = 0; at < held[i].extent.bytes; at++) held[i].memory[at] = (char)(at % 251 + i);
    for (uint64_t at = 0; at < held[i].extent.bytes; at += 4096) held[i].memory[at] = (char)next_random(&state);
    dz_file_note(file, held[i].extent.offset, held[i].memory, held[i].extent.bytes);
  }
}

static void wait_for_one(void) {
  void *token;
  ck_ok(dz_io_wait(&io, &token));
  ck_assert_ptr_nonnull(token);
  ((struct held *)token)->times++;
}

/* Every extent, as many at once as may be. */
static void move_all(bool write, unsigned depth) {
  for (unsigned i = 0; i < EXTENTS; i++) held[i].times = 0;
  for (unsigned i = 0; i < EXTENTS; i++) {
    if (i >= depth) wait_for_one();
    const struct file_extent *extent = &held[i].extent;
    ck_ok(dz_io_start(&io, write, file, held[i].memory, extent->bytes, extent->offset, &held[i]));
  }
  for (unsigned i = 0; i < (depth < EXTENTS ? depth : EXTENTS); i++) wait_for_one();
  for (unsigned i = 0; i < EXTENTS; i++) ck_assert_uint_eq(held[i].times, 1);
}

START_TEST(what_was_written_comes_back) {
  static const unsigned depths[] = {1, 2, 7, 64, 200};
  uint64_t state = 3;
  int descriptors = open_descriptors();
  for (size_t i = 0; i < sizeof depths / sizeof *depths; i++) {
    begin(_i, depths[i]);
    take_extents(&state);
    fill();
    move_all(true, depths[i]);
    memset(memory, 0, MEMORY);
    move_all(false, depths[i]);
    for (unsigned k = 0; k < EXTENTS; k++)
      ck_ok(dz_file_check(file, held[k].extent.offset, held[k].memory, held[k].extent.bytes));
    dz_io_end(&io);
    give_extents();
  }
  ck_assert_int_eq(open_descriptors(), descriptors);
}
END_TEST

/* Changes what is on the disk, through a descriptor without direct I/O. */
static void flip(uint64_t offset) {
  char path[64], byte;
  (void)snprintf(path, sizeof path, "/proc/self/fd/%d", dz_file_descriptor(file));
  int other = open(path, O_RDWR | O_CLOEXEC);
  ck_assert_int_ge(other, 0);
  ck_assert_int_eq(pread(other, &byte, 1, (off_t)offset), 1);
  byte ^= 16;
  ck_assert_int_eq(pwrite(other, &byte, 1, (off_t)offset), 1);
  ck_assert_int_eq(fsync(other), 0);
  (void)close(other);
}

START_TEST(a_changed_bit_is_one_pieces_loss) {
  const unsigned changed[] = {0, 4, 7, 50};
  uint64_t state = 5;
  begin(_i, 8);
  take_extents(&state);
  fill();
  move_all(true, 8);
  for (size_t i = 0; i < sizeof changed / sizeof *changed; i++) {
    const struct file_extent *extent = &held[changed[i]].extent;
    flip(extent->offset + extent->bytes - 1);
  }
  memset(memory, 0, MEMORY);
  move_all(false, 8);
  for (unsigned k = 0; k < EXTENTS; k++) {
    bool hurt = k == changed[0] || k == changed[1] || k == changed[2] || k == changed[3];
    drowse_status status = dz_file_check(file, held[k].extent.offset, held[k].memory, held[k].extent.bytes);
    ck_assert_int_eq(status, hurt ? DROWSE_ERR_CORRUPT : DROWSE_OK);
  }
  dz_io_end(&io);
  give_extents();
}
END_TEST

/* ---- its threads */

/* A thread's name and which signals it blocks; a thread that has just ended has neither. */
static uint64_t blocked_signals(const char *task, char name[32]) {
  char path[300], line[256];
  unsigned long long bits = 0;
  (void)snprintf(path, sizeof path, "/proc/self/task/%s/status", task);
  FILE *status = fopen(path, "re");
  while (status != NULL && fgets(line, sizeof line, status) != NULL) {
    (void)sscanf(line, "Name: %31s", name);
    (void)sscanf(line, "SigBlk: %llx", &bits);
  }
  if (status != NULL) (void)fclose(status);
  return bits;
}

/* How many threads there are that do requests, and block all of these signals. */
static unsigned count_threads(uint64_t signals) {
  unsigned count = 0;
  DIR *tasks = opendir("/proc/self/task");
  ck_assert_ptr_nonnull(tasks);
  for (const struct dirent *entry; (entry = readdir(tasks)) != NULL;) {
    char name[32] = "";
    bool blocks = (blocked_signals(entry->d_name, name) & signals) == signals;
    count += blocks && strcmp(name, "drowse-io") == 0;
  }
  (void)closedir(tasks);
  return count;
}

/* What was joined is seen for a moment still. */
static void wait_until_there_is_none(void) {
  while (count_threads(0) > 0) (void)sched_yield();
}

/* ---- the queue itself */

START_TEST(no_more_than_depth_are_on_their_way) {
  void *token = &token;
  make(MIB);
  begin(_i, 3);
  ck_ok(dz_io_wait(&io, &token));
  ck_assert_ptr_null(token);
  for (unsigned i = 0; i < 3; i++) ck_ok(dz_io_start(&io, true, file, memory + i * 4096, 4096, i * 4096, memory + i));
  ck_status(dz_io_start(&io, true, file, memory, 4096, 0, memory), DROWSE_ERR_INVALID);
  unsigned seen = 0;
  for (unsigned i = 0; i < 3; i++) {
    ck_ok(dz_io_wait(&io, &token));
    seen |= 1u << ((char *)token - memory);
  }
  ck_assert_uint_eq(seen, 7);
  ck_ok(dz_io_wait(&io, &token));
  ck_assert_ptr_null(token);
  dz_io_end(&io);
  dz_file_release(file);
}
END_TEST

START_TEST(the_end_waits_for_what_is_on_its_way) {
  int descriptors = open_descriptors();
  make(64 * MIB);
  begin(_i, 16);
  memset(memory, 9, 64 * MIB);
  for (unsigned i = 0; i < 16; i++) ck_ok(dz_io_start(&io, true, file, memory + i * 4 * MIB, 4 * MIB, i * 4 * MIB, NULL));
  dz_io_end(&io);
  memset(memory, 0, 64 * MIB);
  begin(0, 1);
  for (unsigned i = 0; i < 16; i++) {
    void *token;
    ck_ok(dz_io_start(&io, false, file, memory + i * 4 * MIB, 4 * MIB, i * 4 * MIB, NULL));
    ck_ok(dz_io_wait(&io, &token));
  }
  dz_io_end(&io);
  for (uint64_t at = 0; at < 64 * MIB; at++) {
    if (memory[at] != 9) ck_abort_msg("byte %llu", (unsigned long long)at);
  }
  dz_file_release(file);
  ck_assert_int_eq(open_descriptors(), descriptors);
}
END_TEST

START_TEST(an_end_leaves_nothing) {
  int descriptors = open_descriptors();
  begin(_i, 64);
  dz_io_end(&io);
  dz_io_end(&io); /* nothing, as after a beginning that failed */
  ck_assert_int_eq(open_descriptors(), descriptors);
  wait_until_there_is_none();
}
END_TEST

/* ---- failures */

/* One of three fails, with its errno (0: the file ends); the others do not. */
static void ck_second_fails(bool write, uint64_t offset, int code, const char *word) {
  drowse_error error = {.struct_size = sizeof error};
  for (unsigned i = 0; i < 3; i++)
    ck_ok(dz_io_start(&io, write, file, memory + i * 8192, 8192, i == 1 ? offset : i * 8192, memory + i));
  for (unsigned i = 0; i < 3; i++) {
    void *token;
    drowse_status status = dz_io_wait(&io, &token);
    ck_assert_int_eq(status, token == memory + 1 ? DROWSE_ERR_IO : DROWSE_OK);
    if (status == DROWSE_OK) continue;
    ck_ok(drowse_error_get(&error));
    ck_assert_int_eq(error.system_errno, code);
    ck_assert_ptr_nonnull(strstr(drowse_last_error(), directory));
    ck_assert_ptr_nonnull(strstr(drowse_last_error(), word));
  }
}

START_TEST(what_fails_is_told_and_the_rest_goes_on) {
  make(MIB);
  begin(_i, 4);
  ck_second_fails(false, 2 * MIB, 0, "reading");
  ck_second_fails(false, MIB - 4096, 0, "ends"); /* the first half is there */
  ck_second_fails(false, 4097 + UINT64_MAX / 2, EINVAL, "reading");
  (void)signal(SIGXFSZ, SIG_IGN);
  limit_files(MIB);
  ck_second_fails(true, 2 * MIB, EFBIG, "writing");
  limit_files(RLIM_INFINITY);
  (void)signal(SIGXFSZ, SIG_DFL);
  dz_io_end(&io);
  dz_file_release(file);
}
END_TEST

START_TEST(what_comes_in_parts_goes_on_where_it_is_aligned) {
  struct io_request request = {.bytes = 65536};
  ck_assert(!dz_io_take_result(&request, -EINTR));
  ck_assert(!dz_io_take_result(&request, -EAGAIN));
  ck_assert_uint_eq(request.done, 0);
  ck_assert(!dz_io_take_result(&request, 4096));
  ck_assert_uint_eq(request.done, 4096);
  ck_assert(!dz_io_take_result(&request, 8191));
  ck_assert_uint_eq(request.done, 8192);
  ck_assert(!dz_io_take_result(&request, 1)); /* not less than came, or it would never end */
  ck_assert_uint_eq(request.done, 8193);
  ck_assert(!dz_io_take_result(&request, 65536 - 8193));
  ck_assert_uint_eq(request.done, 8193 + 53248);
  ck_assert(dz_io_take_result(&request, 4095));
  ck_assert_int_eq(request.code, 0);
  ck_assert(dz_io_take_result(&request, -EIO));
  ck_assert_int_eq(request.code, EIO);
  ck_assert(dz_io_take_result(&request, 0));
  ck_assert_int_eq(request.code, DZ_IO_ENDED);
}
END_TEST

/* ---- where there are no rings, or no threads */

START_TEST(a_library_that_will_not_do_means_threads) {
  static const char *const wrong[] = {"libnonesuch.so.2", "libc.so.6"};
  for (size_t i = 0; i < 2; i++) {
    ck_ok(dz_io_begin_with(&io, 4, wrong[i]));
    ck_assert_str_eq(dz_io_kind(&io), "threads");
    dz_io_end(&io);
  }
}
END_TEST

static bool round_trip(void) {
  void *token;
  memset(memory, 5, 8192);
  if (dz_io_start(&io, true, file, memory, 8192, 4096, memory) != DROWSE_OK || dz_io_wait(&io, &token) != DROWSE_OK) return false;
  memset(memory, 0, 8192);
  if (dz_io_start(&io, false, file, memory, 8192, 4096, memory) != DROWSE_OK || dz_io_wait(&io, &token) != DROWSE_OK)
    return false;
  return token == memory && memory[0] == 5 && memory[8191] == 5;
}

static int without_rings(void) {
  if (!refuse(SYS_io_uring_setup, 0, 0, EPERM)) return CANNOT;
  STEP(1, dz_io_begin(&io, 4) == DROWSE_OK);
  STEP(2, strcmp(dz_io_kind(&io), "threads") == 0);
  STEP(3, dz_file_make(directory, MIB, &file) == DROWSE_OK && round_trip());
  dz_io_end(&io);
  dz_file_release(file);
  return 0;
}

/* A ring that takes nothing any more: requests are done without it. */
static int with_a_broken_ring(void) {
  STEP(1, dz_io_begin(&io, 2) == DROWSE_OK);
  STEP(2, dz_file_make(directory, MIB, &file) == DROWSE_OK && round_trip());
  if (!refuse(SYS_io_uring_enter, 0, 0, ENXIO)) return CANNOT;
  for (int i = 0; i < 20; i++) STEP(3 + i, round_trip());
  dz_io_end(&io);
  dz_file_release(file);
  return 0;
}

/* Filters are a thread's own: this one's start is refused, and what it left in the ring is taken with the next start. */
static void *start_without_ring(void *argument) {
  int *code = argument;
  *code = CANNOT;
  if (!refuse(SYS_io_uring_enter, 0, 0, ENXIO)) return NULL;
  *code = dz_io_start(&io, true, file, memory, 4096, 8192, memory) == DROWSE_OK ? 0 : 1;
  return NULL;
}

static int with_a_ring_that_was_broken(void) {
  pthread_t thread;
  void *token;
  int code;
  STEP(1, dz_io_begin(&io, 2) == DROWSE_OK && dz_file_make(directory, MIB, &file) == DROWSE_OK);
  memset(memory, 8, 4096);
  STEP(2, pthread_create(&thread, NULL, start_without_ring, &code) == 0 && pthread_join(thread, NULL) == 0);
  if (code != 0) return code;
  STEP(3, dz_io_wait(&io, &token) == DROWSE_OK && token == memory);
  memset(memory, 9, 4096); /* its memory is used anew: it must not be written again */
  STEP(4, dz_io_start(&io, true, file, memory + 4096, 4096, 0, &io) == DROWSE_OK);
  STEP(5, dz_io_wait(&io, &token) == DROWSE_OK && token == &io);
  dz_io_end(&io);
  STEP(6, pread(dz_file_descriptor(file), memory, 4096, 8192) == 4096 && memory[0] == 8);
  dz_file_release(file);
  return 0;
}

static int without_threads(void) {
  int descriptors = open_descriptors();
  drowse_error error = {.struct_size = sizeof error};
  if (!refuse(SYS_clone3, 0, 0, EAGAIN) || !refuse(SYS_clone, 0, 0, EAGAIN)) return CANNOT;
  STEP(1, dz_io_begin_with(&io, 4, NULL) == DROWSE_ERR_SYSTEM);
  STEP(2, drowse_error_get(&error) == DROWSE_OK && error.system_errno == EAGAIN);
  dz_io_end(&io);
  STEP(3, open_descriptors() == descriptors);
  return 0;
}

/* ---- where there is nothing to make a queue of: the call, counted from 1, that fails; 0: none does */

static unsigned failing;
static atomic_uint calls;

void *__real_calloc(size_t count, size_t bytes);
int __real_pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attributes);
int __real_pthread_cond_init(pthread_cond_t *cond, const pthread_condattr_t *attributes);

void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes) {
  if (atomic_fetch_add(&calls, 1) + 1 != failing) return __real_calloc(count, bytes);
  errno = ENOMEM;
  return NULL;
}

int __wrap_pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attributes);
int __wrap_pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attributes) {
  return atomic_fetch_add(&calls, 1) + 1 == failing ? EAGAIN : __real_pthread_mutex_init(mutex, attributes);
}

int __wrap_pthread_cond_init(pthread_cond_t *cond, const pthread_condattr_t *attributes);
int __wrap_pthread_cond_init(pthread_cond_t *cond, const pthread_condattr_t *attributes) {
  return atomic_fetch_add(&calls, 1) + 1 == failing ? EAGAIN : __real_pthread_cond_init(cond, attributes);
}

START_TEST(a_queue_that_cannot_be_made_leaves_nothing) {
  static const drowse_status expected[] = {DROWSE_ERR_NO_HOST_MEMORY, DROWSE_ERR_NO_HOST_MEMORY, DROWSE_ERR_SYSTEM,
                                           DROWSE_ERR_SYSTEM, DROWSE_ERR_SYSTEM};
  ck_status(drowse_free(NULL, &io), DROWSE_ERR_INVALID); /* so the thread has a record for its failures */
  wait_until_there_is_none();
  for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
    calls = 0;
    failing = (unsigned)i + 1;
    drowse_status status = dz_io_begin_with(&io, 4, NULL);
    failing = 0;
    ck_assert_int_eq(status, expected[i]);
    ck_assert_uint_eq(count_threads(0), 0);
    dz_io_end(&io);
  }
  ck_ok(dz_io_begin_with(&io, 4, NULL));
  dz_io_end(&io);
}
END_TEST

START_TEST(a_kernel_may_refuse_rings_and_threads) {
  if (CHILD_MAY_START_THREADS) ck_child_or_skip(without_rings);
  if (CHILD_MAY_START_THREADS) ck_child_or_skip(with_a_ring_that_was_broken);
  ck_child_or_skip(with_a_broken_ring);
  ck_child_or_skip(without_threads);
}
END_TEST

/* ---- forks */

static int nothing(void) {
  return 0;
}

START_TEST(a_fork_meanwhile_is_harmless) {
  make(64 * MIB);
  ck_assert_int_eq(madvise(memory, MEMORY, MADV_DONTFORK), 0);
  begin(_i, 16);
  memset(memory, 3, 64 * MIB);
  for (unsigned i = 0; i < 16; i++) ck_ok(dz_io_start(&io, true, file, memory + i * 4 * MIB, 4 * MIB, i * 4 * MIB, &held[i]));
  ck_child(nothing);
  for (unsigned i = 0; i < 16; i++) wait_for_one();
  ck_child(nothing);
  ck_assert(round_trip());
  dz_io_end(&io);
  dz_file_release(file);
}
END_TEST

START_TEST(its_threads_take_no_signals) {
  const uint64_t signals = UINT64_C(1) << (SIGTERM - 1) | UINT64_C(1) << (SIGUSR1 - 1) | UINT64_C(1) << (SIGXFSZ - 1);
  sigset_t own;
  wait_until_there_is_none();
  begin(0, 4);
  ck_assert_uint_eq(count_threads(signals), 4);
  ck_assert_int_eq(pthread_sigmask(SIG_SETMASK, NULL, &own), 0);
  ck_assert_int_eq(sigismember(&own, SIGTERM), 0);
  dz_io_end(&io);
}
END_TEST

START_TEST(depth_bounds_its_threads) {
  wait_until_there_is_none();
  begin(0, 1);
  ck_assert_uint_eq(count_threads(0), 1);
  dz_io_end(&io);
  wait_until_there_is_none();
  begin(0, 1000);
  ck_assert_uint_eq(count_threads(0), 16);
  dz_io_end(&io);
}
END_TEST

int main(void) {
  bool rings = dz_io_begin(&io, 1) == DROWSE_OK && strcmp(dz_io_kind(&io), "threads") != 0;
  int kinds = rings ? KINDS : 1;
  dz_io_end(&io);
  Suite *suite = suite_create(rings ? "io" : "io without rings");
  HARNESS_LOOP_TEST(suite, what_was_written_comes_back, start, finish, kinds);
  HARNESS_LOOP_TEST(suite, a_changed_bit_is_one_pieces_loss, start, finish, kinds);
  HARNESS_LOOP_TEST(suite, no_more_than_depth_are_on_their_way, start, finish, kinds);
  HARNESS_LOOP_TEST(suite, the_end_waits_for_what_is_on_its_way, start, finish, kinds);
  HARNESS_LOOP_TEST(suite, an_end_leaves_nothing, start, finish, kinds);
  HARNESS_LOOP_TEST(suite, what_fails_is_told_and_the_rest_goes_on, start, finish, kinds);
  HARNESS_TEST(suite, what_comes_in_parts_goes_on_where_it_is_aligned);
  HARNESS_TEST(suite, a_library_that_will_not_do_means_threads);
  HARNESS_TEST(suite, a_queue_that_cannot_be_made_leaves_nothing);
  HARNESS_FIXTURE_TEST(suite, a_kernel_may_refuse_rings_and_threads, start, finish);
  HARNESS_LOOP_TEST(suite, a_fork_meanwhile_is_harmless, start, finish, kinds);
  HARNESS_TEST(suite, its_threads_take_no_signals);
  HARNESS_TEST(suite, depth_bounds_its_threads);
  return harness_run(suite);
}
