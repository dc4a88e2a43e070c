/* SPDX-License-Identifier: Apache-2.0
 *
 * Nothing is stranded: free memory that fills whole extents goes where memory is needed next, before any is created; and what
 * happens on the way when the driver fails, when a stream captures, and when there is not enough.
 */
#include "fixture.h"
#include "heap/reclaim.h"

enum { SEGMENT_KINDS = 2 };
static const drowse_expandable kinds[SEGMENT_KINDS] = {DROWSE_EXPANDABLE_ON, DROWSE_EXPANDABLE_OFF};

static drowse_status try_alloc(const char *tag, size_t bytes, drowse_stream stream, drowse_expandable expandable, void **ptr) {
  drowse_alloc_options options = {.struct_size = sizeof options, .tag = tag, .expandable = expandable};
  return drowse_alloc_with(heap, bytes, stream, &options, ptr);
}

static void *alloc_kind(const char *tag, size_t bytes, drowse_stream stream, drowse_expandable expandable) {
  void *ptr = NULL;
  ck_ok(try_alloc(tag, bytes, stream, expandable, &ptr));
  return ptr;
}

static void *alloc_discrete(const char *tag, size_t bytes) {
  return alloc_kind(tag, bytes, NULL, DROWSE_EXPANDABLE_OFF);
}

static CUdeviceptr address(const void *ptr) {
  return (CUdeviceptr)(uintptr_t)ptr;
}

/* What the heap says that it has is what the device says that it lacks. */
static void ck_accounts(void) {
  ck_assert_uint_eq(stats_of(NULL).mapped_bytes, heap->total_bytes - device_free_bytes());
}

/* ---- creating: never while there is free memory that could move */

static uint64_t created_count, created_bytes, created_too_early;

/* Growth claims all that it needs before it creates: nothing that could be claimed may be left. */
static uint64_t claimable_bytes(void) {
  dz_lock(&heap->lock);
  struct claims claims = dz_claims_collect(heap, 1);
  uint64_t bytes = claims.bytes;
  dz_claims_drop(&claims);
  dz_unlock(&heap->lock);
  return bytes;
}

static CUresult count_create(CUmemGenericAllocationHandle *handle, size_t size, const CUmemAllocationProp *prop,
                             unsigned long long flags) {
  created_count++;
  created_bytes += size;
  if (claimable_bytes() > 0) created_too_early++;
  return dz_host_driver.MemCreate(handle, size, prop, flags);
}

static void count_creates(void) {
  created_count = created_bytes = created_too_early = 0;
  heap->device.driver.MemCreate = count_create;
}

/* ---- a model is loaded, and each tensor is replaced by a larger one while the scope stays open */

enum { LAYERS = 32, TENSORS_A_LAYER = 9, TENSORS = LAYERS * TENSORS_A_LAYER + 2 };

static size_t tensor_bytes(int tensor) {
  static const size_t of_layer[TENSORS_A_LAYER] = {
      4096 * 4096 * 2,  4096 * 1024 * 2,  4096 * 1024 * 2, 4096 * 4096 * 2, /* q, k, v, o */
      4096 * 14336 * 2, 4096 * 14336 * 2, 14336 * 4096 * 2,                 /* gate, up, down */
      4096 * 2,         4096 * 2,                                           /* norms */
  };
  const size_t embedding = (size_t)128256 * 4096 * 2;
  return tensor < LAYERS * TENSORS_A_LAYER ? of_layer[tensor % TENSORS_A_LAYER] : embedding;
}

struct peaks {
  uint64_t live, mapped;
};

static void note_peaks(struct peaks *peaks) {
  drowse_stats stats = stats_of(NULL);
  if (stats.live_bytes > peaks->live) peaks->live = stats.live_bytes;
  if (stats.mapped_bytes > peaks->mapped) peaks->mapped = stats.mapped_bytes;
}

static void *alloc_noted(size_t bytes, struct peaks *peaks) {
  void *ptr = NULL;
  ck_ok(drowse_alloc(heap, bytes, NULL, &ptr));
  note_peaks(peaks);
  return ptr;
}

/* The new one is there before the old one goes, as where a parameter's data are assigned. By how much per cent each grows. */
static void replace(void *tensors[TENSORS], const int order[TENSORS], size_t percent, struct peaks *peaks) {
  for (int i = 0; i < TENSORS; i++) {
    int tensor = order[i];
    void *new = alloc_noted(tensor_bytes(tensor) * (100 + percent) / 100, peaks);
    ck_ok(drowse_free(heap, tensors[tensor]));
    tensors[tensor] = new;
  }
}

static void shuffle(int order[TENSORS], uint64_t seed) {
  for (int i = TENSORS - 1; i > 0; i--) {
    int j = (int)random_below(&seed, (uint64_t)i + 1), swapped = order[i];
    order[i] = order[j];
    order[j] = swapped;
  }
}

/* Peak mapped over peak live, in thousandths, rounded up. */
static uint64_t load_and_replace(drowse_expandable expandable, bool shuffled) {
  void *tensors[TENSORS];
  int order[TENSORS];
  struct peaks peaks = {0, 0};
  open_with((drowse_heap_options){.device = "host:80GiB"});
  count_creates();
  for (int i = 0; i < TENSORS; i++) order[i] = i;
  DROWSE_SCOPE("weights", expandable) {
    for (int i = 0; i < TENSORS; i++) tensors[i] = alloc_noted(tensor_bytes(i), &peaks);
    for (size_t percent = 1; percent <= 3; percent++) {
      if (shuffled) shuffle(order, percent);
      replace(tensors, order, percent, &peaks);
    }
  }
  ck_assert_uint_eq(created_too_early, 0);
  ck_accounts();
  close_heap();
  return (peaks.mapped * 1000 + peaks.live - 1) / peaks.live;
}

START_TEST(replacing_in_an_expandable_segment_strands_nothing) {
  ck_assert_uint_le(load_and_replace(DROWSE_EXPANDABLE_ON, false), 1050);
}
END_TEST

START_TEST(replacing_in_discrete_segments_strands_nothing) {
  ck_assert_uint_le(load_and_replace(DROWSE_EXPANDABLE_OFF, false), 1100);
}
END_TEST

START_TEST(replacing_in_any_order_strands_nothing) {
  ck_assert_uint_le(load_and_replace(DROWSE_EXPANDABLE_ON, true), 1050);
  ck_assert_uint_le(load_and_replace(DROWSE_EXPANDABLE_OFF, true), 1100);
}
END_TEST

/* ---- what is free moves */

/* To where, from a tag "a" on the stream NULL. */
static void ck_moves_to(const char *tag, CUstream stream, drowse_expandable from, drowse_expandable to) {
  void *ptr = alloc_kind("a", 20 * MIB, NULL, from);
  write_pattern(ptr, 20 * MIB, 1);
  ck_ok(drowse_free(heap, ptr));
  count_creates();
  ptr = alloc_kind(tag, 20 * MIB, stream, to);
  ck_assert_uint_eq(created_count, 0);
  ck_assert_uint_eq(stats_of(NULL).mapped_bytes, 20 * MIB);
  write_pattern(ptr, 20 * MIB, 2);
  ck_assert(has_pattern(ptr, 20 * MIB, 2));
  ck_accounts();
  ck_ok(drowse_free(heap, ptr));
}

START_TEST(free_memory_moves_to_another_tag_stream_and_kind) {
  CUstream stream = make_stream();
  for (int from = 0; from < SEGMENT_KINDS; from++) {
    for (int to = 0; to < SEGMENT_KINDS; to++) {
      ck_moves_to("a", stream, kinds[from], kinds[to]);
      ck_moves_to("b", NULL, kinds[from], kinds[to]);
      ck_moves_to("c", stream, kinds[from], kinds[to]);
    }
  }
  ck_moves_to("a", NULL, DROWSE_EXPANDABLE_ON, DROWSE_EXPANDABLE_OFF);
  ck_moves_to("a", NULL, DROWSE_EXPANDABLE_OFF, DROWSE_EXPANDABLE_ON);
  drop_stream(stream);
}
END_TEST

/* Three free pieces from three places, none enough by itself, and live blocks between. */
START_TEST(several_pieces_move_together) {
  void *kept[3], *gone[3];
  for (uint64_t i = 0; i < 3; i++) {
    gone[i] = alloc_tag(i == 2 ? "b" : "a", 6 * MIB);
    kept[i] = alloc_tag("a", 4 * MIB);
    write_pattern(kept[i], 4 * MIB, i);
  }
  for (int i = 0; i < 3; i++) ck_ok(drowse_free(heap, gone[i]));
  count_creates();
  void *ptr = alloc_tag("c", 18 * MIB);
  ck_assert_uint_eq(created_count, 0);
  write_pattern(ptr, 18 * MIB, 9);
  for (uint64_t i = 0; i < 3; i++) ck_assert(has_pattern(kept[i], 4 * MIB, i));
  ck_assert(has_pattern(ptr, 18 * MIB, 9));
  ck_accounts();
}
END_TEST

START_TEST(only_what_is_missing_is_created) {
  ck_ok(drowse_free(heap, alloc_tag("a", 20 * MIB)));
  count_creates();
  (void)alloc_tag("b", 30 * MIB);
  ck_assert_uint_eq(created_bytes, 10 * MIB);
  ck_assert_uint_eq(stats_of("a").mapped_bytes, 0);
  ck_accounts();
}
END_TEST

/* ---- only when its stream is done with it */

static struct gate gate;

static void ck_waits_for_gate(CUstream stream, drowse_expandable expandable) {
  void *ptr = alloc_kind("a", 20 * MIB, stream, expandable);
  close_gate(&gate, stream);
  ck_cu(MemsetD8Async(address(ptr), 1, 20 * MIB, stream));
  ck_ok(drowse_free(heap, ptr));
  count_creates();
  void *other = alloc_tag("b", 20 * MIB); /* the work on what is free has not even begun */
  ck_assert_uint_eq(created_bytes, 20 * MIB);
  write_pattern(other, 20 * MIB, 2);
  open_gate(&gate);
  ck_cu(StreamSynchronize(stream));
  ck_assert(has_pattern(other, 20 * MIB, 2));
  count_creates();
  void *third = alloc_tag("c", 20 * MIB);
  ck_assert_uint_eq(created_count, 0);
  ck_ok(drowse_free(heap, third));
  ck_ok(drowse_free(heap, other));
  ck_ok(drowse_trim(heap, 0));
}

START_TEST(free_memory_moves_when_its_streams_work_is_over) {
  CUstream stream = make_stream();
  for (int kind = 0; kind < SEGMENT_KINDS; kind++) ck_waits_for_gate(stream, kinds[kind]);
  drop_stream(stream);
}
END_TEST

/* A stream that never comes to rest is asked by an event: work after the free does not matter. */
START_TEST(free_memory_of_a_busy_stream_moves_too) {
  struct gate second;
  CUstream stream = make_stream();
  void *ptr = alloc_on("a", 20 * MIB, stream);
  close_gate(&gate, stream);
  ck_ok(drowse_free(heap, ptr));
  void *other = alloc_tag("b", 20 * MIB); /* looks at the stream, and cannot have it */
  open_gate(&gate);
  close_gate(&second, stream); /* what was before it is over */
  count_creates();
  (void)alloc_tag("b", 20 * MIB);
  ck_assert_uint_eq(created_count, 0);
  write_pattern(other, 20 * MIB, 2);
  open_gate(&second);
  ck_cu(StreamSynchronize(stream));
  ck_assert(has_pattern(other, 20 * MIB, 2));
  drop_stream(stream);
}
END_TEST

START_TEST(free_memory_of_a_retired_stream_moves_when_its_work_is_over) {
  CUstream stream = make_stream(), copies = make_stream();
  void *ptr = alloc_on("a", 20 * MIB, stream);
  close_gate(&gate, stream);
  ck_cu(MemsetD8Async(address(ptr), 1, 20 * MIB, stream));
  ck_ok(drowse_free(heap, ptr));
  drop_stream(stream);
  count_creates();
  (void)alloc_on("b", 20 * MIB, copies);
  ck_assert_uint_eq(created_bytes, 20 * MIB);
  open_gate(&gate);
  ck_cu(CtxSynchronize());
  (void)alloc_on("b", 20 * MIB, copies);
  ck_assert_uint_eq(created_bytes, 20 * MIB);
  drop_stream(copies);
}
END_TEST

/* ---- captures */

static void begin_capture(CUstream stream) {
  ck_cu(StreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
}

/* The capture is whole: its graph runs. */
static void end_capture(CUstream stream) {
  CUgraph graph = NULL;
  CUgraphExec executable = NULL;
  ck_cu(StreamEndCapture(stream, &graph));
  ck_cu(GraphInstantiateWithFlags(&executable, graph, 0));
  ck_cu(GraphLaunch(executable, stream));
  ck_cu(StreamSynchronize(stream));
  ck_cu(GraphExecDestroy(executable));
  ck_cu(GraphDestroy(graph));
}

START_TEST(a_capture_stops_no_moves_on_other_streams) {
  CUstream captured = make_stream(), stream = make_stream();
  void *in_graph = alloc_on("a", 20 * MIB, captured), *gone = alloc_on("a", 20 * MIB, stream);
  begin_capture(captured);
  ck_cu(MemsetD8Async(address(in_graph), 5, 20 * MIB, captured));
  count_creates();
  for (int round = 0; round < 4; round++) { /* to and fro */
    ck_ok(drowse_free(heap, gone));
    gone = round % 2 == 0 ? alloc_tag("b", 20 * MIB) : alloc_kind("a", 20 * MIB, stream, DROWSE_EXPANDABLE_OFF);
  }
  void *during = alloc_on("a", 20 * MIB, captured); /* for the graph, too */
  ck_assert_uint_eq(created_bytes, 20 * MIB);
  ck_cu(MemsetD8Async(address(during), 6, 20 * MIB, captured));
  end_capture(captured);
  ck_assert(is_filled(in_graph, 20 * MIB, 5));
  ck_assert(is_filled(during, 20 * MIB, 6));
  ck_accounts();
  drop_stream(captured);
  drop_stream(stream);
}
END_TEST

START_TEST(what_is_freed_during_a_capture_moves_after_it) {
  CUstream captured = make_stream();
  void *ptr = alloc_on("a", 20 * MIB, captured);
  begin_capture(captured);
  ck_ok(drowse_free(heap, ptr));
  count_creates();
  void *other = alloc_tag("b", 20 * MIB);
  ck_assert_uint_eq(created_bytes, 20 * MIB); /* a stream that captures cannot be asked */
  end_capture(captured);
  (void)alloc_tag("b", 20 * MIB);
  ck_assert_uint_eq(created_bytes, 20 * MIB);
  ck_ok(drowse_free(heap, other));
  drop_stream(captured);
}
END_TEST

static CUstream captured_meanwhile;

/* Another thread begins to capture as soon as drowse has been told that the stream does not. */
static CUresult answer_and_capture(CUstream stream, CUstreamCaptureStatus *status) {
  CUresult code = dz_host_driver.StreamIsCapturing(stream, status);
  if (stream == captured_meanwhile && code == CUDA_SUCCESS && *status == CU_STREAM_CAPTURE_STATUS_NONE) {
    captured_meanwhile = NULL;
    ck_cu(StreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
  }
  return code;
}

START_TEST(a_capture_that_begins_while_its_stream_is_asked_survives) {
  CUstream stream = make_stream();
  void *ptr = alloc_on("a", 20 * MIB, stream), *gone = alloc_on("a", 20 * MIB, stream);
  ck_ok(drowse_free(heap, gone));
  captured_meanwhile = stream;
  heap->device.driver.StreamIsCapturing = answer_and_capture;
  void *other = alloc_tag("b", 20 * MIB);
  ck_assert_ptr_null(captured_meanwhile);
  ck_cu(MemsetD8Async(address(ptr), 7, 20 * MIB, stream));
  end_capture(stream);
  ck_assert(is_filled(ptr, 20 * MIB, 7));
  ck_ok(drowse_free(heap, other));
  drop_stream(stream);
}
END_TEST

/* ---- searching */

/* More free blocks of nearly the size than are looked at, none large enough but the one that ends where memory ends: nothing is
 * missing there, and it must be found. */
START_TEST(the_one_block_that_is_large_enough_is_found_among_many) {
  enum { SMALLER = 40 };
  void *gone[SMALLER];
  for (int i = 0; i < SMALLER; i++) {
    gone[i] = alloc_tag("a", MIB);
    (void)alloc_tag("a", MIB);
  }
  (void)alloc_tag("a", MIB - 32 * KIB); /* which leaves one of 1 MiB + 32 KiB at the end */
  for (int i = 0; i < SMALLER; i++) ck_ok(drowse_free(heap, gone[i]));
  (void)alloc_tag("a", MIB + 16 * KIB);
}
END_TEST

/* ---- growth while others take what is at hand */

static int creates_refused;

static drowse_status use_up_nodes(void *nothing) {
  struct pool *pool = stats_of("a").live_blocks == 0 ? NULL : dz_tag_find(heap, drowse_tag_get("a"))->pools;
  drowse_alloc_options options = {.struct_size = sizeof options, .tag = "a", .alignment = 4096};
  void *ptr = nothing;
  while (pool->spare_count > 2) {
    DROWSE_SCOPE("a", DROWSE_EXPANDABLE_INHERIT) ck_ok(drowse_alloc(heap, 512, NULL, &ptr));
  }
  return drowse_alloc_with(heap, 512, NULL, &options, &ptr);
}
