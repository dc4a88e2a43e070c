/* SPDX-License-Identifier: Apache-2.0
 *
 * Captures. A capture begins on one stream, its origin; another stream joins it by waiting for an event that was recorded inside,
 * and has to be waited for in turn before the origin's capture ends. Whether that is so is told by vector clocks: a moment of a
 * capture is, for each participant, how many of its nodes lie before it.
 *
 *   active --(a call that captures forbid)--> invalid
 *   both end with StreamEndCapture on the origin, which gives a graph or the error; or with the origin's or the context's end
 */
#include "driver/host/state.h"

#include <stdlib.h>
#include <string.h>

struct participant {
  struct stream *stream; /* NULL: gone */
  uint64_t nodes;        /* added by it */
  struct clock clock;    /* its moment; its own nodes included */
};

struct capture {
  struct capture *next, **before;
  uint64_t id;
  struct gpu *gpu;
  CUstreamCaptureMode mode;
  uint32_t thread; /* that began it */
  bool invalid;
  struct participant *participants; /* the origin first */
  size_t count, room;
  struct graph *graph;
};

/* ---- clocks: a place that is missing is 0 */

void dz_clock_free(struct clock *clock) {
  free(clock->nodes);
  *clock = (struct clock){NULL, 0};
}

static bool clock_reserve(struct clock *clock, size_t count) {
  if (count <= clock->count) return true;
  uint64_t *nodes = realloc(clock->nodes, count * sizeof *nodes);
  if (nodes == NULL) return false;
  memset(nodes + clock->count, 0, (count - clock->count) * sizeof *nodes);
  *clock = (struct clock){nodes, count};
  return true;
}

/* clock's room was reserved. */
static void clock_merge(struct clock *clock, const struct clock *other) {
  for (size_t at = 0; at < other->count; at++) {
    if (other->nodes[at] > clock->nodes[at]) clock->nodes[at] = other->nodes[at];
  }
}

static uint64_t clock_at(const struct clock *clock, size_t at) {
  return at < clock->count ? clock->nodes[at] : 0;
}

/* ---- what captures forbid */

void dz_capture_invalidate(struct capture *capture) {
  capture->invalid = true;
}

static bool has_blocking(const struct capture *capture) {
  for (size_t at = 0; at < capture->count; at++) {
    if (capture->participants[at].stream != NULL && capture->participants[at].stream->blocking) return true;
  }
  return false;
}

bool dz_capture_legacy_busy(const struct gpu *gpu) {
  for (const struct capture *capture = dz_host()->captures; capture != NULL; capture = capture->next) {
    if (capture->gpu == gpu && has_blocking(capture)) return true;
  }
  return false;
}

CUresult dz_capture_check_legacy(const struct gpu *gpu) {
  CUresult result = CUDA_SUCCESS;
  for (struct capture *capture = dz_host()->captures; capture != NULL; capture = capture->next) {
    if (capture->gpu != gpu || !has_blocking(capture)) continue;
    capture->invalid = true;
    result = CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
  }
  return result;
}

CUresult dz_capture_check_context(const struct gpu *gpu) {
  CUresult result = CUDA_SUCCESS;
  for (struct capture *capture = dz_host()->captures; capture != NULL; capture = capture->next) {
    if (capture->gpu != gpu) continue;
    capture->invalid = true;
    result = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  }
  return result;
}

/* A thread is barred by its own captures unless they are relaxed, and in global mode by those that other threads hold in global
 * mode. */
static bool bars(const struct capture *capture, uint32_t thread, CUstreamCaptureMode mode) {
  if (mode == CU_STREAM_CAPTURE_MODE_RELAXED || capture->mode == CU_STREAM_CAPTURE_MODE_RELAXED) return false;
  if (capture->thread == thread) return true;
  return mode == CU_STREAM_CAPTURE_MODE_GLOBAL && capture->mode == CU_STREAM_CAPTURE_MODE_GLOBAL;
}

CUresult dz_capture_check_unsafe(void) {
  if (dz_host()->captures == NULL) return CUDA_SUCCESS;
  CUresult result = CUDA_SUCCESS;
  for (struct capture *capture = dz_host()->captures; capture != NULL; capture = capture->next) {
    if (!bars(capture, dz_host_thread(), dz_host_thread_mode())) continue;
    capture->invalid = true;
    result = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  }
  return result;
}

/* ---- what is in a capture */

struct capture *dz_capture_find(uint64_t id) {
  struct capture *capture = dz_host()->captures;
  while (capture != NULL && capture->id != id) capture = capture->next;
  return capture;
}

uint64_t dz_capture_id(const struct capture *capture) {
  return capture->id;
}

static CUresult add_participant(struct capture *capture, struct stream *stream) {
  if (capture->count == capture->room) {
    size_t room = capture->room == 0 ? 4 : capture->room * 2;
    struct participant *participants = realloc(capture->participants, room * sizeof *participants);
    if (participants == NULL) return CUDA_ERROR_OUT_OF_MEMORY;
    capture->participants = participants;
    capture->room = room;
  }
  struct participant *participant = &capture->participants[capture->count];
  *participant = (struct participant){.stream = stream};
  if (!clock_reserve(&participant->clock, capture->count + 1)) return CUDA_ERROR_OUT_OF_MEMORY;
  stream->capture = capture;
  stream->participant = capture->count++;
  return CUDA_SUCCESS;
}

CUresult dz_capture_add(struct stream *stream, const struct work *work) {
  struct capture *capture = stream->capture;
  if (capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  if (work->kind == WORK_GRAPH) { /* as the driver at hand: not with a launch that could have been one node */
    capture->invalid = true;
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  }
  if (!dz_graph_add(capture->graph, work)) return CUDA_ERROR_OUT_OF_MEMORY;
  struct participant *participant = &capture->participants[stream->participant];
  participant->clock.nodes[stream->participant] = ++participant->nodes;
  return CUDA_SUCCESS;
}

CUresult dz_capture_note(const struct stream *stream, struct clock *clock) {
  const struct capture *capture = stream->capture;
  if (capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  const struct clock *now = &capture->participants[stream->participant].clock;
  if (!clock_reserve(clock, now->count)) return CUDA_ERROR_OUT_OF_MEMORY;
  clock_merge(clock, now);
  return CUDA_SUCCESS;
}

CUresult dz_capture_join(struct stream *stream, uint64_t id, const struct clock *clock) {
  struct capture *capture = dz_capture_find(id);
  if (capture == NULL) return CUDA_ERROR_INVALID_VALUE; /* the event's capture is over */
  if (stream->capture != NULL && stream->capture != capture) {
    stream->capture->invalid = true;
    capture->invalid = true;
    return CUDA_ERROR_STREAM_CAPTURE_MERGE;
  }
  if (capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  if (capture->gpu != stream->gpu) return CUDA_ERROR_INVALID_HANDLE;
  if (stream->capture == NULL) {
    CUresult result = add_participant(capture, stream);
    if (result != CUDA_SUCCESS) return result;
  }
  struct clock *now = &capture->participants[stream->participant].clock;
  if (!clock_reserve(now, clock->count)) return CUDA_ERROR_OUT_OF_MEMORY;
  clock_merge(now, clock);
  return CUDA_SUCCESS;
}

/* ---- life */

static CUresult begin(struct stream *stream, CUstreamCaptureMode mode) {
  struct host *host = dz_host();
  struct capture *capture = calloc(1, sizeof *capture);
  if (capture == NULL) return CUDA_ERROR_OUT_OF_MEMORY;
  capture->graph = dz_graph_make();
  if (capture->graph == NULL) goto no_graph;
  if (add_participant(capture, stream) != CUDA_SUCCESS) goto no_participant;
  capture->id = ++host->capture_ids;
  capture->gpu = stream->gpu;
  capture->mode = mode;
  capture->thread = dz_host_thread();
  capture->next = host->captures;
  capture->before = &host->captures;
  if (capture->next != NULL) capture->next->before = &capture->next;
  host->captures = capture;
  return CUDA_SUCCESS;

no_participant:
  free(capture->participants);
  dz_graph_drop(capture->graph);
no_graph:
  free(capture);
  return CUDA_ERROR_OUT_OF_MEMORY;
}

/* Ends a capture; its graph stays with whoever held it. */
static void end(struct capture *capture) {
  for (size_t at = 0; at < capture->count; at++) {
    struct participant *participant = &capture->participants[at];
    if (participant->stream != NULL) participant->stream->capture = NULL;
    dz_clock_free(&participant->clock);
  }
  *capture->before = capture->next;
  if (capture->next != NULL) capture->next->before = capture->before;
  free(capture->participants);
  dz_graph_drop(capture->graph);
  free(capture);
}

void dz_capture_leave(struct stream *stream) {
  struct capture *capture = stream->capture;
  if (capture == NULL) return;
  if (stream->participant == 0) {
    end(capture);
    return;
  }
  capture->participants[stream->participant].stream = NULL;
  capture->invalid = true;
  stream->capture = NULL;
}

void dz_capture_reclaim(const struct gpu *gpu) {
  for (struct capture *capture = dz_host()->captures, *next; capture != NULL; capture = next) {
    next = capture->next;
    if (capture->gpu != gpu) continue;
    end(capture);
    dz_host()->reclaimed++;
  }
}

void dz_capture_count(struct host_counts *counts) {
  for (const struct capture *capture = dz_host()->captures; capture != NULL; capture = capture->next) counts->captures++;
}

/* ---- entries */

CUresult dz_host_StreamBeginCapture(CUstream handle, CUstreamCaptureMode mode) {
  struct stream *stream;
  CUresult result = dz_host_begin();
  if (result != CUDA_SUCCESS) return result;
  result = dz_stream_find(handle, &stream);
  if (result != CUDA_SUCCESS) return dz_host_end(result);
  if ((unsigned)mode > CU_STREAM_CAPTURE_MODE_RELAXED) return dz_host_end(CUDA_ERROR_INVALID_VALUE);
  if (stream == stream->gpu->legacy) {
    result = dz_capture_check_legacy(stream->gpu);
    return dz_host_end(result != CUDA_SUCCESS ? result : CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  }
  return dz_host_end(stream->capture != NULL ? CUDA_ERROR_ILLEGAL_STATE : begin(stream, mode));
}

/* Whether all work of the capture lies before the origin's moment. */
static bool joined(const struct capture *capture) {
  for (size_t at = 0; at < capture->count; at++) {
    if (clock_at(&capture->participants[0].clock, at) < capture->participants[at].nodes) return false;
  }
  return true;
}

static CUresult check_end(const struct capture *capture) {
  if (capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED && capture->thread != dz_host_thread()) {
    return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
  }
  if (capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  return joined(capture) ? CUDA_SUCCESS : CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
}

CUresult dz_host_StreamEndCapture(CUstream handle, CUgraph *graph) {
  struct stream *stream;
  CUresult result = dz_host_begin();
  if (result != CUDA_SUCCESS) return result;
  result = dz_stream_find(handle, &stream);
  if (result != CUDA_SUCCESS) return dz_host_end(result);
  if (graph == NULL) return dz_host_end(CUDA_ERROR_INVALID_VALUE);
  *graph = NULL;
  struct capture *capture = stream->capture;
  if (capture == NULL) return dz_host_end(CUDA_ERROR_ILLEGAL_STATE);
  if (stream->participant != 0) {
    capture->invalid = true;
    return dz_host_end(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
  }
  result = check_end(capture);
  if (result == CUDA_SUCCESS) result = dz_graph_publish(capture->graph, graph);
  end(capture); /* over, whatever came of it */
  return dz_host_end(result);
}

CUresult dz_host_StreamIsCapturing(CUstream handle, CUstreamCaptureStatus *status) {
  struct stream *stream;
  CUresult result = dz_host_begin();
  if (result != CUDA_SUCCESS) return result;
  result = dz_stream_find(handle, &stream);
  if (result != CUDA_SUCCESS) return dz_host_end(result);
  if (status == NULL) return dz_host_end(CUDA_ERROR_INVALID_VALUE);
  *status = CU_STREAM_CAPTURE_STATUS_NONE;
  if (stream == stream->gpu->legacy && dz_capture_legacy_busy(stream->gpu)) {
    return dz_host_end(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
  }
  if (stream->capture != NULL) {
    *status = stream->capture->invalid ? CU_STREAM_CAPTURE_STATUS_INVALIDATED : CU_STREAM_CAPTURE_STATUS_ACTIVE;
  }
  return dz_host_end(CUDA_SUCCESS);
}
