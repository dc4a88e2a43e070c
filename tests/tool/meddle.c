/* SPDX-License-Identifier: Apache-2.0
 *
 * The program `drowse` with something between it and the library (the linker's --wrap) that goes wrong as $MEDDLE says:
 *
 *   flip:BLOCK:OFFSET  at the first wake that byte of the BLOCKth allocation is changed
 *   drop               after the first wake, copy_in does nothing and says OK
 *   move               block_get tells another address
 *   awake              sleep does nothing and says OK
 *   limit              the heap has room for 1 MiB of backups
 *   kill:SIGNAL        at the first wake the process is sent the signal
 *   overwrite:FILE     at the first wake the file's first byte is changed; with ":flip" behind it, so is the first byte in memory
 *   truncate:FILE      ... the file is cut to nothing; likewise
 *   remove:FILE        ... the file is removed
 *   resident           nothing goes wrong; the process's resident shared memory in KiB, before the sleep, behind it, and behind
 * the wake, is printed on stderr
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "drowse.h"

drowse_status __real_drowse_heap_open(drowse_heap **heap, const drowse_heap_options *options);
drowse_status __real_drowse_alloc(drowse_heap *heap, size_t bytes, drowse_stream stream, void **ptr);
drowse_status __real_drowse_copy_in(drowse_heap *heap, void *ptr, const void *host, size_t bytes);
drowse_status __real_drowse_block_get(drowse_heap *heap, const void *ptr, drowse_block *block);
drowse_status __real_drowse_sleep(drowse_heap *heap, const drowse_rule *rules, size_t count, const drowse_sleep_options *options);
drowse_status __real_drowse_wake(drowse_heap *heap, const char *const *tags, size_t count, const drowse_wake_options *options);

drowse_status __wrap_drowse_heap_open(drowse_heap **heap, const drowse_heap_options *options);
drowse_status __wrap_drowse_alloc(drowse_heap *heap, size_t bytes, drowse_stream stream, void **ptr);
drowse_status __wrap_drowse_copy_in(drowse_heap *heap, void *ptr, const void *host, size_t bytes);
drowse_status __wrap_drowse_block_get(drowse_heap *heap, const void *ptr, drowse_block *block);
drowse_status __wrap_drowse_sleep(drowse_heap *heap, const drowse_rule *rules, size_t count, const drowse_sleep_options *options);
drowse_status __wrap_drowse_wake(drowse_heap *heap, const char *const *tags, size_t count, const drowse_wake_options *options);

enum { BLOCKS = 64 };
static void *blocks[BLOCKS];
static unsigned block_count;
static bool woken;

/* What stands behind "WORD:" in $MEDDLE, or "" where it is the word alone; NULL: it is another word. */
static const char *meddle(const char *word) {
  const char *text = getenv("MEDDLE");
  size_t length = strlen(word);
  if (text == NULL || strncmp(text, word, length) != 0) return NULL;
  if (text[length] == ':') return text + length + 1;
  return text[length] == '\0' ? "" : NULL;
}

/* A test that cannot do what it means to do must not pass. */
static void must(bool done, const char *what) {
  if (done) return;
  perror(what);
  _exit(99);
}

drowse_status __wrap_drowse_heap_open(drowse_heap **heap, const drowse_heap_options *options) {
  drowse_heap_options limited = *options;
  if (meddle("limit") != NULL) limited.backup_limit = 1 << 20;
  return __real_drowse_heap_open(heap, &limited);
}

drowse_status __wrap_drowse_alloc(drowse_heap *heap, size_t bytes, drowse_stream stream, void **ptr) {
  drowse_status status = __real_drowse_alloc(heap, bytes, stream, ptr);
  if (status == DROWSE_OK && block_count < BLOCKS) blocks[block_count++] = *ptr;
  return status;
}

drowse_status __wrap_drowse_copy_in(drowse_heap *heap, void *ptr, const void *host, size_t bytes) {
  if (woken && meddle("drop") != NULL) return DROWSE_OK;
  return __real_drowse_copy_in(heap, ptr, host, bytes);
}

drowse_status __wrap_drowse_block_get(drowse_heap *heap, const void *ptr, drowse_block *block) {
  drowse_status status = __real_drowse_block_get(heap, ptr, block);
  if (meddle("move") != NULL) block->base = (char *)block->base + 512;
  return status;
}

/* The host device's pages are those of a file in memory: what the kernel counts as shared. */
static void tell_resident(void) {
  if (meddle("resident") == NULL) return;
  FILE *file = fopen("/proc/self/status", "r");
  must(file != NULL, "/proc/self/status");
  char line[256];
  unsigned long kib = 0;
  while (fgets(line, sizeof line, file) != NULL && sscanf(line, "RssShmem: %lu", &kib) != 1) continue;
  must(fclose(file) == 0, "/proc/self/status");
  fprintf(stderr, "%lu\n", kib);
}

drowse_status __wrap_drowse_sleep(drowse_heap *heap, const drowse_rule *rules, size_t count,
                                  const drowse_sleep_options *options) {
  if (meddle("awake") != NULL) return DROWSE_OK;
  tell_resident();
  drowse_status status = __real_drowse_sleep(heap, rules, count, options);
  tell_resident();
  return status;
}

static void flip(drowse_heap *heap, unsigned block, size_t offset) {
  must(block < block_count, "flip: no such block");
  char *at = (char *)blocks[block] + offset;
  unsigned char byte;
  must(drowse_copy_out(heap, &byte, at, 1) == DROWSE_OK, "flip");
  byte = (unsigned char)~byte;
  must(__real_drowse_copy_in(heap, at, &byte, 1) == DROWSE_OK, "flip");
}

static void flip_as_told(drowse_heap *heap, const char *text) {
  char *end;
  unsigned block = (unsigned)strtoul(text, &end, 10);
  must(*end == ':', "flip:BLOCK:OFFSET");
  flip(heap, block, strtoul(end + 1, NULL, 10));
}

static void change_file(const char *path, bool cut) {
  int fd = open(path, cut ? O_RDWR | O_TRUNC : O_RDWR);
  unsigned char byte;
  must(fd >= 0, path);
  if (!cut) {
    must(pread(fd, &byte, 1, 0) == 1, path);
    byte = (unsigned char)~byte;
    must(pwrite(fd, &byte, 1, 0) == 1, path);
  }
  must(close(fd) == 0, path);
}

/* "FILE" or "FILE:flip" */
static void change_as_told(drowse_heap *heap, const char *text, bool cut) {
  char path[256];
  size_t length = strcspn(text, ":");
  must(length < sizeof path, text);
  memcpy(path, text, length);
  path[length] = '\0';
  change_file(path, cut);
  if (text[length] == ':') flip(heap, 0, 0);
}

drowse_status __wrap_drowse_wake(drowse_heap *heap, const char *const *tags, size_t count, const drowse_wake_options *options) {
  const char *told;
  if ((told = meddle("kill")) != NULL) {
    (void)signal(atoi(told), SIG_DFL); /* a shell's background job inherits that it is ignored */
    raise(atoi(told));
  }
  drowse_status status = __real_drowse_wake(heap, tags, count, options);
  tell_resident();
  if (!woken) {
    if ((told = meddle("overwrite")) != NULL) change_as_told(heap, told, false);
    if ((told = meddle("truncate")) != NULL) change_as_told(heap, told, true);
    if ((told = meddle("remove")) != NULL) must(unlink(told) == 0, told);
    if ((told = meddle("flip")) != NULL) flip_as_told(heap, told);
  }
  woken = true;
  return status;
}
