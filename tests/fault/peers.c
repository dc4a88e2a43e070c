/* SPDX-License-Identifier: Apache-2.0
 *
 * The same sweep for what others do, restated as models of a few lines each on the same driver seam: whoever reads the output
 * sees at which call each of them loses what it keeps, and so that the sweep can find such a fault at all.
 *
 *   copy-one-unmap-one      sleep: each piece is copied and unmapped before the next is looked at; one flag says what all are
 *   unmap-whatever-copied   sleep: a copy that fails does not keep what comes behind it from being done
 *   drop-backup-on-copy     wake: a piece's backup goes as soon as its copy back has been sent; what fails later unmaps all
 *   exit-on-error           whatever fails ends the process
 *   copy-all-unmap-all      drowse's order, in the same lines: nothing is found
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "driver/device.h"
#include "fault/world.h"

enum { PIECES = 4, BYTES = 8192, GRANULE = 2 << 20 };

struct piece {
  CUdeviceptr at;
  CUmemGenericAllocationHandle handle;
  bool mapped;
  bool backed_up; /* false where it is not mapped: its contents do not matter */
  unsigned char backup[BYTES];
};

static struct device device;
static const struct driver *cu = &device.driver;
static CUcontext context;
static struct piece pieces[PIECES];
static bool asleep;

/* ---- the device's memory. All return whether it worked. */

static bool works(CUresult code) {
  return code == CUDA_SUCCESS;
}

static bool map(struct piece *piece) {
  const CUmemAllocationProp prop = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                    .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device.ordinal}};
  const CUmemAccessDesc access = {.location = prop.location, .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
  if (!works(cu->MemCreate(&piece->handle, GRANULE, &prop, 0))) return false;
  if (!works(cu->MemMap(piece->at, GRANULE, 0, piece->handle, 0))) goto release;
  if (!works(cu->MemSetAccess(piece->at, GRANULE, &access, 1))) goto unmap;
  piece->mapped = true;
  return true;

unmap:
  (void)cu->MemUnmap(piece->at, GRANULE);
release:
  (void)cu->MemRelease(piece->handle);
  return false;
}

/* What is not mapped any more has been unmapped by a call that failed. */
static bool unmap(struct piece *piece) {
  CUresult code = cu->MemUnmap(piece->at, GRANULE);
  if (code != CUDA_SUCCESS && code != CUDA_ERROR_INVALID_VALUE) return false;
  piece->mapped = false;
  return works(cu->MemRelease(piece->handle));
}

static bool copy_out(struct piece *piece) {
  piece->backed_up = works(cu->MemcpyDtoH(piece->backup, piece->at, BYTES));
  return piece->backed_up;
}

static bool copy_in(struct piece *piece) {
  return works(cu->MemcpyHtoD(piece->at, piece->backup, BYTES));
}

/* ---- beginning and end */

static void contents_of(size_t number, unsigned char *bytes) {
  for (size_t i = 0; i < BYTES; i++) bytes[i] = (unsigned char)((number + 1) * (i | 1));
}

static void end(void) {
  const struct driver *real = fault_real_driver();
  fault_forget();
  for (size_t i = 0; i < PIECES; i++) {
    (void)real->MemUnmap(pieces[i].at, GRANULE);
    (void)real->MemRelease(pieces[i].handle);
  }
  (void)real->MemAddressFree(pieces[0].at, PIECES * GRANULE);
  (void)real->CtxSetCurrent(NULL);
  (void)real->DevicePrimaryCtxRelease(device.ordinal);
}

static void begin(void) {
  EXPECT_OK(dz_device_open(&device, "host:64MiB"));
  EXPECT(works(cu->DevicePrimaryCtxRetain(&context, device.ordinal)));
  EXPECT(works(cu->CtxSetCurrent(context)));
  EXPECT(works(cu->MemAddressReserve(&pieces[0].at, PIECES * GRANULE, 0, 0, 0)));
  for (size_t i = 0; i < PIECES; i++) {
    pieces[i].at = pieces[0].at + i * GRANULE;
    EXPECT(map(&pieces[i]));
    contents_of(i, pieces[i].backup);
    EXPECT(copy_in(&pieces[i]));
    memset(pieces[i].backup, 0, BYTES);
  }
  world_at_end = end;
}

/* What whoever uses the memory finds there, or, while it sleeps, what will be there. */
static void check(drowse_status status) {
  const struct driver *real = fault_real_driver();
  unsigned char expected[BYTES], found[BYTES];
  (void)status;
  for (size_t i = 0; i < PIECES && !fault_is_for_ever(); i++) {
    contents_of(i, expected);
    if (asleep)
      EXPECT_MSG(pieces[i].backed_up && memcmp(pieces[i].backup, expected, BYTES) == 0, "piece %d is lost in its sleep", (int)i);
    else
      EXPECT_MSG(works(real->MemcpyDtoH(found, pieces[i].at, BYTES)) && memcmp(found, expected, BYTES) == 0,
                 "piece %d is lost, awake", (int)i);
  }
}

static drowse_status status_of(bool worked) {
  return worked ? DROWSE_OK : DROWSE_ERR_DRIVER;
}

/* ---- sleep */

static drowse_status copy_one_unmap_one(void) {
  bool worked = true;
  for (size_t i = 0; i < PIECES && worked; i++) worked = copy_out(&pieces[i]) && unmap(&pieces[i]);
  if (worked) asleep = true;
  return status_of(worked);
}

static drowse_status unmap_whatever_copied(void) {
  bool worked = true;
  for (size_t i = 0; i < PIECES && !asleep; i++) {
    worked &= copy_out(&pieces[i]);
    worked &= unmap(&pieces[i]);
  }
  asleep = true;
  return status_of(worked);
}

/* What the driver does not take back has a backup all the same, and is unmapped before it wakes. */
static drowse_status copy_all_unmap_all(void) {
  bool worked = true;
  for (size_t i = 0; i < PIECES && worked && !asleep; i++) worked = copy_out(&pieces[i]);
  if (!worked) return DROWSE_ERR_DRIVER;
  asleep = true; /* the commit point */
  for (size_t i = 0; i < PIECES; i++) worked &= !pieces[i].mapped || unmap(&pieces[i]);
  return status_of(worked);
}

static drowse_status exit_on_error(void) {
  drowse_status status = copy_all_unmap_all();
  if (status != DROWSE_OK) _exit(EXIT_FAILURE);
  return status;
}

/* ---- wake */

static void begin_asleep(void) {
  begin();
  EXPECT_OK(copy_all_unmap_all());
}

static void unmap_all(void) {
  for (size_t i = 0; i < PIECES; i++) {
    if (pieces[i].mapped) (void)unmap(&pieces[i]);
  }
}

static bool wake_piece(struct piece *piece) {
  return map(piece) && (!piece->backed_up || copy_in(piece));
}

static drowse_status drop_backup_on_copy(void) {
  bool worked = true;
  for (size_t i = 0; i < PIECES && worked; i++) {
    worked = wake_piece(&pieces[i]);
    if (worked) pieces[i].backed_up = false; /* "the GPU has it now" */
  }
  if (!worked) unmap_all();
  asleep = !worked;
  return status_of(worked);
}

static drowse_status keep_backup_until_all(void) {
  bool worked = true;
  for (size_t i = 0; i < PIECES && worked; i++) worked = pieces[i].mapped || wake_piece(&pieces[i]);
  if (!worked) unmap_all();
  asleep = !worked;
  for (size_t i = 0; i < PIECES && worked; i++) pieces[i].backed_up = false;
  return status_of(worked);
}

static const struct scenario scenarios[] = {
    {"copy-one-unmap-one", begin, copy_one_unmap_one, check, UINT64_MAX, SWEEP_FINDS_LOSS},
    {"unmap-whatever-copied", begin, unmap_whatever_copied, check, UINT64_MAX, SWEEP_FINDS_LOSS},
    {"drop-backup-on-copy", begin_asleep, drop_backup_on_copy, check, UINT64_MAX, SWEEP_FINDS_LOSS},
    {"exit-on-error", begin, exit_on_error, check, UINT64_MAX, SWEEP_FINDS_EXIT},
    {"copy-all-unmap-all", begin, copy_all_unmap_all, check, UINT64_MAX, SWEEP_MODEL},
    {"keep-backup-until-all", begin_asleep, keep_backup_until_all, check, UINT64_MAX, SWEEP_MODEL},
};

int main(int argc, char **argv) {
  return sweep_main(argc, argv, scenarios, sizeof scenarios / sizeof *scenarios);
}
