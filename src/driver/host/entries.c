/* SPDX-License-Identifier: Apache-2.0
 *
 * The host device's table, the names of errors, and what is alive.
 */
#include "driver/host/state.h"

#define ENTRY(name, version, need, parameters) .name = dz_host_##name,
const struct driver dz_host_driver = {DZ_DRIVER_ENTRIES(ENTRY)};
#undef ENTRY

/* X(error, one phrase): what the host device's entries return. */
#define ERRORS(X)                                                                                  \
  X(CUDA_SUCCESS, "no error")                                                                      \
  X(CUDA_ERROR_INVALID_VALUE, "invalid argument")                                                  \
  X(CUDA_ERROR_OUT_OF_MEMORY, "out of memory")                                                     \
  X(CUDA_ERROR_NOT_INITIALIZED, "not initialised, or initialised before the process was forked")   \
  X(CUDA_ERROR_NO_DEVICE, "there is no device")                                                    \
  X(CUDA_ERROR_INVALID_DEVICE, "invalid device ordinal")                                           \
  X(CUDA_ERROR_INVALID_CONTEXT, "no current context, or an invalid one")                           \
  X(CUDA_ERROR_INVALID_HANDLE, "invalid handle")                                                   \
  X(CUDA_ERROR_ILLEGAL_STATE, "illegal state for the call")                                        \
  X(CUDA_ERROR_NOT_FOUND, "not found")                                                             \
  X(CUDA_ERROR_NOT_READY, "work is not done yet")                                                  \
  X(CUDA_ERROR_ILLEGAL_ADDRESS, "work accessed device memory that is not there")                   \
  X(CUDA_ERROR_CONTEXT_IS_DESTROYED, "the context has been destroyed")                             \
  X(CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED, "part of the host memory is registered already")    \
  X(CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED, "the host memory is not registered")                    \
  X(CUDA_ERROR_NOT_PERMITTED, "not permitted in a host function")                                  \
  X(CUDA_ERROR_NOT_SUPPORTED, "not supported")                                                     \
  X(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "not permitted while a stream is capturing")            \
  X(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "the capture was invalidated by an earlier error")      \
  X(CUDA_ERROR_STREAM_CAPTURE_MERGE, "it would merge two captures")                                \
  X(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED, "the capture did not begin on this stream")               \
  X(CUDA_ERROR_STREAM_CAPTURE_UNJOINED, "the capture has work that is not joined to its stream")   \
  X(CUDA_ERROR_STREAM_CAPTURE_ISOLATION, "a capture cannot depend on work outside of it")          \
  X(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, "the legacy stream depends on a stream that is capturing") \
  X(CUDA_ERROR_CAPTURED_EVENT, "the event was last recorded in a capture")                         \
  X(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, "the capture began on another thread")

static const struct {
  CUresult error;
  const char *name, *text;
} errors[] = {
#define ROW(error, text) {error, #error, text},
    ERRORS(ROW)
#undef ROW
};

CUresult dz_host_GetErrorName(CUresult error, const char **name) {
  if (name == NULL) return CUDA_ERROR_INVALID_VALUE;
  *name = NULL;
  for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
    if (errors[i].error == error) *name = errors[i].name;
  }
  return *name == NULL ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

CUresult dz_host_GetErrorString(CUresult error, const char **text) {
  if (text == NULL) return CUDA_ERROR_INVALID_VALUE;
  *text = NULL;
  for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
    if (errors[i].error == error) *text = errors[i].text;
  }
  return *text == NULL ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

void dz_host_counts(struct host_counts *counts) {
  *counts = (struct host_counts){0};
  if (dz_host_begin() != CUDA_SUCCESS) return;
  const struct host *host = dz_host();
  for (const struct gpu *gpu = host->gpus; gpu != NULL; gpu = gpu->next) counts->contexts += gpu->retains != 0;
  dz_memory_count(counts);
  dz_pin_count(counts);
  dz_stream_count(counts);
  dz_capture_count(counts);
  counts->events = host->events.used;
  counts->graphs = host->graphs.used;
  counts->executables = host->executables.used;
  counts->reclaimed = host->reclaimed;
  (void)dz_host_end(CUDA_SUCCESS);
}
