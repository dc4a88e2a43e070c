/* SPDX-License-Identifier: Apache-2.0
 *
 * What only a GPU can show: kernels and captured graphs that go on working on memory that has slept, draining of real work,
 * captures that survive, device memory that others see come and go. Everything else is tested on the host device.
 *
 * Exits with 77 where there is no GPU.
 */
#include <dlfcn.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "driver/driver.h"
#include "gpu/expect.h"

#if !HAVE_CUDA_H /* src/driver/abi.h has only what the library uses */
typedef struct CUmod_st *CUmodule;
typedef struct CUfunc_st *CUfunction;
#endif

enum { WORDS = 16 << 20, BLOCKS = 8, GROUP = 256, WALL_BYTES = 2 << 20 };
static const size_t block_bytes = WORDS * sizeof(uint32_t);
static const uint64_t slack_bytes = UINT64_C(64) << 20; /* what the driver may take or give for itself meanwhile */

/* add(words, count, value) adds value to each word; late(words, count, value, ns) does so after ns nanoseconds. */
static const char kernels[] = ".version 7.0\n.target sm_70\n.address_size 64\n"
                              ".visible .entry add(.param .u64 words, .param .u32 count, .param .u32 value) {\n"
                              " .reg .pred %p; .reg .b32 %i, %n, %v, %b, %t, %w; .reg .b64 %a, %o;\n"
                              " mov.u32 %b, %ctaid.x; mov.u32 %n, %ntid.x; mov.u32 %t, %tid.x; mad.lo.u32 %i, %b, %n, %t;\n"
                              " ld.param.u32 %n, [count]; setp.ge.u32 %p, %i, %n; @%p bra END;\n"
                              " ld.param.u64 %a, [words]; ld.param.u32 %v, [value]; mul.wide.u32 %o, %i, 4; add.u64 %a, %a, %o;\n"
                              " ld.global.u32 %w, [%a]; add.u32 %w, %w, %v; st.global.u32 [%a], %w;\n"
                              "END: ret;\n}\n"
                              ".visible .entry late(.param .u64 words, .param .u32 count, .param .u32 value, .param .u64 ns) {\n"
                              " .reg .pred %p, %q; .reg .b32 %i, %n, %v, %b, %t, %w; .reg .b64 %a, %o, %s, %e, %d;\n"
                              " mov.u64 %s, %globaltimer; ld.param.u64 %d, [ns];\n"
                              "SPIN: mov.u64 %e, %globaltimer; sub.u64 %e, %e, %s; setp.lt.u64 %q, %e, %d; @%q bra SPIN;\n"
                              " mov.u32 %b, %ctaid.x; mov.u32 %n, %ntid.x; mov.u32 %t, %tid.x; mad.lo.u32 %i, %b, %n, %t;\n"
                              " ld.param.u32 %n, [count]; setp.ge.u32 %p, %i, %n; @%p bra END;\n"
                              " ld.param.u64 %a, [words]; ld.param.u32 %v, [value]; mul.wide.u32 %o, %i, 4; add.u64 %a, %a, %o;\n"
                              " ld.global.u32 %w, [%a]; add.u32 %w, %w, %v; st.global.u32 [%a], %w;\n"
                              "END: ret;\n}\n";

static struct {
  CUresult (*ModuleLoadData)(CUmodule *, const void *);
  CUresult (*ModuleUnload)(CUmodule);
  CUresult (*ModuleGetFunction)(CUfunction *, CUmodule, const char *);
  CUresult (*LaunchKernel)(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, CUstream, void **,
                           void **);
} cuda;

/* The heap's own driver, entry by entry. */
static struct driver driver;

static drowse_heap *heap;
static CUmodule module;
static CUfunction add, late;
static CUcontext context;
static uint32_t *blocks[BLOCKS];
static uint32_t *copy; /* of one block */

/* ---- helpers */

static void *symbol(void *library, const char *name) {
  void *found = dlsym(library, name);
  EXPECT(found != NULL);
  return found;
}

static void load_kernels(void) {
  void *library = dlopen("libcuda.so.1", RTLD_NOW);
  EXPECT(library != NULL);
  *(void **)&cuda.ModuleLoadData = symbol(library, "cuModuleLoadData");
  *(void **)&cuda.ModuleUnload = symbol(library, "cuModuleUnload");
  *(void **)&cuda.ModuleGetFunction = symbol(library, "cuModuleGetFunction");
  *(void **)&cuda.LaunchKernel = symbol(library, "cuLaunchKernel");
  EXPECT_CU(cuda.ModuleLoadData(&module, kernels));
  EXPECT_CU(cuda.ModuleGetFunction(&add, module, "add"));
  EXPECT_CU(cuda.ModuleGetFunction(&late, module, "late"));
}

static void launch(CUfunction function, uint32_t *words, uint32_t count, uint32_t value, uint64_t ns, CUstream stream) {
  void *parameters[] = {&words, &count, &value, &ns};
  EXPECT_CU(cuda.LaunchKernel(function, count / GROUP, 1, 1, GROUP, 1, 1, 0, stream, parameters, NULL));
}

static void launch_add(uint32_t *block, uint32_t value, CUstream stream) {
  launch(add, block, WORDS, value, 0, stream);
}

/* One group, because groups that wait for others to end would add up their times. */
static void launch_late(uint32_t *block, uint32_t value, uint64_t ns, CUstream stream) {
  launch(late, block, GROUP, value, ns, stream);
}

/* Whether the first words hold value + late_value and their numbers, the others value. */
static bool holds_late(uint32_t *block, uint32_t value, uint32_t late_value) {
  EXPECT_OK(drowse_copy_out(heap, copy, block, block_bytes));
  for (size_t i = 0; i < WORDS; i++) {
    if (copy[i] != value + i + (i < GROUP ? late_value : 0)) return false;
  }
  return true;
}

static bool holds_value(uint32_t *block, uint32_t value) {
  return holds_late(block, value, 0);
}

static void fill(uint32_t *block, uint32_t value) {
  for (size_t i = 0; i < WORDS; i++) copy[i] = (uint32_t)(value + i);
  EXPECT_OK(drowse_copy_in(heap, block, copy, block_bytes));
}

static drowse_status sleep_weights(drowse_drain drain, int64_t timeout_ms) {
  return drowse_sleep(
      heap, &(drowse_rule){.tag = "weights", .action = DROWSE_OFFLOAD}, 1,
      &(drowse_sleep_options){.struct_size = sizeof(drowse_sleep_options), .drain = drain, .drain_timeout_ms = timeout_ms});
}

static void wake_all(void) {
  EXPECT_OK(drowse_wake(heap, NULL, 0, NULL));
}

static drowse_state weights_state(void) {
  drowse_stats stats = {.struct_size = sizeof stats};
  EXPECT_OK(drowse_stats_get(heap, "weights", &stats));
  return stats.state;
}

static uint64_t free_bytes(void) {
  drowse_heap_info info = {.struct_size = sizeof info};
  EXPECT_OK(drowse_heap_info_get(heap, &info));
  return info.free_bytes;
}

/* ---- cases */

static void kernels_use_the_same_addresses_after_waking(void) {
  for (int i = 0; i < BLOCKS; i++) launch_add(blocks[i], 7, NULL);
  uint64_t before = free_bytes(); /* behind the first launch, which loads the module */
  EXPECT_OK(sleep_weights(DROWSE_DRAIN_DEVICE, 0));
  EXPECT(free_bytes() + slack_bytes >= before + BLOCKS * block_bytes);
  for (int i = 0; i < BLOCKS; i++) EXPECT(holds_value(blocks[i], (uint32_t)i * 1000 + 7)); /* the backup */
  wake_all();
  EXPECT(free_bytes() <= before + slack_bytes);
  for (int i = 0; i < BLOCKS; i++) {
    EXPECT(holds_value(blocks[i], (uint32_t)i * 1000 + 7));
    launch_add(blocks[i], (uint32_t)-7, NULL);
    EXPECT(holds_value(blocks[i], (uint32_t)i * 1000));
  }
}

static void captured_graphs_work_after_waking(void) {
  CUstream stream;
  CUgraph graph;
  CUgraphExec exec;
  EXPECT_CU(driver.StreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  EXPECT_CU(driver.StreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
  for (int i = 0; i < BLOCKS; i++) launch_add(blocks[i], 1, stream);
  EXPECT_CU(driver.StreamEndCapture(stream, &graph));
  EXPECT_CU(driver.GraphInstantiateWithFlags(&exec, graph, 0));
  for (int round = 0; round < 3; round++) {
    EXPECT_CU(driver.GraphLaunch(exec, stream));
    EXPECT_OK(sleep_weights(DROWSE_DRAIN_DEVICE, 0));
    wake_all();
  }
  EXPECT_CU(driver.GraphLaunch(exec, stream));
  EXPECT_CU(driver.StreamSynchronize(stream));
  for (int i = 0; i < BLOCKS; i++) {
    EXPECT(holds_value(blocks[i], (uint32_t)i * 1000 + 4));
    fill(blocks[i], (uint32_t)i * 1000);
  }
  EXPECT_CU(driver.GraphExecDestroy(exec));
  EXPECT_CU(driver.GraphDestroy(graph));
  EXPECT_CU(driver.StreamDestroy(stream));
}

static void sleep_waits_for_work_on_streams_that_drowse_never_saw(void) {
  CUstream stream;
  EXPECT_CU(driver.StreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  launch_late(blocks[0], 5, UINT64_C(300000000), stream);
  EXPECT_OK(sleep_weights(DROWSE_DRAIN_DEVICE, 0));
  EXPECT(holds_late(blocks[0], 0, 5));
  wake_all();
  fill(blocks[0], 0);
  EXPECT_CU(driver.StreamDestroy(stream));
}

static void a_drain_that_takes_too_long_changes_nothing(void) {
  CUstream stream;
  EXPECT_CU(driver.StreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  launch_late(blocks[0], 5, UINT64_C(3000000000), stream);
  EXPECT(sleep_weights(DROWSE_DRAIN_DEVICE, 50) == DROWSE_ERR_BUSY);
  EXPECT(weights_state() == DROWSE_AWAKE);
  EXPECT(driver.StreamQuery(stream) == CUDA_ERROR_NOT_READY);
  EXPECT_CU(driver.StreamSynchronize(stream));
  EXPECT(holds_late(blocks[0], 0, 5));
  fill(blocks[0], 0);
  EXPECT_CU(driver.StreamDestroy(stream));
}

static void a_capture_on_a_known_stream_survives(void) {
  CUstream stream;
  CUgraph graph;
  void *block, *second;
  EXPECT_CU(driver.StreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  EXPECT_OK(drowse_alloc(heap, block_bytes, stream, &block));
  EXPECT_CU(driver.StreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
  launch_add(block, 1, stream);
  EXPECT(sleep_weights(DROWSE_DRAIN_DEVICE, 0) == DROWSE_ERR_BUSY);
  EXPECT_OK(drowse_trim(heap, 0)); /* nothing is unused: nothing to wait for */
  EXPECT(drowse_copy_out(heap, copy, block, block_bytes) == DROWSE_ERR_BUSY);
  EXPECT_OK(drowse_alloc(heap, 5 * block_bytes, stream, &second)); /* grows, while the stream captures */
  EXPECT_OK(drowse_free(heap, second));
  EXPECT(drowse_trim(heap, 0) == DROWSE_ERR_BUSY); /* now there is something to give, and the device cannot be waited for */
  EXPECT(holds_value(blocks[0], 0));               /* a copy on another stream, from this thread */
  EXPECT_CU(driver.StreamEndCapture(stream, &graph));
  EXPECT_CU(driver.GraphDestroy(graph));
  EXPECT_OK(drowse_free(heap, block));
  EXPECT_OK(drowse_stream_retire(heap, stream));
  EXPECT_CU(driver.StreamDestroy(stream));
}

static void a_capture_on_an_unknown_stream_survives_drain_streams(void) {
  CUstream stream;
  CUgraph graph;
  EXPECT_CU(driver.StreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  for (CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_GLOBAL; mode <= CU_STREAM_CAPTURE_MODE_RELAXED; mode++) {
    EXPECT_CU(driver.StreamBeginCapture(stream, mode));
    launch_add(blocks[0], 1, stream);
    EXPECT_OK(sleep_weights(DROWSE_DRAIN_STREAMS, 0));
    wake_all();
    EXPECT_CU(driver.StreamEndCapture(stream, &graph));
    EXPECT_CU(driver.GraphDestroy(graph));
  }
  EXPECT_CU(driver.StreamDestroy(stream));
}

/* Takes nearly all free memory, as another tenant would. */
static void *take_all(drowse_heap *tenant) {
  void *taken;
  EXPECT_OK(drowse_alloc(tenant, free_bytes() - (UINT64_C(256) << 20), NULL, &taken));
  return taken;
}

static void a_wake_that_finds_no_memory_loses_nothing(void) {
  drowse_heap *tenant;
  EXPECT_OK(drowse_heap_open(&tenant, &(drowse_heap_options){.struct_size = sizeof(drowse_heap_options), .device = "cuda:0"}));
  EXPECT_OK(sleep_weights(DROWSE_DRAIN_DEVICE, 0));
  EXPECT_OK(drowse_trim(heap, 0)); /* else the wake finds unused memory of its own heap */
  (void)take_all(tenant);
  EXPECT(drowse_wake(heap, NULL, 0, NULL) == DROWSE_ERR_NO_DEVICE_MEMORY);
  printf("  %s\n", drowse_last_error());
  EXPECT(weights_state() == DROWSE_ASLEEP);
  for (int i = 0; i < BLOCKS; i++) EXPECT(holds_value(blocks[i], (uint32_t)i * 1000));
  EXPECT_OK(drowse_heap_close(tenant));
  wake_all();
  for (int i = 0; i < BLOCKS; i++) EXPECT(holds_value(blocks[i], (uint32_t)i * 1000));
}

static void discarded_memory_wakes_as_asked(void) {
  void *block;
  DROWSE_SCOPE("scratch", DROWSE_EXPANDABLE_OFF) EXPECT_OK(drowse_alloc(heap, block_bytes, NULL, &block));
  for (uint32_t flags = DROWSE_WAKE_ZERO; flags <= DROWSE_WAKE_POISON; flags *= 2) {
    EXPECT_OK(drowse_sleep(heap, &(drowse_rule){.tag = "scratch", .action = DROWSE_DISCARD}, 1, NULL));
    EXPECT(drowse_copy_out(heap, copy, block, block_bytes) == DROWSE_ERR_ASLEEP);
    EXPECT_OK(drowse_wake(heap, NULL, 0, &(drowse_wake_options){.struct_size = sizeof(drowse_wake_options), .flags = flags}));
    EXPECT_OK(drowse_copy_out(heap, copy, block, block_bytes));
    for (size_t i = 0; i < WORDS; i++) EXPECT(copy[i] == (flags == DROWSE_WAKE_ZERO ? 0 : UINT32_C(0xdbdbdbdb)));
  }
  EXPECT_OK(drowse_free(heap, block));
}

static void the_callers_context_stays(void) {
  CUcontext current = context;
  void *block;
  EXPECT_CU(driver.CtxSetCurrent(NULL));
  EXPECT_OK(drowse_alloc(heap, 1, NULL, &block));
  EXPECT_OK(sleep_weights(DROWSE_DRAIN_DEVICE, 0));
  wake_all();
  EXPECT_OK(drowse_free(heap, block));
  EXPECT_OK(drowse_trim(heap, 0));
  EXPECT_CU(driver.CtxGetCurrent(&current));
  EXPECT(current == NULL);
  EXPECT_CU(driver.CtxSetCurrent(context));
}

/* ---- */

static void *entry(const char *name) {
  void *found = drowse_driver_entry(heap, name);
  EXPECT(found != NULL);
  return found;
}

static void set_up(void) {
#define TAKE(name, version, need, parameters) *(void **)&driver.name = entry("cu" #name);
  DZ_DRIVER_ENTRIES(TAKE)
#undef TAKE
  CUdevice device;
  EXPECT_CU(driver.DeviceGet(&device, 0));
  EXPECT_CU(driver.DevicePrimaryCtxRetain(&context, device));
  EXPECT_CU(driver.CtxSetCurrent(context));
  load_kernels();
  copy = malloc(block_bytes);
  EXPECT(copy != NULL);
  for (int i = 0; i < BLOCKS; i++) {
    DROWSE_SCOPE("weights", i % 2 == 0 ? DROWSE_EXPANDABLE_ON : DROWSE_EXPANDABLE_OFF) {
      void *block;
      EXPECT_OK(drowse_alloc(heap, block_bytes, NULL, &block));
      blocks[i] = block;
    }
    fill(blocks[i], (uint32_t)i * 1000);
  }
}

static void tear_down(void) {
  CUdevice device;
  size_t free_now, total;
  EXPECT_CU(driver.CtxGetDevice(&device));
  EXPECT_CU(driver.MemGetInfo(&free_now, &total));
  EXPECT_OK(sleep_weights(DROWSE_DRAIN_DEVICE, 0)); /* it closes asleep */
  EXPECT_OK(drowse_heap_close(heap));
  EXPECT_CU(cuda.ModuleUnload(module));
  EXPECT_CU(driver.DevicePrimaryCtxRelease(device));
  free(copy);
}

/* ---- free memory moves, is shared, and waits for other streams */

static drowse_stats stats_of(drowse_heap *of, const char *tag) {
  drowse_stats stats = {.struct_size = sizeof stats};
  EXPECT_OK(drowse_stats_get(of, tag, &stats));
  return stats;
}

static uint32_t *alloc_tag(drowse_heap *on, const char *tag, size_t bytes, CUstream stream) {
  void *ptr = NULL;
  EXPECT_OK(drowse_alloc_with(on, bytes, stream, &(drowse_alloc_options){.struct_size = sizeof(drowse_alloc_options), .tag = tag},
                              &ptr));
  return ptr;
}

/* The stream still writes to a block when that is freed and its memory is mapped at another place too. */
static void freed_memory_moves_while_its_stream_works(void) {
  CUstream stream;
  EXPECT_CU(driver.StreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  for (int round = 0; round < 3; round++) {
    uint32_t *first = alloc_tag(heap, "moving", block_bytes, stream);
    uint32_t *wall = alloc_tag(heap, "moving", WALL_BYTES, stream); /* else it would only grow */
    EXPECT_CU(driver.MemsetD8Async((CUdeviceptr)(uintptr_t)first, 0, block_bytes, stream));
    launch_late(first, 1, 200000000, stream);
    launch_add(first, 7, stream);
    EXPECT_OK(drowse_free(heap, first));
    uint32_t *second = alloc_tag(heap, "moving", block_bytes + (32 << 20), stream);
    EXPECT(driver.StreamQuery(stream) == CUDA_ERROR_NOT_READY); /* else this shows nothing */
    EXPECT(second != first);
    EXPECT(stats_of(heap, "moving").mapped_bytes <= block_bytes + (32 << 20) + (4 << 20) + WALL_BYTES); /* not both */
    for (size_t i = 0; i < WORDS; i++) copy[i] = (uint32_t)(100 + i);
    EXPECT_CU(driver.MemcpyHtoDAsync((CUdeviceptr)(uintptr_t)second, copy, block_bytes, stream));
    launch_add(second, 5, stream);
    EXPECT_CU(driver.StreamSynchronize(stream));
    EXPECT(holds_value(second, 105));
    EXPECT_OK(drowse_sleep(heap, &(drowse_rule){.tag = "moving", .action = DROWSE_OFFLOAD}, 1, NULL));
    EXPECT(stats_of(heap, "moving").mapped_bytes == 0 && stats_of(heap, "moving").stuck_bytes == 0);
    wake_all();
    EXPECT(holds_value(second, 105));
    EXPECT_OK(drowse_free(heap, second));
    EXPECT_OK(drowse_free(heap, wall));
    EXPECT_OK(drowse_trim(heap, 0));
    EXPECT(stats_of(heap, "moving").mapped_bytes == 0);
  }
  EXPECT_OK(drowse_stream_retire(heap, stream));
  EXPECT_CU(driver.StreamDestroy(stream));
}

/* While a stream captures, what is freed there goes to the next block there, and the graph works. */
static void freed_memory_moves_during_a_capture(void) {
  CUstream stream;
  CUgraph graph;
  CUgraphExec executable;
  EXPECT_CU(driver.StreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  uint32_t *first = alloc_tag(heap, "moving", block_bytes, stream);
  EXPECT_CU(driver.StreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
  EXPECT_OK(drowse_free(heap, first));
  uint32_t *second = alloc_tag(heap, "moving", block_bytes + (32 << 20), stream);
  EXPECT(stats_of(heap, "moving").mapped_bytes <= block_bytes + (32 << 20) + (4 << 20));
  launch_add(second, 3, stream);
  EXPECT_CU(driver.StreamEndCapture(stream, &graph));
  EXPECT_CU(driver.GraphInstantiateWithFlags(&executable, graph, 0));
  for (size_t i = 0; i < WORDS; i++) copy[i] = (uint32_t)i;
  EXPECT_OK(drowse_copy_in(heap, second, copy, block_bytes));
  EXPECT_CU(driver.GraphLaunch(executable, stream));
  EXPECT_CU(driver.StreamSynchronize(stream));
  EXPECT(holds_value(second, 3));
  EXPECT_OK(drowse_free(heap, second));
  EXPECT_CU(driver.GraphExecDestroy(executable));
  EXPECT_CU(driver.GraphDestroy(graph));
  EXPECT_OK(drowse_stream_retire(heap, stream));
  EXPECT_CU(driver.StreamDestroy(stream));
  EXPECT_OK(drowse_trim(heap, 0));
}

static void memory_waits_for_the_other_streams_that_use_it(void) {
  CUstream own, other;
  EXPECT_CU(driver.StreamCreate(&own, CU_STREAM_NON_BLOCKING));
  EXPECT_CU(driver.StreamCreate(&other, CU_STREAM_NON_BLOCKING));
  uint32_t *block = alloc_tag(heap, "shared", block_bytes, own);
  launch_late(block, 1, 300000000, other);
  EXPECT_OK(drowse_free_on(heap, block, other));
  uint32_t *next = alloc_tag(heap, "shared", block_bytes, own);
  EXPECT(driver.StreamQuery(other) == CUDA_ERROR_NOT_READY);
  EXPECT(next != block);
  EXPECT_CU(driver.StreamSynchronize(other));
  uint64_t mapped = stats_of(heap, "shared").mapped_bytes;
  uint32_t *last = alloc_tag(heap, "shared", block_bytes, own);
  EXPECT(stats_of(heap, "shared").mapped_bytes == mapped);
  EXPECT_OK(drowse_free(heap, next));
  EXPECT_OK(drowse_free(heap, last));
  EXPECT_OK(drowse_stream_retire(heap, own));
  EXPECT_OK(drowse_stream_retire(heap, other));
  EXPECT_CU(driver.StreamDestroy(own));
  EXPECT_CU(driver.StreamDestroy(other));
  EXPECT_OK(drowse_trim(heap, 0));
}

/* What another process would do with the descriptor. */
static void read_import(const drowse_export *exported, void *to) {
  CUresult (*import)(CUmemGenericAllocationHandle *, void *, CUmemAllocationHandleType);
  void *library = dlopen("libcuda.so.1", RTLD_NOW);
  *(void **)&import = symbol(library, "cuMemImportFromShareableHandle");
  CUmemGenericAllocationHandle handle;
  CUdeviceptr address;
  CUmemAccessDesc access = {.location = {.type = CU_MEM_LOCATION_TYPE_DEVICE}, .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
  EXPECT_CU(import(&handle, (void *)(uintptr_t)exported->fd, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR));
  EXPECT_CU(driver.MemAddressReserve(&address, exported->extent_bytes, 0, 0, 0));
  EXPECT_CU(driver.MemMap(address, exported->extent_bytes, 0, handle, 0));
  EXPECT_CU(driver.MemSetAccess(address, exported->extent_bytes, &access, 1));
  EXPECT_CU(driver.MemcpyDtoH(to, address + exported->offset, exported->bytes));
  EXPECT_CU(driver.MemUnmap(address, exported->extent_bytes));
  EXPECT_CU(driver.MemRelease(handle));
  EXPECT_CU(driver.MemAddressFree(address, exported->extent_bytes));
}

/* Extent by extent, as far as the block goes. */
static void check_exports(drowse_heap *from, char *block, size_t bytes, const char *expected) {
  char *found = malloc(bytes);
  for (size_t at = 0; at < bytes;) {
    drowse_export exported = {.struct_size = sizeof exported};
    EXPECT_OK(drowse_export_get(from, block + at, &exported));
    EXPECT(exported.fd >= 0 && exported.bytes > 0 && exported.offset + exported.bytes <= exported.extent_bytes);
    size_t bytes_here = exported.bytes < bytes - at ? exported.bytes : bytes - at;
    exported.bytes = bytes_here;
    read_import(&exported, found + at);
    EXPECT(close(exported.fd) == 0);
    at += bytes_here;
  }
  EXPECT(memcmp(found, expected, bytes) == 0);
  free(found);
}

static void memory_is_exported_and_made_for_network_cards(void) {
  enum { BYTES = 70 << 20 };
  drowse_heap *shared;
  drowse_heap_options options = {
      .struct_size = sizeof options, .device = "cuda:0", .flags = DROWSE_HEAP_EXPORTABLE | DROWSE_HEAP_RDMA};
  drowse_status status = drowse_heap_open(&shared, &options);
  if (status == DROWSE_ERR_UNSUPPORTED) { /* a GPU without RDMA, say */
    printf("  %s\n", drowse_last_error());
    options.flags = DROWSE_HEAP_EXPORTABLE;
    status = drowse_heap_open(&shared, &options);
  }
  EXPECT(status == DROWSE_OK);
  char *host = malloc(BYTES);
  for (size_t i = 0; i < BYTES; i++) host[i] = (char)(i * 7 + i / 4096);
  char *small = (char *)alloc_tag(shared, "exported", 5 << 20, NULL), *block = (char *)alloc_tag(shared, "exported", BYTES, NULL);
  EXPECT_OK(drowse_copy_in(shared, small, host, 5 << 20));
  EXPECT_OK(drowse_copy_in(shared, block, host, BYTES));
  check_exports(shared, small, 5 << 20, host);
  check_exports(shared, block, BYTES, host);
  drowse_export exported = {.struct_size = sizeof exported};
  EXPECT_OK(drowse_sleep(shared, &(drowse_rule){.tag = "exported", .action = DROWSE_OFFLOAD}, 1, NULL));
  EXPECT(drowse_export_get(shared, block, &exported) == DROWSE_ERR_ASLEEP);
  EXPECT_OK(drowse_wake(shared, NULL, 0, NULL));
  check_exports(shared, block, BYTES, host);
  EXPECT(drowse_export_get(shared, host, &exported) == DROWSE_ERR_NOT_FOUND);
  EXPECT(drowse_export_get(heap, blocks[0], &exported) == DROWSE_ERR_UNSUPPORTED);
  EXPECT_OK(drowse_heap_close(shared));
  free(host);
}

/* Needs a second GPU: the copy runs there. */
static void peers_reach_the_memory_after_waking_too(void) {
  int count = 0;
  enum { BYTES = 8 << 20 };
  const char *const peers[] = {"cuda:1"};
  EXPECT_CU(driver.DeviceGetCount(&count));
  if (count < 2) {
    printf("  not looked at: there is one GPU\n");
    return;
  }
  drowse_heap *shared;
  CUcontext there;
  CUstream stream;
  CUdeviceptr theirs;
  char *host = malloc(BYTES), *found = malloc(BYTES);
  memset(host, 0x5c, BYTES);
  EXPECT_OK(drowse_heap_open(
      &shared,
      &(drowse_heap_options){.struct_size = sizeof(drowse_heap_options), .device = "cuda:0", .peers = peers, .peer_count = 1}));
  drowse_heap *away;
  EXPECT_OK(drowse_heap_open(&away, &(drowse_heap_options){.struct_size = sizeof(drowse_heap_options), .device = "cuda:1"}));
  uint32_t *block = alloc_tag(shared, "peers", BYTES, NULL);
  theirs = (CUdeviceptr)(uintptr_t)alloc_tag(away, "peers", BYTES, NULL);
  EXPECT_CU(driver.DevicePrimaryCtxRetain(&there, 1));
  for (int round = 0; round < 2; round++) {
    EXPECT_OK(drowse_copy_in(shared, block, host, BYTES));
    EXPECT_CU(driver.CtxSetCurrent(there));
    EXPECT_CU(driver.StreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    EXPECT_CU(driver.MemcpyDtoDAsync(theirs, (CUdeviceptr)(uintptr_t)block, BYTES, stream));
    EXPECT_CU(driver.StreamSynchronize(stream));
    void *none;
    EXPECT(drowse_alloc(shared, 1, stream, &none) == DROWSE_ERR_INVALID); /* a stream of another device */
    EXPECT_CU(driver.StreamDestroy(stream));
    EXPECT_CU(driver.CtxSetCurrent(context));
    EXPECT_OK(drowse_copy_out(away, found, (void *)(uintptr_t)theirs, BYTES));
    EXPECT(memcmp(host, found, BYTES) == 0);
    EXPECT_OK(drowse_sleep(shared, &(drowse_rule){.tag = "peers", .action = DROWSE_OFFLOAD}, 1, NULL));
    EXPECT_OK(drowse_wake(shared, NULL, 0, NULL));
    memset(host, 0x21, BYTES);
  }
  EXPECT_CU(driver.DevicePrimaryCtxRelease(1));
  EXPECT_OK(drowse_heap_close(away));
  EXPECT_OK(drowse_heap_close(shared));
  free(host);
  free(found);
}

int main(void) {
  (void)setvbuf(stdout, NULL, _IOLBF, 0);
  drowse_status status =
      drowse_heap_open(&heap, &(drowse_heap_options){.struct_size = sizeof(drowse_heap_options), .device = "cuda:0"});
  if (status == DROWSE_ERR_NO_DEVICE) {
    printf("skipped: %s\n", drowse_last_error());
    return 77;
  }
  EXPECT(status == DROWSE_OK);
  set_up();
  RUN(kernels_use_the_same_addresses_after_waking);
  RUN(captured_graphs_work_after_waking);
  RUN(sleep_waits_for_work_on_streams_that_drowse_never_saw);
  RUN(a_drain_that_takes_too_long_changes_nothing);
  RUN(a_capture_on_a_known_stream_survives);
  RUN(a_capture_on_an_unknown_stream_survives_drain_streams);
  RUN(a_wake_that_finds_no_memory_loses_nothing);
  RUN(discarded_memory_wakes_as_asked);
  RUN(the_callers_context_stays);
  RUN(freed_memory_moves_while_its_stream_works);
  RUN(freed_memory_moves_during_a_capture);
  RUN(memory_waits_for_the_other_streams_that_use_it);
  RUN(memory_is_exported_and_made_for_network_cards);
  RUN(peers_reach_the_memory_after_waking_too);
  tear_down();
  return EXIT_SUCCESS;
}
