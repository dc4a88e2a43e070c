/* SPDX-License-Identifier: Apache-2.0
 *
 * Prints all that src/driver/abi.h declares: sizes, offsets, values. Compiled twice, with cuda.h and with abi.h; test_abi.sh
 * compares.
 */
#include <stdalign.h>
#include <stddef.h>
#include <stdio.h>

#ifdef ABI_FROM_CUDA_H
#include <cuda.h>
#else
#include "driver/abi.h"
#endif

#define TYPES(X)                      \
  X(CUresult)                         \
  X(CUdevice)                         \
  X(CUdeviceptr)                      \
  X(CUmemGenericAllocationHandle)     \
  X(CUcontext)                        \
  X(CUstream)                         \
  X(CUevent)                          \
  X(CUgraph)                          \
  X(CUgraphExec)                      \
  X(CUhostFn)                         \
  X(CUuuid)                           \
  X(cuuint64_t)                       \
  X(CUdevice_attribute)               \
  X(CUstream_flags)                   \
  X(CUevent_flags)                    \
  X(CUevent_wait_flags)               \
  X(CUstreamCaptureStatus)            \
  X(CUstreamCaptureMode)              \
  X(CUmemAllocationHandleType)        \
  X(CUmemAccess_flags)                \
  X(CUmemLocationType)                \
  X(CUmemAllocationType)              \
  X(CUmemAllocationGranularity_flags) \
  X(CUmemLocation)                    \
  X(CUmemAllocationProp)              \
  X(CUmemAccessDesc)                  \
  X(CUmemcpySrcAccessOrder)           \
  X(CUmemcpyAttributes)               \
  X(CUdriverProcAddress_flags)        \
  X(CUdriverProcAddressQueryResult)

#define MEMBERS(X)                                        \
  X(CUuuid, bytes)                                        \
  X(CUmemLocation, type)                                  \
  X(CUmemLocation, id)                                    \
  X(CUmemAllocationProp, type)                            \
  X(CUmemAllocationProp, requestedHandleTypes)            \
  X(CUmemAllocationProp, location)                        \
  X(CUmemAllocationProp, win32HandleMetaData)             \
  X(CUmemAllocationProp, allocFlags)                      \
  X(CUmemAllocationProp, allocFlags.compressionType)      \
  X(CUmemAllocationProp, allocFlags.gpuDirectRDMACapable) \
  X(CUmemAllocationProp, allocFlags.usage)                \
  X(CUmemAllocationProp, allocFlags.reserved)             \
  X(CUmemAccessDesc, location)                            \
  X(CUmemAccessDesc, flags)                               \
  X(CUmemcpyAttributes, srcAccessOrder)                   \
  X(CUmemcpyAttributes, srcLocHint)                       \
  X(CUmemcpyAttributes, dstLocHint)                       \
  X(CUmemcpyAttributes, flags)

#define VALUES(X)                                                    \
  X(CUDA_SUCCESS)                                                    \
  X(CUDA_ERROR_INVALID_VALUE)                                        \
  X(CUDA_ERROR_OUT_OF_MEMORY)                                        \
  X(CUDA_ERROR_NOT_INITIALIZED)                                      \
  X(CUDA_ERROR_DEINITIALIZED)                                        \
  X(CUDA_ERROR_NO_DEVICE)                                            \
  X(CUDA_ERROR_INVALID_DEVICE)                                       \
  X(CUDA_ERROR_INVALID_CONTEXT)                                      \
  X(CUDA_ERROR_ECC_UNCORRECTABLE)                                    \
  X(CUDA_ERROR_INVALID_HANDLE)                                       \
  X(CUDA_ERROR_ILLEGAL_STATE)                                        \
  X(CUDA_ERROR_NOT_FOUND)                                            \
  X(CUDA_ERROR_NOT_READY)                                            \
  X(CUDA_ERROR_ILLEGAL_ADDRESS)                                      \
  X(CUDA_ERROR_LAUNCH_TIMEOUT)                                       \
  X(CUDA_ERROR_CONTEXT_IS_DESTROYED)                                 \
  X(CUDA_ERROR_ASSERT)                                               \
  X(CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED)                       \
  X(CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED)                           \
  X(CUDA_ERROR_HARDWARE_STACK_ERROR)                                 \
  X(CUDA_ERROR_ILLEGAL_INSTRUCTION)                                  \
  X(CUDA_ERROR_MISALIGNED_ADDRESS)                                   \
  X(CUDA_ERROR_INVALID_ADDRESS_SPACE)                                \
  X(CUDA_ERROR_INVALID_PC)                                           \
  X(CUDA_ERROR_LAUNCH_FAILED)                                        \
  X(CUDA_ERROR_NOT_PERMITTED)                                        \
  X(CUDA_ERROR_NOT_SUPPORTED)                                        \
  X(CUDA_ERROR_SYSTEM_NOT_READY)                                     \
  X(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED)                           \
  X(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED)                           \
  X(CUDA_ERROR_STREAM_CAPTURE_MERGE)                                 \
  X(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED)                             \
  X(CUDA_ERROR_STREAM_CAPTURE_UNJOINED)                              \
  X(CUDA_ERROR_STREAM_CAPTURE_ISOLATION)                             \
  X(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT)                              \
  X(CUDA_ERROR_CAPTURED_EVENT)                                       \
  X(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD)                          \
  X(CUDA_ERROR_UNKNOWN)                                              \
  X(CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING)                          \
  X(CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED)                     \
  X(CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED)         \
  X(CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED) \
  X(CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED)     \
  X(CU_STREAM_DEFAULT)                                               \
  X(CU_STREAM_NON_BLOCKING)                                          \
  X(CU_EVENT_DEFAULT)                                                \
  X(CU_EVENT_BLOCKING_SYNC)                                          \
  X(CU_EVENT_DISABLE_TIMING)                                         \
  X(CU_EVENT_INTERPROCESS)                                           \
  X(CU_EVENT_WAIT_DEFAULT)                                           \
  X(CU_EVENT_WAIT_EXTERNAL)                                          \
  X(CU_STREAM_CAPTURE_STATUS_NONE)                                   \
  X(CU_STREAM_CAPTURE_STATUS_ACTIVE)                                 \
  X(CU_STREAM_CAPTURE_STATUS_INVALIDATED)                            \
  X(CU_STREAM_CAPTURE_MODE_GLOBAL)                                   \
  X(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)                             \
  X(CU_STREAM_CAPTURE_MODE_RELAXED)                                  \
  X(CU_MEM_HANDLE_TYPE_NONE)                                         \
  X(CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)                        \
  X(CU_MEM_HANDLE_TYPE_MAX)                                          \
  X(CU_MEM_ACCESS_FLAGS_PROT_NONE)                                   \
  X(CU_MEM_ACCESS_FLAGS_PROT_READ)                                   \
  X(CU_MEM_ACCESS_FLAGS_PROT_READWRITE)                              \
  X(CU_MEM_ACCESS_FLAGS_PROT_MAX)                                    \
  X(CU_MEM_LOCATION_TYPE_INVALID)                                    \
  X(CU_MEM_LOCATION_TYPE_DEVICE)                                     \
  X(CU_MEM_LOCATION_TYPE_MAX)                                        \
  X(CU_MEM_ALLOCATION_TYPE_INVALID)                                  \
  X(CU_MEM_ALLOCATION_TYPE_PINNED)                                   \
  X(CU_MEM_ALLOCATION_TYPE_MAX)                                      \
  X(CU_MEM_ALLOC_GRANULARITY_MINIMUM)                                \
  X(CU_MEM_ALLOC_GRANULARITY_RECOMMENDED)                            \
  X(CU_MEMCPY_SRC_ACCESS_ORDER_INVALID)                              \
  X(CU_MEMCPY_SRC_ACCESS_ORDER_STREAM)                               \
  X(CU_MEMCPY_SRC_ACCESS_ORDER_DURING_API_CALL)                      \
  X(CU_MEMCPY_SRC_ACCESS_ORDER_ANY)                                  \
  X(CU_MEMCPY_SRC_ACCESS_ORDER_MAX)                                  \
  X(CU_GET_PROC_ADDRESS_DEFAULT)                                     \
  X(CU_GET_PROC_ADDRESS_LEGACY_STREAM)                               \
  X(CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM)                   \
  X(CU_GET_PROC_ADDRESS_SUCCESS)                                     \
  X(CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND)                            \
  X(CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT)                      \
  X(CU_STREAM_LEGACY)                                                \
  X(CU_STREAM_PER_THREAD)                                            \
  X(CU_MEMHOSTREGISTER_PORTABLE)                                     \
  X(CU_MEMHOSTREGISTER_DEVICEMAP)                                    \
  X(CU_MEMHOSTREGISTER_IOMEMORY)                                     \
  X(CU_MEMHOSTREGISTER_READ_ONLY)

int main(void) {
#define TYPE(type) (void)printf("%s: %zu bytes, aligned to %zu\n", #type, sizeof(type), alignof(type));
  TYPES(TYPE)
#undef TYPE
#define MEMBER(type, member) \
  (void)printf("%s.%s: at %zu, %zu bytes\n", #type, #member, offsetof(type, member), sizeof(((type *)NULL)->member));
  MEMBERS(MEMBER)
#undef MEMBER
#define VALUE(name) (void)printf("%s: %llu\n", #name, (unsigned long long)(name));
  VALUES(VALUE)
#undef VALUE
  return 0;
}
