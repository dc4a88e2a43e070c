/* SPDX-License-Identifier: Apache-2.0
 *
 * The sweep of what leaves a place in another way than by returning: forks, threads that end or are canceled, jumps out of scopes
 * and out of callbacks, stacks of frames that are swapped; and of what goes on meanwhile: a capture, memory that has moved before
 * its stream was done with it, hooks of a framework that fail.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fault/world.h"
#include "heap/heap.h"

#define DRIVERS (SWEEP_BIT(ERR_DRIVER) | SWEEP_BIT(ERR_DEVICE_LOST) | SWEEP_BIT(ERR_NO_DEVICE_MEMORY))
#define OPENS (DRIVERS | SWEEP_BIT(ERR_NO_HOST_MEMORY) | SWEEP_BIT(ERR_SYSTEM))
#define ALLOCS (DRIVERS | SWEEP_BIT(ERR_NO_HOST_MEMORY) | SWEEP_BIT(ERR_NO_ADDRESS_SPACE))
#define MOVES (DRIVERS | SWEEP_BIT(ERR_NO_HOST_MEMORY) | SWEEP_BIT(ERR_SYSTEM))
#define ENTERS (SWEEP_BIT(ERR_NO_HOST_MEMORY) | SWEEP_BIT(ERR_SYSTEM))

static bool is_current(const char *tag, drowse_expandable expandable, size_t depth) {
  drowse_frame frame = drowse_scope_current();
  return strcmp(frame.tag, tag) == 0 && frame.expandable == expandable && frame.depth == depth;
}

/* ---- a framework, whose flag is on but while a frame says off */

static bool flag = true, hook_fails;

static int get_flag(void *nothing, bool *on) {
  (void)nothing;
  *on = flag;
  return hook_fails;
}

static int set_flag(void *nothing, bool on) {
  (void)nothing;
  if (hook_fails) return 1;
  flag = on;
  return 0;
}

static void detach(void) {
  hook_fails = false;
  EXPECT_OK(drowse_framework_detach());
  EXPECT(flag);
}

static void with_framework(void) {
  const drowse_framework framework = {.struct_size = sizeof framework, .get_expandable = get_flag, .set_expandable = set_flag};
  EXPECT_OK(drowse_framework_attach(&framework));
  world_at_end = detach;
}

static void with_framework_and_name(void) {
  EXPECT(drowse_tag_get("a") != NULL);
  with_framework();
}

/* A scope that cannot be entered is not there; one that is left is gone, and the flag follows as soon as it can. */
static drowse_status fail_hooks(void) {
  drowse_scope scope;
  hook_fails = true;
  EXPECT(drowse_scope_enter(&scope, "a", DROWSE_EXPANDABLE_OFF) == DROWSE_ERR_HOOK);
  EXPECT(flag && drowse_scope_current().depth == 0 && drowse_scope_leave(&scope) == DROWSE_OK);
  hook_fails = false;
  drowse_status status = drowse_scope_enter(&scope, "a", DROWSE_EXPANDABLE_OFF);
  if (status != DROWSE_OK) return status;
  hook_fails = true;
  EXPECT(!flag && drowse_scope_leave(&scope) == DROWSE_ERR_HOOK);
  EXPECT(!flag && drowse_scope_current().depth == 0);
  EXPECT(drowse_framework_detach() == DROWSE_ERR_HOOK);
  hook_fails = false;
  EXPECT_OK(drowse_scope_enter(&scope, "a", DROWSE_EXPANDABLE_OFF));
  EXPECT_OK(drowse_scope_leave(&scope));
  EXPECT(flag);
  (void)drowse_scope_leave(NULL); /* these failures were wanted: the last one is what it was before */
  return DROWSE_OK;
}

/* ---- forks. The scenario goes on in the child; the parent waits for it, and looks whether it still has all that is his. */

static drowse_heap *inherited;
static drowse_scope outer, inner;

static void leave_scopes(void) {
  EXPECT(is_current("b", DROWSE_EXPANDABLE_OFF, 2));
  EXPECT_OK(drowse_scope_leave(&inner));
  EXPECT(is_current("a", DROWSE_EXPANDABLE_ON, 1));
  EXPECT_OK(drowse_scope_leave(&outer));
}

static void be_parent(pid_t child) {
  int ended = 0;
  while (waitpid(child, &ended, 0) < 0) EXPECT(errno == EINTR);
  if (!WIFEXITED(ended) || WEXITSTATUS(ended) != 0) _exit(EXIT_FAILURE);
  leave_scopes();
  world_check();
  EXPECT_OK(drowse_heap_close(world_heap));
  _exit(EXIT_SUCCESS);
}

/* A thread that is at its end when the process forks would leave its record to the child. */
static void go_on_in_child(void) {
  EXPECT_OK(drowse_scope_enter(&outer, "a", DROWSE_EXPANDABLE_ON));
  EXPECT_OK(drowse_scope_enter(&inner, "b", DROWSE_EXPANDABLE_OFF));
  world_settle();
  world_await_threads();
  pid_t child = fork();
  EXPECT(child >= 0);
  if (child > 0) be_parent(child);
  (void)alarm(60); /* which a child does not inherit */
  leave_scopes();  /* which the fork has left intact */
  inherited = world_heap;
  world_heap = NULL;
  for (size_t i = 0; i < WORLD_BLOCKS; i++) world_blocks[i].tag = NULL;
}

static void child_of_awake(void) {
  world_awake();
  go_on_in_child();
}

static void child_of_asleep(void) {
  world_asleep_in_both();
  go_on_in_child();
}

static drowse_status close_inherited(void) {
  void *ptr;
  if (inherited == NULL) return DROWSE_OK;
  EXPECT(drowse_alloc(inherited, MIB, NULL, &ptr) == DROWSE_ERR_FORKED && ptr == NULL);
  EXPECT(drowse_wake(inherited, NULL, 0, NULL) == DROWSE_ERR_FORKED);
  EXPECT(drowse_hold_tag(inherited, drowse_tag_get("a"), 0) == DROWSE_ERR_FORKED);
  (void)drowse_scope_leave(NULL); /* these were wanted */
  drowse_status status = drowse_heap_close(inherited);
  inherited = NULL;
  return status;
}

static void end_inherited(void) {
  EXPECT_OK(close_inherited());
}

static void child_beside_inherited(void) {
  child_of_awake();
  world_at_end = end_inherited;
}

static drowse_status open_own(void) {
  drowse_heap_options options = {.struct_size = sizeof options, .device = "host:32MiB"};
  drowse_status status = drowse_heap_open(&world_heap, &options);
  EXPECT((status == DROWSE_OK) == (world_heap != NULL));
  return status;
}

static void check_own(drowse_status status) {
  if (status != DROWSE_OK || fault_is_for_ever()) return;
  world_fill();
  EXPECT_OK(drowse_sleep(world_heap, &(drowse_rule){.action = DROWSE_OFFLOAD}, 1, NULL));
}

/* ---- threads: whatever ends one, its scopes end with it */

static sem_t entered;
static drowse_status status_there;

static void *enter_and_end(void *nothing) {
  drowse_scope scopes[2];
  status_there = drowse_scope_enter(&scopes[0], "a", DROWSE_EXPANDABLE_OFF);
  if (status_there == DROWSE_OK) status_there = drowse_scope_enter(&scopes[1], NULL, DROWSE_EXPANDABLE_OFF);
  return nothing;
}

static void *enter_and_wait(void *nothing) {
  (void)enter_and_end(nothing);
  EXPECT(sem_post(&entered) == 0);
  for (;;) (void)pause(); /* until it is canceled */
  return nothing;
}

/* What failed there is that thread's failure, not this one's. */
static drowse_status run_thread(void *(*run)(void *), bool cancels) {
  pthread_t thread;
  EXPECT(sem_init(&entered, 0, 0) == 0);
  EXPECT(pthread_create(&thread, NULL, run, NULL) == 0);
  while (cancels && sem_wait(&entered) != 0) EXPECT(errno == EINTR);
  if (cancels) {
    EXPECT(flag == (status_there != DROWSE_OK));
    EXPECT(pthread_cancel(thread) == 0);
  }
  EXPECT(pthread_join(thread, NULL) == 0);
  EXPECT_MSG(flag, "the thread has ended, and the flag is still off");
  return DROWSE_OK;
}

static drowse_status end_thread(void) {
  return run_thread(enter_and_end, false);
}

static drowse_status cancel_thread(void) {
  return run_thread(enter_and_wait, true);
}

static void check_there(drowse_status status) {
  (void)status;
  EXPECT_MSG(status_there == DROWSE_OK || (SWEEP_BIT(OK) << -status_there & ENTERS) != 0, "entering there: %s",
             drowse_status_name(status_there));
}

/* ---- jumps out of scopes */

static drowse_jump exact;

static drowse_status jump_out_of_scopes(void) {
  static drowse_scope scopes[3];
  volatile drowse_status status = DROWSE_OK;
  if (drowse_setjmp(&exact) == 0) {
    for (int i = 0; i < 3 && status == DROWSE_OK; i++) status = drowse_scope_enter(&scopes[i], "a", DROWSE_EXPANDABLE_OFF);
    drowse_longjmp(&exact, 1);
  }
  EXPECT(flag && drowse_scope_current().depth == 0);
  return status;
}

#ifdef HAS_JUMP
static jmp_buf plain;

/* With libdrowse-jump, of which this program has the source: no place to go back to is given to drowse. */
static drowse_status jump_plainly(void) {
  static drowse_scope scopes[3];
  volatile drowse_status status = DROWSE_OK;
  if (setjmp(plain) == 0) {
    for (int i = 0; i < 3 && status == DROWSE_OK; i++) status = drowse_scope_enter(&scopes[i], "a", DROWSE_EXPANDABLE_OFF);
    longjmp(plain, 1);
  }
  EXPECT(flag && drowse_scope_current().depth == 0);
  return status;
}
#endif

/* ---- jumps out of callbacks: the operation goes on, and nobody waits for it */

static void jump_from_progress(void *nothing, const drowse_progress *progress) {
  drowse_scope scope;
  (void)nothing;
  (void)progress;
  drowse_status status = drowse_scope_enter(&scope, "a", DROWSE_EXPANDABLE_ON);
  EXPECT(drowse_scope_current().depth == (status == DROWSE_OK));
  drowse_longjmp(&exact, 1);
}

static bool is_in_motion(const char *tag) {
  drowse_state state = world_state(tag);
  return state == DROWSE_FALLING_ASLEEP || state == DROWSE_WAKING;
}

/* However it ends, it ends; and so does its thread, which may meet the fault when its tags have come to rest. */
static drowse_status await_end(void) {
  while (is_in_motion("a") || is_in_motion("b")) (void)sched_yield();
  for (const struct operation *op = world_heap->operations; op != NULL; op = op->next) {
    while (!atomic_load(&op->ended)) (void)sched_yield();
  }
  return DROWSE_OK;
}

static drowse_status jump_out_of_sleep(void) {
  drowse_sleep_options options = {.struct_size = sizeof options, .progress = jump_from_progress};
  if (drowse_setjmp(&exact) != 0) return await_end();
  return drowse_sleep(world_heap, &(drowse_rule){.action = DROWSE_OFFLOAD}, 1, &options);
}

static drowse_status jump_out_of_wake(void) {
  drowse_wake_options options = {.struct_size = sizeof options, .flags = DROWSE_WAKE_TOGETHER, .progress = jump_from_progress};
  if (drowse_setjmp(&exact) != 0) return await_end();
  return drowse_wake(world_heap, NULL, 0, &options);
}

static void check_all_or_none(drowse_status status) {
  (void)status;
  EXPECT(world_state("a") == world_state("b"));
}

static drowse_status jump_from_pressure(void *nothing, uint64_t bytes) {
  (void)nothing;
  (void)bytes;
  drowse_longjmp(&exact, 1);
}

static void full(void) {
  world_open_with((drowse_heap_options){.device = "host:12MiB", .pressure = jump_from_pressure});
  world_fill();
}

static drowse_status jump_out_of_alloc(void) {
  void *ptr;
  if (drowse_setjmp(&exact) == 0) return drowse_alloc(world_heap, 12 * MIB, NULL, &ptr);
  (void)drowse_scope_leave(NULL); /* the call has failed and not returned: the last failure is what it was before */
  return DROWSE_OK;
}

/* ---- stacks of frames */

static char c_stack[4096];

static drowse_status use_stacks(void) {
  drowse_stack *stack = NULL, *from = NULL;
  drowse_scope scope = DROWSE_SCOPE_NONE;
  drowse_status status = drowse_stack_create_at(&stack, c_stack, sizeof c_stack);
  if (status != DROWSE_OK) return status;
  status = drowse_stack_swap(stack, &from);
  if (status == DROWSE_OK) status = drowse_scope_enter(&scope, "a", DROWSE_EXPANDABLE_OFF);
  if (status == DROWSE_OK) {
    EXPECT(!flag && drowse_stack_switch(NULL) == stack);
    EXPECT(!flag && drowse_scope_current().depth == 0); /* parked stacks count */
    EXPECT(drowse_stack_switch(stack) == NULL && is_current("a", DROWSE_EXPANDABLE_OFF, 1));
  }
  drowse_stack_destroy(stack);
  EXPECT(flag && drowse_scope_current().depth == 0);
  return status;
}

/* ---- holds, by interned names */

static const drowse_tag *interned;

static void with_name(void) {
  world_awake();
  interned = drowse_tag_get("a");
}

static drowse_status hold_tag(void) {
  drowse_status status = drowse_hold_tag(world_heap, interned, -1);
  return status == DROWSE_OK ? drowse_unhold_tag(world_heap, interned) : status;
}

/* ---- exports, which the host device has none of */

static drowse_status export(void) {
  drowse_export exported = {.struct_size = sizeof exported, .fd = -1};
  EXPECT(drowse_export_get(world_heap, world_blocks[0].ptr, &exported) == DROWSE_ERR_UNSUPPORTED && exported.fd == -1);
  (void)drowse_scope_leave(NULL); /* this was wanted */
  return DROWSE_OK;
}

/* ---- a stream at work: it captures, or stands at a gate */

static void with_real(void (*act)(const struct driver *real)) {
  CUcontext before;
  const struct driver *real = fault_real_driver();
  EXPECT(real->CtxGetCurrent(&before) == CUDA_SUCCESS && real->CtxSetCurrent(world_heap->context) == CUDA_SUCCESS);
  act(real);
  EXPECT(real->CtxSetCurrent(before) == CUDA_SUCCESS);
}

static void *wanted;

static drowse_status alloc_on_stream(void) {
  drowse_alloc_options options = {.struct_size = sizeof options, .tag = "a", .expandable = DROWSE_EXPANDABLE_ON};
  return drowse_alloc_with(world_heap, 4 * MIB, world_stream, &options, &wanted);
}

static bool captures;

static void begin_capture(const struct driver *real) {
  EXPECT(real->StreamBeginCapture(world_stream, CU_STREAM_CAPTURE_MODE_GLOBAL) == CUDA_SUCCESS);
  captures = true;
}

/* It is whole, whatever failed meanwhile, but the device. */
static void end_capture(const struct driver *real) {
  CUgraph graph;
  CUresult code = real->StreamEndCapture(world_stream, &graph);
  EXPECT(code == CUDA_SUCCESS || fault_is_for_ever());
  if (code == CUDA_SUCCESS) EXPECT(real->GraphDestroy(graph) == CUDA_SUCCESS);
  captures = false;
}

static void capturing(void) {
  world_awake();
  world_make_stream();
  with_real(begin_capture);
}

static drowse_status alloc_and_free(void) {
  if (!captures) with_real(begin_capture); /* the call is made again */
  drowse_status status = alloc_on_stream();
  if (status == DROWSE_OK) status = drowse_record_stream(world_heap, world_blocks[0].ptr, world_stream);
  if (wanted != NULL) EXPECT(drowse_free(world_heap, wanted) == DROWSE_OK);
  wanted = NULL;
  return status;
}

/* A sleep would have to wait for what is captured. */
static void check_capture(drowse_status status) {
  const drowse_sleep_options options = {.struct_size = sizeof options, .drain = DROWSE_DRAIN_STREAMS};
  if (status == DROWSE_OK && !fault_is_for_ever())
    EXPECT(drowse_sleep(world_heap, &(drowse_rule){.action = DROWSE_OFFLOAD}, 1, &options) == DROWSE_ERR_BUSY);
  with_real(end_capture);
}

static sem_t gate;

/* It opens when a call fails, too: a device that is lost waits for its work first. */
static void CUDA_CB stand_at_gate(void *nothing) {
  (void)nothing;
  while (sem_trywait(&gate) != 0 && !fault_injected()) (void)sched_yield();
}

static void close_gate(const struct driver *real) {
  EXPECT(sem_init(&gate, 0, 0) == 0);
  EXPECT(real->LaunchHostFunc(world_stream, stand_at_gate, NULL) == CUDA_SUCCESS);
}

static void await_stream(const struct driver *real) {
  EXPECT(real->StreamSynchronize(world_stream) == CUDA_SUCCESS);
}

/* Two pieces of four are free, but for what the stream still does. */
static void with_busy_pieces(void) {
  void *pieces[4];
  drowse_alloc_options options = {.struct_size = sizeof options, .tag = "a", .expandable = DROWSE_EXPANDABLE_ON};
  world_open_with((drowse_heap_options){.device = "host:64MiB"});
  world_fill();
  world_make_stream();
  for (int i = 0; i < 4; i++) EXPECT_OK(drowse_alloc_with(world_heap, 2 * MIB, world_stream, &options, &pieces[i]));
  with_real(close_gate);
  for (int i = 0; i < 4; i += 2) EXPECT_OK(drowse_free(world_heap, pieces[i]));
  for (int i = 1; i < 4; i += 2) world_note(world_room(), "a", pieces[i], 2 * MIB);
}

/* They serve their own stream at another place before it is done with them at the first. */
static void check_moved(drowse_status status) {
  EXPECT((status == DROWSE_OK) == (wanted != NULL));
  if (!fault_injected()) EXPECT(world_stats("a").mapped_bytes <= 12 * MIB);
  EXPECT(sem_post(&gate) == 0);
  with_real(await_stream);
  /* What has left its place in vain is unmapped when its stream is done with it, at the next occasion. */
  if (!fault_is_for_ever()) EXPECT_OK(drowse_trim(world_heap, UINT64_MAX));
  if (status == DROWSE_OK) world_note(world_room(), "a", wanted, 4 * MIB);
  for (size_t i = 0; i < WORLD_BLOCKS && !fault_is_for_ever(); i++) {
    if (world_blocks[i].tag != NULL) world_write(&world_blocks[i]);
  }
}

static const struct scenario scenarios[] = {
    {"hooks-fail", with_framework_and_name, fail_hooks, NULL, 0, SWEEP_CALLS_NOTHING},
    {"fork-close", child_of_awake, close_inherited, NULL, 0, 0},
    {"fork-close-asleep", child_of_asleep, close_inherited, NULL, 0, 0},
    {"fork-open", child_beside_inherited, open_own, check_own, OPENS, SWEEP_BRIEF},
    {"thread-ends", with_framework, end_thread, check_there, 0, 0},
    {"thread-canceled", with_framework, cancel_thread, check_there, 0, 0},
    {"jump-first", with_framework, jump_out_of_scopes, NULL, ENTERS, SWEEP_FRESH},
    {"jump", with_framework, jump_out_of_scopes, NULL, SWEEP_BIT(ERR_NO_HOST_MEMORY), 0},
#ifdef HAS_JUMP
    {"jump-plain-first", with_framework, jump_plainly, NULL, ENTERS, SWEEP_FRESH},
    {"jump-plain", with_framework, jump_plainly, NULL, SWEEP_BIT(ERR_NO_HOST_MEMORY), 0},
#endif
    {"jump-out-of-sleep", world_awake, jump_out_of_sleep, check_all_or_none, MOVES, SWEEP_BRIEF},
    {"jump-out-of-wake", world_asleep, jump_out_of_wake, check_all_or_none, MOVES, SWEEP_BRIEF},
    {"jump-out-of-alloc", full, jump_out_of_alloc, NULL, ALLOCS, SWEEP_SHORT},
    {"stacks-first", with_framework, use_stacks, NULL, ENTERS, SWEEP_FRESH},
    {"stacks", with_framework, use_stacks, NULL, SWEEP_BIT(ERR_NO_HOST_MEMORY), 0},
    {"hold-tag", with_name, hold_tag, NULL, 0, SWEEP_CALLS_NOTHING},
    {"export", world_awake, export, NULL, 0, SWEEP_CALLS_NOTHING},
    {"capture", capturing, alloc_and_free, check_capture, ALLOCS, 0},
    {"alloc-moves-early", with_busy_pieces, alloc_on_stream, check_moved, ALLOCS, 0},
};

int main(int argc, char **argv) {
  return sweep_main(argc, argv, scenarios, sizeof scenarios / sizeof *scenarios);
}
