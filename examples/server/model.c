/* SPDX-License-Identifier: Apache-2.0
 *
 * The weights: a file's bytes in device memory, under one tag.
 */
#include "model.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "say.h"

/* Stands for the size of a tensor. */
enum { BLOCK_BYTES = 8 << 20 };

static size_t block_bytes(const struct model *model, size_t index) {
  uint64_t left = model->bytes - (uint64_t)index * BLOCK_BYTES;
  return left < BLOCK_BYTES ? (size_t)left : BLOCK_BYTES;
}

/* Returns a descriptor, or -1. */
static int open_file(const char *path, uint64_t *bytes) {
  struct stat info;
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0 || fstat(fd, &info) != 0) {
    say("%s: %s", path, strerror(errno));
  } else if (!S_ISREG(info.st_mode) || info.st_size == 0) {
    say("%s: not a regular file with something in it", path);
  } else {
    *bytes = (uint64_t)info.st_size;
    return fd;
  }
  if (fd >= 0) (void)close(fd);
  return -1;
}

static bool read_file(int fd, const char *path, unsigned char *buffer, size_t bytes, uint64_t offset) {
  for (size_t done = 0; done < bytes;) {
    ssize_t got = pread(fd, buffer + done, bytes - done, (off_t)(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      say("%s: %s", path, got < 0 ? strerror(errno) : "became shorter while it was read");
      return false;
    }
    done += (size_t)got;
  }
  return true;
}

/* All is allocated before anything is read: a device that is too small shows at once. */
static bool allocate(struct model *model) {
  size_t count = (size_t)((model->bytes + BLOCK_BYTES - 1) / BLOCK_BYTES);
  drowse_status status = DROWSE_OK;
  model->blocks = calloc(count, sizeof *model->blocks);
  if (model->blocks == NULL) {
    say("no memory for the list of blocks");
    return false;
  }
  /* What this thread allocates in the scope has the tag; nothing else needs to know of it. */
  DROWSE_SCOPE_TRY(status, MODEL_TAG, DROWSE_EXPANDABLE_INHERIT) {
    for (; status == DROWSE_OK && model->block_count < count; model->block_count++)
      status = drowse_alloc(model->heap, block_bytes(model, model->block_count), NULL, &model->blocks[model->block_count]);
  }
  if (status != DROWSE_OK) say("allocating %llu bytes: %s", (unsigned long long)model->bytes, reason(status));
  return status == DROWSE_OK;
}

static bool fill(struct model *model, int fd, const char *path, unsigned char *buffer) {
  for (size_t i = 0; i < model->block_count; i++) {
    size_t bytes = block_bytes(model, i);
    if (!read_file(fd, path, buffer, bytes, (uint64_t)i * BLOCK_BYTES)) return false;
    drowse_status status = drowse_copy_in(model->heap, model->blocks[i], buffer, bytes);
    if (status == DROWSE_OK) continue;
    say("%s: loading it: %s", path, reason(status));
    return false;
  }
  return true;
}

bool model_load(struct model *model, drowse_heap *heap, const char *path) {
  *model = (struct model){.heap = heap};
  int fd = open_file(path, &model->bytes);
  if (fd < 0) return false;
  unsigned char *buffer = malloc(BLOCK_BYTES);
  if (buffer == NULL) say("no memory to load %s", path);
  bool loaded = buffer != NULL && allocate(model) && fill(model, fd, path, buffer);
  free(buffer);
  (void)close(fd);
  return loaded;
}

void model_unload(struct model *model) {
  free(model->blocks);
}

int model_read(const struct model *model, const struct device *device, void *out, uint64_t offset, size_t bytes) {
  int code = 0;
  for (size_t done = 0; code == 0 && done < bytes;) {
    size_t index = (size_t)((offset + done) / BLOCK_BYTES), skip = (size_t)((offset + done) % BLOCK_BYTES);
    size_t there = block_bytes(model, index) - skip, part = bytes - done < there ? bytes - done : there;
    code = device_read(device, (char *)out + done, (char *)model->blocks[index] + skip, part);
    done += part;
  }
  return code;
}
