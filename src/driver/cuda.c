/* SPDX-License-Identifier: Apache-2.0
 *
 * The real driver. It is looked for when a device of it is first asked for, so drowse installs and runs on machines without one.
 *
 * The table is made once a process and then never changes. Threads that come at the same time may each make one: the first wins.
 * So there is no lock that a fork could leave behind locked.
 */
#include "driver/cuda_driver.h"

#include <dlfcn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"

static _Atomic(const struct driver *) loaded;

/* ---- finding entries */

/* cuGetProcAddress in its form of 12.0, or that of 11.3. */
struct resolver {
  CUresult (*find)(const char *name, void **entry, int version, cuuint64_t flags, CUdriverProcAddressQueryResult *why);
  CUresult (*find_11)(const char *name, void **entry, int version, cuuint64_t flags);
};

/* The signatures in the table are those without the suffix for per-thread default streams: a stream NULL is the legacy one,
 * however the program at hand was compiled. */
static void *find(const struct resolver *resolver, const char *name, int version) {
  void *entry = NULL;
  CUdriverProcAddressQueryResult why = CU_GET_PROC_ADDRESS_SUCCESS;
  const cuuint64_t flags = CU_GET_PROC_ADDRESS_LEGACY_STREAM;
  CUresult result = resolver->find != NULL ? resolver->find(name, &entry, version, flags, &why)
                                           : resolver->find_11(name, &entry, version, flags);
  return result == CUDA_SUCCESS && why == CU_GET_PROC_ADDRESS_SUCCESS ? entry : NULL;
}

static bool find_resolver(void *library, struct resolver *resolver) {
  *resolver = (struct resolver){NULL, NULL};
  void *entry = dlsym(library, "cuGetProcAddress_v2");
  if (entry != NULL) {
    memcpy(&resolver->find, &entry, sizeof entry); /* ISO C has no cast from an object's address to a function's */
    return true;
  }
  entry = dlsym(library, "cuGetProcAddress");
  memcpy(&resolver->find_11, &entry, sizeof entry);
  return entry != NULL;
}

/* ---- filling a table */

enum need { NEEDED, OPTIONAL };

struct entry {
  const char *name;
  int version;
  enum need need;
  size_t offset; /* in struct driver */
};

static const struct entry entries[] = {
#define ENTRY(name, version, need, parameters) {"cu" #name, version, need, offsetof(struct driver, name)},
    DZ_DRIVER_ENTRIES(ENTRY)
#undef ENTRY
};

/* Adds a name to a list of those that are missing; what does not fit is counted. */
struct missing {
  char names[384];
  size_t length;
  unsigned more;
};

static void add_missing(struct missing *missing, const char *name) {
  size_t room = sizeof missing->names - missing->length;
  int length = snprintf(missing->names + missing->length, room, "%s%s", missing->length == 0 ? "" : ", ", name);
  if (length > 0 && (size_t)length < room) {
    missing->length += (size_t)length;
  } else {
    missing->names[missing->length] = '\0';
    missing->more++;
  }
}

static drowse_status report_missing(const struct missing *missing) {
  if (missing->more == 0) return dz_error(DROWSE_ERR_NO_DEVICE, "libcuda.so.1 is too old: it lacks %s", missing->names);
  return dz_error(DROWSE_ERR_NO_DEVICE, "libcuda.so.1 is too old: it lacks %s and %u more", missing->names, missing->more);
}

static int version_of(const struct resolver *resolver) {
  CUresult (*get)(int *version) = NULL;
  void *entry = find(resolver, "cuDriverGetVersion", 2020);
  int version = 0;
  memcpy(&get, &entry, sizeof entry);
  return entry != NULL && get(&version) == CUDA_SUCCESS ? version : 0;
}

/* A driver that is older than a form of an entry may have another form of it under the same name, and would give that. */
static drowse_status fill(struct driver *driver, const struct resolver *resolver) {
  struct missing missing = {.length = 0};
  int version = version_of(resolver);
  *driver = dz_driver_unsupported;
  for (size_t i = 0; i < sizeof entries / sizeof *entries; i++) {
    bool too_new = entries[i].need == OPTIONAL && entries[i].version > version;
    void *entry = too_new ? NULL : find(resolver, entries[i].name, entries[i].version);
    if (entry != NULL) {
      memcpy((char *)driver + entries[i].offset, &entry, sizeof entry);
    } else if (entries[i].need == NEEDED) {
      add_missing(&missing, entries[i].name);
    }
  }
  return missing.length == 0 ? DROWSE_OK : report_missing(&missing);
}

/* ---- loading */

/* One that the program has loaded already, from wherever, is this one: the loader goes by its name. It stays loaded for good: a
 * driver does not survive its own unloading. NULL: there is none, and dlerror() says why. */
static void *open_library(void) {
  return dlopen("libcuda.so.1", RTLD_NOW);
}

static drowse_status load(const struct driver **driver) {
  struct resolver resolver;
  void *library = open_library();
  if (library == NULL) {
    const char *reason = dlerror();
    return dz_error(DROWSE_ERR_NO_DEVICE, "no CUDA driver: %s", reason == NULL ? "libcuda.so.1 cannot be loaded" : reason);
  }
  if (!find_resolver(library, &resolver)) {
    return dz_error(DROWSE_ERR_NO_DEVICE, "libcuda.so.1 is too old: it lacks cuGetProcAddress (CUDA 11.3 has it)");
  }
  struct driver *made = malloc(sizeof *made);
  if (made == NULL) return dz_error(DROWSE_ERR_NO_HOST_MEMORY, "no memory for the CUDA driver's table");
  drowse_status status = fill(made, &resolver);
  if (status != DROWSE_OK) {
    free(made);
    return status;
  }
  const struct driver *there = NULL;
  if (atomic_compare_exchange_strong(&loaded, &there, made)) {
    there = made;
  } else {
    free(made);
  }
  *driver = there;
  return DROWSE_OK;
}

bool dz_cuda_present(void) {
  return atomic_load(&loaded) != NULL || open_library() != NULL;
}

drowse_status dz_cuda_open(const struct driver **driver) {
  *driver = atomic_load(&loaded);
  if (*driver == NULL) {
    drowse_status status = load(driver);
    if (status != DROWSE_OK) return status;
  }
  CUresult result = (*driver)->Init(0);
  if (result == CUDA_SUCCESS) return DROWSE_OK;
  if (result == CUDA_ERROR_NOT_INITIALIZED) {
    return dz_driver_error(*driver, result, "cuInit in a forked child of a process that had called it");
  }
  return dz_driver_error_as(DROWSE_ERR_NO_DEVICE, *driver, result, "cuInit");
}
