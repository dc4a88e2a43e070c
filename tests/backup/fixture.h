/* SPDX-License-Identifier: Apache-2.0
 *
 * What the tests of backups share: calls of the system and of the driver that fail, or wait, when a test wants it. The program is
 * linked so that the library's calls come here (--wrap).
 */
#ifndef BACKUP_FIXTURE_H
#define BACKUP_FIXTURE_H

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "backup/pages.h"
#include "core/error.h"
#include "core/lock.h"
#include "driver/device.h"
#include "driver/host.h"
#include "harness.h"

#define KIB (UINT64_C(1) << 10)
#define MIB (UINT64_C(1) << 20)

static struct device device;
static struct driver driver; /* the device's; a test may change entries */
static CUcontext context;

/* ---- the system. Nothing fails unless a test says so. */

static atomic_int threads_allowed = 1000000;      /* that may still be started */
static atomic_uint_fast64_t refused_size;         /* mappings at least as large are refused; 0: none */
static atomic_bool unmap_refused;                 /* none is unmapped */
static atomic_uint_fast64_t untouchable;          /* touching what this address is in fails; 0: touching anything does */
static atomic_int touch_code;                     /* ... with this errno; EINVAL: as old kernels do, everywhere */
static atomic_uint small_wishes;                  /* calls that asked for small pages */
static atomic_bool huge_refused, scan_refused;    /* there are no huge pages; nobody knows which are */
static atomic_int_fast64_t clock_step, clock_now; /* if there is a step: the clock goes on by that much at each look */

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument);
void *__real_mmap(void *address, size_t bytes, int access, int flags, int file, off_t offset);
int __real_munmap(void *address, size_t bytes);
int __real_madvise(void *address, size_t bytes, int advice);
int __real_ioctl(int file, unsigned long request, void *argument);
int64_t __real_dz_now(void);

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument) {
  return atomic_fetch_sub(&threads_allowed, 1) > 0 ? __real_pthread_create(thread, attributes, run, argument) : EAGAIN;
}

void *__wrap_mmap(void *address, size_t bytes, int access, int flags, int file, off_t offset);
void *__wrap_mmap(void *address, size_t bytes, int access, int flags, int file, off_t offset) {
  if (refused_size == 0 || bytes < refused_size) return __real_mmap(address, bytes, access, flags, file, offset);
  errno = ENOMEM;
  return MAP_FAILED;
}

int __wrap_munmap(void *address, size_t bytes);
int __wrap_munmap(void *address, size_t bytes) {
  if (!unmap_refused) return __real_munmap(address, bytes);
  errno = ENOMEM;
  return -1;
}

static inline int touch(void *address, size_t bytes, int advice) {
  uint64_t base = (uint64_t)(uintptr_t)address;
  bool there = untouchable == 0 || (base <= untouchable && untouchable < base + bytes);
  bool fails = touch_code != 0 && (touch_code == EINVAL || there);
  if (!fails) return __real_madvise(address, bytes, advice);
  errno = touch_code;
  return -1;
}

int __wrap_madvise(void *address, size_t bytes, int advice);
int __wrap_madvise(void *address, size_t bytes, int advice) {
  if (advice == MADV_POPULATE_WRITE) return touch(address, bytes, advice);
  if (advice == MADV_NOHUGEPAGE) atomic_fetch_add(&small_wishes, 1);
  if (advice != MADV_HUGEPAGE || !huge_refused) return __real_madvise(address, bytes, advice);
  errno = EINVAL;
  return -1;
}

int __wrap_ioctl(int file, unsigned long request, ...);
int __wrap_ioctl(int file, unsigned long request, ...) {
  va_list arguments;
  va_start(arguments, request);
  void *argument = va_arg(arguments, void *);
  va_end(arguments);
  if (!scan_refused) return __real_ioctl(file, request, argument);
  errno = ENOTTY;
  return -1;
}

int64_t __wrap_dz_now(void);
int64_t __wrap_dz_now(void) {
  return clock_step == 0 ? __real_dz_now() : atomic_fetch_add(&clock_now, clock_step);
}

/* ---- the device */

static inline uint64_t registered_bytes(void) {
  struct host_counts counts;
  dz_host_counts(&counts);
  return counts.registered_bytes;
}

static inline void open_device(void) {
  ck_ok(dz_device_open(&device, "host:64MiB"));
  driver = device.driver;
  ck_assert_int_eq(driver.DevicePrimaryCtxRetain(&context, device.ordinal), CUDA_SUCCESS);
  ck_assert_int_eq(driver.CtxSetCurrent(context), CUDA_SUCCESS);
}

static inline void close_device(void) {
  struct host_counts counts;
  dz_host_counts(&counts);
  ck_assert_uint_eq(counts.registered, 0);
  ck_assert_uint_eq(counts.registered_bytes, 0);
  ck_assert_int_eq(device.driver.CtxSetCurrent(NULL), CUDA_SUCCESS);
  ck_assert_int_eq(device.driver.DevicePrimaryCtxRelease(device.ordinal), CUDA_SUCCESS);
  threads_allowed = 1000000;
  touch_code = 0;
  refused_size = 0;
  untouchable = 0;
  small_wishes = 0;
  clock_step = 0;
  clock_now = 0;
  unmap_refused = false;
  huge_refused = false;
  scan_refused = false;
}

static inline CUresult refuse_to_pin(void *host, size_t bytes, unsigned int flags) {
  (void)host;
  (void)bytes;
  (void)flags;
  return CUDA_ERROR_INVALID_VALUE;
}

static inline CUresult refuse_to_unpin(void *host) {
  (void)host;
  return CUDA_ERROR_INVALID_VALUE;
}

/* ---- what the log is told */

static atomic_uint warnings;

static inline void count_warning(void *nothing, int level, const char *text) {
  (void)nothing;
  (void)text;
  if (level == DROWSE_LOG_WARNING) atomic_fetch_add(&warnings, 1);
}

static inline void listen(void) {
  warnings = 0;
  drowse_log_set(count_warning, NULL, DROWSE_LOG_WARNING);
}

/* ---- pages */

/* Whether a page is mapped, as the kernel says. */
static inline bool is_mapped(uint64_t address) {
  unsigned char residence;
  uint64_t page = dz_page_bytes();
  return mincore((void *)(uintptr_t)(address & ~(page - 1)), page, &residence) == 0;
}

/* Kibibytes in a line of a file in /proc that begins with name, added up, in bytes; of smaps: of the mappings in a range alone.
 */
static inline uint64_t proc_bytes(const char *path, const char *name, uint64_t base, uint64_t end) {
  char line[512];
  unsigned long long from, to, kibibytes;
  uint64_t bytes = 0;
  bool inside = true;
  FILE *file = fopen(path, "re");
  ck_assert_ptr_nonnull(file);
  while (fgets(line, sizeof line, file) != NULL) {
    if (sscanf(line, "%llx-%llx ", &from, &to) == 2) inside = from >= base && to <= end;
    bool named = strncmp(line, name, strlen(name)) == 0 && sscanf(line + strlen(name), ": %llu", &kibibytes) == 1;
    if (inside && named) bytes += kibibytes * KIB;
  }
  (void)fclose(file);
  return bytes;
}

#define BACKUP_TEST(suite, test, before) HARNESS_FIXTURE_TEST(suite, test, before, finish)

#endif
