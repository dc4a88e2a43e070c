/* SPDX-License-Identifier: Apache-2.0
 *
 * The driver's entries, in a table that goes by way of the fault table. The programs are linked so that a heap that opens gets it
 * in place of the host device's, or of libcuda's (--wrap).
 */
#include <sched.h>

#include "driver/cuda_driver.h"
#include "driver/host.h"
#include "fault/fault.h"

extern const struct driver __real_dz_host_driver, __wrap_dz_host_driver;
drowse_status __real_dz_cuda_open(const struct driver **driver);
drowse_status __wrap_dz_cuda_open(const struct driver **driver);

static const struct driver *real = &__real_dz_host_driver;

const struct driver *fault_real_driver(void) {
  return real;
}

/* ---- what becomes of a call */

struct verdict {
  bool call;     /* it is made */
  CUresult says; /* what it answers, unless that is success: then as it does */
};

/* What older headers lack: it has been taken by another process, or has fallen off the bus. */
#define DEVICE_UNAVAILABLE ((CUresult)46)

static atomic_int late;                /* CUresult: what the next wait tells */
static atomic_bool is_lost, is_broken; /* the device; the context */

static bool is_wait(enum fault_point point) {
  return point == FAULT_CtxSynchronize || point == FAULT_StreamSynchronize || point == FAULT_EventSynchronize;
}

static bool is_asking(enum fault_point point) {
  return point == FAULT_EventQuery || point == FAULT_StreamQuery;
}

static bool is_stream_work(enum fault_point point) {
  return point == FAULT_MemcpyHtoDAsync || point == FAULT_MemcpyDtoHAsync || point == FAULT_MemcpyBatchAsync ||
         point == FAULT_MemsetD8Async;
}

/* What a broken context leaves working: what is no business of a context's. */
static bool needs_context(enum fault_point point) {
  switch ((int)point) {
  case FAULT_Init:
  case FAULT_DriverGetVersion:
  case FAULT_GetErrorName:
  case FAULT_GetErrorString:
  case FAULT_DeviceGet:
  case FAULT_DeviceGetCount:
  case FAULT_DeviceGetName:
  case FAULT_DeviceGetUuid:
  case FAULT_DeviceGetAttribute:
  case FAULT_DeviceTotalMem:
  case FAULT_CtxGetCurrent:
  case FAULT_CtxSetCurrent:
  case FAULT_CtxGetDevice:
  case FAULT_ThreadExchangeStreamCaptureMode:
    return false;
  default:
    return true;
  }
}

/* A device that is lost does not write to host memory any more. The emulation, which does not know of its loss, would. */
static void let_work_end(void) {
  (void)real->CtxSynchronize();
}

static void pass_some_time(void) {
  for (int i = 0; i < 200; i++) (void)sched_yield();
}

static struct verdict judge_lost(enum fault_point point) {
  bool knows = point == FAULT_GetErrorName || point == FAULT_GetErrorString;
  return (struct verdict){.call = knows, .says = knows ? CUDA_SUCCESS : DEVICE_UNAVAILABLE};
}

static struct verdict judge_broken(enum fault_point point) {
  bool knows = needs_context(point);
  return (struct verdict){.call = !knows, .says = knows ? CUDA_ERROR_ILLEGAL_ADDRESS : CUDA_SUCCESS};
}

static struct verdict judge_hit(enum fault_point point, enum fault_variant variant) {
  switch (variant) {
  case FAULT_REFUSED:
  case FAULT_SHORT:
  case FAULT_VARIANTS:
    break;
  case FAULT_FULL:
    return (struct verdict){is_wait(point), CUDA_ERROR_OUT_OF_MEMORY};
  case FAULT_DONE:
    return (struct verdict){true, CUDA_ERROR_UNKNOWN};
  case FAULT_LATE:
    atomic_store(&late, CUDA_ERROR_UNKNOWN);
    return (struct verdict){false, CUDA_SUCCESS};
  case FAULT_STICKY:
    let_work_end();
    atomic_store(&is_broken, true);
    return is_stream_work(point) ? (struct verdict){false, CUDA_SUCCESS} : judge_broken(point);
  case FAULT_LOST:
    let_work_end();
    atomic_store(&is_lost, true);
    return judge_lost(point);
  case FAULT_SLOW:
    pass_some_time();
    return (struct verdict){true, CUDA_SUCCESS};
  }
  return (struct verdict){is_wait(point), CUDA_ERROR_UNKNOWN}; /* a wait that fails has waited */
}

static struct verdict judge(enum fault_point point) {
  enum fault_variant variant;
  if (atomic_load(&is_broken)) return judge_broken(point);
  if (atomic_load(&is_lost)) return judge_lost(point);
  if (fault_hits(point, &variant)) return judge_hit(point, variant);
  CUresult told = is_wait(point) || is_asking(point) ? (CUresult)atomic_exchange(&late, CUDA_SUCCESS) : CUDA_SUCCESS;
  return (struct verdict){true, told};
}

/* ---- the table */

#define ARGUMENTS_Init (flags)
#define ARGUMENTS_DriverGetVersion (version)
#define ARGUMENTS_GetErrorName (error, name)
#define ARGUMENTS_GetErrorString (error, text)
#define ARGUMENTS_DeviceGet (device, ordinal)
#define ARGUMENTS_DeviceGetCount (count)
#define ARGUMENTS_DeviceGetName (name, length, device)
#define ARGUMENTS_DeviceGetUuid (uuid, device)
#define ARGUMENTS_DeviceGetAttribute (value, attribute, device)
#define ARGUMENTS_DeviceTotalMem (bytes, device)
#define ARGUMENTS_DeviceCanAccessPeer (can, device, peer)
#define ARGUMENTS_DevicePrimaryCtxRetain (context, device)
#define ARGUMENTS_DevicePrimaryCtxRelease (device)
#define ARGUMENTS_CtxGetCurrent (context)
#define ARGUMENTS_CtxSetCurrent (context)
#define ARGUMENTS_CtxGetDevice (device)
#define ARGUMENTS_CtxSynchronize ()
#define ARGUMENTS_CtxRecordEvent (context, event)
#define ARGUMENTS_MemGetInfo (free_bytes, total_bytes)
#define ARGUMENTS_MemGetAllocationGranularity (granularity, prop, option)
#define ARGUMENTS_MemAddressReserve (ptr, size, alignment, address, flags)
#define ARGUMENTS_MemAddressFree (ptr, size)
#define ARGUMENTS_MemCreate (handle, size, prop, flags)
#define ARGUMENTS_MemRelease (handle)
#define ARGUMENTS_MemMap (ptr, size, offset, handle, flags)
#define ARGUMENTS_MemUnmap (ptr, size)
#define ARGUMENTS_MemSetAccess (ptr, size, desc, count)
#define ARGUMENTS_MemGetAccess (flags, location, ptr)
#define ARGUMENTS_MemExportToShareableHandle (shareable, handle, type, flags)
#define ARGUMENTS_MemHostRegister (host, bytes, flags)
#define ARGUMENTS_MemHostUnregister (host)
#define ARGUMENTS_MemcpyHtoD (to, from, bytes)
#define ARGUMENTS_MemcpyDtoH (to, from, bytes)
#define ARGUMENTS_MemcpyHtoDAsync (to, from, bytes, stream)
#define ARGUMENTS_MemcpyDtoHAsync (to, from, bytes, stream)
#define ARGUMENTS_MemcpyDtoDAsync (to, from, bytes, stream)
#define ARGUMENTS_MemcpyBatchAsync (to, from, bytes, count, attributes, attributes_from, attributes_count, stream)
#define ARGUMENTS_MemsetD8Async (to, value, bytes, stream)
#define ARGUMENTS_StreamCreate (stream, flags)
#define ARGUMENTS_StreamDestroy (stream)
#define ARGUMENTS_StreamSynchronize (stream)
#define ARGUMENTS_StreamQuery (stream)
#define ARGUMENTS_StreamWaitEvent (stream, event, flags)
#define ARGUMENTS_StreamGetCtx (stream, context)
#define ARGUMENTS_StreamGetId (stream, id)
#define ARGUMENTS_StreamIsCapturing (stream, status)
#define ARGUMENTS_StreamBeginCapture (stream, mode)
#define ARGUMENTS_StreamEndCapture (stream, graph)
#define ARGUMENTS_ThreadExchangeStreamCaptureMode (mode)
#define ARGUMENTS_GraphInstantiateWithFlags (exec, graph, flags)
#define ARGUMENTS_GraphLaunch (exec, stream)
#define ARGUMENTS_GraphExecDestroy (exec)
#define ARGUMENTS_GraphDestroy (graph)
#define ARGUMENTS_LaunchHostFunc (stream, function, data)
#define ARGUMENTS_EventCreate (event, flags)
#define ARGUMENTS_EventDestroy (event)
#define ARGUMENTS_EventRecord (event, stream)
#define ARGUMENTS_EventQuery (event)
#define ARGUMENTS_EventSynchronize (event)

#define FAULTY(name, version, need, parameters)                                \
  static CUresult faulty_##name parameters {                                   \
    const struct verdict verdict = judge(FAULT_##name);                        \
    CUresult says = verdict.call ? real->name ARGUMENTS_##name : CUDA_SUCCESS; \
    return verdict.says != CUDA_SUCCESS ? verdict.says : says;                 \
  }
DZ_DRIVER_ENTRIES(FAULTY)
#undef FAULTY

#define ENTRY(name, version, need, parameters) .name = faulty_##name,
const struct driver __wrap_dz_host_driver = {DZ_DRIVER_ENTRIES(ENTRY)};
#undef ENTRY

drowse_status __wrap_dz_cuda_open(const struct driver **driver) {
  drowse_status status = __real_dz_cuda_open(driver);
  if (status != DROWSE_OK) return status;
  real = *driver;
  *driver = &__wrap_dz_host_driver;
  return DROWSE_OK;
}

void fault_driver_rest(void) {
  atomic_store(&late, CUDA_SUCCESS);
}

void fault_driver_forget(void) {
  atomic_store(&is_lost, false);
  atomic_store(&is_broken, false);
}

bool fault_driver_is_lost(void) {
  return atomic_load(&is_lost) || atomic_load(&is_broken);
}
