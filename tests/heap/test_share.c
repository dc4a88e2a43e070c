/* SPDX-License-Identifier: Apache-2.0
 *
 * Peers, exportable memory and memory for network cards. The host device has peers and no more: the program is linked so that it
 * answers here as one that has the rest, too (--wrap). What other processes make of it is in tests/gpu.
 */
#include "fixture.h"

#include <sys/mman.h>
#include <unistd.h>

/* ---- the device */

static bool in_reach, gives_handles;        /* network cards reach its memory; its memory can be exported */
static CUresult peer_code, export_code;     /* what asking for a peer, and exporting, answer */
static CUmemGenericAllocationHandle export; /* what has been exported last */

CUresult __wrap_dz_host_DeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device);
CUresult __real_dz_host_DeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device);
CUresult __wrap_dz_host_DeviceCanAccessPeer(int *can, CUdevice device, CUdevice peer);
CUresult __real_dz_host_DeviceCanAccessPeer(int *can, CUdevice device, CUdevice peer);
CUresult __wrap_dz_host_MemGetAllocationGranularity(size_t *bytes, const CUmemAllocationProp *prop,
                                                    CUmemAllocationGranularity_flags which);
CUresult __real_dz_host_MemGetAllocationGranularity(size_t *bytes, const CUmemAllocationProp *prop,
                                                    CUmemAllocationGranularity_flags which);
CUresult __wrap_dz_host_MemCreate(CUmemGenericAllocationHandle *handle, size_t bytes, const CUmemAllocationProp *prop,
                                  unsigned long long flags);
CUresult __real_dz_host_MemCreate(CUmemGenericAllocationHandle *handle, size_t bytes, const CUmemAllocationProp *prop,
                                  unsigned long long flags);
CUresult __wrap_dz_host_MemExportToShareableHandle(void *shareable, CUmemGenericAllocationHandle handle,
                                                   CUmemAllocationHandleType type, unsigned long long flags);

CUresult __wrap_dz_host_DeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
  CUresult code = __real_dz_host_DeviceGetAttribute(value, attribute, device);
  if (attribute == CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED && in_reach) *value = 1;
  if (attribute == CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED && gives_handles) *value = 1;
  return code;
}

CUresult __wrap_dz_host_DeviceCanAccessPeer(int *can, CUdevice device, CUdevice peer) {
  return peer_code != CUDA_SUCCESS ? peer_code : __real_dz_host_DeviceCanAccessPeer(can, device, peer);
}

static CUmemAllocationProp unshared(const CUmemAllocationProp *prop) {
  CUmemAllocationProp other = *prop;
  if (gives_handles) other.requestedHandleTypes = CU_MEM_HANDLE_TYPE_NONE;
  return other;
}

CUresult __wrap_dz_host_MemGetAllocationGranularity(size_t *bytes, const CUmemAllocationProp *prop,
                                                    CUmemAllocationGranularity_flags which) {
  const CUmemAllocationProp other = unshared(prop);
  return __real_dz_host_MemGetAllocationGranularity(bytes, &other, which);
}

CUresult __wrap_dz_host_MemCreate(CUmemGenericAllocationHandle *handle, size_t bytes, const CUmemAllocationProp *prop,
                                  unsigned long long flags) {
  const CUmemAllocationProp other = unshared(prop);
  if (gives_handles) ck_assert_int_eq(prop->requestedHandleTypes, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
  return __real_dz_host_MemCreate(handle, bytes, &other, flags);
}

CUresult __wrap_dz_host_MemExportToShareableHandle(void *shareable, CUmemGenericAllocationHandle handle,
                                                   CUmemAllocationHandleType type, unsigned long long flags) {
  ck_assert(type == CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR && flags == 0);
  if (export_code != CUDA_SUCCESS) return export_code;
  export = handle;
  *(int *)shareable = memfd_create("exported", MFD_CLOEXEC);
  return CUDA_SUCCESS;
}

/* ---- peers */

static const char *const peer_names[] = {"host:32MiB", "host:16MiB"};

static void start_with_peers(void) {
  open_with((drowse_heap_options){.peers = peer_names, .peer_count = 2});
}

/* Whether both peers may use an address. */
static bool reached_by_peers(const void *ptr) {
  for (size_t i = 1; i < heap->access_count; i++) {
    unsigned long long flags = 0;
    ck_cu(MemGetAccess(&flags, &heap->access[i].location, (CUdeviceptr)(uintptr_t)ptr));
    if (flags != CU_MEM_ACCESS_FLAGS_PROT_READWRITE) return false;
  }
  return heap->access_count == 3;
}

START_TEST(peers_reach_every_extent_whenever_it_is_mapped) {
  char *ptr = alloc_tag("a", 3 * MIB), *more = alloc_tag("a", 9 * MIB);
  for (uint64_t at = 0; at < 3 * MIB; at += MIB) ck_assert(reached_by_peers(ptr + at));
  for (uint64_t at = 0; at < 9 * MIB; at += MIB) ck_assert(reached_by_peers(more + at));
  write_pattern(more, 9 * MIB, 1);
  ck_ok(sleep_tag("a", DROWSE_OFFLOAD));
  ck_ok(wake_tag("a"));
  for (uint64_t at = 0; at < 9 * MIB; at += MIB) ck_assert(reached_by_peers(more + at));
  ck_assert(has_pattern(more, 9 * MIB, 1));
  ck_ok(drowse_tag_clear(heap, "a"));
  ck_assert(reached_by_peers(alloc_tag("b", 12 * MIB))); /* what has moved there */
}
END_TEST

/* ---- what cannot be */

static void ck_refused(drowse_heap_options options, drowse_status expected, const char *word) {
  drowse_heap *opened = (drowse_heap *)8;
  options.struct_size = sizeof options;
  options.device = "host:64MiB";
  struct usage before = usage_now();
  ck_status(drowse_heap_open(&opened, &options), expected);
  ck_assert_ptr_null(opened);
  ck_says(word);
  ck_nothing_left(&before);
}

START_TEST(what_the_device_cannot_do_is_refused) {
  const char *const self[] = {"host:32MiB", "host:64MiB"}, *const nobody[] = {"gpu"};
  ck_refused((drowse_heap_options){.flags = DROWSE_HEAP_EXPORTABLE}, DROWSE_ERR_UNSUPPORTED, "DROWSE_HEAP_EXPORTABLE");
  ck_refused((drowse_heap_options){.flags = DROWSE_HEAP_RDMA}, DROWSE_ERR_UNSUPPORTED, "DROWSE_HEAP_RDMA");
  ck_refused((drowse_heap_options){.flags = 0x80}, DROWSE_ERR_UNSUPPORTED, "0x80");
  ck_refused((drowse_heap_options){.peers = self, .peer_count = 2}, DROWSE_ERR_UNSUPPORTED, "host:64MiB");
  ck_refused((drowse_heap_options){.peers = nobody, .peer_count = 1}, DROWSE_ERR_INVALID, "gpu");
  ck_refused((drowse_heap_options){.peers = NULL, .peer_count = 1}, DROWSE_ERR_INVALID, "peers");
  ck_refused((drowse_heap_options){.peers = self, .peer_count = 64}, DROWSE_ERR_INVALID, "64");
  peer_code = CUDA_ERROR_UNKNOWN;
  ck_refused((drowse_heap_options){.peers = self, .peer_count = 1}, DROWSE_ERR_DRIVER,
             "whether host:32MiB can access host:64MiB");
  peer_code = CUDA_SUCCESS;
}
END_TEST

START_TEST(network_cards_reach_it_where_they_can) {
  ck_status(drowse_free(NULL, &in_reach), DROWSE_ERR_INVALID);
  char before[512];
  (void)snprintf(before, sizeof before, "%s", drowse_last_error());
  for (int can = 0; can < 2; can++) {
    in_reach = can;
    open_with((drowse_heap_options){.flags = DROWSE_HEAP_RDMA_WHERE_POSSIBLE});
    ck_assert_int_eq(heap->properties.allocFlags.gpuDirectRDMACapable, can);
    ck_assert_str_eq(drowse_last_error(), before);
    close_heap();
  }
  open_with((drowse_heap_options){.flags = DROWSE_HEAP_RDMA});
  ck_assert_int_eq(heap->properties.allocFlags.gpuDirectRDMACapable, 1);
  close_heap();
  start();
  ck_assert_int_eq(heap->properties.allocFlags.gpuDirectRDMACapable, 0);
  finish();
  in_reach = false;
}
END_TEST

/* ---- exporting */

static void start_exporting(void) {
  gives_handles = true;
  open_with((drowse_heap_options){.flags = DROWSE_HEAP_EXPORTABLE});
}

static void finish_exporting(void) {
  finish();
  gives_handles = false;
}

/* Reads what was exported where somebody else maps it. */
static void read_export(const drowse_export *exported, void *to, size_t bytes) {
  CUdeviceptr there = 0;
  ck_cu(MemAddressReserve(&there, exported->extent_bytes, 0, 0, 0));
  ck_cu(MemMap(there, exported->extent_bytes, 0, export, 0));
  ck_cu(MemSetAccess(there, exported->extent_bytes, heap->access, 1));
  ck_cu(MemcpyDtoH(to, there + exported->offset, bytes));
  ck_cu(MemUnmap(there, exported->extent_bytes));
  ck_cu(MemAddressFree(there, exported->extent_bytes));
}

/* From an address on: extent by extent, as far as the block goes. Returns how many there were. */
static unsigned ck_exported(char *block, size_t from, size_t bytes, uint64_t seed) {
  unsigned extents = 0;
  unsigned char *expected = xmalloc(bytes), *found = xmalloc(bytes);
  fill_pattern(expected, bytes, seed);
  for (size_t at = from; at < bytes; extents++) {
    drowse_export exported = {.struct_size = sizeof exported, .fd = -1};
    ck_ok(drowse_export_get(heap, block + at, &exported));
    ck_assert_uint_gt(exported.bytes, 0);
    ck_assert_uint_le(exported.bytes, bytes - at);
    read_export(&exported, found + at, exported.bytes);
    ck_assert_int_eq(close(exported.fd), 0);
    at += exported.bytes;
  }
  ck_assert_mem_eq(found + from, expected + from, bytes - from);
  free(expected);
  free(found);
  return extents;
}

START_TEST(what_is_exported_is_what_lies_at_the_address) {
  enum { BYTES = 9 << 20 };
  ck_ok(drowse_free(heap, alloc_tag("a", MIB))); /* from now on extents are small */
  char *before = alloc_tag("a", 3 * MIB), *block = alloc_tag("a", BYTES);
  write_pattern(before, 3 * MIB, 1);
  write_pattern(block, BYTES, 2);
  ck_assert_uint_ge(ck_exported(before, 0, 3 * MIB, 1), 1);
  ck_assert_uint_gt(ck_exported(block, 0, BYTES, 2), 1);
  (void)ck_exported(block, 5 * MIB + 7, BYTES, 2);
  ck_ok(sleep_tag("a", DROWSE_OFFLOAD));
  ck_ok(wake_tag("a"));
  (void)ck_exported(block, 0, BYTES, 2);
}
END_TEST

static void ck_not_exported(const void *ptr, drowse_status expected, const char *word) {
  drowse_export exported = {.struct_size = sizeof exported, .fd = 7};
  ck_status(drowse_export_get(heap, ptr, &exported), expected);
  ck_says(word);
  ck_assert_int_eq(exported.fd, 7);
}

START_TEST(what_is_not_awake_is_not_exported) {
  struct gate gate;
  drowse_op *op;
  CUstream stream = make_stream();
  char *ptr = alloc_on("a", MIB, stream);
  ck_not_exported(heap, DROWSE_ERR_NOT_FOUND, "in no live block");
  export_code = CUDA_ERROR_UNKNOWN;
  ck_not_exported(ptr, DROWSE_ERR_DRIVER, "exporting");
  export_code = CUDA_SUCCESS;
  close_gate(&gate, stream);
  ck_ok(drowse_sleep_start(heap, &(drowse_rule){.tag = "a", .action = DROWSE_OFFLOAD}, 1, NULL, &op));
  ck_not_exported(ptr, DROWSE_ERR_BUSY, "\"a\"");
  open_gate(&gate);
  ck_ok(drowse_op_wait(op, -1)); /* what has been tried to export holds nothing up */
  drowse_op_release(op);
  ck_not_exported(ptr, DROWSE_ERR_ASLEEP, "\"a\"");
  drop_stream(stream);
}
END_TEST

START_TEST(nothing_is_exported_that_cannot_be) {
  drowse_export exported = {.struct_size = sizeof exported, .fd = 7};
  start_with_peers();
  ck_status(drowse_export_get(heap, alloc_tag("a", MIB), &exported), DROWSE_ERR_UNSUPPORTED);
  ck_says("DROWSE_HEAP_EXPORTABLE");
  ck_assert_int_eq(exported.fd, 7);
  ck_status(drowse_export_get(heap, heap, NULL), DROWSE_ERR_INVALID);
  finish();
}
END_TEST

int main(void) {
  Suite *suite = suite_create("share");
  HARNESS_FIXTURE_TEST(suite, peers_reach_every_extent_whenever_it_is_mapped, start_with_peers, finish);
  HARNESS_TEST(suite, what_the_device_cannot_do_is_refused);
  HARNESS_TEST(suite, network_cards_reach_it_where_they_can);
  HARNESS_FIXTURE_TEST(suite, what_is_exported_is_what_lies_at_the_address, start_exporting, finish_exporting);
  HARNESS_FIXTURE_TEST(suite, what_is_not_awake_is_not_exported, start_exporting, finish_exporting);
  HARNESS_TEST(suite, nothing_is_exported_that_cannot_be);
  return harness_run(suite);
}
