/* SPDX-License-Identifier: Apache-2.0
 *
 * The host device and fork: a child has nothing of the parent's, is told so by every call, and may start anew; the parent notices
 * nothing. What a child finds it tells by its exit status, a number for each step.
 */
#include "fixture.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "driver/host/state.h"

/* Sanitizers and children: their allocators are no match for a fork while other threads allocate, and the one for threads lets no
 * child of a process with threads start any. */
#if defined(__has_feature)
#define SANITIZER_FEATURE(name) __has_feature(name)
#else
#define SANITIZER_FEATURE(name) 0
#endif
#if defined(__SANITIZE_THREAD__) || SANITIZER_FEATURE(thread_sanitizer)
enum { CHILD_MAY_START_THREADS = 0, CHILD_MAY_ALLOCATE = 0 };
#elif defined(__SANITIZE_ADDRESS__) || SANITIZER_FEATURE(address_sanitizer)
enum { CHILD_MAY_START_THREADS = 1, CHILD_MAY_ALLOCATE = 0 };
#else
enum { CHILD_MAY_START_THREADS = 1, CHILD_MAY_ALLOCATE = 1 };
#endif

static CUstream stream;
static CUdeviceptr ptr;

static void start_fork(void) {
  start();
  ck_cu_ok(StreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  ptr = make_memory(4 * GRANULE);
  ck_cu_ok(MemsetD8Async(ptr, 7, 4 * GRANULE, NULL));
  ck_cu_ok(StreamSynchronize(NULL));
}

static void finish_fork(void) {
  ck_cu_ok(StreamDestroy(stream));
  drop_memory(ptr, 4 * GRANULE);
  finish();
}

/* Runs what a child is to do; 0: all steps were as they should be. */
static int in_child(int (*steps)(void)) {
  int status = 0;
  pid_t child = fork();
  if (child == 0) _exit(steps()); /* before any assertion: another thread may hold the test framework's lock */
  ck_assert_int_ge(child, 0);
  ck_assert_int_eq(waitpid(child, &status, 0), child);
  ck_assert_msg(WIFEXITED(status), "the child was ended by signal %d", WTERMSIG(status));
  return WEXITSTATUS(status);
}

#define STEP(number, condition) \
  if (!(condition)) return number

static uint64_t refused; /* calls */
#define UNINITIALISED(call) (refused++, (call) == CUDA_ERROR_NOT_INITIALIZED)

static int child_calls(void) {
  CUcontext current = context;
  CUdevice ordinal;
  CUdeviceptr address;
  CUmemGenericAllocationHandle handle;
  CUstream made;
  CUevent event;
  CUgraph graph;
  CUstreamCaptureStatus capturing;
  CUuuid uuid;
  size_t bytes, total;
  int number;
  char text[8];
  unsigned long long id;
  uint64_t calls = dz_host_calls_after_fork();
  refused = 0;
  STEP(1, UNINITIALISED(cu->Init(0)));
  STEP(2, UNINITIALISED(cu->DeviceGet(&ordinal, 0)) && UNINITIALISED(cu->DeviceGetCount(&number)));
  STEP(3, UNINITIALISED(cu->DeviceGetName(text, 8, 0)) && UNINITIALISED(cu->DeviceGetUuid(&uuid, 0)));
  STEP(4, UNINITIALISED(cu->DeviceTotalMem(&bytes, 0)));
  STEP(5, UNINITIALISED(cu->DevicePrimaryCtxRetain(&current, 0)) && UNINITIALISED(cu->DevicePrimaryCtxRelease(0)));
  STEP(6, UNINITIALISED(cu->CtxGetCurrent(&current)) && UNINITIALISED(cu->CtxSetCurrent(context)));
  STEP(7, UNINITIALISED(cu->CtxGetDevice(&ordinal)) && UNINITIALISED(cu->CtxSynchronize()));
  STEP(8, UNINITIALISED(cu->MemGetInfo(&bytes, &total)));
  STEP(9, UNINITIALISED(cu->MemGetAllocationGranularity(&bytes, &prop, CU_MEM_ALLOC_GRANULARITY_MINIMUM)));
  STEP(10, UNINITIALISED(cu->MemAddressReserve(&address, GRANULE, 0, 0, 0)));
  STEP(11, UNINITIALISED(cu->MemAddressFree(ptr, 4 * GRANULE)));
  STEP(12, UNINITIALISED(cu->MemCreate(&handle, GRANULE, &prop, 0)) && UNINITIALISED(cu->MemRelease(1)));
  STEP(13, UNINITIALISED(cu->MemMap(ptr, GRANULE, 0, 1, 0)) && UNINITIALISED(cu->MemUnmap(ptr, 4 * GRANULE)));
  STEP(14, UNINITIALISED(cu->MemSetAccess(ptr, 4 * GRANULE, &read_write, 1)));
  STEP(15, UNINITIALISED(cu->MemHostRegister(text, 8, 0)) && UNINITIALISED(cu->MemHostUnregister(text)));
  STEP(16, UNINITIALISED(cu->MemcpyHtoD(ptr, text, 8)) && UNINITIALISED(cu->MemcpyDtoH(text, ptr, 8)));
  STEP(17, UNINITIALISED(cu->MemcpyHtoDAsync(ptr, text, 8, stream)));
  STEP(18, UNINITIALISED(cu->MemcpyDtoHAsync(text, ptr, 8, stream)));
  STEP(19, UNINITIALISED(cu->MemcpyDtoDAsync(ptr, ptr + 8, 8, stream)));
  STEP(20, UNINITIALISED(cu->MemsetD8Async(ptr, 0, 8, stream)));
  STEP(21, UNINITIALISED(cu->StreamCreate(&made, 0)) && UNINITIALISED(cu->StreamDestroy(stream)));
  STEP(22, UNINITIALISED(cu->StreamSynchronize(stream)) && UNINITIALISED(cu->StreamQuery(stream)));
  STEP(23, UNINITIALISED(cu->StreamWaitEvent(stream, NULL, 0)) && UNINITIALISED(cu->StreamGetId(stream, &id)));
  STEP(24, UNINITIALISED(cu->StreamIsCapturing(stream, &capturing)));
  STEP(25, UNINITIALISED(cu->StreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL)));
  STEP(26, UNINITIALISED(cu->StreamEndCapture(stream, &graph)));
  STEP(27, UNINITIALISED(cu->GraphInstantiateWithFlags(NULL, NULL, 0)) && UNINITIALISED(cu->GraphLaunch(NULL, stream)));
  STEP(28, UNINITIALISED(cu->GraphExecDestroy(NULL)) && UNINITIALISED(cu->GraphDestroy(NULL)));
  STEP(29, UNINITIALISED(cu->LaunchHostFunc(stream, NULL, NULL)));
  STEP(30, UNINITIALISED(cu->EventCreate(&event, 0)) && UNINITIALISED(cu->EventDestroy(NULL)));
  STEP(31, UNINITIALISED(cu->EventRecord(NULL, stream)) && UNINITIALISED(cu->EventQuery(NULL)));
  STEP(32, UNINITIALISED(cu->EventSynchronize(NULL)));
  STEP(33, UNINITIALISED(cu->DeviceGetAttribute(&number, CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING, 0)));
  STEP(36, UNINITIALISED(cu->CtxRecordEvent(context, NULL)));
  STEP(37, UNINITIALISED(cu->MemcpyBatchAsync(&ptr, &ptr, &bytes, 1, NULL, NULL, 0, stream)));
  STEP(34, cu->DriverGetVersion(&number) == CUDA_SUCCESS);
  STEP(35, dz_host_calls_after_fork() == calls + refused);
  return 0;
}

START_TEST(every_call_is_refused) {
  ck_assert_int_eq(in_child(child_calls), 0);
  ck_assert_uint_eq(dz_host_calls_after_fork(), 0);
  ck_assert_uint_eq(device_byte(ptr + 4 * GRANULE - 1), 7);
}
END_TEST

/* Whether a mapping of this process touches the range. */
static bool mapped(uint64_t base, uint64_t bytes) {
  char line[512];
  unsigned long long start_of, end_of;
  bool found = false;
  FILE *maps = fopen("/proc/self/maps", "r");
  while (maps != NULL && fgets(line, sizeof line, maps) != NULL) {
    if (sscanf(line, "%llx-%llx", &start_of, &end_of) == 2 && start_of < base + bytes && end_of > base) found = true;
  }
  if (maps != NULL) (void)fclose(maps);
  return found;
}

static CUdeviceptr reserved;

static int child_looks(void) {
  STEP(1, !mapped(ptr, 4 * GRANULE));
  STEP(2, !mapped(reserved, 2 * GRANULE));
  return 0;
}

static int child_looks_again(void) {
  STEP(3, !mapped(reserved, GRANULE));
  return 0;
}

START_TEST(the_child_has_none_of_the_memory) {
  ck_cu_ok(MemAddressReserve(&reserved, 2 * GRANULE, 0, 0, 0));
  ck_assert(mapped(reserved, 2 * GRANULE));
  ck_assert(mapped(ptr, 4 * GRANULE));
  ck_assert_int_eq(in_child(child_looks), 0);
  CUdeviceptr again = make_memory(GRANULE);
  ck_cu_ok(MemUnmap(again, GRANULE)); /* what was mapped and is not any more has to be gone there too */
  ck_cu_ok(MemAddressFree(reserved, 2 * GRANULE));
  reserved = again;
  ck_assert_int_eq(in_child(child_looks_again), 0);
  ck_cu_ok(MemAddressFree(again, GRANULE));
}
END_TEST

/* ---- starting anew */

static int use_anew(void) {
  struct device mine;
  struct host_counts counts;
  CUcontext current = context, fresh;
  CUdeviceptr address;
  CUmemGenericAllocationHandle handle;
  CUmemAccessDesc access = read_write;
  CUmemAllocationProp where = prop;
  unsigned char in[32], out[32] = "";
  memset(in, 3, sizeof in);
  STEP(1, dz_device_open(&mine, "host:64MiB") == DROWSE_OK);
  STEP(2, cu->CtxGetCurrent(&current) == CUDA_SUCCESS && current == NULL);
  STEP(3, cu->StreamQuery(stream) == CUDA_ERROR_INVALID_HANDLE);
  STEP(4, cu->CtxSetCurrent(context) == CUDA_ERROR_INVALID_CONTEXT);
  STEP(5, cu->MemAddressFree(ptr, 4 * GRANULE) == CUDA_ERROR_INVALID_VALUE);
  STEP(6, cu->DevicePrimaryCtxRetain(&fresh, mine.ordinal) == CUDA_SUCCESS && cu->CtxSetCurrent(fresh) == CUDA_SUCCESS);
  where.location.id = access.location.id = mine.ordinal;
  STEP(7, cu->MemAddressReserve(&address, GRANULE, 0, 0, 0) == CUDA_SUCCESS);
  STEP(8, cu->MemCreate(&handle, GRANULE, &where, 0) == CUDA_SUCCESS);
  STEP(9, cu->MemMap(address, GRANULE, 0, handle, 0) == CUDA_SUCCESS);
  STEP(10, cu->MemSetAccess(address, GRANULE, &access, 1) == CUDA_SUCCESS);
  STEP(11, cu->MemcpyHtoDAsync(address, in, sizeof in, CU_STREAM_PER_THREAD) == CUDA_SUCCESS);
  STEP(12, cu->MemcpyDtoH(out, address, sizeof out) == CUDA_SUCCESS && memcmp(in, out, sizeof in) == 0);
  STEP(13, cu->MemUnmap(address, GRANULE) == CUDA_SUCCESS && cu->MemRelease(handle) == CUDA_SUCCESS);
  STEP(14, cu->MemAddressFree(address, GRANULE) == CUDA_SUCCESS);
  STEP(15, cu->DevicePrimaryCtxRelease(mine.ordinal) == CUDA_SUCCESS);
  dz_host_counts(&counts);
  STEP(16, counts.reclaimed == 0 && counts.contexts == 0 && counts.threads == 0);
  return 0;
}

static unsigned inherited_files(void) {
  unsigned files = 0;
  for (int file = 0; file < 1024; file++) {
    char path[64], target[128] = "";
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    if (readlink(path, target, sizeof target - 1) > 0 && strstr(target, "drowse-host-device") != NULL) files++;
  }
  return files;
}

static int child_starts_anew(void) {
  STEP(101, inherited_files() == 1);
  int step = use_anew();
  STEP(102, inherited_files() == 0); /* else the child would keep the parent's memory when the parent is gone */
  return step;
}

/* A child of a child is in the same position. */
static int child_forks(void) {
  int status = 0;
  struct device mine;
  STEP(120, dz_device_open(&mine, "host:64MiB") == DROWSE_OK);
  pid_t child = fork();
  if (child == 0) _exit(use_anew());
  STEP(121, waitpid(child, &status, 0) == child && WIFEXITED(status));
  return WEXITSTATUS(status);
}

START_TEST(a_child_may_start_anew) {
  ck_assert_int_eq(in_child(child_starts_anew), 0);
  ck_assert_int_eq(in_child(child_forks), 0);
  ck_assert_uint_eq(device_byte(ptr), 7);
  ck_cu_ok(MemsetD8Async(ptr, 8, 1, stream));
  ck_cu_ok(StreamSynchronize(stream));
  ck_assert_uint_eq(device_byte(ptr), 8);
}
END_TEST

static int child_closed_all(void) {
  for (int file = 3; file < 1024; file++) (void)close(file);
  int mine = dup(0), high;
  for (high = mine; high >= 0 && high < 64; high = dup(0)) continue; /* the child's own, where the parent's was */
  STEP(110, mine >= 0 && high >= 64);
  int step = use_anew();
  for (int file = mine; file < 64; file++) STEP(111, fcntl(file, F_GETFD) >= 0);
  return step;
}

START_TEST(a_child_keeps_descriptors_of_its_own) {
  ck_assert_int_eq(in_child(child_closed_all), 0);
}
END_TEST

/* ---- forking while everything is busy */

static atomic_bool stop;

static void *keep_busy(void *argument) {
  (void)argument;
  ck_cu_ok(CtxSetCurrent(context));
  while (!atomic_load(&stop)) {
    CUdeviceptr memory = make_memory(GRANULE);
    ck_cu_ok(MemsetD8Async(memory, 1, GRANULE, stream));
    ck_cu_ok(StreamSynchronize(stream));
    drop_memory(memory, GRANULE);
  }
  return NULL;
}

START_TEST(locks_that_are_held_do_not_matter_to_the_child) {
  if (under_valgrind()) return;
  pthread_t threads[2];
  int step = 0;
  atomic_store(&stop, false);
  for (unsigned i = 0; i < 2; i++) ck_assert_int_eq(pthread_create(&threads[i], NULL, keep_busy, NULL), 0);
  for (unsigned i = 0; i < 30 && step == 0; i++) step = in_child(CHILD_MAY_ALLOCATE && i % 2 == 1 ? use_anew : child_calls);
  atomic_store(&stop, true); /* before anything is asserted: the threads must not outlive the context */
  for (unsigned i = 0; i < 2; i++) ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
  ck_assert_int_eq(step, 0);
}
END_TEST

/* ---- beginnings that come together, or have nothing to begin with (--wrap): seen in a child, which begins anew */

static bool interrupted, bare; /* another thread begins meanwhile; there is no memory */
static struct host *faster;    /* what the other one has made */

int __real_pthread_rwlock_init(pthread_rwlock_t *lock, const pthread_rwlockattr_t *attributes);
int __wrap_pthread_rwlock_init(pthread_rwlock_t *lock, const pthread_rwlockattr_t *attributes);
int __wrap_pthread_rwlock_init(pthread_rwlock_t *lock, const pthread_rwlockattr_t *attributes) {
  if (interrupted) {
    interrupted = false;
    if (dz_host_start() == CUDA_SUCCESS) faster = dz_host();
  }
  return __real_pthread_rwlock_init(lock, attributes);
}

void *__real_calloc(size_t count, size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes) {
  return bare ? NULL : __real_calloc(count, bytes);
}

static int begin_with_another(void) {
  int count = 0;
  interrupted = true;
  STEP(1, dz_host_start() == CUDA_SUCCESS);
  STEP(2, !interrupted && faster != NULL && faster == dz_host());
  STEP(3, dz_host_driver.DeviceGetCount(&count) == CUDA_SUCCESS && count == 1);
  return 0;
}

static int begin_with_nothing(void) {
  int count = 0, next;
  CUcontext made;
  bare = true;
  STEP(1, dz_host_start() == CUDA_ERROR_OUT_OF_MEMORY);
  bare = false;
  STEP(2, dz_host_start() == CUDA_SUCCESS);
  bare = true;
  STEP(3, dz_host_driver.DeviceGetCount(&count) == CUDA_ERROR_OUT_OF_MEMORY);
  bare = false;
  STEP(4, dz_host_driver.DeviceGetCount(&count) == CUDA_SUCCESS && count == 1);
  next = dup(0);
  STEP(5, close(next) == 0);
  bare = true;
  STEP(6, dz_host_driver.DevicePrimaryCtxRetain(&made, 0) == CUDA_ERROR_OUT_OF_MEMORY);
  bare = false;
  STEP(7, dup(0) == next); /* no file is left */
  return 0;
}

START_TEST(a_beginning_may_meet_another_or_find_nothing) {
  ck_assert_int_eq(in_child(begin_with_another), 0);
  if (CHILD_MAY_ALLOCATE) ck_assert_int_eq(in_child(begin_with_nothing), 0);
}
END_TEST

/* ---- a parent that never used it */

static int child_is_first(void) {
  struct device mine;
  STEP(1, dz_host_driver.CtxSynchronize() == CUDA_ERROR_NOT_INITIALIZED);
  STEP(2, dz_host_driver.Init(0) == CUDA_SUCCESS);
  STEP(3, dz_device_open(&mine, "host") == DROWSE_OK);
  return 0;
}

/* In CK_FORK=no mode it comes before the tests that initialise the emulation. */
START_TEST(a_child_of_an_uninitialised_parent_is_free) {
  ck_assert_int_eq(dz_host_driver.CtxSynchronize(), CUDA_ERROR_NOT_INITIALIZED);
  ck_assert_int_eq(in_child(child_is_first), 0);
  ck_assert_int_eq(dz_host_driver.CtxSynchronize(), CUDA_ERROR_NOT_INITIALIZED);
}
END_TEST

#define FORK_TEST(suite, test) HARNESS_FIXTURE_TEST(suite, test, start_fork, finish_fork)

int main(void) {
  Suite *suite = suite_create("host fork");
  HARNESS_TEST(suite, a_child_of_an_uninitialised_parent_is_free);
  FORK_TEST(suite, every_call_is_refused);
  FORK_TEST(suite, the_child_has_none_of_the_memory);
  if (CHILD_MAY_START_THREADS) FORK_TEST(suite, a_child_may_start_anew);
  if (CHILD_MAY_START_THREADS) FORK_TEST(suite, a_child_keeps_descriptors_of_its_own);
  if (CHILD_MAY_START_THREADS) FORK_TEST(suite, a_beginning_may_meet_another_or_find_nothing);
  FORK_TEST(suite, locks_that_are_held_do_not_matter_to_the_child);
  return harness_run(suite);
}
