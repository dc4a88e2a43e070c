/* SPDX-License-Identifier: Apache-2.0
 *
 * Files for backups: making them, cutting them into extents, letting them go.
 */
#include "backup/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "core/error.h"
#include "core/fork.h"
#include "core/log.h"
#include "core/range.h"

struct file {
  int descriptor;
  bool direct;
  dev_t device; /* what the descriptor stands for: in a forked child it may stand for something else by now */
  ino_t inode;
  uint64_t generation; /* of the process that made it */
  uint64_t bytes;
  atomic_uint_fast64_t taken_bytes;
  atomic_size_t references; /* the maker's, and one for each extent */
  struct checksums checksums;
  char directory[]; /* as it was given, for messages */
};

/* ---- making: a descriptor without a name */

/* Where the file system knows no files without a name: one whose name is gone at once. */
static int open_and_unlink(const char *directory) {
  static const char name[] = "/.drowse-XXXXXX";
  size_t length = strlen(directory);
  char *path = malloc(length + sizeof name);
  if (path == NULL) return -1;
  memcpy(path, directory, length);
  memcpy(path + length, name, sizeof name);
  int descriptor = mkostemp(path, O_CLOEXEC);
  if (descriptor >= 0 && unlink(path) != 0) {
    int code = errno;
    (void)close(descriptor);
    descriptor = -1;
    errno = code;
  }
  free(path);
  return descriptor;
}

static int open_unnamed(const char *directory) {
  int descriptor;
  do descriptor = open(directory, O_TMPFILE | O_EXCL | O_RDWR | O_CLOEXEC, S_IRUSR | S_IWUSR);
  while (descriptor < 0 && errno == EINTR);
  /* A kernel or a file system that does not know the flag takes it for an attempt to write a directory. */
  if (descriptor < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL)) return open_and_unlink(directory);
  return descriptor;
}

/* Where the C library and the file system cannot allocate, blocks come when they are written, and a full disk is noticed then. */
static int allocate(int descriptor, uint64_t bytes) {
  int code = 0;
  if (bytes > 0) {
    do code = posix_fallocate(descriptor, 0, (off_t)bytes);
    while (code == EINTR);
  }
  if (code != EOPNOTSUPP && code != EINVAL) return code;
  return ftruncate(descriptor, (off_t)bytes) == 0 ? 0 : errno;
}

/* There are file systems that take the flag and then refuse to read: so a page is read, if there is one. Theirs, and those that
 * want more than pages to be aligned, are used through the page cache. */
static bool make_direct(int descriptor) {
  _Alignas(DZ_FILE_ALIGN) char page[DZ_FILE_ALIGN];
  int flags = fcntl(descriptor, F_GETFL, 0);
  if (flags < 0 || fcntl(descriptor, F_SETFL, flags | O_DIRECT) != 0) return false;
  if (pread(descriptor, page, sizeof page, 0) >= 0) return true;
  (void)fcntl(descriptor, F_SETFL, flags);
  return false;
}

static bool is_full(int code) {
  return code == ENOSPC || code == EDQUOT || code == EFBIG;
}

static drowse_status report(int code, const char *directory, uint64_t bytes) {
  struct statvfs disk;
  if (!is_full(code) || statvfs(directory, &disk) != 0) {
    return dz_error_system(DROWSE_ERR_IO, code, "a file for backups of %" PRIu64 " bytes in %s", bytes, directory);
  }
  uint64_t free_bytes = (uint64_t)disk.f_bavail * disk.f_frsize;
  dz_error_system(DROWSE_ERR_IO, code, "a file for backups of %" PRIu64 " bytes in %s, where %" PRIu64 " are free", bytes,
                  directory, free_bytes);
  dz_error_bytes(bytes, free_bytes, free_bytes);
  return DROWSE_ERR_IO;
}

/* Opens and fills in what is known of the file then; 0 or errno. */
static int open_file(struct file *file) {
  struct stat about;
  file->descriptor = open_unnamed(file->directory);
  if (file->descriptor < 0) return errno;
  int code = fstat(file->descriptor, &about) == 0 ? allocate(file->descriptor, file->bytes) : errno;
  if (code != 0) {
    (void)close(file->descriptor);
    return code;
  }
  file->device = about.st_dev;
  file->inode = about.st_ino;
  file->direct = make_direct(file->descriptor);
  return 0;
}

static struct file *make_record(const char *directory, uint64_t bytes) {
  size_t length = strlen(directory) + 1;
  struct file *file = malloc(sizeof *file + length);
  if (file == NULL) return NULL;
  *file = (struct file){.generation = dz_fork_generation(), .bytes = bytes};
  atomic_init(&file->references, 1);
  memcpy(file->directory, directory, length);
  return file;
}

static drowse_status fill_record(struct file *file) {
  int code = open_file(file);
  if (code != 0) return report(code, file->directory, file->bytes);
  if (dz_checksums_init(&file->checksums, file->bytes)) return DROWSE_OK;
  (void)close(file->descriptor);
  return dz_error(DROWSE_ERR_NO_HOST_MEMORY, "no memory for the checksums of %" PRIu64 " bytes in a file", file->bytes);
}

drowse_status dz_file_make(const char *directory, uint64_t bytes, struct file **made) {
  if (directory == NULL) return dz_error(DROWSE_ERR_INVALID, "backups in files need a directory, and it is NULL");
  if (bytes > INT64_MAX - DZ_FILE_ALIGN) return report(EFBIG, directory, bytes);
  struct file *file = make_record(directory, dz_round_up(bytes, DZ_FILE_ALIGN));
  if (file == NULL) return dz_error(DROWSE_ERR_NO_HOST_MEMORY, "no memory for a file's metadata");
  drowse_status status = fill_record(file);
  if (status != DROWSE_OK) {
    free(file);
    return status;
  }
  if (!file->direct) dz_log(DROWSE_LOG_WARNING, "%s has no direct I/O: backups there go through the page cache", directory);
  *made = file;
  return DROWSE_OK;
}

/* ---- letting go */

static bool is_inherited(const struct file *file) {
  return file->generation != dz_fork_generation();
}

/* A child may have closed what it inherited, and opened something else under that number. What cannot be asked about is open. */
static bool is_still_open(const struct file *file) {
  struct stat about;
  if (fstat(file->descriptor, &about) != 0) return errno != EBADF;
  return about.st_dev == file->device && about.st_ino == file->inode;
}

/* A forked child that lives on has the file open too: so what frees the disk is cutting the file, not closing it. */
static void close_file(struct file *file) {
  if (is_still_open(file)) {
    if (!is_inherited(file)) (void)!ftruncate(file->descriptor, 0);
    (void)close(file->descriptor);
  }
  dz_checksums_end(&file->checksums);
  free(file);
}

void dz_file_release(struct file *file) {
  if (atomic_fetch_sub_explicit(&file->references, 1, memory_order_acq_rel) == 1) close_file(file);
}

/* ---- extents */

bool dz_file_take(struct file *file, uint64_t bytes, struct file_extent *extent) {
  uint64_t offset = atomic_load_explicit(&file->taken_bytes, memory_order_relaxed);
  do {
    uint64_t left = file->bytes - offset;
    if (bytes > left) return false;
  } while (!atomic_compare_exchange_weak_explicit(&file->taken_bytes, &offset, offset + dz_round_up(bytes, DZ_FILE_ALIGN),
                                                  memory_order_relaxed, memory_order_relaxed));
  (void)atomic_fetch_add_explicit(&file->references, 1, memory_order_relaxed); /* the maker's keeps the file meanwhile */
  *extent = (struct file_extent){file, offset, bytes};
  return true;
}

void dz_file_give(struct file_extent *extent) {
  struct file *file = extent->file;
  if (file == NULL) return;
  uint64_t bytes = dz_round_up(extent->bytes, DZ_FILE_ALIGN);
  if (bytes > 0 && !is_inherited(file)) {
    (void)fallocate(file->descriptor, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)extent->offset, (off_t)bytes);
  }
  *extent = (struct file_extent){NULL, 0, 0};
  dz_file_release(file);
}

/* ---- what is in it */

bool dz_file_is_direct(const struct file *file) {
  return file->direct;
}

int dz_file_descriptor(const struct file *file) {
  return file->descriptor;
}

const char *dz_file_directory(const struct file *file) {
  return file->directory;
}

void dz_file_note(struct file *file, uint64_t offset, const void *memory, uint64_t bytes) {
  dz_checksums_note(&file->checksums, offset, memory, bytes);
}

drowse_status dz_file_check(const struct file *file, uint64_t offset, const void *memory, uint64_t bytes) {
  if (dz_checksums_match(&file->checksums, offset, memory, bytes)) return DROWSE_OK;
  return dz_error(DROWSE_ERR_CORRUPT,
                  "a backup in a file in %s came back changed: the checksum of %" PRIu64 " bytes at %" PRIu64 " does not match",
                  file->directory, bytes, offset);
}
