/* SPDX-License-Identifier: Apache-2.0
 *
 * Pieces of work: copies, fills, host functions, graphs; the entries that send them, and how a stream's thread does them.
 *
 * Addresses are looked at twice, as a GPU's are: when work is sent (a bad one is the caller's error), and piece by piece when it
 * is done (memory may be gone by then: that is a fault, and it costs the context).
 */
#include "driver/host/state.h"

#include <stdlib.h>
#include <string.h>

/* A piece is copied under maps_lock: whoever unmaps waits for one piece at most. */
enum { PIECE_BYTES = 4 << 20 };

/* From pageable memory up to this much is copied aside when it is sent, so that the caller goes on; as the driver does. */
enum { STAGED_BYTES = 1 << 20 };

static bool reachable(const struct work *work, uint64_t at, uint64_t bytes) {
  if (!dz_memory_reachable(work->to + at, bytes, true, work->to_device)) return false;
  return work->kind != WORK_COPY || dz_memory_reachable(work->from + at, bytes, false, work->from_device);
}

/* ---- doing it */

static void move(const struct work *work, uint64_t at, uint64_t bytes) {
  void *to = (void *)(uintptr_t)(work->to + at);
  if (work->kind == WORK_COPY) {
    memmove(to, (const void *)(uintptr_t)(work->from + at), bytes);
  } else {
    memset(to, work->value, bytes);
  }
}

static bool run_pieces(const struct work *work) {
  pthread_rwlock_t *maps_lock = &dz_host()->maps_lock;
  bool ok = true;
  for (uint64_t at = 0; ok && at < work->bytes; at += PIECE_BYTES) {
    uint64_t bytes = work->bytes - at < PIECE_BYTES ? work->bytes - at : PIECE_BYTES;
    (void)pthread_rwlock_rdlock(maps_lock);
    ok = reachable(work, at, bytes);
    if (ok) move(work, at, bytes);
    (void)pthread_rwlock_unlock(maps_lock);
  }
  return ok;
}

static void run_call(const struct work *work) {
  dz_host_callback_enter();
  work->function(work->data);
  dz_host_callback_leave();
}

static bool run_node(const struct work *work) {
  if (work->kind == WORK_COPY || work->kind == WORK_FILL) return run_pieces(work);
  if (work->kind == WORK_CALL) run_call(work);
  return true;
}

bool dz_work_run(const struct work *work) {
  if (work->kind != WORK_GRAPH) return run_node(work);
  for (size_t at = 0; at < work->graph->count; at++) {
    if (!run_node(&work->graph->nodes[at])) return false;
  }
  return true;
}

/* ---- sending it */

static CUresult check_addresses(const struct work *work) {
  if (work->kind != WORK_COPY && work->kind != WORK_FILL) return CUDA_SUCCESS;
  if (work->bytes != 0 && (work->to == 0 || (work->kind == WORK_COPY && work->from == 0))) return CUDA_ERROR_INVALID_VALUE;
  (void)pthread_rwlock_rdlock(&dz_host()->maps_lock);
  bool ok = reachable(work, 0, work->bytes);
  (void)pthread_rwlock_unlock(&dz_host()->maps_lock);
  return ok ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* The stream that work may go to now. */
static CUresult find_target(CUstream handle, struct stream **stream) {
  CUresult result = dz_stream_find(handle, stream);
  if (result != CUDA_SUCCESS || *stream != (*stream)->gpu->legacy) return result;
  return dz_capture_check_legacy((*stream)->gpu);
}

CUresult dz_work_send(CUstream handle, const struct work *work) {
  struct stream *stream;
  CUresult result = find_target(handle, &stream);
  if (result != CUDA_SUCCESS) return result;
  result = check_addresses(work);
  if (result != CUDA_SUCCESS) return result;
  return stream->capture != NULL ? dz_capture_add(stream, work) : dz_stream_submit(stream, work, NULL, NULL);
}

/* Copies from memory that the caller may change as soon as the call returns. */
static CUresult submit_staged(struct stream *stream, struct work work) {
  void *staged = malloc(work.bytes);
  if (staged == NULL) return CUDA_ERROR_OUT_OF_MEMORY;
  memcpy(staged, (const void *)(uintptr_t)work.from, work.bytes);
  work.from = (uint64_t)(uintptr_t)staged;
  CUresult result = dz_stream_submit(stream, &work, staged, NULL);
  if (result != CUDA_SUCCESS) free(staged);
  return result;
}

static bool device_memory(uint64_t address, uint64_t bytes) {
  (void)pthread_rwlock_rdlock(&dz_host()->maps_lock);
  bool device = dz_memory_reachable(address, bytes, false, true);
  (void)pthread_rwlock_unlock(&dz_host()->maps_lock);
  return device;
}

/* Sends a copy whose one side is host memory. Registered: it is the caller's business until the work is done. Pageable: not past
 * this call. */
static CUresult send_host_copy(CUstream handle, const struct work *work, uint64_t host) {
  struct stream *stream;
  CUresult result = find_target(handle, &stream);
  if (result != CUDA_SUCCESS) return result;
  result = check_addresses(work);
  if (result != CUDA_SUCCESS) return result;
  if (stream->capture != NULL) return dz_capture_add(stream, work);
  bool pageable = !dz_pin_covers((const void *)(uintptr_t)host, work->bytes) && !device_memory(host, work->bytes);
  if (pageable && work->to_device && work->bytes != 0 && work->bytes <= STAGED_BYTES) return submit_staged(stream, *work);
  result = dz_stream_submit(stream, work, NULL, NULL);
  return result == CUDA_SUCCESS && pageable ? dz_stream_await(stream) : result;
}

/* A synchronous copy is one on the legacy stream that is waited for. */
static CUresult copy_now(const struct work *work) {
  struct gpu *gpu;
  CUresult result = dz_gpu_current(&gpu);
  if (result == CUDA_SUCCESS) result = dz_capture_check_legacy(gpu);
  if (result == CUDA_SUCCESS) result = dz_capture_check_unsafe();
  if (result == CUDA_SUCCESS) result = check_addresses(work);
  if (result == CUDA_SUCCESS) result = dz_stream_submit(gpu->legacy, work, NULL, NULL);
  return result == CUDA_SUCCESS ? dz_stream_await(gpu->legacy) : result;
}

static struct work copy_in(CUdeviceptr to, const void *from, size_t bytes) {
  return (struct work){.kind = WORK_COPY, .to_device = true, .to = to, .from = (uint64_t)(uintptr_t)from, .bytes = bytes};
}

static struct work copy_out(void *to, CUdeviceptr from, size_t bytes) {
  return (struct work){.kind = WORK_COPY, .from_device = true, .to = (uint64_t)(uintptr_t)to, .from = from, .bytes = bytes};
}

CUresult dz_host_MemcpyHtoD(CUdeviceptr to, const void *from, size_t bytes) {
  struct work work = copy_in(to, from, bytes);
  CUresult result = dz_host_begin();
  return result == CUDA_SUCCESS ? dz_host_end(copy_now(&work)) : result;
}

CUresult dz_host_MemcpyDtoH(void *to, CUdeviceptr from, size_t bytes) {
  struct work work = copy_out(to, from, bytes);
  CUresult result = dz_host_begin();
  return result == CUDA_SUCCESS ? dz_host_end(copy_now(&work)) : result;
}

CUresult dz_host_MemcpyHtoDAsync(CUdeviceptr to, const void *from, size_t bytes, CUstream stream) {
  struct work work = copy_in(to, from, bytes);
  CUresult result = dz_host_begin();
  return result == CUDA_SUCCESS ? dz_host_end(send_host_copy(stream, &work, work.from)) : result;
}

CUresult dz_host_MemcpyDtoHAsync(void *to, CUdeviceptr from, size_t bytes, CUstream stream) {
  struct work work = copy_out(to, from, bytes);
  CUresult result = dz_host_begin();
  return result == CUDA_SUCCESS ? dz_host_end(send_host_copy(stream, &work, work.to)) : result;
}

CUresult dz_host_MemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
  struct work work = {.kind = WORK_COPY, .to_device = true, .from_device = true, .to = to, .from = from, .bytes = bytes};
  CUresult result = dz_host_begin();
  return result == CUDA_SUCCESS ? dz_host_end(dz_work_send(stream, &work)) : result;
}

/* ---- many copies by one call: each side is what its address says */

static CUresult send_between(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
  struct work work = {.kind = WORK_COPY,
                      .to_device = device_memory(to, bytes),
                      .from_device = device_memory(from, bytes),
                      .to = to,
                      .from = from,
                      .bytes = bytes};
  if (bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  if (work.to_device && work.from_device) return dz_work_send(stream, &work);
  return send_host_copy(stream, &work, work.to_device ? from : to);
}

/* Those before one that is refused are on their way, as the driver has it. */
static CUresult send_batch(CUdeviceptr *to, CUdeviceptr *from, size_t *bytes, size_t count, CUstream stream) {
  CUresult result = CUDA_SUCCESS;
  for (size_t i = 0; i < count && result == CUDA_SUCCESS; i++) result = send_between(to[i], from[i], bytes[i], stream);
  return result;
}

CUresult dz_host_MemcpyBatchAsync(CUdeviceptr *to, CUdeviceptr *from, size_t *bytes, size_t count, CUmemcpyAttributes *attributes,
                                  size_t *attributes_from, size_t attributes_count, CUstream stream) {
  CUresult result = dz_host_begin();
  if (result != CUDA_SUCCESS) return result;
  bool valid = to != NULL && from != NULL && bytes != NULL && count != 0 && attributes != NULL && attributes_from != NULL &&
               attributes_count != 0 && attributes_count <= count && attributes_from[0] == 0 && stream != NULL &&
               stream != CU_STREAM_LEGACY;
  for (size_t i = 0; valid && i < attributes_count; i++) {
    CUmemcpySrcAccessOrder order = attributes[i].srcAccessOrder;
    valid = order > CU_MEMCPY_SRC_ACCESS_ORDER_INVALID && order <= CU_MEMCPY_SRC_ACCESS_ORDER_ANY;
  }
  return dz_host_end(valid ? send_batch(to, from, bytes, count, stream) : CUDA_ERROR_INVALID_VALUE);
}

CUresult dz_host_MemsetD8Async(CUdeviceptr to, unsigned char value, size_t bytes, CUstream stream) {
  struct work work = {.kind = WORK_FILL, .to_device = true, .to = to, .bytes = bytes, .value = value};
  CUresult result = dz_host_begin();
  return result == CUDA_SUCCESS ? dz_host_end(dz_work_send(stream, &work)) : result;
}

CUresult dz_host_LaunchHostFunc(CUstream stream, CUhostFn function, void *data) {
  struct work work = {.kind = WORK_CALL, .function = function, .data = data};
  CUresult result = dz_host_begin();
  if (result != CUDA_SUCCESS) return result;
  return dz_host_end(function == NULL ? CUDA_ERROR_INVALID_VALUE : dz_work_send(stream, &work));
}
