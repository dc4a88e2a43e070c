/* SPDX-License-Identifier: Apache-2.0
 *
 * Streams that a heap has seen, and waiting for their work.
 */
#include "heap/stream.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <time.h>

#include "core/tls.h"

/* Identities of per-thread default streams have this bit, which the driver's numbers, counted from 0, never reach. */
static const uint64_t per_thread_bit = UINT64_C(1) << 63;

/* Likewise those of streams first seen while they capture, which have their handle's value. */
static const uint64_t capturing_bit = UINT64_C(1) << 62;

static uint64_t thread_number(void) {
  static atomic_uint_fast64_t threads;
  static DZ_TLS uint64_t number;
  if (number == 0) number = 1 + atomic_fetch_add_explicit(&threads, 1, memory_order_relaxed);
  return number;
}

/* Asking for the id of a stream that captures destroys the capture (seen with driver 580). It can be known by its handle, though:
 * its owner has not retired it, so the handle is still that stream's. */
static drowse_status identify_capturing(drowse_heap *heap, CUstream handle, uint64_t *identity) {
  dz_lock(&heap->lock);
  const struct stream *stream = heap->streams;
  while (stream != NULL && (dz_stream_is_retired(stream) || stream->handle != handle)) stream = stream->next;
  *identity = stream != NULL ? stream->identity : capturing_bit | (uint64_t)(uintptr_t)handle;
  dz_unlock(&heap->lock);
  return DROWSE_OK;
}

/* Memory serves every context of its device, and no other device. */
static drowse_status check_device(drowse_heap *heap, CUstream handle) {
  const struct driver *driver = &heap->device.driver;
  CUcontext context;
  CUdevice device;
  CUresult code = driver->StreamGetCtx(handle, &context);
  if (code == CUDA_SUCCESS && context == heap->context) return DROWSE_OK;
  if (code == CUDA_SUCCESS) code = driver->CtxSetCurrent(context);
  if (code == CUDA_SUCCESS) code = driver->CtxGetDevice(&device);
  CUresult back = driver->CtxSetCurrent(heap->context);
  if (code == CUDA_SUCCESS) code = back;
  if (code != CUDA_SUCCESS) return dz_driver_error(driver, code, "asking which device stream %p is on", (void *)handle);
  if (device == heap->device.ordinal) return DROWSE_OK;
  return dz_error(DROWSE_ERR_INVALID, "stream %p is on device %d, and the heap on %s", (void *)handle, device, heap->device.name);
}

/* Asks the driver who a stream is. Drivers before 12.0 do not know: there a stream must be retired before its handle can come
 * again. The two calls need no context of the thread's (seen with driver 580), and no relaxed capture mode. */
static inline CUresult ask(const struct driver *driver, CUstream handle, uint64_t *identity) {
  unsigned long long id = 0;
  CUstreamCaptureStatus capture;
  CUresult code = driver->StreamIsCapturing(handle, &capture);
  if (code != CUDA_SUCCESS) return code;
  *identity = DZ_STREAM_CAPTURES;
  if (capture != CU_STREAM_CAPTURE_STATUS_NONE) return CUDA_SUCCESS;
  code = driver->StreamGetId(handle, &id);
  if (code == CUDA_ERROR_NOT_SUPPORTED) id = (uint64_t)(uintptr_t)handle;
  *identity = id + 1;
  return code == CUDA_ERROR_NOT_SUPPORTED ? CUDA_SUCCESS : code;
}

uint64_t dz_stream_ask(const drowse_heap *heap, CUstream handle) {
  uint64_t identity;
  if (dz_stream_is_legacy(handle)) return DZ_LEGACY_IDENTITY;
  if ((uint64_t)(uintptr_t)handle == DZ_PER_THREAD_HANDLE) return per_thread_bit | thread_number();
  return ask(&heap->device.driver, handle, &identity) == CUDA_SUCCESS ? identity : DZ_STREAM_UNKNOWN;
}

drowse_status dz_stream_identify(drowse_heap *heap, CUstream handle, uint64_t *identity) {
  const struct driver *driver = &heap->device.driver;
  if ((uint64_t)(uintptr_t)handle <= DZ_PER_THREAD_HANDLE) {
    *identity = dz_stream_ask(heap, handle);
    return DROWSE_OK;
  }
  CUresult code = ask(driver, handle, identity);
  if (code != CUDA_SUCCESS) return dz_driver_error(driver, code, "asking who stream %p is", (void *)handle);
  return *identity == DZ_STREAM_CAPTURES ? identify_capturing(heap, handle, identity) : check_device(heap, handle);
}

static struct stream *find_identity(drowse_heap *heap, uint64_t identity) {
  struct stream *stream = heap->streams;
  while (stream != NULL && (dz_stream_is_retired(stream) || stream->identity != identity)) stream = stream->next;
  return stream;
}

/* A stream first seen while it captured is known by its handle until it is seen again and can be asked who it is. */
static struct stream *find(drowse_heap *heap, CUstream handle, uint64_t identity) {
  struct stream *stream = find_identity(heap, identity);
  if (stream != NULL) return stream;
  stream = find_identity(heap, capturing_bit | (uint64_t)(uintptr_t)handle);
  if (stream != NULL) stream->identity = identity;
  return stream;
}

struct stream *dz_stream_get(drowse_heap *heap, CUstream handle, uint64_t identity) {
  dz_lock_assert_held(&heap->lock);
  struct stream *stream = find(heap, handle, identity);
  if (stream != NULL) return stream;
  stream = dz_slab_take(&heap->stream_slab);
  if (stream == NULL) return NULL;
  stream->handle = handle;
  stream->next = heap->streams;
  atomic_init(&stream->identity, identity);
  heap->streams = stream;
  return stream;
}

drowse_status dz_stream_see(drowse_heap *heap, CUstream handle, struct stream **stream) {
  uint64_t identity;
  drowse_status status = dz_stream_identify(heap, handle, &identity);
  if (status != DROWSE_OK) return status;
  dz_lock(&heap->lock);
  *stream = dz_stream_get(heap, handle, identity);
  dz_unlock(&heap->lock);
  return *stream != NULL ? DROWSE_OK : dz_error(DROWSE_ERR_NO_HOST_MEMORY, "no memory for the metadata of a stream");
}

/* ---- draining */

/* The per-thread default stream is another one on every thread. The legacy stream waits for all of them, as for every blocking
 * stream. */
CUstream dz_stream_waitable(CUstream handle) {
  return (uint64_t)(uintptr_t)handle == DZ_PER_THREAD_HANDLE ? NULL : handle;
}

/* CUDA_SUCCESS: it is not. */
static CUresult ask_capture(const drowse_heap *heap, CUstream stream) {
  CUstreamCaptureStatus capture = CU_STREAM_CAPTURE_STATUS_NONE;
  CUresult code = heap->device.driver.StreamIsCapturing(stream, &capture);
  return code == CUDA_SUCCESS && capture != CU_STREAM_CAPTURE_STATUS_NONE ? CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED : code;
}

bool dz_stream_is_capturing(const drowse_heap *heap, CUstream stream) {
  return ask_capture(heap, stream) != CUDA_SUCCESS;
}

bool dz_stream_begin(drowse_heap *heap, struct stream *stream) {
  dz_lock(&heap->lock);
  bool begun = !dz_stream_is_retired(stream);
  if (begun) stream->users++;
  dz_unlock(&heap->lock);
  return begun;
}

void dz_stream_end(drowse_heap *heap, struct stream *stream) {
  dz_lock(&heap->lock);
  if (--stream->users == 0 && dz_stream_is_retired(stream)) (void)pthread_cond_broadcast(&heap->changed);
  dz_unlock(&heap->lock);
}

/* Another thread may begin a capture at any moment. An event that is recorded within one does it no harm, so the stream is looked
 * at again behind it. */
static CUresult mark(const drowse_heap *heap, CUstream handle, CUevent event) {
  CUstream stream = dz_stream_waitable(handle);
  CUresult code = ask_capture(heap, stream);
  if (code == CUDA_SUCCESS) code = heap->device.driver.EventRecord(event, stream);
  return code == CUDA_SUCCESS ? ask_capture(heap, stream) : code;
}

bool dz_stream_mark(drowse_heap *heap, struct stream *stream, CUevent event) {
  if (!dz_stream_begin(heap, stream)) return false;
  bool marked = mark(heap, stream->handle, event) == CUDA_SUCCESS;
  dz_stream_end(heap, stream);
  return marked;
}

/* BUSY if a stream is capturing. The legacy stream answers so too while any blocking stream of the context does. */
static drowse_status check_capture(const drowse_heap *heap, CUstream stream) {
  CUstreamCaptureStatus capture = CU_STREAM_CAPTURE_STATUS_NONE;
  CUresult code = heap->device.driver.StreamIsCapturing(dz_stream_waitable(stream), &capture);
  if (code == CUDA_ERROR_STREAM_CAPTURE_IMPLICIT || (code == CUDA_SUCCESS && capture != CU_STREAM_CAPTURE_STATUS_NONE)) {
    return dz_error(DROWSE_ERR_BUSY,
                    "stream %p is capturing a graph, or one beside it is: waiting for it would destroy the capture",
                    (void *)stream);
  }
  if (code != CUDA_SUCCESS)
    return dz_driver_error(&heap->device.driver, code, "asking whether stream %p is capturing", (void *)stream);
  return DROWSE_OK;
}

/* The heap's streams one by one: the one after stream (NULL: the first) that is not retired. Streams are never unlinked. */
static struct stream *next_known(drowse_heap *heap, const struct stream *stream) {
  dz_lock(&heap->lock);
  struct stream *next = stream == NULL ? heap->streams : stream->next;
  while (next != NULL && dz_stream_is_retired(next)) next = next->next;
  dz_unlock(&heap->lock);
  return next;
}

static drowse_status check_known(drowse_heap *heap, struct stream *stream) {
  if (!dz_stream_begin(heap, stream)) return DROWSE_OK;
  drowse_status status = check_capture(heap, stream->handle);
  dz_stream_end(heap, stream);
  return status;
}

static drowse_status check_captures(drowse_heap *heap) {
  drowse_status status = DROWSE_OK;
  for (struct stream *stream = next_known(heap, NULL); status == DROWSE_OK && stream != NULL; stream = next_known(heap, stream)) {
    status = check_known(heap, stream);
  }
  return status;
}

/* Waits for the event, looking at it ever less often up to every millisecond, because no driver call waits with a time limit. */
static drowse_status wait_event(const drowse_heap *heap, CUevent event, int64_t deadline) {
  const struct driver *driver = &heap->device.driver;
  CUresult code = deadline == DZ_NEVER ? driver->EventSynchronize(event) : driver->EventQuery(event);
  for (int64_t pause = 10000; code == CUDA_ERROR_NOT_READY; pause = pause < 1000000 ? pause * 2 : pause) {
    if (dz_now() >= deadline) return dz_error(DROWSE_ERR_BUSY, "the work on %s has not ended in time", heap->device.name);
    (void)nanosleep(&(struct timespec){.tv_nsec = pause}, NULL);
    code = driver->EventQuery(event);
  }
  return code == CUDA_SUCCESS ? DROWSE_OK : dz_driver_error(driver, code, "waiting for the work on %s", heap->device.name);
}

static drowse_status say_unmarked(const drowse_heap *heap, CUstream stream, CUresult code) {
  drowse_status status = check_capture(heap, stream);
  if (status != DROWSE_OK) return status;
  return dz_driver_error(&heap->device.driver, code, "marking the work on stream %p", (void *)stream);
}

/* Waits for what is now on a stream; once it is retired its work was its owner's to wait for. */
static drowse_status drain_known(drowse_heap *heap, struct stream *stream, CUevent event, int64_t deadline) {
  if (!dz_stream_begin(heap, stream)) return DROWSE_OK;
  CUresult code = mark(heap, stream->handle, event);
  drowse_status status = code == CUDA_SUCCESS ? DROWSE_OK : say_unmarked(heap, stream->handle, code);
  dz_stream_end(heap, stream);
  return code == CUDA_SUCCESS ? wait_event(heap, event, deadline) : status;
}

static drowse_status drain_streams(drowse_heap *heap, int64_t deadline) {
  const struct driver *driver = &heap->device.driver;
  drowse_status status = DROWSE_OK;
  CUevent event;
  CUresult code = driver->EventCreate(&event, CU_EVENT_DISABLE_TIMING);
  if (code != CUDA_SUCCESS) return dz_driver_error(driver, code, "creating an event on %s", heap->device.name);
  for (struct stream *stream = next_known(heap, NULL); status == DROWSE_OK && stream != NULL; stream = next_known(heap, stream)) {
    status = drain_known(heap, stream, event, deadline);
  }
  (void)driver->EventDestroy(event);
  return status;
}

/* All of the context's work, until a deadline; UNSUPPORTED: the driver is one before 12.5. */
static drowse_status drain_context(drowse_heap *heap, int64_t deadline) {
  const struct driver *driver = &heap->device.driver;
  CUevent event;
  CUresult code = driver->EventCreate(&event, CU_EVENT_DISABLE_TIMING);
  if (code != CUDA_SUCCESS) return dz_driver_error(driver, code, "creating an event on %s", heap->device.name);
  code = driver->CtxRecordEvent(heap->context, event);
  drowse_status status = DROWSE_ERR_UNSUPPORTED;
  if (code == CUDA_SUCCESS) {
    status = wait_event(heap, event, deadline);
  } else if (code != CUDA_ERROR_NOT_SUPPORTED) {
    status = dz_driver_error(driver, code, "marking the work on %s", heap->device.name);
  }
  (void)driver->EventDestroy(event);
  return status;
}

/* Without CtxRecordEvent only the streams that we know can be waited for with a limit. */
static drowse_status drain_device(drowse_heap *heap, int64_t deadline) {
  const struct driver *driver = &heap->device.driver;
  if (deadline != DZ_NEVER) {
    drowse_status status = drain_context(heap, deadline);
    if (status != DROWSE_ERR_UNSUPPORTED) return status;
    status = drain_streams(heap, deadline);
    if (status != DROWSE_OK) return status;
  }
  CUresult code = driver->CtxSynchronize();
  return code == CUDA_SUCCESS ? DROWSE_OK : dz_driver_error(driver, code, "waiting for the work on %s", heap->device.name);
}

drowse_status dz_drain(drowse_heap *heap, drowse_drain drain, int64_t deadline) {
  if (drain == DROWSE_DRAIN_NONE) return DROWSE_OK;
  drowse_status status = drain == DROWSE_DRAIN_DEVICE ? check_capture(heap, NULL) : DROWSE_OK;
  if (status == DROWSE_OK) status = check_captures(heap);
  if (status != DROWSE_OK) return status;
  return drain == DROWSE_DRAIN_DEVICE ? drain_device(heap, deadline) : drain_streams(heap, deadline);
}

void dz_drain_whatever(drowse_heap *heap) {
  CUevent event;
  if (dz_drain(heap, DROWSE_DRAIN_DEVICE, DZ_NEVER) == DROWSE_OK) return;
  if (heap->device.driver.EventCreate(&event, CU_EVENT_DISABLE_TIMING) != CUDA_SUCCESS) return;
  for (struct stream *stream = next_known(heap, NULL); stream != NULL; stream = next_known(heap, stream)) {
    (void)drain_known(heap, stream, event, DZ_NEVER);
  }
  (void)heap->device.driver.EventDestroy(event);
}

/* ---- retiring */

bool dz_stream_is_over(const drowse_heap *heap, const struct stream *stream) {
  return stream->last == NULL || heap->device.driver.EventQuery(stream->last) != CUDA_ERROR_NOT_READY;
}

/* An event behind all the stream's work; NULL: it captures, or there is none to be had. */
static CUevent mark_end(const drowse_heap *heap, CUstream handle) {
  const struct driver *driver = &heap->device.driver;
  CUevent event;
  if (driver->EventCreate(&event, CU_EVENT_DISABLE_TIMING) != CUDA_SUCCESS) return NULL;
  if (mark(heap, handle, event) == CUDA_SUCCESS) return event;
  (void)driver->EventDestroy(event);
  return NULL;
}

static struct stream *retire(drowse_heap *heap, CUstream handle, uint64_t identity, CUevent last) {
  dz_lock(&heap->lock);
  struct stream *stream = find(heap, handle, identity);
  if (stream != NULL) {
    stream->last = last;
    atomic_store_explicit(&stream->retired, true, memory_order_release);
  }
  while (stream != NULL && stream->users > 0) (void)dz_cond_wait(&heap->changed, &heap->lock, DZ_NEVER);
  dz_unlock(&heap->lock);
  return stream;
}

DROWSE_API drowse_status drowse_stream_retire(drowse_heap *heap, drowse_stream handle) {
  drowse_status status = dz_heap_check(heap);
  if (status != DROWSE_OK) return status;
  struct guard guard;
  uint64_t identity;
  status = dz_guard_enter(&guard, heap);
  if (status != DROWSE_OK) return status;
  status = dz_stream_identify(heap, handle, &identity);
  if (status == DROWSE_OK) {
    CUevent last = mark_end(heap, handle);
    if (retire(heap, handle, identity, last) == NULL) {
      if (last != NULL) (void)heap->device.driver.EventDestroy(last);
      status = dz_error(DROWSE_ERR_NOT_FOUND, "stream %p: this heap has not seen it", handle);
    }
  }
  return dz_guard_leave(&guard, status);
}

void dz_streams_end(drowse_heap *heap) {
  for (struct stream *stream = heap->streams; stream != NULL; stream = stream->next) {
    if (stream->last != NULL) (void)heap->device.driver.EventDestroy(stream->last);
    stream->last = NULL;
  }
}
