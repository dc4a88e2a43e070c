/* SPDX-License-Identifier: Apache-2.0
 *
 * A storm of signals, with and without SA_RESTART, at the thread that calls: whatever the call waits for, it ends as it would
 * have ended without, and nobody hears of EINTR. Handlers run on that thread and on none of the library's.
 */
#include "fixture.h"

#include <errno.h>
#include <signal.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { BYTES = 5 << 20, SIGNALS = 200 };

static char directory[] = "drowse-signals-XXXXXX";
static void *block;
static pthread_t target, storm;
static atomic_bool stop;
static atomic_uint taken, astray;

static void handle(int number) {
  int saved = errno;
  (void)number;
  if (pthread_equal(pthread_self(), target))
    (void)atomic_fetch_add(&taken, 1);
  else
    (void)atomic_fetch_add(&astray, 1);
  (void)drowse_scope_current();
  errno = saved;
}

/* Sent to the thread; the timer's are the process's, which any thread may get that does not block them. The next ones wait until
 * these have come, and a moment longer: a thread that does nothing but take signals gets nowhere. */
static void *blow(void *nothing) {
  const struct timespec moment = {.tv_nsec = 20000};
  while (!atomic_load(&stop)) {
    const unsigned before = atomic_load(&taken);
    (void)pthread_kill(target, SIGUSR1);
    (void)pthread_kill(target, SIGUSR2);
    while (atomic_load(&taken) == before && !atomic_load(&stop)) (void)sched_yield();
    (void)nanosleep(&moment, NULL);
  }
  return nothing;
}

static void set_timer(suseconds_t microseconds) {
  const struct itimerval timer = {{0, microseconds}, {0, microseconds}};
  ck_assert_int_eq(setitimer(ITIMER_REAL, &timer, NULL), 0);
}

/* For threads that are started meanwhile: none of the test's own but the one that calls gets a signal. */
static void mask_signals(sigset_t *before) {
  sigset_t all;
  (void)sigfillset(&all);
  ck_assert_int_eq(pthread_sigmask(SIG_SETMASK, &all, before), 0);
}

static void unmask_signals(const sigset_t *before) {
  ck_assert_int_eq(pthread_sigmask(SIG_SETMASK, before, NULL), 0);
}

static void begin_storm(void) {
  sigset_t before;
  const struct sigaction interrupts = {.sa_handler = handle}, restarts = {.sa_handler = handle, .sa_flags = SA_RESTART};
  ck_assert_int_eq(sigaction(SIGUSR1, &interrupts, NULL), 0);
  ck_assert_int_eq(sigaction(SIGALRM, &interrupts, NULL), 0);
  ck_assert_int_eq(sigaction(SIGUSR2, &restarts, NULL), 0);
  target = pthread_self();
  mask_signals(&before);
  ck_assert_int_eq(pthread_create(&storm, NULL, blow, NULL), 0);
  unmask_signals(&before);
  set_timer(100);
}

static void end_storm(void) {
  atomic_store(&stop, true);
  ck_assert_int_eq(pthread_join(storm, NULL), 0);
  set_timer(0);
  ck_assert_uint_eq(atomic_load(&astray), 0);
}

static void start_storm(void) {
  (void)snprintf(directory, sizeof directory, "drowse-signals-XXXXXX");
  ck_assert_ptr_nonnull(mkdtemp(directory));
  start();
  write_pattern(block = alloc_tag("a", BYTES), BYTES, 1);
  begin_storm();
}

static void finish_storm(void) {
  end_storm();
  finish();
  ck_assert_int_eq(rmdir(directory), 0);
}

/* ---- calls that do not wait for anybody: again and again, until so many signals have come while they ran */

static drowse_status open_and_close(void) {
  drowse_heap *other;
  drowse_status status =
      drowse_heap_open(&other, &(drowse_heap_options){.struct_size = sizeof(drowse_heap_options), .device = "host"});
  return status == DROWSE_OK ? drowse_heap_close(other) : status;
}

static drowse_status allocate_and_free(void) {
  void *ptr;
  drowse_scope scope;
  drowse_status status = drowse_scope_enter(&scope, "b", DROWSE_EXPANDABLE_INHERIT);
  if (status != DROWSE_OK) return status;
  status = drowse_alloc(heap, 3 * MIB, NULL, &ptr);
  if (status == DROWSE_OK) status = drowse_free(heap, ptr);
  if (status == DROWSE_OK) status = drowse_trim(heap, 0);
  return status == DROWSE_OK ? drowse_scope_leave(&scope) : status;
}

static drowse_status copy(void) {
  static unsigned char bytes[BYTES];
  drowse_status status = drowse_copy_out(heap, bytes, block, BYTES);
  return status == DROWSE_OK ? drowse_copy_in(heap, block, bytes, BYTES) : status;
}

static drowse_status copy_asleep_in_file(void) {
  drowse_sleep_options options = {.struct_size = sizeof options, .backup = DROWSE_BACKUP_FILE, .directory = directory};
  drowse_status status = drowse_sleep(heap, &(drowse_rule){.tag = "a", .action = DROWSE_OFFLOAD}, 1, &options);
  if (status == DROWSE_OK) status = copy();
  return status == DROWSE_OK ? wake_tag("a") : status;
}

static drowse_status sleep_and_wake(void) {
  drowse_status status = sleep_tag("a", DROWSE_OFFLOAD);
  if (status == DROWSE_OK) status = wake_tag("a");
  return status == DROWSE_OK ? drowse_backup_trim(heap, 0) : status;
}

static drowse_status reserve_and_trim(void) {
  drowse_status status = drowse_backup_reserve(heap, 4 * MIB);
  return status == DROWSE_OK ? drowse_backup_trim(heap, 0) : status;
}

static drowse_status (*const calls[])(void) = {open_and_close,      allocate_and_free, copy,
                                               copy_asleep_in_file, sleep_and_wake,    reserve_and_trim};

START_TEST(calls_end_as_without) {
  for (unsigned before = atomic_load(&taken), rounds = 0; rounds < 3 || atomic_load(&taken) < before + SIGNALS; rounds++)
    ck_ok(calls[_i]());
  ck_state("a", DROWSE_AWAKE);
  ck_assert(has_pattern(block, BYTES, 1));
}
END_TEST

/* ---- calls that wait: what they wait for happens when so many signals have come since */

static struct gate gate;
static atomic_uint since;

static void await_signals(void) {
  while (atomic_load(&taken) < atomic_load(&since) + SIGNALS) (void)sched_yield();
}

static drowse_status open_gate_later(void *nothing) {
  (void)nothing;
  await_signals();
  open_gate(&gate);
  return DROWSE_OK;
}

static drowse_status wake_later(void *nothing) {
  (void)nothing;
  await_signals();
  return wake_tag("a");
}

static drowse_status unhold_later(void *nothing) {
  (void)nothing;
  await_signals();
  return drowse_unhold(heap, "a");
}

static void ck_waits(struct call *other, drowse_status (*end)(void *nothing), drowse_status (*wait)(void)) {
  sigset_t before;
  atomic_store(&since, atomic_load(&taken));
  mask_signals(&before);
  call_start(other, end, NULL);
  unmask_signals(&before);
  ck_ok(wait());
  ck_call_end(other, DROWSE_OK);
}

static drowse_status hold(void) {
  return drowse_hold(heap, "a", -1);
}

static drowse_status wait_for_tag(void) {
  return drowse_tag_wait(heap, "a", DROWSE_AWAKE, 60000);
}

static drowse_status offload(void) {
  return sleep_tag("a", DROWSE_OFFLOAD);
}

START_TEST(waits_end_as_without) {
  struct call other;
  ck_ok(sleep_tag("a", DROWSE_OFFLOAD));
  ck_waits(&other, wake_later, hold);
  ck_waits(&other, unhold_later, offload); /* waits for the hold */
  ck_waits(&other, wake_later, wait_for_tag);
  close_gate(&gate, NULL);
  ck_waits(&other, open_gate_later, offload); /* waits for the device */
  ck_ok(wake_tag("a"));
  close_gate(&gate, NULL);
  ck_waits(&other, open_gate_later, copy);
  ck_assert(has_pattern(block, BYTES, 1));
}
END_TEST

/* A signal does not end a wait before its time. */
START_TEST(times_are_kept) {
  drowse_op *op;
  ck_ok(drowse_hold(heap, "a", 0));
  ck_ok(drowse_sleep_start(heap, &(drowse_rule){.tag = "a", .action = DROWSE_OFFLOAD}, 1, NULL, &op));
  int64_t begun = dz_now();
  ck_status(drowse_op_wait(op, 50), DROWSE_ERR_TIMEOUT);
  ck_status(drowse_tag_wait(heap, "a", DROWSE_ASLEEP, 50), DROWSE_ERR_TIMEOUT);
  ck_assert_int_ge(dz_now() - begun, INT64_C(100) * 1000 * 1000);
  ck_ok(drowse_unhold(heap, "a"));
  ck_ok(drowse_op_wait(op, -1));
  drowse_op_release(op);
  ck_ok(wake_tag("a"));
  ck_assert(has_pattern(block, BYTES, 1));
}
END_TEST

int main(void) {
  Suite *suite = suite_create("signals");
  HARNESS_LOOP_TEST(suite, calls_end_as_without, start_storm, finish_storm, sizeof calls / sizeof *calls);
  HARNESS_FIXTURE_TEST(suite, waits_end_as_without, start_storm, finish_storm);
  HARNESS_FIXTURE_TEST(suite, times_are_kept, start_storm, finish_storm);
  return harness_run(suite);
}
