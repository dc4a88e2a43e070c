/* SPDX-License-Identifier: Apache-2.0
 *
 * The ring: slots that do not overlap, pinned as far as the driver lets, and nothing left of them.
 */
#include "backup/ring.h"

#include "backup/hostmem.h"
#include "fixture.h"

static struct ring ring;

static bool claim_refused; /* the machine has no more memory (--wrap) */

bool __real_dz_host_claim(uint64_t bytes, uint64_t *available);
bool __wrap_dz_host_claim(uint64_t bytes, uint64_t *available);
bool __wrap_dz_host_claim(uint64_t bytes, uint64_t *available) {
  if (!claim_refused) return __real_dz_host_claim(bytes, available);
  *available = 12345;
  return false;
}

static void start(void) {
  open_device();
}

static void finish(void) {
  close_device();
}

static void ck_slots(unsigned pinned) {
  for (unsigned i = 0; i < DZ_RING_SLOTS; i++) {
    ck_assert_ptr_nonnull(ring.slots[i].memory);
    ck_assert_int_eq(ring.slots[i].pinned, i < pinned);
    memset(ring.slots[i].memory, (int)i + 1, DZ_RING_SLOT_BYTES);
  }
  for (unsigned i = 0; i < DZ_RING_SLOTS; i++) {
    const unsigned char *bytes = ring.slots[i].memory;
    ck_assert_uint_eq(bytes[0], i + 1);
    ck_assert_uint_eq(bytes[DZ_RING_SLOT_BYTES - 1], i + 1);
  }
  ck_assert_uint_eq(registered_bytes(), (uint64_t)pinned * DZ_RING_SLOT_BYTES);
}

static void ck_gone(void) {
  uint64_t base = (uint64_t)(uintptr_t)ring.slots[0].memory;
  ck_assert(is_mapped(base));
  ck_assert(dz_ring_end(&ring));
  ck_assert(!is_mapped(base));
  ck_assert_uint_eq(registered_bytes(), 0);
  ck_assert(dz_ring_end(&ring)); /* does nothing */
}

START_TEST(slots_are_pinned) {
  listen();
  ck_ok(dz_ring_begin(&ring, &driver));
  ck_slots(DZ_RING_SLOTS);
  ck_gone();
  ck_assert_uint_eq(warnings, 0);
}
END_TEST

static unsigned pins_allowed;

static CUresult pin_some(void *host, size_t bytes, unsigned int flags) {
  if (pins_allowed == 0) return CUDA_ERROR_OUT_OF_MEMORY;
  pins_allowed--;
  return device.driver.MemHostRegister(host, bytes, flags);
}

START_TEST(slots_that_cannot_be_pinned_are_pageable) {
  listen();
  driver.MemHostRegister = pin_some;
  unsigned rings = 0;
  for (unsigned allowed = 0; allowed < DZ_RING_SLOTS; allowed += 3, rings++) {
    pins_allowed = allowed;
    ck_ok(dz_ring_begin(&ring, &driver));
    ck_slots(allowed);
    ck_gone();
  }
  ck_assert_uint_eq(warnings, rings);
}
END_TEST

START_TEST(a_ring_that_cannot_begin_leaves_nothing) {
  refused_size = DZ_RING_SLOT_BYTES;
  ck_status(dz_ring_begin(&ring, &driver), DROWSE_ERR_NO_HOST_MEMORY);
  ck_assert(dz_ring_end(&ring));
  refused_size = 0;
  uint64_t size = proc_bytes("/proc/self/status", "VmSize", 0, 0);
  touch_code = ENOMEM;
  ck_status(dz_ring_begin(&ring, &driver), DROWSE_ERR_NO_HOST_MEMORY);
  ck_assert(dz_ring_end(&ring));
  ck_assert_uint_lt(proc_bytes("/proc/self/status", "VmSize", 0, 0), size + DZ_RING_SLOT_BYTES);
}
END_TEST

START_TEST(a_machine_without_memory_for_a_ring_says_what_it_has) {
  drowse_error error = {.struct_size = sizeof error};
  claim_refused = true;
  ck_status(dz_ring_begin(&ring, &driver), DROWSE_ERR_NO_HOST_MEMORY);
  claim_refused = false;
  ck_ok(drowse_error_get(&error));
  ck_assert_uint_eq(error.wanted_bytes, DZ_RING_SLOTS * DZ_RING_SLOT_BYTES);
  ck_assert_uint_eq(error.free_bytes, 12345);
  ck_assert(dz_ring_end(&ring));
  ck_ok(dz_ring_begin(&ring, &driver));
  ck_gone();
}
END_TEST

START_TEST(what_stays_pinned_is_said) {
  ck_ok(dz_ring_begin(&ring, &driver));
  struct ring same = ring;
  driver.MemHostUnregister = refuse_to_unpin;
  ck_assert(!dz_ring_end(&ring));
  for (unsigned i = 0; i < DZ_RING_SLOTS; i++)
    ck_assert_int_eq(device.driver.MemHostUnregister(same.slots[i].memory), CUDA_SUCCESS);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("ring");
  BACKUP_TEST(suite, slots_are_pinned, start);
  BACKUP_TEST(suite, slots_that_cannot_be_pinned_are_pageable, start);
  BACKUP_TEST(suite, a_ring_that_cannot_begin_leaves_nothing, start);
  BACKUP_TEST(suite, a_machine_without_memory_for_a_ring_says_what_it_has, start);
  BACKUP_TEST(suite, what_stays_pinned_is_said, start);
  return harness_run(suite);
}
