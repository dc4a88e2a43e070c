/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading and writing a part of an extent.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "backup/io.h"
#include "core/error.h"

/* One access: where it is in the extent, and a piece's memory. */
struct access {
  const struct file_extent *extent;
  struct io io;
  char *piece;
  bool write;
};

static drowse_status transfer(struct access *access, bool write, uint64_t at, uint64_t bytes) {
  void *token;
  drowse_status status =
      dz_io_start(&access->io, write, access->extent->file, access->piece, bytes, access->extent->offset + at, access);
  return status == DROWSE_OK ? dz_io_wait(&access->io, &token) : status;
}

/* The part of one piece, at an offset of it. The checksum changes once the piece has been written. */
static drowse_status access_piece(struct access *access, uint64_t at, uint64_t offset, char *memory, uint64_t bytes) {
  struct file *file = access->extent->file;
  uint64_t left = access->extent->bytes - at, piece_bytes = left < DZ_FILE_PIECE ? left : DZ_FILE_PIECE;
  drowse_status status = transfer(access, false, at, piece_bytes);
  if (status == DROWSE_OK) status = dz_file_check(file, access->extent->offset + at, access->piece, piece_bytes);
  if (status != DROWSE_OK) return status;
  if (!access->write) {
    memcpy(memory, access->piece + offset, bytes);
    return DROWSE_OK;
  }
  memcpy(access->piece + offset, memory, bytes);
  status = transfer(access, true, at, piece_bytes);
  if (status == DROWSE_OK) dz_file_note(file, access->extent->offset + at, access->piece, piece_bytes);
  return status;
}

static drowse_status access_pieces(struct access *access, uint64_t offset, char *memory, uint64_t bytes) {
  drowse_status status = DROWSE_OK;
  for (uint64_t done = 0, part; status == DROWSE_OK && done < bytes; done += part) {
    uint64_t in_piece = (offset + done) % DZ_FILE_PIECE, room = DZ_FILE_PIECE - in_piece;
    part = bytes - done < room ? bytes - done : room;
    status = access_piece(access, offset + done - in_piece, in_piece, memory + done, part);
  }
  return status;
}

drowse_status dz_io_access(const struct file_extent *extent, uint64_t offset, void *memory, uint64_t bytes, bool write) {
  struct access access = {.extent = extent, .write = write};
  void *piece = mmap(NULL, DZ_FILE_PIECE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (piece == MAP_FAILED) return dz_error_system(DROWSE_ERR_NO_HOST_MEMORY, errno, "memory for a piece of a file");
  (void)madvise(piece, DZ_FILE_PIECE, MADV_DONTFORK);
  access.piece = piece;
  drowse_status status = dz_io_begin(&access.io, 1);
  if (status == DROWSE_OK) status = access_pieces(&access, offset, memory, bytes);
  dz_io_end(&access.io);
  (void)munmap(piece, DZ_FILE_PIECE);
  return status;
}
