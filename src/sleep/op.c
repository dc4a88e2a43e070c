/* SPDX-License-Identifier: Apache-2.0
 *
 * Operations.
 */
#include "sleep/op.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

struct drowse_op *dz_op_make(drowse_heap *heap, drowse_status (*run)(struct drowse_op *op), const drowse_stream *streams,
                             size_t count) {
  size_t bytes;
  if (__builtin_mul_overflow(count, sizeof *streams, &bytes) || __builtin_add_overflow(bytes, sizeof(struct drowse_op), &bytes))
    return NULL;
  struct drowse_op *op = calloc(1, bytes);
  if (op == NULL) return NULL;
  op->heap = heap;
  op->run = run;
  op->tags_end = &op->tags;
  op->deadline = DZ_NEVER;
  op->stream_count = count;
  if (count > 0) memcpy(op->streams, streams, count * sizeof *streams);
  return op;
}

void dz_op_add(struct drowse_op *op, struct tag *tag) {
  tag->op_next = NULL;
  *op->tags_end = tag;
  op->tags_end = &tag->op_next;
}

/* ---- the operation's thread */

static void *thread_main(void *argument) {
  struct drowse_op *op = argument;
  drowse_heap *heap = op->heap;
  dz_error_prepare();
  drowse_status status = op->run(op);
  dz_lock(&heap->lock);
  op->status = status;
  if (status != DROWSE_OK) dz_error_save(&op->error);
  op->operation.finished = true;
  (void)pthread_cond_broadcast(&heap->changed);
  dz_unlock(&heap->lock);
  return NULL;
}

/* Signals are the program's business: none is delivered to our threads. */
static int start_thread(struct drowse_op *op) {
  sigset_t all, before;
  (void)sigfillset(&all);
  (void)pthread_sigmask(SIG_SETMASK, &all, &before);
  int code = pthread_create(&op->operation.thread, NULL, thread_main, op);
  (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (code == 0) (void)pthread_setname_np(op->operation.thread, "drowse-op");
  return code;
}

drowse_status dz_op_check(struct drowse_op *op) {
  dz_lock(&op->heap->lock);
  bool closing = op->heap->closing;
  dz_unlock(&op->heap->lock);
  return closing ? dz_error(DROWSE_ERR_CANCELED, "the heap is being closed") : DROWSE_OK;
}

void dz_op_expect(struct drowse_op *op, uint64_t bytes) {
  dz_lock(&op->heap->lock);
  op->now.total_bytes += bytes;
  dz_unlock(&op->heap->lock);
}

void dz_op_copied(struct drowse_op *op, const struct tag *tag, uint64_t bytes) {
  dz_lock(&op->heap->lock);
  op->now.done_bytes += bytes;
  op->now.tag = tag->name->name;
  (void)pthread_cond_broadcast(&op->heap->changed);
  dz_unlock(&op->heap->lock);
}

bool dz_op_ask_for_memory(struct drowse_op *op, uint64_t bytes, int64_t until) {
  drowse_heap *heap = op->heap;
  bool in_time = true;
  dz_lock(&heap->lock);
  op->pressure_answer = DROWSE_ERR_NOT_FOUND;
  op->wants_bytes = heap->pressure == NULL ? 0 : bytes;
  (void)pthread_cond_broadcast(&heap->changed);
  while (op->pressure_answer != DROWSE_OK && in_time && !heap->closing)
    in_time = dz_cond_wait(&heap->changed, &heap->lock, until);
  op->wants_bytes = 0;
  bool freed = op->pressure_answer == DROWSE_OK;
  dz_unlock(&heap->lock);
  return freed;
}

/* A tag of the operation that somebody is at work on; NULL: none. With the lock held. */
static const struct tag *find_busy(const struct drowse_op *op) {
  for (const struct tag *tag = op->tags; tag != NULL; tag = tag->op_next) {
    if (tag->pins > 0 || tag->holds > 0) return tag;
  }
  return NULL;
}

drowse_status dz_op_wait_idle(struct drowse_op *op, int64_t deadline) {
  drowse_heap *heap = op->heap;
  drowse_status status = DROWSE_OK;
  const struct tag *busy;
  dz_lock(&heap->lock);
  while (status == DROWSE_OK && (busy = find_busy(op)) != NULL) {
    if (heap->closing) {
      status = dz_error(DROWSE_ERR_CANCELED, "the heap is being closed");
    } else if (!dz_cond_wait(&heap->changed, &heap->lock, deadline) && (busy = find_busy(op)) != NULL) {
      status =
          dz_error(DROWSE_ERR_BUSY, "the tag \"%s\" is held by %u and was not let go in time", busy->name->name, busy->holds);
      dz_error_tag(busy->name->name);
    }
  }
  dz_unlock(&heap->lock);
  return status;
}

/* ---- the waiting thread. With the lock held, which is let go for callbacks. A callback may not return: whatever follows it may
 * never be done. Or it returns twice, the second time in a forked child, where there is neither an operation nor a lock: false */

static bool show_progress(struct drowse_op *op, drowse_progress *shown) {
  *shown = op->now;
  dz_unlock(&op->heap->lock);
  op->progress(op->context, shown);
  if (dz_heap_is_inherited(op->heap)) return false;
  dz_lock(&op->heap->lock);
  return true;
}

static bool call_pressure(struct drowse_op *op) {
  drowse_heap *heap = op->heap;
  uint64_t bytes = op->wants_bytes;
  dz_unlock(&heap->lock);
  drowse_status answer = heap->pressure(heap->pressure_context, bytes);
  if (dz_heap_is_inherited(heap)) return false;
  dz_lock(&heap->lock);
  op->pressure_answer = answer;
  op->wants_bytes = 0;
  (void)pthread_cond_broadcast(&heap->changed);
  return true;
}

static bool wait_for(struct drowse_op *op) {
  drowse_progress shown = {0, 0, NULL};
  bool here = true;
  while (here) {
    if (op->progress != NULL && op->now.done_bytes != shown.done_bytes) {
      here = show_progress(op, &shown);
    } else if (op->operation.finished) {
      return true;
    } else if (op->wants_bytes != 0) {
      here = call_pressure(op);
    } else {
      (void)dz_cond_wait(&op->heap->changed, &op->heap->lock, DZ_NEVER);
    }
  }
  return false;
}

/* Puts the tags back as if nothing had been asked for. With the lock held. */
static void give_up(struct drowse_op *op) {
  for (struct tag *tag = op->tags, *next; tag != NULL; tag = next) {
    next = tag->op_next;
    dz_tag_end(tag, tag->before);
  }
}

drowse_status dz_op_run(struct drowse_op *op) {
  drowse_heap *heap = op->heap;
  dz_unlock(&heap->lock); /* starting a thread allocates */
  int code = start_thread(op);
  dz_lock(&heap->lock);
  if (code != 0) {
    give_up(op);
    dz_unlock(&heap->lock);
    free(op);
    return dz_error_system(DROWSE_ERR_SYSTEM, code, "no thread for the operation");
  }
  op->operation.next = heap->operations;
  heap->operations = &op->operation;
  if (!wait_for(op)) return dz_heap_check(heap);
  drowse_status status = op->status;
  struct error error = op->error;
  dz_operation_end(heap, &op->operation);
  dz_unlock(&heap->lock);
  return status == DROWSE_OK ? DROWSE_OK : dz_error_restore(&error);
}
