/* SPDX-License-Identifier: Apache-2.0
 *
 * Events: a moment of a stream's work or of a context's, or, recorded while the stream captured, of a capture.
 */
#include "driver/host/state.h"

#include <stdlib.h>

struct event {
  struct gpu *gpu;
  CUevent handle;
  struct point point;
  uint64_t capture; /* 0: not recorded in one */
  struct clock clock;
};

static CUresult find(CUevent handle, struct event **event) {
  *event = dz_table_find(&dz_host()->events, HOST_EVENT, (uint64_t)(uintptr_t)handle);
  return *event == NULL ? CUDA_ERROR_INVALID_HANDLE : (*event)->gpu->lost;
}

static void destroy(struct event *event) {
  (void)dz_table_remove(&dz_host()->events, HOST_EVENT, (uint64_t)(uintptr_t)event->handle);
  dz_point_clear(&event->point);
  dz_clock_free(&event->clock);
  free(event);
}

CUresult dz_host_EventCreate(CUevent *handle, unsigned int flags) {
  static const unsigned known = CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING;
  struct gpu *gpu;
  CUresult result = dz_host_begin();
  if (result != CUDA_SUCCESS) return result;
  result = dz_gpu_current(&gpu);
  if (result != CUDA_SUCCESS) return dz_host_end(result);
  if (handle == NULL || (flags & ~known) != 0) return dz_host_end(CUDA_ERROR_INVALID_VALUE);
  struct event *event = calloc(1, sizeof *event);
  if (event == NULL) return dz_host_end(CUDA_ERROR_OUT_OF_MEMORY);
  event->gpu = gpu;
  event->handle = (CUevent)(uintptr_t)dz_table_add(&dz_host()->events, HOST_EVENT, event);
  if (event->handle == NULL) {
    free(event);
    return dz_host_end(CUDA_ERROR_OUT_OF_MEMORY);
  }
  *handle = event->handle;
  return dz_host_end(CUDA_SUCCESS);
}

CUresult dz_host_EventDestroy(CUevent handle) {
  struct event *event;
  CUresult result = dz_host_begin();
  if (result != CUDA_SUCCESS) return result;
  result = find(handle, &event);
  if (result == CUDA_SUCCESS) destroy(event);
  return dz_host_end(result);
}

/* Finds both; for the legacy stream, if it may be touched now. */
static CUresult find_with_stream(CUevent handle, CUstream stream_handle, struct event **event, struct stream **stream) {
  CUresult result = find(handle, event);
  if (result == CUDA_SUCCESS) result = dz_stream_find(stream_handle, stream);
  if (result == CUDA_SUCCESS && *stream == (*stream)->gpu->legacy) result = dz_capture_check_legacy((*stream)->gpu);
  return result;
}

static CUresult record_captured(struct event *event, const struct stream *stream) {
  struct clock clock = {NULL, 0};
  CUresult result = dz_capture_note(stream, &clock);
  if (result != CUDA_SUCCESS) return result;
  dz_point_clear(&event->point);
  dz_clock_free(&event->clock);
  event->clock = clock;
  event->capture = dz_capture_id(stream->capture);
  return CUDA_SUCCESS;
}

/* On a stream that has nothing to do the moment has passed already. */
static CUresult record(struct event *event, struct stream *stream) {
  const struct work mark = {.kind = WORK_MARK};
  CUresult result = dz_stream_is_idle(stream) ? CUDA_SUCCESS : dz_stream_submit(stream, &mark, NULL, NULL);
  if (result != CUDA_SUCCESS) return result;
  dz_point_set(&event->point, stream, stream->submitted);
  dz_clock_free(&event->clock);
  event->capture = 0;
  return CUDA_SUCCESS;
}

CUresult dz_host_EventRecord(CUevent handle, CUstream stream_handle) {
  struct event *event;
  struct stream *stream;
  CUresult result = dz_host_begin();
  if (result != CUDA_SUCCESS) return result;
  result = find_with_stream(handle, stream_handle, &event, &stream);
  if (result != CUDA_SUCCESS) return dz_host_end(result);
  if (event->gpu != stream->gpu) return dz_host_end(CUDA_ERROR_INVALID_HANDLE);
  return dz_host_end(stream->capture != NULL ? record_captured(event, stream) : record(event, stream));
}

static CUresult find_context(CUcontext context, struct gpu **gpu) {
  for (*gpu = dz_host()->gpus; *gpu != NULL; *gpu = (*gpu)->next) {
    if ((*gpu)->retains != 0 && (*gpu)->context == context) return (*gpu)->lost;
  }
  return CUDA_ERROR_INVALID_CONTEXT;
}

CUresult dz_host_CtxRecordEvent(CUcontext context, CUevent handle) {
  struct event *event;
  struct gpu *gpu;
  CUresult result = dz_host_begin();
  if (result != CUDA_SUCCESS) return result;
  result = context == NULL ? dz_gpu_current(&gpu) : find_context(context, &gpu);
  if (result == CUDA_SUCCESS) result = find(handle, &event);
  if (result == CUDA_SUCCESS && event->gpu != gpu) result = CUDA_ERROR_INVALID_HANDLE;
  if (result == CUDA_SUCCESS) result = dz_capture_check_context(gpu);
  if (result != CUDA_SUCCESS) return dz_host_end(result);
  dz_point_set_context(&event->point, gpu);
  dz_clock_free(&event->clock);
  event->capture = 0;
  return dz_host_end(CUDA_SUCCESS);
}

static CUresult wait_for(struct stream *stream, const struct event *event) {
  const struct work mark = {.kind = WORK_MARK};
  if (event->capture != 0) return dz_capture_join(stream, event->capture, &event->clock);
  if (event->point.stream == NULL && event->point.gpu == NULL) return CUDA_SUCCESS; /* never recorded */
  if (stream->capture != NULL) {
    dz_capture_invalidate(stream->capture);
    return CUDA_ERROR_STREAM_CAPTURE_ISOLATION;
  }
  return dz_stream_submit(stream, &mark, NULL, &event->point);
}

CUresult dz_host_StreamWaitEvent(CUstream stream_handle, CUevent handle, unsigned int flags) {
  struct event *event;
  struct stream *stream;
  CUresult result = dz_host_begin();
  if (result != CUDA_SUCCESS) return result;
  if (flags != CU_EVENT_WAIT_DEFAULT) return dz_host_end(CUDA_ERROR_INVALID_VALUE);
  result = find_with_stream(handle, stream_handle, &event, &stream);
  return dz_host_end(result == CUDA_SUCCESS ? wait_for(stream, event) : result);
}

/* Finds an event that can be waited for outside of a capture, and now. */
static CUresult find_to_wait(CUevent handle, struct event **event) {
  CUresult result = find(handle, event);
  if (result != CUDA_SUCCESS) return result;
  if ((*event)->capture != 0) {
    struct capture *capture = dz_capture_find((*event)->capture);
    if (capture == NULL) return CUDA_ERROR_INVALID_VALUE;
    dz_capture_invalidate(capture);
    return CUDA_ERROR_CAPTURED_EVENT;
  }
  return dz_capture_check_unsafe();
}

CUresult dz_host_EventQuery(CUevent handle) {
  struct event *event;
  CUresult result = dz_host_begin();
  if (result != CUDA_SUCCESS) return result;
  result = find_to_wait(handle, &event);
  if (result == CUDA_SUCCESS && !dz_point_passed(&event->point)) result = CUDA_ERROR_NOT_READY;
  return dz_host_end(result);
}

CUresult dz_host_EventSynchronize(CUevent handle) {
  struct event *event;
  CUresult result = dz_host_begin();
  if (result != CUDA_SUCCESS) return result;
  result = find_to_wait(handle, &event);
  if (result != CUDA_SUCCESS) return dz_host_end(result);
  struct gpu *gpu = event->gpu;
  struct point point = {NULL, NULL, 0}; /* the event may be recorded anew, or destroyed, meanwhile */
  dz_point_copy(&point, &event->point);
  dz_point_await(&point);
  dz_point_clear(&point);
  return dz_host_end(gpu->lost);
}

void dz_event_reclaim(const struct gpu *gpu) {
  struct host *host = dz_host();
  for (uint32_t at = 0; at < host->events.count; at++) {
    struct event *event = host->events.places[at].object;
    if (event == NULL || event->gpu != gpu) continue;
    destroy(event);
    host->reclaimed++;
  }
}
