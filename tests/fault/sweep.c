/* SPDX-License-Identifier: Apache-2.0
 *
 * How the sweep runs its cases, and reports.
 */
#include "fault/sweep.h"

#include <errno.h>
#include <execinfo.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fault/promise.h"
#include "fault/world.h"

/* ---- what a case's process leaves to the one that sweeps */

static struct report {
  bool injected, done;
  uint64_t calls[FAULT_POINTS];
  struct left left; /* of a run without a fault */
  char failure[2048];
  int frames;
  void *stack[32];
} * report;

static const struct scenario *scenario;
static struct fault_case at_hand, asked; /* asked for: k is 0 if all cases of the point are */
static bool one_point;

static bool is_model(void) {
  return (scenario->flags & (SWEEP_FINDS_LOSS | SWEEP_FINDS_EXIT | SWEEP_MODEL)) != 0;
}

const struct fault_case *sweep_case(void) {
  return &at_hand;
}

bool sweep_is_about_context(void) {
  bool later = at_hand.mode != FAULT_ONCE || fault_is_for_ever();
  return later && fault_injected();
}

/* At once: the process may not live to tell. */
static void note_injection(void) {
  report->injected = true;
  report->frames = backtrace(report->stack, sizeof report->stack / sizeof *report->stack);
}

static void note_calls(void) {
  for (size_t i = 0; i < FAULT_POINTS; i++) report->calls[i] = fault_calls((enum fault_point)i);
}

void expect_fail(const char *file, int line, const char *format, ...) {
  va_list values;
  int length = snprintf(report->failure, sizeof report->failure, "%s:%d: ", file, line);
  va_start(values, format);
  (void)vsnprintf(report->failure + length, sizeof report->failure - (size_t)length, format, values);
  va_end(values);
  _exit(EXIT_FAILURE);
}

/* ---- one case */

static drowse_status call_with_fault(struct promise_error *error) {
  fault_arm(&at_hand);
  drowse_status status = scenario->call();
  promise_take_error(error);
  world_settle();
  fault_rest();
  note_calls();
  return status;
}

static void look(drowse_status status) {
  if (scenario->check != NULL) scenario->check(status);
  world_check();
}

static void run_case(void) {
  struct promise_error error;
  world_begin();
  if ((scenario->flags & SWEEP_FRESH) == 0) world_use_thread();
  if (scenario->set_up != NULL) scenario->set_up();
  if ((scenario->flags & SWEEP_FRESH) == 0) promise_begin();
  drowse_status status = call_with_fault(&error);
  if (!is_model()) promise_check(&at_hand, scenario, status, &error);
  look(status);
  if (status != DROWSE_OK && !fault_is_for_ever()) {
    EXPECT_OK(scenario->call());
    look(DROWSE_OK);
  }
  world_end(at_hand.k == 0 ? NULL : &report->left, &report->left);
  report->done = true;
}

/* ---- the process of a case */

enum { PATIENCE_S = 60 }; /* a case takes milliseconds */

static void run_in_child(void) {
  pid_t child = fork();
  if (child == 0) {
    (void)alarm(PATIENCE_S);
    run_case();
    _exit(EXIT_SUCCESS);
  }
  int ended = 0;
  while (child > 0 && waitpid(child, &ended, 0) < 0 && errno == EINTR) continue;
  if (child < 0) (void)snprintf(report->failure, sizeof report->failure, "no process: %s", strerror(errno));
  if (child > 0 && WIFSIGNALED(ended))
    (void)snprintf(report->failure, sizeof report->failure, WTERMSIG(ended) == SIGALRM ? "it hangs" : "it is killed by signal %d",
                   WTERMSIG(ended));
  if (child > 0 && !report->done && report->failure[0] == '\0')
    (void)snprintf(report->failure, sizeof report->failure, "it exits with %d", WEXITSTATUS(ended));
}

static void begin_case(const struct fault_case *wanted) {
  struct left left = report->left;
  memset(report, 0, sizeof *report);
  report->left = left;
  at_hand = *wanted;
}

/* ---- reporting */

static unsigned failures, findings; /* findings: of the scenario at hand */

/* What the failure of a case has to say for it to be what is to be found in a model; NULL: there is nothing. */
static const char *wanted_finding(void) {
  if ((scenario->flags & SWEEP_FINDS_LOSS) != 0) return "lost";
  return (scenario->flags & SWEEP_FINDS_EXIT) != 0 ? "it exits" : NULL;
}

/* Frames of this program are "PROGRAM(+0x1234) [...]", since it exports nothing; what they are is in its debugging information.
 */
static bool resolve_stack(char **frames) {
  char command[4096];
  int length = snprintf(command, sizeof command, "exec addr2line -pfse /proc/%d/exe", (int)getpid());
  for (int i = 0; i < report->frames; i++) {
    const char *offset = strstr(frames[i], "(+0x");
    if (offset != NULL && strstr(frames[i], ".so") == NULL)
      length += snprintf(command + length, sizeof command - (size_t)length, " %.*s", (int)strcspn(offset + 2, ")"), offset + 2);
  }
  (void)fflush(stdout);
  return system(command) == 0;
}

static void print_stack(void) {
  char **frames = backtrace_symbols(report->stack, report->frames);
  if (frames != NULL && !resolve_stack(frames)) {
    for (int i = 0; i < report->frames; i++) (void)printf("    %s\n", frames[i]);
  }
  free(frames);
}

static void print_finding(void) {
  findings++;
  (void)printf("  found: %s:%llu:%s:%s: %s\n", fault_point_name(at_hand.point), (unsigned long long)at_hand.k,
               fault_mode_name(at_hand.mode), fault_variant_name(at_hand.variant), report->failure);
}

static void print_failure(const char *program) {
  const char *finding = wanted_finding();
  if (finding != NULL && strstr(report->failure, finding) != NULL) {
    print_finding();
    return;
  }
  failures++;
  (void)printf("FAILED %s, %s: %s\n", scenario->name, at_hand.k == 0 ? "no fault" : fault_point_name(at_hand.point),
               report->failure);
  if (at_hand.k == 0) return;
  (void)printf("  DROWSE_FAULT=%s:%llu:%s:%s %s %s\n", fault_point_name(at_hand.point), (unsigned long long)at_hand.k,
               fault_mode_name(at_hand.mode), fault_variant_name(at_hand.variant), program, scenario->name);
  print_stack();
}

/* ---- all cases of a scenario */

static bool is_deep(void) {
  const char *deep = getenv("DROWSE_DEEP");
  return deep != NULL && strcmp(deep, "1") == 0;
}

/* Every call fails once in every way, and every call is the first of those that fail from then on. What else there is begins with
 * some calls only, unless the sweep is deep. */
static bool is_sampled(enum fault_mode mode, enum fault_variant variant) {
  if (is_deep()) return false;
  if (mode == FAULT_ONCE) return variant == FAULT_SLOW;
  return mode == FAULT_ON || variant != FAULT_REFUSED || (scenario->flags & SWEEP_BRIEF) != 0;
}

/* Until a run injects nothing. The samples are ever further apart: 1, 2, 3, 5, 8 ... */
static unsigned sweep_point(const char *program, enum fault_point point, enum fault_mode mode, enum fault_variant variant) {
  unsigned cases = 0;
  for (uint64_t k = 1, step = 1, next; true; k = next) {
    next = k + (is_sampled(mode, variant) ? step : 1);
    step = k;
    begin_case(&(struct fault_case){point, k, mode, variant});
    run_in_child();
    if (report->failure[0] != '\0') print_failure(program);
    if (!report->injected) return cases;
    cases++;
  }
}

/* In a model each entry fails once: that shows enough. On a GPU, where each process takes a second to get at it, too; and there a
 * context that is not given back keeps files and threads of the driver's, so that what is ours cannot be told. */
static bool is_swept(enum fault_point point, enum fault_mode mode, enum fault_variant variant) {
  if (world_is_on_gpu() && point == FAULT_DevicePrimaryCtxRelease) return false;
  bool brief = is_model() || (world_is_on_gpu() && !is_deep());
  if (brief && (!fault_is_entry(point) || mode != FAULT_ONCE)) return false;
  return fault_has(point, mode, variant);
}

static unsigned sweep_points(const char *program, const uint64_t *calls) {
  unsigned cases = 0;
  for (int point = 0; point < FAULT_POINTS; point++) {
    if (one_point && point != (int)asked.point) continue;
    for (int mode = 0; calls[point] > 0 && mode < FAULT_MODES; mode++) {
      for (int variant = 0; variant < FAULT_VARIANTS; variant++) {
        if (is_swept((enum fault_point)point, (enum fault_mode)mode, (enum fault_variant)variant))
          cases += sweep_point(program, (enum fault_point)point, (enum fault_mode)mode, (enum fault_variant)variant);
      }
    }
  }
  return cases;
}

static unsigned sweep(const char *program) {
  uint64_t calls[FAULT_POINTS], sum = 0;
  memset(&report->left, 0, sizeof report->left);
  begin_case(&(struct fault_case){.k = 0});
  run_in_child();
  if (report->failure[0] != '\0') {
    print_failure(program);
    return 0;
  }
  memcpy(calls, report->calls, sizeof calls);
  for (size_t i = 0; i < FAULT_POINTS; i++) sum += calls[i];
  if ((scenario->flags & SWEEP_CALLS_NOTHING) != 0 && sum != 0) {
    (void)snprintf(report->failure, sizeof report->failure, "it makes %llu calls", (unsigned long long)sum);
    print_failure(program);
  }
  findings = 0;
  unsigned cases = sweep_points(program, calls);
  if (wanted_finding() != NULL && findings == 0 && !one_point) {
    (void)snprintf(report->failure, sizeof report->failure, "the sweep has not found that it is wrong");
    print_failure(program);
  }
  (void)printf("%s: %llu calls, %u cases\n", scenario->name, (unsigned long long)sum, cases);
  (void)fflush(stdout);
  return cases;
}

/* ---- the command line */

static bool is_wanted(int argc, char **argv, const struct scenario *one) {
  bool wanted = argc < 2;
  for (int i = 1; i < argc; i++) wanted |= strcmp(argv[i], one->name) == 0;
  return wanted && !(world_is_on_gpu() && (one->flags & SWEEP_HOST) != 0);
}

static int run_one(const char *program) {
  begin_case(&(struct fault_case){.k = 0});
  run_in_child();
  begin_case(&asked);
  if (fork() != 0) {
    int ended;
    (void)wait(&ended);
    if (report->failure[0] != '\0') print_failure(program);
    (void)printf("%s: %s\n", scenario->name, !report->injected ? "nothing was injected" : ended == 0 ? "ok" : "FAILED");
    return ended == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
  }
  run_case();
  _exit(EXIT_SUCCESS);
}

int sweep_main(int argc, char **argv, const struct scenario *scenarios, size_t count) {
  const char *wanted = getenv("DROWSE_SWEEP"), *fault = getenv("DROWSE_FAULT");
  unsigned cases = 0;
  if (wanted != NULL && strcmp(wanted, "no") == 0) return 77; /* skipped: one build of several is enough */
  if (fault != NULL && !fault_parse(fault, &asked)) {
    (void)fprintf(stderr, "DROWSE_FAULT=%s: POINT[:K[:MODE[:VARIANT]]] is wanted, MemUnmap:3:once:done\n", fault);
    return 2;
  }
  one_point = fault != NULL && asked.k == 0;
  fault_tell(note_injection);
  world_make_pattern();
  report = mmap(NULL, sizeof *report, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (report == MAP_FAILED) return 99;
  void *nothing[1];
  (void)backtrace(nothing, 1); /* its first call loads a library */
  for (size_t i = 0; i < count; i++) {
    scenario = &scenarios[i];
    if (!is_wanted(argc, argv, scenario)) continue;
    if (fault != NULL && !one_point) return run_one(argv[0]);
    cases += sweep(argv[0]);
  }
  (void)printf("%u cases, %u failed\n", cases, failures);
  return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
