/* SPDX-License-Identifier: Apache-2.0
 *
 * The host device: an emulated CUDA device in this process's own memory. Its table has the CUDA driver's entry points, for heaps
 * where there is no GPU and for tests. What it does was compared with a driver at work (580, on an H100): where that driver's
 * answer to misuse is a defined error, this one gives the same; where it crashes, or lets pass what its manual forbids, this one
 * gives the error that the manual names.
 *
 *   physical memory   a range of the device's memfd. Ranges are never used twice: what is released is punched out of the file
 *   addresses         PROT_NONE mappings; memory is mapped over them, set-access is mprotect, so a stray access faults
 *   streams           threads with a queue, so that work is really late and a missing wait shows
 *   captures          CUDA's rules, a context-wide wait destroying them included
 *   fork              the child has nothing: every mapping is MADV_DONTFORK and every entry says CUDA_ERROR_NOT_INITIALIZED
 *
 * A device's file and threads exist only while its primary context is retained. With the last release goes all that is left in
 * it; when no context is retained any more, reservations and graphs go too.
 */
#ifndef DZ_HOST_H
#define DZ_HOST_H

#include "driver/driver.h"

extern const struct driver dz_host_driver;

/* Initialises the emulation, or does nothing where that was done. In a forked child it drops what was inherited, untouched, and
 * starts anew; the entry Init, like the real one, would refuse there. */
CUresult dz_host_start(void);

/* Finds or makes the device of that capacity in bytes; 0: half of what the machine and its cgroups have. OUT_OF_MEMORY;
 * NOT_INITIALIZED: before dz_host_start(). */
CUresult dz_host_device(uint64_t capacity, CUdevice *device);

/* What is alive, over all devices: for tests that look for leaks. */
struct host_counts {
  uint64_t contexts;         /* devices whose primary context is retained */
  uint64_t handles;          /* of physical memory, not yet released */
  uint64_t physical_bytes;   /* of handles and mappings */
  uint64_t reservations;     /* ranges of addresses */
  uint64_t mappings;         /* in them */
  uint64_t mapped_bytes;     /* likewise */
  uint64_t registered;       /* host ranges */
  uint64_t registered_bytes; /* likewise */
  uint64_t streams;          /* created and not destroyed */
  uint64_t threads;          /* of streams, the default ones and the ones still at work included */
  uint64_t events;
  uint64_t captures; /* in progress */
  uint64_t graphs, executables;
  uint64_t reclaimed; /* things that the last release of a context found alive and took, ever */
};
void dz_host_counts(struct host_counts *counts);

/* Calls made in a forked child on the parent's emulation. */
uint64_t dz_host_calls_after_fork(void);

#endif
