/* SPDX-License-Identifier: Apache-2.0
 *
 * Putting tags to sleep: what the rules say, all or none, and that every byte and pointer is there after waking.
 */
#include "fixture.h"

static const drowse_rule offload_rest = {.action = DROWSE_OFFLOAD};

static drowse_status sleep_by(size_t count, const drowse_rule *rules) {
  return drowse_sleep(heap, rules, count, NULL);
}

#define rules(...)                                                              \
  sizeof((drowse_rule[]){__VA_ARGS__}) / sizeof(drowse_rule), (drowse_rule[]) { \
    __VA_ARGS__                                                                 \
  }
#define OFFLOAD(name) \
  { .tag = name, .action = DROWSE_OFFLOAD }
#define DISCARD(name) \
  { .tag = name, .action = DROWSE_DISCARD }
#define KEEP(name) \
  { .tag = name, .action = DROWSE_KEEP }

/* Three tags of a block each, with contents. */
static void *block[3];
static const char *const names[] = {"a", "b", "c"};
enum { BYTES = 3 * 1024 * 1024 };

static void start_tags(void) {
  start();
  for (uint64_t i = 0; i < 3; i++) write_pattern(block[i] = alloc_tag(names[i], BYTES), BYTES, i);
}

static void ck_states(drowse_state a, drowse_state b, drowse_state c) {
  ck_state("a", a);
  ck_state("b", b);
  ck_state("c", c);
}

#define ck_whole(number) ck_assert(has_pattern(block[number], BYTES, number))

/* ---- rules */

START_TEST(each_tag_does_what_its_rule_says) {
  ck_ok(sleep_by(rules(OFFLOAD("a"), DISCARD("b"), KEEP("c"))));
  ck_states(DROWSE_ASLEEP, DROWSE_ASLEEP, DROWSE_AWAKE);
  ck_assert_uint_eq(stats_of("a").backup_bytes, BYTES);
  ck_assert_uint_eq(stats_of("b").backup_bytes, 0);
  ck_assert_uint_eq(stats_of("b").discarded_bytes, BYTES);
  ck_assert_uint_eq(device_free_bytes(), 64 * MIB - stats_of("c").mapped_bytes);
  ck_whole(2);
  ck_ok(wake_all_tags());
  ck_whole(0);
  ck_whole(2);
}
END_TEST

START_TEST(tags_without_a_rule_are_kept) {
  ck_ok(sleep_by(rules(OFFLOAD("b"))));
  ck_states(DROWSE_AWAKE, DROWSE_ASLEEP, DROWSE_AWAKE);
  ck_ok(sleep_by(0, NULL));
  ck_ok(sleep_by(rules(KEEP("b"), KEEP("a"))));
  ck_states(DROWSE_AWAKE, DROWSE_ASLEEP, DROWSE_AWAKE);
}
END_TEST

START_TEST(the_null_rule_is_for_all_others) {
  ck_ok(sleep_by(rules(KEEP("b"), OFFLOAD(NULL))));
  ck_states(DROWSE_ASLEEP, DROWSE_AWAKE, DROWSE_ASLEEP);
  ck_ok(wake_all_tags());
  ck_ok(sleep_by(rules(DISCARD(NULL), OFFLOAD("b"))));
  ck_assert_uint_eq(stats_of(NULL).backup_bytes, BYTES);
  ck_states(DROWSE_ASLEEP, DROWSE_ASLEEP, DROWSE_ASLEEP);
}
END_TEST

static void ck_nothing_changed(void) {
  drowse_stats stats = stats_of(NULL);
  ck_states(DROWSE_AWAKE, DROWSE_AWAKE, DROWSE_AWAKE);
  ck_assert_uint_eq(stats.backup_bytes + stats.discarded_bytes + stats.sleeps + stats.wakes, 0);
  ck_assert_uint_eq(stats.mapped_bytes, 64 * MIB - device_free_bytes());
  for (uint64_t i = 0; i < 3; i++) ck_whole(i);
  ck_ok(drowse_free(heap, alloc_tag("a", MIB)));
}

START_TEST(bad_rules_change_nothing) {
  ck_status(sleep_by(rules(OFFLOAD("a"), OFFLOAD("b"), DISCARD("a"))), DROWSE_ERR_INVALID);
  ck_says("\"a\"");
  ck_status(sleep_by(rules(OFFLOAD("a"), OFFLOAD("a"))), DROWSE_ERR_INVALID);
  ck_status(sleep_by(rules(OFFLOAD(NULL), KEEP(NULL))), DROWSE_ERR_INVALID);
  ck_status(sleep_by(rules(OFFLOAD("a"), OFFLOAD("unknown"))), DROWSE_ERR_NOT_FOUND);
  ck_says("\"unknown\"");
  ck_status(sleep_by(rules(OFFLOAD("a"), OFFLOAD(""))), DROWSE_ERR_NOT_FOUND);
  ck_status(sleep_by(rules(OFFLOAD("a"), {.tag = "b", .action = (drowse_action)3})), DROWSE_ERR_INVALID);
  ck_status(sleep_by(rules(OFFLOAD("a"), {.tag = "b", .action = DROWSE_OFFLOAD, .flags = 1})), DROWSE_ERR_UNSUPPORTED);
  ck_status(sleep_by(rules(OFFLOAD("a"), {.tag = "b", .action = DROWSE_OFFLOAD, .reserved = {0, 1}})), DROWSE_ERR_UNSUPPORTED);
  ck_status(drowse_sleep(heap, NULL, 1, NULL), DROWSE_ERR_INVALID);
  ck_status(drowse_sleep(NULL, &offload_rest, 1, NULL), DROWSE_ERR_INVALID);
  ck_nothing_changed();
}
END_TEST

START_TEST(bad_options_change_nothing) {
  const drowse_sleep_options bad[] = {
      {.struct_size = 4},
      {.struct_size = sizeof bad[0], .drain = (drowse_drain)3},
      {.struct_size = sizeof bad[0], .backup = (drowse_backup)3},
      {.struct_size = sizeof bad[0], .drain = DROWSE_DRAIN_STREAMS, .stream_count = 1},
      {.struct_size = sizeof bad[0], .backup = DROWSE_BACKUP_FILE},
      {.struct_size = sizeof bad[0], .backup = DROWSE_BACKUP_HOST_THEN_FILE},
  };
  const drowse_sleep_options later[] = {
      {.struct_size = sizeof bad[0], .flags = 1},
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    ck_status(drowse_sleep(heap, &offload_rest, 1, &bad[i]), DROWSE_ERR_INVALID);
  }
  for (size_t i = 0; i < sizeof later / sizeof *later; i++) {
    ck_status(drowse_sleep(heap, &offload_rest, 1, &later[i]), DROWSE_ERR_UNSUPPORTED);
  }
  ck_nothing_changed();
}
END_TEST

START_TEST(sleeping_again_does_nothing) {
  ck_ok(sleep_by(rules(OFFLOAD(NULL))));
  drowse_stats before = stats_of(NULL);
  ck_ok(sleep_by(rules(OFFLOAD(NULL))));
  ck_ok(sleep_by(rules(OFFLOAD("a"), KEEP("b"))));
  drowse_stats after = stats_of(NULL);
  ck_assert_mem_eq(&before, &after, sizeof before);
  ck_ok(wake_all_tags());
  before = stats_of(NULL);
  ck_ok(wake_all_tags());
  after = stats_of(NULL);
  ck_assert_mem_eq(&before, &after, sizeof before);
  for (uint64_t i = 0; i < 3; i++) ck_whole(i);
}
END_TEST

START_TEST(discarding_a_sleeping_tag_drops_its_backup) {
  unsigned char byte;
  ck_ok(sleep_by(rules(OFFLOAD("a"), OFFLOAD("b"))));
  ck_ok(sleep_by(rules(DISCARD("a"))));
  ck_assert_uint_eq(stats_of("a").backup_bytes, 0);
  ck_assert_uint_eq(stats_of("a").discarded_bytes, BYTES);
  ck_status(drowse_copy_out(heap, &byte, block[0], 1), DROWSE_ERR_ASLEEP);
  ck_whole(1);
  ck_ok(sleep_by(rules(DISCARD("a")))); /* once more */
  ck_ok(sleep_by(rules(OFFLOAD("a")))); /* what is gone stays gone, and nothing is said */
  ck_assert_uint_eq(stats_of("a").discarded_bytes, BYTES);
  ck_ok(wake_all_tags());
  ck_whole(1);
}
END_TEST

START_TEST(a_tag_without_blocks_sleeps_too) {
  ck_ok(drowse_tag_clear(heap, "a"));
  ck_ok(sleep_by(rules(OFFLOAD(NULL))));
  ck_assert_uint_eq(stats_of("a").mapped_bytes, 0);
  ck_assert_uint_eq(stats_of("a").reserved_bytes, 0);
  ck_state("a", DROWSE_ASLEEP);
  ck_ok(wake_all_tags());
  ck_state("a", DROWSE_AWAKE);
  (void)alloc_tag("a", MIB);
}
END_TEST

/* ---- asleep */

START_TEST(a_sleeping_tag_is_read_and_written_through_its_backup) {
  unsigned char *ptr = block[0], byte = 0x77, found = 0;
  ck_ok(sleep_by(rules(OFFLOAD("a"))));
  ck_whole(0);
  ck_ok(drowse_copy_in(heap, ptr + 5, &byte, 1));
  ck_ok(drowse_copy_out(heap, &found, ptr + 5, 1));
  ck_assert_uint_eq(found, 0x77);
  ck_status(drowse_copy_in(heap, ptr + BYTES - 1, &byte, 2), DROWSE_ERR_INVALID);
  write_pattern(ptr, BYTES, 99);
  ck_ok(wake_all_tags());
  ck_assert(has_pattern(ptr, BYTES, 99));
}
END_TEST

START_TEST(a_backup_is_read_and_written_where_it_is) {
  unsigned char *ptr = block[0], *expected = xmalloc(BYTES);
  void *host = ptr;
  ck_status(drowse_backup_get(heap, ptr, BYTES, &host), DROWSE_ERR_NOT_FOUND);
  ck_says("awake");
  ck_assert_ptr_null(host);
  ck_ok(sleep_by(rules(OFFLOAD("a"))));
  fill_pattern(expected, BYTES, 0);
  ck_ok(drowse_backup_get(heap, ptr + 5, BYTES - 5, &host));
  ck_assert_mem_eq(host, expected + 5, BYTES - 5);
  fill_pattern(expected, BYTES, 99);
  memcpy(host, expected + 5, BYTES - 5);
  ck_ok(drowse_backup_get(heap, ptr, 5, &host));
  memcpy(host, expected, 5);
  free(expected);
  ck_ok(wake_all_tags());
  ck_assert(has_pattern(ptr, BYTES, 99));
}
END_TEST

START_TEST(a_backup_that_is_not_there_is_not_found) {
  unsigned char *ptr = block[0];
  void *host;
  ck_ok(sleep_by(rules(OFFLOAD("a"), DISCARD("b"))));
  ck_status(drowse_backup_get(heap, block[1], BYTES, &host), DROWSE_ERR_NOT_FOUND);
  ck_says("discarded");
  ck_error_tag("b");
  ck_status(drowse_backup_get(heap, &host, 1, &host), DROWSE_ERR_NOT_FOUND);
  ck_status(drowse_backup_get(heap, ptr + 1, BYTES, &host), DROWSE_ERR_INVALID);
  ck_assert_ptr_null(host);
  ck_status(drowse_backup_get(heap, ptr, BYTES, NULL), DROWSE_ERR_INVALID);
  ck_status(drowse_backup_get(NULL, ptr, BYTES, &host), DROWSE_ERR_INVALID);
}
END_TEST

START_TEST(discarded_memory_cannot_be_read_or_written) {
  unsigned char byte = 1;
  ck_ok(sleep_by(rules(DISCARD("a"))));
  ck_status(drowse_copy_out(heap, &byte, block[0], 1), DROWSE_ERR_ASLEEP);
  ck_error_tag("a");
  ck_status(drowse_copy_in(heap, block[0], &byte, 1), DROWSE_ERR_ASLEEP);
  ck_ok(wake_all_tags());
  ck_ok(drowse_copy_in(heap, block[0], &byte, 1));
}
END_TEST

START_TEST(freeing_a_sleeping_block_frees_its_backup) {
  void *more = alloc_tag("a", MIB), *last = alloc_tag("a", MIB);
  write_pattern(more, MIB, 4);
  write_pattern(last, MIB, 5);
  ck_ok(sleep_by(rules(OFFLOAD("a"), DISCARD("b"))));
  ck_ok(drowse_free(heap, more));
  ck_ok(drowse_free(heap, block[1]));
  ck_status(drowse_free(heap, more), DROWSE_ERR_NOT_FOUND);
  ck_assert_uint_eq(stats_of("a").backup_bytes, BYTES + MIB);
  ck_assert_uint_eq(stats_of("a").live_blocks, 2);
  ck_assert_uint_eq(stats_of("b").discarded_bytes, 0);
  ck_ok(wake_all_tags());
  ck_whole(0);
  ck_assert(has_pattern(last, MIB, 5));
  ck_assert_uint_eq(stats_of("b").mapped_bytes, 0);
  (void)alloc_tag("a", MIB);
}
END_TEST

START_TEST(the_backup_of_a_freed_block_is_used_again) {
  uint64_t pinned = 0;
  for (int i = 0; i < 5; i++) {
    void *more = alloc_tag("a", 8 * MIB);
    ck_ok(sleep_by(rules(OFFLOAD("a"))));
    if (i == 0) pinned = stats_of(NULL).pinned_bytes;
    ck_ok(drowse_free(heap, more));
    ck_ok(wake_all_tags());
  }
  ck_assert_uint_eq(stats_of(NULL).pinned_bytes, pinned);
  ck_whole(0);
}
END_TEST

START_TEST(nothing_is_allocated_for_a_sleeping_tag) {
  void *ptr = (void *)8;
  drowse_alloc_options options = {.struct_size = sizeof options, .tag = "a"};
  ck_ok(sleep_by(rules(OFFLOAD("a"))));
  ck_status(drowse_alloc_with(heap, MIB, NULL, &options, &ptr), DROWSE_ERR_ASLEEP);
  ck_assert_ptr_null(ptr);
  ck_error_tag("a");
  ck_says("asleep");
  (void)alloc_tag("b", MIB);
}
END_TEST

START_TEST(addresses_stay_reserved) {
  uintptr_t low = (uintptr_t)block[0], high = low + BYTES;
  ck_ok(sleep_by(rules(OFFLOAD("a"))));
  for (int i = 0; i < 20; i++) {
    uintptr_t ptr = (uintptr_t)alloc_tag(i % 2 == 0 ? "b" : "new", MIB);
    ck_assert(ptr >= high || ptr + MIB <= low);
  }
  ck_ok(wake_all_tags());
  ck_whole(0);
}
END_TEST

/* ---- all or none */

START_TEST(too_small_a_backup_limit_changes_nothing) {
  drowse_error error = {.struct_size = sizeof error};
  open_with((drowse_heap_options){.backup_limit = 5 * MIB});
  for (uint64_t i = 0; i < 3; i++) write_pattern(block[i] = alloc_tag(names[i], BYTES), BYTES, i);
  ck_status(sleep_by(rules(DISCARD("a"), OFFLOAD("b"), OFFLOAD(NULL), OFFLOAD("a"))), DROWSE_ERR_INVALID);
  ck_status(sleep_by(rules(OFFLOAD(NULL))), DROWSE_ERR_NO_HOST_MEMORY);
  ck_ok(drowse_error_get(&error));
  ck_assert_uint_ge(error.wanted_bytes, 9 * MIB);
  ck_assert_uint_eq(stats_of(NULL).pinned_bytes, 0);
  ck_nothing_changed();
  ck_ok(sleep_by(rules(OFFLOAD("a"), DISCARD("b"))));
  ck_status(sleep_by(rules(OFFLOAD("c"))), DROWSE_ERR_NO_HOST_MEMORY); /* 3 of 5 MiB are in use */
  ck_state("c", DROWSE_AWAKE);
  ck_whole(0);
  ck_whole(2);
  ck_ok(sleep_by(rules(DISCARD("a")))); /* which makes room */
  ck_ok(sleep_by(rules(OFFLOAD("c"))));
  ck_ok(wake_all_tags());
  ck_whole(2);
  close_heap();
}
END_TEST

START_TEST(pinned_memory_is_kept_for_the_next_sleep) {
  ck_ok(sleep_by(rules(OFFLOAD(NULL))));
  uint64_t pinned = stats_of(NULL).pinned_bytes;
  for (int i = 0; i < 5; i++) {
    ck_ok(wake_all_tags());
    ck_assert_uint_eq(stats_of(NULL).backup_bytes, 0);
    ck_ok(sleep_by(rules(OFFLOAD(NULL))));
    ck_assert_uint_eq(stats_of(NULL).pinned_bytes, pinned);
  }
}
END_TEST

/* ---- data and pointers through many rounds */

enum { SLOTS = 40, ROUNDS = 12 };

static struct slot {
  void *ptr;
  size_t bytes;
  uint64_t seed;
} slots[SLOTS];

static void change_some(uint64_t *random) {
  for (int i = 0; i < SLOTS; i++) {
    struct slot *slot = &slots[i];
    if (random_below(random, 2) == 0) continue;
    if (slot->ptr != NULL) {
      ck_ok(drowse_free(heap, slot->ptr));
      slot->ptr = NULL;
      continue;
    }
    drowse_alloc_options options = {.struct_size = sizeof options,
                                    .tag = names[random_below(random, 2)],
                                    .alignment = 512ull << random_below(random, 13),
                                    .expandable = (drowse_expandable)(1 + random_below(random, 2))};
    slot->bytes = 1 + random_below(random, i % 4 == 0 ? 3 * MIB : 64 * KIB);
    slot->seed = next_random(random);
    ck_ok(drowse_alloc_with(heap, slot->bytes, NULL, &options, &slot->ptr));
    write_pattern(slot->ptr, slot->bytes, slot->seed);
  }
}

static void ck_slots(void) {
  for (int i = 0; i < SLOTS; i++) {
    if (slots[i].ptr != NULL) ck_assert_msg(has_pattern(slots[i].ptr, slots[i].bytes, slots[i].seed), "slot %d", i);
  }
}

START_TEST(every_byte_and_pointer_through_many_rounds) {
  uint64_t random = 7;
  open_with((drowse_heap_options){.device = "host:128MiB"});
  memset(slots, 0, sizeof slots);
  for (int round = 0; round < ROUNDS; round++) {
    change_some(&random);
    ck_ok(sleep_by(rules(OFFLOAD(NULL))));
    ck_assert_uint_eq(device_free_bytes(), 128 * MIB);
    ck_slots();
    for (int i = round % 7; i < SLOTS; i += 7) { /* some go meanwhile */
      ck_ok(drowse_free(heap, slots[i].ptr));
      slots[i].ptr = NULL;
    }
    ck_ok(wake_all_tags());
    ck_slots();
    if (round % 3 == 0) ck_ok(drowse_trim(heap, 0));
    ck_slots();
  }
  close_heap();
}
END_TEST

START_TEST(blocks_larger_than_a_piece_of_a_copy) {
  const size_t bytes = 66 * MIB + 513;
  open_with((drowse_heap_options){.device = "host:96MiB"});
  void *ptr = alloc_tag("a", bytes);
  write_pattern(ptr, bytes, 1);
  ck_ok(sleep_tag("a", DROWSE_OFFLOAD));
  ck_ok(wake_tag("a"));
  ck_assert(has_pattern(ptr, bytes, 1));
  close_heap();
}
END_TEST

START_TEST(a_captured_graph_still_works) {
  CUstream stream = make_stream();
  CUgraph graph;
  CUgraphExec executable;
  void *ptr = alloc_on("a", MIB, stream);
  ck_cu(StreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
  ck_cu(MemsetD8Async((CUdeviceptr)(uintptr_t)ptr, 0x42, MIB, stream));
  ck_cu(StreamEndCapture(stream, &graph));
  ck_cu(GraphInstantiateWithFlags(&executable, graph, 0));
  ck_ok(sleep_by(rules(OFFLOAD(NULL))));
  ck_ok(wake_all_tags());
  ck_cu(GraphLaunch(executable, stream));
  ck_assert(is_filled(ptr, MIB, 0x42));
  ck_cu(GraphExecDestroy(executable));
  ck_cu(GraphDestroy(graph));
  drop_stream(stream);
}
END_TEST

/* ---- progress */

struct shown {
  pthread_t thread;
  CUcontext context;
  int calls;
  uint64_t done, total;
  bool ok;
};

static void show(void *argument, const drowse_progress *progress) {
  struct shown *shown = argument;
  CUcontext current = NULL;
  shown->ok = shown->ok && pthread_equal(shown->thread, pthread_self()) && cu->CtxGetCurrent(&current) == CUDA_SUCCESS &&
              current == shown->context && progress->done_bytes > shown->done && progress->done_bytes <= progress->total_bytes &&
              progress->tag != NULL && drowse_tag_get(progress->tag) != NULL;
  drowse_stats stats = stats_of(NULL); /* it may call drowse */
  (void)stats;
  shown->calls++;
  shown->done = progress->done_bytes;
  shown->total = progress->total_bytes;
}

static void ck_shown(struct shown *shown, uint64_t total) {
  ck_assert(shown->ok);
  ck_assert_int_gt(shown->calls, 0);
  ck_assert_uint_eq(shown->total, total);
  ck_assert_uint_eq(shown->done, total);
  *shown = (struct shown){.thread = pthread_self(), .context = shown->context, .ok = true};
}

START_TEST(progress_rises_to_the_total) {
  struct shown shown = {.thread = pthread_self(), .ok = true};
  drowse_sleep_options sleep_options = {.struct_size = sizeof sleep_options, .progress = show, .context = &shown};
  drowse_wake_options wake_options = {.struct_size = sizeof wake_options, .progress = show, .context = &shown};
  CUcontext contexts[] = {NULL, heap->context};
  for (int i = 0; i < 20; i++) (void)alloc_tag("a", 100 * KIB);
  uint64_t a = stats_of("a").live_bytes;
  for (int i = 0; i < 2; i++) {
    shown.context = contexts[i];
    ck_cu(CtxSetCurrent(contexts[i]));
    ck_ok(drowse_sleep(heap, (drowse_rule[]){OFFLOAD("a"), DISCARD("b"), OFFLOAD("c")}, 3, &sleep_options));
    ck_shown(&shown, a + BYTES);
    ck_ok(drowse_wake(heap, NULL, 0, &wake_options));
    ck_shown(&shown, a + BYTES);
    ck_ok(drowse_sleep(heap, (drowse_rule[]){OFFLOAD("a"), DISCARD("b"), OFFLOAD("c")}, 3, &sleep_options));
    ck_shown(&shown, a + BYTES);
    wake_options.flags = DROWSE_WAKE_ZERO; /* what is filled counts too */
    ck_ok(drowse_wake(heap, NULL, 0, &wake_options));
    ck_shown(&shown, a + 2 * BYTES);
    wake_options.flags = 0;
  }
}
END_TEST

#define TAGS_TEST(suite, test) HARNESS_FIXTURE_TEST(suite, test, start_tags, finish)

int main(void) {
  Suite *suite = suite_create("sleep");
  TAGS_TEST(suite, each_tag_does_what_its_rule_says);
  TAGS_TEST(suite, tags_without_a_rule_are_kept);
  TAGS_TEST(suite, the_null_rule_is_for_all_others);
  TAGS_TEST(suite, bad_rules_change_nothing);
  TAGS_TEST(suite, bad_options_change_nothing);
  TAGS_TEST(suite, sleeping_again_does_nothing);
  TAGS_TEST(suite, discarding_a_sleeping_tag_drops_its_backup);
  TAGS_TEST(suite, a_tag_without_blocks_sleeps_too);
  TAGS_TEST(suite, a_sleeping_tag_is_read_and_written_through_its_backup);
  TAGS_TEST(suite, a_backup_is_read_and_written_where_it_is);
  TAGS_TEST(suite, a_backup_that_is_not_there_is_not_found);
  TAGS_TEST(suite, discarded_memory_cannot_be_read_or_written);
  TAGS_TEST(suite, freeing_a_sleeping_block_frees_its_backup);
  TAGS_TEST(suite, the_backup_of_a_freed_block_is_used_again);
  TAGS_TEST(suite, nothing_is_allocated_for_a_sleeping_tag);
  TAGS_TEST(suite, addresses_stay_reserved);
  HARNESS_TEST(suite, too_small_a_backup_limit_changes_nothing);
  TAGS_TEST(suite, pinned_memory_is_kept_for_the_next_sleep);
  HARNESS_TEST(suite, every_byte_and_pointer_through_many_rounds);
  HARNESS_TEST(suite, blocks_larger_than_a_piece_of_a_copy);
  TAGS_TEST(suite, a_captured_graph_still_works);
  TAGS_TEST(suite, progress_rises_to_the_total);
  return harness_run(suite);
}
