/* SPDX-License-Identifier: Apache-2.0
 *
 * A libcuda.so.1 for tests: the host device behind the doors of the real one, so that the code which finds and fills the table
 * runs where there is no GPU. Built once for each kind of driver there is: FAKE_CUDA=13 has the latest form of every
 * entry, 12 has cuGetProcAddress_v2, 11 the older cuGetProcAddress, 10 neither.
 *
 *   DROWSE_FAKE_DEVICES   "4GiB,512MiB": the devices and their memory; "": none; not set: one of 1GiB
 *   DROWSE_FAKE_MISSING   "cuMemCreate,cuStreamGetId": entries that it does not have
 *   DROWSE_FAKE_INIT      "100": cuInit fails with that error
 *   DROWSE_FAKE_MIG       its devices are slices, by their names
 *   DROWSE_FAKE_NO_VMM    its devices have no virtual memory management
 *   DROWSE_FAKE_MEET      "8": nobody finds cuInit before so many threads look for it
 *   DROWSE_FAKE_FAULTS    "FILE": while there is such a file, one in 100 of the calls of SLEEP_FAULTS fails
 */
#include "driver/host/state.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "driver/faults.h"

#define EXPORTED(name) __asm__(name) __attribute__((visibility("default")))

/* ---- what differs from the host device */

static bool parse_size(const char **text, uint64_t *bytes) {
  char *end;
  *bytes = strtoull(*text, &end, 10);
  if (end == *text) return false;
  unsigned shift = strncmp(end, "GiB", 3) == 0 ? 30 : strncmp(end, "MiB", 3) == 0 ? 20 : 0;
  if (shift == 0) return false;
  *bytes <<= shift;
  *text = end + 3;
  return **text == ',' || **text == '\0';
}

static CUresult add_devices(const char *text) {
  while (*text != '\0') {
    uint64_t bytes;
    if (!parse_size(&text, &bytes)) return CUDA_ERROR_INVALID_VALUE;
    if (dz_gpu_add(bytes) == NULL) return CUDA_ERROR_OUT_OF_MEMORY;
    if (*text == ',') text++;
  }
  return dz_host()->gpus == NULL ? CUDA_ERROR_NO_DEVICE : CUDA_SUCCESS;
}

static CUresult fake_Init(unsigned int flags) {
  const char *failure = getenv("DROWSE_FAKE_INIT"), *devices = getenv("DROWSE_FAKE_DEVICES");
  if (failure != NULL) return (CUresult)atoi(failure);
  CUresult result = dz_host_Init(flags);
  if (result == CUDA_SUCCESS) result = dz_host_begin();
  if (result != CUDA_SUCCESS) return result;
  if (dz_host()->gpus == NULL) result = add_devices(devices == NULL ? "1GiB" : devices);
  return dz_host_end(result);
}

static CUresult fake_DriverGetVersion(int *version) {
  *version = FAKE_CUDA * 1000 + 40;
  return CUDA_SUCCESS;
}

static CUresult fake_DeviceGetName(char *name, int length, CUdevice device) {
  CUresult result = dz_host_DeviceGetName(name, length, device);
  if (result != CUDA_SUCCESS) return result;
  (void)snprintf(name, (size_t)length, "Fake GPU %d%s", device, getenv("DROWSE_FAKE_MIG") != NULL ? " MIG 1g.10gb" : "");
  return CUDA_SUCCESS;
}

static CUresult fake_DeviceGetUuid(CUuuid *uuid, CUdevice device) {
  static const unsigned char bytes[16] = {0xfa, 0xca, 0xde, 0, 0, 0, 0x40, 0, 0x80};
  CUresult result = dz_host_DeviceGetUuid(uuid, device);
  if (result != CUDA_SUCCESS) return result;
  memcpy(uuid->bytes, bytes, sizeof bytes);
  uuid->bytes[15] = (char)device;
  return CUDA_SUCCESS;
}

static CUresult fake_DeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
  CUresult result = dz_host_DeviceGetAttribute(value, attribute, device);
  bool hidden = attribute == CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED && getenv("DROWSE_FAKE_NO_VMM") != NULL;
  if (result == CUDA_SUCCESS && hidden) *value = 0;
  return result;
}

/* ---- faults */

static bool fails(void) {
  static atomic_uint_fast64_t calls;
  const char *file = getenv("DROWSE_FAKE_FAULTS");
  if (file == NULL || access(file, F_OK) != 0) return false;
  uint64_t mixed = (atomic_fetch_add(&calls, 1) + 1) * UINT64_C(0x9e3779b97f4a7c15);
  return (mixed >> 32) % 100 == 0;
}

#define FAULTY(name, parameters, arguments)                               \
  static CUresult faulty_##name parameters {                              \
    return fails() ? CUDA_ERROR_INVALID_VALUE : dz_host_##name arguments; \
  }
SLEEP_FAULTS(FAULTY)
#undef FAULTY

/* ---- finding entries */

typedef void (*entry_point)(void);

static const struct {
  const char *name;
  int version;
  entry_point entry;
} entries[] = {{"cuInit", 2000, (entry_point)fake_Init},
               {"cuDriverGetVersion", 2020, (entry_point)fake_DriverGetVersion},
               {"cuDeviceGetName", 2000, (entry_point)fake_DeviceGetName},
               {"cuDeviceGetUuid", 11040, (entry_point)fake_DeviceGetUuid},
               {"cuDeviceGetAttribute", 2000, (entry_point)fake_DeviceGetAttribute},
#define ENTRY(name, version, need, parameters) {"cu" #name, version, (entry_point)dz_host_##name},
               DZ_DRIVER_ENTRIES(ENTRY)
#undef ENTRY
};

static bool is_missing(const char *name) {
  const char *missing = getenv("DROWSE_FAKE_MISSING");
  size_t length = strlen(name);
  for (const char *at = missing; at != NULL && (at = strstr(at, name)) != NULL; at += length) {
    if ((at == missing || at[-1] == ',') && (at[length] == ',' || at[length] == '\0')) return true;
  }
  return false;
}

/* The entry, or the one that stands before it and may fail. */
static entry_point with_faults(const char *name, entry_point entry) {
#define FAULTY(faulty, parameters, arguments) \
  if (strcmp(name, "cu" #faulty) == 0) return (entry_point)faulty_##faulty;
  SLEEP_FAULTS(FAULTY)
#undef FAULTY
  return entry;
}

static pthread_barrier_t meeting;
static pthread_once_t meeting_once = PTHREAD_ONCE_INIT;

static void make_meeting(void) {
  (void)pthread_barrier_init(&meeting, NULL, (unsigned)atoi(getenv("DROWSE_FAKE_MEET")));
}

static void meet(void) {
  if (getenv("DROWSE_FAKE_MEET") == NULL) return;
  (void)pthread_once(&meeting_once, make_meeting);
  (void)pthread_barrier_wait(&meeting);
}

static CUdriverProcAddressQueryResult find(const char *name, void **found, int version, cuuint64_t flags) {
  *found = NULL;
  if (strcmp(name, "cuInit") == 0) meet();
  if (flags == CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM || is_missing(name)) return CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
  for (size_t i = 0; i < sizeof entries / sizeof *entries; i++) {
    if (strcmp(entries[i].name, name) != 0) continue;
    if (version < entries[i].version) return CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT;
    const entry_point entry = with_faults(name, entries[i].entry);
    memcpy(found, &entry, sizeof *found);
    return CU_GET_PROC_ADDRESS_SUCCESS;
  }
  return CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
}

#if FAKE_CUDA >= 12
CUresult fake_find(const char *name, void **found, int version, cuuint64_t flags, CUdriverProcAddressQueryResult *why)
    EXPORTED("cuGetProcAddress_v2");

CUresult fake_find(const char *name, void **found, int version, cuuint64_t flags, CUdriverProcAddressQueryResult *why) {
  *why = find(name, found, version, flags);
  return CUDA_SUCCESS;
}
#elif FAKE_CUDA == 11
CUresult fake_find(const char *name, void **found, int version, cuuint64_t flags) EXPORTED("cuGetProcAddress");

CUresult fake_find(const char *name, void **found, int version, cuuint64_t flags) {
  return find(name, found, version, flags) == CU_GET_PROC_ADDRESS_SUCCESS ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}
#else
CUresult fake_init(unsigned int flags) EXPORTED("cuInit");

CUresult fake_init(unsigned int flags) {
  void *unused;
  (void)find("cuInit", &unused, 2000, CU_GET_PROC_ADDRESS_DEFAULT);
  return fake_Init(flags);
}
#endif
