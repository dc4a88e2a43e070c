/* SPDX-License-Identifier: Apache-2.0
 *
 * The driver calls that tests have fail.
 */
#ifndef DRIVER_FAULTS_H
#define DRIVER_FAULTS_H

/* X(entry, parameters, arguments): those that sleep and wake make, and that can fail without the device being lost. */
#define FAULTS(X)                                                                                                               \
  X(MemCreate, (CUmemGenericAllocationHandle * handle, size_t size, const CUmemAllocationProp *prop, unsigned long long flags), \
    (handle, size, prop, flags))                                                                                                \
  X(MemRelease, (CUmemGenericAllocationHandle handle), (handle))                                                                \
  X(MemMap, (CUdeviceptr ptr, size_t size, size_t offset, CUmemGenericAllocationHandle handle, unsigned long long flags),       \
    (ptr, size, offset, handle, flags))                                                                                         \
  X(MemUnmap, (CUdeviceptr ptr, size_t size), (ptr, size))                                                                      \
  X(MemSetAccess, (CUdeviceptr ptr, size_t size, const CUmemAccessDesc *desc, size_t count), (ptr, size, desc, count))          \
  X(MemHostRegister, (void *host, size_t bytes, unsigned int flags), (host, bytes, flags))                                      \
  X(MemcpyDtoHAsync, (void *to, CUdeviceptr from, size_t bytes, CUstream stream), (to, from, bytes, stream))                    \
  X(MemcpyHtoDAsync, (CUdeviceptr to, const void *from, size_t bytes, CUstream stream), (to, from, bytes, stream))              \
  X(MemcpyBatchAsync,                                                                                                           \
    (CUdeviceptr * to, CUdeviceptr * from, size_t * bytes, size_t count, CUmemcpyAttributes * attributes,                       \
     size_t * attributes_from, size_t attributes_count, CUstream stream),                                                       \
    (to, from, bytes, count, attributes, attributes_from, attributes_count, stream))                                            \
  X(StreamCreate, (CUstream * stream, unsigned int flags), (stream, flags))                                                     \
  X(StreamIsCapturing, (CUstream stream, CUstreamCaptureStatus * status), (stream, status))                                     \
  X(EventCreate, (CUevent * event, unsigned int flags), (event, flags))                                                         \
  X(EventRecord, (CUevent event, CUstream stream), (event, stream))                                                             \
  X(EventSynchronize, (CUevent event), (event))                                                                                 \
  X(CtxSynchronize, (void), ())                                                                                                 \
  X(CtxSetCurrent, (CUcontext context), (context))

#endif
