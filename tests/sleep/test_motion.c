/* SPDX-License-Identifier: Apache-2.0
 *
 * A tag in motion: what each call says while it falls asleep or wakes. A hold keeps a tag falling; the pressure hook runs while
 * one is waking and cannot go on. So a tag stays in motion for as long as a test looks at it.
 */
#include "fixture.h"

#include "heap/block.h"

enum { BYTES = 3 * 1024 * 1024 };

static void *first, *second; /* of the tag "a", in motion */
static void *other;          /* of the tag "b", awake */
static struct call sleeper;

static void make_blocks(void) {
  write_pattern(first = alloc_tag("a", BYTES), BYTES, 1);
  write_pattern(second = alloc_tag("a", BYTES), BYTES, 2);
  write_pattern(other = alloc_tag("b", BYTES), BYTES, 3);
}

static drowse_status alloc_status(const char *tag) {
  void *ptr = NULL;
  drowse_alloc_options options = {.struct_size = sizeof options, .tag = tag};
  drowse_status status = drowse_alloc_with(heap, MIB, NULL, &options, &ptr);
  ck_assert((status == DROWSE_OK) == (ptr != NULL));
  if (ptr != NULL) ck_ok(drowse_free(heap, ptr));
  return status;
}

/* The table of the design, for FALLING_ASLEEP and WAKING. */
static void ck_in_motion(drowse_state state) {
  void *host;
  unsigned char byte = 9;
  drowse_block block = {.struct_size = sizeof block};
  ck_state("a", state);
  ck_state(NULL, state);
  ck_ok(drowse_tag_wait(heap, "a", state, 0));
  ck_status(alloc_status("a"), DROWSE_ERR_ASLEEP);
  ck_error_tag("a");
  ck_status(drowse_copy_in(heap, first, &byte, 1), DROWSE_ERR_BUSY);
  ck_error_tag("a");
  ck_status(drowse_copy_out(heap, &byte, first, 1), DROWSE_ERR_BUSY);
  ck_status(drowse_backup_get(heap, first, 1, &host), DROWSE_ERR_BUSY);
  ck_status(sleep_tag("a", DROWSE_OFFLOAD), DROWSE_ERR_BUSY);
  ck_error_tag("a");
  ck_status(sleep_tag("a", DROWSE_DISCARD), DROWSE_ERR_BUSY);
  ck_ok(sleep_tag("a", DROWSE_KEEP));
  ck_status(sleep_tag(NULL, DROWSE_OFFLOAD), DROWSE_ERR_BUSY); /* all or none: b stays awake */
  ck_state("b", DROWSE_AWAKE);
  ck_status(wake_tag("a"), DROWSE_ERR_BUSY);
  ck_status(wake_all_tags(), DROWSE_ERR_BUSY);
  ck_status(drowse_tag_clear(heap, "a"), DROWSE_ERR_BUSY);
  ck_status(drowse_hold(heap, "a", 0), DROWSE_ERR_TIMEOUT);
  ck_status(drowse_hold(heap, "a", 1), DROWSE_ERR_TIMEOUT);
  ck_status(drowse_tag_wait(heap, "a", DROWSE_AWAKE, 0), DROWSE_ERR_TIMEOUT);
  ck_status(drowse_tag_wait(heap, "a", DROWSE_ASLEEP, 1), DROWSE_ERR_TIMEOUT);
  ck_ok(drowse_block_get(heap, first, &block));
  ck_assert_int_eq(block.state, state);
  ck_state("a", state);
}

/* Other tags go on meanwhile. None of this gives the device so much memory back that a tag that waits for it could wake. */
static void ck_others_go_on(void) {
  ck_ok(alloc_status("b"));
  ck_ok(alloc_status("new"));
  ck_assert(has_pattern(other, BYTES, 3));
  ck_ok(drowse_hold(heap, "b", 0));
  ck_ok(drowse_unhold(heap, "b"));
}

static void ck_freed(void *ptr) {
  drowse_block block = {.struct_size = sizeof block};
  unsigned char byte;
  ck_ok(drowse_free(heap, ptr));
  ck_status(drowse_free(heap, ptr), DROWSE_ERR_NOT_FOUND);
  ck_status(drowse_block_get(heap, ptr, &block), DROWSE_ERR_NOT_FOUND);
  ck_status(drowse_copy_out(heap, &byte, ptr, 1), DROWSE_ERR_NOT_FOUND);
}

/* ---- falling asleep */

/* On return the tag "a" falls asleep and cannot go on before the hold ends. */
static void keep_falling(drowse_status (*run)(void *), void *argument) {
  ck_ok(drowse_hold(heap, "a", 0));
  call_start(&sleeper, run, argument);
  ck_ok(drowse_tag_wait(heap, "a", DROWSE_FALLING_ASLEEP, -1));
}

static char tag_a[] = "a";

START_TEST(while_falling_asleep) {
  make_blocks();
  keep_falling(run_offload, tag_a);
  ck_in_motion(DROWSE_FALLING_ASLEEP);
  ck_others_go_on();
  ck_ok(sleep_tag("b", DROWSE_OFFLOAD));
  ck_ok(wake_tag("b"));
  ck_assert(has_pattern(other, BYTES, 3));
  ck_ok(drowse_trim(heap, 0));
  ck_freed(second);
  ck_assert_uint_eq(stats_of("a").live_blocks, 2); /* it takes effect when the motion ends */
  ck_ok(drowse_unhold(heap, "a"));
  ck_call_end(&sleeper, DROWSE_OK);
  ck_state("a", DROWSE_ASLEEP);
  ck_assert_uint_eq(stats_of("a").live_blocks, 1);
  ck_assert_uint_eq(stats_of("a").backup_bytes, BYTES);
  ck_assert(has_pattern(first, BYTES, 1));
  ck_ok(wake_tag("a"));
  ck_assert(has_pattern(first, BYTES, 1));
}
END_TEST

static drowse_status run_discard(void *tag) {
  return sleep_tag(tag, DROWSE_DISCARD);
}

START_TEST(while_falling_asleep_to_be_discarded) {
  make_blocks();
  keep_falling(run_discard, tag_a);
  ck_in_motion(DROWSE_FALLING_ASLEEP);
  ck_freed(second);
  ck_ok(drowse_unhold(heap, "a"));
  ck_call_end(&sleeper, DROWSE_OK);
  ck_assert_uint_eq(stats_of("a").discarded_bytes, BYTES);
  ck_ok(wake_tag("a"));
  ck_ok(drowse_free(heap, first));
  ck_assert_uint_eq(stats_of("a").live_blocks, 0);
}
END_TEST

START_TEST(all_of_it_freed_while_falling_asleep) {
  make_blocks();
  keep_falling(run_offload, tag_a);
  ck_freed(first);
  ck_freed(second);
  ck_ok(drowse_unhold(heap, "a"));
  ck_call_end(&sleeper, DROWSE_OK);
  ck_assert_uint_eq(stats_of("a").backup_bytes, 0);
  ck_assert_uint_eq(stats_of("a").mapped_bytes, 0);
  ck_ok(wake_tag("a"));
  write_pattern(first = alloc_tag("a", BYTES), BYTES, 5);
  ck_assert(has_pattern(first, BYTES, 5));
}
END_TEST

START_TEST(freed_while_falling_asleep_and_then_it_fails) {
  open_with((drowse_heap_options){.backup_limit = MIB}); /* so that the sleep fails */
  make_blocks();
  keep_falling(run_offload, tag_a);
  ck_freed(second);
  ck_ok(drowse_unhold(heap, "a"));
  ck_call_end(&sleeper, DROWSE_ERR_NO_HOST_MEMORY);
  ck_state("a", DROWSE_AWAKE);
  ck_assert_uint_eq(stats_of("a").live_blocks, 1);
  ck_assert(has_pattern(first, BYTES, 1));
  ck_assert_ptr_eq(alloc_tag("a", BYTES), second); /* it is free */
  close_heap();
}
END_TEST

/* ---- waking */

static drowse_heap *tenant; /* has the memory that the waking tag needs */
static bool looked;
static void (*look)(void);

static drowse_status look_and_make_room(void *context, uint64_t missing_bytes) {
  (void)context;
  ck_assert_uint_gt(missing_bytes, 0);
  if (!looked) look();
  looked = true;
  ck_ok(drowse_heap_close(tenant));
  tenant = NULL;
  return DROWSE_OK;
}

/* Wakes the tag "a", and looks while it cannot go on. */
static void wake_and_look(void (*function)(void), drowse_action action) {
  void *all;
  drowse_wake_options options = {.struct_size = sizeof options, .deadline_ms = -1};
  open_with((drowse_heap_options){.pressure = look_and_make_room});
  make_blocks();
  ck_ok(sleep_tag("a", action));
  ck_ok(drowse_heap_open(&tenant, &(drowse_heap_options){.struct_size = sizeof(drowse_heap_options), .device = "host:64MiB"}));
  /* Less than "a" needs is left, and yet enough for the others. */
  ck_ok(drowse_alloc(tenant, 64 * MIB - stats_of("b").mapped_bytes - 4 * MIB, NULL, &all));
  looked = false;
  look = function;
  ck_ok(drowse_wake(heap, (const char *[]){"a"}, 1, &options));
  ck_assert(looked);
  ck_state("a", DROWSE_AWAKE);
}

static void look_at_waking(void) {
  ck_in_motion(DROWSE_WAKING);
  ck_others_go_on();
  ck_freed(second);
  ck_assert_uint_eq(stats_of("a").live_blocks, 2);
}

START_TEST(while_waking) {
  wake_and_look(look_at_waking, DROWSE_OFFLOAD);
  ck_assert_uint_eq(stats_of("a").live_blocks, 1);
  ck_assert_uint_eq(stats_of("a").backup_bytes, 0);
  ck_assert(has_pattern(first, BYTES, 1));
  ck_assert_ptr_eq(alloc_tag("a", BYTES), second);
  close_heap();
}
END_TEST

START_TEST(while_waking_from_being_discarded) {
  wake_and_look(look_at_waking, DROWSE_DISCARD);
  ck_assert_uint_eq(stats_of("a").live_blocks, 1);
  ck_assert_uint_eq(stats_of("a").discarded_bytes, 0);
  close_heap();
}
END_TEST

static drowse_status waiting_hold(void *state) {
  drowse_status status = drowse_hold(heap, "a", -1);
  *(drowse_state *)state = stats_of("a").state;
  return status;
}

static struct call holder;
static drowse_state state_of_holder;

static void look_and_let_another_wait(void) {
  call_start(&holder, waiting_hold, &state_of_holder);
}

START_TEST(a_hold_waits_until_it_is_awake) {
  wake_and_look(look_and_let_another_wait, DROWSE_OFFLOAD);
  ck_call_end(&holder, DROWSE_OK);
  ck_assert_int_eq(state_of_holder, DROWSE_AWAKE);
  ck_assert_uint_eq(stats_of("a").holds, 1);
  ck_ok(drowse_unhold(heap, "a"));
  close_heap();
}
END_TEST

/* ---- awake and asleep, for the rest of the table */

START_TEST(while_awake) {
  make_blocks();
  ck_ok(alloc_status("a"));
  ck_ok(wake_tag("a"));
  ck_ok(drowse_tag_wait(heap, "a", DROWSE_AWAKE, 0));
  ck_status(drowse_tag_wait(heap, "a", DROWSE_POISONED, 0), DROWSE_ERR_TIMEOUT);
  ck_ok(drowse_hold(heap, "a", 0));
  ck_ok(drowse_unhold(heap, "a"));
}
END_TEST

START_TEST(while_asleep) {
  make_blocks();
  ck_ok(sleep_tag("a", DROWSE_OFFLOAD));
  ck_status(alloc_status("a"), DROWSE_ERR_ASLEEP);
  ck_ok(sleep_tag("a", DROWSE_OFFLOAD));
  ck_status(drowse_hold(heap, "a", 0), DROWSE_ERR_TIMEOUT);
  ck_ok(drowse_tag_wait(heap, "a", DROWSE_ASLEEP, -1));
  ck_others_go_on();
  ck_freed(second);
  ck_assert(has_pattern(first, BYTES, 1));
}
END_TEST

/* ---- poisoned. Nothing leads there, so the test itself says of a sleeping tag that it is. */

static void set_state(const char *name, drowse_state state) {
  struct tag *tag = dz_tag_glance(heap, drowse_tag_get(name));
  dz_lock(&heap->lock);
  tag->state = state;
  dz_unlock(&heap->lock);
}

START_TEST(while_poisoned) {
  void *host;
  make_blocks();
  ck_ok(sleep_tag("a", DROWSE_OFFLOAD));
  set_state("a", DROWSE_POISONED);
  ck_status(alloc_status("a"), DROWSE_ERR_POISONED);
  ck_error_tag("a");
  ck_status(sleep_tag("a", DROWSE_OFFLOAD), DROWSE_ERR_POISONED);
  ck_status(wake_tag("a"), DROWSE_ERR_POISONED);
  ck_status(wake_all_tags(), DROWSE_ERR_POISONED);
  ck_status(drowse_hold(heap, "a", -1), DROWSE_ERR_POISONED);
  ck_status(drowse_tag_wait(heap, "a", DROWSE_AWAKE, -1), DROWSE_ERR_POISONED);
  ck_status(drowse_seal(heap, "a"), DROWSE_ERR_POISONED);
  ck_status(drowse_unseal(heap, "a"), DROWSE_ERR_POISONED);
  ck_status(drowse_copy_in(heap, first, "x", 1), DROWSE_ERR_POISONED);
  ck_ok(drowse_backup_get(heap, first, 1, &host)); /* what has a backup can be read */
  ck_assert(has_pattern(first, BYTES, 1));
  ck_state("a", DROWSE_POISONED);
  ck_freed(second);
  ck_ok(sleep_tag("a", DROWSE_DISCARD));
  ck_state("a", DROWSE_ASLEEP);
  ck_ok(wake_tag("a"));
  write_pattern(first, BYTES, 4);
  ck_assert(has_pattern(first, BYTES, 4));
}
END_TEST

/* ---- other streams' uses are noted while a sleep that has failed gives its backups up again */

enum { SMALL_BLOCKS = 400 };

static void *small[SMALL_BLOCKS];
static CUstream elsewhere;
static sem_t copy_refused;

static CUresult refuse_to_copy(void *to, CUdeviceptr from, size_t bytes, CUstream stream) {
  (void)to, (void)from, (void)bytes, (void)stream;
  (void)sem_post(&copy_refused);
  return CUDA_ERROR_INVALID_VALUE;
}

static drowse_status record_all(void *argument) {
  drowse_status status = DROWSE_OK;
  (void)argument;
  wait_semaphore(&copy_refused);
  for (int i = SMALL_BLOCKS - 1; i >= 0 && status == DROWSE_OK; i--) status = drowse_record_stream(heap, small[i], elsewhere);
  return status;
}

/* A use that is forgotten lets the block be given out again before the other stream is done with it. */
START_TEST(used_elsewhere_while_a_sleep_fails) {
  struct call recorder;
  ck_assert_int_eq(sem_init(&copy_refused, 0, 0), 0);
  elsewhere = make_stream();
  for (int i = 0; i < SMALL_BLOCKS; i++) small[i] = alloc_tag("a", 512);
  heap->device.driver.MemcpyDtoHAsync = refuse_to_copy;
  call_start(&recorder, record_all, NULL);
  ck_status(sleep_tag("a", DROWSE_OFFLOAD), DROWSE_ERR_DRIVER);
  ck_call_end(&recorder, DROWSE_OK);
  heap->device.driver = dz_host_driver;
  for (int i = 0; i < SMALL_BLOCKS; i++) ck_assert(dz_index_find(&heap->index, (uint64_t)(uintptr_t)small[i])->tied);
  ck_ok(drowse_tag_clear(heap, "a"));
  drop_stream(elsewhere);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("motion");
  HEAP_TEST(suite, while_falling_asleep);
  HEAP_TEST(suite, while_falling_asleep_to_be_discarded);
  HEAP_TEST(suite, all_of_it_freed_while_falling_asleep);
  HARNESS_TEST(suite, freed_while_falling_asleep_and_then_it_fails);
  HARNESS_TEST(suite, while_waking);
  HARNESS_TEST(suite, while_waking_from_being_discarded);
  HARNESS_TEST(suite, a_hold_waits_until_it_is_awake);
  HEAP_TEST(suite, while_awake);
  HEAP_TEST(suite, while_asleep);
  HEAP_TEST(suite, while_poisoned);
  HARNESS_LOOP_TEST(suite, used_elsewhere_while_a_sleep_fails, start, finish, 20);
  return harness_run(suite);
}
