/* SPDX-License-Identifier: Apache-2.0
 *
 * The sweep of waking tags: tag by tag in the order given, each awake whole or asleep whole.
 */
#include <string.h>

#include "fault/world.h"

#define WAKES                                                                                                             \
  (SWEEP_BIT(ERR_NO_HOST_MEMORY) | SWEEP_BIT(ERR_NO_DEVICE_MEMORY) | SWEEP_BIT(ERR_DEVICE_LOST) | SWEEP_BIT(ERR_SYSTEM) | \
   SWEEP_BIT(ERR_DRIVER))

static const char *const order[] = {"b", "a"};

static drowse_status wake_with(uint32_t flags) {
  return drowse_wake(world_heap, order, 2, &(drowse_wake_options){.struct_size = sizeof(drowse_wake_options), .flags = flags});
}

static drowse_status wake(void) {
  return wake_with(0);
}

static drowse_status wake_together(void) {
  return wake_with(DROWSE_WAKE_TOGETHER);
}

static drowse_status wake_as_zeros(void) {
  return wake_with(DROWSE_WAKE_ZERO);
}

/* ---- what has become of them */

static void check_order(drowse_status status) {
  drowse_state a = world_state("a"), b = world_state("b");
  if (status == DROWSE_OK) world_check_states(DROWSE_AWAKE, DROWSE_AWAKE);
  EXPECT_MSG(status == DROWSE_OK || a == DROWSE_ASLEEP, "both are awake, though it failed: %s", drowse_last_error());
  EXPECT_MSG(a == DROWSE_ASLEEP || b == DROWSE_AWAKE, "\"a\" woke before \"b\"");
}

static void check_together(drowse_status status) {
  drowse_state state = status == DROWSE_OK ? DROWSE_AWAKE : DROWSE_ASLEEP;
  world_check_states(state, state);
}

static void check_zeros(drowse_status status) {
  static unsigned char found[2 * MIB], zeros[2 * MIB];
  check_order(status);
  for (size_t i = 0; i < WORLD_BLOCKS && status == DROWSE_OK && !fault_is_for_ever(); i++) {
    const struct world_block *block = &world_blocks[i];
    if (block->tag == NULL) continue;
    EXPECT_OK(drowse_copy_out(world_heap, found, block->ptr, block->bytes));
    EXPECT_MSG(memcmp(found, zeros, block->bytes) == 0, "what was discarded did not wake as zeros");
  }
}

/* What is sealed has kept its backup, and sleeps again without a copy. */
static void check_seal(drowse_status status) {
  check_order(status);
  if (status == DROWSE_OK) EXPECT(world_stats(NULL).backup_bytes == world_stats(NULL).live_bytes);
}

/* ---- states before */

/* Other memory of the heap has to go before there is enough. */
static void asleep_beside_free(void) {
  void *ptr;
  world_open_with((drowse_heap_options){.device = "host:6MiB"});
  drowse_alloc_options options = {.struct_size = sizeof options, .tag = "b", .expandable = DROWSE_EXPANDABLE_ON};
  EXPECT_OK(drowse_alloc_with(world_heap, MIB, NULL, &options, &ptr));
  world_note(world_room(), "b", ptr, MIB);
  world_write(&world_blocks[0]);
  options.tag = "a";
  EXPECT_OK(drowse_alloc_with(world_heap, MIB, NULL, &options, &ptr));
  world_note(world_room(), "a", ptr, MIB);
  world_write(&world_blocks[1]);
  EXPECT_OK(drowse_sleep(world_heap, &(drowse_rule){.action = DROWSE_OFFLOAD}, 1, NULL));
  options.tag = "c";
  EXPECT_OK(drowse_alloc_with(world_heap, 6 * MIB, NULL, &options, &ptr));
  EXPECT_OK(drowse_free(world_heap, ptr));
}

static drowse_status wake_started(void) {
  drowse_op *op;
  drowse_status status = drowse_wake_start(world_heap, order, 2, NULL, &op);
  return world_finish(status, op);
}

static const struct scenario scenarios[] = {
    {"wake", world_asleep, wake, check_order, WAKES, 0},
    {"wake-started", world_asleep, wake_started, check_order, WAKES, SWEEP_BRIEF},
    {"wake-together", world_asleep, wake_together, check_together, WAKES, 0},
    {"wake-sealed", world_sealed_asleep, wake, check_seal, WAKES, SWEEP_BRIEF},
    {"wake-discarded", world_discarded, wake, check_order, WAKES, 0},
    {"wake-as-zeros", world_discarded, wake_as_zeros, check_zeros, WAKES, SWEEP_BRIEF},
    {"wake-beside-free", asleep_beside_free, wake, check_order, WAKES, SWEEP_SHORT},
    {"wake-awake", world_awake, wake, NULL, WAKES, 0},
    {"wake-from-file", world_asleep_in_file, wake, check_order, WAKES | SWEEP_BIT(ERR_IO), 0},
    {"wake-from-both", world_asleep_in_both, wake, check_order, WAKES | SWEEP_BIT(ERR_IO), SWEEP_BRIEF},
};

int main(int argc, char **argv) {
  return sweep_main(argc, argv, scenarios, sizeof scenarios / sizeof *scenarios);
}
