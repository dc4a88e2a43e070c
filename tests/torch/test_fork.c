/* SPDX-License-Identifier: Apache-2.0
 *
 * Forks of a process that PyTorch uses drowse in, as a DataLoader makes them while a tag or a region is open: the child gets
 * nothing and harms nothing, awake or asleep.
 */
#include "fixture.h"

#include "drowse-torch.h"
#include "fork/child.h"
#include "torch/cuda_error.h"
#include "torch/heaps.h"
#include "torch/tms.h"

enum { BYTES = 3 * 1024 * 1024, DEVICE = 0 };

static void start_torch(void) {
  start();
  ck_ok(dz_heaps_set(DEVICE, heap));
}

static void finish_torch(void) {
  ck_ok(dz_heaps_set(DEVICE, NULL));
  finish();
}

static void *of_parent;

static void fork_in_every_way(int (*steps)(void)) {
  for (int kind = 0; kind < FORK_KINDS; kind++) ck_assert_int_eq(in_child_by((enum fork_kind)kind, steps), 0);
}

static int child_of_torch(void) {
  drowse_error error = {.struct_size = sizeof error};
  STEP(1, drowse_torch_malloc(BYTES, DEVICE, NULL) == NULL);
  STEP(2, drowse_error_get(&error) == DROWSE_OK && error.status == DROWSE_ERR_FORKED);
  drowse_torch_free(of_parent, BYTES, DEVICE, NULL);
  drowse_torch_record_stream(of_parent, NULL);
  drowse_torch_reset();
  STEP(3, drowse_torch_base_alloc(of_parent, NULL) == of_parent);
  STEP(4, strcmp(drowse_scope_current().tag, "weights") == 0); /* the frame is the child's too */
  STEP(5, dz_host_calls_after_fork() == 0);
  return 0;
}

START_TEST(a_child_of_libdrowse_torch) {
  drowse_scope scope;
  ck_ok(drowse_scope_enter(&scope, "weights", DROWSE_EXPANDABLE_OFF));
  of_parent = drowse_torch_malloc(BYTES, DEVICE, NULL);
  write_pattern(of_parent, BYTES, 1);
  fork_in_every_way(child_of_torch);
  ck_ok(sleep_tag("weights", DROWSE_OFFLOAD));
  fork_in_every_way(child_of_torch);
  ck_ok(drowse_scope_leave(&scope));
  ck_ok(wake_all_tags());
  ck_assert(has_pattern(of_parent, BYTES, 1));
}
END_TEST

static int child_of_tms(void) {
  STEP(1, tms_torch_malloc(BYTES, DEVICE, NULL) == NULL);
  STEP(2, tms_pause(NULL) == DZ_CUDA_INITIALIZATION && tms_resume(NULL) == DZ_CUDA_INITIALIZATION);
  STEP(3, tms_get_cpu_backup_pointer(of_parent, BYTES) == NULL && tms_affected_devices(NULL, NULL, 0) == 0);
  tms_torch_free(of_parent, BYTES, DEVICE, NULL);
  STEP(4, tms_get_interesting_region() && strcmp(tms_get_current_tag(), "weights") == 0);
  STEP(5, dz_host_calls_after_fork() == 0);
  return 0;
}

START_TEST(a_child_of_libdrowse_tms) {
  tms_set_interesting_region(true);
  tms_set_enable_cpu_backup(true);
  tms_set_current_tag("weights");
  of_parent = tms_torch_malloc(BYTES, DEVICE, NULL);
  write_pattern(of_parent, BYTES, 1);
  fork_in_every_way(child_of_tms);
  ck_assert_int_eq(tms_pause(NULL), 0);
  fork_in_every_way(child_of_tms);
  ck_assert_int_eq(tms_resume(NULL), 0);
  ck_assert(has_pattern(of_parent, BYTES, 1));
}
END_TEST

int main(void) {
  Suite *suite = suite_create("torch and forks");
  HARNESS_FIXTURE_TEST(suite, a_child_of_libdrowse_torch, start_torch, finish_torch);
  HARNESS_FIXTURE_TEST(suite, a_child_of_libdrowse_tms, start_torch, finish_torch);
  return harness_run(suite);
}
