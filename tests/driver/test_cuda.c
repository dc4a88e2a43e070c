/* SPDX-License-Identifier: Apache-2.0
 *
 * The real driver's table, filled from a libcuda.so.1 that is made for this (fake_libcuda.c). A process loads a driver once, and
 * the loader reads its path when a process begins, so each case is a process of its own: this program with a command, and with
 * what the loader and the fake look at in its environment. The case prints what it sees; the test compares.
 */
#include "fixture.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "driver/cuda_driver.h"

/* ---- the cases */

static size_t refused_bytes; /* memory of just this size is refused (--wrap) */

void *__real_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes) {
  return bytes == refused_bytes ? NULL : __real_malloc(bytes);
}

static int print_device(void *argument, const drowse_device *seen) {
  (void)argument;
  (void)printf("%s|%s|%s|%llu|%d|%s\n", seen->device, seen->name, seen->uuid, (unsigned long long)(seen->total_bytes / MIB),
               seen->driver_version, seen->unusable);
  return 0;
}

/* No assertions in here: the test framework does not run in these processes. */
static int case_list(const char *argument) {
  (void)argument;
  return drowse_devices(print_device, NULL) == DROWSE_OK ? 0 : 1;
}

static int case_open(const char *name) {
  struct device opened;
  drowse_status status = dz_device_open(&opened, name);
  (void)printf("%s %s %s\n", drowse_status_name(status), opened.name, status == DROWSE_OK ? "" : drowse_last_error());
  return 0;
}

static int case_no_memory(const char *name) {
  refused_bytes = sizeof(struct driver);
  (void)case_open(name);
  refused_bytes = 0;
  return case_open(name);
}

static int case_stream_id(const char *name) {
  unsigned long long id;
  if (dz_device_open(&device, name) != DROWSE_OK) return 1;
  (void)printf("%d\n", cu->StreamGetId(NULL, &id));
  return 0;
}

static int case_batch(const char *name) {
  if (dz_device_open(&device, name) != DROWSE_OK) return 1;
  (void)printf("%d\n", cu->MemcpyBatchAsync(NULL, NULL, NULL, 0, NULL, NULL, 0, NULL));
  return 0;
}

/* Memory, a stream and an event, through whatever was loaded. */
static int case_use(const char *name) {
  CUdeviceptr ptr;
  CUmemGenericAllocationHandle handle;
  CUstream stream;
  CUevent event;
  unsigned char out[64] = "";
  if (dz_device_open(&device, name) != DROWSE_OK) return 1;
  describe_memory();
  CUresult result = cu->DevicePrimaryCtxRetain(&context, device.ordinal);
  if (result == CUDA_SUCCESS) result = cu->CtxSetCurrent(context);
  if (result == CUDA_SUCCESS) result = cu->MemAddressReserve(&ptr, GRANULE, 0, 0, 0);
  if (result == CUDA_SUCCESS) result = cu->MemCreate(&handle, GRANULE, &prop, 0);
  if (result == CUDA_SUCCESS) result = cu->MemMap(ptr, GRANULE, 0, handle, 0);
  if (result == CUDA_SUCCESS) result = cu->MemSetAccess(ptr, GRANULE, &read_write, 1);
  if (result == CUDA_SUCCESS) result = cu->StreamCreate(&stream, CU_STREAM_NON_BLOCKING);
  if (result == CUDA_SUCCESS) result = cu->EventCreate(&event, CU_EVENT_DISABLE_TIMING);
  if (result == CUDA_SUCCESS) result = cu->MemsetD8Async(ptr, 42, GRANULE, stream);
  if (result == CUDA_SUCCESS) result = cu->EventRecord(event, stream);
  if (result == CUDA_SUCCESS) result = cu->EventSynchronize(event);
  if (result == CUDA_SUCCESS) result = cu->MemcpyDtoH(out, ptr, sizeof out);
  if (result == CUDA_SUCCESS) result = cu->MemUnmap(ptr, GRANULE);
  if (result == CUDA_SUCCESS) result = cu->MemRelease(handle);
  if (result == CUDA_SUCCESS) result = cu->MemAddressFree(ptr, GRANULE);
  if (result == CUDA_SUCCESS) result = cu->EventDestroy(event);
  if (result == CUDA_SUCCESS) result = cu->StreamDestroy(stream);
  if (result == CUDA_SUCCESS) result = cu->DevicePrimaryCtxRelease(device.ordinal);
  (void)printf("%d %d %s\n", result, out[63], device.name);
  return 0;
}

/* Opens in a child: after the parent did (name), or not. */
static int case_fork(const char *name) {
  struct device opened;
  int status = 0;
  if (strcmp(name, "first") != 0) (void)dz_device_open(&opened, name);
  (void)fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    (void)case_open("cuda:0");
    (void)case_open("host:64MiB");
    (void)fflush(stdout);
    _exit(0);
  }
  return waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

static void *open_table(void *argument) {
  return dz_cuda_open(argument) == DROWSE_OK ? argument : NULL;
}

static int case_race(const char *name) {
  enum { THREADS = 8 };
  pthread_t threads[THREADS];
  const struct driver *tables[THREADS], *table = NULL;
  unsigned failed = 0;
  (void)name;
  for (unsigned i = 0; i < THREADS; i++) {
    if (pthread_create(&threads[i], NULL, open_table, &tables[i]) != 0) return 1;
  }
  for (unsigned i = 0; i < THREADS; i++) {
    void *opened = NULL;
    (void)pthread_join(threads[i], &opened);
    failed += opened == NULL;
  }
  if (dz_cuda_open(&table) != DROWSE_OK) return 1;
  for (unsigned i = 0; i < THREADS; i++) failed += tables[i] != table;
  (void)printf("%u\n", failed);
  return 0;
}

/* The program has a driver of its own, from a path that the loader does not know. */
static int case_loaded_before(const char *path) {
  if (dlopen(path, RTLD_NOW | RTLD_LOCAL) == NULL) return 1;
  return case_open("cuda:0");
}

static const struct {
  const char *name;
  int (*run)(const char *argument);
} cases[] = {
    {"list", case_list},           {"open", case_open}, {"stream-id", case_stream_id}, {"use", case_use},
    {"batch", case_batch},         {"fork", case_fork}, {"race", case_race},           {"loaded-before", case_loaded_before},
    {"no-memory", case_no_memory},
};

static int run_case(const char *name, const char *argument) {
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    if (strcmp(cases[i].name, name) == 0) return cases[i].run(argument);
  }
  return 2;
}

/* ---- running one */

static char output[4096];
static char self[4096]; /* this program's path: read, since a tool that runs it may be what /proc/self/exe opens */

static _Noreturn void become_case(const char *name, const char *argument, const char *library, const char *const *environment,
                                  int out) {
  (void)unsetenv("DROWSE_TEST_DEVICE");
  if (library != NULL) {
    (void)setenv("LD_LIBRARY_PATH", library, 1);
  } else {
    (void)unsetenv("LD_LIBRARY_PATH");
  }
  for (; environment != NULL && *environment != NULL; environment += 2) (void)setenv(environment[0], environment[1], 1);
  (void)dup2(out, STDOUT_FILENO);
  (void)execl(self, "test_cuda", name, argument, (char *)NULL);
  _exit(127);
}

/* What a case prints. library: where the loader looks for libcuda.so.1; environment: names and values in turn, NULL at the end.
 */
static const char *run(const char *name, const char *argument, const char *library, const char *const *environment) {
  int ends[2], status = 0;
  size_t length = 0;
  ck_assert_int_eq(pipe(ends), 0);
  pid_t child = fork();
  ck_assert_int_ge(child, 0);
  if (child == 0) become_case(name, argument, library, environment, ends[1]);
  (void)close(ends[1]);
  for (ssize_t got; (got = read(ends[0], output + length, sizeof output - 1 - length)) > 0;) length += (size_t)got;
  output[length] = '\0';
  (void)close(ends[0]);
  ck_assert_int_eq(waitpid(child, &status, 0), child);
  ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s %s: status %x: %s", name, argument, status, output);
  return output;
}

static const char cuda_13[] = FAKE_DIR "13", cuda_12[] = FAKE_DIR "12", cuda_11[] = FAKE_DIR "11", cuda_10[] = FAKE_DIR "10";

#define ENVIRONMENT(...) ((const char *const[]){__VA_ARGS__, NULL})

static void has(const char *text, const char *wanted) {
  ck_assert_msg(strstr(text, wanted) != NULL, "\"%s\" is not in: %s", wanted, text);
}

static void lacks(const char *text, const char *unwanted) {
  ck_assert_msg(strstr(text, unwanted) == NULL, "\"%s\" is in: %s", unwanted, text);
}

/* ---- tests */

START_TEST(a_driver_is_found_and_used) {
  ck_assert_str_eq(run("open", "cuda:0", cuda_12, NULL), "DROWSE_OK cuda:0 \n");
  ck_assert_str_eq(run("use", "cuda:0", cuda_12, NULL), "0 42 cuda:0\n");
  ck_assert_str_eq(run("use", "cuda:1", cuda_12, ENVIRONMENT("DROWSE_FAKE_DEVICES", "64MiB,32MiB")), "0 42 cuda:1\n");
  ck_assert_str_eq(run("use", "cuda:0", cuda_11, NULL), "0 42 cuda:0\n"); /* by the older cuGetProcAddress */
}
END_TEST

START_TEST(all_that_a_driver_lacks_is_named_at_once) {
  const char *text =
      run("open", "cuda:0", cuda_12, ENVIRONMENT("DROWSE_FAKE_MISSING", "cuMemCreate,cuMemMap,cuStreamGetId,cuEventQuery"));
  ck_assert_str_eq(text, "DROWSE_ERR_NO_DEVICE  libcuda.so.1 is too old: it lacks cuMemCreate, cuMemMap, cuEventQuery\n");
  text = run("open", "cuda:0", cuda_11, ENVIRONMENT("DROWSE_FAKE_MISSING", "cuMemCreate,cuMemMap"));
  ck_assert_str_eq(text, "DROWSE_ERR_NO_DEVICE  libcuda.so.1 is too old: it lacks cuMemCreate, cuMemMap\n");
  text = run("open", "cuda:0", cuda_10, NULL);
  has(text, "DROWSE_ERR_NO_DEVICE");
  has(text, "it lacks cuGetProcAddress");
}
END_TEST

/* Everything: more names than an error has room for. */
START_TEST(a_long_list_of_missing_names_is_counted) {
  static const char names[] =
#define NAME(name, version, need, parameters) "cu" #name ","
      DZ_DRIVER_ENTRIES(NAME);
#undef NAME
  const char *text = run("open", "cuda:0", cuda_12, ENVIRONMENT("DROWSE_FAKE_MISSING", names));
  has(text, "it lacks cuInit, cuDriverGetVersion, ");
  has(text, " more\n");
}
END_TEST

START_TEST(optional_entries_answer_that_they_are_not_there) {
  ck_assert_str_eq(run("stream-id", "cuda:0", cuda_12, ENVIRONMENT("DROWSE_FAKE_MISSING", "cuStreamGetId")), "801\n");
  ck_assert_str_eq(run("stream-id", "cuda:0", cuda_12, NULL), "201\n"); /* there, and without a context */
}
END_TEST

/* The one of 12.8 goes by the same name and takes other arguments. */
START_TEST(an_entry_of_an_older_form_is_not_called) {
  ck_assert_str_eq(run("batch", "cuda:0", cuda_12, NULL), "801\n");
  ck_assert_str_eq(run("batch", "cuda:0", cuda_13, NULL), "1\n"); /* there, and without arguments */
}
END_TEST

START_TEST(a_driver_that_does_not_start_says_why) {
  const char *text = run("open", "cuda:0", cuda_12, ENVIRONMENT("DROWSE_FAKE_INIT", "100"));
  ck_assert_str_eq(text, "DROWSE_ERR_NO_DEVICE  cuInit failed: CUDA_ERROR_NO_DEVICE (there is no device)\n");
  text = run("open", "cuda:0", cuda_12, ENVIRONMENT("DROWSE_FAKE_INIT", "803"));
  ck_assert_str_eq(text, "DROWSE_ERR_NO_DEVICE  cuInit failed: error 803 (the driver has no words for it)\n");
  text = run("open", "cuda:0", cuda_12, ENVIRONMENT("DROWSE_FAKE_DEVICES", ""));
  has(text, "DROWSE_ERR_NO_DEVICE  cuInit failed: CUDA_ERROR_NO_DEVICE");
}
END_TEST

START_TEST(devices_that_are_not_there) {
  const char *text = run("open", "cuda:2", cuda_12, ENVIRONMENT("DROWSE_FAKE_DEVICES", "1GiB,1GiB"));
  ck_assert_str_eq(text, "DROWSE_ERR_NO_DEVICE  there is no device cuda:2: the driver has 2\n");
  text = run("open", "cuda:GPU-facade00-0000-4000-8000-000000000009", cuda_12, NULL);
  has(text, "DROWSE_ERR_NO_DEVICE  there is no device cuda:GPU-facade00-0000-4000-8000-000000000009 among the driver's 1");
  text = run("open", "cuda:0", cuda_12, ENVIRONMENT("DROWSE_FAKE_NO_VMM", "1"));
  ck_assert_str_eq(text, "DROWSE_ERR_UNSUPPORTED  cuda:0 has no virtual memory management\n");
}
END_TEST

START_TEST(devices_by_uuid) {
  const char *const *two = ENVIRONMENT("DROWSE_FAKE_DEVICES", "1GiB,2GiB");
  ck_assert_str_eq(run("use", "cuda:GPU-FACADE00-0000-4000-8000-000000000001", cuda_12, two),
                   "0 42 cuda:GPU-facade00-0000-4000-8000-000000000001\n");
  ck_assert_str_eq(run("open", "cuda:MIG-facade00-0000-4000-8000-000000000000", cuda_12, two),
                   "DROWSE_OK cuda:MIG-facade00-0000-4000-8000-000000000000 \n");
}
END_TEST

START_TEST(all_devices_are_listed) {
  const char *text = run("list", "", cuda_12, ENVIRONMENT("DROWSE_FAKE_DEVICES", "4GiB,512MiB"));
  has(text, "cuda:0|Fake GPU 0|GPU-facade00-0000-4000-8000-000000000000|4096|12040|\n"
            "cuda:1|Fake GPU 1|GPU-facade00-0000-4000-8000-000000000001|512|12040|\n"
            "host|drowse host device||");
  text = run("list", "", cuda_11, ENVIRONMENT("DROWSE_FAKE_DEVICES", "1GiB", "DROWSE_FAKE_MIG", "1"));
  has(text, "cuda:0|Fake GPU 0 MIG 1g.10gb|MIG-facade00-0000-4000-8000-000000000000|1024|11040|\nhost|");
  text = run("list", "", cuda_12, ENVIRONMENT("DROWSE_FAKE_NO_VMM", "1"));
  has(text, "cuda:0|||0|0|cuda:0 has no virtual memory management\nhost|");
  text = run("list", "", cuda_12, ENVIRONMENT("DROWSE_FAKE_INIT", "100"));
  has(text, "cuda|||0|0|cuInit failed: CUDA_ERROR_NO_DEVICE (there is no device)\nhost|");
  text = run("list", "", cuda_10, NULL);
  has(text, "cuda|||0|0|libcuda.so.1 is too old: ");
}
END_TEST

START_TEST(auto_prefers_the_driver) {
  ck_assert_str_eq(run("open", "auto", cuda_12, NULL), "DROWSE_OK cuda:0 \n");
  ck_assert_str_eq(run("open", "auto", cuda_12, ENVIRONMENT("DROWSE_FAKE_INIT", "100")), "DROWSE_OK host \n");
  ck_assert_str_eq(run("open", "auto", cuda_10, NULL), "DROWSE_OK host \n");
}
END_TEST

START_TEST(a_child_of_a_process_that_used_the_driver_cannot) {
  const char *text = run("fork", "cuda:0", cuda_12, NULL);
  has(text, "DROWSE_ERR_FORKED  cuInit in a forked child of a process that had called it failed: CUDA_ERROR_NOT_INITIALIZED");
  has(text, "\nDROWSE_OK host:64MiB \n");
  text = run("fork", "first", cuda_12, NULL);
  ck_assert_str_eq(text, "DROWSE_OK cuda:0 \nDROWSE_OK host:64MiB \n");
}
END_TEST

/* All eight of them fill a table before any of them is done: one is everybody's. */
START_TEST(threads_may_open_at_once) {
  ck_assert_str_eq(run("race", "", cuda_12, ENVIRONMENT("DROWSE_FAKE_MEET", "8")), "0\n");
}
END_TEST

START_TEST(without_memory_for_its_table_a_driver_is_tried_again) {
  ck_assert_str_eq(run("no-memory", "cuda:0", cuda_12, NULL),
                   "DROWSE_ERR_NO_HOST_MEMORY  no memory for the CUDA driver's table\nDROWSE_OK cuda:0 \n");
}
END_TEST

START_TEST(a_driver_that_is_loaded_already_is_used) {
  ck_assert_str_eq(run("loaded-before", FAKE_DIR "12/libcuda.so.1", NULL, NULL), "DROWSE_OK cuda:0 \n");
}
END_TEST

/* Where a machine has a driver of its own, the loader would find that one: nothing to see then. */
START_TEST(a_machine_without_a_driver_has_the_host_device) {
  void *real = dlopen("libcuda.so.1", RTLD_LAZY);
  if (real != NULL) {
    (void)dlclose(real);
    return;
  }
  has(run("open", "cuda:0", NULL, NULL), "DROWSE_ERR_NO_DEVICE  no CUDA driver: libcuda.so.1");
  const char *text = run("list", "", NULL, NULL);
  ck_assert_ptr_eq(strstr(text, "host|drowse host device||"), text);
  lacks(text, "cuda");
  ck_assert_str_eq(run("open", "auto", NULL, NULL), "DROWSE_OK host \n");
}
END_TEST

int main(int argc, char **argv) {
  if (argc == 3) return run_case(argv[1], argv[2]);
  if (readlink("/proc/self/exe", self, sizeof self - 1) < 0) return EXIT_FAILURE;
  Suite *suite = suite_create("cuda");
  HARNESS_TEST(suite, a_driver_is_found_and_used);
  HARNESS_TEST(suite, all_that_a_driver_lacks_is_named_at_once);
  HARNESS_TEST(suite, a_long_list_of_missing_names_is_counted);
  HARNESS_TEST(suite, optional_entries_answer_that_they_are_not_there);
  HARNESS_TEST(suite, an_entry_of_an_older_form_is_not_called);
  HARNESS_TEST(suite, a_driver_that_does_not_start_says_why);
  HARNESS_TEST(suite, devices_that_are_not_there);
  HARNESS_TEST(suite, devices_by_uuid);
  HARNESS_TEST(suite, all_devices_are_listed);
  HARNESS_TEST(suite, auto_prefers_the_driver);
  HARNESS_TEST(suite, a_child_of_a_process_that_used_the_driver_cannot);
  HARNESS_TEST(suite, threads_may_open_at_once);
  HARNESS_TEST(suite, without_memory_for_its_table_a_driver_is_tried_again);
  HARNESS_TEST(suite, a_driver_that_is_loaded_already_is_used);
  HARNESS_TEST(suite, a_machine_without_a_driver_has_the_host_device);
  return harness_run(suite);
}
