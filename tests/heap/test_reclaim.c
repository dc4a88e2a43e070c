/* SPDX-License-Identifier: Apache-2.0
 *
 * Nothing is stranded: free memory that fills whole extents goes where memory is needed next, before any is created; and what
 * happens on the way when the driver fails, when a stream captures, and when there is not enough.
 */
#include "fixture.h"

#include "driver/faults.h"
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
static uint64_t joined_end; /* where a hole ends that is filled to join what is free at its sides */

static bool is_without_memory(const struct block *block) {
  const struct extent *extent = dz_segment_extent_at(block->segment, block->range.base);
  return extent == NULL || extent->base >= dz_range_end(&block->range);
}

/* The hole that a growth is going to fill. */
static const struct block *hole_of_growth(void) {
  for (const struct tag *tag = heap->tags; tag != NULL; tag = tag->next) {
    for (const struct pool *pool = tag->pools; pool != NULL; pool = pool->next) {
      for (const struct segment *segment = pool->segments; segment != NULL; segment = segment->next) {
        for (const struct block *block = segment->first; block != NULL; block = dz_block_after(block)) {
          if (block->state == DZ_CLAIMED && is_without_memory(block)) return block;
        }
      }
    }
  }
  return NULL;
}

/* Growth claims all that it needs before it creates: nothing that could be claimed may be left, but what it is going to use where
 * it is, and what it did not need together with that. */
static uint64_t claimable_bytes(void) {
  dz_lock(&heap->lock);
  const struct block *hole = hole_of_growth(); /* a wake has none */
  struct claims claims = {0};
  if (hole != NULL)
    claims = (struct claims){.low = hole->range.base, .high = joined_end == dz_range_end(&hole->range) ? joined_end : 0};
  dz_claims_collect(heap, &claims, 1, hole == NULL ? NULL : dz_pool_of(hole));
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
  joined_end = 0;
  heap->device.driver.MemCreate = count_create;
}

/* ---- a model is loaded, and each tensor is replaced by a larger one while the scope stays open */

enum { LAYERS = 32, TENSORS_A_LAYER = 9, TENSORS = LAYERS * TENSORS_A_LAYER + 2 };

static size_t tensor_bytes(int tensor) {
  static const size_t of_layer[TENSORS_A_LAYER] = {
      4096 * 4096 * 2,  4096 * 1024 * 2,  4096 * 1024 * 2,  4096 * 4096 * 2, /* q, k, v, o */
      4096 * 14336 * 2, 4096 * 14336 * 2, 14336 * 4096 * 2,                  /* gate, up, down */
      4096 * 2,         4096 * 2,                                            /* norms */
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

/* Each tensor grows by one per cent of what it was first, so many times over. Returns peak mapped over peak live, in thousandths,
 * rounded up. */
static uint64_t load_and_replace(drowse_expandable expandable, size_t times, bool shuffled) {
  void *tensors[TENSORS];
  int order[TENSORS];
  struct peaks peaks = {0, 0};
  open_with((drowse_heap_options){.device = "host:80GiB"});
  count_creates();
  for (int i = 0; i < TENSORS; i++) order[i] = i;
  DROWSE_SCOPE("weights", expandable) {
    for (int i = 0; i < TENSORS; i++) tensors[i] = alloc_noted(tensor_bytes(i), &peaks);
    for (size_t percent = 1; percent <= times; percent++) {
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
  ck_assert_uint_le(load_and_replace(DROWSE_EXPANDABLE_ON, 1, false), 1050);
}
END_TEST

START_TEST(replacing_in_discrete_segments_strands_nothing) {
  ck_assert_uint_le(load_and_replace(DROWSE_EXPANDABLE_OFF, 1, false), 1100);
}
END_TEST

/* Extents that still have a live block in them stay where they are, so here there is waste; it is bounded, and does not add up.
 */
START_TEST(replacing_again_and_again_in_any_order_wastes_little) {
  ck_assert_uint_le(load_and_replace(DROWSE_EXPANDABLE_ON, 6, true), 1300);
  ck_assert_uint_le(load_and_replace(DROWSE_EXPANDABLE_OFF, 6, true), 1500);
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

/* What a stream may still use serves the same stream at another place at once; the rest of it is nobody else's for all that. */
static void ck_rest_of_an_early_move(drowse_expandable expandable) {
  enum { PIECES = 6 };
  CUstream stream = make_stream();
  void *pieces[PIECES], *moved = NULL;
  drowse_alloc_options options = {.struct_size = sizeof options, .tag = "a", .expandable = expandable, .alignment = GRANULE};
  for (int i = 0; i < PIECES; i++) pieces[i] = alloc_kind("a", GRANULE, stream, expandable);
  close_gate(&gate, stream);
  for (int i = 0; i < PIECES; i += 2) {
    ck_cu(MemsetD8Async(address(pieces[i]), 1, GRANULE, stream));
    ck_ok(drowse_free(heap, pieces[i]));
  }
  ck_ok(drowse_alloc_with(heap, 2 * GRANULE, stream, &options, &moved)); /* three pieces, so that it can be aligned anywhere */
  ck_cu(MemsetD8Async(address(moved), 2, 2 * GRANULE, stream));
  void *other[PIECES / 2];
  for (uint64_t i = 0; i < PIECES / 2; i++) {
    other[i] = alloc_tag("b", GRANULE);
    write_pattern(other[i], GRANULE, i);
  }
  open_gate(&gate);
  ck_cu(StreamSynchronize(stream));
  ck_assert(is_filled(moved, 2 * GRANULE, 2));
  for (uint64_t i = 0; i < PIECES / 2; i++) ck_assert(has_pattern(other[i], GRANULE, i));
  ck_ok(drowse_tag_clear(heap, "a"));
  ck_ok(drowse_tag_clear(heap, "b"));
  ck_ok(drowse_trim(heap, 0));
  ck_assert_uint_eq(device_free_bytes(), heap->total_bytes);
  drop_stream(stream);
}

START_TEST(the_rest_of_what_moved_early_is_not_for_others_yet) {
  for (int kind = 0; kind < SEGMENT_KINDS; kind++) ck_rest_of_an_early_move(kinds[kind]);
}
END_TEST

/* The two places of one memory: the first is there until its stream is done with it, whatever becomes of the tag. */
static void *move_early(CUstream stream, drowse_expandable expandable) {
  void *pieces[4];
  for (int i = 0; i < 4; i++) pieces[i] = alloc_kind("a", GRANULE, stream, expandable);
  close_gate(&gate, stream);
  for (int i = 0; i < 4; i += 2) {
    ck_cu(MemsetD8Async(address(pieces[i]), 1, GRANULE, stream));
    ck_ok(drowse_free(heap, pieces[i]));
  }
  count_creates();
  void *moved = alloc_kind("a", 2 * GRANULE, stream, expandable);
  ck_assert_uint_eq(created_count, 0);
  ck_assert_uint_eq(stats_of("a").mapped_bytes, 4 * GRANULE);
  ck_cu(MemsetD8Async(address(moved), 2, 2 * GRANULE, stream));
  return moved;
}

/* Nothing is left in either place. */
static void end_of_early_move(CUstream stream) {
  ck_ok(drowse_tag_clear(heap, "a"));
  ck_ok(drowse_trim(heap, 0));
  ck_assert_uint_eq(stats_of(NULL).stuck_bytes, 0);
  ck_assert_uint_eq(device_free_bytes(), heap->total_bytes);
  drop_stream(stream);
}

static void ck_same_stream(drowse_expandable expandable) {
  CUstream stream = make_stream();
  void *moved = move_early(stream, expandable);
  open_gate(&gate);
  ck_cu(StreamSynchronize(stream));
  ck_assert(is_filled(moved, 2 * GRANULE, 2));
  ck_ok(drowse_free(heap, moved));
  ck_ok(drowse_trim(heap, 0));
  ck_assert_uint_eq(stats_of("a").mapped_bytes, 2 * GRANULE);
  ck_accounts();
  end_of_early_move(stream);
}

START_TEST(what_a_busy_stream_has_freed_serves_the_same_stream) {
  for (int kind = 0; kind < SEGMENT_KINDS; kind++) ck_same_stream(kinds[kind]);
}
END_TEST

static void ck_early_sleep(drowse_expandable expandable) {
  CUstream stream = make_stream();
  void *moved = move_early(stream, expandable);
  open_gate(&gate);
  for (int round = 0; round < 2; round++) {
    ck_ok(sleep_tag("a", DROWSE_OFFLOAD));
    ck_assert_uint_eq(device_free_bytes(), heap->total_bytes);
    ck_ok(wake_tag("a"));
    ck_assert(is_filled(moved, 2 * GRANULE, 2));
    ck_accounts();
  }
  end_of_early_move(stream);
}

START_TEST(what_moved_early_sleeps_and_wakes) {
  for (int kind = 0; kind < SEGMENT_KINDS; kind++) ck_early_sleep(kinds[kind]);
}
END_TEST

static CUresult refuse_to_unmap(CUdeviceptr ptr, size_t size) {
  (void)ptr;
  (void)size;
  return CUDA_ERROR_NOT_PERMITTED;
}

static void ck_early_stuck(drowse_expandable expandable) {
  CUstream stream = make_stream();
  void *moved = move_early(stream, expandable);
  open_gate(&gate);
  heap->device.driver.MemUnmap = refuse_to_unmap;
  ck_status(sleep_tag("a", DROWSE_OFFLOAD), DROWSE_ERR_DRIVER);
  ck_state("a", DROWSE_ASLEEP);
  ck_assert_uint_eq(stats_of("a").stuck_bytes, 6 * GRANULE); /* four, of which two are here and there */
  ck_assert(is_filled(moved, 2 * GRANULE, 2));
  heap->device.driver.MemUnmap = dz_host_driver.MemUnmap;
  ck_ok(wake_tag("a"));
  ck_assert(is_filled(moved, 2 * GRANULE, 2));
  end_of_early_move(stream);
}

START_TEST(what_moved_early_and_is_stuck_is_tried_again) {
  for (int kind = 0; kind < SEGMENT_KINDS; kind++) ck_early_stuck(kinds[kind]);
}
END_TEST

/* ... or the driver has done what it refused. */
static int refusals;

static CUresult unmap_and_refuse(CUdeviceptr ptr, size_t size) {
  CUresult code = dz_host_driver.MemUnmap(ptr, size);
  return refusals-- > 0 ? CUDA_ERROR_NOT_PERMITTED : code;
}

static void ck_early_done(drowse_expandable expandable) {
  CUstream stream = make_stream();
  void *moved = move_early(stream, expandable);
  open_gate(&gate);
  refusals = 2; /* both pieces that have moved */
  heap->device.driver.MemUnmap = unmap_and_refuse;
  ck_status(sleep_tag("a", DROWSE_OFFLOAD), DROWSE_ERR_DRIVER);
  ck_state("a", DROWSE_ASLEEP);
  ck_assert_uint_eq(stats_of("a").stuck_bytes, 2 * GRANULE);
  heap->device.driver.MemUnmap = dz_host_driver.MemUnmap;
  ck_ok(drowse_trim(heap, 0));
  ck_assert_uint_eq(stats_of("a").stuck_bytes, 0);
  ck_ok(wake_tag("a"));
  ck_ok(sleep_tag("a", DROWSE_OFFLOAD));
  ck_ok(wake_tag("a"));
  ck_assert(is_filled(moved, 2 * GRANULE, 2));
  end_of_early_move(stream);
}

START_TEST(what_moved_early_and_is_unmapped_after_all_is_not_stuck) {
  for (int kind = 0; kind < SEGMENT_KINDS; kind++) ck_early_done(kinds[kind]);
}
END_TEST

/* Nor is it lost when the streams are looked at and the driver refuses: it is tried again with the next look. */
static void ck_early_stuck_awake(drowse_expandable expandable) {
  CUstream stream = make_stream();
  void *moved = move_early(stream, expandable);
  open_gate(&gate);
  ck_cu(StreamSynchronize(stream));
  heap->device.driver.MemUnmap = refuse_to_unmap;
  ck_status(drowse_trim_idle(heap, UINT64_MAX), DROWSE_ERR_DRIVER);
  ck_assert_uint_eq(stats_of("a").stuck_bytes, 2 * GRANULE);
  heap->device.driver.MemUnmap = dz_host_driver.MemUnmap;
  ck_ok(drowse_trim_idle(heap, UINT64_MAX));
  ck_assert_uint_eq(stats_of("a").stuck_bytes, 0);
  ck_assert(is_filled(moved, 2 * GRANULE, 2));
  ck_accounts();
  end_of_early_move(stream);
}

START_TEST(what_moved_early_and_cannot_be_unmapped_is_tried_at_the_next_look) {
  for (int kind = 0; kind < SEGMENT_KINDS; kind++) ck_early_stuck_awake(kinds[kind]);
}
END_TEST

static void ck_early_stuck_alone(drowse_expandable expandable) {
  CUstream stream = make_stream();
  (void)move_early(stream, expandable);
  open_gate(&gate);
  ck_cu(StreamSynchronize(stream));
  ck_ok(drowse_tag_clear(heap, "a"));
  heap->device.driver.MemUnmap = refuse_to_unmap;
  ck_status(sleep_tag("a", DROWSE_OFFLOAD), DROWSE_ERR_DRIVER);
  heap->device.driver.MemUnmap = dz_host_driver.MemUnmap;
  ck_ok(wake_tag("a"));
  (void)alloc_kind("a", 2 * GRANULE, stream, expandable);
  end_of_early_move(stream);
}

START_TEST(what_moved_early_and_is_stuck_outlasts_a_tag_without_blocks) {
  for (int kind = 0; kind < SEGMENT_KINDS; kind++) ck_early_stuck_alone(kinds[kind]);
}
END_TEST

/* ---- captures */

START_TEST(a_capture_stops_no_moves_on_other_streams) {
  CUstream captured = make_stream(), stream = make_stream();
  void *in_graph = alloc_on("a", 20 * MIB, captured), *gone = alloc_on("a", 20 * MIB, stream);
  begin_capture(captured);
  ck_cu(MemsetD8Async(address(in_graph), 5, 20 * MIB, captured));
  count_creates();
  for (int round = 0; round < 4; round++) { /* there and back */
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
  open_with((drowse_heap_options){.device = "host:256MiB"});
  for (int i = 0; i < SMALLER; i++) {
    gone[i] = alloc_tag("a", 512 * KIB);
    (void)alloc_tag("a", 512 * KIB);
  }
  for (int i = 0; i < 2; i++) (void)alloc_tag("a", 756 * KIB); /* which leave 536 KiB at the end of what is mapped */
  drowse_stats stats = stats_of("a");
  ck_assert_uint_eq(stats.mapped_bytes - stats.live_bytes, 536 * KIB);
  for (int i = 0; i < SMALLER; i++) ck_ok(drowse_free(heap, gone[i]));
  (void)alloc_tag("a", 530 * KIB);
  ck_assert_uint_eq(stats_of("a").mapped_bytes, stats.mapped_bytes);
  close_heap();
}
END_TEST

/* ---- which hole is filled */

/* Leaves a hole of 20 MiB before a live block of a tag "a", behind which its memory ends. */
static void *make_hole_before(size_t bytes) {
  void *gone = alloc_tag("a", 20 * MIB), *kept = alloc_tag("a", bytes);
  ck_ok(drowse_free(heap, gone));
  (void)alloc_tag("b", 20 * MIB);
  ck_assert_uint_eq(stats_of("a").mapped_bytes, (bytes + MIB) / (2 * MIB) * 2 * MIB);
  count_creates();
  return kept;
}

/* Behind the live block 1 MiB is free already; before it, where the hole fits better, nothing is. */
START_TEST(the_hole_in_which_the_least_is_missing_is_filled) {
  char *kept = make_hole_before(5 * MIB);
  ck_assert_ptr_eq(alloc_tag("a", 17 * MIB), kept + 5 * MIB);
  ck_assert_uint_eq(created_bytes, 16 * MIB);
}
END_TEST

/* What the first leaves of its last page serves the second; in the small hole nothing would have had room behind it. */
START_TEST(of_holes_in_which_as_much_is_missing_the_largest_is_filled) {
  char *kept = make_hole_before(6 * MIB);
  ck_assert_ptr_eq(alloc_tag("a", 17 * MIB), kept + 6 * MIB);
  ck_assert_ptr_eq(alloc_tag("a", 17 * MIB), kept + 23 * MIB);
  ck_assert_uint_eq(created_bytes, 34 * MIB);
}
END_TEST

/* A hole of 14 MiB between two blocks of 10, all of which are free, and nothing else is. */
static char *make_hole_between(void) {
  char *low = alloc_tag("a", 10 * MIB), *gone = alloc_tag("a", 14 * MIB), *high = alloc_tag("a", 10 * MIB);
  (void)alloc_tag("a", 2 * MIB);
  ck_ok(drowse_free(heap, gone));
  ck_ok(drowse_trim(heap, 0));
  ck_ok(drowse_free(heap, low));
  ck_ok(drowse_free(heap, high));
  ck_assert_uint_eq(stats_of("a").mapped_bytes, 22 * MIB);
  count_creates();
  return low;
}

START_TEST(a_hole_is_filled_that_joins_what_is_free_at_its_sides) {
  char *low = make_hole_between();
  joined_end = address(low) + 24 * MIB;
  ck_assert_ptr_eq(alloc_tag("a", 33 * MIB), low);
  ck_assert_uint_eq(created_bytes, 14 * MIB);
  ck_assert_uint_eq(created_too_early, 0);
}
END_TEST

/* What would be left over may be of a size that nobody asks for. */
START_TEST(a_hole_is_not_filled_to_leave_much_behind_it) {
  char *low = make_hole_between();
  ck_assert_ptr_ne(alloc_tag("a", 32 * MIB), low);
  ck_assert_uint_eq(stats_of("a").mapped_bytes, 34 * MIB); /* all that was free has moved there */
}
END_TEST

/* What is free behind a hole that is enough as it is moves there before anything is created. */
START_TEST(what_is_free_behind_a_hole_moves_into_it) {
  char *low = make_hole_between();
  ck_assert_ptr_eq(alloc_tag("a", 24 * MIB), low);
  ck_assert_uint_eq(created_bytes, 4 * MIB);
  ck_assert_uint_eq(stats_of("a").mapped_bytes, 26 * MIB);
}
END_TEST

/* The page that a block ends in is filled, though another hole that needs as many pages is larger. */
START_TEST(of_holes_that_need_as_many_pages_the_one_that_leaves_most_is_filled) {
  char *low = alloc_tag("a", 3 * MIB), *gone = alloc_tag("a", 21 * MIB);
  (void)alloc_tag("a", 2 * MIB); /* behind it the segment is one hole, larger than this one will be */
  ck_ok(drowse_free(heap, gone));
  ck_ok(drowse_trim(heap, 0));
  ck_assert_uint_eq(stats_of("a").mapped_bytes, 6 * MIB);
  ck_assert_ptr_eq(alloc_tag("a", 5 * MIB / 2), low + 3 * MIB);
}
END_TEST

/* Where the end of free memory is enough no more than what is missing moves. */
START_TEST(a_growth_moves_what_is_missing) {
  char *low = alloc_tag("a", 10 * MIB), *small = alloc_tag("b", 4 * MIB), *large = alloc_tag("b", 16 * MIB);
  (void)alloc_tag("b", 2 * MIB);
  ck_ok(drowse_free(heap, low));
  ck_ok(drowse_free(heap, small));
  ck_ok(drowse_free(heap, large));
  ck_ok(drowse_trim(heap, UINT64_MAX)); /* gives nothing back, but joins what was kept */
  ck_assert_ptr_eq(alloc_tag("a", 14 * MIB), low);
  ck_assert_uint_eq(stats_of("a").mapped_bytes, 14 * MIB);
  ck_assert_uint_eq(stats_of("b").mapped_bytes, 18 * MIB);
}
END_TEST

/* ---- how large handles are */

/* Of 2 MiB until there are very many, and then of 4. */
START_TEST(a_tag_with_very_many_handles_gets_larger_ones) {
  ck_ok(drowse_free(heap, alloc_tag("a", 2 * MIB)));
  struct tag *tag = dz_tag_glance(heap, drowse_tag_get("a"));
  count_creates();
  (void)alloc_tag("a", 10 * MIB);
  ck_assert_uint_eq(created_count, 4);
  ck_assert_uint_eq(tag->handles, 5);
  tag->handles += DZ_FINE_HANDLES - 9; /* of which with five more there would be one too many */
  (void)alloc_tag("a", 10 * MIB);
  ck_assert_uint_eq(created_count, 4 + 3);
  tag->handles -= DZ_FINE_HANDLES - 9;
  ck_assert_uint_eq(tag->handles, 8);
  ck_ok(drowse_tag_clear(heap, "a"));
  ck_ok(drowse_trim(heap, 0));
  ck_assert_uint_eq(tag->handles, 0);
}
END_TEST

/* ---- growth while others take what is at hand */

static struct pool *pool_of(const void *ptr) {
  struct block *block = dz_block_lock(heap, address(ptr), true);
  ck_assert_ptr_nonnull(block);
  dz_pool_unlock(dz_pool_of(block));
  return dz_pool_of(block);
}

static bool used_up;
static struct pool *growing; /* its nodes are taken while it waits for the driver */

static drowse_status use_up_nodes(void *nothing) {
  drowse_alloc_options options = {.struct_size = sizeof options, .tag = "a", .alignment = 64 * KIB};
  drowse_status status = DROWSE_OK;
  void *ptr = nothing;
  while (status == DROWSE_OK && growing->spare_count > 2) {
    status = DROWSE_ERR_SCOPE;
    DROWSE_SCOPE("a", DROWSE_EXPANDABLE_INHERIT) status = drowse_alloc(heap, 512, NULL, &ptr);
  }
  return status == DROWSE_OK ? drowse_alloc_with(heap, 512, NULL, &options, &ptr) : status; /* cut at both ends: takes two */
}

static CUresult create_late(CUmemGenericAllocationHandle *handle, size_t size, const CUmemAllocationProp *prop,
                            unsigned long long flags) {
  struct call call;
  CUresult code = dz_host_driver.MemCreate(handle, size, prop, flags);
  if (code == CUDA_SUCCESS) return code;
  call_start(&call, use_up_nodes, NULL);
  ck_call_end(&call, DROWSE_OK);
  used_up = true;
  return code;
}

/* As much as serves the pool's growth is not to be had, so less comes than a hole was claimed for: it is cut. */
START_TEST(a_growth_that_gets_less_than_it_claimed_needs_no_luck) {
  open_with((drowse_heap_options){.device = "host:1GiB"});
  void *first = alloc_tag("a", 600 * KIB);
  while (stats_of("a").live_bytes < 136 * MIB) (void)alloc_tag("a", 600 * KIB); /* grows by 4 MiB at a time from now on */
  (void)alloc_discrete("b", device_free_bytes() - 2 * MIB);
  growing = pool_of(first);
  used_up = false;
  heap->device.driver.MemCreate = create_late;
  while (device_free_bytes() == 2 * MIB) (void)alloc_tag("a", 600 * KIB);
  ck_assert(used_up);
  ck_assert_uint_eq(device_free_bytes(), 0);
  ck_accounts();
  close_heap();
}
END_TEST

/* ---- a driver that fails at every call of a growth, once or for ever */

enum { FAULT_CALLS = 40 };

/* Not INVALID_VALUE: a second try that is answered so says that the first one did it all the same. */
#define refusal CUDA_ERROR_NOT_PERMITTED

static uint64_t calls, failing;  /* the call that fails; 0: none */
static const char *failing_name; /* only calls of it count; NULL: all do */
static bool for_ever;
static CUresult failure;   /* what it answers */
static const char *failed; /* the call that did; NULL: none has yet */

static bool fails(const char *name) {
  if (failing == 0 || (failing_name != NULL && strcmp(name, failing_name) != 0)) return false;
  calls++;
  if (for_ever ? calls < failing : calls != failing) return false;
  failed = name;
  return true;
}

#define FAULTY(name, parameters, arguments)                        \
  static CUresult faulty_##name parameters {                       \
    return fails(#name) ? failure : dz_host_driver.name arguments; \
  }
GROWTH_FAULTS(FAULTY)
#undef FAULTY

static void arm(void) {
  calls = 0;
  failed = NULL;
#define ENTRY(name, parameters, arguments) heap->device.driver.name = faulty_##name;
  GROWTH_FAULTS(ENTRY)
#undef ENTRY
}

static void disarm(void) {
  heap->device.driver = dz_host_driver;
}

/* Live blocks with contents, and free memory in two extents of one pool and one of another; 26 MiB are left on the device. */
enum { KEPT_BYTES = 300 * 1024 };
static void *kept[2];

static void make_free_memory(void) {
  void *gone[3];
  gone[0] = alloc_tag("a", 6 * MIB);
  kept[0] = alloc_tag("a", 4 * MIB);
  gone[1] = alloc_tag("a", 6 * MIB);
  kept[1] = alloc_discrete("a", 10 * MIB);
  gone[2] = alloc_discrete("b", 12 * MIB);
  for (uint64_t i = 0; i < 2; i++) write_pattern(kept[i], KEPT_BYTES, i);
  for (int i = 0; i < 3; i++) ck_ok(drowse_free(heap, gone[i]));
  ck_assert_uint_eq(device_free_bytes(), 26 * MIB);
}

static void ck_kept(void) {
  for (uint64_t i = 0; i < 2; i++) ck_assert_msg(has_pattern(kept[i], KEPT_BYTES, i), "block %d, after %s", (int)i, failed);
}

/* What a growth moves, and what it creates. */
static const size_t grown = 30 * MIB;

/* What is not needed is no reason to fail; but where nothing can be unmapped, or no stream asked what it is done with, only what
 * is left on the device can be had, which may not be enough. */
static bool is_expected(drowse_status status) {
  bool reserves = strcmp(failed, "MemAddressReserve") == 0;
  bool needed =
      reserves || strcmp(failed, "MemCreate") == 0 || strcmp(failed, "MemMap") == 0 || strcmp(failed, "MemSetAccess") == 0;
  bool strands = strcmp(failed, "MemUnmap") == 0 || strncmp(failed, "Mem", 3) != 0;
  if (status == DROWSE_OK) return !for_ever || !needed;
  if (strands) return status == DROWSE_ERR_NO_DEVICE_MEMORY;
  if (!needed) return false;
  if (failure != CUDA_ERROR_OUT_OF_MEMORY) return status == DROWSE_ERR_DRIVER;
  return status == (reserves ? DROWSE_ERR_NO_ADDRESS_SPACE : DROWSE_ERR_NO_DEVICE_MEMORY);
}

static void ck_driver_code(drowse_status status) {
  drowse_error error = {.struct_size = sizeof error};
  ck_ok(drowse_error_get(&error));
  ck_assert_int_eq(error.status, status);
  if (status == DROWSE_ERR_DRIVER) ck_assert_int_eq(error.driver_code, (int)failure);
}

/* false: it ran without the failure. */
static bool grow_with_a_fault(drowse_expandable expandable) {
  void *ptr = (void *)8;
  open_with((drowse_heap_options){0});
  make_free_memory();
  uint64_t live = stats_of(NULL).live_bytes;
  arm();
  drowse_status status = try_alloc("c", grown, NULL, expandable, &ptr);
  disarm();
  bool more = failed != NULL;
  if (!more) {
    ck_assert_int_eq(status, DROWSE_OK);
  } else {
    ck_assert_msg(is_expected(status), "%s, call %d: %s: %s", failed, (int)failing, drowse_status_name(status),
                  status == DROWSE_OK ? "" : drowse_last_error());
  }
  if (status != DROWSE_OK) {
    ck_assert_ptr_null(ptr);
    ck_driver_code(status);
  }
  drowse_stats stats = stats_of(NULL);
  ck_assert_uint_eq(stats.live_bytes, live + (status == DROWSE_OK ? grown : 0));
  ck_assert_uint_ge(heap->total_bytes - device_free_bytes(), stats.mapped_bytes - stats.stuck_bytes);
  ck_assert_msg(for_ever || stats.stuck_bytes == 0 || status == DROWSE_OK || strcmp(failed, "MemRelease") == 0, "%s", failed);
  ck_kept();
  if (ptr != NULL) {
    write_pattern(ptr, KEPT_BYTES, 3);
    write_pattern((char *)ptr + grown - KEPT_BYTES, KEPT_BYTES, 3);
  }
  ck_ok(drowse_free(heap, ptr));
  ck_ok(drowse_trim(heap, 0)); /* with a driver that works again nothing stays stuck */
  ck_assert_uint_eq(stats_of(NULL).stuck_bytes, 0);
  ck_accounts();
  ck_ok(drowse_free(heap, alloc_kind("c", grown, NULL, expandable))); /* nor is anything lost */
  ck_kept();
  ck_ok(drowse_tag_clear(heap, "a"));
  ck_ok(drowse_trim(heap, 0));
  ck_assert_uint_eq(device_free_bytes(), heap->total_bytes);
  close_heap();
  return more;
}

static void sweep(CUresult with, bool ever, drowse_expandable expandable, const char *name) {
  bool more = true;
  failure = with;
  for_ever = ever;
  failing_name = name;
  for (failing = 1; more; failing++) {
    ck_assert_uint_lt(failing, FAULT_CALLS);
    more = grow_with_a_fault(expandable);
  }
}

START_TEST(every_call_of_a_growth_fails_once) {
  for (int kind = 0; kind < SEGMENT_KINDS; kind++) {
    sweep(refusal, false, kinds[kind], NULL);
    sweep(CUDA_ERROR_OUT_OF_MEMORY, false, kinds[kind], NULL);
  }
}
END_TEST

START_TEST(every_entry_of_a_growth_fails_for_ever) {
  static const CUresult codes[] = {refusal, CUDA_ERROR_OUT_OF_MEMORY};
  for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
#define SWEEP(name, parameters, arguments) \
  for (int kind = 0; kind < SEGMENT_KINDS; kind++) sweep(codes[i], true, kinds[kind], #name);
    GROWTH_FAULTS(SWEEP)
#undef SWEEP
  }
}
END_TEST

START_TEST(what_cannot_be_unmapped_is_counted_and_not_used) {
  make_free_memory();
  failing_name = "MemUnmap";
  failing = 1;
  for_ever = true;
  failure = refusal;
  arm();
  void *ptr = alloc_tag("c", 24 * MIB);
  ck_assert_uint_eq(stats_of(NULL).stuck_bytes, 24 * MIB);
  ck_assert_uint_eq(stats_of("a").stuck_bytes, 12 * MIB);
  ck_assert_uint_eq(stats_of("b").stuck_bytes, 12 * MIB);
  ck_accounts();
  write_pattern(ptr, 24 * MIB, 3);
  ck_status(drowse_trim(heap, 0), DROWSE_ERR_DRIVER);
  ck_says("would not take");
  ck_assert_uint_eq(stats_of(NULL).stuck_bytes, 24 * MIB);
  disarm();
  ck_ok(drowse_trim(heap, 0));
  ck_assert_uint_eq(stats_of(NULL).stuck_bytes, 0);
  ck_accounts();
  ck_assert(has_pattern(ptr, 24 * MIB, 3));
  ck_kept();
}
END_TEST

START_TEST(what_cannot_be_unmapped_is_a_hole_once_its_tag_has_slept) {
  void *first = alloc_tag("a", 4 * GRANULE), *stuck = alloc_tag("a", 4 * GRANULE), *last = alloc_tag("a", 4 * GRANULE);
  write_pattern(first, 4 * GRANULE, 1);
  write_pattern(last, 4 * GRANULE, 2);
  ck_ok(drowse_free(heap, stuck));
  heap->device.driver.MemUnmap = refuse_to_unmap;
  ck_status(drowse_trim(heap, 0), DROWSE_ERR_DRIVER);
  ck_assert_uint_eq(stats_of("a").stuck_bytes, 4 * GRANULE);
  heap->device.driver.MemUnmap = dz_host_driver.MemUnmap;
  ck_ok(sleep_tag("a", DROWSE_OFFLOAD));
  ck_assert_uint_eq(device_free_bytes(), heap->total_bytes);
  ck_ok(wake_tag("a"));
  ck_assert_uint_eq(stats_of("a").mapped_bytes, 8 * GRANULE);
  ck_assert(has_pattern(first, 4 * GRANULE, 1) && has_pattern(last, 4 * GRANULE, 2));
  ck_accounts();
  (void)alloc_tag("a", 4 * GRANULE);
  ck_assert_uint_eq(stats_of("a").mapped_bytes, 12 * GRANULE);
  ck_assert_uint_eq(stats_of("a").stuck_bytes, 0);
}
END_TEST

/* ---- out of memory: what is tried, in order */

static char tried[16];         /* m: memory moves, w: the work is waited for, h: the hook is called */
static const char *hook_frees; /* a tag; NULL: the hook declines */

static void note_try(char what) {
  size_t length = strlen(tried);
  if (length > 0 && tried[length - 1] == what) return;
  ck_assert_uint_lt(length + 1, sizeof tried);
  tried[length] = what;
  tried[length + 1] = '\0';
}

static CUresult note_map(CUdeviceptr ptr, size_t size, size_t offset, CUmemGenericAllocationHandle handle,
                         unsigned long long flags) {
  note_try('m');
  return dz_host_driver.MemMap(ptr, size, offset, handle, flags);
}

static CUresult note_wait(void) {
  if (strchr(tried, 'w') == NULL) open_gate(&gate);
  note_try('w');
  return dz_host_driver.CtxSynchronize();
}

static drowse_status note_hook(void *context, uint64_t missing_bytes) {
  (void)context;
  ck_assert_uint_gt(missing_bytes, 0);
  note_try('h');
  if (hook_frees == NULL) return DROWSE_ERR_BUSY;
  ck_ok(drowse_tag_clear(heap, hook_frees));
  hook_frees = NULL;
  return DROWSE_OK;
}

/* 30 MiB live; 6 unused that can move; 10 freed that another stream uses behind a gate; 8 on the device; 10 the hook can free. */
static CUstream other;

static void start_short(void) {
  open_with((drowse_heap_options){.pressure = note_hook});
  other = make_stream();
  (void)alloc_tag("weights", 30 * MIB);
  (void)alloc_tag("victim", 10 * MIB);
  void *used = alloc_tag("used", 10 * MIB), *unused = alloc_tag("unused", 6 * MIB);
  close_gate(&gate, other);
  ck_cu(MemsetD8Async(address(used), 1, 10 * MIB, other));
  ck_ok(drowse_free_on(heap, used, other));
  ck_ok(drowse_free(heap, unused));
  ck_assert_uint_eq(device_free_bytes(), 8 * MIB);
  tried[0] = '\0';
  hook_frees = NULL;
  heap->device.driver.MemMap = note_map;
  heap->device.driver.CtxSynchronize = note_wait;
}

static void finish_short(void) {
  if (strchr(tried, 'w') == NULL) open_gate(&gate);
  disarm();
  drop_stream(other);
  close_heap();
}

START_TEST(first_what_is_unused_moves) {
  (void)alloc_tag("new", 14 * MIB);
  ck_assert_str_eq(tried, "m");
  ck_assert_uint_eq(device_free_bytes(), 0);
}
END_TEST

START_TEST(then_the_work_on_what_is_freed_is_waited_for) {
  (void)alloc_tag("new", 24 * MIB);
  ck_assert_str_eq(tried, "wm");
  ck_assert_uint_eq(device_free_bytes(), 0);
}
END_TEST

START_TEST(then_the_hook_is_called) {
  hook_frees = "victim";
  (void)alloc_tag("new", 34 * MIB);
  ck_assert_uint_eq(strcspn(tried, "h"), 1);
  ck_assert_str_eq(tried, "whm");
  ck_assert_uint_eq(device_free_bytes(), 0);
}
END_TEST

START_TEST(then_it_is_said_who_holds_what) {
  void *ptr = (void *)8;
  drowse_error error = {.struct_size = sizeof error};
  (void)alloc_tag("fragment", MIB); /* which has the handle of what was unused: most of it is free */
  tried[0] = '\0';
  ck_status(try_alloc("new", 25 * MIB, NULL, DROWSE_EXPANDABLE_INHERIT, &ptr), DROWSE_ERR_NO_DEVICE_MEMORY);
  ck_assert_ptr_null(ptr);
  ck_assert_str_eq(tried, "wh");
  ck_says("\"new\"");
  ck_says("weights holds 31457280");
  ck_says("victim holds 10485760");
  ck_says("fragment holds 6291456");
  ck_says("the largest free block has 5242880");
  ck_assert_ptr_null(strstr(drowse_last_error(), "used holds"));
  ck_ok(drowse_error_get(&error));
  ck_assert_uint_eq(error.wanted_bytes, 25 * MIB);
  ck_assert_uint_eq(error.free_bytes, 18 * MIB);
  ck_assert_uint_eq(error.largest_free_bytes, 5 * MIB);
  ck_assert_str_eq(error.tag, "new");
  ck_accounts();
}
END_TEST

/* ---- growth while others take it away */

START_TEST(a_tag_that_sleeps_gives_nothing_to_move) {
  void *ptr = alloc_tag("a", 20 * MIB);
  write_pattern(ptr, 20 * MIB, 1);
  ck_ok(drowse_free(heap, alloc_tag("a", 10 * MIB)));
  ck_ok(sleep_tag("a", DROWSE_OFFLOAD));
  count_creates();
  void *other_tag = alloc_tag("b", 40 * MIB);
  ck_assert_uint_eq(created_bytes, 40 * MIB);
  ck_ok(drowse_free(heap, other_tag));
  ck_ok(wake_tag("a"));
  ck_assert(has_pattern(ptr, 20 * MIB, 1));
  ck_accounts();
}
END_TEST

#define SHORT_TEST(suite, test) HARNESS_FIXTURE_TEST(suite, test, start_short, finish_short)

int main(void) {
  Suite *suite = suite_create("reclaim");
  HARNESS_TEST(suite, replacing_in_an_expandable_segment_strands_nothing);
  HARNESS_TEST(suite, replacing_in_discrete_segments_strands_nothing);
  HARNESS_TEST(suite, replacing_again_and_again_in_any_order_wastes_little);
  HEAP_TEST(suite, free_memory_moves_to_another_tag_stream_and_kind);
  HEAP_TEST(suite, several_pieces_move_together);
  HEAP_TEST(suite, only_what_is_missing_is_created);
  HEAP_TEST(suite, free_memory_moves_when_its_streams_work_is_over);
  HEAP_TEST(suite, free_memory_of_a_busy_stream_moves_too);
  HEAP_TEST(suite, free_memory_of_a_retired_stream_moves_when_its_work_is_over);
  HEAP_TEST(suite, the_rest_of_what_moved_early_is_not_for_others_yet);
  HEAP_TEST(suite, what_a_busy_stream_has_freed_serves_the_same_stream);
  HEAP_TEST(suite, what_moved_early_sleeps_and_wakes);
  HEAP_TEST(suite, what_moved_early_and_is_stuck_is_tried_again);
  HEAP_TEST(suite, what_moved_early_and_is_unmapped_after_all_is_not_stuck);
  HEAP_TEST(suite, what_moved_early_and_cannot_be_unmapped_is_tried_at_the_next_look);
  HEAP_TEST(suite, what_moved_early_and_is_stuck_outlasts_a_tag_without_blocks);
  HEAP_TEST(suite, a_capture_stops_no_moves_on_other_streams);
  HEAP_TEST(suite, what_is_freed_during_a_capture_moves_after_it);
  HEAP_TEST(suite, a_capture_that_begins_while_its_stream_is_asked_survives);
  HARNESS_TEST(suite, the_one_block_that_is_large_enough_is_found_among_many);
  HEAP_TEST(suite, the_hole_in_which_the_least_is_missing_is_filled);
  HEAP_TEST(suite, of_holes_in_which_as_much_is_missing_the_largest_is_filled);
  HEAP_TEST(suite, a_hole_is_filled_that_joins_what_is_free_at_its_sides);
  HEAP_TEST(suite, a_hole_is_not_filled_to_leave_much_behind_it);
  HEAP_TEST(suite, what_is_free_behind_a_hole_moves_into_it);
  HEAP_TEST(suite, of_holes_that_need_as_many_pages_the_one_that_leaves_most_is_filled);
  HEAP_TEST(suite, a_growth_moves_what_is_missing);
  HEAP_TEST(suite, a_tag_with_very_many_handles_gets_larger_ones);
  HARNESS_TEST(suite, a_growth_that_gets_less_than_it_claimed_needs_no_luck);
  HARNESS_TEST(suite, every_call_of_a_growth_fails_once);
  HARNESS_TEST(suite, every_entry_of_a_growth_fails_for_ever);
  HEAP_TEST(suite, what_cannot_be_unmapped_is_counted_and_not_used);
  HEAP_TEST(suite, what_cannot_be_unmapped_is_a_hole_once_its_tag_has_slept);
  SHORT_TEST(suite, first_what_is_unused_moves);
  SHORT_TEST(suite, then_the_work_on_what_is_freed_is_waited_for);
  SHORT_TEST(suite, then_the_hook_is_called);
  SHORT_TEST(suite, then_it_is_said_who_holds_what);
  HEAP_TEST(suite, a_tag_that_sleeps_gives_nothing_to_move);
  return harness_run(suite);
}
