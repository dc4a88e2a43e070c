/* SPDX-License-Identifier: Apache-2.0
 *
 * What the system gives no more of: descriptors, address space, threads, length of files, room on a disk. Each call that takes
 * some is made under a limit that lets it have nothing beyond what the process has, then a little more, and so on until it
 * succeeds, so it meets every place at which it can run out. A call that fails says what is short and changes nothing, and
 * succeeds without the limit; afterwards everything that it took is given back.
 */
#include "fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fork/child.h"

enum { LARGE = 9 << 20, SMALL = 40003, RESERVED = 8 << 20 };

static void *large, *small, *another;
static drowse_heap *second;
static char directory[64];

/* ---- calls that take something */

struct act {
  const char *name;
  drowse_status (*prepare)(void), (*run)(void), (*undo)(void); /* the first may be NULL */
  drowse_state before, after;
};

static drowse_status open_second(void) {
  drowse_heap_options options = {.struct_size = sizeof options, .device = "host:32MiB"};
  return drowse_heap_open(&second, &options);
}

static drowse_status close_second(void) {
  return drowse_heap_close(second);
}

static drowse_status allocate(void) {
  drowse_alloc_options options = {.struct_size = sizeof options, .tag = "b"};
  return drowse_alloc_with(heap, LARGE, NULL, &options, &another);
}

static drowse_status give_back(void) {
  drowse_status status = drowse_free(heap, another);
  return status == DROWSE_OK ? drowse_trim(heap, 0) : status;
}

static drowse_status sleep_to_host(void) {
  return sleep_tag("a", DROWSE_OFFLOAD);
}

static drowse_status sleep_to_file(void) {
  drowse_sleep_options options = {.struct_size = sizeof options, .backup = DROWSE_BACKUP_FILE, .directory = directory};
  return drowse_sleep(heap, &(drowse_rule){.tag = "a", .action = DROWSE_OFFLOAD}, 1, &options);
}

static drowse_status trim_backups(void) {
  return drowse_backup_trim(heap, 0);
}

static drowse_status wake_and_trim(void) {
  drowse_status status = wake_tag("a");
  return status == DROWSE_OK ? trim_backups() : status;
}

static drowse_status wake(void) {
  return wake_tag("a");
}

static drowse_status reserve(void) {
  return drowse_backup_reserve(heap, RESERVED);
}

static const struct act acts[] = {
    {"open", NULL, open_second, close_second, DROWSE_AWAKE, DROWSE_AWAKE},
    {"alloc", NULL, allocate, give_back, DROWSE_AWAKE, DROWSE_AWAKE},
    {"reserve", NULL, reserve, trim_backups, DROWSE_AWAKE, DROWSE_AWAKE},
    {"sleep", NULL, sleep_to_host, wake_and_trim, DROWSE_AWAKE, DROWSE_ASLEEP},
    {"wake", sleep_to_host, wake, trim_backups, DROWSE_ASLEEP, DROWSE_AWAKE},
    {"sleep-to-file", NULL, sleep_to_file, wake_and_trim, DROWSE_AWAKE, DROWSE_ASLEEP},
    {"wake-from-file", sleep_to_file, wake, trim_backups, DROWSE_ASLEEP, DROWSE_AWAKE},
};
enum { SLEEP_TO_FILE = 5, ACTS = sizeof acts / sizeof *acts };

/* ---- limits: each lets the process have so many more than it has now */

struct kind {
  const char *name;
  void (*allow)(uint64_t more); /* nothing is asserted before it is lifted again: a check writes to a file */
  void (*lift)(void);
  uint64_t step, most;
  unsigned successes; /* in a row, that end the sweep */
  const char *meets;  /* the calls that run out under it */
  const char *may;    /* those that may, as the C library has kept ended threads' stacks or not; all others succeed */
  unsigned wants;     /* what they say then, WANT() of each */
  int codes[2];       /* ... and errno, where it is a call of the system's that has failed */
};
#define WANT(status) (1u << -(status))

static int resource, refused;
static struct rlimit unlimited;

static void set_limit(uint64_t value) {
  struct rlimit limit = {value < unlimited.rlim_max ? value : unlimited.rlim_max, unlimited.rlim_max};
  refused = setrlimit((__rlimit_resource_t)resource, &limit);
}

static void lift_limit(void) {
  ck_assert_int_eq(setrlimit((__rlimit_resource_t)resource, &unlimited), 0);
  ck_assert_int_eq(refused, 0);
}

/* The lowest numbers are in use: what can be opened are those from here on. */
static void allow_files(uint64_t more) {
  int next = dup(0);
  ck_assert_int_ge(next, 0);
  (void)close(next);
  set_limit((uint64_t)next + more);
}

static void allow_addresses(uint64_t more) {
  unsigned long long pages = 0;
  FILE *file = fopen("/proc/self/statm", "re");
  ck_assert_ptr_nonnull(file);
  ck_assert_int_eq(fscanf(file, "%llu", &pages), 1);
  (void)fclose(file);
  set_limit(pages * (uint64_t)sysconf(_SC_PAGESIZE) + more);
}

/* Of a user who has no other processes. */
static void allow_threads(uint64_t more) {
  set_limit(count_entries("/proc/self/task") - 2 + more);
}

/* A file takes the rest of the disk. */
enum { DISK = 24 << 20 };
static char filler[sizeof directory + 8];

static void allow_room(uint64_t more) {
  int file = open(filler, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  ck_assert_int_ge(file, 0);
  refused = more < DISK ? posix_fallocate(file, 0, (off_t)(DISK - more)) : 0;
  ck_assert_int_eq(close(file), 0);
}

static void lift_filler(void) {
  ck_assert_int_eq(unlink(filler), 0);
  ck_assert_int_eq(refused, 0);
}

static const struct kind files = {.name = "descriptors",
                                  .allow = allow_files,
                                  .lift = lift_limit,
                                  .step = 1,
                                  .most = 64,
                                  .successes = 1,
                                  .meets = "open sleep-to-file",
                                  .wants = WANT(DROWSE_ERR_NO_DEVICE_MEMORY) | WANT(DROWSE_ERR_IO),
                                  .codes = {EMFILE, EMFILE}};
static const struct kind addresses = {.name = "address space",
                                      .allow = allow_addresses,
                                      .lift = lift_limit,
                                      .step = MIB,
                                      .most = 512 * MIB,
                                      .successes = 8,
                                      .meets = "open alloc reserve sleep sleep-to-file",
                                      .may = "wake wake-from-file",
                                      .wants = WANT(DROWSE_ERR_NO_DEVICE_MEMORY) | WANT(DROWSE_ERR_NO_HOST_MEMORY) |
                                               WANT(DROWSE_ERR_NO_ADDRESS_SPACE) | WANT(DROWSE_ERR_SYSTEM),
                                      .codes = {ENOMEM, EAGAIN}};
static const struct kind threads = {.name = "threads",
                                    .allow = allow_threads,
                                    .lift = lift_limit,
                                    .step = 1,
                                    .most = 64,
                                    .successes = 1,
                                    .meets = "open sleep wake sleep-to-file wake-from-file",
                                    .wants = WANT(DROWSE_ERR_NO_DEVICE_MEMORY) | WANT(DROWSE_ERR_SYSTEM),
                                    .codes = {EAGAIN, EAGAIN}};
static const struct kind lengths = {.name = "file length",
                                    .allow = set_limit,
                                    .lift = lift_limit,
                                    .step = MIB,
                                    .most = 64 * MIB,
                                    .successes = 1,
                                    .meets = "sleep-to-file",
                                    .wants = WANT(DROWSE_ERR_IO),
                                    .codes = {EFBIG, EFBIG}};
static const struct kind room = {.name = "disk",
                                 .allow = allow_room,
                                 .lift = lift_filler,
                                 .step = MIB,
                                 .most = 64 * MIB,
                                 .successes = 1,
                                 .meets = "sleep-to-file",
                                 .wants = WANT(DROWSE_ERR_IO),
                                 .codes = {ENOSPC, ENOSPC}};
/* What is pinned the driver pins, not this process; a queue for files that the kernel counts as locked gives way to threads. */
static const struct kind locked = {
    .name = "locked memory", .allow = set_limit, .lift = lift_limit, .step = 1, .most = 1, .successes = 1, .meets = ""};

/* ---- one call under one limit */

static void ck_contents(void) {
  ck_assert(has_pattern(large, LARGE, 1));
  ck_assert(has_pattern(small, SMALL, 2));
}

/* A failure is one of want, and has the system's or the driver's reason where it is theirs. */
static void ck_want(const struct act *act, const struct kind *kind, drowse_status status, const drowse_error *error) {
  const char *name = drowse_status_name(status), *text = drowse_last_error();
  ck_assert_msg((kind->wants & WANT(status)) != 0, "%s, %s: %s: %s", act->name, kind->name, name, text);
  ck_assert_int_eq(error->status, status);
  ck_assert_msg(error->system_errno == 0 || error->system_errno == kind->codes[0] || error->system_errno == kind->codes[1],
                "%s, %s: errno %d: %s", act->name, kind->name, error->system_errno, text);
  ck_assert_msg(error->system_errno != 0 || error->driver_code == CUDA_ERROR_OUT_OF_MEMORY || strstr(text, "no memory") != NULL,
                "%s, %s: no reason: %s: %s", act->name, kind->name, name, text);
  if (status == DROWSE_ERR_IO) ck_says(directory);
}

static bool try_under_limit(const struct act *act, const struct kind *kind, uint64_t more) {
  drowse_error error = {.struct_size = sizeof error};
  if (act->prepare != NULL) ck_ok(act->prepare());
  kind->allow(more);
  drowse_status status = act->run();
  kind->lift();
  if (status != DROWSE_OK) {
    ck_ok(drowse_error_get(&error));
    ck_want(act, kind, status, &error);
    ck_state("a", act->before);
    ck_contents();
    ck_ok(act->run());
  }
  ck_state("a", act->after);
  ck_contents();
  ck_ok(act->undo());
  return status == DROWSE_OK;
}

static bool is_among(const char *list, const char *act) {
  char names[128], *rest = NULL;
  (void)snprintf(names, sizeof names, "%s", list == NULL ? "" : list);
  for (const char *name = strtok_r(names, " ", &rest); name != NULL; name = strtok_r(NULL, " ", &rest)) {
    if (strcmp(name, act) == 0) return true;
  }
  return false;
}

static void sweep(const struct act *act, const struct kind *kind) {
  unsigned failures = 0, successes = 0;
  for (uint64_t more = 0; successes < kind->successes; more += kind->step) {
    ck_assert_msg(more <= kind->most, "%s, %s: it does not end", act->name, kind->name);
    bool done = try_under_limit(act, kind, more);
    successes = done ? successes + 1 : 0;
    failures += !done;
  }
  if (!is_among(kind->may, act->name))
    ck_assert_msg((failures > 0) == is_among(kind->meets, act->name), "%s, %s: failed %u times", act->name, kind->name, failures);
}

/* ---- tests */

static void start_blocks(void) {
  (void)snprintf(directory, sizeof directory, "drowse-limits-XXXXXX");
  ck_assert_ptr_nonnull(mkdtemp(directory));
  start();
  write_pattern(large = alloc_tag("a", LARGE), LARGE, 1);
  write_pattern(small = alloc_tag("a", SMALL), SMALL, 2);
}

static void finish_blocks(void) {
  finish();
  ck_assert_int_eq(rmdir(directory), 0);
}

static void limit(int which) {
  resource = which;
  ck_assert_int_eq(getrlimit((__rlimit_resource_t)which, &unlimited), 0);
}

START_TEST(no_descriptors) {
  limit(RLIMIT_NOFILE);
  sweep(&acts[_i], &files);
}
END_TEST

START_TEST(no_address_space) {
  limit(RLIMIT_AS);
  sweep(&acts[_i], &addresses);
}
END_TEST

START_TEST(no_locked_memory) {
  limit(RLIMIT_MEMLOCK);
  sweep(&acts[_i], &locked);
}
END_TEST

/* Files that stand for device memory have a length, too: only those for backups are looked at. */
START_TEST(files_may_not_be_long) {
  limit(RLIMIT_FSIZE);
  sweep(&acts[SLEEP_TO_FILE], &lengths);
}
END_TEST

/* ---- what needs a system that lets it be set up */

enum { NOBODY = 65534 };

/* The superuser may start as many as he likes. */
static bool become_nobody(void) {
  return geteuid() != 0 || setresuid(NOBODY, NOBODY, 0) == 0;
}

static void finish_as_before(void) {
  uid_t real, effective, saved;
  ck_assert_int_eq(getresuid(&real, &effective, &saved), 0);
  ck_assert_int_eq(setresuid(saved, saved, saved), 0);
  finish_blocks();
}

static int thread_is_refused(void) {
  pthread_t thread;
  const struct rlimit none = {0, 0};
  if (!become_nobody() || setrlimit(RLIMIT_NPROC, &none) != 0) return 1;
  return pthread_create(&thread, NULL, do_nothing, NULL) == EAGAIN ? 0 : 1;
}

START_TEST(no_threads) {
  limit(RLIMIT_NPROC);
  ck_assert_int_eq(chmod(directory, 0777), 0);
  ck_assert(become_nobody());
  sweep(&acts[_i], &threads);
}
END_TEST

static bool mount_small_disk(const char *where) {
  char options[32];
  (void)snprintf(options, sizeof options, "size=%d", DISK);
  return unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
         mount("drowse", where, "tmpfs", 0, options) == 0;
}

static int disk_can_be_made(void) {
  return mount_small_disk("/tmp") ? 0 : 1;
}

START_TEST(the_disk_is_full) {
  ck_assert(mount_small_disk(directory));
  (void)snprintf(filler, sizeof filler, "%s/filler", directory);
  sweep(&acts[SLEEP_TO_FILE], &room);
  ck_assert_int_eq(umount(directory), 0);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("limits");
  HARNESS_LOOP_TEST(suite, no_descriptors, start_blocks, finish_blocks, ACTS);
  /* A sanitizer's own tables take more than any limit. */
  if (!SANITIZED) HARNESS_LOOP_TEST(suite, no_address_space, start_blocks, finish_blocks, ACTS);
  HARNESS_LOOP_TEST(suite, no_locked_memory, start_blocks, finish_blocks, ACTS);
  HARNESS_FIXTURE_TEST(suite, files_may_not_be_long, start_blocks, finish_blocks);
  if (in_child(thread_is_refused) == 0)
    HARNESS_LOOP_TEST(suite, no_threads, start_blocks, finish_as_before, ACTS);
  else
    (void)puts("left out: no threads: this system does not hold a user to RLIMIT_NPROC");
  if (in_child(disk_can_be_made) == 0)
    HARNESS_FIXTURE_TEST(suite, the_disk_is_full, start_blocks, finish_blocks);
  else
    (void)puts("left out: a full disk: this user may not mount one");
  return harness_run(suite);
}
