/* SPDX-License-Identifier: Apache-2.0
 *
 * Peers, exportable memory and memory for network cards. The host device has peers and no more; tests/gpu has the rest.
 */
#include "fixture.h"

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
}
END_TEST

/* In place of what the host device says of itself: whether network cards can reach its memory. */
static bool in_reach;
CUresult __wrap_dz_host_DeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device);
CUresult __real_dz_host_DeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device);

CUresult __wrap_dz_host_DeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
  CUresult code = __real_dz_host_DeviceGetAttribute(value, attribute, device);
  if (attribute == CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED && in_reach) *value = 1;
  return code;
}

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
  HARNESS_TEST(suite, nothing_is_exported_that_cannot_be);
  return harness_run(suite);
}
