/* SPDX-License-Identifier: Apache-2.0
 *
 * The library's calls of libc, in its second build.
 */
#define FAULT_LIBC_ITSELF
#include "fault/libc.h"

#include <errno.h>
#include <stdarg.h>

#include "fault/fault.h"

#if HAVE_LIBURING_H
#include <liburing.h>
#endif

/* ---- who calls, and with what error it fails */

static bool is_host(struct fault_place place) {
  return strstr(place.file, "driver/host/") != NULL;
}

static bool fails(struct fault_place place, enum fault_point point, enum fault_variant *variant) {
  const enum fault_point host = (enum fault_point)((int)point + FAULT_LIBC_END - FAULT_ENTRIES);
  return fault_hits(is_host(place) ? host : point, variant);
}

/* A call that returns -1 and errno. */
static bool fails_with(struct fault_place place, enum fault_point point, int code) {
  enum fault_variant variant;
  if (!fails(place, point, &variant)) return false;
  errno = variant == FAULT_SHORT ? EINTR : code;
  return true;
}

/* One that returns errno. */
static int code_of(struct fault_place place, enum fault_point point, int code) {
  enum fault_variant variant;
  if (!fails(place, point, &variant)) return 0;
  return variant == FAULT_SHORT ? EINTR : code;
}

/* ---- what is alive of the library's own; of memory, what the host device has, too, which goes with its contexts */

enum { ALLOCATIONS = 4096 };

static struct {
  void *memory;
  struct fault_place place;
} allocations[ALLOCATIONS];
static size_t allocation_count;
static int64_t mapped_bytes;
static pthread_mutex_t live_lock = PTHREAD_MUTEX_INITIALIZER;

/* What the host device keeps for as long as the process lives: itself, its devices and its tables of handles. */
static bool stays(struct fault_place place) {
  static const char *const files[] = {"driver/host/entry.c", "driver/host/context.c", "driver/host/table.c"};
  size_t at = 0, count = sizeof files / sizeof *files;
  while (at < count && strstr(place.file, files[at]) == NULL) at++;
  return at < count;
}

static void *note(struct fault_place place, void *memory) {
  if (memory == NULL || stays(place)) return memory;
  (void)pthread_mutex_lock(&live_lock);
  if (allocation_count == ALLOCATIONS) abort();
  allocations[allocation_count].memory = memory;
  allocations[allocation_count++].place = place;
  (void)pthread_mutex_unlock(&live_lock);
  return memory;
}

static void forget(const void *memory) {
  (void)pthread_mutex_lock(&live_lock);
  for (size_t i = 0; i < allocation_count; i++) {
    if (allocations[i].memory == memory) {
      allocations[i] = allocations[--allocation_count];
      break;
    }
  }
  (void)pthread_mutex_unlock(&live_lock);
}

static void note_mapped(struct fault_place place, int64_t bytes) {
  if (is_host(place)) return;
  (void)pthread_mutex_lock(&live_lock);
  mapped_bytes += bytes;
  (void)pthread_mutex_unlock(&live_lock);
}

struct fault_live fault_live(void) {
  (void)pthread_mutex_lock(&live_lock);
  struct fault_live live = {(int64_t)allocation_count, mapped_bytes};
  (void)pthread_mutex_unlock(&live_lock);
  return live;
}

void fault_print_allocations(int descriptor) {
  for (size_t i = 0; i < allocation_count; i++)
    (void)dprintf(descriptor, "  allocated at %s:%d\n", allocations[i].place.file, allocations[i].place.line);
}

/* ---- memory */

void *fault_malloc(struct fault_place place, size_t bytes) {
  return fails_with(place, FAULT_malloc, ENOMEM) ? NULL : note(place, malloc(bytes));
}

void *fault_calloc(struct fault_place place, size_t count, size_t bytes) {
  return fails_with(place, FAULT_calloc, ENOMEM) ? NULL : note(place, calloc(count, bytes));
}

void *fault_realloc(struct fault_place place, void *memory, size_t bytes) {
  if (fails_with(place, FAULT_realloc, ENOMEM)) return NULL;
  forget(memory);
  return note(place, realloc(memory, bytes));
}

char *fault_strdup(struct fault_place place, const char *text) {
  return fails_with(place, FAULT_strdup, ENOMEM) ? NULL : note(place, strdup(text));
}

void fault_free(void *memory) {
  forget(memory);
  free(memory);
}

void *fault_mmap(struct fault_place place, void *address, size_t bytes, int access, int flags, int file, off_t offset) {
  if (fails_with(place, FAULT_mmap, ENOMEM)) return MAP_FAILED;
  void *memory = mmap(address, bytes, access, flags, file, offset);
  if (memory != MAP_FAILED) note_mapped(place, (int64_t)bytes);
  return memory;
}

int fault_munmap(struct fault_place place, void *address, size_t bytes) {
  if (fails_with(place, FAULT_munmap, ENOMEM)) return -1;
  int result = munmap(address, bytes);
  if (result == 0) note_mapped(place, -(int64_t)bytes);
  return result;
}

int fault_madvise(struct fault_place place, void *address, size_t bytes, int advice) {
  return fails_with(place, FAULT_madvise, ENOMEM) ? -1 : madvise(address, bytes, advice);
}

int fault_mprotect(struct fault_place place, void *address, size_t bytes, int access) {
  return fails_with(place, FAULT_mprotect, ENOMEM) ? -1 : mprotect(address, bytes, access);
}

int fault_memfd_create(struct fault_place place, const char *name, unsigned flags) {
  return fails_with(place, FAULT_memfd_create, EMFILE) ? -1 : memfd_create(name, flags);
}

/* ---- files */

int fault_open(struct fault_place place, const char *path, int flags, ...) {
  mode_t mode = 0;
  if ((flags & (O_CREAT | O_TMPFILE)) != 0) {
    va_list arguments;
    va_start(arguments, flags);
    mode = (mode_t)va_arg(arguments, int);
    va_end(arguments);
  }
  return fails_with(place, FAULT_open, EMFILE) ? -1 : open(path, flags, mode);
}

FILE *fault_fopen(struct fault_place place, const char *path, const char *mode) {
  return fails_with(place, FAULT_fopen, EMFILE) ? NULL : fopen(path, mode);
}

int fault_mkostemp(struct fault_place place, char *path, int flags) {
  return fails_with(place, FAULT_mkostemp, EMFILE) ? -1 : mkostemp(path, flags);
}

/* The name must not outlive the test. */
int fault_unlink(struct fault_place place, const char *path) {
  int result = unlink(path);
  return fails_with(place, FAULT_unlink, EIO) ? -1 : result;
}

int fault_fstat(struct fault_place place, int file, struct stat *about) {
  return fails_with(place, FAULT_fstat, EIO) ? -1 : fstat(file, about);
}

int fault_statvfs(struct fault_place place, const char *path, struct statvfs *about) {
  return fails_with(place, FAULT_statvfs, EIO) ? -1 : statvfs(path, about);
}

int fault_fcntl(struct fault_place place, int file, int command, int argument) {
  return fails_with(place, FAULT_fcntl, EINVAL) ? -1 : fcntl(file, command, argument);
}

int fault_ioctl(struct fault_place place, int file, unsigned long request, void *argument) {
  return fails_with(place, FAULT_ioctl, ENOTTY) ? -1 : ioctl(file, request, argument);
}

int fault_ftruncate(struct fault_place place, int file, off_t bytes) {
  return fails_with(place, FAULT_ftruncate, EIO) ? -1 : ftruncate(file, bytes);
}

int fault_fallocate(struct fault_place place, int file, int mode, off_t offset, off_t bytes) {
  return fails_with(place, FAULT_fallocate, EOPNOTSUPP) ? -1 : fallocate(file, mode, offset, bytes);
}

int fault_posix_fallocate(struct fault_place place, int file, off_t offset, off_t bytes) {
  int code = code_of(place, FAULT_posix_fallocate, ENOSPC);
  return code != 0 ? code : posix_fallocate(file, offset, bytes);
}

/* Half of it, and what is left of that is no whole page either. */
static size_t shorter(size_t bytes) {
  return bytes / 2 + 1;
}

ssize_t fault_pread(struct fault_place place, int file, void *memory, size_t bytes, off_t offset) {
  enum fault_variant variant;
  if (!fails(place, FAULT_pread, &variant)) return pread(file, memory, bytes, offset);
  if (variant != FAULT_SHORT) {
    errno = EIO;
    return -1;
  }
  ssize_t result = pread(file, memory, bytes, offset);
  return result > 1 ? (ssize_t)shorter((size_t)result) : result;
}

ssize_t fault_pwrite(struct fault_place place, int file, const void *memory, size_t bytes, off_t offset) {
  enum fault_variant variant;
  if (!fails(place, FAULT_pwrite, &variant)) return pwrite(file, memory, bytes, offset);
  if (variant != FAULT_SHORT) {
    errno = ENOSPC;
    return -1;
  }
  ssize_t result = pwrite(file, memory, bytes, offset);
  return result > 1 ? (ssize_t)shorter((size_t)result) : result;
}

/* ---- threads */

int fault_sched_getaffinity(struct fault_place place, pid_t pid, size_t bytes, cpu_set_t *set) {
  return fails_with(place, FAULT_sched_getaffinity, EINVAL) ? -1 : sched_getaffinity(pid, bytes, set);
}

int fault_pthread_create(struct fault_place place, pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                         void *argument) {
  int code = code_of(place, FAULT_pthread_create, EAGAIN);
  return code != 0 ? code : pthread_create(thread, attributes, run, argument);
}

int fault_pthread_mutex_init(struct fault_place place, pthread_mutex_t *mutex, const pthread_mutexattr_t *attributes) {
  int code = code_of(place, FAULT_pthread_mutex_init, EAGAIN);
  return code != 0 ? code : pthread_mutex_init(mutex, attributes);
}

int fault_pthread_cond_init(struct fault_place place, pthread_cond_t *cond, const pthread_condattr_t *attributes) {
  int code = code_of(place, FAULT_pthread_cond_init, EAGAIN);
  return code != 0 ? code : pthread_cond_init(cond, attributes);
}

int fault_pthread_rwlock_init(struct fault_place place, pthread_rwlock_t *lock, const pthread_rwlockattr_t *attributes) {
  int code = code_of(place, FAULT_pthread_rwlock_init, EAGAIN);
  return code != 0 ? code : pthread_rwlock_init(lock, attributes);
}

int fault_pthread_key_create(struct fault_place place, pthread_key_t *key, void (*end)(void *)) {
  int code = code_of(place, FAULT_pthread_key_create, EAGAIN);
  return code != 0 ? code : pthread_key_create(key, end);
}

int fault_pthread_setspecific(struct fault_place place, pthread_key_t key, const void *value) {
  int code = code_of(place, FAULT_pthread_setspecific, ENOMEM);
  return code != 0 ? code : pthread_setspecific(key, value);
}

int fault_pthread_getattr_np(struct fault_place place, pthread_t thread, pthread_attr_t *attributes) {
  int code = code_of(place, FAULT_pthread_getattr_np, ENOMEM);
  return code != 0 ? code : pthread_getattr_np(thread, attributes);
}

/* ---- libraries, and what is called of liburing */

/* A GPU's driver has threads, files and memory of its own, which on the host device would count as left, and a table that is not
 * the host device's. So there is none for what does not run on a GPU. */
static bool is_for_others(const char *name) {
  const char *device = getenv("DROWSE_TEST_DEVICE");
  return strcmp(name, "libcuda.so.1") == 0 && (device == NULL || strncmp(device, "cuda", strlen("cuda")) != 0);
}

void *fault_dlopen(struct fault_place place, const char *name, int flags) {
  if (fails_with(place, FAULT_dlopen, ENOENT)) return NULL;
  return dlopen(is_for_others(name) ? "libcuda.so.1 for a GPU" : name, flags);
}

#if HAVE_LIBURING_H
static __typeof__(io_uring_queue_init) *_Atomic real_queue_init;
static __typeof__(io_uring_get_sqe) *_Atomic real_get_sqe;
static __typeof__(io_uring_submit) *_Atomic real_submit;
static __typeof__(io_uring_submit_and_wait) *_Atomic real_submit_and_wait;
static __typeof__(io_uring_peek_batch_cqe) *_Atomic real_peek;
static const struct fault_place in_ring = {"io_ring.c", 0};

static int queue_init(unsigned entries, struct io_uring *ring, unsigned flags) {
  return fails_with(in_ring, FAULT_io_uring_queue_init, ENOMEM) ? -ENOMEM : real_queue_init(entries, ring, flags);
}

static struct io_uring_sqe *get_sqe(struct io_uring *ring) {
  return fails_with(in_ring, FAULT_io_uring_get_sqe, EAGAIN) ? NULL : real_get_sqe(ring);
}

static int submit(struct io_uring *ring) {
  return fails_with(in_ring, FAULT_io_uring_submit, EAGAIN) ? -errno : real_submit(ring);
}

static int submit_and_wait(struct io_uring *ring, unsigned count) {
  return fails_with(in_ring, FAULT_io_uring_wait, EAGAIN) ? -errno : real_submit_and_wait(ring, count);
}

static unsigned peek(struct io_uring *ring, struct io_uring_cqe **entries, unsigned count) {
  unsigned found = real_peek(ring, entries, count);
  if (found == 1 && io_uring_cqe_get_data(entries[0]) != NULL && fails_with(in_ring, FAULT_io_uring_result, EIO))
    entries[0]->res = -errno;
  return found;
}

/* Puts ours in the place of what was found. */
static void *replace(const char *name, void *found) {
  static const struct {
    const char *name;
    void *real, *ours;
  } entries[] = {
      {"io_uring_queue_init", (void *)&real_queue_init, (void *)queue_init},
      {"io_uring_get_sqe", (void *)&real_get_sqe, (void *)get_sqe},
      {"io_uring_submit", (void *)&real_submit, (void *)submit},
      {"io_uring_submit_and_wait", (void *)&real_submit_and_wait, (void *)submit_and_wait},
      {"io_uring_peek_batch_cqe", (void *)&real_peek, (void *)peek},
  };
  for (size_t i = 0; i < sizeof entries / sizeof *entries; i++) {
    if (strcmp(name, entries[i].name) != 0) continue;
    __atomic_store_n((void **)entries[i].real, found, __ATOMIC_SEQ_CST); /* several threads look for it */
    return entries[i].ours;
  }
  return found;
}
#else
static void *replace(const char *name, void *found) {
  (void)name;
  return found;
}
#endif

void *fault_dlsym(struct fault_place place, void *library, const char *name) {
  if (fails_with(place, FAULT_dlsym, ENOENT)) return NULL;
  void *found = dlsym(library, name);
  return found == NULL ? NULL : replace(name, found);
}
