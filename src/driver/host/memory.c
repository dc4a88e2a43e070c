/* SPDX-License-Identifier: Apache-2.0
 *
 * Physical memory, addresses, and what joins them.
 *
 *   physical      a range of the device's file. Alive while its owner has not released it or it is mapped somewhere
 *   reservation   a range of addresses
 *   mapping       physical memory as a whole at an address of one reservation
 *
 * Pages are not taken before they are touched, so a device may be larger than what the machine has left; its capacity is enforced
 * here.
 */
#include "driver/host/state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

struct physical {
  struct physical *next, **before; /* of the device */
  struct gpu *gpu;
  uint64_t handle; /* 0: released */
  uint64_t offset, bytes;
  size_t mapped; /* how often */
};

struct mapping {
  uint64_t base, bytes;
  int access;     /* PROT_*, of the device that the memory is on */
  uint64_t peers; /* bit n: the device n may read and write it */
  struct physical *physical;
};

struct reservation {
  uint64_t base, bytes;
  struct mapping *mappings; /* in address order */
  size_t count, room;
};

static bool aligned(uint64_t value) {
  return value % DZ_HOST_GRANULARITY == 0;
}

/* Whether address and bytes may name a range at all. */
static bool well_formed(uint64_t address, uint64_t bytes) {
  return bytes != 0 && aligned(address) && aligned(bytes) && address + bytes > address;
}

static void *pointer(uint64_t address) {
  return (void *)(uintptr_t)address;
}

/* ---- physical memory */

CUresult dz_host_MemGetAllocationGranularity(size_t *granularity, const CUmemAllocationProp *prop,
                                             CUmemAllocationGranularity_flags option) {
  CUresult result = dz_host_begin();
  if (result != CUDA_SUCCESS) return result;
  if (granularity == NULL || prop == NULL || (unsigned)option > CU_MEM_ALLOC_GRANULARITY_RECOMMENDED) {
    return dz_host_end(CUDA_ERROR_INVALID_VALUE);
  }
  *granularity = DZ_HOST_GRANULARITY;
  return dz_host_end(CUDA_SUCCESS);
}

CUresult dz_host_MemGetInfo(size_t *free_bytes, size_t *total_bytes) {
  struct gpu *gpu;
  CUresult result = dz_host_begin();
  if (result != CUDA_SUCCESS) return result;
  result = dz_gpu_current(&gpu);
  if (result != CUDA_SUCCESS) return dz_host_end(result);
  if (free_bytes != NULL) *free_bytes = gpu->capacity - gpu->used;
  if (total_bytes != NULL) *total_bytes = gpu->capacity;
  return dz_host_end(CUDA_SUCCESS);
}

/* Where memory is to be, and that it asks for nothing that is not modelled: export, compression, RDMA. */
static CUresult check_prop(const CUmemAllocationProp *prop, struct gpu **gpu) {
  if (prop->type != CU_MEM_ALLOCATION_TYPE_PINNED || prop->location.type != CU_MEM_LOCATION_TYPE_DEVICE) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (prop->requestedHandleTypes != CU_MEM_HANDLE_TYPE_NONE || prop->allocFlags.compressionType != 0 ||
      prop->allocFlags.gpuDirectRDMACapable != 0 || prop->allocFlags.usage != 0) {
    return CUDA_ERROR_NOT_SUPPORTED;
  }
  *gpu = dz_gpu_find(prop->location.id);
  if (*gpu == NULL) return CUDA_ERROR_INVALID_DEVICE;
  return (*gpu)->retains == 0 || (*gpu)->ending ? CUDA_ERROR_INVALID_CONTEXT : CUDA_SUCCESS;
}

/* Appends bytes to the file. A file past the limit on its size would be a signal and not an error. */
static bool grow_file(struct gpu *gpu, uint64_t bytes) {
  struct rlimit limit;
  uint64_t end = gpu->file_end + bytes;
  if (end > INT64_MAX) return false;
  if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && end > limit.rlim_cur) return false;
  if (ftruncate(gpu->file, (off_t)end) != 0) return false;
  gpu->file_end = end;
  return true;
}

static void punch(const struct physical *physical) {
  int done;
  do {
    done = fallocate(physical->gpu->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)physical->offset,
                     (off_t)physical->bytes);
  } while (done != 0 && errno == EINTR);
}

static void free_if_unused(struct physical *physical) {
  if (physical->handle != 0 || physical->mapped != 0) return;
  punch(physical);
  physical->gpu->used -= physical->bytes;
  *physical->before = physical->next;
  if (physical->next != NULL) physical->next->before = physical->before;
  free(physical);
}

static CUresult make_physical(struct gpu *gpu, uint64_t bytes, CUmemGenericAllocationHandle *handle) {
  if (bytes > gpu->capacity - gpu->used) return CUDA_ERROR_OUT_OF_MEMORY;
  struct physical *physical = calloc(1, sizeof *physical);
  if (physical == NULL) return CUDA_ERROR_OUT_OF_MEMORY;
  physical->handle = dz_table_add(&dz_host()->handles, HOST_MEMORY, physical);
  if (physical->handle == 0) goto no_handle;
  if (!grow_file(gpu, bytes)) goto no_room;
  physical->gpu = gpu;
  physical->bytes = bytes;
  physical->offset = gpu->file_end - bytes;
  physical->next = gpu->physical;
  physical->before = &gpu->physical;
  if (physical->next != NULL) physical->next->before = &physical->next;
  gpu->physical = physical;
  gpu->used += bytes;
  *handle = physical->handle;
  return CUDA_SUCCESS;

no_room:
  (void)dz_table_remove(&dz_host()->handles, HOST_MEMORY, physical->handle);
no_handle:
  free(physical);
  return CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult dz_host_MemCreate(CUmemGenericAllocationHandle *handle, size_t size, const CUmemAllocationProp *prop,
                           unsigned long long flags) {
  struct gpu *gpu;
  CUresult result = dz_host_begin();
  if (result != CUDA_SUCCESS) return result;
  if (handle == NULL || prop == NULL || flags != 0 || size == 0 || !aligned(size)) return dz_host_end(CUDA_ERROR_INVALID_VALUE);
  result = check_prop(prop, &gpu);
  if (result != CUDA_SUCCESS) return dz_host_end(result);
  return dz_host_end(make_physical(gpu, size, handle));
}

CUresult dz_host_MemRelease(CUmemGenericAllocationHandle handle) {
  CUresult result = dz_host_begin();
  if (result != CUDA_SUCCESS) return result;
  struct physical *physical = dz_table_remove(&dz_host()->handles, HOST_MEMORY, handle);
  if (physical == NULL) return dz_host_end(CUDA_ERROR_INVALID_VALUE);
  physical->handle = 0;
  free_if_unused(physical);
  return dz_host_end(CUDA_SUCCESS);
}

/* ---- reservations: their array, under maps_lock */

static void lock_maps(void) {
  (void)pthread_rwlock_wrlock(&dz_host()->maps_lock);
}

static void unlock_maps(void) {
  (void)pthread_rwlock_unlock(&dz_host()->maps_lock);
}

/* How many reservations begin at address or below. */
static size_t count_below(uint64_t address) {
  const struct host *host = dz_host();
  size_t low = 0, high = host->reservation_count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (host->reservations[middle]->base <= address) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

/* The reservation that address lies in. */
static struct reservation *reservation_at(uint64_t address) {
  size_t below = count_below(address);
  if (below == 0) return NULL;
  struct reservation *reservation = dz_host()->reservations[below - 1];
  return address - reservation->base < reservation->bytes ? reservation : NULL;
}

/* The reservation that holds a range as a whole. */
static struct reservation *reservation_of(uint64_t address, uint64_t bytes) {
  struct reservation *reservation = reservation_at(address);
  return reservation != NULL && bytes <= reservation->base + reservation->bytes - address ? reservation : NULL;
}

static bool touches_reservation(uint64_t address, uint64_t bytes) {
  size_t below = count_below(address + bytes - 1);
  if (below == 0) return false;
  const struct reservation *reservation = dz_host()->reservations[below - 1];
  return reservation->base + reservation->bytes > address;
}

static bool add_reservation(struct reservation *reservation) {
  struct host *host = dz_host();
  if (host->reservation_count == host->reservation_room) {
    size_t room = host->reservation_room == 0 ? 16 : host->reservation_room * 2;
    struct reservation **reservations = realloc(host->reservations, room * sizeof *reservations);
    if (reservations == NULL) return false;
    host->reservations = reservations;
    host->reservation_room = room;
  }
  size_t at = count_below(reservation->base);
  memmove(&host->reservations[at + 1], &host->reservations[at], (host->reservation_count - at) * sizeof *host->reservations);
  host->reservations[at] = reservation;
  host->reservation_count++;
  return true;
}

static void drop_reservation(struct reservation *reservation) {
  struct host *host = dz_host();
  size_t at = count_below(reservation->base) - 1;
  host->reservation_count--;
  memmove(&host->reservations[at], &host->reservations[at + 1], (host->reservation_count - at) * sizeof *host->reservations);
}

/* ---- reservations: addresses */

/* Makes a range inaccessible and without memory. fixed: at address, which is ours already, so nobody can come in between. A
 * forked child does not get it. */
static void *map_nothing(void *address, uint64_t bytes, int fixed) {
  void *mapped = mmap(address, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | fixed, -1, 0);
  if (mapped != MAP_FAILED) (void)madvise(mapped, bytes, MADV_DONTFORK);
  return mapped;
}

/* Reserves at the hint; 0: something is there. */
static uint64_t reserve_at(uint64_t address, uint64_t bytes) {
  void *mapped = map_nothing(pointer(address), bytes, MAP_FIXED_NOREPLACE);
  if (mapped == MAP_FAILED) return 0;
  if (mapped == pointer(address)) return address;
  (void)munmap(mapped, bytes); /* a kernel before 4.17 takes the flag for a hint */
  return 0;
}

/* Reserves anywhere: a range that is too large, cut to fit. 0: no room. */
static uint64_t reserve_anywhere(uint64_t bytes, uint64_t alignment) {
  uint64_t whole = bytes + alignment;
  if (whole < bytes) return 0;
  void *mapped = map_nothing(NULL, whole, 0);
  if (mapped == MAP_FAILED) return 0;
  uint64_t start = (uint64_t)(uintptr_t)mapped, end = start + whole;
  uint64_t base = (start + alignment - 1) & ~(alignment - 1);
  if (base > start) (void)munmap(mapped, base - start);
  if (end > base + bytes) (void)munmap(pointer(base + bytes), end - base - bytes);
  return base;
}

static uint64_t reserve(uint64_t bytes, uint64_t alignment, uint64_t hint) {
  uint64_t base = 0;
  if (alignment < DZ_HOST_GRANULARITY) alignment = DZ_HOST_GRANULARITY;
  if (hint != 0 && hint % alignment == 0) base = reserve_at(hint, bytes);
  return base != 0 ? base : reserve_anywhere(bytes, alignment);
}

CUresult dz_host_MemAddressReserve(CUdeviceptr *ptr, size_t size, size_t alignment, CUdeviceptr address,
                                   unsigned long long flags) {
  CUresult result = dz_host_begin();
  if (result != CUDA_SUCCESS) return result;
  if (ptr == NULL || flags != 0 || size == 0 || !aligned(size) || !aligned(address) || (alignment & (alignment - 1)) != 0) {
    return dz_host_end(CUDA_ERROR_INVALID_VALUE);
  }
  struct reservation *reservation = calloc(1, sizeof *reservation);
  if (reservation == NULL) return dz_host_end(CUDA_ERROR_OUT_OF_MEMORY);
  reservation->bytes = size;
  reservation->base = reserve(size, alignment, address);
  if (reservation->base == 0) goto no_addresses;
  lock_maps();
  bool added = add_reservation(reservation);
  unlock_maps();
  if (!added) goto not_added;
  *ptr = reservation->base;
  return dz_host_end(CUDA_SUCCESS);

not_added:
  (void)munmap(pointer(reservation->base), size);
no_addresses:
  free(reservation);
  return dz_host_end(CUDA_ERROR_OUT_OF_MEMORY);
}

/* Nobody may get the addresses before nobody finds the reservation. */
static void free_reservation(struct reservation *reservation) {
  drop_reservation(reservation);
  (void)munmap(pointer(reservation->base), reservation->bytes);
  free(reservation->mappings);
  free(reservation);
}

CUresult dz_host_MemAddressFree(CUdeviceptr ptr, size_t size) {
  CUresult result = dz_host_begin();
  if (result != CUDA_SUCCESS) return result;
  lock_maps();
  struct reservation *reservation = reservation_at(ptr);
  if (reservation == NULL || reservation->base != ptr || reservation->bytes != size || reservation->count != 0) {
    result = CUDA_ERROR_INVALID_VALUE;
  } else {
    free_reservation(reservation);
  }
  unlock_maps();
  return dz_host_end(result);
}

/* ---- mappings, under maps_lock */

/* How many mappings begin at address or below. */
static size_t mappings_below(const struct reservation *reservation, uint64_t address) {
  size_t low = 0, high = reservation->count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (reservation->mappings[middle].base <= address) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

static bool is_free(const struct reservation *reservation, uint64_t address, uint64_t bytes) {
  size_t below = mappings_below(reservation, address + bytes - 1);
  if (below == 0) return true;
  const struct mapping *last = &reservation->mappings[below - 1];
  return last->base + last->bytes <= address;
}

/* The mappings that make up a range exactly, without gaps; count 0: it cuts one, or there is a gap. */
static struct mapping *mappings_of(struct reservation *reservation, uint64_t address, uint64_t bytes, size_t *count) {
  size_t first = mappings_below(reservation, address);
  *count = 0;
  if (first == 0 || reservation->mappings[first - 1].base != address) return NULL;
  struct mapping *mappings = &reservation->mappings[first - 1];
  size_t most = reservation->count - (first - 1);
  uint64_t at = address, end = address + bytes;
  size_t found = 0;
  while (at < end && found < most && mappings[found].base == at) at += mappings[found++].bytes;
  if (at == end) *count = found;
  return mappings;
}

static bool make_room(struct reservation *reservation) {
  if (reservation->count < reservation->room) return true;
  size_t room = reservation->room == 0 ? 4 : reservation->room * 2;
  struct mapping *mappings = realloc(reservation->mappings, room * sizeof *mappings);
  if (mappings == NULL) return false;
  reservation->mappings = mappings;
  reservation->room = room;
  return true;
}

static CUresult add_mapping(struct reservation *reservation, uint64_t address, struct physical *physical) {
  if (!is_free(reservation, address, physical->bytes)) return CUDA_ERROR_INVALID_VALUE;
  if (!make_room(reservation)) return CUDA_ERROR_OUT_OF_MEMORY;
  void *mapped =
      mmap(pointer(address), physical->bytes, PROT_NONE, MAP_SHARED | MAP_FIXED, physical->gpu->file, (off_t)physical->offset);
  if (mapped == MAP_FAILED) { /* the system's limit on mappings; it may have left a gap */
    (void)map_nothing(pointer(address), physical->bytes, MAP_FIXED);
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  (void)madvise(mapped, physical->bytes, MADV_DONTFORK);
  size_t at = mappings_below(reservation, address);
  struct mapping *mapping = &reservation->mappings[at];
  memmove(mapping + 1, mapping, (reservation->count - at) * sizeof *mapping);
  *mapping = (struct mapping){.base = address, .bytes = physical->bytes, .access = PROT_NONE, .physical = physical};
  reservation->count++;
  physical->mapped++;
  return CUDA_SUCCESS;
}

CUresult dz_host_MemMap(CUdeviceptr ptr, size_t size, size_t offset, CUmemGenericAllocationHandle handle,
                        unsigned long long flags) {
  CUresult result = dz_host_begin();
  if (result != CUDA_SUCCESS) return result;
  struct physical *physical = dz_table_find(&dz_host()->handles, HOST_MEMORY, handle);
  if (physical == NULL || flags != 0 || !well_formed(ptr, size)) return dz_host_end(CUDA_ERROR_INVALID_VALUE);
  if (offset != 0 || size != physical->bytes) return dz_host_end(CUDA_ERROR_NOT_SUPPORTED); /* a part of it */
  lock_maps();
  struct reservation *reservation = reservation_of(ptr, size);
  result = reservation == NULL ? CUDA_ERROR_INVALID_VALUE : add_mapping(reservation, ptr, physical);
  unlock_maps();
  return dz_host_end(result);
}

/* Takes count mappings out of a reservation whose addresses hold nothing any more. */
static void drop_mappings(struct reservation *reservation, struct mapping *mappings, size_t count) {
  for (size_t i = 0; i < count; i++) {
    mappings[i].physical->mapped--;
    free_if_unused(mappings[i].physical);
  }
  size_t behind = (size_t)(reservation->mappings + reservation->count - (mappings + count));
  memmove(mappings, mappings + count, behind * sizeof *mappings);
  reservation->count -= count;
}

CUresult dz_host_MemUnmap(CUdeviceptr ptr, size_t size) {
  CUresult result = dz_host_begin();
  if (result != CUDA_SUCCESS) return result;
  if (!well_formed(ptr, size)) return dz_host_end(CUDA_ERROR_INVALID_VALUE);
  lock_maps();
  size_t count = 0;
  struct mapping *mappings = NULL;
  struct reservation *reservation = reservation_of(ptr, size);
  if (reservation != NULL) mappings = mappings_of(reservation, ptr, size, &count);
  if (count == 0) {
    result = CUDA_ERROR_INVALID_VALUE;
  } else if (map_nothing(pointer(ptr), size, MAP_FIXED) == MAP_FAILED) {
    result = CUDA_ERROR_OUT_OF_MEMORY;
  } else {
    drop_mappings(reservation, mappings, count);
  }
  unlock_maps();
  return dz_host_end(result);
}

/* ---- access */

static bool protection_of(CUmemAccess_flags flags, int *protection) {
  if (flags == CU_MEM_ACCESS_FLAGS_PROT_NONE) {
    *protection = PROT_NONE;
  } else if (flags == CU_MEM_ACCESS_FLAGS_PROT_READ) {
    *protection = PROT_READ;
  } else if (flags == CU_MEM_ACCESS_FLAGS_PROT_READWRITE) {
    *protection = PROT_READ | PROT_WRITE;
  } else {
    return false;
  }
  return true;
}

static bool is_on(const struct mapping *mappings, size_t count, CUdevice device) {
  for (size_t i = 0; i < count; i++) {
    if (mappings[i].physical->gpu->ordinal != device) return false;
  }
  return count != 0;
}

/* Peers' access is noted and can be asked for; they are all in this process, so it stops nobody. */
static CUresult set_peer(struct mapping *mappings, size_t count, CUdevice peer, int protection) {
  if (count == 0 || peer < 0 || peer >= 64 || dz_gpu_find(peer) == NULL) return CUDA_ERROR_INVALID_VALUE;
  for (size_t i = 0; i < count; i++) {
    if (protection == PROT_NONE)
      mappings[i].peers &= ~(UINT64_C(1) << peer);
    else
      mappings[i].peers |= UINT64_C(1) << peer;
  }
  return CUDA_SUCCESS;
}

static CUresult set_access(struct mapping *mappings, size_t count, CUdeviceptr ptr, size_t size, const CUmemAccessDesc *desc) {
  int protection;
  if (desc->location.type != CU_MEM_LOCATION_TYPE_DEVICE || !protection_of(desc->flags, &protection))
    return CUDA_ERROR_INVALID_VALUE;
  if (!is_on(mappings, count, desc->location.id)) return set_peer(mappings, count, desc->location.id, protection);
  if (mprotect(pointer(ptr), size, protection) != 0) return CUDA_ERROR_OUT_OF_MEMORY;
  for (size_t i = 0; i < count; i++) mappings[i].access = protection;
  return CUDA_SUCCESS;
}

CUresult dz_host_MemSetAccess(CUdeviceptr ptr, size_t size, const CUmemAccessDesc *desc, size_t descriptions) {
  CUresult result = dz_host_begin();
  if (result != CUDA_SUCCESS) return result;
  if (!well_formed(ptr, size) || desc == NULL || descriptions == 0) return dz_host_end(CUDA_ERROR_INVALID_VALUE);
  lock_maps();
  size_t count = 0;
  struct mapping *mappings = NULL;
  struct reservation *reservation = reservation_of(ptr, size);
  if (reservation != NULL) mappings = mappings_of(reservation, ptr, size, &count);
  for (size_t i = 0; i < descriptions && result == CUDA_SUCCESS; i++) result = set_access(mappings, count, ptr, size, &desc[i]);
  unlock_maps();
  return dz_host_end(result);
}

static unsigned long long access_of(const struct mapping *mapping, CUdevice device) {
  int access = mapping->access;
  if (mapping->physical->gpu->ordinal != device) {
    return device < 64 && (mapping->peers >> device & 1) != 0 ? CU_MEM_ACCESS_FLAGS_PROT_READWRITE
                                                              : CU_MEM_ACCESS_FLAGS_PROT_NONE;
  }
  return access == PROT_NONE   ? CU_MEM_ACCESS_FLAGS_PROT_NONE
         : access == PROT_READ ? CU_MEM_ACCESS_FLAGS_PROT_READ
                               : CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
}

CUresult dz_host_MemGetAccess(unsigned long long *flags, const CUmemLocation *location, CUdeviceptr ptr) {
  CUresult result = dz_host_begin();
  if (result != CUDA_SUCCESS) return result;
  if (flags == NULL || location == NULL || location->type != CU_MEM_LOCATION_TYPE_DEVICE || dz_gpu_find(location->id) == NULL) {
    return dz_host_end(CUDA_ERROR_INVALID_VALUE);
  }
  lock_maps();
  const struct reservation *reservation = reservation_at(ptr);
  size_t below = reservation == NULL ? 0 : mappings_below(reservation, ptr);
  const struct mapping *mapping = below == 0 ? NULL : &reservation->mappings[below - 1];
  if (mapping == NULL || ptr - mapping->base >= mapping->bytes)
    result = CUDA_ERROR_INVALID_VALUE;
  else
    *flags = access_of(mapping, location->id);
  unlock_maps();
  return dz_host_end(result);
}

/* Memory that can be exported cannot be created. */
CUresult dz_host_MemExportToShareableHandle(void *shareable, CUmemGenericAllocationHandle handle, CUmemAllocationHandleType type,
                                            unsigned long long flags) {
  (void)shareable;
  (void)handle;
  (void)type;
  (void)flags;
  CUresult result = dz_host_begin();
  return result == CUDA_SUCCESS ? dz_host_end(CUDA_ERROR_NOT_SUPPORTED) : result;
}

bool dz_memory_reachable(uint64_t address, uint64_t bytes, bool write, bool device) {
  if (bytes == 0) return true;
  if (address + bytes < address) return false;
  int wanted = write ? PROT_WRITE : PROT_READ;
  if (!device && !touches_reservation(address, bytes)) return true;
  while (bytes != 0) {
    const struct reservation *reservation = reservation_at(address);
    size_t below = reservation == NULL ? 0 : mappings_below(reservation, address);
    if (below == 0) return false;
    const struct mapping *mapping = &reservation->mappings[below - 1];
    uint64_t inside = address - mapping->base;
    if (inside >= mapping->bytes || (mapping->access & wanted) == 0) return false;
    uint64_t step = mapping->bytes - inside < bytes ? mapping->bytes - inside : bytes;
    address += step;
    bytes -= step;
  }
  return true;
}

/* ---- the end */

static void reclaim_mappings(struct reservation *reservation, const struct gpu *gpu) {
  for (size_t at = reservation->count; at-- > 0;) {
    struct mapping *mapping = &reservation->mappings[at];
    if (mapping->physical->gpu != gpu) continue;
    (void)map_nothing(pointer(mapping->base), mapping->bytes, MAP_FIXED);
    drop_mappings(reservation, mapping, 1);
    dz_host()->reclaimed++;
  }
}

void dz_memory_reclaim(struct gpu *gpu) {
  struct host *host = dz_host();
  lock_maps();
  for (size_t at = 0; at < host->reservation_count; at++) reclaim_mappings(host->reservations[at], gpu);
  unlock_maps();
  while (gpu->physical != NULL) {
    struct physical *physical = gpu->physical;
    (void)dz_table_remove(&host->handles, HOST_MEMORY, physical->handle);
    physical->handle = 0;
    free_if_unused(physical);
    host->reclaimed++;
  }
}

void dz_memory_reclaim_reservations(void) {
  struct host *host = dz_host();
  lock_maps();
  while (host->reservation_count != 0) {
    free_reservation(host->reservations[host->reservation_count - 1]);
    host->reclaimed++;
  }
  free(host->reservations);
  host->reservations = NULL;
  host->reservation_room = 0;
  unlock_maps();
}

void dz_memory_count(struct host_counts *counts) {
  const struct host *host = dz_host();
  for (const struct gpu *gpu = host->gpus; gpu != NULL; gpu = gpu->next) counts->physical_bytes += gpu->used;
  counts->handles = host->handles.used;
  counts->reservations = host->reservation_count;
  for (size_t at = 0; at < host->reservation_count; at++) {
    const struct reservation *reservation = host->reservations[at];
    counts->mappings += reservation->count;
    for (size_t i = 0; i < reservation->count; i++) counts->mapped_bytes += reservation->mappings[i].bytes;
  }
}
