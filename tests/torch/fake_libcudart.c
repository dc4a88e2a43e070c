/* SPDX-License-Identifier: Apache-2.0
 *
 * A libcudart for tests: what of the CUDA runtime programs call, with its names and versions of symbols, over host memory. It
 * tells what has been asked of it.
 */
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, MEMORY_ALLOCATION = 2, INVALID_DEVICE = 101, DEVICES = 2, BLOCKS = 16 };

static void *blocks[BLOCKS];
static int device, synchronized = -1;

int cudaMalloc(void **ptr, size_t bytes);
int cudaFree(void *ptr);
int cudaMemcpy(void *to, const void *from, size_t bytes, int kind);
int cudaGetDevice(int *current);
int cudaSetDevice(int current);
int cudaDeviceSynchronize(void);
int fake_has(const void *ptr);
int fake_synchronized(void);

int cudaMalloc(void **ptr, size_t bytes) {
  for (size_t at = 0; at < BLOCKS; at++) {
    if (blocks[at] != NULL) continue;
    *ptr = blocks[at] = malloc(bytes);
    return *ptr == NULL ? MEMORY_ALLOCATION : SUCCESS;
  }
  return MEMORY_ALLOCATION;
}

int cudaFree(void *ptr) {
  for (size_t at = 0; at < BLOCKS; at++) {
    if (blocks[at] != ptr) continue;
    free(ptr);
    blocks[at] = NULL;
    return SUCCESS;
  }
  return ptr == NULL ? SUCCESS : 1;
}

int cudaMemcpy(void *to, const void *from, size_t bytes, int kind) {
  (void)kind;
  memcpy(to, from, bytes);
  return SUCCESS;
}

int cudaGetDevice(int *current) {
  *current = device;
  return SUCCESS;
}

int cudaSetDevice(int current) {
  if (current < 0 || current >= DEVICES) return INVALID_DEVICE;
  device = current;
  return SUCCESS;
}

int cudaDeviceSynchronize(void) {
  synchronized = device;
  return SUCCESS;
}

/* Whether ptr is one of the blocks that it has given and not been given back. */
int fake_has(const void *ptr) {
  for (size_t at = 0; at < BLOCKS; at++) {
    if (ptr != NULL && blocks[at] == ptr) return 1;
  }
  return 0;
}

/* The device that has been waited for since the last time it was asked; -1: none. */
int fake_synchronized(void) {
  int last = synchronized;
  synchronized = -1;
  return last;
}
