/* SPDX-License-Identifier: Apache-2.0
 *
 * From a device's name to its driver: "cuda:0", "cuda:GPU-<uuid>", "cuda:MIG-<uuid>", "host", "host:4GiB", "auto".
 */
#ifndef DZ_DEVICE_H
#define DZ_DEVICE_H

#include "driver/driver.h"
#include "drowse.h"

/* An opened device: a value, owned by the heap. */
struct device {
  struct driver driver; /* filled whole: no entry is NULL */
  CUdevice ordinal;     /* what the driver's Device* entries take */
  char name[64];        /* what was opened, canonical: "cuda:0", "cuda:GPU-…", "host", "host:4GiB" */
  bool host;            /* the host device */
};

/* Opens the device that text names; NULL or "" is DROWSE_ERR_INVALID (the caller knows the defaults). Loads the driver if need be
 * and initialises it. Needs no closing: a device holds nothing but its table. Fails with dz_error() set: INVALID (no such name, a
 * capacity that does not parse), NO_DEVICE (no driver, one too old: every missing entry is named; no such device; cuInit says
 * no), UNSUPPORTED (no virtual memory management), FORKED (an ancestor had initialised the real driver; the host device starts
 * anew in a child), NO_HOST_MEMORY. */
drowse_status dz_device_open(struct device *device, const char *text);

/* Fills *description for an opened device; needs no context. */
drowse_status dz_device_describe(const struct device *device, drowse_device *description);

/* The NUMA node whose memory is closest to the device; -1: there is none, or the driver does not say. */
int dz_host_numa_node(const struct driver *driver, CUdevice device);

/* Number of devices of the real driver; 0 where there is none. Fails if a driver is there and does not work. */
drowse_status dz_device_count_cuda(int *count);

/* Parses a size: digits, maybe with a fraction, and a unit without a space between. KiB, MiB, GiB and TiB are powers of 1024, and
 * so are K, M, G and T alone, as in most tools; KB (kB), MB, GB and TB are powers of 1000; B or nothing is bytes. "4GiB", "4G",
 * "1.5GiB", "1048576". false: not a size, not a whole number of bytes, or it does not fit 64 bits; *bytes is untouched then. */
bool dz_parse_bytes(const char *text, uint64_t *bytes);

#endif
