/* SPDX-License-Identifier: Apache-2.0
 *
 * What the tests of drivers share: a device with its context current before each test, and a look at what is left after it.
 *
 * They run on the host device. With DROWSE_TEST_DEVICE=cuda:0 and CK_FORK=yes the same tests run on a GPU: that is how it is
 * known that the emulation behaves like what it emulates. What a GPU's driver leaves undefined, or lets pass, is only asked of
 * the host device.
 */
#ifndef FIXTURE_H
#define FIXTURE_H

#include "config.h"

#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "driver/device.h"
#include "driver/host.h"
#include "harness.h"

#define MIB (UINT64_C(1) << 20)
#define GRANULE (2 * MIB)

static struct device device;
static const struct driver *cu = &device.driver;
static CUcontext context;
static CUmemAllocationProp prop;
static CUmemAccessDesc read_write, read_only, no_access;
static struct host_counts before;

#define ck_cu(call, expected)                                                                      \
  do {                                                                                             \
    CUresult ck_got = cu->call;                                                                    \
    const char *ck_name = "?";                                                                     \
    (void)cu->GetErrorName(ck_got, &ck_name);                                                      \
    ck_assert_msg(ck_got == (expected), "%s: %s (%d), not %s", #call, ck_name, ck_got, #expected); \
  } while (0)
#define ck_cu_ok(call) ck_cu(call, CUDA_SUCCESS)
#define ck_invalid(call) ck_cu(call, CUDA_ERROR_INVALID_VALUE)

/* What calls about memory of the opened device are given. */
static inline void describe_memory(void) {
  prop = (CUmemAllocationProp){.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                               .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device.ordinal}};
  read_write = (CUmemAccessDesc){.location = prop.location, .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
  read_only = (CUmemAccessDesc){.location = prop.location, .flags = CU_MEM_ACCESS_FLAGS_PROT_READ};
  no_access = (CUmemAccessDesc){.location = prop.location, .flags = CU_MEM_ACCESS_FLAGS_PROT_NONE};
}

static inline void open_device(const char *name) {
  const char *chosen = getenv("DROWSE_TEST_DEVICE");
  ck_ok(dz_device_open(&device, chosen == NULL ? name : chosen));
  describe_memory();
}

static inline void start_on(const char *name) {
  open_device(name);
  dz_host_counts(&before);
  ck_cu_ok(DevicePrimaryCtxRetain(&context, device.ordinal));
  ck_cu_ok(CtxSetCurrent(context));
}

static inline void start(void) {
  start_on("host:256MiB");
}

/* Ends the context; nothing may have been left in it. */
static inline void finish(void) {
  struct host_counts after;
  ck_cu_ok(CtxSetCurrent(NULL));
  ck_cu_ok(DevicePrimaryCtxRelease(device.ordinal));
  if (!device.host) return;
  dz_host_counts(&after);
  ck_assert_uint_eq(after.reclaimed, before.reclaimed);
  ck_assert_uint_eq(after.contexts, 0);
  ck_assert_uint_eq(after.threads, 0);
}

/* A test between start and finish. */
#define DRIVER_TEST(suite, test) HARNESS_FIXTURE_TEST(suite, test, start, finish)

/* ---- memory */

/* Mapped, accessible memory whose handle is released: unmapping frees it. */
static inline CUdeviceptr make_memory(size_t bytes) {
  CUdeviceptr ptr = 0;
  CUmemGenericAllocationHandle handle = 0;
  ck_cu_ok(MemAddressReserve(&ptr, bytes, 0, 0, 0));
  ck_cu_ok(MemCreate(&handle, bytes, &prop, 0));
  ck_cu_ok(MemMap(ptr, bytes, 0, handle, 0));
  ck_cu_ok(MemSetAccess(ptr, bytes, &read_write, 1));
  ck_cu_ok(MemRelease(handle));
  return ptr;
}

static inline void drop_memory(CUdeviceptr ptr, size_t bytes) {
  ck_cu_ok(MemUnmap(ptr, bytes));
  ck_cu_ok(MemAddressFree(ptr, bytes));
}

/* Pages of host memory. */
static inline unsigned char *make_pages(size_t bytes) {
  void *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ck_assert_ptr_ne(pages, MAP_FAILED);
  return pages;
}

static inline void drop_pages(void *pages, size_t bytes) {
  ck_assert_int_eq(munmap(pages, bytes), 0);
}

static inline unsigned char device_byte(CUdeviceptr ptr) {
  unsigned char byte = 0;
  ck_cu_ok(MemcpyDtoH(&byte, ptr, 1));
  return byte;
}

/* ---- a gate in a stream: work behind it stays undone until it opens, so that no test depends on time */

struct gate {
  sem_t reached, open;
};

static void CUDA_CB wait_at_gate(void *argument) {
  struct gate *gate = argument;
  (void)sem_post(&gate->reached);
  while (sem_wait(&gate->open) != 0) continue;
}

/* Closes the stream behind what it has now; on return the stream stands at the gate. */
static inline void close_gate(struct gate *gate, CUstream stream) {
  ck_assert_int_eq(sem_init(&gate->reached, 0, 0), 0);
  ck_assert_int_eq(sem_init(&gate->open, 0, 0), 0);
  ck_cu_ok(LaunchHostFunc(stream, wait_at_gate, gate));
  while (sem_wait(&gate->reached) != 0) continue;
}

static inline void open_gate(struct gate *gate) {
  ck_assert_int_eq(sem_post(&gate->open), 0);
}

/* ---- faults: whether a load or a store is one, seen in this process */

static sigjmp_buf fault_back;

static void fault_seen(int signal_number) {
  (void)signal_number;
  siglongjmp(fault_back, 1);
}

/* Valgrind reports a fault before it happens, and what other threads held at a fork as the child's leak. It is known by what it
 * preloads. */
static inline bool under_valgrind(void) {
  const char *preloaded = getenv("LD_PRELOAD");
  return preloaded != NULL && strstr(preloaded, "vgpreload") != NULL;
}

/* Faults at address are what is tested, so the access must not be one that a sanitizer looks at first. */
__attribute__((no_sanitize("address", "thread", "undefined"))) static inline bool faults(CUdeviceptr address, bool write) {
  struct sigaction catch = {.sa_handler = fault_seen, .sa_flags = SA_NODEFER}, kept;
  volatile unsigned char *byte = (volatile unsigned char *)(uintptr_t)address;
  ck_assert_int_eq(sigaction(SIGSEGV, &catch, &kept), 0);
  bool fault = sigsetjmp(fault_back, 1) != 0;
  if (!fault) {
    unsigned char value = *byte;
    if (write) *byte = value;
  }
  ck_assert_int_eq(sigaction(SIGSEGV, &kept, NULL), 0);
  return fault;
}

#endif
