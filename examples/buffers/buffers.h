/* SPDX-License-Identifier: Apache-2.0
 *
 * What a CUDA server calls in place of cudaMalloc() and cudaFree() so that its buffers can sleep: llama.cpp's in
 * ggml_cuda_device_malloc() and in the destructor of ggml_backend_cuda_buffer_context, say (doc/cudamalloc.md). Devices have the
 * numbers that cudaSetDevice() takes. These functions return 0 or an error of the CUDA runtime; drowse_last_error() has the
 * reason.
 */
#ifndef BUFFERS_H
#define BUFFERS_H

#include <stddef.h>

enum { BUFFERS_OUT_OF_MEMORY = 2 /* cudaErrorMemoryAllocation */, BUFFERS_FAILED = 999 /* cudaErrorUnknown */ };

/* A buffer under the tag of the scope that is open on this thread. It is for use on any stream. */
int buffers_malloc(void **ptr, size_t bytes, int device);

/* Frees one. cudaFree() waits for the device by itself; here the caller does, by cudaDeviceSynchronize(). */
int buffers_free(void *ptr, int device);

/* Every buffer of every device gives its memory back, and gets it again, at its address: what is under "weights" with its
 * contents, which are copied the first time only, so they must not change; all else without. Nobody may be using any. Asleep
 * already, or awake: nothing happens. After a failure the call can be made again. */
int buffers_sleep(void);
int buffers_wake(void);

/* Bytes that are free on a device, for whoever wants them. */
unsigned long long buffers_free_bytes(int device);

/* In place of cudaMemcpy(), which works too, on a GPU: this also does on the host device. */
int buffers_write(void *ptr, const void *from, size_t bytes, int device);
int buffers_read(void *to, const void *ptr, size_t bytes, int device);

#endif
