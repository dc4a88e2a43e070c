/* SPDX-License-Identifier: Apache-2.0
 *
 * The driver seam: the CUDA driver's entry points as a table of function pointers, one table a heap, filled by cuda.c from
 * libcuda or by host.c with the host device's. Nothing above src/driver calls a driver in any other way, so all of it is the same
 * on a GPU and without one.
 *
 * For every entry: the signature and the errors are the CUDA driver API's. No entry is NULL: what a driver lacks answers
 * CUDA_ERROR_NOT_SUPPORTED. Streams: NULL is the legacy default stream.
 */
#ifndef DZ_DRIVER_H
#define DZ_DRIVER_H

#include "config.h"

#if HAVE_CUDA_H
#include <cuda.h>
#else
#include "driver/abi.h"
#endif

#include "drowse.h"

/* CU_DEVICE_ATTRIBUTE_HOST_NUMA_ID, which headers before 12.2 lack; drivers before that answer CUDA_ERROR_INVALID_VALUE. */
#define DZ_ATTRIBUTE_HOST_NUMA_ID ((CUdevice_attribute)134)

/* X(name without "cu", driver version that brought this form of it (as cuGetProcAddress counts), NEEDED or OPTIONAL, parameters)
 */
#define DZ_DRIVER_ENTRIES(X)                                                                                          \
  X(Init, 2000, NEEDED, (unsigned int flags))                                                                         \
  X(DriverGetVersion, 2020, NEEDED, (int *version))                                                                   \
  X(GetErrorName, 6000, NEEDED, (CUresult error, const char **name))                                                  \
  X(GetErrorString, 6000, NEEDED, (CUresult error, const char **text))                                                \
  X(DeviceGet, 2000, NEEDED, (CUdevice * device, int ordinal))                                                        \
  X(DeviceGetCount, 2000, NEEDED, (int *count))                                                                       \
  X(DeviceGetName, 2000, NEEDED, (char *name, int length, CUdevice device))                                           \
  X(DeviceGetUuid, 11040, NEEDED, (CUuuid * uuid, CUdevice device))                                                   \
  X(DeviceGetAttribute, 2000, NEEDED, (int *value, CUdevice_attribute attribute, CUdevice device))                    \
  X(DeviceTotalMem, 3020, NEEDED, (size_t * bytes, CUdevice device))                                                  \
  X(DeviceCanAccessPeer, 4000, NEEDED, (int *can, CUdevice device, CUdevice peer))                                    \
  X(DevicePrimaryCtxRetain, 7000, NEEDED, (CUcontext * context, CUdevice device))                                     \
  X(DevicePrimaryCtxRelease, 11000, NEEDED, (CUdevice device))                                                        \
  X(CtxGetCurrent, 4000, NEEDED, (CUcontext * context))                                                               \
  X(CtxSetCurrent, 4000, NEEDED, (CUcontext context))                                                                 \
  X(CtxGetDevice, 2000, NEEDED, (CUdevice * device))                                                                  \
  X(CtxSynchronize, 2000, NEEDED, (void))                                                                             \
  X(CtxRecordEvent, 12050, OPTIONAL, (CUcontext context, CUevent event))                                              \
  X(MemGetInfo, 3020, NEEDED, (size_t * free_bytes, size_t * total_bytes))                                            \
  X(MemGetAllocationGranularity, 10020, NEEDED,                                                                       \
    (size_t * granularity, const CUmemAllocationProp *prop, CUmemAllocationGranularity_flags option))                 \
  X(MemAddressReserve, 10020, NEEDED,                                                                                 \
    (CUdeviceptr * ptr, size_t size, size_t alignment, CUdeviceptr address, unsigned long long flags))                \
  X(MemAddressFree, 10020, NEEDED, (CUdeviceptr ptr, size_t size))                                                    \
  X(MemCreate, 10020, NEEDED,                                                                                         \
    (CUmemGenericAllocationHandle * handle, size_t size, const CUmemAllocationProp *prop, unsigned long long flags))  \
  X(MemRelease, 10020, NEEDED, (CUmemGenericAllocationHandle handle))                                                 \
  X(MemMap, 10020, NEEDED,                                                                                            \
    (CUdeviceptr ptr, size_t size, size_t offset, CUmemGenericAllocationHandle handle, unsigned long long flags))     \
  X(MemUnmap, 10020, NEEDED, (CUdeviceptr ptr, size_t size))                                                          \
  X(MemSetAccess, 10020, NEEDED, (CUdeviceptr ptr, size_t size, const CUmemAccessDesc *desc, size_t count))           \
  X(MemGetAccess, 10020, NEEDED, (unsigned long long *flags, const CUmemLocation *location, CUdeviceptr ptr))         \
  X(MemExportToShareableHandle, 10020, NEEDED,                                                                        \
    (void *shareable, CUmemGenericAllocationHandle handle, CUmemAllocationHandleType type, unsigned long long flags)) \
  X(MemHostRegister, 6050, NEEDED, (void *host, size_t bytes, unsigned int flags))                                    \
  X(MemHostUnregister, 4000, NEEDED, (void *host))                                                                    \
  X(MemcpyHtoD, 3020, NEEDED, (CUdeviceptr to, const void *from, size_t bytes))                                       \
  X(MemcpyDtoH, 3020, NEEDED, (void *to, CUdeviceptr from, size_t bytes))                                             \
  X(MemcpyHtoDAsync, 3020, NEEDED, (CUdeviceptr to, const void *from, size_t bytes, CUstream stream))                 \
  X(MemcpyDtoHAsync, 3020, NEEDED, (void *to, CUdeviceptr from, size_t bytes, CUstream stream))                       \
  X(MemcpyDtoDAsync, 3020, NEEDED, (CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream))                 \
  X(MemcpyBatchAsync, 13000, OPTIONAL,                                                                                \
    (CUdeviceptr * to, CUdeviceptr * from, size_t * bytes, size_t count, CUmemcpyAttributes * attributes,             \
     size_t * attributes_from, size_t attributes_count, CUstream stream))                                             \
  X(MemsetD8Async, 3020, NEEDED, (CUdeviceptr to, unsigned char value, size_t bytes, CUstream stream))                \
  X(StreamCreate, 2000, NEEDED, (CUstream * stream, unsigned int flags))                                              \
  X(StreamDestroy, 4000, NEEDED, (CUstream stream))                                                                   \
  X(StreamSynchronize, 2000, NEEDED, (CUstream stream))                                                               \
  X(StreamQuery, 2000, NEEDED, (CUstream stream))                                                                     \
  X(StreamWaitEvent, 3020, NEEDED, (CUstream stream, CUevent event, unsigned int flags))                              \
  X(StreamGetCtx, 9020, NEEDED, (CUstream stream, CUcontext * context))                                               \
  X(StreamGetId, 12000, OPTIONAL, (CUstream stream, unsigned long long *id))                                          \
  X(StreamIsCapturing, 10000, NEEDED, (CUstream stream, CUstreamCaptureStatus * status))                              \
  X(StreamBeginCapture, 10010, NEEDED, (CUstream stream, CUstreamCaptureMode mode))                                   \
  X(StreamEndCapture, 10000, NEEDED, (CUstream stream, CUgraph * graph))                                              \
  X(ThreadExchangeStreamCaptureMode, 10010, NEEDED, (CUstreamCaptureMode * mode))                                     \
  X(GraphInstantiateWithFlags, 11040, NEEDED, (CUgraphExec * exec, CUgraph graph, unsigned long long flags))          \
  X(GraphLaunch, 10000, NEEDED, (CUgraphExec exec, CUstream stream))                                                  \
  X(GraphExecDestroy, 10000, NEEDED, (CUgraphExec exec))                                                              \
  X(GraphDestroy, 10000, NEEDED, (CUgraph graph))                                                                     \
  X(LaunchHostFunc, 10000, NEEDED, (CUstream stream, CUhostFn function, void *data))                                  \
  X(EventCreate, 2000, NEEDED, (CUevent * event, unsigned int flags))                                                 \
  X(EventDestroy, 4000, NEEDED, (CUevent event))                                                                      \
  X(EventRecord, 2000, NEEDED, (CUevent event, CUstream stream))                                                      \
  X(EventQuery, 2000, NEEDED, (CUevent event))                                                                        \
  X(EventSynchronize, 2000, NEEDED, (CUevent event))

struct driver {
#define DZ_DRIVER_MEMBER(name, version, need, parameters) CUresult(*name) parameters;
  DZ_DRIVER_ENTRIES(DZ_DRIVER_MEMBER)
#undef DZ_DRIVER_MEMBER
};

/* A table of entries that all answer CUDA_ERROR_NOT_SUPPORTED: what drivers start from. */
extern const struct driver dz_driver_unsupported;

/* The table's entry of that name, without "cu"; NULL: it has none. */
void *dz_driver_find(const struct driver *driver, const char *name);

/* Stores the failure of a driver call that returned code (core/error.h) and returns its status: NO_DEVICE_MEMORY for
 * CUDA_ERROR_OUT_OF_MEMORY, DEVICE_LOST for the errors that make a context unusable for good, FORKED and DRIVER. The text is what
 * format says, the call and what it was for, and " failed: NAME (message)" behind it. */
drowse_status dz_driver_error(const struct driver *driver, CUresult code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The same with a status of the caller's choice. */
drowse_status dz_driver_error_as(drowse_status status, const struct driver *driver, CUresult code, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#endif
