/* SPDX-License-Identifier: Apache-2.0
 *
 * The fault table: which call fails, and how. Points are the entries of the driver, and the calls of libc that the library makes;
 * those that the host device makes are points of their own, because what they stand for is the driver's. A call counts, and can
 * fail, between fault_arm() and fault_rest().
 *
 * Nothing of this is in the library that is installed: the driver's entries are wrapped as a heap opens (driver.c), and libc's
 * calls in a second build of the sources (libc.h).
 */
#ifndef FAULT_H
#define FAULT_H

#include "config.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "driver/driver.h"

/* X(function): what the library calls of libc. read() is left out: only files in /proc are read so, which may as well not open.
 */
#define FAULT_LIBC(X)    \
  X(malloc)              \
  X(calloc)              \
  X(realloc)             \
  X(strdup)              \
  X(mmap)                \
  X(munmap)              \
  X(madvise)             \
  X(mprotect)            \
  X(memfd_create)        \
  X(open)                \
  X(fopen)               \
  X(mkostemp)            \
  X(unlink)              \
  X(fstat)               \
  X(statvfs)             \
  X(fcntl)               \
  X(ioctl)               \
  X(ftruncate)           \
  X(fallocate)           \
  X(posix_fallocate)     \
  X(pread)               \
  X(pwrite)              \
  X(dlopen)              \
  X(dlsym)               \
  X(sched_getaffinity)   \
  X(pthread_create)      \
  X(pthread_mutex_init)  \
  X(pthread_cond_init)   \
  X(pthread_rwlock_init) \
  X(pthread_key_create)  \
  X(pthread_setspecific) \
  X(pthread_getattr_np)  \
  X(io_uring_queue_init) \
  X(io_uring_get_sqe)    \
  X(io_uring_submit)     \
  X(io_uring_wait)       \
  X(io_uring_result)

#define FAULT_ENTRY_POINT(name, version, need, parameters) FAULT_##name,
#define FAULT_LIBC_POINT(name) FAULT_##name,
#define FAULT_HOST_POINT(name) FAULT_host_##name,
enum fault_point {
  DZ_DRIVER_ENTRIES(FAULT_ENTRY_POINT) FAULT_ENTRIES,
  FAULT_BEFORE_LIBC = FAULT_ENTRIES - 1,
  FAULT_LIBC(FAULT_LIBC_POINT) FAULT_LIBC_END,
  FAULT_BEFORE_HOST = FAULT_LIBC_END - 1,
  FAULT_LIBC(FAULT_HOST_POINT) FAULT_POINTS
};
#undef FAULT_ENTRY_POINT
#undef FAULT_LIBC_POINT
#undef FAULT_HOST_POINT

static inline bool fault_is_entry(enum fault_point point) {
  return point < FAULT_ENTRIES;
}

static inline bool fault_is_host(enum fault_point point) {
  return point >= FAULT_LIBC_END;
}

/* Which calls fail. */
enum fault_mode {
  FAULT_ONCE, /* the k-th of the point */
  FAULT_ON,   /* that, and all later ones of the point */
  FAULT_ALL,  /* that, and all later calls of whatever point */
  FAULT_MODES
};

/* How they fail. */
enum fault_variant {
  FAULT_REFUSED, /* with an error and no effect */
  FAULT_FULL,    /* an entry: for want of memory, without effect */
  FAULT_DONE,    /* with an error, and it is done all the same */
  FAULT_LATE,    /* work of a stream is not done, which the next wait tells */
  FAULT_STICKY,  /* the context breaks: everything that needs it says so, for ever */
  FAULT_LOST,    /* the device is gone: every entry says so, for ever */
  FAULT_SLOW,    /* not at all, but others run meanwhile */
  FAULT_SHORT,   /* not at all, but half of it is done; or a signal came before */
  FAULT_VARIANTS
};

struct fault_case {
  enum fault_point point;
  uint64_t k; /* 0: nothing fails */
  enum fault_mode mode;
  enum fault_variant variant;
};

const char *fault_point_name(enum fault_point point);
const char *fault_mode_name(enum fault_mode mode);
const char *fault_variant_name(enum fault_variant variant);

/* Reads "MemUnmap:3", "MemUnmap:3:on:done"; what is left out is once and refused. "MemUnmap" has k 0: all of its cases. */
bool fault_parse(const char *text, struct fault_case *wanted);

/* Whether calls of the point can fail in that way at all. */
bool fault_has(enum fault_point point, enum fault_mode mode, enum fault_variant variant);

void fault_arm(const struct fault_case *wanted);
void fault_rest(void);   /* nothing fails any more, but for what is for ever */
void fault_forget(void); /* not even that */
bool fault_is_for_ever(void);

/* What has come of it. */
uint64_t fault_calls(enum fault_point point); /* since it was armed */
bool fault_injected(void);

/* Has told called, once, from within the first call that fails. */
void fault_tell(void (*told)(void));

/* ---- for the wrappers */

/* Counts a call of the point; false: it is to be made as if nothing were. Else *variant says what is to happen. */
bool fault_hits(enum fault_point point, enum fault_variant *variant);

/* ---- libc.c: what the library has, but for what the host device has, of everything that libc.h sees */

struct fault_live {
  int64_t allocations, mapped_bytes;
};
struct fault_live fault_live(void);
void fault_print_allocations(int descriptor); /* where each was made */

/* ---- driver.c */

/* The driver without faults: the host device's, or that of a GPU, once a heap has been opened on one. */
const struct driver *fault_real_driver(void);

/* What has been begun by a call that failed, and goes on beyond it: nothing of that is left. */
void fault_driver_rest(void); /* but for what is for ever */
void fault_driver_forget(void);
bool fault_driver_is_lost(void);

#endif
