/* SPDX-License-Identifier: Apache-2.0
 *
 * Devices and their primary contexts: queries, retain and release, the current context.
 */
#include "driver/host/state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/tls.h"
#include "driver/host/capacity.h"

static DZ_TLS CUcontext current;

/* ---- devices */

struct gpu *dz_gpu_find(CUdevice ordinal) {
  for (struct gpu *gpu = dz_host()->gpus; gpu != NULL; gpu = gpu->next) {
    if (gpu->ordinal == ordinal) return gpu;
  }
  return NULL;
}

/* Limits may change while the process runs; its device does not. */
static uint64_t default_capacity(void) {
  struct host *host = dz_host();
  if (host->default_capacity == 0) host->default_capacity = dz_host_default_capacity();
  return host->default_capacity;
}

static struct gpu *find_capacity(uint64_t capacity) {
  struct gpu *found = NULL;
  for (struct gpu *gpu = dz_host()->gpus; gpu != NULL; gpu = gpu->next) {
    if (gpu->capacity == capacity) found = gpu; /* the list is newest first: the oldest counts */
  }
  return found;
}

struct gpu *dz_gpu_add(uint64_t capacity) {
  struct host *host = dz_host();
  struct gpu *gpu = calloc(1, sizeof *gpu);
  if (gpu == NULL) return NULL;
  if (pthread_cond_init(&gpu->progress, NULL) != 0) {
    free(gpu);
    return NULL;
  }
  gpu->capacity = capacity;
  gpu->file = -1;
  gpu->ordinal = host->gpus == NULL ? 0 : host->gpus->ordinal + 1;
  uint64_t handle = (uint64_t)HOST_CONTEXT << 56 | (uint64_t)host->generation << 24 | (uint64_t)(gpu->ordinal + 1);
  gpu->context = (CUcontext)(uintptr_t)handle;
  gpu->next = host->gpus;
  host->gpus = gpu;
  return gpu;
}

/* There always is one, from when somebody first asks. */
static bool have_device(void) {
  return dz_host()->gpus != NULL || dz_gpu_add(default_capacity()) != NULL;
}

CUresult dz_host_device(uint64_t capacity, CUdevice *device) {
  CUresult result = dz_host_begin();
  if (result != CUDA_SUCCESS) return result;
  if (capacity == 0) capacity = default_capacity();
  struct gpu *gpu = find_capacity(capacity);
  if (gpu == NULL) gpu = dz_gpu_add(capacity);
  if (gpu == NULL) return dz_host_end(CUDA_ERROR_OUT_OF_MEMORY);
  *device = gpu->ordinal;
  return dz_host_end(CUDA_SUCCESS);
}

/* Starts a call that is about a device; NULL: it is over, with that result. */
static struct gpu *begin_device(CUdevice ordinal, CUresult *result) {
  *result = dz_host_begin();
  if (*result != CUDA_SUCCESS) return NULL;
  struct gpu *gpu = NULL;
  if (!have_device())
    *result = CUDA_ERROR_OUT_OF_MEMORY;
  else if ((gpu = dz_gpu_find(ordinal)) == NULL)
    *result = CUDA_ERROR_INVALID_DEVICE;
  if (gpu == NULL) (void)dz_host_end(*result);
  return gpu;
}

CUresult dz_host_DriverGetVersion(int *version) {
  if (version == NULL) return CUDA_ERROR_INVALID_VALUE;
  *version = 12000;
  return CUDA_SUCCESS;
}

CUresult dz_host_DeviceGet(CUdevice *device, int ordinal) {
  CUresult result;
  struct gpu *gpu = begin_device(ordinal, &result);
  if (gpu == NULL) return result;
  if (device == NULL) return dz_host_end(CUDA_ERROR_INVALID_VALUE);
  *device = gpu->ordinal;
  return dz_host_end(CUDA_SUCCESS);
}

CUresult dz_host_DeviceGetCount(int *count) {
  CUresult result;
  struct gpu *gpu = begin_device(0, &result);
  if (gpu == NULL) return result;
  if (count == NULL) return dz_host_end(CUDA_ERROR_INVALID_VALUE);
  *count = dz_host()->gpus->ordinal + 1; /* the newest is first */
  return dz_host_end(CUDA_SUCCESS);
}

CUresult dz_host_DeviceGetName(char *name, int length, CUdevice device) {
  CUresult result;
  struct gpu *gpu = begin_device(device, &result);
  if (gpu == NULL) return result;
  if (name == NULL || length <= 0) return dz_host_end(CUDA_ERROR_INVALID_VALUE);
  (void)snprintf(name, (size_t)length, "drowse host device");
  return dz_host_end(CUDA_SUCCESS);
}

CUresult dz_host_DeviceGetUuid(CUuuid *uuid, CUdevice device) {
  CUresult result;
  struct gpu *gpu = begin_device(device, &result);
  if (gpu == NULL) return result;
  if (uuid == NULL) return dz_host_end(CUDA_ERROR_INVALID_VALUE);
  memcpy(uuid->bytes, "drowse host ", 12);
  for (unsigned at = 0; at < 4; at++) uuid->bytes[12 + at] = (char)((unsigned)gpu->ordinal >> (24 - 8 * at) & 0xff);
  return dz_host_end(CUDA_SUCCESS);
}

CUresult dz_host_DeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
  static const struct {
    CUdevice_attribute attribute;
    int value;
  } attributes[] = {
      {CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED, 1},
      {CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING, 1},
      {CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED, 1},
      {CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED, 0},
      {CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED, 0},
      {DZ_ATTRIBUTE_HOST_NUMA_ID, -1},
  };
  CUresult result;
  struct gpu *gpu = begin_device(device, &result);
  if (gpu == NULL) return result;
  if (value == NULL) return dz_host_end(CUDA_ERROR_INVALID_VALUE);
  for (size_t i = 0; i < sizeof attributes / sizeof *attributes; i++) {
    if (attributes[i].attribute != attribute) continue;
    *value = attributes[i].value;
    return dz_host_end(CUDA_SUCCESS);
  }
  return dz_host_end(CUDA_ERROR_INVALID_VALUE);
}

/* All are in this process. */
CUresult dz_host_DeviceCanAccessPeer(int *can, CUdevice device, CUdevice peer) {
  CUresult result;
  struct gpu *gpu = begin_device(device, &result);
  if (gpu == NULL) return result;
  if (can == NULL) return dz_host_end(CUDA_ERROR_INVALID_VALUE);
  if (dz_gpu_find(peer) == NULL) return dz_host_end(CUDA_ERROR_INVALID_DEVICE);
  *can = peer != device;
  return dz_host_end(CUDA_SUCCESS);
}

CUresult dz_host_DeviceTotalMem(size_t *bytes, CUdevice device) {
  CUresult result;
  struct gpu *gpu = begin_device(device, &result);
  if (gpu == NULL) return result;
  if (bytes == NULL) return dz_host_end(CUDA_ERROR_INVALID_VALUE);
  *bytes = gpu->capacity;
  return dz_host_end(CUDA_SUCCESS);
}

/* ---- primary contexts */

/* The file is as long as all that was ever put in it: holes take no memory. */
static bool open_file(struct gpu *gpu) {
  struct stat status;
  int file = memfd_create("drowse-host-device", MFD_CLOEXEC);
  if (file < 0) return false;
  if (fstat(file, &status) != 0) {
    (void)close(file);
    return false;
  }
  gpu->file_device = status.st_dev;
  gpu->file_inode = status.st_ino;
  gpu->file_end = 0;
  gpu->file = file;
  return true;
}

static void close_file(struct gpu *gpu) {
  (void)close(gpu->file);
  gpu->file = -1;
}

CUresult dz_host_DevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
  CUresult result;
  struct gpu *gpu = begin_device(device, &result);
  if (gpu == NULL) return result;
  if (context == NULL) return dz_host_end(CUDA_ERROR_INVALID_VALUE);
  while (gpu->ending) (void)pthread_cond_wait(&dz_host()->ended, &dz_host()->lock);
  if (gpu->retains == 0) {
    if (gpu->lost != CUDA_SUCCESS) return dz_host_end(gpu->lost); /* as long as the process lives */
    if (!open_file(gpu)) return dz_host_end(CUDA_ERROR_OUT_OF_MEMORY);
    gpu->legacy = dz_stream_make(gpu, true, 0);
    if (gpu->legacy == NULL) {
      close_file(gpu);
      return dz_host_end(CUDA_ERROR_OUT_OF_MEMORY);
    }
  }
  gpu->retains++;
  *context = gpu->context;
  return dz_host_end(CUDA_SUCCESS);
}

static bool any_retained(void) {
  for (const struct gpu *gpu = dz_host()->gpus; gpu != NULL; gpu = gpu->next) {
    if (gpu->retains != 0) return true;
  }
  return false;
}

/* Work comes to its end first: it may be copying to host memory whose owner counts on that. */
static void end_context(struct gpu *gpu) {
  gpu->ending = true;
  dz_capture_reclaim(gpu);
  dz_stream_end_all(gpu);
  dz_event_reclaim(gpu);
  dz_pin_reclaim(gpu);
  dz_memory_reclaim(gpu);
  close_file(gpu);
  gpu->legacy = NULL;
  gpu->retains = 0;
  gpu->ending = false;
  if (!any_retained()) {
    dz_memory_reclaim_reservations();
    dz_graph_reclaim();
  }
  (void)pthread_cond_broadcast(&dz_host()->ended);
}

CUresult dz_host_DevicePrimaryCtxRelease(CUdevice device) {
  CUresult result;
  struct gpu *gpu = begin_device(device, &result);
  if (gpu == NULL) return result;
  if (gpu->retains == 0 || gpu->ending) return dz_host_end(CUDA_ERROR_INVALID_CONTEXT);
  if (gpu->retains > 1) {
    gpu->retains--;
  } else {
    end_context(gpu);
  }
  return dz_host_end(CUDA_SUCCESS);
}

/* ---- the current context */

static struct gpu *find_context(CUcontext context) {
  for (struct gpu *gpu = dz_host()->gpus; gpu != NULL; gpu = gpu->next) {
    if (gpu->context == context) return gpu;
  }
  return NULL;
}

CUresult dz_gpu_current(struct gpu **gpu) {
  *gpu = find_context(current);
  if (*gpu == NULL) return CUDA_ERROR_INVALID_CONTEXT;
  if ((*gpu)->retains == 0 || (*gpu)->ending) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
  return (*gpu)->lost;
}

CUresult dz_host_CtxGetCurrent(CUcontext *context) {
  CUresult result = dz_host_begin();
  if (result != CUDA_SUCCESS) return result;
  if (context == NULL) return dz_host_end(CUDA_ERROR_INVALID_VALUE);
  if (find_context(current) == NULL) current = NULL; /* it was the parent process's */
  *context = current;
  return dz_host_end(CUDA_SUCCESS);
}

CUresult dz_host_CtxSetCurrent(CUcontext context) {
  CUresult result = dz_host_begin();
  if (result != CUDA_SUCCESS) return result;
  if (context != NULL && find_context(context) == NULL) return dz_host_end(CUDA_ERROR_INVALID_CONTEXT);
  current = context;
  return dz_host_end(CUDA_SUCCESS);
}

CUresult dz_host_CtxGetDevice(CUdevice *device) {
  CUresult result = dz_host_begin();
  if (result != CUDA_SUCCESS) return result;
  const struct gpu *gpu = find_context(current);
  if (device == NULL) return dz_host_end(CUDA_ERROR_INVALID_VALUE);
  if (gpu == NULL) return dz_host_end(CUDA_ERROR_INVALID_CONTEXT);
  *device = gpu->ordinal;
  return dz_host_end(CUDA_SUCCESS);
}

CUresult dz_host_CtxSynchronize(void) {
  CUresult result = dz_host_begin();
  if (result != CUDA_SUCCESS) return result;
  struct gpu *gpu;
  result = dz_gpu_current(&gpu);
  if (result != CUDA_SUCCESS) return dz_host_end(result);
  result = dz_capture_check_context(gpu);
  if (result != CUDA_SUCCESS) return dz_host_end(result);
  dz_stream_await_gpu(gpu);
  return dz_host_end(gpu->lost);
}
