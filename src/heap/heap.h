/* SPDX-License-Identifier: Apache-2.0
 *
 * A heap: one device, and what drowse owns there.
 *
 *   heap -> tag "weights" -> pool (stream, kind) -> segment -> extents: what is mapped, in address order
 *        |                |                                       -> blocks: live, free, holes, in address order
 *        |                +> pool ...
 *        +> tag "kv_cache" ...
 *        +> pools: (tag, stream, kind) -> pool
 *        +> index: address -> live block
 *        +> arena: where backups live
 */
#ifndef DZ_HEAP_H
#define DZ_HEAP_H

#include "backup/arena.h"
#include "core/error.h"
#include "core/fork.h"
#include "core/lock.h"
#include "core/slab.h"
#include "driver/device.h"
#include "heap/index.h"
#include "scope/name.h"
#include "scope/settings.h"

enum { DZ_TAG_PAGE = 256, DZ_POOL_BITS = 8, DZ_PEERS_MAX = 63 };

struct tag_page {
  _Atomic(struct tag *) tags[DZ_TAG_PAGE];
};

/* What an operation on tags (sleep/op.h) begins with: what the heap needs in order to end it. */
struct operation {
  struct operation *next; /* in the heap */
  pthread_t thread;
  atomic_bool ended;                      /* the thread is about to end */
  atomic_bool waited_for;                 /* by the call that started it, which takes it off the list itself */
  void (*cancel)(struct operation *self); /* it ends as soon as it can */
  void (*drop)(struct operation *self);   /* the heap has no use for it any more */
};

struct drowse_heap {
  drowse_heap *next, **before; /* of all heaps, under the lock of their list */

  /* set at open, then only read */
  uint64_t generation; /* of the process that opened it */
  struct device device;
  const char *device_source, *settings_source;
  struct settings settings;
  CUcontext context;
  bool context_retained;                    /* the primary one, which we give back */
  CUmemAllocationProp properties;           /* of the memory that it creates */
  CUmemAccessDesc access[1 + DZ_PEERS_MAX]; /* who may use it: the device itself, and its peers */
  size_t access_count;
  uint64_t granularity, total_bytes;
  drowse_status (*pressure)(void *context, uint64_t missing_bytes);
  void *pressure_context;
  uint64_t backup_keep; /* unused backup memory beyond it is given back after a wake; UINT64_MAX: none */
  void (*woken)(void *context, const char *tag);
  void *woken_context;
  bool check_seals;               /* before a sealed tag sleeps its contents are compared with its backups */
  bool poison;                    /* debug builds: freed memory is filled, and looked at before it is used again */
  CUstream copy_stream;           /* for copy_in and copy_out */
  const drowse_tag *default_name; /* NULL: not known before it is needed */

  struct arena arena; /* has a lock of its own */

  /* read without a lock; added to under the heap's, or a pool's */
  _Atomic(struct tag_page *) tag_pages[DZ_TAG_PAGE]; /* by the number of the tag's name */
  _Atomic(struct pool *) pools[1 << DZ_POOL_BITS];   /* by hash */
  struct index index;
  _Atomic(struct filed *) dropped; /* backups' places in files, which are still to be given back */

  struct lock lock;       /* everything below, and all tags and segments */
  pthread_cond_t changed; /* a tag's state, its holds, an operation: anything that somebody waits for */
  struct slab page_slab, tag_slab, pool_slab, stream_slab, segment_slab, extent_slab, block_slab, kept_slab, use_slab, filed_slab;
  struct tag *tags, **tags_end; /* in the order in which they came */
  struct stream *streams;
  struct block *pending, **pending_end; /* freed, and other streams may still use them */
  struct use *spare_uses;
  struct extent *unreleased; /* handles that the driver would not take back, mapped nowhere */
  uint64_t unreleased_bytes;
  struct segment *unfreed;      /* those that have gone, but for their addresses */
  struct filed *filed;          /* all backups' places in files, those that are to be given back too */
  struct operation *operations; /* those that run, or whose thread nobody has waited for yet */
  bool closing;                 /* who waits for a tag gives up */
  bool in_file;                 /* somebody reads or writes a sleeping block in a file */
  bool draining;                /* somebody waits for the device, and has noted what was free before */
  uint64_t sleeps, wakes;
};

/* Driver calls are made between enter and leave: the heap's context is current, captures of the caller's do not forbid them, and
 * the thread is not canceled in the middle. Leave puts everything back and returns status, or DRIVER where status is OK and the
 * context cannot be put back. */
struct guard {
  const struct driver *driver;
  CUcontext previous;
  bool changed; /* the heap's context has taken its place */
  CUstreamCaptureMode mode;
  int cancel;
  bool entered;
};
drowse_status dz_guard_enter(struct guard *guard, const drowse_heap *heap);
drowse_status dz_guard_leave(struct guard *guard, drowse_status status);

/* The host memory that the heap's records take. With the lock held. */
uint64_t dz_heap_metadata_bytes(const drowse_heap *heap);

/* Takes operations that have ended off the list, or all, waiting for their end. Without the lock. */
void dz_heap_end_operations(drowse_heap *heap, bool all);

static inline bool dz_heap_is_inherited(const drowse_heap *heap) {
  return heap->generation != dz_fork_generation();
}

/* What every call on a heap begins with, and goes on with behind a callback, which may have forked. A failure's record is made
 * here, before any lock is held, because that allocates. */
static inline drowse_status dz_heap_check(const drowse_heap *heap) {
  dz_error_prepare();
  if (heap == NULL) return dz_error(DROWSE_ERR_INVALID, "heap is NULL");
  if (dz_heap_is_inherited(heap))
    return dz_error(DROWSE_ERR_FORKED, "the heap was opened by a process that this one was forked from");
  return DROWSE_OK;
}

#endif
