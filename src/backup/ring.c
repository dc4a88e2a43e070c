/* SPDX-License-Identifier: Apache-2.0
 *
 * Slots of pinned memory.
 */
#include "backup/ring.h"

#include <inttypes.h>

#include "backup/hostmem.h"
#include "backup/pages.h"
#include "core/error.h"
#include "core/log.h"

static const uint64_t ring_bytes = (uint64_t)DZ_RING_SLOTS * DZ_RING_SLOT_BYTES;

static drowse_status claim(void) {
  uint64_t available;
  if (dz_host_claim(ring_bytes, &available)) return DROWSE_OK;
  dz_error(DROWSE_ERR_NO_HOST_MEMORY, "%" PRIu64 " bytes to copy through: the machine or its cgroup has %" PRIu64, ring_bytes,
           available);
  dz_error_bytes(ring_bytes, available, 0);
  return DROWSE_ERR_NO_HOST_MEMORY;
}

static drowse_status map(uint64_t *base) {
  int code = dz_pages_map(ring_bytes, -1, base);
  if (code == 0 && (code = dz_pages_touch(*base, ring_bytes)) != 0) (void)dz_pages_unmap(*base, ring_bytes);
  if (code == 0) return DROWSE_OK;
  return dz_error_system(DROWSE_ERR_NO_HOST_MEMORY, code, "%" PRIu64 " bytes to copy through", ring_bytes);
}

/* One by one: where there is a limit, some may fit. */
static void pin(struct ring *ring) {
  unsigned refused = 0;
  CUresult last = CUDA_SUCCESS;
  for (unsigned i = 0; i < DZ_RING_SLOTS; i++) {
    CUresult code = ring->driver->MemHostRegister(ring->slots[i].memory, DZ_RING_SLOT_BYTES, 0);
    ring->slots[i].pinned = code == CUDA_SUCCESS;
    if (code == CUDA_SUCCESS) continue;
    refused++;
    last = code;
  }
  if (refused > 0) {
    dz_log(DROWSE_LOG_WARNING, "%u of %d slots to copy through could not be pinned (CUresult %d): copies will be slow", refused,
           (int)DZ_RING_SLOTS, (int)last);
  }
}

drowse_status dz_ring_begin(struct ring *ring, const struct driver *driver) {
  uint64_t base;
  *ring = (struct ring){.driver = driver};
  drowse_status status = claim();
  if (status != DROWSE_OK) return status;
  status = map(&base);
  dz_host_unclaim(ring_bytes);
  if (status != DROWSE_OK) return status;
  for (unsigned i = 0; i < DZ_RING_SLOTS; i++)
    ring->slots[i].memory = (void *)(uintptr_t)(base + (uint64_t)i * DZ_RING_SLOT_BYTES);
  pin(ring);
  return DROWSE_OK;
}

bool dz_ring_end(struct ring *ring) {
  bool unpinned = true;
  for (unsigned i = 0; i < DZ_RING_SLOTS; i++) {
    if (ring->slots[i].pinned) unpinned &= ring->driver->MemHostUnregister(ring->slots[i].memory) == CUDA_SUCCESS;
  }
  if (ring->slots[0].memory != NULL) (void)dz_pages_unmap((uint64_t)(uintptr_t)ring->slots[0].memory, ring_bytes);
  *ring = (struct ring){.driver = ring->driver};
  return unpinned;
}
