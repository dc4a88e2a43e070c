/* SPDX-License-Identifier: Apache-2.0
 *
 * A server in small, with the buffers of a large one: the file given to it are the weights, and every answer is what becomes of
 * them and of its cache. It answers, sleeps, wakes and answers again.
 *
 *   buffers FILE
 */
#include <drowse.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buffers.h"

enum { DEVICE = 0, CACHE_BYTES = 8 << 20 };

static void *weights, *cache;
static size_t weights_bytes;

static int fail(const char *what) {
  (void)fprintf(stderr, "buffers: %s: %s\n", what, drowse_last_error());
  return EXIT_FAILURE;
}

/* Nothing below knows of drowse: the scope says which tag the buffers get that are made in it. */
static int load(FILE *file) {
  (void)fseek(file, 0, SEEK_END);
  long end = ftell(file);
  rewind(file);
  if (end <= 0) return BUFFERS_FAILED;
  weights_bytes = (size_t)end;
  void *bytes = malloc(weights_bytes);
  if (bytes == NULL || fread(bytes, 1, weights_bytes, file) != weights_bytes) return free(bytes), BUFFERS_FAILED;
  int error = buffers_malloc(&weights, weights_bytes, DEVICE);
  if (error == 0) error = buffers_write(weights, bytes, weights_bytes, DEVICE);
  free(bytes);
  return error;
}

static int begin_context(void) {
  return buffers_malloc(&cache, CACHE_BYTES, DEVICE);
}

/* An answer depends on every byte of the weights, and goes through the cache. */
static int answer(uint32_t *sum) {
  unsigned char *bytes = malloc(weights_bytes);
  if (bytes == NULL) return BUFFERS_FAILED;
  int error = buffers_read(bytes, weights, weights_bytes, DEVICE);
  *sum = 2166136261;
  for (size_t at = 0; error == 0 && at < weights_bytes; at++) *sum = (*sum ^ bytes[at]) * 16777619;
  if (error == 0) error = buffers_write(cache, sum, sizeof *sum, DEVICE);
  if (error == 0) error = buffers_read(sum, cache, sizeof *sum, DEVICE);
  free(bytes);
  return error;
}

static int serve(void) {
  uint32_t before = 0, after = 0;
  if (answer(&before) != 0) return fail("answering");
  unsigned long long awake = buffers_free_bytes(DEVICE);
  if (buffers_sleep() != 0) return fail("falling asleep");
  unsigned long long asleep = buffers_free_bytes(DEVICE);
  if (buffers_wake() != 0) return fail("waking");
  if (answer(&after) != 0) return fail("answering after sleep");
  printf("answers %08x and %08x; asleep %llu MiB more were free\n", before, after, (asleep - awake) >> 20);
  return before == after ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv) {
  int loaded = BUFFERS_FAILED, begun = BUFFERS_FAILED;
  FILE *file = argc == 2 ? fopen(argv[1], "rb") : NULL;
  if (file == NULL) {
    (void)fprintf(stderr, "buffers: give a file that can be read\n");
    return EXIT_FAILURE;
  }
  DROWSE_SCOPE("weights", DROWSE_EXPANDABLE_INHERIT) loaded = load(file);
  (void)fclose(file);
  if (loaded != 0) return fail("loading");
  DROWSE_SCOPE("context", DROWSE_EXPANDABLE_INHERIT) begun = begin_context();
  if (begun != 0) return fail("making the cache");
  int status = serve();
  if (buffers_free(cache, DEVICE) != 0 || buffers_free(weights, DEVICE) != 0) return fail("freeing");
  return status;
}
