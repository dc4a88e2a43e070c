/* SPDX-License-Identifier: Apache-2.0
 *
 * Comes in front of every source of the library's second build: its calls of libc go by way of the fault table (fault.h).
 */
#ifndef FAULT_LIBC_H
#define FAULT_LIBC_H

#include "config.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* Where a call is made. */
struct fault_place {
  const char *file;
  int line;
};
#define FAULT_HERE       \
  (struct fault_place) { \
    __FILE__, __LINE__   \
  }

void *fault_malloc(struct fault_place place, size_t bytes);
void *fault_calloc(struct fault_place place, size_t count, size_t bytes);
void *fault_realloc(struct fault_place place, void *memory, size_t bytes);
char *fault_strdup(struct fault_place place, const char *text);
void fault_free(void *memory);
void *fault_mmap(struct fault_place place, void *address, size_t bytes, int access, int flags, int file, off_t offset);
int fault_munmap(struct fault_place place, void *address, size_t bytes);
int fault_madvise(struct fault_place place, void *address, size_t bytes, int advice);
int fault_mprotect(struct fault_place place, void *address, size_t bytes, int access);
int fault_memfd_create(struct fault_place place, const char *name, unsigned flags);
int fault_open(struct fault_place place, const char *path, int flags, ...);
FILE *fault_fopen(struct fault_place place, const char *path, const char *mode);
int fault_mkostemp(struct fault_place place, char *path, int flags);
int fault_unlink(struct fault_place place, const char *path);
int fault_fstat(struct fault_place place, int file, struct stat *about);
int fault_statvfs(struct fault_place place, const char *path, struct statvfs *about);
int fault_fcntl(struct fault_place place, int file, int command, int argument);
int fault_ioctl(struct fault_place place, int file, unsigned long request, void *argument);
int fault_ftruncate(struct fault_place place, int file, off_t bytes);
int fault_fallocate(struct fault_place place, int file, int mode, off_t offset, off_t bytes);
int fault_posix_fallocate(struct fault_place place, int file, off_t offset, off_t bytes);
ssize_t fault_pread(struct fault_place place, int file, void *memory, size_t bytes, off_t offset);
ssize_t fault_pwrite(struct fault_place place, int file, const void *memory, size_t bytes, off_t offset);
void *fault_dlopen(struct fault_place place, const char *name, int flags);
void *fault_dlsym(struct fault_place place, void *library, const char *name);
int fault_sched_getaffinity(struct fault_place place, pid_t pid, size_t bytes, cpu_set_t *set);
int fault_pthread_create(struct fault_place place, pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                         void *argument);
int fault_pthread_mutex_init(struct fault_place place, pthread_mutex_t *mutex, const pthread_mutexattr_t *attributes);
int fault_pthread_cond_init(struct fault_place place, pthread_cond_t *cond, const pthread_condattr_t *attributes);
int fault_pthread_rwlock_init(struct fault_place place, pthread_rwlock_t *lock, const pthread_rwlockattr_t *attributes);
int fault_pthread_key_create(struct fault_place place, pthread_key_t *key, void (*end)(void *));
int fault_pthread_setspecific(struct fault_place place, pthread_key_t key, const void *value);
int fault_pthread_getattr_np(struct fault_place place, pthread_t thread, pthread_attr_t *attributes);

#ifndef FAULT_LIBC_ITSELF
#define malloc(...) fault_malloc(FAULT_HERE, __VA_ARGS__)
#define calloc(...) fault_calloc(FAULT_HERE, __VA_ARGS__)
#define realloc(...) fault_realloc(FAULT_HERE, __VA_ARGS__)
#undef strdup
#define strdup(...) fault_strdup(FAULT_HERE, __VA_ARGS__)
#define free(memory) fault_free(memory)
#define mmap(...) fault_mmap(FAULT_HERE, __VA_ARGS__)
#define munmap(...) fault_munmap(FAULT_HERE, __VA_ARGS__)
#define madvise(...) fault_madvise(FAULT_HERE, __VA_ARGS__)
#define mprotect(...) fault_mprotect(FAULT_HERE, __VA_ARGS__)
#define memfd_create(...) fault_memfd_create(FAULT_HERE, __VA_ARGS__)
#define open(...) fault_open(FAULT_HERE, __VA_ARGS__)
#define fopen(...) fault_fopen(FAULT_HERE, __VA_ARGS__)
#define mkostemp(...) fault_mkostemp(FAULT_HERE, __VA_ARGS__)
#define unlink(...) fault_unlink(FAULT_HERE, __VA_ARGS__)
#define fstat(...) fault_fstat(FAULT_HERE, __VA_ARGS__)
#define statvfs(path, about) fault_statvfs(FAULT_HERE, path, about)
#define fcntl(...) fault_fcntl(FAULT_HERE, __VA_ARGS__)
#define ioctl(...) fault_ioctl(FAULT_HERE, __VA_ARGS__)
#define ftruncate(...) fault_ftruncate(FAULT_HERE, __VA_ARGS__)
#define fallocate(...) fault_fallocate(FAULT_HERE, __VA_ARGS__)
#define posix_fallocate(...) fault_posix_fallocate(FAULT_HERE, __VA_ARGS__)
#define pread(...) fault_pread(FAULT_HERE, __VA_ARGS__)
#define pwrite(...) fault_pwrite(FAULT_HERE, __VA_ARGS__)
#define dlopen(...) fault_dlopen(FAULT_HERE, __VA_ARGS__)
#define dlsym(...) fault_dlsym(FAULT_HERE, __VA_ARGS__)
#define sched_getaffinity(...) fault_sched_getaffinity(FAULT_HERE, __VA_ARGS__)
#define pthread_create(...) fault_pthread_create(FAULT_HERE, __VA_ARGS__)
#define pthread_mutex_init(...) fault_pthread_mutex_init(FAULT_HERE, __VA_ARGS__)
#define pthread_cond_init(...) fault_pthread_cond_init(FAULT_HERE, __VA_ARGS__)
#define pthread_rwlock_init(...) fault_pthread_rwlock_init(FAULT_HERE, __VA_ARGS__)
#define pthread_key_create(...) fault_pthread_key_create(FAULT_HERE, __VA_ARGS__)
#define pthread_setspecific(...) fault_pthread_setspecific(FAULT_HERE, __VA_ARGS__)
#define pthread_getattr_np(...) fault_pthread_getattr_np(FAULT_HERE, __VA_ARGS__)
#endif

#endif
