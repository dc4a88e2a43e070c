/* SPDX-License-Identifier: Apache-2.0
 *
 * The sweep of putting tags to sleep: all or none, and whoever sleeps is whole.
 */
#include "fault/world.h"

#define SLEEPS                                                                                                            \
  (SWEEP_BIT(ERR_NO_HOST_MEMORY) | SWEEP_BIT(ERR_NO_DEVICE_MEMORY) | SWEEP_BIT(ERR_DEVICE_LOST) | SWEEP_BIT(ERR_SYSTEM) | \
   SWEEP_BIT(ERR_DRIVER))

static drowse_status sleep_all(drowse_action action, drowse_sleep_options options) {
  options.struct_size = sizeof options;
  options.directory = world_directory;
  return drowse_sleep(world_heap, &(drowse_rule){.action = action}, 1, &options);
}

/* ---- what has become of them */

/* DRIVER, and asleep: some pages are stuck, which it says. */
static bool has_slept(drowse_status status) {
  drowse_state a = world_state("a"), b = world_state("b");
  EXPECT_MSG(a == b, "one of the tags sleeps, the other does not");
  if (status == DROWSE_OK)
    EXPECT_MSG(a == DROWSE_ASLEEP, "they do not sleep");
  else if (status != DROWSE_ERR_DRIVER)
    EXPECT_MSG(a == DROWSE_AWAKE, "they sleep, though it failed");
  else
    EXPECT_MSG((a == DROWSE_ASLEEP) == (world_stats(NULL).stuck_bytes > 0 || fault_is_for_ever()), "stuck is not what they are");
  return a == DROWSE_ASLEEP;
}

static void check_offloaded(drowse_status status) {
  (void)has_slept(status);
}

static void check_discarded(drowse_status status) {
  bool slept = has_slept(status);
  for (size_t i = 0; slept && i < WORLD_BLOCKS; i++) world_blocks[i].discarded = true;
}

/* They slept before. */
static void check_asleep(drowse_status status) {
  (void)status;
  world_check_states(DROWSE_ASLEEP, DROWSE_ASLEEP);
}

static void check_lost_in_sleep(drowse_status status) {
  check_asleep(status);
  for (size_t i = 0; status == DROWSE_OK && i < WORLD_BLOCKS; i++) world_blocks[i].discarded = true;
}

static void check_wakes(drowse_status status) {
  if (!has_slept(status) || status != DROWSE_OK || fault_is_for_ever()) return;
  EXPECT_OK(drowse_wake(world_heap, NULL, 0, NULL));
}

/* ---- to the host */

static drowse_status to_host(void) {
  return sleep_all(DROWSE_OFFLOAD, (drowse_sleep_options){0});
}

static drowse_status to_host_in_time(void) {
  return sleep_all(DROWSE_OFFLOAD, (drowse_sleep_options){.drain_timeout_ms = 60000});
}

static drowse_status to_host_by_streams(void) {
  return sleep_all(DROWSE_OFFLOAD, (drowse_sleep_options){.drain = DROWSE_DRAIN_STREAMS});
}

static void with_stream(void) {
  world_awake();
  world_make_stream();
}

static drowse_status to_host_by_given_stream(void) {
  return sleep_all(DROWSE_OFFLOAD,
                   (drowse_sleep_options){.drain = DROWSE_DRAIN_STREAMS, .streams = &world_stream, .stream_count = 1});
}

static void with_room(void) {
  world_awake();
  EXPECT_OK(drowse_backup_reserve(world_heap, 4 * MIB));
}

/* ---- to files */

static drowse_status to_file(void) {
  return sleep_all(DROWSE_OFFLOAD, (drowse_sleep_options){.backup = DROWSE_BACKUP_FILE});
}

static drowse_status to_both(void) {
  return sleep_all(DROWSE_OFFLOAD, (drowse_sleep_options){.backup = DROWSE_BACKUP_HOST_THEN_FILE});
}

static void check_both(drowse_status status) {
  if (has_slept(status)) EXPECT(world_stats(NULL).backup_bytes > 0 && world_stats(NULL).file_bytes > 0);
}

/* ---- nowhere */

static drowse_status discard(void) {
  return sleep_all(DROWSE_DISCARD, (drowse_sleep_options){0});
}

/* ---- without waiting */

static drowse_status start_and_wait(void) {
  drowse_op *op;
  drowse_sleep_options options = {.struct_size = sizeof options};
  drowse_status status = drowse_sleep_start(world_heap, &(drowse_rule){.action = DROWSE_OFFLOAD}, 1, &options, &op);
  return world_finish(status, op);
}

static const struct scenario scenarios[] = {
    {"sleep", world_awake, to_host, check_offloaded, SLEEPS, 0},
    {"sleep-in-time", world_awake, to_host_in_time, check_offloaded, SLEEPS, SWEEP_BRIEF},
    {"sleep-by-streams", world_awake, to_host_by_streams, check_offloaded, SLEEPS, SWEEP_BRIEF},
    {"sleep-by-given-stream", with_stream, to_host_by_given_stream, check_offloaded, SLEEPS, SWEEP_BRIEF},
    {"sleep-with-room", with_room, to_host, check_offloaded, SLEEPS, 0},
    {"sleep-started", world_awake, start_and_wait, check_offloaded, SLEEPS, SWEEP_BRIEF},
    {"sleep-sealed", world_sealed, to_host, check_wakes, SLEEPS, 0},
    {"sleep-asleep", world_asleep, to_host, check_asleep, SLEEPS, 0},
    {"sleep-to-file", world_awake, to_file, check_offloaded, SLEEPS | SWEEP_BIT(ERR_IO), 0},
    {"sleep-to-both", world_with_little_room, to_both, check_both, SLEEPS | SWEEP_BIT(ERR_IO), SWEEP_BRIEF},
    {"discard", world_awake, discard, check_discarded, SLEEPS, 0},
    {"discard-asleep", world_asleep, discard, check_lost_in_sleep, SLEEPS, 0},
    {"discard-asleep-in-file", world_asleep_in_file, discard, check_lost_in_sleep, SLEEPS, SWEEP_BRIEF},
};

int main(int argc, char **argv) {
  return sweep_main(argc, argv, scenarios, sizeof scenarios / sizeof *scenarios);
}
