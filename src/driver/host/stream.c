/* SPDX-License-Identifier: Apache-2.0
 *
 * Streams: a thread each, that takes work from a queue.
 *
 * The legacy default stream and the blocking ones wait for each other: work on the legacy stream begins when all that was
 * submitted before it to the blocking streams is done, work on a blocking stream when all that was submitted before it to the
 * legacy stream is. What a piece waits for was always submitted earlier, so there is no cycle.
 *
 * Progress is one condition for each device; whoever waits looks again at what it waits for.
 */
#include "driver/host/state.h"

#include <signal.h>
#include <stdlib.h>

struct op {
  struct op *next;
  uint64_t sequence; /* of the stream */
  uint64_t ticket;   /* of the device */
  struct work work;
  void *staged;
  size_t point_count;
  struct point points[]; /* moments that must have passed */
};

/* ---- moments */

static void drop_reference(struct stream *stream) {
  if (--stream->references != 0) return;
  (void)pthread_cond_destroy(&stream->ready);
  free(stream);
}

void dz_point_clear(struct point *point) {
  if (point->stream != NULL) drop_reference(point->stream);
  *point = (struct point){NULL, NULL, 0};
}

void dz_point_copy(struct point *to, const struct point *from) {
  struct point copy = *from;
  if (copy.stream != NULL) copy.stream->references++; /* before clear: it may be the same one */
  dz_point_clear(to);
  *to = copy;
}

void dz_point_set(struct point *point, struct stream *stream, uint64_t sequence) {
  const struct point moment = {stream, NULL, sequence};
  dz_point_copy(point, &moment);
}

void dz_point_set_context(struct point *point, struct gpu *gpu) {
  const struct point moment = {NULL, gpu, gpu->ticket};
  dz_point_copy(point, &moment);
}

/* Whether a stream is done with what was submitted up to a ticket. */
static bool has_done(const struct stream *stream, uint64_t ticket) {
  return stream->first == NULL || stream->first->ticket > ticket;
}

static bool context_has_done(const struct gpu *gpu, uint64_t ticket) {
  for (const struct stream *stream = gpu->streams; stream != NULL; stream = stream->next) {
    if (!has_done(stream, ticket)) return false;
  }
  return true;
}

bool dz_point_passed(const struct point *point) {
  if (point->gpu != NULL) return context_has_done(point->gpu, point->sequence);
  return point->stream == NULL || point->stream->done >= point->sequence;
}

void dz_point_await(const struct point *point) {
  struct gpu *gpu = point->stream != NULL ? point->stream->gpu : point->gpu;
  while (!dz_point_passed(point)) (void)pthread_cond_wait(&gpu->progress, &dz_host()->lock);
}

/* ---- the thread */

static void free_op(struct op *op) {
  for (size_t i = 0; i < op->point_count; i++) dz_point_clear(&op->points[i]);
  if (op->work.graph != NULL) dz_graph_drop(op->work.graph);
  free(op->staged);
  free(op);
}

static void run(struct gpu *gpu, const struct op *op) {
  pthread_mutex_t *lock = &dz_host()->lock;
  for (size_t i = 0; i < op->point_count; i++) dz_point_await(&op->points[i]);
  if (gpu->lost != CUDA_SUCCESS || op->work.kind == WORK_MARK) return; /* after a fault nothing runs any more */
  (void)pthread_mutex_unlock(lock);
  bool ok = dz_work_run(&op->work);
  (void)pthread_mutex_lock(lock);
  if (!ok && gpu->lost == CUDA_SUCCESS) gpu->lost = CUDA_ERROR_ILLEGAL_ADDRESS;
}

static void *work(void *argument) {
  struct stream *stream = argument;
  pthread_mutex_t *lock = &dz_host()->lock;
  (void)pthread_mutex_lock(lock);
  for (;;) {
    while (stream->first == NULL && !stream->ending) (void)pthread_cond_wait(&stream->ready, lock);
    struct op *op = stream->first;
    if (op == NULL) break;
    run(stream->gpu, op);
    stream->first = op->next;
    if (stream->first == NULL) stream->last = &stream->first;
    stream->done = op->sequence;
    free_op(op);
    (void)pthread_cond_broadcast(&stream->gpu->progress);
  }
  (void)pthread_mutex_unlock(lock);
  return NULL;
}

/* Signals are the program's: its handlers run on its own threads. Faults stay deliverable, for what a host function does. */
static int start_thread(struct stream *stream) {
  static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS};
  sigset_t masked, before;
  (void)sigfillset(&masked);
  for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) (void)sigdelset(&masked, faults[i]);
  (void)pthread_sigmask(SIG_SETMASK, &masked, &before);
  int failed = pthread_create(&stream->thread, NULL, work, stream);
  (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (failed == 0) (void)pthread_setname_np(stream->thread, "drowse-stream");
  return failed;
}

/* ---- life */

struct stream *dz_stream_make(struct gpu *gpu, bool blocking, uint32_t owner) {
  struct stream *stream = calloc(1, sizeof *stream);
  if (stream == NULL) return NULL;
  if (pthread_cond_init(&stream->ready, NULL) != 0) goto no_condition;
  stream->gpu = gpu;
  stream->id = ++dz_host()->stream_ids;
  stream->blocking = blocking;
  stream->owner = owner;
  stream->references = 1;
  stream->last = &stream->first;
  if (start_thread(stream) != 0) goto no_thread;
  stream->next = gpu->streams;
  gpu->streams = stream;
  return stream;

no_thread:
  (void)pthread_cond_destroy(&stream->ready);
no_condition:
  free(stream);
  return NULL;
}

static void end(struct stream *stream) {
  dz_capture_leave(stream);
  if (stream->handle != NULL) (void)dz_table_remove(&dz_host()->streams, HOST_STREAM, (uint64_t)(uintptr_t)stream->handle);
  stream->handle = NULL;
  stream->owner = 0;
  stream->ending = true;
  (void)pthread_cond_signal(&stream->ready);
}

/* Takes the streams out of the context's list that have ended and whose work is done. */
static struct stream *take_ended(struct gpu *gpu) {
  struct stream *ended = NULL;
  for (struct stream **at = &gpu->streams; *at != NULL;) {
    struct stream *stream = *at;
    if (!stream->ending || stream->first != NULL) {
      at = &stream->next;
      continue;
    }
    *at = stream->next;
    stream->next = ended;
    ended = stream;
  }
  return ended;
}

/* Joins the threads that have nothing left to do. Those that have are joined by a later call, by the context's end at the latest.
 * false: there was none, and the lock was held throughout. */
static bool reap(struct gpu *gpu) {
  struct stream *ended = take_ended(gpu);
  if (ended == NULL) return false;
  while (ended != NULL) {
    struct stream *stream = ended;
    ended = stream->next;
    (void)pthread_mutex_unlock(&dz_host()->lock);
    (void)pthread_join(stream->thread, NULL);
    (void)pthread_mutex_lock(&dz_host()->lock);
    drop_reference(stream);
  }
  return true;
}

void dz_stream_end_all(struct gpu *gpu) {
  for (struct stream *stream = gpu->streams; stream != NULL; stream = stream->next) {
    if (stream->handle != NULL) dz_host()->reclaimed++;
    if (!stream->ending) end(stream);
  }
  while (gpu->streams != NULL) {
    if (!reap(gpu)) (void)pthread_cond_wait(&gpu->progress, &dz_host()->lock);
  }
}

void dz_stream_thread_ended(uint32_t thread) {
  for (struct gpu *gpu = dz_host()->gpus; gpu != NULL; gpu = gpu->next) {
    for (struct stream *stream = gpu->streams; stream != NULL; stream = stream->next) {
      if (stream->owner == thread && !stream->ending) end(stream);
    }
  }
}

/* ---- finding one */

static CUresult find_per_thread(struct gpu *gpu, struct stream **found) {
  uint32_t thread = dz_host_thread();
  for (struct stream *stream = gpu->streams; stream != NULL; stream = stream->next) {
    *found = stream;
    if (stream->owner == thread) return CUDA_SUCCESS;
  }
  *found = dz_stream_make(gpu, true, thread);
  return *found == NULL ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
}

CUresult dz_stream_find(CUstream handle, struct stream **stream) {
  struct gpu *gpu;
  if (handle == NULL || handle == CU_STREAM_LEGACY || handle == CU_STREAM_PER_THREAD) {
    CUresult result = dz_gpu_current(&gpu);
    if (result != CUDA_SUCCESS) return result;
    if (handle == CU_STREAM_PER_THREAD) return find_per_thread(gpu, stream);
    *stream = gpu->legacy;
    return CUDA_SUCCESS;
  }
  *stream = dz_table_find(&dz_host()->streams, HOST_STREAM, (uint64_t)(uintptr_t)handle);
  return *stream == NULL ? CUDA_ERROR_INVALID_HANDLE : (*stream)->gpu->lost;
}

/* ---- work */

/* Whether work on stream begins after what other has now. */
static bool waits_for(const struct stream *stream, const struct stream *other) {
  const struct stream *legacy = stream->gpu->legacy;
  if (other == stream || other->first == NULL) return false;
  return stream == legacy ? other->blocking : stream->blocking && other == legacy;
}

static size_t count_points(const struct stream *stream) {
  size_t count = 0;
  for (const struct stream *other = stream->gpu->streams; other != NULL; other = other->next) {
    if (waits_for(stream, other)) count++;
  }
  return count;
}

CUresult dz_stream_submit(struct stream *stream, const struct work *submitted, void *staged, const struct point *after) {
  struct gpu *gpu = stream->gpu;
  bool waits = after != NULL && !dz_point_passed(after);
  size_t count = count_points(stream) + (waits ? 1 : 0);
  struct op *op = calloc(1, sizeof *op + count * sizeof *op->points);
  if (op == NULL) return CUDA_ERROR_OUT_OF_MEMORY;
  for (struct stream *other = gpu->streams; other != NULL; other = other->next) {
    if (waits_for(stream, other)) dz_point_set(&op->points[op->point_count++], other, other->submitted);
  }
  if (waits) dz_point_copy(&op->points[op->point_count++], after);
  op->work = *submitted;
  op->staged = staged;
  op->sequence = ++stream->submitted;
  op->ticket = ++gpu->ticket;
  if (op->work.graph != NULL) (void)dz_graph_hold(op->work.graph);
  *stream->last = op;
  stream->last = &op->next;
  (void)pthread_cond_signal(&stream->ready);
  return CUDA_SUCCESS;
}

/* Streams of the context that stream, as a default stream, answers for: itself, and for the legacy one all the blocking. */
static bool answers_for(const struct stream *stream, const struct stream *other) {
  return other == stream || (stream == stream->gpu->legacy && other->blocking);
}

static bool stream_done(const struct stream *stream, uint64_t ticket) {
  for (const struct stream *other = stream->gpu->streams; other != NULL; other = other->next) {
    if (answers_for(stream, other) && !has_done(other, ticket)) return false;
  }
  return true;
}

bool dz_stream_is_idle(const struct stream *stream) {
  return stream_done(stream, stream->gpu->ticket);
}

CUresult dz_stream_await(struct stream *stream) {
  struct gpu *gpu = stream->gpu;
  uint64_t ticket = gpu->ticket;
  stream->references++; /* it may be destroyed meanwhile */
  while (!stream_done(stream, ticket)) (void)pthread_cond_wait(&gpu->progress, &dz_host()->lock);
  drop_reference(stream);
  return gpu->lost;
}

void dz_stream_await_gpu(struct gpu *gpu) {
  struct point now = {NULL, NULL, 0};
  dz_point_set_context(&now, gpu);
  dz_point_await(&now);
  (void)reap(gpu);
}

/* ---- entries */

CUresult dz_host_StreamCreate(CUstream *handle, unsigned int flags) {
  struct gpu *gpu;
  CUresult result = dz_host_begin();
  if (result != CUDA_SUCCESS) return result;
  result = dz_gpu_current(&gpu);
  if (result != CUDA_SUCCESS) return dz_host_end(result);
  if (handle == NULL || (flags & ~(unsigned)CU_STREAM_NON_BLOCKING) != 0) return dz_host_end(CUDA_ERROR_INVALID_VALUE);
  struct stream *stream = dz_stream_make(gpu, (flags & CU_STREAM_NON_BLOCKING) == 0, 0);
  if (stream == NULL) return dz_host_end(CUDA_ERROR_OUT_OF_MEMORY);
  stream->handle = (CUstream)(uintptr_t)dz_table_add(&dz_host()->streams, HOST_STREAM, stream);
  if (stream->handle == NULL) {
    end(stream);
    (void)reap(gpu);
    return dz_host_end(CUDA_ERROR_OUT_OF_MEMORY);
  }
  *handle = stream->handle;
  return dz_host_end(CUDA_SUCCESS);
}

CUresult dz_host_StreamDestroy(CUstream handle) {
  struct stream *stream;
  CUresult result = dz_host_begin();
  if (result != CUDA_SUCCESS) return result;
  if (handle == NULL || handle == CU_STREAM_LEGACY || handle == CU_STREAM_PER_THREAD)
    return dz_host_end(CUDA_ERROR_INVALID_HANDLE);
  result = dz_stream_find(handle, &stream);
  if (result != CUDA_SUCCESS) return dz_host_end(result);
  struct gpu *gpu = stream->gpu;
  end(stream);
  (void)reap(gpu);
  return dz_host_end(CUDA_SUCCESS);
}

/* Finds a stream to wait for, if waiting is allowed now. */
static CUresult find_to_wait(CUstream handle, struct stream **stream) {
  CUresult result = dz_stream_find(handle, stream);
  if (result != CUDA_SUCCESS) return result;
  if (*stream == (*stream)->gpu->legacy) {
    result = dz_capture_check_legacy((*stream)->gpu);
    if (result != CUDA_SUCCESS) return result;
  }
  if ((*stream)->capture != NULL) {
    dz_capture_invalidate((*stream)->capture);
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  }
  return dz_capture_check_unsafe();
}

CUresult dz_host_StreamSynchronize(CUstream handle) {
  struct stream *stream;
  CUresult result = dz_host_begin();
  if (result != CUDA_SUCCESS) return result;
  result = find_to_wait(handle, &stream);
  return dz_host_end(result == CUDA_SUCCESS ? dz_stream_await(stream) : result);
}

CUresult dz_host_StreamQuery(CUstream handle) {
  struct stream *stream;
  CUresult result = dz_host_begin();
  if (result != CUDA_SUCCESS) return result;
  result = find_to_wait(handle, &stream);
  if (result == CUDA_SUCCESS && !stream_done(stream, stream->gpu->ticket)) result = CUDA_ERROR_NOT_READY;
  return dz_host_end(result);
}

CUresult dz_host_StreamGetCtx(CUstream handle, CUcontext *context) {
  struct stream *stream;
  CUresult result = dz_host_begin();
  if (result != CUDA_SUCCESS) return result;
  result = dz_stream_find(handle, &stream);
  if (result != CUDA_SUCCESS) return dz_host_end(result);
  if (context == NULL) return dz_host_end(CUDA_ERROR_INVALID_VALUE);
  *context = stream->gpu->context;
  return dz_host_end(CUDA_SUCCESS);
}

CUresult dz_host_StreamGetId(CUstream handle, unsigned long long *id) {
  struct stream *stream;
  CUresult result = dz_host_begin();
  if (result != CUDA_SUCCESS) return result;
  result = dz_stream_find(handle, &stream);
  if (result != CUDA_SUCCESS) return dz_host_end(result);
  if (id == NULL) return dz_host_end(CUDA_ERROR_INVALID_VALUE);
  if (stream == stream->gpu->legacy) result = dz_capture_check_legacy(stream->gpu);
  if (stream->capture != NULL) { /* the driver at hand deems even this a use of the stream */
    dz_capture_invalidate(stream->capture);
    result = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  }
  if (result == CUDA_SUCCESS) *id = stream->id;
  return dz_host_end(result);
}

void dz_stream_count(struct host_counts *counts) {
  counts->streams = dz_host()->streams.used;
  for (const struct gpu *gpu = dz_host()->gpus; gpu != NULL; gpu = gpu->next) {
    for (const struct stream *stream = gpu->streams; stream != NULL; stream = stream->next) counts->threads++;
  }
}
