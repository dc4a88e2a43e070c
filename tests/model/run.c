/* SPDX-License-Identifier: Apache-2.0
 *
 * A sequence from beginning to end.
 */
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "fault/fault.h"
#include "fault/left.h"
#include "heap/heap.h"
#include "model/model.h"

/* The thread sanitizer does not see liburing unmap a ring: the next one, of another thread, may come to lie in the same place. */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void) {
  return "race_top:io_ring.c\n";
}

drowse_heap *model_heap;
struct setting model_setting;
struct actor model_actors[THREADS_MOST];
char model_directory[] = ".";
void (*model_tell)(const char *line);
void (*model_failed)(const char *what);

static const struct sequence *running;
static struct left left_before;

/* ---- telling */

void model_say(const struct actor *actor, const char *format, ...) {
  char line[256];
  va_list values;
  if (model_tell == NULL) return;
  int length = snprintf(line, sizeof line, "thread %u: ", actor->number);
  va_start(values, format);
  (void)vsnprintf(line + length, sizeof line - (size_t)length, format, values);
  va_end(values);
  model_tell(line);
}

void expect_fail(const char *file, int line, const char *format, ...) {
  char text[1024];
  va_list values;
  int length = snprintf(text, sizeof text, "%s:%d: ", file, line);
  va_start(values, format);
  (void)vsnprintf(text + length, sizeof text - (size_t)length, format, values);
  va_end(values);
  if (model_failed != NULL) model_failed(text);
  (void)fprintf(stderr, "%s\n", text);
  abort();
}

/* ---- the heap */

const char *model_device(void) {
  return is_alone() ? "host:128MiB" : "host:1GiB";
}

static drowse_status open_heap(void) {
  drowse_heap_options options = {
      .struct_size = sizeof options,
      .device = model_device(),
      .settings = model_setting.discrete ? "expandable_segments:False" : NULL,
      .backup_limit = model_setting.limited ? MODEL_LIMIT : 0,
      .pressure = model_setting.presses && is_alone() ? tenant_press : NULL,
  };
  return drowse_heap_open(&model_heap, &options);
}

/* Every tag is there from the beginning. */
static void make_tags(const struct actor *actor) {
  for (unsigned i = 0; i < TAGS; i++) {
    void *ptr;
    drowse_alloc_options options = {.struct_size = sizeof options, .tag = actor->tags[i].name};
    EXPECT_OK(drowse_alloc_with(model_heap, 1, NULL, &options, &ptr));
    EXPECT_OK(drowse_free(model_heap, ptr));
  }
}

static void make_streams(struct actor *actor) {
  EXPECT(fault_real_driver()->CtxSetCurrent(model_heap->context) == CUDA_SUCCESS);
  for (unsigned i = 1; i < STREAMS; i++) {
    EXPECT(fault_real_driver()->StreamCreate(&actor->streams[i], CU_STREAM_NON_BLOCKING) == CUDA_SUCCESS);
    actor->seen[i] = SEEN_NOT;
  }
}

/* Those that the heap has seen are retired; the work on all is over. */
static void end_streams(struct actor *actor) {
  for (unsigned i = 0; i < STREAMS; i++) {
    EXPECT(fault_real_driver()->StreamSynchronize(actor->streams[i]) == CUDA_SUCCESS);
    if (i == 0) continue;
    (void)ref_check(actor, drowse_stream_retire(model_heap, actor->streams[i]), STATUS(OK) | STATUS(ERR_NOT_FOUND),
                    "stream_retire %u", i);
    EXPECT(fault_real_driver()->StreamDestroy(actor->streams[i]) == CUDA_SUCCESS);
  }
}

static void close_heap(struct actor *actor) {
  (void)ref_check(actor, drowse_heap_close(model_heap), STATUS(OK), "heap_close");
  model_heap = NULL;
}

/* Closes the heap as it is, with whatever is in it and goes on in it, and opens another one. */
void step_reopen(struct actor *actor, const struct step *step) {
  (void)step;
  tenant_leave(actor);
  end_streams(actor);
  EXPECT(fault_real_driver()->CtxSetCurrent(NULL) == CUDA_SUCCESS);
  close_heap(actor);
  motion_after_close(actor);
  for (unsigned i = 0; i < TAGS; i++) ref_clear(actor, i);
  actor->stale = NULL;
  ref_begin(actor, actor->number, model_setting.threads);
  if (ref_check(actor, open_heap(), STATUS(OK), "heap_open") != DROWSE_OK) {
    fault_rest();
    EXPECT_OK(open_heap());
  }
  fault_rest();
  make_streams(actor);
  make_tags(actor);
}

/* ---- a thread's steps */

/* The thread is what it was, whatever it has called. */
static void check_thread(void) {
  const struct driver *real = fault_real_driver();
  CUcontext context = NULL;
  CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
  int cancel;
  EXPECT(real->CtxGetCurrent(&context) == CUDA_SUCCESS && context == model_heap->context);
  EXPECT(real->ThreadExchangeStreamCaptureMode(&mode) == CUDA_SUCCESS && mode == CU_STREAM_CAPTURE_MODE_GLOBAL);
  EXPECT(pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &cancel) == 0 && cancel == PTHREAD_CANCEL_ENABLE);
}

static void run_step(struct actor *actor, const struct step *step) {
  const struct kind *kind = &model_kinds[step->kind];
  if (kind->alone && !is_alone()) return;
  if (is_alone() && kind->run != step_fault) faults_begin_step();
  kind->run(actor, step);
  if (is_alone()) faults_end_step(kind);
  check_thread();
  frames_check(actor);
}

static void run_steps(struct actor *actor) {
  const size_t count = sequence_steps(running);
  for (size_t i = 0; i < count; i++) {
    const struct step step = sequence_step(running, i);
    if (step.thread == actor->number) run_step(actor, &step);
  }
}

static void *run_actor(void *argument) {
  struct actor *actor = argument;
  drowse_scope scope;
  EXPECT(fault_real_driver()->CtxSetCurrent(model_heap->context) == CUDA_SUCCESS);
  EXPECT_OK(drowse_scope_enter(&scope, NULL, DROWSE_EXPANDABLE_INHERIT)); /* so that its own stack is there */
  EXPECT_OK(drowse_scope_leave(&scope));
  ref_forgive();
  run_steps(actor);
  if (!model_setting.abrupt) motion_end(actor);
  frames_end(actor);
  return NULL;
}

static void run_actors(void) {
  for (unsigned i = 0; i < model_setting.threads; i++)
    EXPECT(pthread_create(&model_actors[i].thread, NULL, run_actor, &model_actors[i]) == 0);
  for (unsigned i = 0; i < model_setting.threads; i++) EXPECT(pthread_join(model_actors[i].thread, NULL) == 0);
}

/* ---- the end */

/* Operations that nobody waits for any more may still run. */
static void await_operations(void) {
  for (unsigned i = 0; i < TAGS; i++) {
    drowse_state state;
    while ((state = motion_stats(model_actors[0].tags[i].name).state) != DROWSE_AWAKE && state != DROWSE_ASLEEP)
      (void)sched_yield();
  }
}

/* Everything is awake, and nothing is lost. */
static void compare_all(void) {
  await_operations();
  (void)ref_check(&model_actors[0], drowse_wake(model_heap, NULL, 0, NULL), STATUS(OK), "wake all");
  for (struct actor *actor = model_actors; actor < model_actors + model_setting.threads; actor++) {
    for (unsigned i = 0; i < TAGS; i++) {
      if (actor->tags[i].shared) continue;
      if (actor->tags[i].states == LOST) ref_fill(actor, i, -1);
      actor->tags[i].states = AWAKE;
    }
    for (unsigned i = 0; i < SLOTS; i++) {
      if (actor->blocks[i].ptr != NULL) memory_compare(actor, &actor->blocks[i]);
    }
  }
}

static void end_actor(struct actor *actor) {
  motion_after_close(actor);
  for (unsigned i = 0; i < TAGS; i++) ref_clear(actor, i);
}

static void begin_actors(void) {
  for (unsigned i = 0; i < model_setting.threads; i++) {
    model_actors[i] = (struct actor){.number = i};
    ref_begin(&model_actors[i], i, model_setting.threads);
    model_actors[i].stacks[0].exists = true;
    make_streams(&model_actors[i]);
    make_tags(&model_actors[i]);
  }
}

void run_sequence(const struct sequence *sequence) {
  const unsigned faults = faults_met();
  running = sequence;
  model_setting = sequence_setting(sequence);
  ref_forgive();
  EXPECT_OK(open_heap());
  begin_actors();
  run_actors();
  tenant_leave(&model_actors[0]);
  if (!model_setting.abrupt) compare_all();
  for (unsigned i = 0; i < model_setting.threads; i++) end_streams(&model_actors[i]);
  EXPECT(fault_real_driver()->CtxSetCurrent(NULL) == CUDA_SUCCESS);
  close_heap(&model_actors[0]);
  for (unsigned i = 0; i < model_setting.threads; i++) end_actor(&model_actors[i]);
  if (faults != faults_met()) left_end_contexts();
  left_check_device(faults != faults_met());
  struct left left = left_look(left_before.threads);
  left_check(&left_before, &left, faults == faults_met());
  if (faults != faults_met()) left_before = left; /* what munmap() has kept is not the next one's */
}

/* What the library has for ever once it has been used: so that what a sequence leaves can be told from that. */
void run_prepare(void) {
  struct sequence nothing = {.bytes = (unsigned char[]){THREADS_MOST - 1}, .size = 1};
  const uint64_t threads = left_threads();
  faults_prepare();
  (void)drowse_scope_leave(NULL); /* this thread has a record of its last failure */
  left_before = (struct left){.live = {INT64_MAX, INT64_MAX}, .threads = threads}; /* of this one anything may be left */
  left_before.files = left_look(threads).files;
  run_sequence(&nothing);
  left_before = left_look(threads);
}
