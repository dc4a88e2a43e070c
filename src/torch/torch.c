/* SPDX-License-Identifier: Apache-2.0
 *
 * libdrowse-torch: what PyTorch's pluggable allocator calls. Each of these runs with a lock of PyTorch's held, so it does what
 * drowse does by itself and no more.
 */
#include "drowse-torch.h"

#include "torch/heaps.h"

static const uint64_t keep_bytes = UINT64_C(64) << 20; /* of unused memory, for the next segments */

DROWSE_API void *drowse_torch_malloc(size_t size, int device, drowse_stream stream) {
  void *ptr = NULL;
  drowse_heap *heap = dz_heaps_get(device);
  return heap != NULL && drowse_alloc(heap, size, stream, &ptr) == DROWSE_OK ? ptr : NULL;
}

DROWSE_API void drowse_torch_free(void *ptr, size_t size, int device, drowse_stream stream) {
  (void)size;
  (void)stream;
  drowse_heap *heap = dz_heaps_opened(device);
  if (heap != NULL && drowse_free(heap, ptr) == DROWSE_OK) (void)drowse_trim_idle(heap, keep_bytes);
}

DROWSE_API void drowse_torch_record_stream(void *ptr, drowse_stream stream) {
  drowse_status status = DROWSE_ERR_NOT_FOUND;
  for (int device = dz_heaps_next(0); device < DZ_DEVICES && status == DROWSE_ERR_NOT_FOUND; device = dz_heaps_next(device + 1))
    status = drowse_record_stream(dz_heaps_opened(device), ptr, stream);
}

DROWSE_API void *drowse_torch_base_alloc(void *ptr, size_t *size) {
  drowse_block block = {.struct_size = sizeof block, .base = ptr};
  drowse_status status = DROWSE_ERR_NOT_FOUND;
  for (int device = dz_heaps_next(0); device < DZ_DEVICES && status != DROWSE_OK; device = dz_heaps_next(device + 1))
    status = drowse_block_get(dz_heaps_opened(device), ptr, &block);
  if (size != NULL) *size = block.bytes;
  return block.base;
}

DROWSE_API void drowse_torch_reset(void) {
  for (int device = dz_heaps_next(0); device < DZ_DEVICES; device = dz_heaps_next(device + 1))
    (void)drowse_trim(dz_heaps_opened(device), 0);
}

DROWSE_API drowse_heap *drowse_torch_heap(int device) {
  return dz_heaps_get(device);
}

DROWSE_API drowse_status drowse_torch_heap_set(int device, drowse_heap *heap) {
  return dz_heaps_set(device, heap);
}
