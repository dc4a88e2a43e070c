/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory of the host device: physical handles, addresses, mappings, access, registered host memory.
 */
#include "fixture.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static size_t free_bytes(void) {
  size_t bytes = 0, total = 0;
  ck_cu_ok(MemGetInfo(&bytes, &total));
  return bytes;
}

static struct host_counts counts(void) {
  struct host_counts now;
  dz_host_counts(&now);
  return now;
}

/* How many of this process's descriptors are the device's file, and how much memory is in it. */
static unsigned device_files(uint64_t *bytes) {
  unsigned files = 0;
  *bytes = 0;
  DIR *directory = opendir("/proc/self/fd");
  ck_assert_ptr_nonnull(directory);
  for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
    char target[128] = "";
    struct stat status;
    if (readlinkat(dirfd(directory), entry->d_name, target, sizeof target - 1) < 0) continue;
    if (strstr(target, "drowse-host-device") == NULL || fstat(atoi(entry->d_name), &status) != 0) continue;
    files++;
    *bytes += (uint64_t)status.st_blocks * 512;
  }
  (void)closedir(directory);
  return files;
}

/* Bytes of the process's pages that are the device's, as the kernel counts. */
static uint64_t resident_shared(void) {
  char line[256];
  unsigned long long kib = 0;
  FILE *status = fopen("/proc/self/status", "r");
  ck_assert_ptr_nonnull(status);
  while (fgets(line, sizeof line, status) != NULL) {
    if (sscanf(line, "RssShmem: %llu kB", &kib) == 1) break;
  }
  (void)fclose(status);
  return kib * 1024;
}

static unsigned lines_with(const char *path, const char *wanted) {
  char line[512];
  unsigned found = 0;
  FILE *file = fopen(path, "r");
  ck_assert_ptr_nonnull(file);
  while (fgets(line, sizeof line, file) != NULL) found += strstr(line, wanted) != NULL;
  (void)fclose(file);
  return found;
}

/* ---- physical memory */

START_TEST(contents_follow_the_handle) {
  CUdeviceptr low, high;
  CUmemGenericAllocationHandle handle;
  unsigned char in[64], out[64];
  memset(in, 0x5a, sizeof in);
  ck_cu_ok(MemAddressReserve(&low, GRANULE, 0, 0, 0));
  ck_cu_ok(MemAddressReserve(&high, GRANULE, 0, 0, 0));
  ck_cu_ok(MemCreate(&handle, GRANULE, &prop, 0));
  ck_cu_ok(MemMap(low, GRANULE, 0, handle, 0));
  ck_cu_ok(MemSetAccess(low, GRANULE, &read_write, 1));
  ck_cu_ok(MemcpyHtoD(low + 100, in, sizeof in));
  ck_cu_ok(MemUnmap(low, GRANULE));
  ck_cu_ok(MemMap(high, GRANULE, 0, handle, 0));
  ck_cu_ok(MemSetAccess(high, GRANULE, &read_write, 1));
  ck_cu_ok(MemcpyDtoH(out, high + 100, sizeof out));
  ck_assert_mem_eq(in, out, sizeof in);
  ck_cu_ok(MemRelease(handle));
  drop_memory(high, GRANULE);
  ck_cu_ok(MemAddressFree(low, GRANULE));
}
END_TEST

START_TEST(two_mappings_of_a_handle_are_one_memory) {
  CUdeviceptr ptr;
  CUmemGenericAllocationHandle handle;
  unsigned char byte = 9;
  ck_cu_ok(MemAddressReserve(&ptr, 2 * GRANULE, 0, 0, 0));
  ck_cu_ok(MemCreate(&handle, GRANULE, &prop, 0));
  ck_cu_ok(MemMap(ptr, GRANULE, 0, handle, 0));
  ck_cu_ok(MemMap(ptr + GRANULE, GRANULE, 0, handle, 0));
  ck_cu_ok(MemSetAccess(ptr, 2 * GRANULE, &read_write, 1));
  ck_cu_ok(MemcpyHtoD(ptr + 5, &byte, 1));
  ck_assert_uint_eq(device_byte(ptr + GRANULE + 5), 9);
  ck_cu_ok(MemRelease(handle));
  ck_cu_ok(MemUnmap(ptr, 2 * GRANULE));
  ck_cu_ok(MemAddressFree(ptr, 2 * GRANULE));
}
END_TEST

START_TEST(memory_is_free_when_released_and_unmapped) {
  CUdeviceptr ptr;
  CUmemGenericAllocationHandle handle;
  size_t all = free_bytes();
  ck_cu_ok(MemAddressReserve(&ptr, 4 * GRANULE, 0, 0, 0));
  ck_assert_uint_eq(free_bytes(), all);
  ck_cu_ok(MemCreate(&handle, 4 * GRANULE, &prop, 0));
  ck_assert_uint_eq(free_bytes(), all - 4 * GRANULE);
  ck_cu_ok(MemMap(ptr, 4 * GRANULE, 0, handle, 0));
  ck_cu_ok(MemRelease(handle));
  ck_assert_uint_eq(free_bytes(), all - 4 * GRANULE);
  ck_cu_ok(MemUnmap(ptr, 4 * GRANULE));
  ck_assert_uint_eq(free_bytes(), all);
  ck_cu_ok(MemCreate(&handle, 4 * GRANULE, &prop, 0));
  ck_cu_ok(MemMap(ptr, 4 * GRANULE, 0, handle, 0));
  ck_cu_ok(MemUnmap(ptr, 4 * GRANULE));
  ck_assert_uint_eq(free_bytes(), all - 4 * GRANULE);
  ck_cu_ok(MemRelease(handle));
  ck_assert_uint_eq(free_bytes(), all);
  ck_cu_ok(MemAddressFree(ptr, 4 * GRANULE));
}
END_TEST

START_TEST(capacity_is_enforced) {
  if (!device.host) return;
  CUmemGenericAllocationHandle most, more;
  size_t bytes, total;
  ck_cu_ok(MemGetInfo(&bytes, &total));
  ck_assert_uint_eq(total, 256 * MIB);
  ck_assert_uint_eq(bytes, 256 * MIB);
  ck_cu(MemCreate(&most, 256 * MIB + GRANULE, &prop, 0), CUDA_ERROR_OUT_OF_MEMORY);
  ck_cu_ok(MemCreate(&most, 254 * MIB, &prop, 0));
  ck_cu(MemCreate(&more, 2 * GRANULE, &prop, 0), CUDA_ERROR_OUT_OF_MEMORY);
  ck_cu_ok(MemCreate(&more, GRANULE, &prop, 0));
  ck_assert_uint_eq(free_bytes(), 0);
  ck_cu_ok(MemRelease(most));
  ck_cu_ok(MemRelease(more));
  ck_assert_uint_eq(free_bytes(), 256 * MIB);
}
END_TEST

START_TEST(pages_leave_the_process_and_the_machine) {
  if (!device.host) return;
  uint64_t in_file, resident = resident_shared();
  CUdeviceptr ptr;
  CUmemGenericAllocationHandle handle;
  ck_cu_ok(MemAddressReserve(&ptr, 32 * MIB, 0, 0, 0));
  ck_cu_ok(MemCreate(&handle, 32 * MIB, &prop, 0));
  ck_cu_ok(MemMap(ptr, 32 * MIB, 0, handle, 0));
  ck_cu_ok(MemSetAccess(ptr, 32 * MIB, &read_write, 1));
  ck_cu_ok(MemsetD8Async(ptr, 1, 32 * MIB, NULL));
  ck_cu_ok(StreamSynchronize(NULL));
  ck_assert_uint_ge(resident_shared(), resident + 32 * MIB);
  ck_assert_uint_eq(device_files(&in_file), 1);
  ck_assert_uint_ge(in_file, 32 * MIB);
  ck_cu_ok(MemUnmap(ptr, 32 * MIB));
  ck_assert_uint_lt(resident_shared(), resident + MIB);
  ck_assert_uint_eq(device_files(&in_file), 1);
  ck_assert_uint_ge(in_file, 32 * MIB); /* the handle still holds it */
  ck_cu_ok(MemRelease(handle));
  ck_assert_uint_eq(device_files(&in_file), 1);
  ck_assert_uint_eq(in_file, 0);
  ck_cu_ok(MemAddressFree(ptr, 32 * MIB));
}
END_TEST

START_TEST(create_refuses_what_it_does_not_know) {
  CUmemGenericAllocationHandle handle;
  CUmemAllocationProp bad = prop;
  ck_invalid(MemCreate(&handle, 4096, &prop, 0));
  ck_invalid(MemCreate(&handle, GRANULE + 4096, &prop, 0));
  ck_invalid(MemCreate(&handle, 0, &prop, 0));
  ck_invalid(MemCreate(&handle, GRANULE, &prop, 1));
  ck_invalid(MemCreate(&handle, GRANULE, NULL, 0));
  bad.location.id = 99;
  ck_cu(MemCreate(&handle, GRANULE, &bad, 0), CUDA_ERROR_INVALID_DEVICE);
  bad = prop;
  bad.type = CU_MEM_ALLOCATION_TYPE_INVALID;
  ck_invalid(MemCreate(&handle, GRANULE, &bad, 0));
  bad = prop;
  bad.location.type = CU_MEM_LOCATION_TYPE_INVALID;
  ck_invalid(MemCreate(&handle, GRANULE, &bad, 0));
  if (!device.host) return;
  bad = prop;
  bad.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
  ck_cu(MemCreate(&handle, GRANULE, &bad, 0), CUDA_ERROR_NOT_SUPPORTED);
  ck_assert_uint_eq(counts().handles, 0);
}
END_TEST

START_TEST(granularity_is_two_mebibytes) {
  size_t granularity = 0;
  ck_cu_ok(MemGetAllocationGranularity(&granularity, &prop, CU_MEM_ALLOC_GRANULARITY_MINIMUM));
  ck_assert_uint_eq(granularity, GRANULE);
  granularity = 0;
  ck_cu_ok(MemGetAllocationGranularity(&granularity, &prop, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED));
  ck_assert_uint_eq(granularity, GRANULE);
  ck_invalid(MemGetAllocationGranularity(&granularity, &prop, (CUmemAllocationGranularity_flags)2));
  ck_invalid(MemGetAllocationGranularity(&granularity, NULL, CU_MEM_ALLOC_GRANULARITY_MINIMUM));
}
END_TEST

START_TEST(a_released_handle_is_gone) {
  CUmemGenericAllocationHandle handle;
  ck_cu_ok(MemCreate(&handle, GRANULE, &prop, 0));
  ck_cu_ok(MemRelease(handle));
  ck_invalid(MemRelease(handle));
  ck_invalid(MemRelease(0));
  if (!device.host) return;
  CUdeviceptr ptr;
  CUmemGenericAllocationHandle next;
  ck_invalid(MemRelease(0x1234));
  ck_cu_ok(MemAddressReserve(&ptr, GRANULE, 0, 0, 0));
  ck_cu_ok(MemCreate(&next, GRANULE, &prop, 0)); /* must not be taken for the old one */
  ck_invalid(MemMap(ptr, GRANULE, 0, handle, 0));
  ck_invalid(MemRelease(handle));
  ck_cu_ok(MemRelease(next));
  ck_cu_ok(MemAddressFree(ptr, GRANULE));
}
END_TEST

START_TEST(a_limit_on_file_sizes_is_an_error_and_no_signal) {
  if (!device.host) return;
  struct rlimit kept, small;
  CUmemGenericAllocationHandle handle;
  ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &kept), 0);
  small = (struct rlimit){.rlim_cur = 4 * MIB, .rlim_max = kept.rlim_max};
  ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
  CUresult result = cu->MemCreate(&handle, 16 * MIB, &prop, 0);
  ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &kept), 0);
  ck_assert_int_eq(result, CUDA_ERROR_OUT_OF_MEMORY);
  ck_assert_uint_eq(free_bytes(), 256 * MIB);
}
END_TEST

/* ---- addresses */

START_TEST(reserve_honours_alignment_and_hints) {
  CUdeviceptr ptr, other;
  ck_cu_ok(MemAddressReserve(&ptr, GRANULE, 512 * GRANULE, 0, 0));
  ck_assert_uint_eq(ptr % (512 * GRANULE), 0);
  ck_cu_ok(MemAddressFree(ptr, GRANULE));
  ck_cu_ok(MemAddressReserve(&ptr, GRANULE, 4096, 0, 0));
  ck_assert_uint_eq(ptr % GRANULE, 0);
  ck_cu_ok(MemAddressReserve(&other, GRANULE, 0, ptr, 0)); /* taken: anywhere else */
  ck_assert_uint_ne(other, ptr);
  ck_cu_ok(MemAddressFree(other, GRANULE));
  ck_cu_ok(MemAddressFree(ptr, GRANULE));
  if (!device.host) return;
  ck_cu_ok(MemAddressReserve(&ptr, 64 * GRANULE, 0, 0, 0)); /* the system, asked for less, takes another part of it */
  ck_cu_ok(MemAddressFree(ptr, 64 * GRANULE));
  ck_cu_ok(MemAddressReserve(&other, GRANULE, 0, ptr + GRANULE, 0)); /* free now */
  ck_assert_uint_eq(other, ptr + GRANULE);
  ck_cu_ok(MemAddressFree(other, GRANULE));
}
END_TEST

START_TEST(reserve_refuses_bad_ranges) {
  CUdeviceptr ptr;
  ck_invalid(MemAddressReserve(&ptr, 4096, 0, 0, 0));
  ck_invalid(MemAddressReserve(&ptr, GRANULE + 4096, 0, 0, 0));
  ck_invalid(MemAddressReserve(&ptr, 0, 0, 0, 0));
  ck_invalid(MemAddressReserve(&ptr, GRANULE, 3, 0, 0));
  ck_invalid(MemAddressReserve(&ptr, GRANULE, 0, 0, 1));
  ck_invalid(MemAddressReserve(&ptr, GRANULE, 0, GRANULE + 4096, 0));
  ck_invalid(MemAddressReserve(NULL, GRANULE, 0, 0, 0));
  if (!device.host) return;
  ck_cu(MemAddressReserve(&ptr, UINT64_C(1) << 50, 0, 0, 0), CUDA_ERROR_OUT_OF_MEMORY);
  ck_cu(MemAddressReserve(&ptr, (size_t)0 - GRANULE, 0, 0, 0), CUDA_ERROR_OUT_OF_MEMORY);
  ck_assert_uint_eq(counts().reservations, 0);
}
END_TEST

START_TEST(free_takes_a_whole_reservation_without_mappings) {
  CUdeviceptr ptr;
  CUmemGenericAllocationHandle handle;
  ck_cu_ok(MemAddressReserve(&ptr, 4 * GRANULE, 0, 0, 0));
  ck_invalid(MemAddressFree(ptr, 2 * GRANULE));
  ck_invalid(MemAddressFree(ptr + GRANULE, GRANULE));
  ck_invalid(MemAddressFree(ptr, 8 * GRANULE));
  ck_invalid(MemAddressFree(0, GRANULE));
  ck_cu_ok(MemCreate(&handle, GRANULE, &prop, 0));
  ck_cu_ok(MemMap(ptr + GRANULE, GRANULE, 0, handle, 0));
  ck_invalid(MemAddressFree(ptr, 4 * GRANULE));
  ck_cu_ok(MemUnmap(ptr + GRANULE, GRANULE));
  ck_cu_ok(MemRelease(handle));
  ck_cu_ok(MemAddressFree(ptr, 4 * GRANULE));
  ck_invalid(MemAddressFree(ptr, 4 * GRANULE));
}
END_TEST

START_TEST(many_reservations_are_told_apart) {
  enum { MANY = 200 };
  CUdeviceptr ptrs[MANY];
  for (unsigned i = 0; i < MANY; i++) ck_cu_ok(MemAddressReserve(&ptrs[i], GRANULE * (1 + i % 3), 0, 0, 0));
  for (unsigned i = 0; i < MANY; i++) ck_invalid(MemAddressFree(ptrs[i], GRANULE * (2 + i % 3)));
  for (unsigned i = 0; i < MANY; i += 2) ck_cu_ok(MemAddressFree(ptrs[i], GRANULE * (1 + i % 3)));
  for (unsigned i = 1; i < MANY; i += 2) ck_cu_ok(MemAddressFree(ptrs[i], GRANULE * (1 + i % 3)));
}
END_TEST

/* ---- mappings */

START_TEST(map_refuses_bad_places) {
  CUdeviceptr ptr;
  CUmemGenericAllocationHandle handle, small;
  ck_cu_ok(MemAddressReserve(&ptr, 8 * GRANULE, 0, 0, 0));
  ck_cu_ok(MemCreate(&handle, 4 * GRANULE, &prop, 0));
  ck_cu_ok(MemCreate(&small, GRANULE, &prop, 0));
  ck_cu(MemMap(ptr, 2 * GRANULE, 0, handle, 0), CUDA_ERROR_NOT_SUPPORTED); /* a part */
  ck_cu(MemMap(ptr, 2 * GRANULE, 2 * GRANULE, handle, 0), CUDA_ERROR_NOT_SUPPORTED);
  ck_cu(MemMap(ptr, 6 * GRANULE, 0, handle, 0), CUDA_ERROR_NOT_SUPPORTED);
  ck_invalid(MemMap(ptr + 4096, 4 * GRANULE, 0, handle, 0));
  ck_invalid(MemMap(ptr, 0, 0, handle, 0));
  ck_invalid(MemMap(ptr, 4 * GRANULE, 0, handle, 1));
  ck_invalid(MemMap(0, 4 * GRANULE, 0, handle, 0));
  ck_cu_ok(MemMap(ptr, 4 * GRANULE, 0, handle, 0));
  ck_invalid(MemMap(ptr, 4 * GRANULE, 0, handle, 0));
  ck_invalid(MemMap(ptr + 3 * GRANULE, GRANULE, 0, small, 0));
  ck_cu_ok(MemMap(ptr + 4 * GRANULE, GRANULE, 0, small, 0));
  if (device.host) ck_invalid(MemMap(ptr + 6 * GRANULE, 4 * GRANULE, 0, handle, 0)); /* past the end */
  ck_cu_ok(MemUnmap(ptr, 5 * GRANULE));
  ck_cu_ok(MemRelease(handle));
  ck_cu_ok(MemRelease(small));
  ck_cu_ok(MemAddressFree(ptr, 8 * GRANULE));
}
END_TEST

START_TEST(unmap_takes_whole_mappings) {
  CUdeviceptr ptr;
  CUmemGenericAllocationHandle handle, small;
  ck_cu_ok(MemAddressReserve(&ptr, 8 * GRANULE, 0, 0, 0));
  ck_cu_ok(MemCreate(&handle, 4 * GRANULE, &prop, 0));
  ck_cu_ok(MemCreate(&small, GRANULE, &prop, 0));
  ck_cu_ok(MemMap(ptr, 4 * GRANULE, 0, handle, 0));
  ck_cu_ok(MemMap(ptr + 4 * GRANULE, GRANULE, 0, small, 0));
  ck_invalid(MemUnmap(ptr, 2 * GRANULE));
  ck_invalid(MemUnmap(ptr + GRANULE, GRANULE));
  ck_invalid(MemUnmap(ptr + GRANULE, 4 * GRANULE));
  ck_invalid(MemUnmap(ptr, 4096));
  ck_invalid(MemUnmap(ptr, 0));
  if (device.host) {
    ck_invalid(MemUnmap(ptr, 6 * GRANULE)); /* the last granule is not mapped */
    ck_invalid(MemUnmap(ptr + 6 * GRANULE, GRANULE));
    ck_assert_uint_eq(counts().mapped_bytes, 5 * GRANULE);
  }
  ck_cu_ok(MemUnmap(ptr, 5 * GRANULE));
  ck_cu_ok(MemRelease(handle));
  ck_cu_ok(MemRelease(small));
  ck_cu_ok(MemAddressFree(ptr, 8 * GRANULE));
}
END_TEST

START_TEST(access_is_for_whole_mappings) {
  CUdeviceptr ptr;
  CUmemGenericAllocationHandle handle;
  CUmemAccessDesc bad = read_write;
  ck_cu_ok(MemAddressReserve(&ptr, 8 * GRANULE, 0, 0, 0));
  ck_cu_ok(MemCreate(&handle, 4 * GRANULE, &prop, 0));
  ck_cu_ok(MemMap(ptr, 4 * GRANULE, 0, handle, 0));
  ck_invalid(MemSetAccess(ptr, GRANULE, &read_write, 1));
  ck_invalid(MemSetAccess(ptr + GRANULE, GRANULE, &read_write, 1));
  ck_invalid(MemSetAccess(ptr, 8 * GRANULE, &read_write, 1));
  ck_invalid(MemSetAccess(ptr + 4 * GRANULE, GRANULE, &read_write, 1));
  ck_invalid(MemSetAccess(ptr, 4 * GRANULE, &read_write, 0));
  ck_invalid(MemSetAccess(ptr, 4 * GRANULE, NULL, 1));
  ck_invalid(MemSetAccess(ptr, 4096, &read_write, 1));
  ck_invalid(MemSetAccess(ptr, 0, &read_write, 1));
  bad.location.id = 77;
  ck_invalid(MemSetAccess(ptr, 4 * GRANULE, &bad, 1));
  bad = read_write;
  bad.flags = (CUmemAccess_flags)7;
  ck_invalid(MemSetAccess(ptr, 4 * GRANULE, &bad, 1));
  bad = read_write;
  bad.location.type = CU_MEM_LOCATION_TYPE_INVALID;
  ck_invalid(MemSetAccess(ptr, 4 * GRANULE, &bad, 1));
  ck_cu_ok(MemSetAccess(ptr, 4 * GRANULE, &read_write, 1));
  ck_cu_ok(MemUnmap(ptr, 4 * GRANULE));
  ck_cu_ok(MemRelease(handle));
  ck_cu_ok(MemAddressFree(ptr, 8 * GRANULE));
}
END_TEST

START_TEST(stray_accesses_fault) {
  if (!device.host || under_valgrind()) return;
  CUdeviceptr ptr;
  CUmemGenericAllocationHandle handle;
  ck_cu_ok(MemAddressReserve(&ptr, 2 * GRANULE, 0, 0, 0));
  ck_assert(faults(ptr, false)); /* reserved */
  ck_cu_ok(MemCreate(&handle, GRANULE, &prop, 0));
  ck_cu_ok(MemMap(ptr, GRANULE, 0, handle, 0));
  ck_assert(faults(ptr, false)); /* mapped, without access */
  ck_cu_ok(MemSetAccess(ptr, GRANULE, &read_only, 1));
  ck_assert(!faults(ptr, false));
  ck_assert(faults(ptr, true));
  ck_cu_ok(MemSetAccess(ptr, GRANULE, &read_write, 1));
  ck_assert(!faults(ptr, true));
  ck_assert(faults(ptr + GRANULE, false)); /* behind it */
  ck_cu_ok(MemSetAccess(ptr, GRANULE, &no_access, 1));
  ck_assert(faults(ptr, false));
  ck_cu_ok(MemSetAccess(ptr, GRANULE, &read_write, 1));
  ck_cu_ok(MemUnmap(ptr, GRANULE));
  ck_assert(faults(ptr, false));
  ck_cu_ok(MemRelease(handle));
  ck_cu_ok(MemAddressFree(ptr, 2 * GRANULE));
}
END_TEST

START_TEST(copies_check_their_ranges_when_sent) {
  CUdeviceptr ptr;
  CUmemGenericAllocationHandle first, second;
  char bytes[8] = "";
  ck_cu_ok(MemAddressReserve(&ptr, 4 * GRANULE, 0, 0, 0));
  ck_cu_ok(MemCreate(&first, GRANULE, &prop, 0));
  ck_cu_ok(MemCreate(&second, GRANULE, &prop, 0));
  ck_cu_ok(MemMap(ptr, GRANULE, 0, first, 0));
  ck_cu_ok(MemMap(ptr + GRANULE, GRANULE, 0, second, 0));
  ck_invalid(MemcpyHtoD(ptr, bytes, 8)); /* no access yet */
  ck_cu_ok(MemSetAccess(ptr, 2 * GRANULE, &read_write, 1));
  ck_cu_ok(MemsetD8Async(ptr, 1, 2 * GRANULE, NULL)); /* across mappings */
  ck_cu_ok(MemcpyDtoH(bytes, ptr + GRANULE - 4, 8));
  ck_assert_mem_eq(bytes, "\1\1\1\1\1\1\1\1", 8);
  ck_invalid(MemsetD8Async(ptr, 1, 2 * GRANULE + 1, NULL));
  ck_invalid(MemsetD8Async(ptr + 2 * GRANULE, 1, 8, NULL));
  ck_invalid(MemcpyHtoD(ptr + 2 * GRANULE, bytes, 8));
  ck_invalid(MemcpyDtoH(bytes, ptr + 2 * GRANULE, 8));
  ck_invalid(MemcpyHtoDAsync(ptr + 2 * GRANULE, bytes, 8, NULL));
  ck_invalid(MemcpyDtoHAsync(bytes, ptr + 2 * GRANULE, 8, NULL));
  ck_invalid(MemcpyDtoDAsync(ptr + 2 * GRANULE, ptr, 8, NULL));
  ck_invalid(MemcpyHtoDAsync(0x12345, bytes, 8, NULL));
  ck_invalid(MemcpyHtoD(0, bytes, 8));
  ck_invalid(MemcpyHtoD(ptr, NULL, 8));
  ck_cu_ok(MemcpyHtoD(ptr, bytes, 0));
  ck_cu_ok(MemsetD8Async(ptr, 1, 0, NULL));
  ck_cu_ok(StreamSynchronize(NULL)); /* none of this harmed the context */
  ck_cu_ok(MemUnmap(ptr, 2 * GRANULE));
  ck_cu_ok(MemRelease(first));
  ck_cu_ok(MemRelease(second));
  ck_cu_ok(MemAddressFree(ptr, 4 * GRANULE));
}
END_TEST

/* ---- registered host memory */

START_TEST(registering_goes_by_pages) {
  unsigned char *pages = make_pages(4 * MIB);
  ck_invalid(MemHostRegister(NULL, MIB, 0));
  ck_invalid(MemHostRegister(pages, 0, 0));
  ck_invalid(MemHostRegister(pages, MIB, 0xffff0));
  ck_cu_ok(MemHostRegister(pages + 100, 1000, 0));
  if (device.host) ck_assert_uint_eq(counts().registered_bytes, 1000);
  ck_cu(MemHostRegister(pages, 4096, 0), CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
  ck_cu_ok(MemHostUnregister(pages + 100));
  ck_cu_ok(MemHostRegister(pages, MIB, 0));
  ck_cu_ok(MemHostRegister(pages + MIB, MIB, 0));
  ck_cu(MemHostRegister(pages, MIB, 0), CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
  ck_cu(MemHostRegister(pages + 4096, 4096, 0), CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
  ck_cu(MemHostRegister(pages + 2 * MIB - 4096, MIB, 0), CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
  ck_invalid(MemHostUnregister(pages + 4096));
  ck_invalid(MemHostUnregister(NULL));
  if (device.host) ck_assert_uint_eq(counts().registered_bytes, 2 * MIB);
  ck_cu_ok(MemHostUnregister(pages));
  ck_cu(MemHostUnregister(pages), CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
  ck_cu_ok(MemHostUnregister(pages + MIB));
  if (device.host) ck_assert_uint_eq(counts().registered, 0);
  drop_pages(pages, 4 * MIB);
  ck_invalid(MemHostRegister(pages, MIB, 0)); /* nothing is there any more */
}
END_TEST

/* ---- contexts */

START_TEST(calls_need_what_they_need_of_a_context) {
  size_t bytes, total;
  CUcontext current;
  CUdevice ordinal;
  CUdeviceptr ptr;
  CUstream stream;
  CUevent event;
  char byte = 0;
  ptr = make_memory(GRANULE);
  ck_cu_ok(CtxGetCurrent(&current));
  ck_assert_ptr_eq(current, context);
  ck_cu_ok(CtxGetDevice(&ordinal));
  ck_assert_int_eq(ordinal, device.ordinal);
  ck_cu_ok(CtxSetCurrent(NULL));
  ck_cu_ok(CtxGetCurrent(&current));
  ck_assert_ptr_null(current);
  ck_cu(CtxGetDevice(&ordinal), CUDA_ERROR_INVALID_CONTEXT);
  ck_cu(CtxSynchronize(), CUDA_ERROR_INVALID_CONTEXT);
  ck_cu(MemGetInfo(&bytes, &total), CUDA_ERROR_INVALID_CONTEXT);
  ck_cu(MemHostRegister(&byte, 1, 0), CUDA_ERROR_INVALID_CONTEXT);
  ck_cu(MemHostUnregister(&byte), CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
  ck_cu(MemcpyHtoD(ptr, &byte, 1), CUDA_ERROR_INVALID_CONTEXT);
  ck_cu(MemsetD8Async(ptr, 0, 1, NULL), CUDA_ERROR_INVALID_CONTEXT);
  ck_cu(StreamCreate(&stream, 0), CUDA_ERROR_INVALID_CONTEXT);
  ck_cu(StreamSynchronize(NULL), CUDA_ERROR_INVALID_CONTEXT);
  ck_cu(EventCreate(&event, 0), CUDA_ERROR_INVALID_CONTEXT);
  drop_memory(ptr, GRANULE); /* memory is the device's, not a context's */
  if (device.host) ck_cu(CtxSetCurrent((CUcontext)(uintptr_t)0x1234), CUDA_ERROR_INVALID_CONTEXT);
}
END_TEST

START_TEST(devices_answer) {
  CUdevice ordinal;
  size_t bytes = 0;
  int count = 0, value = 0;
  char name[8];
  const char *text;
  ck_cu_ok(DeviceGetCount(&count));
  ck_assert_int_gt(count, device.ordinal);
  ck_cu(DeviceGet(&ordinal, count), CUDA_ERROR_INVALID_DEVICE);
  ck_cu(DeviceGet(&ordinal, -1), CUDA_ERROR_INVALID_DEVICE);
  ck_cu_ok(DeviceGet(&ordinal, count - 1));
  ck_assert_int_eq(ordinal, count - 1);
  ck_cu_ok(DeviceTotalMem(&bytes, device.ordinal));
  if (device.host) ck_assert_uint_eq(bytes, 256 * MIB);
  ck_cu(DeviceTotalMem(&bytes, 77), CUDA_ERROR_INVALID_DEVICE);
  ck_invalid(DeviceGetAttribute(&value, (CUdevice_attribute)9999, device.ordinal));
  ck_cu_ok(DeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED, device.ordinal));
  ck_assert_int_eq(value, 1);
  ck_cu_ok(DeviceGetName(name, sizeof name, device.ordinal));
  ck_assert_uint_lt(strnlen(name, sizeof name), sizeof name); /* cut, and ended */
  ck_cu_ok(GetErrorName(CUDA_ERROR_OUT_OF_MEMORY, &text));
  ck_assert_str_eq(text, "CUDA_ERROR_OUT_OF_MEMORY");
  ck_invalid(GetErrorName((CUresult)99999, &text));
  ck_invalid(Init(1));
  ck_cu_ok(Init(0));
}
END_TEST

START_TEST(one_capacity_is_one_device) {
  if (!device.host) return;
  struct device same, other;
  ck_ok(dz_device_open(&same, "host:262144KiB"));
  ck_assert_int_eq(same.ordinal, device.ordinal);
  ck_ok(dz_device_open(&other, "host:64MiB"));
  ck_assert_int_ne(other.ordinal, device.ordinal);
  CUuuid ids[3];
  ck_cu_ok(DeviceGetUuid(&ids[0], device.ordinal));
  ck_cu_ok(DeviceGetUuid(&ids[1], same.ordinal));
  ck_cu_ok(DeviceGetUuid(&ids[2], other.ordinal));
  ck_assert_mem_eq(&ids[0], &ids[1], sizeof ids[0]);
  ck_assert_mem_ne(&ids[0], &ids[2], sizeof ids[0]);
  CUcontext theirs;
  CUmemGenericAllocationHandle handle;
  CUmemAllocationProp there = prop;
  size_t all = free_bytes();
  ck_cu(DevicePrimaryCtxRelease(other.ordinal), CUDA_ERROR_INVALID_CONTEXT); /* never retained */
  there.location.id = other.ordinal;
  ck_cu(MemCreate(&handle, GRANULE, &there, 0), CUDA_ERROR_INVALID_CONTEXT);
  ck_cu_ok(DevicePrimaryCtxRetain(&theirs, other.ordinal));
  ck_assert_ptr_ne(theirs, context);
  ck_cu_ok(MemCreate(&handle, GRANULE, &there, 0));
  ck_assert_uint_eq(free_bytes(), all);
  CUdeviceptr ptr;
  ck_cu_ok(MemAddressReserve(&ptr, GRANULE, 0, 0, 0));
  ck_cu_ok(MemMap(ptr, GRANULE, 0, handle, 0));
  unsigned long long flags;
  CUmemLocation here = read_write.location;
  CUmemAccessDesc both[] = {read_write, {.location = there.location, .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE}};
  ck_cu_ok(MemGetAccess(&flags, &here, ptr));
  ck_assert_uint_eq(flags, CU_MEM_ACCESS_FLAGS_PROT_NONE);
  ck_cu_ok(MemSetAccess(ptr, GRANULE, both, 2));
  ck_cu_ok(MemGetAccess(&flags, &here, ptr)); /* a peer's */
  ck_assert_uint_eq(flags, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
  ck_cu_ok(MemGetAccess(&flags, &there.location, ptr + GRANULE - 1));
  ck_assert_uint_eq(flags, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
  both[0].flags = CU_MEM_ACCESS_FLAGS_PROT_NONE;
  ck_cu_ok(MemSetAccess(ptr, GRANULE, both, 1));
  ck_cu_ok(MemGetAccess(&flags, &here, ptr));
  ck_assert_uint_eq(flags, CU_MEM_ACCESS_FLAGS_PROT_NONE);
  ck_invalid(MemGetAccess(&flags, &here, ptr + GRANULE));
  ck_invalid(MemGetAccess(NULL, &here, ptr));
  ck_invalid(MemGetAccess(&flags, &(CUmemLocation){.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 1000}, ptr));
  int descriptor = 7;
  ck_cu(MemExportToShareableHandle(&descriptor, handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0), CUDA_ERROR_NOT_SUPPORTED);
  ck_assert_int_eq(descriptor, 7);
  both[0].location.id = 1000;
  ck_invalid(MemSetAccess(ptr, GRANULE, both, 1)); /* no such device */
  ck_cu_ok(MemUnmap(ptr, GRANULE));
  ck_cu_ok(MemAddressFree(ptr, GRANULE));
  ck_cu_ok(MemRelease(handle));
  ck_cu_ok(DevicePrimaryCtxRelease(other.ordinal));
}
END_TEST

/* Not between start and finish: it looks at what is there before and after. */
START_TEST(the_last_release_leaves_nothing) {
  uint64_t bytes;
  unsigned char *pages = make_pages(MIB);
  CUdeviceptr ptr, unused;
  CUmemGenericAllocationHandle handle;
  CUstream stream;
  CUevent event;
  CUgraph graph;
  size_t free_now, total;
  open_device("host:256MiB");
  if (!device.host) return;
  ck_assert_uint_eq(device_files(&bytes), 0);
  ck_cu_ok(DevicePrimaryCtxRetain(&context, device.ordinal));
  ck_cu_ok(DevicePrimaryCtxRetain(&context, device.ordinal));
  ck_cu_ok(CtxSetCurrent(context));
  ptr = make_memory(4 * GRANULE);
  ck_cu_ok(MemsetD8Async(ptr, 3, 4 * GRANULE, NULL));
  ck_cu_ok(MemAddressReserve(&unused, GRANULE, 0, 0, 0));
  ck_cu_ok(MemCreate(&handle, GRANULE, &prop, 0));
  ck_cu_ok(StreamCreate(&stream, 0));
  ck_cu_ok(EventCreate(&event, 0));
  ck_cu_ok(EventRecord(event, stream));
  ck_cu_ok(MemHostRegister(pages, MIB, 0));
  ck_cu_ok(MemsetD8Async(ptr, 3, 4, CU_STREAM_PER_THREAD));
  ck_cu_ok(StreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
  ck_cu_ok(StreamEndCapture(stream, &graph));
  ck_cu_ok(StreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
  ck_cu_ok(DevicePrimaryCtxRelease(device.ordinal));
  ck_assert_uint_eq(device_files(&bytes), 1);
  ck_assert_uint_gt(lines_with("/proc/self/maps", "drowse-host-device"), 0);
  struct host_counts alive = counts();
  ck_assert_uint_eq(alive.threads, 3); /* the stream's and two default ones */
  ck_assert_uint_eq(alive.captures, 1);

  ck_cu_ok(DevicePrimaryCtxRelease(device.ordinal));
  struct host_counts left = counts();
  ck_assert_uint_eq(left.reclaimed - alive.reclaimed,
                    9); /* mapping, 2 reservations, handle, stream, event, pages, graph, capture */
  left.reclaimed = 0;
  const struct host_counts nothing = {0};
  ck_assert_mem_eq(&left, &nothing, sizeof left);
  ck_assert_uint_eq(device_files(&bytes), 0);
  ck_assert_uint_eq(lines_with("/proc/self/maps", "drowse-host-device"), 0);
  if (!under_valgrind()) ck_assert(faults(ptr, false));
  ck_cu(MemGetInfo(&free_now, &total), CUDA_ERROR_CONTEXT_IS_DESTROYED);
  ck_cu(StreamQuery(stream), CUDA_ERROR_INVALID_HANDLE);
  ck_cu(EventQuery(event), CUDA_ERROR_INVALID_HANDLE);
  ck_invalid(MemRelease(handle));
  ck_invalid(GraphDestroy(graph));
  ck_cu(DevicePrimaryCtxRelease(device.ordinal), CUDA_ERROR_INVALID_CONTEXT);

  CUcontext again;
  ck_cu_ok(DevicePrimaryCtxRetain(&again, device.ordinal)); /* the same one, empty */
  ck_assert_ptr_eq(again, context);
  ck_cu_ok(MemGetInfo(&free_now, &total));
  ck_assert_uint_eq(free_now, 256 * MIB);
  ck_cu_ok(CtxSetCurrent(NULL));
  ck_cu_ok(DevicePrimaryCtxRelease(device.ordinal));
  drop_pages(pages, MIB);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("host memory");
  DRIVER_TEST(suite, contents_follow_the_handle);
  DRIVER_TEST(suite, two_mappings_of_a_handle_are_one_memory);
  DRIVER_TEST(suite, memory_is_free_when_released_and_unmapped);
  DRIVER_TEST(suite, capacity_is_enforced);
  DRIVER_TEST(suite, pages_leave_the_process_and_the_machine);
  DRIVER_TEST(suite, create_refuses_what_it_does_not_know);
  DRIVER_TEST(suite, granularity_is_two_mebibytes);
  DRIVER_TEST(suite, a_released_handle_is_gone);
  DRIVER_TEST(suite, a_limit_on_file_sizes_is_an_error_and_no_signal);
  DRIVER_TEST(suite, reserve_honours_alignment_and_hints);
  DRIVER_TEST(suite, reserve_refuses_bad_ranges);
  DRIVER_TEST(suite, free_takes_a_whole_reservation_without_mappings);
  DRIVER_TEST(suite, many_reservations_are_told_apart);
  DRIVER_TEST(suite, map_refuses_bad_places);
  DRIVER_TEST(suite, unmap_takes_whole_mappings);
  DRIVER_TEST(suite, access_is_for_whole_mappings);
  DRIVER_TEST(suite, stray_accesses_fault);
  DRIVER_TEST(suite, copies_check_their_ranges_when_sent);
  DRIVER_TEST(suite, registering_goes_by_pages);
  DRIVER_TEST(suite, calls_need_what_they_need_of_a_context);
  DRIVER_TEST(suite, devices_answer);
  DRIVER_TEST(suite, one_capacity_is_one_device);
  HARNESS_TEST(suite, the_last_release_leaves_nothing);
  return harness_run(suite);
}
