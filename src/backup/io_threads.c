/* SPDX-License-Identifier: Apache-2.0
 *
 * A queue whose requests a few threads do, each of them one at a time.
 */
#include <errno.h>
#include <stdlib.h>

#include "backup/io_kind.h"
#include "core/lock.h"
#include "core/thread.h"

enum { THREADS = 16 }; /* as many as keep a disk busy with pieces of megabytes */

struct list {
  struct io_request *first, **end;
};

struct crew {
  struct lock lock; /* of all that follows */
  pthread_cond_t work, landed;
  struct list waiting, done;
  bool ending;
  unsigned count;
  pthread_t threads[THREADS];
};

static void put(struct list *list, struct io_request *request) {
  request->next = NULL;
  *list->end = request;
  list->end = &request->next;
}

static struct io_request *take(struct list *list) {
  struct io_request *request = list->first;
  list->first = request->next;
  if (list->first == NULL) list->end = &list->first;
  return request;
}

/* ---- a thread */

static void *work(void *argument) {
  struct crew *crew = argument;
  dz_lock(&crew->lock);
  for (;;) {
    while (crew->waiting.first == NULL && !crew->ending) (void)dz_cond_wait(&crew->work, &crew->lock, DZ_NEVER);
    if (crew->waiting.first == NULL) break;
    struct io_request *request = take(&crew->waiting);
    dz_unlock(&crew->lock);
    dz_io_do(request);
    dz_lock(&crew->lock);
    put(&crew->done, request);
    (void)pthread_cond_signal(&crew->landed);
  }
  dz_unlock(&crew->lock);
  return NULL;
}

/* As many as the depth can use, or as the system gives; 0 or errno. */
static int start_threads(struct crew *crew, unsigned wanted) {
  int code = 0;
  while (crew->count < wanted && (code = dz_thread_start(&crew->threads[crew->count], "drowse-io", work, crew)) == 0)
    crew->count++;
  return crew->count > 0 ? 0 : code;
}

/* ---- the queue */

static void start(struct io *io, struct io_request *request) {
  struct crew *crew = io->state;
  dz_lock(&crew->lock);
  put(&crew->waiting, request);
  (void)pthread_cond_signal(&crew->work);
  dz_unlock(&crew->lock);
}

static struct io_request *wait_for_one(struct io *io) {
  struct crew *crew = io->state;
  dz_lock(&crew->lock);
  while (crew->done.first == NULL) (void)dz_cond_wait(&crew->landed, &crew->lock, DZ_NEVER);
  struct io_request *request = take(&crew->done);
  dz_unlock(&crew->lock);
  return request;
}

static void free_crew(struct crew *crew) {
  (void)pthread_cond_destroy(&crew->landed);
  (void)pthread_cond_destroy(&crew->work);
  dz_lock_destroy(&crew->lock);
  free(crew);
}

static void end(struct io *io) {
  struct crew *crew = io->state;
  dz_lock(&crew->lock);
  crew->ending = true;
  (void)pthread_cond_broadcast(&crew->work);
  dz_unlock(&crew->lock);
  for (unsigned i = 0; i < crew->count; i++) dz_thread_join(crew->threads[i]);
  free_crew(crew);
}

/* NULL: errno says why. */
static struct crew *make_crew(void) {
  struct crew *crew = calloc(1, sizeof *crew);
  if (crew == NULL) return NULL;
  crew->waiting.end = &crew->waiting.first;
  crew->done.end = &crew->done.first;
  int code = dz_lock_init(&crew->lock, DZ_RANK_LEAF);
  if (code != 0) goto no_lock;
  code = dz_cond_init(&crew->work);
  if (code != 0) goto no_work;
  code = dz_cond_init(&crew->landed);
  if (code != 0) goto no_landed;
  return crew;

no_landed:
  (void)pthread_cond_destroy(&crew->work);
no_work:
  dz_lock_destroy(&crew->lock);
no_lock:
  free(crew);
  errno = code;
  return NULL;
}

int dz_io_threads_begin(struct io *io) {
  static const struct io_kind kind = {.name = "threads", .start = start, .wait = wait_for_one, .end = end};
  struct crew *crew = make_crew();
  if (crew == NULL) return errno;
  int code = start_threads(crew, io->depth < THREADS ? io->depth : THREADS);
  if (code != 0) {
    free_crew(crew);
    return code;
  }
  io->state = crew;
  io->kind = &kind;
  return 0;
}
