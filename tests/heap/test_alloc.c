/* SPDX-License-Identifier: Apache-2.0
 *
 * Allocating and freeing: what a block is, where it comes from, what is reused by whom, and what happens when there is no more.
 */
#include "fixture.h"

#include "heap/quick.h"

static void *alloc(size_t bytes) {
  void *ptr = NULL;
  ck_ok(drowse_alloc(heap, bytes, NULL, &ptr));
  return ptr;
}

static drowse_block block_of(const void *ptr) {
  drowse_block block = {.struct_size = sizeof block};
  ck_ok(drowse_block_get(heap, ptr, &block));
  return block;
}

/* ---- what a block is */

START_TEST(nothing_is_null) {
  void *ptr = (void *)8;
  ck_ok(drowse_alloc(heap, 0, NULL, &ptr));
  ck_assert_ptr_null(ptr);
  ck_ok(drowse_free(heap, NULL));
  ck_assert_uint_eq(stats_of(NULL).live_blocks, 0);
}
END_TEST

START_TEST(bad_arguments_are_refused) {
  void *ptr = (void *)8;
  struct {
    drowse_alloc_options known;
    uint64_t later;
  } options = {.known = {.struct_size = sizeof options.known}};
  ck_status(drowse_alloc(heap, 1, NULL, NULL), DROWSE_ERR_INVALID);
  ck_status(drowse_alloc(NULL, 1, NULL, &ptr), DROWSE_ERR_INVALID);
  ck_assert_ptr_null(ptr);
  options.known.expandable = (drowse_expandable)3;
  ck_status(drowse_alloc_with(heap, 1, NULL, &options.known, &ptr), DROWSE_ERR_INVALID);
  options.known = (drowse_alloc_options){.struct_size = sizeof options.known, .flags = 1};
  ck_status(drowse_alloc_with(heap, 1, NULL, &options.known, &ptr), DROWSE_ERR_UNSUPPORTED);
  options.known = (drowse_alloc_options){.struct_size = sizeof options.known, .tag = "bad\n"};
  ck_status(drowse_alloc_with(heap, 1, NULL, &options.known, &ptr), DROWSE_ERR_INVALID);
  options.known = (drowse_alloc_options){.struct_size = 0};
  ck_status(drowse_alloc_with(heap, 1, NULL, &options.known, &ptr), DROWSE_ERR_INVALID);
  options.known = (drowse_alloc_options){.struct_size = sizeof options};
  options.later = 1;
  ck_status(drowse_alloc_with(heap, 1, NULL, &options.known, &ptr), DROWSE_ERR_UNSUPPORTED);
  static const size_t alignments[] = {3, 511, 513, 4 * MIB, SIZE_MAX};
  for (size_t i = 0; i < sizeof alignments / sizeof *alignments; i++) {
    options.known = (drowse_alloc_options){.struct_size = sizeof options.known, .alignment = alignments[i]};
    ck_status(drowse_alloc_with(heap, 1, NULL, &options.known, &ptr), DROWSE_ERR_INVALID);
  }
  ck_status(drowse_alloc(heap, 1, (drowse_stream)0x1234, &ptr), DROWSE_ERR_DRIVER);
  ck_assert_ptr_null(ptr);
  ck_assert_uint_eq(stats_of(NULL).live_blocks, 0);
}
END_TEST

START_TEST(blocks_are_aligned) {
  static const size_t alignments[] = {0, 1, 2, 256, 512, 1024, 4096, 65536, MIB, 2 * MIB};
  for (size_t i = 0; i < sizeof alignments / sizeof *alignments; i++) {
    for (int expandable = DROWSE_EXPANDABLE_ON; expandable <= DROWSE_EXPANDABLE_OFF; expandable++) {
      void *ptrs[3];
      drowse_alloc_options options = {
          .struct_size = sizeof options, .alignment = alignments[i], .expandable = (drowse_expandable)expandable};
      for (int n = 0; n < 3; n++) {
        ck_ok(drowse_alloc_with(heap, 700, NULL, &options, &ptrs[n]));
        ck_assert_uint_eq((uintptr_t)ptrs[n] % (alignments[i] < 512 ? 512 : alignments[i]), 0);
        write_pattern(ptrs[n], 700, (uint64_t)n);
      }
      for (int n = 0; n < 3; n++) {
        ck_assert(has_pattern(ptrs[n], 700, (uint64_t)n));
        ck_ok(drowse_free(heap, ptrs[n]));
      }
    }
  }
}
END_TEST

START_TEST(sizes_are_as_asked_for) {
  static const size_t sizes[] = {1, 511, 512, 513, 2 * MIB - 1, 2 * MIB, 2 * MIB + 1, 5 * MIB + 7};
  uint64_t live = 0;
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    void *ptr = alloc(sizes[i]);
    drowse_block block = block_of(ptr);
    ck_assert_ptr_eq(block.base, ptr);
    ck_assert_uint_eq(block.bytes, sizes[i]);
    live += (sizes[i] + 511) / 512 * 512;
    ck_assert_uint_eq(stats_of(NULL).live_bytes, live);
    write_pattern(ptr, sizes[i], i);
    ck_assert(has_pattern(ptr, sizes[i], i));
  }
}
END_TEST

/* ---- tags */

START_TEST(the_frame_or_the_option_says_which_tag) {
  void *outside, *inside = NULL, *named = NULL;
  drowse_alloc_options options = {.struct_size = sizeof options, .tag = "by option"};
  outside = alloc(1);
  DROWSE_SCOPE("by frame", DROWSE_EXPANDABLE_INHERIT) {
    inside = alloc(1);
    ck_ok(drowse_alloc_with(heap, 1, NULL, &options, &named));
  }
  ck_assert_str_eq(block_of(outside).tag, "default");
  ck_assert_str_eq(block_of(inside).tag, "by frame");
  ck_assert_str_eq(block_of(named).tag, "by option");
  DROWSE_SCOPE("another", DROWSE_EXPANDABLE_INHERIT) ck_assert_str_eq(block_of(inside).tag, "by frame");
}
END_TEST

/* An expandable segment reserves as many addresses as the device has memory; a discrete one as many as it maps. */
static bool grew_in_place(const char *tag, drowse_expandable frame, drowse_expandable option) {
  void *ptr = NULL;
  drowse_alloc_options options = {.struct_size = sizeof options, .tag = tag, .expandable = option};
  DROWSE_SCOPE(NULL, frame) ck_ok(drowse_alloc_with(heap, MIB, NULL, &options, &ptr));
  drowse_stats stats = stats_of(tag);
  ck_assert_uint_eq(stats.mapped_bytes, GRANULE);
  ck_assert(stats.reserved_bytes == GRANULE || stats.reserved_bytes == 64 * MIB);
  return stats.reserved_bytes == 64 * MIB;
}

static void ck_kinds(bool setting) {
  const drowse_expandable inherit = DROWSE_EXPANDABLE_INHERIT, on = DROWSE_EXPANDABLE_ON, off = DROWSE_EXPANDABLE_OFF;
  ck_assert(grew_in_place("1", inherit, inherit) == setting);
  ck_assert(grew_in_place("2", on, inherit));
  ck_assert(!grew_in_place("3", off, inherit));
  ck_assert(grew_in_place("4", off, on));
  ck_assert(!grew_in_place("5", on, off));
}

START_TEST(setting_frame_and_option_say_which_kind) {
  open_with((drowse_heap_options){.settings = "expandable_segments:True"});
  ck_kinds(true);
  close_heap();
  open_with((drowse_heap_options){.settings = "expandable_segments:False"});
  ck_kinds(false);
  close_heap();
}
END_TEST

START_TEST(an_expandable_segment_grows_in_place) {
  char *first = alloc_tag("a", 2 * MIB), *next = NULL;
  for (int i = 1; i < 30; i++) {
    next = alloc_tag("a", 2 * MIB);
    ck_assert_ptr_eq(next, first + (uint64_t)i * 2 * MIB);
  }
  ck_assert_uint_eq(stats_of("a").reserved_bytes, 64 * MIB);
  ck_assert_uint_le(stats_of("a").mapped_bytes, 64 * MIB);
}
END_TEST

START_TEST(tags_never_share_an_extent) {
  uint64_t low[3], high[3];
  static const char *const tags[] = {"a", "b", "c"};
  for (int round = 0; round < 10; round++) {
    for (int i = 0; i < 3; i++) {
      uint64_t at = (uint64_t)(uintptr_t)alloc_tag(tags[i], 100 * KIB);
      low[i] = at / GRANULE;
      high[i] = (at + 100 * KIB - 1) / GRANULE;
    }
    for (int i = 0; i < 3; i++) {
      for (int j = 0; j < i; j++) ck_assert(high[i] < low[j] || high[j] < low[i]);
    }
  }
}
END_TEST

/* ---- reuse */

START_TEST(a_freed_block_is_reused_on_its_own_stream) {
  CUstream stream = make_stream();
  void *ptr = alloc_on("a", 3 * MIB, stream);
  (void)alloc_on("a", 3 * MIB, stream); /* so that it has a neighbour */
  uint64_t mapped = stats_of("a").mapped_bytes;
  for (int i = 0; i < 100; i++) {
    ck_ok(drowse_free(heap, ptr));
    ck_assert_ptr_eq(alloc_on("a", 3 * MIB, stream), ptr);
  }
  ck_assert_uint_eq(stats_of("a").mapped_bytes, mapped);
  drop_stream(stream);
}
END_TEST

static bool overlaps(const char *a, size_t a_bytes, const char *b, size_t b_bytes) {
  return a < b + b_bytes && b < a + a_bytes;
}

START_TEST(a_freed_block_goes_to_no_other_stream_tag_or_kind) {
  CUstream one = make_stream(), two = make_stream();
  char *freed[8];
  for (int i = 0; i < 8; i++) {
    freed[i] = alloc_on("a", MIB, one);
    (void)alloc_on("a", MIB, one); /* in the same extent, so that it stays where it is */
  }
  for (int i = 0; i < 8; i++) ck_ok(drowse_free(heap, freed[i]));
  for (int i = 0; i < 8; i++) {
    void *discrete;
    drowse_alloc_options options = {.struct_size = sizeof options, .tag = "a", .expandable = DROWSE_EXPANDABLE_OFF};
    ck_ok(drowse_alloc_with(heap, MIB, one, &options, &discrete));
    char *others[] = {alloc_on("a", MIB, two), alloc_on("a", MIB, NULL), alloc_on("b", MIB, one), discrete};
    for (size_t n = 0; n < sizeof others / sizeof *others; n++) {
      for (int f = 0; f < 8; f++) ck_assert_msg(!overlaps(freed[f], MIB, others[n], MIB), "case %zu", n);
    }
  }
  drop_stream(one);
  drop_stream(two);
}
END_TEST

static void *alloc_per_thread(void *argument) {
  *(void **)argument = alloc_on("a", MIB, CU_STREAM_PER_THREAD);
  return NULL;
}

START_TEST(the_per_thread_stream_is_another_one_in_every_thread) {
  pthread_t thread;
  void *mine = alloc_on("a", MIB, CU_STREAM_PER_THREAD), *other;
  (void)alloc_on("a", MIB, CU_STREAM_PER_THREAD); /* in the same extent, so that the other thread cannot have that */
  ck_ok(drowse_free(heap, mine));
  ck_assert_int_eq(pthread_create(&thread, NULL, alloc_per_thread, &other), 0);
  ck_assert_int_eq(pthread_join(thread, NULL), 0);
  ck_assert_ptr_ne(other, mine);
  ck_assert_ptr_eq(alloc_on("a", MIB, CU_STREAM_PER_THREAD), mine);
  ck_assert_ptr_ne(alloc_on("a", MIB, NULL), mine);
}
END_TEST

START_TEST(both_names_of_the_legacy_stream_are_one) {
  void *ptr = alloc_on("a", MIB, CU_STREAM_LEGACY);
  ck_ok(drowse_free(heap, ptr));
  ck_assert_ptr_eq(alloc_on("a", MIB, NULL), ptr);
}
END_TEST

START_TEST(freed_neighbours_are_joined) {
  char *ptrs[16];
  for (int i = 0; i < 16; i++) ptrs[i] = alloc(MIB);
  uint64_t mapped = stats_of(NULL).mapped_bytes;
  for (int i = 0; i < 16; i += 2) ck_ok(drowse_free(heap, ptrs[i]));
  for (int i = 1; i < 16; i += 2) ck_ok(drowse_free(heap, ptrs[i]));
  ck_assert_ptr_eq(alloc(16 * MIB), ptrs[0]);
  ck_assert_uint_eq(stats_of(NULL).mapped_bytes, mapped);
}
END_TEST

/* A larger free block is there, but what is joined fits. */
START_TEST(kept_neighbours_are_joined_before_a_large_block_is_cut) {
  void *large = alloc(10 * MIB), *wall = alloc(2 * MIB), *low = alloc(4 * MIB), *high = alloc(4 * MIB), *end = alloc(2 * MIB);
  ck_assert_ptr_eq((char *)low + 4 * MIB, high);
  ck_ok(drowse_free(heap, large));
  ck_ok(drowse_trim(heap, UINT64_MAX)); /* gives nothing back, but joins what was kept */
  ck_ok(drowse_free(heap, low));
  ck_ok(drowse_free(heap, high));
  ck_assert_ptr_eq(alloc(8 * MIB), low);
  ck_assert_ptr_eq(alloc(10 * MIB), large);
  ck_ok(drowse_free(heap, wall));
  ck_ok(drowse_free(heap, end));
}
END_TEST

static struct pool *pool_of(const void *ptr) {
  struct block *block = dz_block_lock(heap, (uint64_t)(uintptr_t)ptr, false);
  ck_assert_ptr_nonnull(block);
  dz_pool_unlock(dz_pool_of(block));
  return dz_pool_of(block);
}

/* How many blocks of a size are kept as they are. */
static unsigned kept(struct pool *pool, uint64_t bytes) {
  const struct quick *quick = dz_quick_of(pool, bytes);
  return quick->bytes == bytes ? (unsigned)quick->count : 0;
}

static void free_one(size_t bytes) {
  ck_ok(drowse_free(heap, alloc(bytes)));
}

/* Whoever has picked a free block to be moved, and let its pool go, sees that it has become part of another. */
START_TEST(what_has_been_joined_is_no_free_block) {
  char *low = alloc(2 * MIB), *high = alloc(2 * MIB), *wall = alloc(2 * MIB);
  struct block *joined = dz_block_lock(heap, (uint64_t)(uintptr_t)high, true);
  dz_pool_unlock(dz_pool_of(joined));
  ck_ok(drowse_free(heap, high));
  ck_ok(drowse_trim(heap, UINT64_MAX)); /* gives nothing back, but joins what was kept */
  ck_assert_int_eq(joined->state, DZ_FREE);
  ck_ok(drowse_free(heap, low));
  ck_ok(drowse_trim(heap, UINT64_MAX));
  ck_assert_ptr_eq(alloc(4 * MIB), low);
  ck_assert_int_ne(joined->state, DZ_FREE);
  ck_ok(drowse_free(heap, wall));
}
END_TEST

/* Of three sizes that share a place two are kept: a new one takes the place of that which got none for longer. */
START_TEST(the_size_that_is_freed_less_makes_way) {
  struct pool *pool = pool_of(alloc(512));
  uint64_t sizes[3] = {512};
  unsigned found = 1;
  for (uint64_t bytes = 1024; found < 3; bytes += 512) {
    ck_assert_uint_lt(bytes, MIB);
    if (dz_quick_place(pool, bytes) == dz_quick_place(pool, sizes[0])) sizes[found++] = bytes;
  }
  free_one(sizes[0]);
  free_one(sizes[1]);
  free_one(sizes[0]);
  ck_assert(kept(pool, sizes[0]) == 1 && kept(pool, sizes[1]) == 1);
  free_one(sizes[2]);
  ck_assert(kept(pool, sizes[0]) == 1 && kept(pool, sizes[1]) == 0 && kept(pool, sizes[2]) == 1);
  free_one(sizes[1]);
  ck_assert(kept(pool, sizes[0]) == 0 && kept(pool, sizes[1]) == 1 && kept(pool, sizes[2]) == 1);
}
END_TEST

/* The same block again and again, of which more or less is asked for: small, and larger than its entry in the index can tell. */
START_TEST(what_is_kept_knows_how_much_is_asked_for) {
  const size_t sizes[] = {KIB, KIB, KIB - 1, KIB - 1, 513, KIB, 600, KIB};
  for (size_t more = 0; more <= 32 * MIB; more += 32 * MIB) {
    void *first = alloc(more + KIB);
    struct pool *pool = pool_of(first);
    ck_ok(drowse_free(heap, first));
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
      void *ptr = alloc(more + sizes[i]);
      ck_assert_ptr_eq(ptr, first);
      ck_assert_uint_eq(block_of(ptr).bytes, more + sizes[i]);
      ck_assert_uint_eq(pool->live_bytes, more + KIB);
      ck_ok(drowse_free(heap, ptr));
      ck_assert_uint_eq(kept(pool, more + KIB), 1);
      ck_status(drowse_free(heap, ptr), DROWSE_ERR_NOT_FOUND);
      ck_status(drowse_record_stream(heap, ptr, NULL), DROWSE_ERR_NOT_FOUND);
    }
  }
}
END_TEST

/* Blocks that are joined leave nodes over, and these serve other pools, too. */
START_TEST(a_pool_hoards_no_metadata) {
  enum { BLOCKS = 20000 };
  void **ptrs = xmalloc(BLOCKS * sizeof *ptrs);
  for (int i = 0; i < BLOCKS; i++) ptrs[i] = alloc_tag("a", 512);
  struct pool *pool = pool_of(ptrs[0]);
  for (int i = 0; i < BLOCKS; i++) ck_ok(drowse_free(heap, ptrs[i]));
  ck_ok(drowse_trim(heap, UINT64_MAX)); /* gives nothing back, but joins what was kept */
  ck_assert_uint_gt(pool->spare_count, BLOCKS / 2);
  uint64_t page_bytes = heap->block_slab.page_bytes;
  (void)alloc_tag("a", 64 * KIB);
  ck_assert_uint_lt(pool->spare_count, 1000);
  for (int i = 0; i < BLOCKS; i++) ptrs[i] = alloc_tag("b", 512);
  ck_assert_uint_eq(heap->block_slab.page_bytes, page_bytes);
  free(ptrs);
}
END_TEST

/* ---- freeing */

START_TEST(what_is_no_block_is_not_freed) {
  char *ptr = alloc(4096), local;
  write_pattern(ptr, 4096, 1);
  ck_status(drowse_free(heap, ptr + 1), DROWSE_ERR_NOT_FOUND);
  ck_says("1 bytes into the block");
  ck_status(drowse_free(heap, ptr + 4095), DROWSE_ERR_NOT_FOUND);
  ck_status(drowse_free(heap, ptr + 4096), DROWSE_ERR_NOT_FOUND);
  ck_status(drowse_free(heap, ptr - 1), DROWSE_ERR_NOT_FOUND);
  ck_status(drowse_free(heap, &local), DROWSE_ERR_NOT_FOUND);
  ck_status(drowse_free(NULL, ptr), DROWSE_ERR_INVALID);
  ck_assert(has_pattern(ptr, 4096, 1));
  ck_ok(drowse_free(heap, ptr));
  ck_status(drowse_free(heap, ptr), DROWSE_ERR_NOT_FOUND); /* twice */
  ck_assert_uint_eq(stats_of(NULL).live_blocks, 0);
  ck_assert_ptr_eq(alloc(4096), ptr); /* it was not put into the bins twice either */
  ck_assert_ptr_ne(alloc(4096), ptr);
}
END_TEST

static drowse_status free_it(void *ptr) {
  return drowse_free(heap, ptr);
}

START_TEST(any_thread_frees) {
  struct call call;
  void *ptr = alloc(MIB);
  call_start(&call, free_it, ptr);
  ck_call_end(&call, DROWSE_OK);
  ck_status(drowse_free(heap, ptr), DROWSE_ERR_NOT_FOUND);
  ck_assert_ptr_eq(alloc(MIB), ptr);
}
END_TEST

START_TEST(a_block_of_another_heap_is_none) {
  drowse_heap *other;
  void *ptr;
  ck_ok(drowse_heap_open(&other, &(drowse_heap_options){.struct_size = sizeof(drowse_heap_options), .device = "host:64MiB"}));
  ck_ok(drowse_alloc(other, MIB, NULL, &ptr));
  ck_status(drowse_free(heap, ptr), DROWSE_ERR_NOT_FOUND);
  ck_ok(drowse_free(other, ptr));
  ck_ok(drowse_heap_close(other));
}
END_TEST

START_TEST(a_tag_is_cleared) {
  CUstream stream = make_stream();
  void *kept = alloc_tag("kept", MIB), *gone = NULL;
  for (int i = 0; i < 10; i++) gone = alloc_on("gone", MIB, i % 2 == 0 ? stream : NULL);
  write_pattern(kept, MIB, 1);
  ck_ok(drowse_tag_clear(heap, "gone"));
  ck_assert_uint_eq(stats_of("gone").live_blocks, 0);
  ck_assert_uint_eq(stats_of("gone").live_bytes, 0);
  ck_status(drowse_free(heap, gone), DROWSE_ERR_NOT_FOUND);
  ck_assert(has_pattern(kept, MIB, 1));
  ck_ok(drowse_tag_clear(heap, "gone"));
  ck_status(drowse_tag_clear(heap, "unknown"), DROWSE_ERR_NOT_FOUND);
  ck_status(drowse_tag_clear(heap, NULL), DROWSE_ERR_INVALID);
  ck_status(drowse_tag_clear(NULL, "gone"), DROWSE_ERR_INVALID);
  (void)alloc_tag("gone", MIB);
  drop_stream(stream);
}
END_TEST

START_TEST(a_sleeping_tag_is_cleared) {
  (void)alloc_tag("a", MIB);
  (void)alloc_tag("a", MIB);
  ck_ok(sleep_tag("a", DROWSE_OFFLOAD));
  ck_ok(drowse_tag_clear(heap, "a"));
  ck_assert_uint_eq(stats_of("a").backup_bytes, 0);
  ck_state("a", DROWSE_ASLEEP);
  ck_ok(wake_tag("a"));
  ck_assert_uint_eq(stats_of("a").mapped_bytes, 0);
}
END_TEST

/* ---- no more memory */

START_TEST(out_of_memory_names_who_holds_what) {
  void *ptr = (void *)8;
  drowse_error error = {.struct_size = sizeof error};
  (void)alloc_tag("weights", 40 * MIB);
  (void)alloc_tag("kv_cache", 10 * MIB);
  uint64_t free_bytes = device_free_bytes();
  drowse_alloc_options options = {.struct_size = sizeof options, .tag = "activations"};
  ck_status(drowse_alloc_with(heap, 30 * MIB, NULL, &options, &ptr), DROWSE_ERR_NO_DEVICE_MEMORY);
  ck_assert_ptr_null(ptr);
  ck_says("\"activations\"");
  ck_says("weights holds 41943040");
  ck_says("kv_cache holds 10485760");
  ck_says("host:64MiB");
  ck_ok(drowse_error_get(&error));
  ck_assert_uint_eq(error.wanted_bytes, 30 * MIB);
  ck_assert_uint_eq(error.free_bytes, free_bytes);
  ck_assert_str_eq(error.tag, "activations");
  ck_assert_uint_eq(device_free_bytes(), free_bytes);
  (void)alloc_tag("activations", 14 * MIB);
}
END_TEST

START_TEST(what_cannot_be_is_refused_and_leaves_nothing) {
  static const size_t sizes[] = {65 * MIB, UINT64_C(1) << 34, UINT64_C(1) << 38, UINT64_C(1) << 47, (UINT64_C(1) << 48) + 1,
                                 SIZE_MAX, SIZE_MAX - 511};
  (void)alloc(MIB);
  uint64_t reserved = stats_of(NULL).reserved_bytes, mapped = stats_of(NULL).mapped_bytes;
  uint64_t metadata = stats_of(NULL).metadata_bytes;
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    for (int expandable = DROWSE_EXPANDABLE_ON; expandable <= DROWSE_EXPANDABLE_OFF; expandable++) {
      void *ptr = (void *)8;
      drowse_alloc_options options = {.struct_size = sizeof options, .expandable = (drowse_expandable)expandable};
      drowse_status status = drowse_alloc_with(heap, sizes[i], NULL, &options, &ptr);
      ck_assert(status == DROWSE_ERR_NO_DEVICE_MEMORY || status == DROWSE_ERR_NO_ADDRESS_SPACE);
      ck_assert_ptr_null(ptr);
    }
  }
  ck_assert_uint_eq(stats_of(NULL).mapped_bytes, mapped);
  ck_assert_uint_eq(stats_of(NULL).reserved_bytes, reserved);
  ck_assert_uint_eq(stats_of(NULL).live_blocks, 1);
  ck_assert_uint_le(stats_of(NULL).metadata_bytes, metadata); /* nothing was made ready for what the device cannot have */
}
END_TEST

START_TEST(unused_memory_of_other_pools_is_used_before_giving_up) {
  CUstream stream = make_stream();
  ck_ok(drowse_free(heap, alloc_tag("a", 40 * MIB)));
  ck_ok(drowse_free(heap, alloc_on("b", 20 * MIB, stream)));
  void *ptr = alloc_tag("c", 60 * MIB);
  write_pattern(ptr, 60 * MIB, 1);
  ck_assert(has_pattern(ptr, 60 * MIB, 1));
  drop_stream(stream);
}
END_TEST

/* Addresses that the index has no room for, as no driver gives them so far. */
static unsigned given_addresses, taken_addresses;

static CUresult reserve_beyond(CUdeviceptr *address, size_t bytes, size_t alignment, CUdeviceptr wanted,
                               unsigned long long flags) {
  (void)alignment, (void)wanted, (void)flags;
  given_addresses++;
  *address = DZ_ADDRESS_END - bytes + GRANULE;
  return CUDA_SUCCESS;
}

static CUresult take_back(CUdeviceptr address, size_t bytes) {
  taken_addresses += address + bytes == DZ_ADDRESS_END + GRANULE;
  return CUDA_SUCCESS;
}

START_TEST(addresses_beyond_the_index_are_given_back) {
  void *ptr = NULL;
  heap->device.driver.MemAddressReserve = reserve_beyond;
  heap->device.driver.MemAddressFree = take_back;
  ck_status(drowse_alloc(heap, MIB, NULL, &ptr), DROWSE_ERR_NO_ADDRESS_SPACE);
  ck_assert_uint_gt(given_addresses, 0);
  ck_assert_uint_eq(taken_addresses, given_addresses);
  ck_assert_uint_eq(stats_of(NULL).reserved_bytes, 0);
  heap->device.driver = dz_host_driver;
  ck_ok(drowse_free(heap, alloc(MIB)));
}
END_TEST

START_TEST(growth_is_no_more_than_there_is) {
  /* After 60 of 64 MiB growth by 1/32 would want 2 MiB at a time; the last granules must be had one by one all the same. */
  for (int i = 0; i < 32; i++) (void)alloc_tag("a", 2 * MIB);
  ck_assert_uint_eq(device_free_bytes(), 0);
}
END_TEST

/* ---- the pressure hook */

struct pressure {
  int calls, answers; /* says OK so many times */
  uint64_t missing_bytes;
  void *victims[8];
};

static drowse_status give_a_victim(void *context, uint64_t missing_bytes) {
  struct pressure *pressure = context;
  pressure->missing_bytes = missing_bytes;
  if (pressure->calls >= pressure->answers) return DROWSE_ERR_BUSY;
  ck_ok(drowse_free(heap, pressure->victims[pressure->calls]));
  pressure->calls++;
  return DROWSE_OK;
}

START_TEST(the_pressure_hook_frees_and_it_is_tried_again) {
  struct pressure pressure = {.answers = 3};
  open_with((drowse_heap_options){.pressure = give_a_victim, .pressure_context = &pressure});
  for (int i = 0; i < 3; i++) pressure.victims[i] = alloc_tag("victims", 20 * MIB);
  void *ptr = alloc_tag("wanted", 40 * MIB); /* two of the three make room */
  ck_assert_ptr_nonnull(ptr);
  ck_assert_int_eq(pressure.calls, 2);
  ck_assert_uint_eq(pressure.missing_bytes, 40 * MIB);
  close_heap();
}
END_TEST

START_TEST(the_pressure_hook_may_give_up) {
  struct pressure pressure = {.answers = 1};
  void *ptr = (void *)8;
  open_with((drowse_heap_options){.pressure = give_a_victim, .pressure_context = &pressure});
  for (int i = 0; i < 3; i++) pressure.victims[i] = alloc_tag("victims", 20 * MIB);
  ck_status(drowse_alloc(heap, 40 * MIB, NULL, &ptr), DROWSE_ERR_NO_DEVICE_MEMORY);
  ck_assert_ptr_null(ptr);
  ck_says("victims holds 41943040");
  ck_assert_int_eq(pressure.calls, 1);
  close_heap();
}
END_TEST

static drowse_status put_others_to_sleep(void *context, uint64_t missing_bytes) {
  (void)context;
  (void)missing_bytes;
  return sleep_tag("idle", DROWSE_OFFLOAD);
}

START_TEST(the_pressure_hook_may_put_a_tag_to_sleep) {
  open_with((drowse_heap_options){.pressure = put_others_to_sleep});
  void *idle = alloc_tag("idle", 40 * MIB);
  write_pattern(idle, 40 * MIB, 1);
  void *busy = alloc_tag("busy", 40 * MIB);
  ck_state("idle", DROWSE_ASLEEP);
  ck_ok(drowse_free(heap, busy));
  ck_ok(wake_tag("idle"));
  ck_assert(has_pattern(idle, 40 * MIB, 1));
  close_heap();
}
END_TEST

/* ---- trim */

START_TEST(trim_gives_unused_memory_back) {
  void *kept = alloc_tag("a", 3 * MIB), *gone = alloc_tag("a", 9 * MIB);
  write_pattern(kept, 3 * MIB, 1);
  ck_ok(drowse_free(heap, gone));
  ck_ok(drowse_free(heap, alloc_tag("b", 20 * MIB)));
  ck_ok(drowse_trim(heap, 0));
  drowse_stats stats = stats_of(NULL);
  ck_assert_uint_lt(stats.mapped_bytes - stats.live_bytes, 2 * GRANULE); /* at both ends of what lives */
  ck_assert_uint_eq(stats_of("b").mapped_bytes, 0);
  ck_assert_uint_eq(device_free_bytes(), 64 * MIB - stats.mapped_bytes);
  ck_assert(has_pattern(kept, 3 * MIB, 1));
  void *again = alloc_tag("a", 9 * MIB);
  write_pattern(again, 9 * MIB, 2);
  ck_assert(has_pattern(kept, 3 * MIB, 1));
  ck_assert(has_pattern(again, 9 * MIB, 2));
}
END_TEST

START_TEST(trim_keeps_what_it_is_told_to) {
  void *ptrs[16];
  drowse_alloc_options options = {.struct_size = sizeof options, .expandable = DROWSE_EXPANDABLE_OFF};
  for (int i = 0; i < 16; i++) ck_ok(drowse_alloc_with(heap, 2 * MIB, NULL, &options, &ptrs[i]));
  for (int i = 0; i < 16; i++) ck_ok(drowse_free(heap, ptrs[i]));
  ck_ok(drowse_trim(heap, UINT64_MAX));
  ck_assert_uint_eq(stats_of(NULL).mapped_bytes, 32 * MIB);
  ck_ok(drowse_trim(heap, 10 * MIB));
  ck_assert_uint_eq(stats_of(NULL).mapped_bytes, 10 * MIB);
  ck_ok(drowse_trim(heap, 10 * MIB));
  ck_assert_uint_eq(stats_of(NULL).mapped_bytes, 10 * MIB);
  ck_ok(drowse_trim(heap, 0));
  ck_assert_uint_eq(stats_of(NULL).mapped_bytes, 0);
  ck_assert_uint_eq(stats_of(NULL).reserved_bytes, 0);
  ck_status(drowse_trim(NULL, 0), DROWSE_ERR_INVALID);
  ck_status(drowse_trim_idle(NULL, 0), DROWSE_ERR_INVALID);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("alloc");
  HEAP_TEST(suite, nothing_is_null);
  HEAP_TEST(suite, bad_arguments_are_refused);
  HEAP_TEST(suite, blocks_are_aligned);
  HEAP_TEST(suite, sizes_are_as_asked_for);
  HEAP_TEST(suite, the_frame_or_the_option_says_which_tag);
  HARNESS_TEST(suite, setting_frame_and_option_say_which_kind);
  HEAP_TEST(suite, an_expandable_segment_grows_in_place);
  HEAP_TEST(suite, tags_never_share_an_extent);
  HEAP_TEST(suite, a_freed_block_is_reused_on_its_own_stream);
  HEAP_TEST(suite, a_freed_block_goes_to_no_other_stream_tag_or_kind);
  HEAP_TEST(suite, the_per_thread_stream_is_another_one_in_every_thread);
  HEAP_TEST(suite, both_names_of_the_legacy_stream_are_one);
  HEAP_TEST(suite, freed_neighbours_are_joined);
  HEAP_TEST(suite, kept_neighbours_are_joined_before_a_large_block_is_cut);
  HEAP_TEST(suite, what_is_kept_knows_how_much_is_asked_for);
  HEAP_TEST(suite, a_pool_hoards_no_metadata);
  HEAP_TEST(suite, what_has_been_joined_is_no_free_block);
  HEAP_TEST(suite, the_size_that_is_freed_less_makes_way);
  HEAP_TEST(suite, what_is_no_block_is_not_freed);
  HEAP_TEST(suite, any_thread_frees);
  HEAP_TEST(suite, a_block_of_another_heap_is_none);
  HEAP_TEST(suite, a_tag_is_cleared);
  HEAP_TEST(suite, a_sleeping_tag_is_cleared);
  HEAP_TEST(suite, out_of_memory_names_who_holds_what);
  HEAP_TEST(suite, what_cannot_be_is_refused_and_leaves_nothing);
  HEAP_TEST(suite, unused_memory_of_other_pools_is_used_before_giving_up);
  HEAP_TEST(suite, addresses_beyond_the_index_are_given_back);
  HEAP_TEST(suite, growth_is_no_more_than_there_is);
  HARNESS_TEST(suite, the_pressure_hook_frees_and_it_is_tried_again);
  HARNESS_TEST(suite, the_pressure_hook_may_give_up);
  HARNESS_TEST(suite, the_pressure_hook_may_put_a_tag_to_sleep);
  HEAP_TEST(suite, trim_gives_unused_memory_back);
  HEAP_TEST(suite, trim_keeps_what_it_is_told_to);
  return harness_run(suite);
}
