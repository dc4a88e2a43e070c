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
  char *piece, *before; /* a piece's memory, and what of it is about to be written over */
  bool write;
};

static drowse_status transfer(struct access *access, bool write, uint64_t at, uint64_t bytes) {
  void *token;
  drowse_status status =
      dz_io_start(&access->io, write, access->extent->file, access->piece, bytes, access->extent->offset + at, access);
  return status == DROWSE_OK ? dz_io_wait(&access->io, &token) : status;
}

/* The part of one piece, at an offset of it. */
struct part {
  uint64_t at, piece_bytes; /* the piece in the extent */
  uint64_t offset, bytes;
  char *memory;
};

static bool is_whole(const struct part *part) {
  return part->bytes == part->piece_bytes;
}

static drowse_status read_piece(struct access *access, const struct part *part) {
  const struct file_extent *extent = access->extent;
  drowse_status status = transfer(access, false, part->at, part->piece_bytes);
  return status == DROWSE_OK ? dz_file_check(extent->file, extent->offset + part->at, access->piece, part->piece_bytes) : status;
}

static drowse_status copy_out(struct access *access, const struct part *part) {
  drowse_status status = read_piece(access, part);
  if (status == DROWSE_OK) memcpy(part->memory, access->piece + part->offset, part->bytes);
  return status;
}

static drowse_status check(struct access *access, const struct part *part) {
  return is_whole(part) ? DROWSE_OK : read_piece(access, part);
}

/* Where a write fails nobody knows what is in the file. So what was there is written once more: else the part of the piece that
 * was not to change would be lost too. Of a whole piece nothing is to stay, and what is there now is taken for what it has. */
static void write_back(struct access *access, const struct part *part) {
  const struct file_extent *extent = access->extent;
  struct error error;
  dz_error_save(&error);
  if (!is_whole(part)) {
    memcpy(access->piece + part->offset, access->before, part->bytes);
    (void)transfer(access, true, part->at, part->piece_bytes);
  } else if (transfer(access, false, part->at, part->piece_bytes) == DROWSE_OK) {
    dz_file_note(extent->file, extent->offset + part->at, access->piece, part->piece_bytes);
  }
  (void)dz_error_restore(&error);
}

/* The checksum changes once the piece has been written. */
static drowse_status copy_in(struct access *access, const struct part *part) {
  const struct file_extent *extent = access->extent;
  drowse_status status = check(access, part);
  if (status != DROWSE_OK) return status;
  memcpy(access->before, access->piece + part->offset, part->bytes);
  memcpy(access->piece + part->offset, part->memory, part->bytes);
  status = transfer(access, true, part->at, part->piece_bytes);
  if (status == DROWSE_OK)
    dz_file_note(extent->file, extent->offset + part->at, access->piece, part->piece_bytes);
  else
    write_back(access, part);
  return status;
}

static drowse_status each_part(struct access *access, uint64_t offset, char *memory, uint64_t bytes,
                               drowse_status (*act)(struct access *access, const struct part *part)) {
  drowse_status status = DROWSE_OK;
  for (uint64_t end = offset + bytes; status == DROWSE_OK && offset < end;) {
    struct part part = {.offset = offset % DZ_FILE_PIECE, .memory = memory};
    part.at = offset - part.offset;
    uint64_t left = access->extent->bytes - part.at;
    part.piece_bytes = left < DZ_FILE_PIECE ? left : DZ_FILE_PIECE;
    uint64_t room = part.piece_bytes - part.offset;
    part.bytes = end - offset < room ? end - offset : room;
    status = act(access, &part);
    offset += part.bytes;
    memory += part.bytes;
  }
  return status;
}

/* Before anything is written it is certain that what stays of the first and the last piece is not damaged. */
static drowse_status access_parts(struct access *access, uint64_t offset, char *memory, uint64_t bytes) {
  if (!access->write) return each_part(access, offset, memory, bytes, copy_out);
  drowse_status status = each_part(access, offset, memory, bytes, check);
  return status == DROWSE_OK ? each_part(access, offset, memory, bytes, copy_in) : status;
}

drowse_status dz_io_access(const struct file_extent *extent, uint64_t offset, void *memory, uint64_t bytes, bool write) {
  const size_t room = (size_t)2 * DZ_FILE_PIECE;
  struct access access = {.extent = extent, .write = write};
  void *piece = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (piece == MAP_FAILED) return dz_error_system(DROWSE_ERR_NO_HOST_MEMORY, errno, "memory for a piece of a file");
  (void)madvise(piece, room, MADV_DONTFORK);
  access.piece = piece;
  access.before = access.piece + DZ_FILE_PIECE;
  drowse_status status = dz_io_begin(&access.io, 1);
  if (status == DROWSE_OK) status = access_parts(&access, offset, memory, bytes);
  dz_io_end(&access.io);
  (void)munmap(piece, room);
  return status;
}
