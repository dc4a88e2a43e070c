/* SPDX-License-Identifier: Apache-2.0
 *
 * The sweep of opening and closing heaps, of operations, and of what only looks.
 */
#include "fault/world.h"

#define DRIVERS (SWEEP_BIT(ERR_DRIVER) | SWEEP_BIT(ERR_DEVICE_LOST) | SWEEP_BIT(ERR_NO_DEVICE_MEMORY))
#define OPENS                                                                                                                \
  (DRIVERS | SWEEP_BIT(ERR_NO_HOST_MEMORY) | SWEEP_BIT(ERR_SYSTEM) | SWEEP_BIT(ERR_NO_DEVICE) | SWEEP_BIT(ERR_UNSUPPORTED) | \
   SWEEP_BIT(ERR_NO_DEVICE_MEMORY))

/* ---- opening */

static drowse_status open_with(drowse_heap_options options) {
  options.struct_size = sizeof options;
  if (!world_is_on_gpu()) options.device = "host:64MiB";
  drowse_status status = drowse_heap_open(&world_heap, &options);
  EXPECT((status == DROWSE_OK) == (world_heap != NULL));
  return status;
}

static drowse_status open(void) {
  return open_with((drowse_heap_options){0});
}

static drowse_status open_for_peers(void) {
  static const char *const peers[] = {"host:32MiB"};
  return open_with((drowse_heap_options){.peers = peers, .peer_count = 1});
}

static void check_usable(drowse_status status) {
  if (status == DROWSE_OK && !fault_is_for_ever()) world_fill();
}

/* ---- closing. It always consumes the heap. */

static drowse_status close(void) {
  drowse_status status = world_heap == NULL ? DROWSE_OK : drowse_heap_close(world_heap);
  world_heap = NULL;
  return status;
}

static void used_and_freed(void) {
  world_awake();
  world_make_stream();
  EXPECT_OK(drowse_record_stream(world_heap, world_blocks[0].ptr, world_stream));
  EXPECT_OK(drowse_free(world_heap, world_blocks[0].ptr));
  world_blocks[0].tag = NULL;
}

static drowse_op *left;

static void falling_asleep(void) {
  world_awake();
  EXPECT_OK(drowse_sleep_start(world_heap, &(drowse_rule){.action = DROWSE_OFFLOAD}, 1, NULL, &left));
}

static void waking(void) {
  world_asleep();
  EXPECT_OK(drowse_wake_start(world_heap, NULL, 0, NULL, &left));
}

/* However it ended. */
static void check_op_ended(drowse_status status) {
  (void)status;
  if (left == NULL) return;
  (void)drowse_op_wait(left, -1);
  drowse_op_release(left);
  left = NULL;
}

/* ---- operations that are left to themselves */

/* It ends as it can: canceled, or done; or by the fault. */
static drowse_status cancel(void) {
  drowse_op *op;
  drowse_status status = drowse_sleep_start(world_heap, &(drowse_rule){.action = DROWSE_OFFLOAD}, 1, NULL, &op);
  if (status != DROWSE_OK) return status;
  uint64_t done, total;
  EXPECT_OK(drowse_op_progress(op, &done, &total));
  EXPECT_OK(drowse_op_cancel(op));
  status = drowse_op_wait(op, -1);
  drowse_op_release(op);
  if (status != DROWSE_ERR_CANCELED) return status;
  (void)drowse_scope_leave(NULL); /* being canceled is no failure here: the last one is what it was before */
  return DROWSE_OK;
}

static void check_all_or_none(drowse_status status) {
  (void)status;
  EXPECT(world_state("a") == world_state("b"));
}

/* Another tag is used while one falls asleep. */
static drowse_status alloc_meanwhile(void) {
  drowse_op *op;
  void *ptr = NULL;
  drowse_status status = drowse_sleep_start(world_heap, &(drowse_rule){.tag = "a", .action = DROWSE_OFFLOAD}, 1, NULL, &op);
  if (status != DROWSE_OK) return status;
  drowse_alloc_options options = {.struct_size = sizeof options, .tag = "b"};
  drowse_status allocated = drowse_alloc_with(world_heap, 3 * MIB, NULL, &options, &ptr);
  if (allocated == DROWSE_OK) EXPECT(drowse_free(world_heap, ptr) == DROWSE_OK);
  status = drowse_op_wait(op, -1);
  drowse_op_release(op);
  return status != DROWSE_OK ? status : allocated;
}

/* ---- looking, holding, sealing */

static drowse_status info(void) {
  drowse_heap_info found = {.struct_size = sizeof found};
  return drowse_heap_info_get(world_heap, &found);
}

static int take_device(void *nothing, const drowse_device *device) {
  (void)nothing;
  (void)device;
  return 0;
}

static drowse_status devices(void) {
  return drowse_devices(take_device, NULL);
}

static drowse_status look(void) {
  drowse_block block = {.struct_size = sizeof block};
  drowse_stats stats = {.struct_size = sizeof stats};
  EXPECT(drowse_driver_entry(world_heap, "cuStreamCreate") != NULL);
  drowse_status status = drowse_block_get(world_heap, world_blocks[0].ptr, &block);
  if (status == DROWSE_OK) status = drowse_stats_get(world_heap, "a", &stats);
  if (status == DROWSE_OK) status = drowse_stats_get(world_heap, NULL, &stats);
  return status == DROWSE_OK ? drowse_tag_wait(world_heap, "a", stats.state, 0) : status;
}

static drowse_status hold(void) {
  drowse_status status = drowse_hold(world_heap, "a", 0);
  return status == DROWSE_OK ? drowse_unhold(world_heap, "a") : status;
}

static drowse_status seal(void) {
  return drowse_seal(world_heap, "a");
}

static drowse_status unseal(void) {
  return drowse_unseal(world_heap, "a");
}

static void check_unsealed(drowse_status status) {
  if (status == DROWSE_OK) EXPECT(world_stats("a").sealed == 0 && world_stats("a").backup_bytes == 0);
}

#define SLEEPS (DRIVERS | SWEEP_BIT(ERR_NO_HOST_MEMORY) | SWEEP_BIT(ERR_NO_DEVICE_MEMORY) | SWEEP_BIT(ERR_SYSTEM))

static const struct scenario scenarios[] = {
    {"open-first", NULL, open, check_usable, OPENS, SWEEP_FRESH},
    {"open", NULL, open, check_usable, OPENS, SWEEP_BRIEF},
    {"open-for-peers", NULL, open_for_peers, check_usable, OPENS, SWEEP_BRIEF | SWEEP_HOST},
    {"close-empty", world_open, close, NULL, DRIVERS, 0},
    {"close", world_awake, close, NULL, DRIVERS, 0},
    {"close-asleep", world_asleep, close, NULL, DRIVERS, SWEEP_BRIEF},
    {"close-in-file", world_asleep_in_file, close, NULL, DRIVERS, SWEEP_BRIEF},
    {"close-sealed", world_sealed, close, NULL, DRIVERS, SWEEP_BRIEF},
    {"close-discarded", world_discarded, close, NULL, DRIVERS, SWEEP_BRIEF},
    {"close-used", used_and_freed, close, NULL, DRIVERS, SWEEP_BRIEF},
    {"close-falling-asleep", falling_asleep, close, check_op_ended, DRIVERS, SWEEP_BRIEF},
    {"close-waking", waking, close, check_op_ended, DRIVERS, SWEEP_BRIEF},
    {"cancel", world_awake, cancel, check_all_or_none, SLEEPS, SWEEP_BRIEF},
    {"alloc-meanwhile", world_awake, alloc_meanwhile, NULL, SLEEPS | SWEEP_BIT(ERR_NO_ADDRESS_SPACE), SWEEP_BRIEF},
    {"info", world_awake, info, NULL, DRIVERS, 0},
    {"devices", NULL, devices, NULL, 0, 0},
    {"look", world_awake, look, NULL, 0, SWEEP_CALLS_NOTHING},
    {"look-asleep", world_asleep, look, NULL, 0, SWEEP_CALLS_NOTHING},
    {"hold", world_awake, hold, NULL, 0, SWEEP_CALLS_NOTHING},
    {"seal", world_awake, seal, NULL, 0, SWEEP_CALLS_NOTHING},
    {"unseal", world_sealed, unseal, check_unsealed, 0, SWEEP_CALLS_NOTHING},
};

int main(int argc, char **argv) {
  return sweep_main(argc, argv, scenarios, sizeof scenarios / sizeof *scenarios);
}
