/* SPDX-License-Identifier: Apache-2.0
 *
 * The driver calls that tests have fail: each is FAULT_ENTRY(X), which is X(ENTRY, parameters, arguments). Those that can fail
 * without the device being lost, of sleep and wake, and of a pool that grows.
 */
#ifndef DRIVER_FAULTS_H
#define DRIVER_FAULTS_H

#define FAULT_MemCreate(X)                                                                                                      \
  X(MemCreate, (CUmemGenericAllocationHandle * handle, size_t size, const CUmemAllocationProp *prop, unsigned long long flags), \
    (handle, size, prop, flags))
#define FAULT_MemRelease(X) X(MemRelease, (CUmemGenericAllocationHandle handle), (handle))
#define FAULT_MemMap(X)                                                                                                   \
  X(MemMap, (CUdeviceptr ptr, size_t size, size_t offset, CUmemGenericAllocationHandle handle, unsigned long long flags), \
    (ptr, size, offset, handle, flags))
#define FAULT_MemUnmap(X) X(MemUnmap, (CUdeviceptr ptr, size_t size), (ptr, size))
#define FAULT_MemSetAccess(X) \
  X(MemSetAccess, (CUdeviceptr ptr, size_t size, const CUmemAccessDesc *desc, size_t count), (ptr, size, desc, count))
#define FAULT_MemHostRegister(X) X(MemHostRegister, (void *host, size_t bytes, unsigned int flags), (host, bytes, flags))
#define FAULT_MemcpyDtoHAsync(X) \
  X(MemcpyDtoHAsync, (void *to, CUdeviceptr from, size_t bytes, CUstream stream), (to, from, bytes, stream))
#define FAULT_MemcpyHtoDAsync(X) \
  X(MemcpyHtoDAsync, (CUdeviceptr to, const void *from, size_t bytes, CUstream stream), (to, from, bytes, stream))
#define FAULT_MemcpyBatchAsync(X)                                                                         \
  X(MemcpyBatchAsync,                                                                                     \
    (CUdeviceptr * to, CUdeviceptr * from, size_t * bytes, size_t count, CUmemcpyAttributes * attributes, \
     size_t * attributes_from, size_t attributes_count, CUstream stream),                                 \
    (to, from, bytes, count, attributes, attributes_from, attributes_count, stream))
#define FAULT_StreamCreate(X) X(StreamCreate, (CUstream * stream, unsigned int flags), (stream, flags))
#define FAULT_StreamIsCapturing(X) X(StreamIsCapturing, (CUstream stream, CUstreamCaptureStatus * status), (stream, status))
#define FAULT_EventCreate(X) X(EventCreate, (CUevent * event, unsigned int flags), (event, flags))
#define FAULT_EventRecord(X) X(EventRecord, (CUevent event, CUstream stream), (event, stream))
#define FAULT_EventSynchronize(X) X(EventSynchronize, (CUevent event), (event))
#define FAULT_CtxSynchronize(X) X(CtxSynchronize, (void), ())
#define FAULT_CtxSetCurrent(X) X(CtxSetCurrent, (CUcontext context), (context))
#define FAULT_MemAddressReserve(X)                                                                                       \
  X(MemAddressReserve, (CUdeviceptr * ptr, size_t size, size_t alignment, CUdeviceptr wanted, unsigned long long flags), \
    (ptr, size, alignment, wanted, flags))
#define FAULT_MemAddressFree(X) X(MemAddressFree, (CUdeviceptr ptr, size_t size), (ptr, size))
#define FAULT_StreamQuery(X) X(StreamQuery, (CUstream stream), (stream))
#define FAULT_EventQuery(X) X(EventQuery, (CUevent event), (event))

#define SLEEP_FAULTS(X)                                                                                                          \
  FAULT_MemCreate(X) FAULT_MemRelease(X) FAULT_MemMap(X) FAULT_MemUnmap(X) FAULT_MemSetAccess(X) FAULT_MemHostRegister(X)        \
      FAULT_MemcpyDtoHAsync(X) FAULT_MemcpyHtoDAsync(X) FAULT_MemcpyBatchAsync(X) FAULT_StreamCreate(X)                          \
          FAULT_StreamIsCapturing(X) FAULT_EventCreate(X) FAULT_EventRecord(X) FAULT_EventSynchronize(X) FAULT_CtxSynchronize(X) \
              FAULT_CtxSetCurrent(X)

#define GROWTH_FAULTS(X)                                                                                                      \
  FAULT_MemAddressReserve(X) FAULT_MemAddressFree(X) FAULT_MemCreate(X) FAULT_MemRelease(X) FAULT_MemMap(X) FAULT_MemUnmap(X) \
      FAULT_MemSetAccess(X) FAULT_StreamQuery(X) FAULT_StreamIsCapturing(X) FAULT_EventCreate(X) FAULT_EventRecord(X)         \
          FAULT_EventQuery(X) FAULT_CtxSynchronize(X)

#endif
