/* SPDX-License-Identifier: Apache-2.0
 *
 * Names of devices, and sizes.
 */
#include "fixture.h"

#include <stdio.h>

/* ---- sizes */

static void parses(const char *text, uint64_t expected) {
  uint64_t bytes = 4711;
  ck_assert_msg(dz_parse_bytes(text, &bytes), "\"%s\" is a size", text);
  ck_assert_msg(bytes == expected, "\"%s\" is %llu", text, (unsigned long long)bytes);
}

static void does_not_parse(const char *text) {
  uint64_t bytes = 4711;
  ck_assert_msg(!dz_parse_bytes(text, &bytes), "\"%s\" is no size, not %llu", text, (unsigned long long)bytes);
  ck_assert_uint_eq(bytes, 4711);
}

START_TEST(sizes_are_exact) {
  parses("0", 0);
  parses("0.000000000000000000000000G", 0);
  parses("1048576", 1048576);
  parses("17B", 17);
  parses("4GiB", UINT64_C(4) << 30);
  parses("4G", UINT64_C(4) << 30);
  parses("512MiB", UINT64_C(512) << 20);
  parses("512M", UINT64_C(512) << 20);
  parses("3KiB", 3072);
  parses("3K", 3072);
  parses("2TiB", UINT64_C(2) << 40);
  parses("2T", UINT64_C(2) << 40);
  parses("2GB", UINT64_C(2000000000));
  parses("5MB", 5000000);
  parses("7KB", 7000);
  parses("7kB", 7000);
  parses("1TB", UINT64_C(1000000000000));
  parses("1.5GiB", UINT64_C(3) << 29);
  parses("1.500GiB", UINT64_C(3) << 29);
  parses("0.5K", 512);
  parses("1.0", 1);
  parses("2.25kB", 2250);
  parses("18446744073709551615", UINT64_MAX);
  parses("16777215TiB", UINT64_C(16777215) << 40);
  parses("16777215.5TiB", (UINT64_C(16777215) << 40) + (UINT64_C(1) << 39));
  parses("18446744.073709551615TB", UINT64_MAX);
}
END_TEST

START_TEST(what_is_no_size_is_refused) {
  static const char *const bad[] = {
      "",
      "GiB",
      "-1",
      "+1",
      " 1",
      "1 ",
      "1 GiB",
      "4gib",
      "4g",
      "4GIB",
      "4GiBs",
      "0x10",
      "1e3",
      ".5GiB",
      "1.GiB",
      "1..5GiB",
      "1.5.5GiB",
      "4Gi",
      "4PiB",
      "1.5",
      "0.1KiB",
      "0.3B",
      "1,5G",
      "\t1",
      "4\xc2\xb5",
      "4GiB\n",
      "inf",
      "nan",
      "one",
      "1.0000000001G",
      "18446744073709551616",
      "16777216TiB",
      "18446744.073709551616TB",
      "99999999999999999999999999",
      "16384P",
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) does_not_parse(bad[i]);
}
END_TEST

/* ---- names */

START_TEST(host_devices_open) {
  static const struct {
    const char *name, *canonical;
    uint64_t capacity; /* 0: the default */
  } good[] = {
      {"host", "host", 0},
      {"host:4GiB", "host:4GiB", UINT64_C(4) << 30},
      {"host:4G", "host:4GiB", UINT64_C(4) << 30},
      {"host:4096MiB", "host:4GiB", UINT64_C(4) << 30},
      {"host:1.5GiB", "host:1536MiB", UINT64_C(3) << 29},
      {"host:2097152", "host:2MiB", UINT64_C(2) << 20},
      {"host:3000000", "host:3000000", 3000000},
      {"host:64TiB", "host:64TiB", UINT64_C(64) << 40},
  };
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
    struct device opened;
    drowse_device description;
    ck_ok(dz_device_open(&opened, good[i].name));
    ck_assert_str_eq(opened.name, good[i].canonical);
    ck_assert(opened.host);
    ck_ok(dz_device_describe(&opened, &description));
    ck_assert_str_eq(description.device, good[i].canonical);
    ck_assert_str_eq(description.name, "drowse host device");
    ck_assert_str_eq(description.uuid, "");
    ck_assert_str_eq(description.unusable, "");
    ck_assert_uint_eq(description.granularity, GRANULE);
    ck_assert_int_eq(description.driver_version, 0);
    if (good[i].capacity != 0) ck_assert_uint_eq(description.total_bytes, good[i].capacity);
    if (good[i].capacity == 0) ck_assert_uint_ge(description.total_bytes, GRANULE);
  }
}
END_TEST

START_TEST(bad_names_are_refused_with_the_culprit) {
  static const struct {
    const char *name, *culprit;
  } bad[] = {
      {"gpu", "\"gpu\""},
      {"cuda", "\"cuda\""},
      {"HOST", "\"HOST\""},
      {"host ", "\"host \""},
      {" host", "\" host\""},
      {"hosts", "\"hosts\""},
      {"autom", "\"autom\""},
      {"cuda:", "\"cuda:\""},
      {"cuda:-1", "\"cuda:-1\""},
      {"cuda:+1", "\"cuda:+1\""},
      {"cuda:01", "\"cuda:01\""},
      {"cuda:0x1", "\"cuda:0x1\""},
      {"cuda:1 ", "\"cuda:1 \""},
      {"cuda:99999", "\"cuda:99999\""},
      {"cuda:4294967296", "\"cuda:4294967296\""},
      {"cuda:GPU-", "\"cuda:GPU-\""},
      {"cuda:GPU-b2873856-fbcc-85eb-add2", "\"cuda:GPU-b2873856-fbcc-85eb-add2\""},
      {"cuda:GPU-b2873856-fbcc-85eb-add2-bbb9b1e39e6g", "e39e6g"},
      {"cuda:GPU-b2873856-fbcc-85eb-add2-bbb9b1e39e671", "e39e671"},
      {"cuda:GPU-b2873856xfbcc-85eb-add2-bbb9b1e39e67", "b2873856xfbcc"},
      {"cuda:gpu-b2873856-fbcc-85eb-add2-bbb9b1e39e67", "cuda:gpu-"},
      {"cuda:UUID-b2873856-fbcc-85eb-add2-bbb9b1e39e67", "cuda:UUID-"},
      {"host:", "\"\" is not a size"},
      {"host:many", "\"many\" is not a size"},
      {"host:4 GiB", "\"4 GiB\" is not a size"},
      {"host:-4GiB", "\"-4GiB\" is not a size"},
      {"host:99999999TiB", "\"99999999TiB\" is not a size"},
      {"host:0", "at least 2MiB"},
      {"host:1MiB", "at least 2MiB"},
      {"host:65TiB", "at most 64TiB"},
  };
  struct device opened;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    ck_status(dz_device_open(&opened, bad[i].name), DROWSE_ERR_INVALID);
    ck_assert_msg(strstr(drowse_last_error(), bad[i].culprit) != NULL, "%s: %s", bad[i].name, drowse_last_error());
  }
  ck_status(dz_device_open(&opened, NULL), DROWSE_ERR_INVALID);
  ck_status(dz_device_open(&opened, ""), DROWSE_ERR_INVALID);
  ck_assert_str_eq(drowse_last_error(), "the device's name is empty");
  ck_assert_int_eq(opened.driver.Init(0), CUDA_ERROR_NOT_SUPPORTED); /* no entry is NULL */
}
END_TEST

START_TEST(very_long_names_are_cut_in_the_message) {
  struct device opened;
  char name[4096];
  memset(name, 'x', sizeof name);
  name[sizeof name - 1] = '\0';
  ck_status(dz_device_open(&opened, name), DROWSE_ERR_INVALID);
  memcpy(name, "host:", 5);
  ck_status(dz_device_open(&opened, name), DROWSE_ERR_INVALID);
  memcpy(name, "cuda:", 5);
  ck_status(dz_device_open(&opened, name), DROWSE_ERR_INVALID);
  ck_assert_uint_lt(strlen(drowse_last_error()), 256);
}
END_TEST

/* ---- the public list */

struct seen {
  unsigned count, stop_at;
  drowse_device last;
};

static int see(void *argument, const drowse_device *device_seen) {
  struct seen *seen = argument;
  seen->last = *device_seen;
  return ++seen->count == seen->stop_at;
}

START_TEST(the_host_device_is_listed_last) {
  struct seen seen = {0};
  ck_ok(drowse_devices(see, &seen));
  ck_assert_uint_ge(seen.count, 1);
  ck_assert_str_eq(seen.last.device, "host");
  ck_assert_uint_eq(seen.last.struct_size, sizeof(drowse_device));
  ck_assert_str_eq(seen.last.unusable, "");
  ck_status(drowse_devices(NULL, NULL), DROWSE_ERR_INVALID);
}
END_TEST

/* ---- errors of a driver in words */

static CUresult no_words(CUresult error, const char **name) {
  (void)error;
  *name = NULL;
  return CUDA_ERROR_INVALID_VALUE;
}

START_TEST(driver_errors_become_statuses) {
  static const struct {
    int code;
    drowse_status status;
  } rows[] = {
      {CUDA_ERROR_INVALID_VALUE, DROWSE_ERR_DRIVER},
      {CUDA_ERROR_OUT_OF_MEMORY, DROWSE_ERR_NO_DEVICE_MEMORY},
      {CUDA_ERROR_NOT_INITIALIZED, DROWSE_ERR_FORKED},
      {CUDA_ERROR_ILLEGAL_ADDRESS, DROWSE_ERR_DEVICE_LOST},
      {CUDA_ERROR_ECC_UNCORRECTABLE, DROWSE_ERR_DEVICE_LOST},
      {CUDA_ERROR_LAUNCH_FAILED, DROWSE_ERR_DEVICE_LOST},
      {CUDA_ERROR_ASSERT, DROWSE_ERR_DEVICE_LOST},
      {CUDA_ERROR_MISALIGNED_ADDRESS, DROWSE_ERR_DEVICE_LOST},
      {CUDA_ERROR_CONTEXT_IS_DESTROYED, DROWSE_ERR_DEVICE_LOST},
      {CUDA_ERROR_NOT_SUPPORTED, DROWSE_ERR_DRIVER},
      {CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, DROWSE_ERR_DRIVER},
      {31337, DROWSE_ERR_DRIVER},
  };
  drowse_error error = {.struct_size = sizeof error};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    ck_status(dz_driver_error(&dz_host_driver, (CUresult)rows[i].code, "cuMemMap of %d bytes", 7), rows[i].status);
    ck_assert_ptr_eq(strstr(drowse_last_error(), "cuMemMap of 7 bytes failed: "), drowse_last_error());
    ck_ok(drowse_error_get(&error));
    ck_assert_int_eq(error.driver_code, rows[i].code);
    ck_assert_int_eq(error.status, rows[i].status);
  }
  (void)dz_driver_error(&dz_host_driver, CUDA_ERROR_OUT_OF_MEMORY, "cuMemCreate");
  ck_assert_str_eq(drowse_last_error(), "cuMemCreate failed: CUDA_ERROR_OUT_OF_MEMORY (out of memory)");
  struct driver mute = dz_driver_unsupported;
  mute.GetErrorName = no_words;
  (void)dz_driver_error(&mute, CUDA_ERROR_OUT_OF_MEMORY, "cuMemCreate");
  ck_assert_str_eq(drowse_last_error(), "cuMemCreate failed: error 2 (the driver has no words for it)");
}
END_TEST

static int node_told;

static CUresult tell_node(int *value, CUdevice_attribute attribute, CUdevice asked) {
  ck_assert_int_eq(attribute, 134);
  ck_assert_int_eq(asked, 5);
  *value = node_told;
  return CUDA_SUCCESS;
}

START_TEST(a_node_is_what_the_driver_says_or_none) {
  struct driver driver = dz_driver_unsupported;
  ck_assert_int_eq(dz_host_numa_node(&driver, 5), -1);
  driver.DeviceGetAttribute = tell_node;
  for (node_told = -2; node_told < 3; node_told++)
    ck_assert_int_eq(dz_host_numa_node(&driver, 5), node_told < 0 ? -1 : node_told);
  ck_ok(dz_device_open(&device, "host"));
  ck_assert_int_eq(dz_host_numa_node(&device.driver, device.ordinal), -1);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("device");
  HARNESS_TEST(suite, sizes_are_exact);
  HARNESS_TEST(suite, what_is_no_size_is_refused);
  HARNESS_TEST(suite, host_devices_open);
  HARNESS_TEST(suite, bad_names_are_refused_with_the_culprit);
  HARNESS_TEST(suite, very_long_names_are_cut_in_the_message);
  HARNESS_TEST(suite, the_host_device_is_listed_last);
  HARNESS_TEST(suite, driver_errors_become_statuses);
  HARNESS_TEST(suite, a_node_is_what_the_driver_says_or_none);
  return harness_run(suite);
}
