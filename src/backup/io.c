/* SPDX-License-Identifier: Apache-2.0
 *
 * The queue: requests, and which kind does them.
 */
#include "backup/io.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#include "backup/io_kind.h"
#include "core/error.h"
#include "core/range.h"

/* ---- one request */

/* Direct I/O goes on where it is aligned, even if less than a page came last. */
bool dz_io_take_result(struct io_request *request, int64_t result) {
  if (result == -EINTR || result == -EAGAIN) return false;
  if (result <= 0) {
    request->code = result == 0 ? DZ_IO_ENDED : (int)-result;
    return true;
  }
  uint64_t pages = dz_round_down((uint64_t)result, DZ_FILE_ALIGN);
  request->done += pages > 0 ? pages : (uint64_t)result;
  return request->done >= request->bytes;
}

static int64_t transfer(const struct io_request *request) {
  int descriptor = dz_file_descriptor(request->file);
  char *memory = request->memory + request->done;
  uint64_t bytes = request->bytes - request->done;
  off_t offset = (off_t)(request->offset + request->done);
  ssize_t result = request->write ? pwrite(descriptor, memory, bytes, offset) : pread(descriptor, memory, bytes, offset);
  return result < 0 ? -errno : result;
}

void dz_io_do(struct io_request *request) {
  while (!dz_io_take_result(request, transfer(request))) {
  }
}

static drowse_status report(const struct io_request *request) {
  const char *what = request->write ? "writing" : "reading", *directory = dz_file_directory(request->file);
  if (request->code == DZ_IO_ENDED) {
    return dz_error(DROWSE_ERR_IO, "%s %" PRIu64 " bytes at %" PRIu64 " of a backup in a file in %s: the file ends before", what,
                    request->bytes, request->offset, directory);
  }
  return dz_error_system(DROWSE_ERR_IO, request->code, "%s %" PRIu64 " bytes at %" PRIu64 " of a backup in a file in %s", what,
                         request->bytes, request->offset, directory);
}

/* ---- the queue */

static bool make_requests(struct io *io) {
  io->requests = calloc(io->depth, sizeof *io->requests);
  for (unsigned i = 0; io->requests != NULL && i < io->depth; i++) {
    io->requests[i].next = io->free;
    io->free = &io->requests[i];
  }
  return io->requests != NULL;
}

drowse_status dz_io_begin_with(struct io *io, unsigned depth, const char *library) {
  *io = (struct io){.depth = depth == 0 ? 1 : depth};
  if (!make_requests(io)) return dz_error(DROWSE_ERR_NO_HOST_MEMORY, "no memory for a queue of %u reads and writes", depth);
  if (library != NULL && dz_io_ring_begin(io, library) == 0) return DROWSE_OK;
  int code = dz_io_threads_begin(io);
  if (code == 0) return DROWSE_OK;
  return dz_error_system(code == ENOMEM ? DROWSE_ERR_NO_HOST_MEMORY : DROWSE_ERR_SYSTEM, code,
                         "no threads to read and write files");
}

drowse_status dz_io_begin(struct io *io, unsigned depth) {
  return dz_io_begin_with(io, depth, "liburing.so.2");
}

void dz_io_end(struct io *io) {
  for (; io->in_flight > 0; io->in_flight--) (void)io->kind->wait(io);
  if (io->kind != NULL) io->kind->end(io);
  free(io->requests);
  *io = (struct io){.depth = 0};
}

const char *dz_io_kind(const struct io *io) {
  return io->kind->name;
}

drowse_status dz_io_start(struct io *io, bool write, struct file *file, void *memory, uint64_t bytes, uint64_t offset,
                          void *token) {
  struct io_request *request = io->free;
  if (request == NULL) return dz_error(DROWSE_ERR_INVALID, "%u reads and writes are on their way already", io->depth);
  io->free = request->next;
  io->in_flight++;
  bytes = dz_round_up(bytes, DZ_FILE_ALIGN);
  *request =
      (struct io_request){.write = write, .file = file, .memory = memory, .bytes = bytes, .offset = offset, .token = token};
  io->kind->start(io, request);
  return DROWSE_OK;
}

drowse_status dz_io_wait(struct io *io, void **token) {
  *token = NULL;
  if (io->in_flight == 0) return DROWSE_OK;
  struct io_request *request = io->kind->wait(io);
  io->in_flight--;
  request->next = io->free;
  io->free = request;
  *token = request->token;
  return request->code == 0 ? DROWSE_OK : report(request);
}
