/* SPDX-License-Identifier: Apache-2.0
 *
 * Host memory that is registered with the device. Nothing is pinned here: what counts is that copies to and from it are really
 * asynchronous, and that the bookkeeping is the driver's, which goes by pages.
 */
#include "driver/host/state.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct pin {
  uint64_t base, end; /* whole pages */
  uint64_t host;      /* as registered */
  uint64_t bytes;
  const struct gpu *gpu;
};

static const unsigned flags_known =
    CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP | CU_MEMHOSTREGISTER_READ_ONLY; /* not IOMEMORY */

/* How many pins begin at address or below. */
static size_t count_below(uint64_t address) {
  const struct host *host = dz_host();
  size_t low = 0, high = host->pin_count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (host->pins[middle].base <= address) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

/* The pin whose pages address lies in. */
static struct pin *find(uint64_t address) {
  size_t below = count_below(address);
  if (below == 0) return NULL;
  struct pin *pin = &dz_host()->pins[below - 1];
  return address < pin->end ? pin : NULL;
}

static bool overlaps(uint64_t base, uint64_t end) {
  size_t below = count_below(end - 1);
  return below != 0 && dz_host()->pins[below - 1].end > base;
}

/* Pins that lie side by side count as one: a copy may run across. */
bool dz_pin_covers(const void *host, uint64_t bytes) {
  uint64_t at = (uint64_t)(uintptr_t)host, end = at + bytes;
  while (at < end) {
    const struct pin *pin = find(at);
    if (pin == NULL) return false;
    at = pin->end;
  }
  return true;
}

static bool make_room(void) {
  struct host *host = dz_host();
  if (host->pin_count < host->pin_room) return true;
  size_t room = host->pin_room == 0 ? 16 : host->pin_room * 2;
  struct pin *pins = realloc(host->pins, room * sizeof *pins);
  if (pins == NULL) return false;
  host->pins = pins;
  host->pin_room = room;
  return true;
}

/* Whether all pages from base to end are mapped: what the kernel says about their residence does not matter. */
static bool is_mapped(uint64_t base, uint64_t end, uint64_t page) {
  unsigned char residence[1024];
  for (uint64_t piece; base < end; base += piece) {
    piece = end - base < sizeof residence * page ? end - base : sizeof residence * page;
    if (mincore((void *)(uintptr_t)base, piece, residence) != 0) return false;
  }
  return true;
}

static CUresult add(const struct gpu *gpu, uint64_t host_address, uint64_t bytes) {
  struct host *host = dz_host();
  uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
  uint64_t base = host_address & ~(page - 1), end = (host_address + bytes + page - 1) & ~(page - 1);
  if (end <= base) return CUDA_ERROR_INVALID_VALUE;
  if (overlaps(base, end)) return CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
  if (!is_mapped(base, end, page)) return CUDA_ERROR_INVALID_VALUE;
  if (!make_room()) return CUDA_ERROR_OUT_OF_MEMORY;
  struct pin *pin = &host->pins[count_below(base)];
  memmove(pin + 1, pin, (size_t)(host->pins + host->pin_count - pin) * sizeof *pin);
  *pin = (struct pin){base, end, host_address, bytes, gpu};
  host->pin_count++;
  return CUDA_SUCCESS;
}

static void drop(struct pin *pin) {
  struct host *host = dz_host();
  host->pin_count--;
  memmove(pin, pin + 1, (size_t)(host->pins + host->pin_count - pin) * sizeof *pin);
  if (host->pin_count != 0) return;
  free(host->pins);
  host->pins = NULL;
  host->pin_room = 0;
}

CUresult dz_host_MemHostRegister(void *memory, size_t bytes, unsigned int flags) {
  struct gpu *gpu;
  CUresult result = dz_host_begin();
  if (result != CUDA_SUCCESS) return result;
  result = dz_gpu_current(&gpu);
  if (result != CUDA_SUCCESS) return dz_host_end(result);
  result = dz_capture_check_unsafe();
  if (result != CUDA_SUCCESS) return dz_host_end(result);
  if (memory == NULL || bytes == 0 || (flags & ~flags_known) != 0) return dz_host_end(CUDA_ERROR_INVALID_VALUE);
  return dz_host_end(add(gpu, (uint64_t)(uintptr_t)memory, bytes));
}

CUresult dz_host_MemHostUnregister(void *memory) {
  struct gpu *gpu;
  CUresult result = dz_host_begin();
  if (result != CUDA_SUCCESS) return result;
  if (memory == NULL) return dz_host_end(CUDA_ERROR_INVALID_VALUE);
  result = dz_gpu_current(&gpu);
  if (result == CUDA_ERROR_INVALID_CONTEXT) result = CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED;
  if (result != CUDA_SUCCESS) return dz_host_end(result);
  result = dz_capture_check_unsafe();
  if (result != CUDA_SUCCESS) return dz_host_end(result);
  if (find((uint64_t)(uintptr_t)memory) != NULL) dz_stream_await_gpu(gpu); /* copies may be at work on it */
  struct pin *pin = find((uint64_t)(uintptr_t)memory);
  if (pin == NULL) return dz_host_end(CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
  if (pin->host != (uint64_t)(uintptr_t)memory) return dz_host_end(CUDA_ERROR_INVALID_VALUE);
  drop(pin);
  return dz_host_end(CUDA_SUCCESS);
}

void dz_pin_reclaim(const struct gpu *gpu) {
  for (size_t at = dz_host()->pin_count; at-- > 0;) {
    if (dz_host()->pins[at].gpu != gpu) continue;
    drop(&dz_host()->pins[at]);
    dz_host()->reclaimed++;
  }
}

void dz_pin_count(struct host_counts *counts) {
  const struct host *host = dz_host();
  counts->registered = host->pin_count;
  for (size_t at = 0; at < host->pin_count; at++) counts->registered_bytes += host->pins[at].bytes;
}
