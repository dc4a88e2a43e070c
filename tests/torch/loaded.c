/* SPDX-License-Identifier: Apache-2.0
 *
 * libdrowse-torch as PyTorch gets it: opened at run time in a program that has libdrowse already, its functions looked up by
 * name. Scopes that the program enters count there. The process ends while a tag sleeps, and a handler frees of its memory then.
 */
#include "drowse-torch.h"

#include <dlfcn.h>
#include <string.h>

#include "gpu/expect.h"

enum { BYTES = 1 << 20, DEVICE = 0 };

/* The heap is not closed, so what it has is left at the end. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void) {
  return "report_thread_leaks=0";
}

static void *ptr;
static __typeof__(drowse_torch_malloc) *torch_malloc;
static __typeof__(drowse_torch_free) *torch_free;
static __typeof__(drowse_torch_heap) *torch_heap;

static void free_at_exit(void) {
  torch_free(ptr, BYTES, DEVICE, NULL);
}

static void *look_up(void *library, const char *name) {
  void *function = dlsym(library, name);
  if (function == NULL) printf("FAILED: %s\n", dlerror());
  EXPECT(function != NULL);
  return function;
}

static void load(void) {
  char path[4096];
  (void)snprintf(path, sizeof path, "%s/.libs/libdrowse-torch.so", getenv("top_builddir"));
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == NULL) printf("FAILED: %s\n", dlerror());
  EXPECT(library != NULL);
  torch_malloc = (__typeof__(torch_malloc))look_up(library, "drowse_torch_malloc");
  torch_free = (__typeof__(torch_free))look_up(library, "drowse_torch_free");
  torch_heap = (__typeof__(torch_heap))look_up(library, "drowse_torch_heap");
}

static void sleep_and_wake(void) {
  char text[] = "slept well", again[sizeof text] = "";
  drowse_rule rule = {.tag = "weights", .action = DROWSE_OFFLOAD};
  DROWSE_SCOPE("weights", DROWSE_EXPANDABLE_INHERIT) ptr = torch_malloc(BYTES, DEVICE, NULL);
  drowse_heap *heap = torch_heap(DEVICE);
  EXPECT(ptr != NULL && heap != NULL);
  EXPECT_OK(drowse_copy_in(heap, ptr, text, sizeof text));
  EXPECT_OK(drowse_sleep(heap, &rule, 1, NULL));
  EXPECT_OK(drowse_wake(heap, NULL, 0, NULL));
  EXPECT_OK(drowse_copy_out(heap, again, ptr, sizeof again));
  EXPECT(strcmp(again, text) == 0);
  EXPECT_OK(drowse_sleep(heap, &rule, 1, NULL));
}

int main(void) {
  EXPECT(getenv("top_builddir") != NULL);
  EXPECT(setenv("DROWSE_DEVICE", "host:64MiB", 1) == 0);
  EXPECT(atexit(free_at_exit) == 0);
  load();
  RUN(sleep_and_wake);
  return 0;
}
