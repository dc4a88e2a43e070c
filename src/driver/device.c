/* SPDX-License-Identifier: Apache-2.0
 *
 * Devices by name.
 */
#include "driver/device.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "core/error.h"
#include "driver/cuda_driver.h"
#include "driver/host.h"

/* ---- sizes */

/* Units in the order in which they are tried: the longer ones first. */
static const struct {
  const char *name;
  uint64_t bytes;
} units[] = {
    {"KiB", UINT64_C(1) << 10},
    {"MiB", UINT64_C(1) << 20},
    {"GiB", UINT64_C(1) << 30},
    {"TiB", UINT64_C(1) << 40},
    {"KB", UINT64_C(1000)},
    {"kB", UINT64_C(1000)},
    {"MB", UINT64_C(1000000)},
    {"GB", UINT64_C(1000000000)},
    {"TB", UINT64_C(1000000000000)},
    {"K", UINT64_C(1) << 10},
    {"M", UINT64_C(1) << 20},
    {"G", UINT64_C(1) << 30},
    {"T", UINT64_C(1) << 40},
    {"B", 1},
    {"", 1},
};

static bool unit_of(const char *name, uint64_t *bytes) {
  for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
    if (strcmp(name, units[i].name) != 0) continue;
    *bytes = units[i].bytes;
    return true;
  }
  return false;
}

static bool is_digit(char character) {
  return character >= '0' && character <= '9';
}

/* Reads digits behind what number holds already; false: they do not fit. */
static bool read_digits(const char **text, uint64_t *number, unsigned *count) {
  for (*count = 0; is_digit(**text); ++*text, ++*count) {
    uint64_t digit = (uint64_t)(**text - '0');
    if (__builtin_mul_overflow(*number, UINT64_C(10), number) || __builtin_add_overflow(*number, digit, number)) return false;
  }
  return true;
}

/* Takes as many factors of prime as wanted out of two numbers together; false: there are not so many. */
static bool take_factors(uint64_t prime, unsigned wanted, uint64_t *first, uint64_t *second) {
  for (; wanted != 0 && *first % prime == 0; wanted--) *first /= prime;
  for (; wanted != 0 && *second % prime == 0; wanted--) *second /= prime;
  return wanted == 0;
}

/* The number is digits without the point, so it has to be divided by ten for each digit of the fraction. Dividing first keeps it
 * exact and within 64 bits; where twos or fives are missing the size is not a whole number of bytes. */
bool dz_parse_bytes(const char *text, uint64_t *bytes) {
  uint64_t number = 0, unit = 0, product;
  unsigned whole, fraction = 0;
  if (!read_digits(&text, &number, &whole) || whole == 0) return false;
  if (*text == '.') {
    text++;
    if (!read_digits(&text, &number, &fraction) || fraction == 0) return false;
  }
  if (!unit_of(text, &unit)) return false;
  if (number == 0) fraction = 0;
  if (!take_factors(2, fraction, &unit, &number) || !take_factors(5, fraction, &unit, &number)) return false;
  if (__builtin_mul_overflow(number, unit, &product)) return false;
  *bytes = product;
  return true;
}

/* ---- the real driver's devices */

enum { UUID_TEXT = 36 };

static void print_uuid(const CUuuid *uuid, char text[UUID_TEXT + 1]) {
  char *at = text;
  for (size_t i = 0; i < sizeof uuid->bytes; i++) {
    if (i == 4 || i == 6 || i == 8 || i == 10) *at++ = '-';
    at += sprintf(at, "%02x", (unsigned char)uuid->bytes[i]);
  }
}

/* Whether text is a uuid; lower gets it in lower case. */
static bool read_uuid(const char *text, char lower[UUID_TEXT + 1]) {
  for (size_t at = 0; at < UUID_TEXT; at++) {
    bool dash = at == 8 || at == 13 || at == 18 || at == 23;
    unsigned char character = (unsigned char)text[at];
    if (dash ? character != '-' : !isxdigit(character)) return false;
    lower[at] = (char)tolower(character);
  }
  lower[UUID_TEXT] = '\0';
  return text[UUID_TEXT] == '\0';
}

static drowse_status count_devices(const struct driver *driver, int *count) {
  CUresult result = driver->DeviceGetCount(count);
  return result == CUDA_SUCCESS ? DROWSE_OK : dz_driver_error(driver, result, "cuDeviceGetCount");
}

static drowse_status open_ordinal(struct device *device, int ordinal) {
  int count, supported = 0;
  drowse_status status = count_devices(&device->driver, &count);
  if (status != DROWSE_OK) return status;
  if (ordinal >= count) return dz_error(DROWSE_ERR_NO_DEVICE, "there is no device cuda:%d: the driver has %d", ordinal, count);
  CUresult result = device->driver.DeviceGet(&device->ordinal, ordinal);
  if (result != CUDA_SUCCESS) return dz_driver_error(&device->driver, result, "cuDeviceGet of cuda:%d", ordinal);
  result =
      device->driver.DeviceGetAttribute(&supported, CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED, device->ordinal);
  if (result != CUDA_SUCCESS) return dz_driver_error(&device->driver, result, "cuDeviceGetAttribute of cuda:%d", ordinal);
  if (!supported) return dz_error(DROWSE_ERR_UNSUPPORTED, "cuda:%d has no virtual memory management", ordinal);
  return DROWSE_OK;
}

static drowse_status find_uuid(const struct driver *driver, const char *wanted, const char *text, int *ordinal) {
  int count;
  drowse_status status = count_devices(driver, &count);
  if (status != DROWSE_OK) return status;
  for (*ordinal = 0; *ordinal < count; ++*ordinal) {
    CUdevice device;
    CUuuid uuid;
    char there[UUID_TEXT + 1];
    if (driver->DeviceGet(&device, *ordinal) != CUDA_SUCCESS) continue;
    if (driver->DeviceGetUuid(&uuid, device) != CUDA_SUCCESS) continue;
    print_uuid(&uuid, there);
    if (strcmp(there, wanted) == 0) return DROWSE_OK;
  }
  return dz_error(DROWSE_ERR_NO_DEVICE, "there is no device %s among the driver's %d", text, count);
}

static drowse_status load_cuda(struct device *device) {
  const struct driver *driver;
  drowse_status status = dz_cuda_open(&driver);
  if (status != DROWSE_OK) return status;
  device->driver = *driver;
  device->host = false;
  return DROWSE_OK;
}

/* "0", "12"; not "", "+1", "01" or what no machine has. */
static bool read_ordinal(const char *text, int *ordinal) {
  size_t length = strlen(text);
  if (length == 0 || length > 4 || (text[0] == '0' && length > 1)) return false;
  *ordinal = 0;
  for (; *text != '\0'; text++) {
    if (!is_digit(*text)) return false;
    *ordinal = *ordinal * 10 + (*text - '0');
  }
  return true;
}

/* What stands behind "cuda:". */
static drowse_status open_cuda(struct device *device, const char *which, const char *text) {
  char uuid[UUID_TEXT + 1];
  int ordinal = 0;
  bool by_uuid = strncmp(which, "GPU-", 4) == 0 || strncmp(which, "MIG-", 4) == 0;
  if (by_uuid ? !read_uuid(which + 4, uuid) : !read_ordinal(which, &ordinal)) {
    return dz_error(DROWSE_ERR_INVALID, "\"%.80s\": behind \"cuda:\" comes a number, GPU-<uuid> or MIG-<uuid>", text);
  }
  drowse_status status = load_cuda(device);
  if (status == DROWSE_OK && by_uuid) status = find_uuid(&device->driver, uuid, text, &ordinal);
  if (status == DROWSE_OK) status = open_ordinal(device, ordinal);
  if (status != DROWSE_OK) return status;
  if (by_uuid) {
    (void)snprintf(device->name, sizeof device->name, "cuda:%.4s%s", which, uuid);
  } else {
    (void)snprintf(device->name, sizeof device->name, "cuda:%d", ordinal);
  }
  return DROWSE_OK;
}

/* ---- the host device */

/* In the largest unit that divides it. */
static void name_capacity(uint64_t capacity, char *name, size_t room) {
  static const char *const binary[] = {"", "KiB", "MiB", "GiB", "TiB"};
  size_t unit = 0;
  for (; unit + 1 < sizeof binary / sizeof *binary && capacity % 1024 == 0; unit++) capacity /= 1024;
  (void)snprintf(name, room, "host:%llu%s", (unsigned long long)capacity, binary[unit]);
}

/* What addresses allow; more could not be used. */
static const uint64_t capacity_most = UINT64_C(1) << 46;

static drowse_status read_capacity(const char *size, const char *text, uint64_t *capacity) {
  if (!dz_parse_bytes(size, capacity)) {
    return dz_error(DROWSE_ERR_INVALID, "\"%.80s\": \"%.40s\" is not a size: write 4GiB, 512MiB or bytes", text, size);
  }
  if (*capacity < UINT64_C(2) << 20) return dz_error(DROWSE_ERR_INVALID, "\"%.80s\": the host device needs at least 2MiB", text);
  if (*capacity > capacity_most) return dz_error(DROWSE_ERR_INVALID, "\"%.80s\": the host device has at most 64TiB", text);
  return DROWSE_OK;
}

/* size NULL: the default. */
static drowse_status open_host(struct device *device, const char *size, const char *text) {
  uint64_t capacity = 0;
  drowse_status status = size == NULL ? DROWSE_OK : read_capacity(size, text, &capacity);
  if (status != DROWSE_OK) return status;
  CUresult result = dz_host_start();
  if (result == CUDA_SUCCESS) result = dz_host_device(capacity, &device->ordinal);
  if (result != CUDA_SUCCESS) return dz_error(DROWSE_ERR_NO_HOST_MEMORY, "no memory for the host device");
  device->driver = dz_host_driver;
  device->host = true;
  if (size == NULL) {
    (void)snprintf(device->name, sizeof device->name, "host");
  } else {
    name_capacity(capacity, device->name, sizeof device->name);
  }
  return DROWSE_OK;
}

/* ---- names */

static drowse_status open_any(struct device *device, const char *text) {
  if (strcmp(text, "auto") == 0) {
    return open_cuda(device, "0", "cuda:0") == DROWSE_OK ? DROWSE_OK : open_host(device, NULL, text);
  }
  if (strcmp(text, "host") == 0) return open_host(device, NULL, text);
  if (strncmp(text, "host:", 5) == 0) return open_host(device, text + 5, text);
  if (strncmp(text, "cuda:", 5) == 0) return open_cuda(device, text + 5, text);
  return dz_error(DROWSE_ERR_INVALID,
                  "\"%.80s\" is not a device: write cuda:0, cuda:GPU-<uuid>, cuda:MIG-<uuid>, host, host:4GiB or auto", text);
}

drowse_status dz_device_open(struct device *device, const char *text) {
  *device = (struct device){.driver = dz_driver_unsupported};
  if (text == NULL || *text == '\0') return dz_error(DROWSE_ERR_INVALID, "the device's name is empty");
  return open_any(device, text);
}

/* ---- telling */

/* A slice's name says that it is one; nothing else does. */
static void describe_uuid(const struct device *device, drowse_device *description) {
  CUuuid uuid;
  char text[UUID_TEXT + 1];
  if (device->host || device->driver.DeviceGetUuid(&uuid, device->ordinal) != CUDA_SUCCESS) return;
  print_uuid(&uuid, text);
  const char *kind = strstr(description->name, " MIG ") != NULL ? "MIG" : "GPU";
  (void)snprintf(description->uuid, sizeof description->uuid, "%s-%s", kind, text);
}

drowse_status dz_device_describe(const struct device *device, drowse_device *description) {
  const struct driver *driver = &device->driver;
  const CUmemAllocationProp prop = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                    .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device->ordinal}};
  size_t total = 0, granularity = 0;
  *description = (drowse_device){.struct_size = sizeof *description};
  (void)snprintf(description->device, sizeof description->device, "%s", device->name);
  const char *call = "cuDeviceGetName";
  CUresult result = driver->DeviceGetName(description->name, (int)sizeof description->name, device->ordinal);
  if (result != CUDA_SUCCESS) goto failed;
  call = "cuDeviceTotalMem";
  result = driver->DeviceTotalMem(&total, device->ordinal);
  if (result != CUDA_SUCCESS) goto failed;
  call = "cuMemGetAllocationGranularity";
  result = driver->MemGetAllocationGranularity(&granularity, &prop, CU_MEM_ALLOC_GRANULARITY_MINIMUM);
  if (result != CUDA_SUCCESS) goto failed;
  call = "cuDriverGetVersion";
  if (!device->host) result = driver->DriverGetVersion(&description->driver_version);
  if (result != CUDA_SUCCESS) goto failed;
  describe_uuid(device, description);
  description->total_bytes = total;
  description->granularity = granularity;
  return DROWSE_OK;

failed:
  return dz_driver_error(driver, result, "%s of %s", call, device->name);
}

int dz_host_numa_node(const struct driver *driver, CUdevice device) {
  int node = -1;
  return driver->DeviceGetAttribute(&node, DZ_ATTRIBUTE_HOST_NUMA_ID, device) == CUDA_SUCCESS && node >= 0 ? node : -1;
}

drowse_status dz_device_count_cuda(int *count) {
  const struct driver *driver;
  *count = 0;
  if (!dz_cuda_present()) return DROWSE_OK;
  drowse_status status = dz_cuda_open(&driver);
  return status == DROWSE_OK ? count_devices(driver, count) : status;
}

/* One that cannot be opened is told with the reason, which is nobody's last failure. */
static drowse_device describe_name(const char *name) {
  struct device device;
  struct error before;
  drowse_device description;
  dz_error_save(&before);
  drowse_status status = dz_device_open(&device, name);
  if (status == DROWSE_OK) status = dz_device_describe(&device, &description);
  if (status == DROWSE_OK) return description;
  drowse_device unusable = {.struct_size = sizeof unusable};
  (void)snprintf(unusable.device, sizeof unusable.device, "%s", name);
  (void)snprintf(unusable.unusable, sizeof unusable.unusable, "%s", drowse_last_error());
  (void)dz_error_restore(&before);
  return unusable;
}

/* The driver's devices, or the driver's failure in place of them; true: each has had enough. */
static bool tell_cuda(int (*each)(void *context, const drowse_device *device), void *context) {
  int count;
  struct error before;
  dz_error_save(&before);
  if (dz_device_count_cuda(&count) != DROWSE_OK) {
    drowse_device driver = {.struct_size = sizeof driver, .device = "cuda"};
    (void)snprintf(driver.unusable, sizeof driver.unusable, "%s", drowse_last_error());
    (void)dz_error_restore(&before);
    return each(context, &driver) != 0;
  }
  for (int ordinal = 0; ordinal < count; ordinal++) {
    char name[24];
    (void)snprintf(name, sizeof name, "cuda:%d", ordinal);
    const drowse_device device = describe_name(name);
    if (each(context, &device) != 0) return true;
  }
  return false;
}

DROWSE_API drowse_status drowse_devices(int (*each)(void *context, const drowse_device *device), void *context) {
  if (each == NULL) return dz_error(DROWSE_ERR_INVALID, "drowse_devices: each is NULL");
  if (tell_cuda(each, context)) return DROWSE_OK;
  const drowse_device host = describe_name("host");
  (void)each(context, &host);
  return DROWSE_OK;
}
