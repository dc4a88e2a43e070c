/* SPDX-License-Identifier: Apache-2.0
 *
 * Buffers of a CUDA server on drowse: a heap for each device, opened at its first use.
 */
#include "buffers.h"

#include <drowse.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEVICES = 16 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static drowse_heap *heaps[DEVICES];

/* DROWSE_DEVICE=host:4GiB has the host device stand in for every GPU; else which one it is the server says. */
static drowse_heap *heap_of(int device) {
  char name[16];
  const char *variable = getenv("DROWSE_DEVICE");
  drowse_heap_options options = {.struct_size = sizeof options, .device = name};
  if (device < 0 || device >= DEVICES) return NULL;
  (void)snprintf(name, sizeof name, "cuda:%d", device);
  if (variable != NULL && strncmp(variable, "host", 4) == 0) options.device = variable;
  (void)pthread_mutex_lock(&lock);
  if (heaps[device] == NULL && drowse_heap_open(&heaps[device], &options) != DROWSE_OK) heaps[device] = NULL;
  drowse_heap *heap = heaps[device];
  (void)pthread_mutex_unlock(&lock);
  return heap;
}

static int error_of(drowse_status status) {
  return status == DROWSE_OK ? 0 : status == DROWSE_ERR_NO_DEVICE_MEMORY ? BUFFERS_OUT_OF_MEMORY : BUFFERS_FAILED;
}

int buffers_malloc(void **ptr, size_t bytes, int device) {
  drowse_heap *heap = heap_of(device);
  *ptr = NULL;
  return heap == NULL ? BUFFERS_FAILED : error_of(drowse_alloc(heap, bytes, NULL, ptr));
}

int buffers_free(void *ptr, int device) {
  drowse_heap *heap = heap_of(device);
  return heap == NULL ? BUFFERS_FAILED : error_of(drowse_free(heap, ptr));
}

/* The rules for a heap: one for the weights if it has any, and one for all others. */
static drowse_status put_to_sleep(drowse_heap *heap) {
  drowse_rule rules[] = {{.tag = NULL, .action = DROWSE_DISCARD}, {.tag = "weights", .action = DROWSE_OFFLOAD}};
  drowse_stats stats = {.struct_size = sizeof stats};
  drowse_status status = drowse_stats_get(heap, "weights", &stats);
  if (status == DROWSE_ERR_NOT_FOUND) return drowse_sleep(heap, rules, 1, NULL);
  if (status == DROWSE_OK) status = drowse_seal(heap, "weights");
  return status == DROWSE_OK ? drowse_sleep(heap, rules, 2, NULL) : status;
}

static drowse_status wake_up(drowse_heap *heap) {
  return drowse_wake(heap, NULL, 0, NULL);
}

static int for_each_heap(drowse_status (*act)(drowse_heap *heap)) {
  drowse_status status = DROWSE_OK;
  (void)pthread_mutex_lock(&lock);
  for (int device = 0; device < DEVICES && status == DROWSE_OK; device++) {
    if (heaps[device] != NULL) status = act(heaps[device]);
  }
  (void)pthread_mutex_unlock(&lock);
  return error_of(status);
}

int buffers_sleep(void) {
  return for_each_heap(put_to_sleep);
}

int buffers_wake(void) {
  return for_each_heap(wake_up);
}

unsigned long long buffers_free_bytes(int device) {
  drowse_heap *heap = heap_of(device);
  drowse_heap_info info = {.struct_size = sizeof info};
  return heap != NULL && drowse_heap_info_get(heap, &info) == DROWSE_OK ? info.free_bytes : 0;
}

int buffers_write(void *ptr, const void *from, size_t bytes, int device) {
  drowse_heap *heap = heap_of(device);
  return heap == NULL ? BUFFERS_FAILED : error_of(drowse_copy_in(heap, ptr, from, bytes));
}

int buffers_read(void *to, const void *ptr, size_t bytes, int device) {
  drowse_heap *heap = heap_of(device);
  return heap == NULL ? BUFFERS_FAILED : error_of(drowse_copy_out(heap, to, ptr, bytes));
}
