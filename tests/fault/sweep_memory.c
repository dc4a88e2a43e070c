/* SPDX-License-Identifier: Apache-2.0
 *
 * The sweep of allocating, freeing, copying, and giving back.
 */
#include <string.h>

#include "fault/world.h"

#define DRIVERS (SWEEP_BIT(ERR_DRIVER) | SWEEP_BIT(ERR_DEVICE_LOST) | SWEEP_BIT(ERR_NO_DEVICE_MEMORY))
#define ALLOCS (DRIVERS | SWEEP_BIT(ERR_NO_HOST_MEMORY) | SWEEP_BIT(ERR_NO_ADDRESS_SPACE))

#define FILES (SWEEP_BIT(ERR_IO) | SWEEP_BIT(ERR_NO_HOST_MEMORY) | SWEEP_BIT(ERR_SYSTEM))

/* ---- allocating */

static struct {
  const char *tag;
  drowse_expandable expandable;
  size_t bytes;
  void *ptr;
} wanted;

static void want(const char *tag, drowse_expandable expandable, size_t bytes) {
  wanted.tag = tag;
  wanted.expandable = expandable;
  wanted.bytes = bytes;
}

static drowse_status alloc(void) {
  drowse_alloc_options options = {.struct_size = sizeof options, .tag = wanted.tag, .expandable = wanted.expandable};
  return drowse_alloc_with(world_heap, wanted.bytes, world_stream, &options, &wanted.ptr);
}

static void check_allocated(drowse_status status) {
  EXPECT((status == DROWSE_OK) == (wanted.ptr != NULL));
  if (status != DROWSE_OK) return;
  struct world_block *block = world_room();
  world_note(block, wanted.tag, wanted.ptr, wanted.bytes);
  if (!fault_is_for_ever()) world_write(block);
}

static void first_large(void) {
  world_open();
  want("c", DROWSE_EXPANDABLE_ON, MIB + 4099);
}

static void first_small(void) {
  world_open();
  want("c", DROWSE_EXPANDABLE_OFF, 3000);
}

static void one_more(void) {
  world_awake();
  want("a", DROWSE_EXPANDABLE_ON, 2 * MIB);
}

static void on_stream(void) {
  world_awake();
  world_make_stream();
  want("a", DROWSE_EXPANDABLE_ON, MIB);
}

static void *make(const char *tag, size_t bytes) {
  drowse_alloc_options options = {.struct_size = sizeof options, .tag = tag, .expandable = DROWSE_EXPANDABLE_ON};
  void *ptr;
  EXPECT_OK(drowse_alloc_with(world_heap, bytes, NULL, &options, &ptr));
  return ptr;
}

/* What is free of another tag has to move. */
static void full_but_for_free(void) {
  world_open_with((drowse_heap_options){.device = "host:12MiB"});
  world_fill();
  EXPECT_OK(drowse_free(world_heap, make("c", 4 * MIB)));
  want("a", DROWSE_EXPANDABLE_ON, 3 * MIB);
}

static void *hoard;

/* With the fault still there: freeing needs no call that can fail. */
static drowse_status free_hoard(void *nothing, uint64_t bytes) {
  (void)nothing;
  (void)bytes;
  if (hoard == NULL) return DROWSE_ERR_NOT_FOUND;
  EXPECT_OK(drowse_free(world_heap, hoard));
  hoard = NULL;
  return DROWSE_OK;
}

static void full(void) {
  world_open_with((drowse_heap_options){.device = "host:12MiB", .pressure = free_hoard});
  world_fill();
  hoard = make("c", 4 * MIB);
  want("a", DROWSE_EXPANDABLE_ON, 3 * MIB);
}

/* The hook may have been asked already by a try that failed, and its memory is free. */
static void check_pressed(drowse_status status) {
  check_allocated(status);
  if (hoard != NULL) {
    EXPECT_OK(drowse_free(world_heap, hoard));
    hoard = NULL;
  }
}

static void at_hand(void) {
  world_awake();
  want("a", DROWSE_EXPANDABLE_ON, 3000);
  EXPECT_OK(drowse_free(world_heap, make("a", 3000)));
}

static drowse_status alloc_in_scope(void) {
  drowse_scope scope;
  drowse_status status = drowse_scope_enter(&scope, wanted.tag, wanted.expandable);
  if (status != DROWSE_OK) return status;
  status = drowse_alloc(world_heap, wanted.bytes, NULL, &wanted.ptr);
  EXPECT_OK(drowse_scope_leave(&scope));
  return status;
}

/* ---- freeing */

static drowse_status free_first(void) {
  return drowse_free(world_heap, world_blocks[0].ptr);
}

static drowse_status free_first_on_stream(void) {
  return drowse_free_on(world_heap, world_blocks[0].ptr, world_stream);
}

static void check_freed(drowse_status status) {
  if (status == DROWSE_OK) world_blocks[0].tag = NULL;
}

static drowse_status clear(void) {
  return drowse_tag_clear(world_heap, "a");
}

static void check_cleared(drowse_status status) {
  for (size_t i = 0; i < 3 && status == DROWSE_OK; i++) world_blocks[i].tag = NULL;
}

static void with_stream(void) {
  world_awake();
  world_make_stream();
}

static drowse_status record(void) {
  return drowse_record_stream(world_heap, world_blocks[0].ptr, world_stream);
}

static void used_by_stream(void) {
  with_stream();
  EXPECT_OK(record());
}

static void with_used_and_freed(void) {
  used_by_stream();
  EXPECT_OK(free_first());
  world_blocks[0].tag = NULL;
  want("a", DROWSE_EXPANDABLE_ON, MIB);
}

/* One that could not put the caller's context back has retired it. */
static drowse_status retire(void) {
  static bool tried;
  drowse_status status = drowse_stream_retire(world_heap, world_stream);
  if (status == DROWSE_ERR_NOT_FOUND && tried) status = DROWSE_OK;
  tried = true;
  if (status == DROWSE_OK) world_destroy_stream();
  return status;
}

/* ---- copying */

static unsigned char written[MIB + 4099];

static drowse_status copy_in(void) {
  struct world_block *block = &world_blocks[0];
  memset(written, 0x5a, sizeof written);
  return drowse_copy_in(world_heap, (char *)block->ptr + 1000, written, block->bytes - 2000);
}

/* Of a call that failed it is known that what it was not to write has not been written. */
static void check_written(drowse_status status) {
  static unsigned char found[sizeof written];
  struct world_block *block = &world_blocks[0];
  if (fault_is_for_ever() && world_state("a") != DROWSE_ASLEEP) return;
  const unsigned char *before = world_pattern(block);
  EXPECT_OK(drowse_copy_out(world_heap, found, block->ptr, block->bytes));
  EXPECT(memcmp(found, before, 1000) == 0 && memcmp(found + block->bytes - 1000, before + block->bytes - 1000, 1000) == 0);
  bool is_new = memcmp(found + 1000, written, block->bytes - 2000) == 0;
  bool is_old = memcmp(found + 1000, before + 1000, block->bytes - 2000) == 0;
  EXPECT_MSG(is_new || (status != DROWSE_OK && is_old), "what was to be written is neither there nor what was there before");
  world_write(block);
}

static drowse_status copy_in_whole(void) {
  struct world_block *block = &world_blocks[3];
  memset(written, 0x5a, sizeof written);
  return drowse_copy_in(world_heap, block->ptr, written, block->bytes);
}

/* Written in part or not, the tag wakes; where the file could not be read either, after it has been written once more. */
static void check_whole(drowse_status status) {
  const char *tag = "b";
  if (status != DROWSE_OK && sweep_case()->mode != FAULT_ONCE) world_write(&world_blocks[3]);
  EXPECT_OK(drowse_wake(world_heap, &tag, 1, NULL));
  world_write(&world_blocks[3]);
}

static drowse_status copy_out(void) {
  memset(written, 0, sizeof written);
  return drowse_copy_out(world_heap, written, world_blocks[0].ptr, world_blocks[0].bytes);
}

static drowse_status backup_get(void) {
  void *host;
  drowse_status status = drowse_backup_get(world_heap, world_blocks[0].ptr, world_blocks[0].bytes, &host);
  if (status == DROWSE_OK) memcpy(written, host, world_blocks[0].bytes);
  return status;
}

static void check_read(drowse_status status) {
  bool same = memcmp(written, world_pattern(&world_blocks[0]), world_blocks[0].bytes) == 0;
  EXPECT_MSG(status != DROWSE_OK || same, "what was read is something else");
}

/* ---- giving back */

static void with_free(void) {
  world_awake();
  EXPECT_OK(drowse_free(world_heap, make("a", 4 * MIB)));
  EXPECT_OK(drowse_free(world_heap, make("c", 4 * MIB)));
}

static drowse_status trim(void) {
  return drowse_trim(world_heap, 0);
}

static drowse_status trim_idle(void) {
  return drowse_trim_idle(world_heap, 0);
}

static void check_trimmed(drowse_status status) {
  if (status == DROWSE_OK) EXPECT(world_stats(NULL).mapped_bytes <= 8 * MIB);
}

static drowse_status reserve(void) {
  return drowse_backup_reserve(world_heap, 4 * MIB);
}

static drowse_status reserve_start(void) {
  return drowse_backup_reserve_start(world_heap, 4 * MIB);
}

static void with_reserve(void) {
  world_asleep();
  EXPECT_OK(reserve());
}

static drowse_status backup_trim(void) {
  return drowse_backup_trim(world_heap, 0);
}

static void check_backup_trimmed(drowse_status status) {
  if (status == DROWSE_OK) EXPECT(world_stats(NULL).host_bytes < 3 * MIB);
}

#define RESERVES (DRIVERS | SWEEP_BIT(ERR_NO_HOST_MEMORY))

static const struct scenario scenarios[] = {
    {"alloc-first", first_large, alloc, check_allocated, ALLOCS, 0},
    {"alloc-first-small", first_small, alloc, check_allocated, ALLOCS, 0},
    {"alloc", one_more, alloc, check_allocated, ALLOCS, 0},
    {"alloc-on-stream", on_stream, alloc, check_allocated, ALLOCS, 0},
    {"alloc-moves", full_but_for_free, alloc, check_allocated, ALLOCS, SWEEP_SHORT},
    {"alloc-presses", full, alloc, check_pressed, ALLOCS, SWEEP_SHORT},
    {"alloc-beside-pending", with_used_and_freed, alloc, check_allocated, ALLOCS, 0},
    {"alloc-at-hand", at_hand, alloc_in_scope, check_allocated, 0, SWEEP_CALLS_NOTHING},
    {"free", world_awake, free_first, check_freed, 0, SWEEP_CALLS_NOTHING},
    {"free-asleep", world_asleep, free_first, check_freed, 0, SWEEP_CALLS_NOTHING},
    {"free-in-file", world_asleep_in_file, free_first, check_freed, 0, 0},
    {"free-sealed", world_sealed, free_first, check_freed, 0, SWEEP_CALLS_NOTHING},
    {"free-used", used_by_stream, free_first, check_freed, 0, 0},
    {"free-on", with_stream, free_first_on_stream, check_freed, DRIVERS | SWEEP_BIT(ERR_NO_HOST_MEMORY), 0},
    {"record-stream", with_stream, record, NULL, DRIVERS | SWEEP_BIT(ERR_NO_HOST_MEMORY), 0},
    {"stream-retire", used_by_stream, retire, NULL, DRIVERS, 0},
    {"tag-clear", used_by_stream, clear, check_cleared, 0, 0},
    {"copy-in", world_awake, copy_in, check_written, DRIVERS, 0},
    {"copy-in-asleep", world_asleep, copy_in, check_written, 0, SWEEP_CALLS_NOTHING},
    {"copy-in-sealed", world_sealed, copy_in, check_written, DRIVERS, 0},
    {"copy-in-file", world_asleep_in_file, copy_in, check_written, FILES, 0},
    {"copy-in-whole-file", world_asleep_in_file, copy_in_whole, check_whole, FILES, 0},
    {"copy-out", world_awake, copy_out, check_read, DRIVERS, 0},
    {"copy-out-asleep", world_asleep, copy_out, check_read, 0, SWEEP_CALLS_NOTHING},
    {"backup-get", world_asleep, backup_get, check_read, 0, SWEEP_CALLS_NOTHING},
    {"copy-out-file", world_asleep_in_file, copy_out, check_read, FILES, 0},
    {"trim", with_free, trim, check_trimmed, DRIVERS, 0},
    {"trim-idle", with_free, trim_idle, NULL, DRIVERS, 0},
    {"trim-asleep", world_asleep, trim, NULL, DRIVERS, 0},
    {"backup-reserve", world_awake, reserve, NULL, RESERVES, 0},
    {"backup-reserve-start", world_awake, reserve_start, NULL, RESERVES, 0},
    {"backup-trim", with_reserve, backup_trim, check_backup_trimmed, DRIVERS | SWEEP_BIT(ERR_SYSTEM), 0},
};

int main(int argc, char **argv) {
  return sweep_main(argc, argv, scenarios, sizeof scenarios / sizeof *scenarios);
}
