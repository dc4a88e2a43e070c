/* SPDX-License-Identifier: Apache-2.0
 *
 * A heap's life, and the guard around driver calls.
 */
#include "heap/heap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/options.h"
#include "core/thread.h"
#include "heap/backup.h"
#include "heap/pending.h"
#include "heap/poison.h"
#include "heap/share.h"
#include "heap/stream.h"
#include "heap/tag.h"

/* ---- the guard */

/* Twice: the thread is the caller's, and is to be as it was. */
static CUresult put_mode_back(const struct guard *guard) {
  CUstreamCaptureMode mode = guard->mode, again = guard->mode;
  CUresult code = guard->driver->ThreadExchangeStreamCaptureMode(&mode);
  return code == CUDA_SUCCESS ? code : guard->driver->ThreadExchangeStreamCaptureMode(&again);
}

static CUresult put_context_back(const struct guard *guard) {
  CUresult code = guard->changed ? guard->driver->CtxSetCurrent(guard->previous) : CUDA_SUCCESS;
  return code == CUDA_SUCCESS ? code : guard->driver->CtxSetCurrent(guard->previous);
}

drowse_status dz_guard_enter(struct guard *guard, const drowse_heap *heap) {
  const struct driver *driver = &heap->device.driver;
  *guard = (struct guard){.driver = driver, .mode = CU_STREAM_CAPTURE_MODE_RELAXED};
  (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &guard->cancel);
  CUresult code = driver->CtxGetCurrent(&guard->previous);
  guard->changed = code == CUDA_SUCCESS && guard->previous != heap->context;
  if (guard->changed) code = driver->CtxSetCurrent(heap->context);
  if (code == CUDA_SUCCESS) code = driver->ThreadExchangeStreamCaptureMode(&guard->mode);
  if (code == CUDA_SUCCESS) {
    guard->entered = true;
    return DROWSE_OK;
  }
  (void)put_context_back(guard);
  (void)pthread_setcancelstate(guard->cancel, NULL);
  return dz_driver_error(driver, code, "making the heap's context on %s current", heap->device.name);
}

drowse_status dz_guard_leave(struct guard *guard, drowse_status status) {
  if (!guard->entered) return status;
  guard->entered = false;
  CUresult exchanged = put_mode_back(guard), code = put_context_back(guard);
  if (code == CUDA_SUCCESS) code = exchanged;
  (void)pthread_setcancelstate(guard->cancel, NULL);
  if (code == CUDA_SUCCESS || status != DROWSE_OK) return status;
  return dz_driver_error(guard->driver, code, "making the caller's context current again");
}

/* ---- all heaps, for fork */

static struct lock heaps_lock = DZ_LOCK_INIT(DZ_RANK_HEAPS);
static drowse_heap *heaps;

static void enlist(drowse_heap *heap) {
  dz_lock(&heaps_lock);
  heap->next = heaps;
  heap->before = &heaps;
  if (heaps != NULL) heaps->before = &heap->next;
  heaps = heap;
  dz_unlock(&heaps_lock);
}

static void delist(drowse_heap *heap) {
  dz_lock(&heaps_lock);
  *heap->before = heap->next;
  if (heap->next != NULL) heap->next->before = heap->before;
  dz_unlock(&heaps_lock);
}

/* Rank by rank: all heaps' locks, then all arenas'. */
static void prepare(void) {
  dz_lock_for_fork(&heaps_lock);
  for (drowse_heap *heap = heaps; heap != NULL; heap = heap->next) dz_lock_for_fork(&heap->lock);
  for (drowse_heap *heap = heaps; heap != NULL; heap = heap->next) dz_lock_for_fork(&heap->arena.lock);
}

static void parent(void) {
  for (drowse_heap *heap = heaps; heap != NULL; heap = heap->next) dz_unlock_for_fork(&heap->arena.lock);
  for (drowse_heap *heap = heaps; heap != NULL; heap = heap->next) dz_unlock_for_fork(&heap->lock);
  dz_unlock_for_fork(&heaps_lock);
}

/* Inherited heaps are in no list any more; no call but close gets past their generation, and close takes no lock. */
static void child(bool held) {
  heaps = NULL;
  dz_lock_remake(&heaps_lock, held);
}

static struct fork_part part = {.rank = DZ_RANK_HEAPS, .prepare = prepare, .parent = parent, .child = child};

static __attribute__((constructor)) void begin(void) {
  dz_fork_register(&part);
}

/* ---- open */

/* What the user, the environment or nobody says, and who it was. */
static const char *choose(const char *option, const char *variable, const char *otherwise, const char **source) {
  const char *value = option;
  *source = "option";
  if (value == NULL) {
    value = secure_getenv(variable);
    *source = variable;
  }
  if (value == NULL || value[0] == '\0') {
    if (option != NULL) return value;
    value = otherwise;
    *source = "default";
  }
  return value;
}

static drowse_status read_options(drowse_heap *heap, drowse_heap_options *options, const drowse_heap_options *given) {
  drowse_status status = dz_options_read(options, sizeof *options, given, "drowse_heap_options");
  if (status != DROWSE_OK) return status;
  const char *settings = choose(options->settings, "DROWSE_SETTINGS", "", &heap->settings_source);
  status = dz_settings_parse(&heap->settings, settings, heap->settings_source);
  if (status != DROWSE_OK) return status;
  const char *device = choose(options->device, "DROWSE_DEVICE", "cuda:0", &heap->device_source);
  heap->pressure = options->pressure;
  heap->pressure_context = options->pressure_context;
  heap->backup_keep = options->backup_keep == 0 ? UINT64_MAX : options->backup_keep;
  heap->woken = options->woken;
  heap->woken_context = options->woken_context;
  return dz_device_open(&heap->device, device);
}

static drowse_status retain_context(drowse_heap *heap, void *context) {
  const struct driver *driver = &heap->device.driver;
  if (context != NULL) {
    heap->context = context;
    return DROWSE_OK;
  }
  CUresult code = driver->DevicePrimaryCtxRetain(&heap->context, heap->device.ordinal);
  if (code != CUDA_SUCCESS) return dz_driver_error(driver, code, "taking the primary context of %s", heap->device.name);
  heap->context_retained = true;
  return DROWSE_OK;
}

/* What needs the context to be current. */
static drowse_status ask_device(drowse_heap *heap, const drowse_heap_options *options) {
  const struct driver *driver = &heap->device.driver;
  CUdevice device;
  CUresult code = driver->CtxGetDevice(&device);
  if (code != CUDA_SUCCESS) return dz_driver_error(driver, code, "asking which device the context is on");
  if (device != heap->device.ordinal) {
    return dz_error(DROWSE_ERR_INVALID, "drowse_heap_options: cuda_context is on device %d, not on %s", device,
                    heap->device.name);
  }
  heap->properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  heap->properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  heap->properties.location.id = device;
  drowse_status status = dz_share_read(heap, options);
  if (status != DROWSE_OK) return status;
  size_t granularity, free_bytes, total_bytes;
  code = driver->MemGetAllocationGranularity(&granularity, &heap->properties, CU_MEM_ALLOC_GRANULARITY_MINIMUM);
  if (code != CUDA_SUCCESS) return dz_driver_error(driver, code, "asking %s for its granularity", heap->device.name);
  code = driver->MemGetInfo(&free_bytes, &total_bytes);
  if (code != CUDA_SUCCESS) return dz_driver_error(driver, code, "asking %s for its memory", heap->device.name);
  /* What the index tells pools apart by is never shared by two. */
  heap->granularity = granularity > DZ_INDEX_POOL_BYTES ? granularity : DZ_INDEX_POOL_BYTES;
  heap->total_bytes = total_bytes;
  code = driver->StreamCreate(&heap->copy_stream, CU_STREAM_NON_BLOCKING);
  if (code != CUDA_SUCCESS) return dz_driver_error(driver, code, "creating a stream on %s", heap->device.name);
  return DROWSE_OK;
}

/* A heap's slabs, and how large their nodes are. */
#define SLABS(X, heap)                                 \
  X(&(heap)->page_slab, sizeof(struct tag_page))       \
  X(&(heap)->tag_slab, sizeof(struct tag))             \
  X(&(heap)->pool_slab, sizeof(struct pool))           \
  X(&(heap)->stream_slab, sizeof(struct stream))       \
  X(&(heap)->segment_slab, sizeof(struct segment))     \
  X(&(heap)->extent_slab, sizeof(struct extent))       \
  X(&(heap)->block_slab, sizeof(struct block))         \
  X(&(heap)->kept_slab, DZ_QUICK_BYTES)                \
  X(&(heap)->use_slab, sizeof(struct use))             \
  X(&(heap)->filed_slab, sizeof(struct filed))         \
  X(&(heap)->index.branch_slab, sizeof(struct branch)) \
  X(&(heap)->index.leaf_slab, sizeof(struct leaf))     \
  X(&(heap)->index.chunk_slab, sizeof(struct chunk))

static void init_slabs(drowse_heap *heap) {
#define INIT(slab, bytes) dz_slab_init(slab, bytes);
  SLABS(INIT, heap)
#undef INIT
}

static void end_slabs(drowse_heap *heap) {
#define END(slab, bytes) dz_slab_end(slab);
  SLABS(END, heap)
#undef END
}

uint64_t dz_heap_metadata_bytes(const drowse_heap *heap) {
  uint64_t bytes = sizeof *heap;
#define ADD(slab, node_bytes) bytes += (slab)->page_bytes;
  SLABS(ADD, heap)
#undef ADD
  return bytes;
}

static bool release_context(drowse_heap *heap) {
  return !heap->context_retained || heap->device.driver.DevicePrimaryCtxRelease(heap->device.ordinal) == CUDA_SUCCESS;
}

static bool wants_seals_checked(void) {
  const char *value = secure_getenv("DROWSE_DEBUG_SEAL");
  return value != NULL && strcmp(value, "1") == 0;
}

DROWSE_API drowse_status drowse_heap_open(drowse_heap **result, const drowse_heap_options *given) {
  if (result == NULL) return dz_error(DROWSE_ERR_INVALID, "heap is NULL");
  *result = NULL;
  drowse_heap_options options;
  struct guard guard;
  struct error before; /* what fails on the way to success, "auto" looking for a GPU, is nobody's last failure */
  int code;
  dz_error_save(&before);
  drowse_heap *heap = calloc(1, sizeof *heap);
  if (heap == NULL) return dz_error(DROWSE_ERR_NO_HOST_MEMORY, "no memory for a heap");
  heap->tags_end = &heap->tags;
  heap->pending_end = &heap->pending;
  init_slabs(heap);
  drowse_status status = read_options(heap, &options, given);
  if (status != DROWSE_OK) goto free_heap;
  status = retain_context(heap, options.cuda_context);
  if (status != DROWSE_OK) goto free_heap;
  status = dz_guard_enter(&guard, heap);
  if (status != DROWSE_OK) goto release_context;
  status = dz_guard_leave(&guard, ask_device(heap, &options));
  if (status != DROWSE_OK) goto destroy_stream;

  code = dz_lock_init(&heap->lock, DZ_RANK_HEAP);
  if (code != 0) {
    status = dz_error_system(DROWSE_ERR_SYSTEM, code, "no lock for a heap");
    goto destroy_stream;
  }
  code = dz_cond_init(&heap->changed);
  if (code != 0) {
    status = dz_error_system(DROWSE_ERR_SYSTEM, code, "no condition for a heap");
    goto destroy_lock;
  }
  code = dz_arena_init(&heap->arena, &heap->device.driver, options.backup_limit, heap->context,
                       dz_host_numa_node(&heap->device.driver, heap->device.ordinal));
  if (code != 0) {
    status = dz_error_system(DROWSE_ERR_SYSTEM, code, "no lock for a heap's arena");
    goto destroy_changed;
  }
  heap->generation = dz_fork_generation();
  heap->default_name = drowse_tag_get("default");
  heap->poison = dz_poison_wanted();
  heap->check_seals = wants_seals_checked();
  enlist(heap);
  dz_log(DROWSE_LOG_INFO, "heap opened on %s (%s)", heap->device.name, heap->device_source);
  *result = heap;
  (void)dz_error_restore(&before);
  return DROWSE_OK;

destroy_changed:
  (void)pthread_cond_destroy(&heap->changed);
destroy_lock:
  dz_lock_destroy(&heap->lock);
destroy_stream:
  if (heap->copy_stream != NULL) (void)heap->device.driver.StreamDestroy(heap->copy_stream);
release_context:
  (void)release_context(heap);
free_heap:
  end_slabs(heap);
  free(heap);
  return status;
}

/* ---- close */

/* Takes an operation off the list that has ended and that nobody waits for, or any; NULL: there is none. */
static struct operation *unlink_operation(drowse_heap *heap, bool any) {
  dz_lock(&heap->lock);
  struct operation **at = &heap->operations;
  while (*at != NULL && !any && !(atomic_load(&(*at)->ended) && !atomic_load(&(*at)->waited_for))) at = &(*at)->next;
  struct operation *operation = *at;
  if (operation != NULL) *at = operation->next;
  dz_unlock(&heap->lock);
  return operation;
}

void dz_heap_end_operations(drowse_heap *heap, bool all) {
  for (struct operation *operation; (operation = unlink_operation(heap, all)) != NULL;) {
    dz_thread_join(operation->thread);
    operation->drop(operation);
  }
}

static void end_operations(drowse_heap *heap) {
  dz_lock(&heap->lock);
  heap->closing = true;
  (void)pthread_cond_broadcast(&heap->changed);
  dz_unlock(&heap->lock);
  /* Nobody else uses the heap, so the list stays as it is. */
  for (struct operation *operation = heap->operations; operation != NULL; operation = operation->next)
    operation->cancel(operation);
  dz_heap_end_operations(heap, true);
}

/* Gives everything of a tag back, trying twice; false: the driver would not take something. */
static bool end_tag(drowse_heap *heap, struct tag *tag) {
  bool clean = dz_tag_unmap(tag) == 0 || dz_tag_unmap(tag) == 0;
  dz_lock(&heap->lock);
  dz_tag_drop_backups(tag, false);
  for (struct pool *pool = tag->pools; pool != NULL; pool = pool->next) {
    for (struct segment *segment = pool->segments, *next; segment != NULL; segment = next) {
      next = segment->next;
      for (struct block *block = segment->first; block != NULL; block = dz_block_after(block)) dz_uses_drop(block);
      if (dz_segment_is_unmapped(segment)) dz_segment_free(segment);
    }
  }
  dz_unlock(&heap->lock);
  return clean;
}

static drowse_status end_memory(drowse_heap *heap) {
  bool clean = true;
  dz_drain_whatever(heap);
  for (struct tag *tag = heap->tags; tag != NULL; tag = tag->next) clean &= end_tag(heap, tag);
  for (int tries = 0; tries < 2; tries++) {
    dz_heap_retry_unreleased(heap);
    dz_heap_free_addresses(heap);
  }
  dz_heap_close_files(heap);
  dz_uses_end(heap);
  dz_pools_end(heap);
  dz_streams_end(heap);
  clean &= heap->unreleased == NULL && heap->unfreed == NULL;
  clean &= dz_arena_end(&heap->arena);
  clean &= heap->device.driver.StreamDestroy(heap->copy_stream) == CUDA_SUCCESS;
  return clean ? DROWSE_OK
               : dz_error(DROWSE_ERR_DRIVER, "the driver of %s did not take back everything of the heap", heap->device.name);
}

static drowse_status end_heap(drowse_heap *heap) {
  struct guard guard;
  struct error error;
  drowse_status status = dz_guard_enter(&guard, heap);
  if (status != DROWSE_OK) status = dz_guard_enter(&guard, heap); /* too much hangs on it for one try */
  if (status != DROWSE_OK) dz_error_save(&error);
  /* Without a context (it has been destroyed under us) these calls fail and the memory went with the context. */
  drowse_status ended = end_memory(heap);
  status = status == DROWSE_OK ? dz_guard_leave(&guard, ended) : dz_error_restore(&error);
  if (release_context(heap) || status != DROWSE_OK) return status;
  return dz_error(DROWSE_ERR_DRIVER, "the driver of %s did not take its primary context back", heap->device.name);
}

/* In a child: the memory that holds the metadata, and the descriptors of files, and nothing else. The device is the parent's, and
 * where pinned memory was there are holes, which may be somebody else's by now. */
static void close_inherited(drowse_heap *heap) {
  for (struct operation *operation = heap->operations, *next; operation != NULL; operation = next) {
    next = operation->next;
    operation->drop(operation);
  }
  dz_heap_forget_files(heap);
  dz_arena_forget(&heap->arena);
  end_slabs(heap);
  free(heap);
}

DROWSE_API drowse_status drowse_heap_close(drowse_heap *heap) {
  if (heap == NULL) return DROWSE_OK;
  if (dz_heap_is_inherited(heap)) {
    close_inherited(heap);
    return DROWSE_OK;
  }
  struct error before; /* what fails on the way to success is nobody's last failure */
  dz_error_save(&before);
  end_operations(heap);
  delist(heap);
  drowse_status status = end_heap(heap);
  if (status == DROWSE_OK) (void)dz_error_restore(&before);
  dz_log(DROWSE_LOG_INFO, "heap closed on %s", heap->device.name);
  (void)pthread_cond_destroy(&heap->changed);
  dz_lock_destroy(&heap->lock);
  end_slabs(heap);
  free(heap);
  return status;
}

/* ---- questions */

DROWSE_API drowse_status drowse_heap_info_get(drowse_heap *heap, drowse_heap_info *info) {
  drowse_status status = dz_heap_check(heap);
  if (status == DROWSE_OK) status = dz_result_check(info, "drowse_heap_info");
  if (status != DROWSE_OK) return status;
  struct guard guard;
  size_t free_bytes = 0, total_bytes = 0;
  status = dz_guard_enter(&guard, heap);
  if (status != DROWSE_OK) return status;
  CUresult code = heap->device.driver.MemGetInfo(&free_bytes, &total_bytes);
  if (code != CUDA_SUCCESS) status = dz_driver_error(&heap->device.driver, code, "asking %s for its memory", heap->device.name);
  status = dz_guard_leave(&guard, status);
  if (status != DROWSE_OK) return status;
  drowse_heap_info found = {
      .device_source = heap->device_source,
      .expandable = heap->settings.expandable_segments,
      .settings_source = heap->settings_source,
      .granularity = heap->granularity,
      .total_bytes = total_bytes,
      .free_bytes = free_bytes,
      .backup_limit = heap->arena.limit,
  };
  memcpy(found.device, heap->device.name, sizeof found.device);
  dz_result_write(info, &found, sizeof found);
  return DROWSE_OK;
}

DROWSE_API void *drowse_driver_entry(drowse_heap *heap, const char *name) {
  if (dz_heap_check(heap) != DROWSE_OK || name == NULL || strncmp(name, "cu", 2) != 0) return NULL;
  return dz_driver_find(&heap->device.driver, name + 2);
}
