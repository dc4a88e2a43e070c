/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of the host device share. They stand for a driver from elsewhere, so their locks are their own and unranked:
 * nothing of drowse is called with one held.
 *
 *   lock        everything here, but for what maps_lock covers
 *   maps_lock   reservations and the mappings in them. Inside lock. Readers: a stream's thread for each piece that it copies,
 * without lock; writers: whoever maps and unmaps, with lock
 */
#ifndef DZ_HOST_STATE_H
#define DZ_HOST_STATE_H

#include "config.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "driver/driver.h"
#include "driver/host.h"

#define DZ_HOST_GRANULARITY (UINT64_C(2) << 20)

/* ---- handles: numbers that are looked up, so that a bad one is an error and not a crash (table.c) */

enum host_kind { HOST_CONTEXT = 1, HOST_MEMORY, HOST_STREAM, HOST_EVENT, HOST_GRAPH, HOST_EXECUTABLE };

struct place {
  void *object;        /* NULL: free */
  uint32_t generation; /* how often it was used before */
  uint32_t next_free;
};

struct table {
  struct place *places;
  uint32_t count, first_free; /* first_free == count: none */
  uint32_t used;
};

uint64_t dz_table_add(struct table *table, enum host_kind kind, void *object); /* 0: no memory */
void *dz_table_find(const struct table *table, enum host_kind kind, uint64_t handle);
void *dz_table_remove(struct table *table, enum host_kind kind, uint64_t handle);

/* Takes out an object, whichever comes first from *at on; NULL: there is none. */
void *dz_table_take(struct table *table, enum host_kind kind, uint32_t *at);

/* ---- objects */

/* A moment of a stream's work: after its sequence-th piece; it holds the stream. Or, with gpu, of a whole context's: after the
 * piece with that ticket. With neither: one that has passed. */
struct point {
  struct stream *stream;
  struct gpu *gpu;
  uint64_t sequence;
};

struct gpu {
  struct gpu *next;
  CUdevice ordinal;
  uint64_t capacity;
  CUcontext context; /* the primary context's handle, the same for ever */
  CUresult lost;     /* not CUDA_SUCCESS: the error that made it unusable */

  unsigned retains; /* of the primary context; what follows is there while it is not 0 */
  bool ending;      /* its last release is at work */
  uint64_t ticket;  /* the last piece of work submitted */
  struct stream *streams;
  struct stream *legacy;
  pthread_cond_t progress; /* a piece of work is done */

  int file; /* the memfd; -1: none */
  dev_t file_device;
  ino_t file_inode;
  uint64_t file_end;
  uint64_t used; /* physical bytes */
  struct physical *physical;
};

struct host {
  pid_t pid;
  uint32_t generation;
  struct host *inherited; /* by fork: kept because nothing in it may be touched, not even to free it */

  pthread_mutex_t lock;
  pthread_cond_t ended;      /* a context has ended */
  struct gpu *gpus;          /* only ever added to */
  uint64_t default_capacity; /* 0: nobody asked */
  uint64_t stream_ids;
  struct table handles, streams, events, graphs, executables;
  struct capture *captures;
  uint64_t capture_ids;
  struct pin *pins; /* in address order */
  size_t pin_count, pin_room;
  uint64_t reclaimed;

  pthread_rwlock_t maps_lock;
  struct reservation **reservations; /* in address order */
  size_t reservation_count, reservation_room;
};

extern _Atomic(struct host *) dz_host_instance;

/* This process's, after dz_host_begin(). */
static inline struct host *dz_host(void) {
  return atomic_load_explicit(&dz_host_instance, memory_order_relaxed);
}

/* ---- entries (entry.c) */

/* Whether this process may call; then the lock is held. */
CUresult dz_host_begin(void);
CUresult dz_host_end(CUresult result); /* drops the lock */

/* A thread that runs a host function may not call: from enter to leave. */
void dz_host_callback_enter(void);
void dz_host_callback_leave(void);

/* The thread's number, for what belongs to a thread. */
uint32_t dz_host_thread(void);
CUstreamCaptureMode dz_host_thread_mode(void);

/* ---- devices and contexts (context.c) */

struct gpu *dz_gpu_find(CUdevice ordinal);
struct gpu *dz_gpu_add(uint64_t capacity); /* NULL: no memory */
CUresult dz_gpu_current(struct gpu **gpu); /* the current context's, usable */

/* ---- memory (memory.c) */

/* Whether bytes at address can be read or written now; device: as device memory, else host memory will do too. maps_lock is held.
 */
bool dz_memory_reachable(uint64_t address, uint64_t bytes, bool write, bool device);
void dz_memory_reclaim(struct gpu *gpu); /* takes all that is left */
void dz_memory_reclaim_reservations(void);
void dz_memory_count(struct host_counts *counts);

/* Whether bytes at host are registered as a whole (register.c). */
bool dz_pin_covers(const void *host, uint64_t bytes);
void dz_pin_reclaim(const struct gpu *gpu);
void dz_pin_count(struct host_counts *counts);

/* ---- work (work.c) */

enum work_kind { WORK_MARK, WORK_COPY, WORK_FILL, WORK_CALL, WORK_GRAPH };

struct work {
  enum work_kind kind;
  bool to_device, from_device;
  unsigned char value;
  uint64_t to, from, bytes;
  CUhostFn function;
  void *data;
  struct graph *graph; /* held */
};

bool dz_work_run(const struct work *work); /* without the lock; false: it touched what is not there */

/* Sends work to a stream, or into the capture that the stream is part of. */
CUresult dz_work_send(CUstream handle, const struct work *work);

/* ---- streams (stream.c) */

struct stream {
  struct stream *next; /* of the context */
  struct gpu *gpu;
  CUstream handle; /* NULL: a default stream, or destroyed */
  uint64_t id;
  bool blocking;  /* synchronises with the legacy stream */
  uint32_t owner; /* the per-thread default stream of that thread; else 0 */
  unsigned references;

  pthread_t thread;
  pthread_cond_t ready; /* there is work, or an end */
  bool ending;
  struct op *first, **last;
  uint64_t submitted, done;

  struct capture *capture; /* NULL: not capturing */
  size_t participant;      /* which one of it */
};

/* The stream of a handle, usable. */
CUresult dz_stream_find(CUstream handle, struct stream **stream);
struct stream *dz_stream_make(struct gpu *gpu, bool blocking, uint32_t owner);

/* Appends what is submitted, which begins after what the stream has, after the moment if one is given, and by the legacy stream's
 * rule. staged: the stream frees it behind the work. OUT_OF_MEMORY: nothing is taken. */
CUresult dz_stream_submit(struct stream *stream, const struct work *submitted, void *staged, const struct point *after);

/* Whether it has done all that is submitted, and, the legacy stream, others too. */
bool dz_stream_is_idle(const struct stream *stream);

/* Wait for work that is submitted already; they drop the lock meanwhile. */
CUresult dz_stream_await(struct stream *stream); /* by the stream; returns the context's state */
void dz_stream_await_gpu(struct gpu *gpu);       /* all of the context's */

void dz_stream_thread_ended(uint32_t thread); /* its per-thread default streams end */
void dz_stream_end_all(struct gpu *gpu);      /* when their work is done; drops the lock meanwhile */
void dz_stream_count(struct host_counts *counts);

void dz_point_set(struct point *point, struct stream *stream, uint64_t sequence);
void dz_point_set_context(struct point *point, struct gpu *gpu); /* all that is submitted now */
void dz_point_copy(struct point *to, const struct point *from);
void dz_point_clear(struct point *point);
bool dz_point_passed(const struct point *point);
void dz_point_await(const struct point *point); /* drops the lock meanwhile; the caller holds the point */

/* ---- events (event.c) */

void dz_event_reclaim(const struct gpu *gpu);

/* ---- captures (capture.c) and graphs (graph.c) */

/* How much of each participant's work lies before a moment of a capture. */
struct clock {
  uint64_t *nodes;
  size_t count;
};

/* Invalidates the captures that the call would destroy and says with what error it fails; CUDA_SUCCESS: with none. */
CUresult dz_capture_check_legacy(const struct gpu *gpu);  /* for touching the legacy stream */
CUresult dz_capture_check_context(const struct gpu *gpu); /* for waiting for the whole context */
CUresult dz_capture_check_unsafe(void);                   /* for a call that CUDA deems unsafe while somebody captures */

bool dz_capture_legacy_busy(const struct gpu *gpu); /* as dz_capture_check_legacy(), and invalidates nothing */
void dz_capture_invalidate(struct capture *capture);
struct capture *dz_capture_find(uint64_t id);
uint64_t dz_capture_id(const struct capture *capture);
CUresult dz_capture_add(struct stream *stream, const struct work *work);
CUresult dz_capture_note(const struct stream *stream, struct clock *clock);              /* the moment that an event records */
CUresult dz_capture_join(struct stream *stream, uint64_t id, const struct clock *clock); /* a stream waits for such a moment */
void dz_capture_leave(struct stream *stream);                                            /* the stream is going away */
void dz_capture_reclaim(const struct gpu *gpu);
void dz_capture_count(struct host_counts *counts);
void dz_clock_free(struct clock *clock);

struct graph {
  unsigned references;
  struct work *nodes; /* in an order in which they may run */
  size_t count, room;
};

struct graph *dz_graph_make(void);
bool dz_graph_add(struct graph *graph, const struct work *node);
CUresult dz_graph_publish(struct graph *graph, CUgraph *handle); /* the handle holds it too */
struct graph *dz_graph_hold(struct graph *graph);
void dz_graph_drop(struct graph *graph);
void dz_graph_reclaim(void);

#define DZ_HOST_ENTRY(name, version, need, parameters) CUresult dz_host_##name parameters;
DZ_DRIVER_ENTRIES(DZ_HOST_ENTRY)
#undef DZ_HOST_ENTRY

#endif
