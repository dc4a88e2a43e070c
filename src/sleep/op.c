/* SPDX-License-Identifier: Apache-2.0
 *
 * Operations.
 */
#include "sleep/op.h"

#include <stdlib.h>
#include <string.h>

#include "core/thread.h"

/* ---- making, and who has it */

static inline bool is_inherited(const struct drowse_op *op) {
  return op->generation != dz_fork_generation();
}

/* In a child the lock may be anybody's and stays as it is. */
static void drop(struct drowse_op *op) {
  if (atomic_fetch_sub(&op->owners, 1) > 1) return;
  if (!is_inherited(op)) {
    (void)pthread_cond_destroy(&op->changed);
    dz_lock_destroy(&op->lock);
  }
  free(op->names);
  free(op->directory);
  free(op);
}

/* Who waited and has jumped out of a callback does not come back for it. In a child he may still be in the callback. */
static void drop_for_heap(struct operation *operation) {
  struct drowse_op *op = (struct drowse_op *)operation;
  if (operation->waited_for && !is_inherited(op)) drop(op);
  drop(op);
}

/* The heap's condition, too, because the operation may wait there for a tag. It has not finished, so the heap is there. */
static void cancel(struct drowse_op *op) {
  dz_lock(&op->lock);
  atomic_store(&op->canceled, true);
  (void)pthread_cond_broadcast(&op->changed);
  if (!op->finished) {
    dz_lock(&op->heap->lock);
    (void)pthread_cond_broadcast(&op->heap->changed);
    dz_unlock(&op->heap->lock);
  }
  dz_unlock(&op->lock);
}

static void cancel_for_heap(struct operation *operation) {
  cancel((struct drowse_op *)operation);
}

static drowse_status init_waiting(struct drowse_op *op) {
  int code = dz_lock_init(&op->lock, DZ_RANK_OPERATION);
  if (code != 0) return dz_error_system(DROWSE_ERR_SYSTEM, code, "no lock for an operation");
  code = dz_cond_init(&op->changed);
  if (code == 0) return DROWSE_OK;
  dz_lock_destroy(&op->lock);
  return dz_error_system(DROWSE_ERR_SYSTEM, code, "no condition for an operation");
}

static struct drowse_op *allocate(const char *directory) {
  struct drowse_op *op = calloc(1, sizeof *op);
  if (op != NULL && directory != NULL && (op->directory = strdup(directory)) == NULL) {
    free(op);
    return NULL;
  }
  return op;
}

struct drowse_op *dz_op_make(drowse_heap *heap, drowse_status (*run)(struct drowse_op *op), const char *directory) {
  struct drowse_op *op = allocate(directory);
  if (op == NULL) {
    dz_error(DROWSE_ERR_NO_HOST_MEMORY, "no memory for an operation");
    return NULL;
  }
  op->operation.cancel = cancel_for_heap;
  op->operation.drop = drop_for_heap;
  op->owners = 1;
  op->generation = heap->generation;
  op->heap = heap;
  op->run = run;
  op->tags_end = &op->tags;
  op->deadline = DZ_NEVER;
  if (init_waiting(op) == DROWSE_OK) return op;
  free(op->directory);
  free(op);
  return NULL;
}

void dz_op_add(struct drowse_op *op, struct tag *tag) {
  tag->op_next = NULL;
  *op->tags_end = tag;
  op->tags_end = &tag->op_next;
}

/* ---- the operation's thread */

static void finish(struct drowse_op *op, drowse_status status) {
  dz_lock(&op->lock);
  op->status = status;
  if (status != DROWSE_OK) dz_error_save(&op->error);
  op->finished = true;
  (void)pthread_cond_broadcast(&op->changed);
  dz_unlock(&op->lock);
}

static void *thread_main(void *argument) {
  struct drowse_op *op = argument;
  dz_error_prepare();
  finish(op, op->run(op));
  atomic_store(&op->operation.ended, true);
  return NULL;
}

drowse_status dz_op_check(struct drowse_op *op) {
  return atomic_load(&op->canceled) ? dz_error(DROWSE_ERR_CANCELED, "the operation was canceled") : DROWSE_OK;
}

void dz_op_expect(struct drowse_op *op, uint64_t bytes) {
  dz_lock(&op->lock);
  op->now.total_bytes += bytes;
  dz_unlock(&op->lock);
}

void dz_op_copied(struct drowse_op *op, const struct tag *tag, uint64_t bytes) {
  dz_lock(&op->lock);
  op->now.done_bytes += bytes;
  op->now.tag = tag->name->name;
  (void)pthread_cond_broadcast(&op->changed);
  dz_unlock(&op->lock);
}

bool dz_op_ask_for_memory(struct drowse_op *op, uint64_t bytes, int64_t until) {
  bool in_time = true;
  dz_lock(&op->lock);
  op->pressure_answer = DROWSE_ERR_NOT_FOUND;
  op->wants_bytes = op->heap->pressure == NULL ? 0 : bytes;
  (void)pthread_cond_broadcast(&op->changed);
  while (op->pressure_answer != DROWSE_OK && in_time && !op->canceled) in_time = dz_cond_wait(&op->changed, &op->lock, until);
  op->wants_bytes = 0;
  bool freed = op->pressure_answer == DROWSE_OK;
  dz_unlock(&op->lock);
  return freed;
}

void dz_op_woken(struct drowse_op *op) {
  dz_lock(&op->lock);
  op->woken++;
  (void)pthread_cond_broadcast(&op->changed);
  dz_unlock(&op->lock);
}

/* A tag of the operation that somebody is at work on; NULL: none. With the heap's lock. */
static const struct tag *find_busy(const struct drowse_op *op) {
  for (const struct tag *tag = op->tags; tag != NULL; tag = tag->op_next) {
    if (tag->pins > 0 || dz_tag_holds(tag) > 0) return tag;
  }
  return NULL;
}

drowse_status dz_op_wait_idle(struct drowse_op *op, int64_t deadline) {
  drowse_heap *heap = op->heap;
  drowse_status status = DROWSE_OK;
  const struct tag *busy;
  dz_lock(&heap->lock);
  while (status == DROWSE_OK && find_busy(op) != NULL) {
    if (atomic_load(&op->canceled)) {
      status = dz_op_check(op);
    } else if (!dz_cond_wait(&heap->changed, &heap->lock, deadline) && (busy = find_busy(op)) != NULL) {
      status = dz_error(DROWSE_ERR_BUSY, "the tag \"%s\" is held by %u and was not let go in time", busy->name->name,
                        dz_tag_holds(busy));
      dz_error_tag(busy->name->name);
    }
  }
  dz_unlock(&heap->lock);
  return status;
}

/* ---- starting */

/* Puts the tags back as if nothing had been asked for. */
static void give_up(struct drowse_op *op) {
  dz_lock(&op->heap->lock);
  for (struct tag *tag = op->tags, *next; tag != NULL; tag = next) {
    next = tag->op_next;
    dz_tag_end(tag, tag->before);
  }
  dz_unlock(&op->heap->lock);
}

/* For the woken hook. */
static drowse_status note_names(struct drowse_op *op) {
  size_t count = 0;
  for (const struct tag *tag = op->tags; tag != NULL; tag = tag->op_next) count++;
  op->names = calloc(count, sizeof *op->names);
  if (op->names == NULL) return dz_error(DROWSE_ERR_NO_HOST_MEMORY, "no memory for an operation");
  count = 0;
  for (const struct tag *tag = op->tags; tag != NULL; tag = tag->op_next) op->names[count++] = tag->name->name;
  return DROWSE_OK;
}

static drowse_status start(struct drowse_op *op) {
  drowse_heap *heap = op->heap;
  drowse_status status = note_names(op);
  if (status != DROWSE_OK) return status;
  (void)atomic_fetch_add(&op->owners, 1);
  int code = dz_thread_start(&op->operation.thread, "drowse-op", thread_main, op);
  if (code != 0) {
    drop(op);
    return dz_error_system(DROWSE_ERR_SYSTEM, code, "no thread for the operation");
  }
  dz_lock(&heap->lock);
  op->operation.next = heap->operations;
  heap->operations = &op->operation;
  dz_unlock(&heap->lock);
  return DROWSE_OK;
}

drowse_status dz_op_start(struct drowse_op *op, drowse_status status, struct drowse_op **result) {
  dz_heap_end_operations(op->heap, false);
  if (status == DROWSE_OK && op->tags != NULL) {
    status = start(op);
    if (status != DROWSE_OK) give_up(op);
  } else {
    op->finished = true;
  }
  if (status == DROWSE_OK)
    *result = op;
  else
    drop(op);
  return status;
}

drowse_status dz_op_result(struct drowse_op **result) {
  if (result == NULL) return dz_error(DROWSE_ERR_INVALID, "op is NULL");
  *result = NULL;
  return DROWSE_OK;
}

/* ---- waiting. With the operation's lock, which is let go for callbacks. A callback may not return: whatever follows it may
 * never be done. Or it returns twice, the second time in a forked child, where there is neither an operation nor a lock: false */

static bool show_progress(struct drowse_op *op) {
  drowse_progress now = op->shown = op->now;
  dz_unlock(&op->lock);
  op->progress(op->context, &now);
  if (is_inherited(op)) return false;
  dz_lock(&op->lock);
  return true;
}

/* The heap is there while the operation waits for the answer, which it may have given up as soon as the lock is let go. */
static bool call_pressure(struct drowse_op *op) {
  uint64_t bytes = op->wants_bytes;
  drowse_status (*pressure)(void *context, uint64_t missing_bytes) = op->heap->pressure;
  void *context = op->heap->pressure_context;
  dz_unlock(&op->lock);
  drowse_status answer = pressure(context, bytes);
  if (is_inherited(op)) return false;
  dz_lock(&op->lock);
  op->pressure_answer = answer;
  op->wants_bytes = 0;
  (void)pthread_cond_broadcast(&op->changed);
  return true;
}

static bool call_woken(struct drowse_op *op) {
  const char *name = op->names[op->told++];
  dz_unlock(&op->lock);
  op->on_woken(op->woken_context, name);
  if (is_inherited(op)) return false;
  dz_lock(&op->lock);
  return true;
}

/* Runs the callback that is due, if there is one. *here: false in a child. */
static bool call_back(struct drowse_op *op, bool *here) {
  if (op->progress != NULL && op->now.done_bytes != op->shown.done_bytes) {
    *here = show_progress(op);
  } else if (op->on_woken != NULL && op->told < op->woken) {
    *here = call_woken(op);
  } else if (op->wants_bytes != 0) {
    *here = call_pressure(op);
  } else {
    return false;
  }
  return true;
}

/* One of those who wait runs the callbacks; a thread that has jumped out of one does so again if it waits again. */
static bool become_teller(struct drowse_op *op) {
  if (op->has_teller && !pthread_equal(op->teller, pthread_self())) return false;
  op->has_teller = true;
  op->teller = pthread_self();
  return true;
}

/* False: in a child. *finished: whether it has. When the time is over callbacks are run only of one that has finished: while it
 * runs, there could always be another. */
static bool wait_until(struct drowse_op *op, int64_t deadline, bool *finished) {
  bool here = true, in_time = true;
  while (here) {
    bool tells = become_teller(op);
    if (tells && (in_time || op->finished) && call_back(op, &here)) {
      in_time = dz_now() < deadline;
      continue;
    }
    *finished = op->finished;
    if (*finished || !in_time) {
      if (tells) op->has_teller = false;
      (void)pthread_cond_broadcast(&op->changed); /* another may have to run callbacks */
      return true;
    }
    in_time = dz_cond_wait(&op->changed, &op->lock, deadline);
  }
  return false;
}

static drowse_status check(const struct drowse_op *op) {
  dz_error_prepare();
  if (op == NULL) return dz_error(DROWSE_ERR_INVALID, "op is NULL");
  if (is_inherited(op))
    return dz_error(DROWSE_ERR_FORKED, "the operation was started by a process that this one was forked from");
  return DROWSE_OK;
}

DROWSE_API drowse_status drowse_op_wait(drowse_op *op, int64_t timeout_ms) {
  drowse_status status = check(op);
  if (status != DROWSE_OK) return status;
  bool finished = false;
  struct error error;
  dz_lock(&op->lock);
  if (!wait_until(op, timeout_ms == 0 ? 0 : dz_deadline(timeout_ms), &finished)) return check(op);
  if (finished) status = op->status;
  error = op->error;
  dz_unlock(&op->lock);
  if (!finished) return dz_error(DROWSE_ERR_TIMEOUT, "the operation has not finished in time, and goes on");
  return status == DROWSE_OK ? DROWSE_OK : dz_error_restore(&error);
}

drowse_status dz_op_run(struct drowse_op *op, drowse_status status) {
  drowse_heap *heap = op->heap;
  atomic_store(&op->operation.waited_for, true);
  status = dz_op_start(op, status, &op);
  if (status != DROWSE_OK) return status;
  status = drowse_op_wait(op, -1);
  atomic_store(&op->operation.waited_for, false);
  bool inherited = is_inherited(op); /* a callback may have closed the heap there */
  drop(op);
  if (!inherited) dz_heap_end_operations(heap, false);
  return status;
}

/* ---- what else a user does with one */

DROWSE_API drowse_status drowse_op_progress(const drowse_op *given, uint64_t *done_bytes, uint64_t *total_bytes) {
  drowse_op *op = (drowse_op *)given;
  drowse_status status = check(op);
  if (status != DROWSE_OK) return status;
  dz_lock(&op->lock);
  if (done_bytes != NULL) *done_bytes = op->now.done_bytes;
  if (total_bytes != NULL) *total_bytes = op->now.total_bytes;
  dz_unlock(&op->lock);
  return DROWSE_OK;
}

DROWSE_API drowse_status drowse_op_cancel(drowse_op *op) {
  drowse_status status = check(op);
  if (status == DROWSE_OK) cancel(op);
  return status;
}

DROWSE_API void drowse_op_release(drowse_op *op) {
  if (op != NULL) drop(op);
}
