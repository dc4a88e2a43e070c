/* SPDX-License-Identifier: Apache-2.0
 *
 * Files that hold backups. Such a file has no name: it goes with the process, however that ends. All of its blocks are on the
 * disk before anything is written, so a full disk is noticed while everything is still as it was. Where the file system has
 * direct I/O, data goes past the page cache.
 *
 * A file is cut into extents, one after another, and lives until the maker and all extents have let it go. There is no lock: what
 * several threads change is two counters. In a forked child extents and files may be given back, which leaves the parent's data
 * alone; nothing else of them is used there.
 */
#ifndef DZ_FILE_H
#define DZ_FILE_H

#include "backup/checksum.h"
#include "drowse.h"

struct file;

struct file_extent {
  struct file *file; /* NULL: none */
  uint64_t offset;   /* a multiple of DZ_FILE_ALIGN */
  uint64_t bytes;    /* as they were asked for; the file has room for a multiple of DZ_FILE_ALIGN */
};

/* Makes a file of bytes in a directory; each extent takes a multiple of DZ_FILE_ALIGN of them. The thread's signals are blocked:
 * a file larger than the process may write raises SIGXFSZ. INVALID: directory is NULL. IO: the directory is not there or cannot
 * be written, or the disk, a quota or a limit has no room. */
drowse_status dz_file_make(const char *directory, uint64_t bytes, struct file **made);

/* The maker has taken all the extents it wants. The last one to let go closes the file. */
void dz_file_release(struct file *file);

/* Takes the next bytes of a file; false: there are not as many left. Giving them back frees their place on the disk, as far as
 * the file system can do that, and makes the extent none; it cannot fail. */
bool dz_file_take(struct file *file, uint64_t bytes, struct file_extent *extent);
void dz_file_give(struct file_extent *extent);

/* How much of a file an extent of bytes takes. */
static inline uint64_t dz_file_extent_bytes(uint64_t bytes) {
  return (bytes + DZ_FILE_ALIGN - 1) / DZ_FILE_ALIGN * DZ_FILE_ALIGN;
}

/* Whether it goes past the page cache, its descriptor, and for messages the directory it is in. */
bool dz_file_is_direct(const struct file *file);
int dz_file_descriptor(const struct file *file);
const char *dz_file_directory(const struct file *file);

/* Notes the checksum of a piece before it is written: an extent from its beginning in steps of DZ_FILE_PIECE, the last one
 * shorter. Compares that of a piece that was read. CORRUPT: it is another. */
void dz_file_note(struct file *file, uint64_t offset, const void *memory, uint64_t bytes);
drowse_status dz_file_check(const struct file *file, uint64_t offset, const void *memory, uint64_t bytes);

#endif
