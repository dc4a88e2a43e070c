/* SPDX-License-Identifier: Apache-2.0
 *
 * What the kinds of queues have in common.
 */
#ifndef DZ_IO_KIND_H
#define DZ_IO_KIND_H

#include "backup/io.h"

struct io_request {
  struct io_request *next; /* in whatever list it is */
  bool write;
  struct file *file;
  char *memory;
  uint64_t bytes, offset; /* multiples of DZ_FILE_ALIGN */
  uint64_t done;          /* bytes */
  void *token;
  int code; /* 0, errno, or DZ_IO_ENDED */
};

enum { DZ_IO_ENDED = -1 }; /* the file has no such bytes */

struct io_kind {
  const char *name;
  void (*start)(struct io *io, struct io_request *request);
  struct io_request *(*wait)(struct io *io); /* one that is done; there is one on its way */
  void (*end)(struct io *io);                /* none is on its way */
};

/* Make a queue of that kind; 0 or errno. The ring: ENOSYS where it was not built in, or the library will not do. */
int dz_io_ring_begin(struct io *io, const char *library);
int dz_io_threads_begin(struct io *io);

/* Takes in what a system call says of a request: bytes, or -errno. true: it is done, or has failed. */
bool dz_io_take_result(struct io_request *request, int64_t result);

/* Does a request, or what is left of it, here and now. */
void dz_io_do(struct io_request *request);

#endif
