/* SPDX-License-Identifier: Apache-2.0
 *
 * libdrowse-torch and libdrowse-tms on a GPU, called as PyTorch calls them, but without it: memory that work in streams and
 * captured graphs use, through sleep and wake. DROWSE_DEVICE=host:1GiB runs the same on the host device.
 *
 * Exits with 77 where there is no GPU. At the end it leaves a tag asleep.
 */
#include <pthread.h>
#include <string.h>

#include "driver/driver.h"
#include "drowse-torch.h"
#include "gpu/expect.h"
#include "torch/tms.h"

enum { DEVICE = 0, BYTES = 20 << 20, THREADS = 8, ROUNDS = 100 };

static struct driver driver;
static drowse_heap *heap;
static CUstream stream;
static unsigned char *found; /* of one block */

static void set_up(void) {
  CUdevice device;
  CUcontext context;
#define FIND(name, version, need, parameters) *(void **)&driver.name = drowse_driver_entry(heap, "cu" #name);
  DZ_DRIVER_ENTRIES(FIND)
#undef FIND
  EXPECT_CU(driver.DeviceGet(&device, DEVICE));
  EXPECT_CU(driver.DevicePrimaryCtxRetain(&context, device));
  EXPECT_CU(driver.CtxSetCurrent(context));
  EXPECT_CU(driver.StreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  found = malloc(BYTES);
  EXPECT(found != NULL);
}

static void fill(void *ptr, unsigned char value) {
  EXPECT_CU(driver.MemsetD8Async((CUdeviceptr)(uintptr_t)ptr, value, BYTES, stream));
}

static bool is_filled(const void *ptr, unsigned char value) {
  EXPECT_CU(driver.StreamSynchronize(stream));
  memset(found, (unsigned char)~value, BYTES);
  EXPECT_CU(driver.MemcpyDtoH(found, (CUdeviceptr)(uintptr_t)ptr, BYTES));
  return found[0] == value && memcmp(found, found + 1, BYTES - 1) == 0;
}

static void *torch_alloc(const char *tag) {
  void *ptr = NULL;
  DROWSE_SCOPE(tag, DROWSE_EXPANDABLE_OFF) ptr = drowse_torch_malloc(BYTES, DEVICE, stream);
  return ptr;
}

static void torch_free(void *ptr) {
  drowse_torch_free(ptr, BYTES, DEVICE, stream);
}

static drowse_status sleep_tag(const char *tag) {
  return drowse_sleep(heap, &(drowse_rule){.tag = tag, .action = DROWSE_OFFLOAD}, 1, NULL);
}

static void memory_of_a_tag_sleeps_and_wakes(void) {
  void *weights = torch_alloc("weights"), *other = torch_alloc("kv_cache");
  EXPECT(weights != NULL && other != NULL);
  fill(weights, 1);
  fill(other, 2);
  EXPECT_OK(sleep_tag("weights"));
  EXPECT(is_filled(other, 2));
  EXPECT(torch_alloc("weights") == NULL);
  EXPECT_OK(drowse_wake(heap, NULL, 0, NULL));
  EXPECT(is_filled(weights, 1));
  torch_free(weights);
  torch_free(other);
}

static void a_captured_graph_uses_memory_that_it_got_meanwhile(void) {
  CUgraph graph;
  CUgraphExec executable;
  EXPECT_CU(driver.StreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
  void *ptr = torch_alloc("graph"), *gone = torch_alloc("graph");
  EXPECT(ptr != NULL && gone != NULL);
  fill(ptr, 3);
  torch_free(gone);
  EXPECT_CU(driver.StreamEndCapture(stream, &graph));
  EXPECT_CU(driver.GraphInstantiateWithFlags(&executable, graph, 0));
  EXPECT_OK(sleep_tag("graph"));
  EXPECT_OK(drowse_wake(heap, NULL, 0, NULL));
  EXPECT_CU(driver.GraphLaunch(executable, stream));
  EXPECT(is_filled(ptr, 3));
  EXPECT_CU(driver.GraphExecDestroy(executable));
  EXPECT_CU(driver.GraphDestroy(graph));
  torch_free(ptr);
}

static void want_of_memory_is_null(void) {
  EXPECT(drowse_torch_malloc((size_t)1 << 45, DEVICE, stream) == NULL);
  void *ptr = torch_alloc("weights");
  EXPECT(ptr != NULL);
  torch_free(ptr);
}

static void *allocate_in_turn(void *tag) {
  for (int round = 0; round < ROUNDS; round++) {
    drowse_block block = {.struct_size = sizeof block};
    void *ptr = torch_alloc(tag);
    EXPECT(ptr != NULL);
    EXPECT_OK(drowse_block_get(heap, ptr, &block));
    EXPECT(strcmp(block.tag, tag) == 0);
    torch_free(ptr);
  }
  return NULL;
}

static void threads_have_tags_of_their_own(void) {
  char tags[THREADS][16];
  pthread_t threads[THREADS];
  for (int at = 0; at < THREADS; at++) {
    (void)snprintf(tags[at], sizeof tags[at], "of-%d", at);
    EXPECT(pthread_create(&threads[at], NULL, allocate_in_turn, tags[at]) == 0);
  }
  for (int at = 0; at < THREADS; at++) EXPECT(pthread_join(threads[at], NULL) == 0);
}

static void unused_memory_goes_back(void) {
  drowse_stats stats = {.struct_size = sizeof stats};
  EXPECT_CU(driver.CtxSynchronize());
  drowse_torch_reset();
  EXPECT_OK(drowse_stats_get(heap, NULL, &stats));
  EXPECT(stats.live_blocks == 0 && stats.mapped_bytes == 0);
}

/* The contents of three regions: kept in host memory, kept in a file, lost. */
static void regions_pause_and_resume(void) {
  void *ptr[3];
  tms_set_interesting_region(true);
  tms_set_current_tag("region");
  for (int kind = 0; kind < 3; kind++) {
    tms_set_enable_cpu_backup(kind == 0);
    tms_set_enable_disk_backup(kind == 1);
    ptr[kind] = tms_torch_malloc(BYTES, DEVICE, stream);
    EXPECT(ptr[kind] != NULL);
    fill(ptr[kind], (unsigned char)(10 + kind));
  }
  tms_set_interesting_region(false);
  EXPECT(tms_pause("region") == 0);
  const unsigned char *backup = tms_get_cpu_backup_pointer(ptr[0], BYTES);
  EXPECT(backup != NULL && backup[0] == 10 && backup[BYTES - 1] == 10);
  EXPECT(tms_resume("region") == 0);
  EXPECT(is_filled(ptr[0], 10) && is_filled(ptr[1], 11));
  fill(ptr[2], 12);
  EXPECT(is_filled(ptr[2], 12));
  EXPECT(tms_pause(NULL) == 0);
  for (int kind = 0; kind < 3; kind++) tms_torch_free(ptr[kind], BYTES, DEVICE, stream);
  EXPECT(tms_resume(NULL) == 0);
}

static void the_process_ends_while_a_tag_sleeps(void) {
  void *ptr = torch_alloc("weights");
  EXPECT(ptr != NULL);
  EXPECT_OK(sleep_tag("weights"));
}

int main(void) {
  drowse_error error = {.struct_size = sizeof error};
  (void)setvbuf(stdout, NULL, _IOLBF, 0);
  heap = drowse_torch_heap(DEVICE);
  EXPECT_OK(drowse_error_get(&error));
  if (heap == NULL && error.status == DROWSE_ERR_NO_DEVICE) {
    printf("skipped: %s\n", drowse_last_error());
    return 77;
  }
  EXPECT(heap != NULL);
  set_up();
  RUN(memory_of_a_tag_sleeps_and_wakes);
  RUN(a_captured_graph_uses_memory_that_it_got_meanwhile);
  RUN(want_of_memory_is_null);
  RUN(threads_have_tags_of_their_own);
  RUN(unused_memory_goes_back);
  RUN(regions_pause_and_resume);
  RUN(the_process_ends_while_a_tag_sleeps);
  return EXIT_SUCCESS;
}
