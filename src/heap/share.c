/* SPDX-License-Identifier: Apache-2.0
 *
 * Sharing: peers' access, handles that can be exported, memory that network cards reach.
 */
#include "heap/share.h"

#include <inttypes.h>

#include "core/options.h"
#include "heap/block.h"

/* ---- what a heap is opened with */

static bool has_attribute(const drowse_heap *heap, CUdevice_attribute attribute) {
  int has = 0;
  return heap->device.driver.DeviceGetAttribute(&has, attribute, heap->device.ordinal) == CUDA_SUCCESS && has;
}

static drowse_status need_attribute(const drowse_heap *heap, CUdevice_attribute attribute, const char *flag) {
  if (has_attribute(heap, attribute)) return DROWSE_OK;
  return dz_error(DROWSE_ERR_UNSUPPORTED, "drowse_heap_options: %s has no support for %s", heap->device.name, flag);
}

static drowse_status read_flags(drowse_heap *heap, uint32_t flags) {
  const CUdevice_attribute rdma = CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED;
  const uint32_t known = DROWSE_HEAP_EXPORTABLE | DROWSE_HEAP_RDMA | DROWSE_HEAP_RDMA_WHERE_POSSIBLE;
  drowse_status status = DROWSE_OK;
  if ((flags & ~known) != 0)
    return dz_error(DROWSE_ERR_UNSUPPORTED, "drowse_heap_options: flags is 0x%x, and 0x%x are known", flags, known);
  if ((flags & DROWSE_HEAP_EXPORTABLE) != 0) {
    status = need_attribute(heap, CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED, "DROWSE_HEAP_EXPORTABLE");
    heap->properties.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
  }
  if (status == DROWSE_OK && (flags & DROWSE_HEAP_RDMA) != 0) status = need_attribute(heap, rdma, "DROWSE_HEAP_RDMA");
  bool reachable = (flags & DROWSE_HEAP_RDMA_WHERE_POSSIBLE) != 0 && has_attribute(heap, rdma);
  heap->properties.allocFlags.gpuDirectRDMACapable = (flags & DROWSE_HEAP_RDMA) != 0 || reachable;
  return status;
}

static drowse_status add_peer(drowse_heap *heap, const char *name) {
  struct device peer;
  int can = 0;
  drowse_status status = dz_device_open(&peer, name);
  if (status != DROWSE_OK) return status;
  if (peer.host == heap->device.host) {
    CUresult code = heap->device.driver.DeviceCanAccessPeer(&can, peer.ordinal, heap->device.ordinal);
    if (code != CUDA_SUCCESS)
      return dz_driver_error(&heap->device.driver, code, "asking whether %s can access %s", peer.name, heap->device.name);
  }
  if (!can)
    return dz_error(DROWSE_ERR_UNSUPPORTED, "drowse_heap_options: the peer %s cannot access memory on %s", peer.name,
                    heap->device.name);
  CUmemAccessDesc *access = &heap->access[heap->access_count++];
  access->location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  access->location.id = peer.ordinal;
  access->flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
  return DROWSE_OK;
}

drowse_status dz_share_read(drowse_heap *heap, const drowse_heap_options *options) {
  heap->access[0] = (CUmemAccessDesc){.location = heap->properties.location, .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
  heap->access_count = 1;
  drowse_status status = read_flags(heap, options->flags);
  if (status != DROWSE_OK) return status;
  if (options->peers == NULL && options->peer_count > 0)
    return dz_error(DROWSE_ERR_INVALID, "drowse_heap_options: peers is NULL, and peer_count %zu", options->peer_count);
  if (options->peer_count > DZ_PEERS_MAX)
    return dz_error(DROWSE_ERR_INVALID, "drowse_heap_options: peer_count is %zu, and at most %d are possible",
                    options->peer_count, DZ_PEERS_MAX);
  for (size_t i = 0; i < options->peer_count && status == DROWSE_OK; i++) status = add_peer(heap, options->peers[i]);
  return status;
}

/* ---- exporting */

/* The extent that an address of an awake tag lies in, and how much of the address's block it has. With the heap's lock. */
static drowse_status find_extent(drowse_heap *heap, const void *ptr, struct tag **pinned, const struct extent **extent,
                                 drowse_export *found) {
  uint64_t address = (uint64_t)(uintptr_t)ptr;
  const struct block *block = dz_block_lock(heap, address, false);
  if (block == NULL) return dz_error(DROWSE_ERR_NOT_FOUND, "%p is in no live block of this heap", ptr);
  const struct segment *segment = block->segment;
  struct tag *tag = segment->pool->tag;
  uint64_t block_end = dz_range_end(&block->range);
  dz_pool_unlock(segment->pool);
  if (tag->state == DROWSE_FALLING_ASLEEP || tag->state == DROWSE_WAKING) return dz_tag_busy(tag);
  if (tag->state != DROWSE_AWAKE) return dz_tag_refuse(tag);
  *extent = dz_segment_extent_at(segment, address);
  uint64_t extent_end = (*extent)->base + (*extent)->bytes;
  found->extent_bytes = (*extent)->bytes;
  found->offset = address - (*extent)->base;
  found->bytes = (block_end < extent_end ? block_end : extent_end) - address;
  dz_tag_pin(tag);
  *pinned = tag;
  return DROWSE_OK;
}

static drowse_status export_extent(drowse_heap *heap, const struct extent *extent, int *fd) {
  struct guard guard;
  drowse_status status = dz_guard_enter(&guard, heap);
  if (status != DROWSE_OK) return status;
  CUresult code = heap->device.driver.MemExportToShareableHandle(fd, extent->handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0);
  if (code != CUDA_SUCCESS)
    status = dz_driver_error(&heap->device.driver, code, "exporting %" PRIu64 " bytes of memory on %s", extent->bytes,
                             heap->device.name);
  return dz_guard_leave(&guard, status);
}

DROWSE_API drowse_status drowse_export_get(drowse_heap *heap, const void *ptr, drowse_export *result) {
  drowse_status status = dz_heap_check(heap);
  if (status == DROWSE_OK) status = dz_result_check(result, "drowse_export");
  if (status != DROWSE_OK) return status;
  if (heap->properties.requestedHandleTypes != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)
    return dz_error(DROWSE_ERR_UNSUPPORTED, "the heap was opened without DROWSE_HEAP_EXPORTABLE");
  struct tag *tag = NULL;
  const struct extent *extent = NULL;
  drowse_export found = {.fd = -1};
  dz_lock(&heap->lock);
  status = find_extent(heap, ptr, &tag, &extent, &found);
  dz_unlock(&heap->lock);
  if (status != DROWSE_OK) return status;
  status = export_extent(heap, extent, &found.fd);
  dz_lock(&heap->lock);
  dz_tag_unpin(tag); /* meanwhile the block, and so its extent, was there */
  dz_unlock(&heap->lock);
  if (status == DROWSE_OK) dz_result_write(result, &found, sizeof found);
  return status;
}
