/* SPDX-License-Identifier: Apache-2.0
 *
 * libdrowse-torch: PyTorch's memory on drowse. drowse_torch_malloc() and drowse_torch_free() are what PyTorch's pluggable
 * allocator takes, the others go with them:
 *
 *   allocator = torch.cuda.memory.CUDAPluggableAllocator("libdrowse-torch.so.1", "drowse_torch_malloc", "drowse_torch_free")
 *   pool = torch.cuda.MemPool(allocator.allocator())
 *
 * The heap of a device is opened when its first memory is wanted, and the current frame of the thread that wants it gives the
 * tag. Sleeping and waking are done with the heap, which drowse_torch_heap() gives.
 *
 * Of a MemPool PyTorch asks for whole segments (2 MiB, 20 MiB and more), of which it cuts tensors by itself, with its allocator's
 * lock held. So nothing here takes Python's lock, calls PyTorch, or waits for anything but the driver; a heap's pressure hook
 * must do none of that either. When NULL comes back PyTorch gives its own unused memory back, asks again and then raises
 * torch.OutOfMemoryError, whatever the reason was: drowse_last_error() of that thread has it. With
 * torch.cuda.memory.change_current_allocator() PyTorch asks for every tensor, passes NULL on as if it were memory, and keeps what
 * a captured graph uses from nobody; a MemPool is what this is made for.
 *
 * What drowse.h says of all its functions holds for these, too. In a forked child, as of a DataLoader, nothing can be had from a
 * heap that the parent opened, and to free its memory does nothing.
 */
#ifndef DROWSE_TORCH_H
#define DROWSE_TORCH_H

#include <drowse.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Memory of size bytes on PyTorch's device of that number, for use on stream: drowse_alloc() from its heap. 0 bytes: NULL. NULL,
 * and nothing has changed: what drowse_alloc() and drowse_torch_heap() fail with. While a stream captures a graph too. Since 0.1.
 */
DROWSE_API void *drowse_torch_malloc(size_t size, int device, drowse_stream stream);

/* Frees what drowse_torch_malloc() returned, whatever its tag's state and whichever thread this is: drowse_free(), which waits
 * for nothing. PyTorch lets go of segments when memory is wanted, be it outside of drowse: so what is unused and idle beyond 64
 * MiB goes back to the device, drowse_trim_idle(). What a stream may still use stays until a later call, and PyTorch's own
 * memory outside can run out meanwhile: drowse_trim() waits for it. size and stream are not looked at: the block has its own.
 * NULL, what is no such memory, and a device whose heap has not been opened: nothing happens. Since 0.1. */
DROWSE_API void drowse_torch_free(void *ptr, size_t size, int device, drowse_stream stream);

/* For set_record_stream_fn of an allocator that is the current one: drowse_record_stream() of the heap that ptr comes from. Of a
 * MemPool PyTorch keeps such records itself. Since 0.1. */
DROWSE_API void drowse_torch_record_stream(void *ptr, drowse_stream stream);

/* For set_base_alloc_fn: the start of the block that ptr points into, and its size, unless size is NULL; what is in no block of
 * any heap is its own start, of size 0. Since 0.1. */
DROWSE_API void *drowse_torch_base_alloc(void *ptr, size_t *size);

/* For set_reset_fn, which torch.cuda.empty_cache() calls: drowse_trim() of every heap, with nothing kept. Where a stream is
 * capturing its heap stays as it is. Since 0.1. */
DROWSE_API void drowse_torch_reset(void);

/* The heap of PyTorch's device of that number, opened if need be: on "cuda:N", where $DROWSE_DEVICE names the host device on
 * that, with DROWSE_HEAP_RDMA_WHERE_POSSIBLE and otherwise the default options. It is never closed: a process may exit without
 * it. NULL: DROWSE_ERR_INVALID: device is negative, or more than 127; or what drowse_heap_open() fails with; the next call tries
 * again. Since 0.1. */
DROWSE_API drowse_heap *drowse_torch_heap(int device) DROWSE_CHECKED;

/* Has a device's memory come from this heap, with what options ever the caller has opened it. NULL: from none, until the next use
 * opens one; then the heap there was can be closed, and nothing that came from it may be used any more. DROWSE_ERR_INVALID: no
 * such device number; DROWSE_ERR_BUSY: it has a heap already. Since 0.1. */
DROWSE_API drowse_status drowse_torch_heap_set(int device, drowse_heap *heap) DROWSE_CHECKED;

#ifdef __cplusplus
}
#endif

#endif /* DROWSE_TORCH_H */
