/* SPDX-License-Identifier: Apache-2.0
 *
 * A queue whose requests the kernel does: io_uring, by liburing. Its header is there when drowse is built, the library is loaded
 * when a queue begins and never linked: where it is missing, or the kernel has no rings or refuses them, there is no such queue.
 */
#include "backup/io_kind.h"

#include <errno.h>

#include "config.h"

#if HAVE_LIBURING_H

#include <dlfcn.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/range.h"

/* What is used of the library: all of version 2 has it. What is inline in the header is not loaded. */
#define ENTRIES(X)            \
  X(io_uring_queue_init)      \
  X(io_uring_ring_dontfork)   \
  X(io_uring_queue_exit)      \
  X(io_uring_get_sqe)         \
  X(io_uring_submit)          \
  X(io_uring_submit_and_wait) \
  X(io_uring_peek_batch_cqe)

struct library {
  void *handle;
#define MEMBER(name) __typeof__(name) *name;
  ENTRIES(MEMBER)
#undef MEMBER
};

struct ring {
  struct library library;
  struct io_uring uring;
  struct io_request *done; /* without the ring */
};

/* ---- the library */

static bool find(void *handle, const char *name, void *entry) {
  void *found = dlsym(handle, name);
  memcpy(entry, &found, sizeof found); /* ISO C has no cast from an object's address to a function's */
  return found != NULL;
}

static bool load(struct library *library, const char *name) {
  library->handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  if (library->handle == NULL) return false;
  bool whole = true;
#define FIND(entry) whole = whole && find(library->handle, #entry, &library->entry);
  ENTRIES(FIND)
#undef FIND
  if (!whole) (void)dlclose(library->handle);
  return whole;
}

/* ---- requests */

enum { AT_ONCE = 1 << 30 }; /* the kernel's count has 32 bits, and it takes less than 2 GiB */

static void prepare(struct io_uring_sqe *entry, struct io_request *request) {
  uint64_t left = request->bytes - request->done, offset = request->offset + request->done;
  unsigned bytes = left < AT_ONCE ? (unsigned)left : AT_ONCE;
  int descriptor = dz_file_descriptor(request->file);
  if (request->write)
    io_uring_prep_write(entry, descriptor, request->memory + request->done, bytes, offset);
  else
    io_uring_prep_read(entry, descriptor, request->memory + request->done, bytes, offset);
  io_uring_sqe_set_data(entry, request);
}

/* What the kernel did not take stays in the ring and would be taken later: then it is to do nothing. */
static bool submit(struct ring *ring, struct io_request *request) {
  struct io_uring_sqe *entry = ring->library.io_uring_get_sqe(&ring->uring);
  if (entry == NULL) return false;
  prepare(entry, request);
  int taken;
  do taken = ring->library.io_uring_submit(&ring->uring);
  while (taken == -EINTR);
  if (taken > 0) return true;
  io_uring_prep_nop(entry);
  io_uring_sqe_set_data(entry, NULL);
  return false;
}

static void start(struct io *io, struct io_request *request) {
  struct ring *ring = io->state;
  if (submit(ring, request)) return;
  dz_io_do(request);
  request->next = ring->done;
  ring->done = request;
}

/* The next that the kernel is done with; NULL: none yet. */
static struct io_request *peek(struct ring *ring, int *result) {
  struct io_uring_cqe *entry;
  while (ring->library.io_uring_peek_batch_cqe(&ring->uring, &entry, 1) == 1) {
    struct io_request *request = io_uring_cqe_get_data(entry);
    *result = entry->res;
    io_uring_cqe_seen(&ring->uring, entry);
    if (request != NULL) return request;
  }
  return NULL;
}

/* The kernel writes to memory until it says that it is done. So there is no way out but that, whatever the wait itself says. */
static struct io_request *await(struct ring *ring, int *result) {
  static const struct timespec moment = {.tv_nsec = 1000000};
  struct io_request *request;
  while ((request = peek(ring, result)) == NULL) {
    int code = ring->library.io_uring_submit_and_wait(&ring->uring, 1);
    if (code < 0 && code != -EINTR) (void)nanosleep(&moment, NULL);
  }
  return request;
}

static struct io_request *wait_for_one(struct io *io) {
  struct ring *ring = io->state;
  int result;
  for (;;) {
    struct io_request *request = ring->done;
    if (request != NULL) {
      ring->done = request->next;
      return request;
    }
    request = await(ring, &result);
    if (dz_io_take_result(request, result)) return request;
    start(io, request);
  }
}

/* ---- the queue */

static void end(struct io *io) {
  struct ring *ring = io->state;
  ring->library.io_uring_queue_exit(&ring->uring);
  (void)dlclose(ring->library.handle);
  free(ring);
}

/* A ring that does not disturb this thread when something is done: it looks when it waits. Kernels before 5.19 do not know that.
 */
static int open_ring(struct ring *ring, unsigned depth) {
  int code = -EINVAL;
#ifdef IORING_SETUP_COOP_TASKRUN
  code = ring->library.io_uring_queue_init(depth, &ring->uring, IORING_SETUP_COOP_TASKRUN);
#endif
  if (code == -EINVAL) code = ring->library.io_uring_queue_init(depth, &ring->uring, 0);
  if (code == 0) (void)ring->library.io_uring_ring_dontfork(&ring->uring);
  return -code;
}

int dz_io_ring_begin(struct io *io, const char *library) {
  static const struct io_kind kind = {.name = "io_uring", .start = start, .wait = wait_for_one, .end = end};
  struct ring *ring = calloc(1, sizeof *ring);
  if (ring == NULL) return ENOMEM;
  int code = ENOSYS;
  if (!load(&ring->library, library)) goto no_library;
  code = open_ring(ring, io->depth);
  if (code != 0) goto no_ring;
  io->state = ring;
  io->kind = &kind;
  return 0;

no_ring:
  (void)dlclose(ring->library.handle);
no_library:
  free(ring);
  return code;
}

#else

int dz_io_ring_begin(struct io *io, const char *library) {
  (void)io;
  (void)library;
  return ENOSYS;
}

#endif
