/* SPDX-License-Identifier: Apache-2.0
 *
 * How a call gets in: the emulation is there, it is this process's, and the thread is not one that runs a host function.
 *
 * A forked child finds the parent's state in its memory, as some other thread may have left it half-way. It is never looked into:
 * the process id tells. dz_host_start() puts a new one in its place, which takes no lock.
 */
#include "driver/host.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/tls.h"
#include "driver/host/state.h"

_Atomic(struct host *) dz_host_instance;

static atomic_uint_fast64_t calls_after_fork;
static atomic_uint threads; /* numbers given out */

/* 8 bytes of thread-local storage; the current context is context.c's. */
static DZ_TLS struct {
  uint32_t number; /* 0: none yet */
  uint8_t mode;    /* CUstreamCaptureMode */
  bool in_callback;
} thread;

static pthread_key_t thread_key; /* tells of a thread's end */
static pthread_once_t thread_once = PTHREAD_ONCE_INIT;
static bool thread_key_made;

/* ---- threads */

static void thread_end(void *number) {
  struct host *host = atomic_load(&dz_host_instance);
  if (host == NULL || host->pid != getpid()) return;
  (void)pthread_mutex_lock(&host->lock);
  dz_stream_thread_ended((uint32_t)(uintptr_t)number);
  (void)pthread_mutex_unlock(&host->lock);
}

static void thread_init(void) {
  thread_key_made = pthread_key_create(&thread_key, thread_end) == 0;
}

uint32_t dz_host_thread(void) {
  if (thread.number != 0) return thread.number;
  (void)pthread_once(&thread_once, thread_init);
  thread.number = atomic_fetch_add(&threads, 1) + 1;
  /* Where this fails, what belongs to the thread outlives it, until its context ends. */
  if (thread_key_made) (void)pthread_setspecific(thread_key, (void *)(uintptr_t)thread.number);
  return thread.number;
}

void dz_host_callback_enter(void) {
  thread.in_callback = true;
}

void dz_host_callback_leave(void) {
  thread.in_callback = false;
}

/* ---- calls */

CUresult dz_host_begin(void) {
  struct host *host = atomic_load_explicit(&dz_host_instance, memory_order_acquire);
  if (host == NULL) return CUDA_ERROR_NOT_INITIALIZED;
  if (host->pid != getpid()) {
    atomic_fetch_add(&calls_after_fork, 1);
    return CUDA_ERROR_NOT_INITIALIZED;
  }
  if (thread.in_callback) return CUDA_ERROR_NOT_PERMITTED;
  (void)pthread_mutex_lock(&host->lock);
  return CUDA_SUCCESS;
}

CUresult dz_host_end(CUresult result) {
  (void)pthread_mutex_unlock(&dz_host()->lock);
  return result;
}

uint64_t dz_host_calls_after_fork(void) {
  return atomic_load(&calls_after_fork);
}

CUresult dz_host_ThreadExchangeStreamCaptureMode(CUstreamCaptureMode *mode) {
  if (atomic_load(&dz_host_instance) == NULL) return CUDA_ERROR_NOT_INITIALIZED;
  if (thread.in_callback) return CUDA_ERROR_NOT_PERMITTED;
  if (mode == NULL || (unsigned)*mode > CU_STREAM_CAPTURE_MODE_RELAXED) return CUDA_ERROR_INVALID_VALUE;
  CUstreamCaptureMode before = (CUstreamCaptureMode)thread.mode;
  thread.mode = (uint8_t)*mode;
  *mode = before;
  return CUDA_SUCCESS;
}

CUstreamCaptureMode dz_host_thread_mode(void) {
  return (CUstreamCaptureMode)thread.mode;
}

/* ---- the beginning */

static struct host *make(struct host *inherited) {
  struct host *host = calloc(1, sizeof *host);
  if (host == NULL) return NULL;
  host->pid = getpid();
  host->generation = inherited == NULL ? 0 : inherited->generation + 1;
  host->inherited = inherited;
  if (pthread_mutex_init(&host->lock, NULL) != 0) goto no_lock;
  if (pthread_cond_init(&host->ended, NULL) != 0) goto no_ended;
  /* Threads that copy come back for each piece; one that wants to unmap must get in between. */
  pthread_rwlockattr_t attributes;
  (void)pthread_rwlockattr_init(&attributes);
  (void)pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
  int failed = pthread_rwlock_init(&host->maps_lock, &attributes);
  (void)pthread_rwlockattr_destroy(&attributes);
  if (failed != 0) goto no_maps_lock;
  return host;

no_maps_lock:
  (void)pthread_cond_destroy(&host->ended);
no_ended:
  (void)pthread_mutex_destroy(&host->lock);
no_lock:
  free(host);
  return NULL;
}

static void unmake(struct host *host) {
  (void)pthread_rwlock_destroy(&host->maps_lock);
  (void)pthread_cond_destroy(&host->ended);
  (void)pthread_mutex_destroy(&host->lock);
  free(host);
}

/* A child's copies of the parent's descriptors would keep its memory alive when the parent has ended. They are closed only if
 * they still are what they were: the child may have closed them, and opened others. */
static void close_inherited(const struct host *host) {
  for (const struct gpu *gpu = host->gpus; gpu != NULL; gpu = gpu->next) {
    struct stat now;
    if (gpu->file < 0 || fstat(gpu->file, &now) != 0) continue;
    if (now.st_dev == gpu->file_device && now.st_ino == gpu->file_inode) (void)close(gpu->file);
  }
}

CUresult dz_host_start(void) {
  struct host *host = atomic_load(&dz_host_instance);
  if (host != NULL && host->pid == getpid()) return CUDA_SUCCESS;
  struct host *fresh = make(host);
  if (fresh == NULL) return CUDA_ERROR_OUT_OF_MEMORY;
  struct host *there = host;
  if (!atomic_compare_exchange_strong(&dz_host_instance, &there, fresh)) {
    unmake(fresh); /* another thread was faster */
  } else if (host != NULL) {
    close_inherited(host);
  }
  return CUDA_SUCCESS;
}

CUresult dz_host_Init(unsigned int flags) {
  if (flags != 0) return CUDA_ERROR_INVALID_VALUE;
  struct host *host = atomic_load(&dz_host_instance);
  if (host == NULL) return dz_host_start();
  CUresult result = dz_host_begin();
  return result == CUDA_SUCCESS ? dz_host_end(result) : result;
}
