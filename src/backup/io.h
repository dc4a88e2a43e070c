/* SPDX-License-Identifier: Apache-2.0
 *
 * A queue of reads and writes of files for backups, several on their way at once, for one thread at a time. The kernel's ring
 * does the work where it can be had, else a few threads do.
 *
 * Memory is aligned to DZ_FILE_ALIGN, and has room for a multiple of it: that is what is read and written. It should not be
 * copied by forks (MADV_DONTFORK): older kernels read into the copy that the child got. In a forked child nothing of a queue is
 * used.
 */
#ifndef DZ_IO_H
#define DZ_IO_H

#include "backup/file.h"

struct io {
  const struct io_kind *kind; /* NULL: not begun */
  void *state;                /* the kind's */
  struct io_request *requests, *free;
  unsigned depth, in_flight;
};

/* At most depth reads and writes are on their way at once. NO_HOST_MEMORY, SYSTEM: neither a ring nor a thread is to be had. */
drowse_status dz_io_begin(struct io *io, unsigned depth);

/* Waits for what is on its way. Also after dz_io_begin() has failed. */
void dz_io_end(struct io *io);

/* "io_uring" or "threads". */
const char *dz_io_kind(const struct io *io);

/* Starts a read into memory, or a write from it, of bytes at an offset of a file, both multiples of DZ_FILE_ALIGN but for bytes,
 * which are rounded up. INVALID: depth are on their way already. Whatever else goes wrong dz_io_wait() says. */
drowse_status dz_io_start(struct io *io, bool write, struct file *file, void *memory, uint64_t bytes, uint64_t offset,
                          void *token);

/* Waits for one that was started, whichever is done first, and tells its token; NULL: none is on its way. IO: it failed. */
drowse_status dz_io_wait(struct io *io, void **token);

/* Reads, or writes, bytes at an offset of an extent that has been written, and waits: whole pieces are read, compared with their
 * checksums and, if something in them changes, written; one that changes as a whole is not read, and may have been damaged. One
 * thread at a time for an extent. CORRUPT, NO_HOST_MEMORY, SYSTEM: nothing has been written. IO.
 */
drowse_status dz_io_access(const struct file_extent *extent, uint64_t offset, void *memory, uint64_t bytes, bool write);

/* dz_io_begin() with another library in place of liburing; NULL, or one that will not do: threads. For it and for tests. */
drowse_status dz_io_begin_with(struct io *io, unsigned depth, const char *library);

#endif
