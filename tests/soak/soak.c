/* SPDX-License-Identifier: Apache-2.0
 *
 * A soak of examples/server: is every byte of every answer right, however the server sleeps and wakes, whatever clients do and
 * whoever takes its memory; and does it have as much of the system at the end as at the beginning?
 *
 * First a drill of requests with known answers, then a quarter of the load to warm up, then the rest. What it prints is for
 * people; exit status: 0 all is well, 1 something is wrong, 2 the command line makes no sense.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "drill.h"
#include "load.h"
#include "watch.h"

static const char help[] =
    "Usage: soak --port=PORT --pid=PID --file=FILE [OPTION]...\n"
    "\n"
    "  --port=PORT, --pid=PID  the server\n"
    "  --file=FILE             what it serves\n"
    "  --threads=N             default: 4\n"
    "  --requests=N            default: 2000\n"
    "  --seconds=N             so long, and not so many\n"
    "  --tenant=BYTES          it was started with --tenant: what the tenant takes at most, with which the weights cannot wake\n"
    "  --naps                  it was started with an --idle of milliseconds\n"
    "  --stops                 it may be stopped for moments by SIGSTOP\n"
    "  --faults=FILE           its driver fails now and then while there is FILE, which the soak makes and removes\n"
    "  --growth=MIB            how much its resident memory may grow after the warm-up; 0: as it likes; default: 32\n"
    "  --seed=N                default: 1\n";

enum { EXIT_USAGE = 2 };

struct options {
  struct target target;
  const char *file;
  uint64_t threads, requests, seconds, growth_mib, seed;
};

struct measure {
  struct figures figures;
  uint64_t metadata_bytes, host_bytes;
};

/* ---- the command line */

static bool take_number(const char *text, uint64_t *number) {
  size_t length = strlen(text);
  if (length == 0 || length > 18 || strspn(text, "0123456789") != length) return wrong("\"%s\": not a number", text);
  *number = strtoull(text, NULL, 10);
  return true;
}

static bool parse(struct options *options, int argc, char **argv) {
  static const struct option names[] = {{"port", required_argument, NULL, 'p'},
                                        {"pid", required_argument, NULL, 'P'},
                                        {"file", required_argument, NULL, 'f'},
                                        {"threads", required_argument, NULL, 't'},
                                        {"requests", required_argument, NULL, 'r'},
                                        {"seconds", required_argument, NULL, 's'},
                                        {"tenant", required_argument, NULL, 'T'},
                                        {"naps", no_argument, NULL, 'n'},
                                        {"stops", no_argument, NULL, 'S'},
                                        {"growth", required_argument, NULL, 'g'},
                                        {"seed", required_argument, NULL, 'e'},
                                        {"faults", required_argument, NULL, 'F'},
                                        {0}};
  uint64_t port = 0, pid = 0;
  *options = (struct options){.threads = 4, .requests = 2000, .growth_mib = 32, .seed = 1};
  for (int option; (option = getopt_long(argc, argv, "", names, NULL)) != -1;) {
    bool good = option == 'p'   ? take_number(optarg, &port)
                : option == 'P' ? take_number(optarg, &pid)
                : option == 't' ? take_number(optarg, &options->threads)
                : option == 'r' ? take_number(optarg, &options->requests)
                : option == 's' ? take_number(optarg, &options->seconds)
                : option == 'T' ? take_number(optarg, &options->target.tenant_bytes)
                : option == 'g' ? take_number(optarg, &options->growth_mib)
                : option == 'e' ? take_number(optarg, &options->seed)
                                : option == 'f' || option == 'F' || option == 'n' || option == 'S';
    if (!good) return false;
    if (option == 'f') options->file = optarg;
    if (option == 'F') options->target.faults = optarg;
    if (option == 'n') options->target.naps = true;
    if (option == 'S') options->target.stops = true;
  }
  if (options->seconds > 0) options->requests = 0;
  options->target.port = (unsigned)port;
  options->target.pid = (pid_t)pid;
  return port > 0 && pid > 0 && options->file != NULL && options->threads > 0 && optind == argc;
}

static bool map_file(struct target *target, const char *path) {
  struct stat info;
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0 || fstat(fd, &info) != 0) return wrong("%s: %s", path, strerror(errno));
  target->file_bytes = (size_t)info.st_size;
  void *file = mmap(NULL, target->file_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
  (void)close(fd);
  if (file == MAP_FAILED) return wrong("%s: %s", path, strerror(errno));
  target->file = file;
  return true;
}

/* ---- measuring: always in the same state, asleep, with nobody connected */

/* Once more to sleep, which gives back what the driver did not take before. */
static bool lie_down(struct wire *wire, const struct target *target, bool *rests) {
  uint64_t holds, stuck;
  if (target->tenant_bytes > 0 && !expect_tenant(wire, 0, true)) return false;
  if (!expect_status(wire, "POST", "/wake", 200) || !expect_status(wire, "POST", "/sleep", 200)) return false;
  if (!expect_figure(wire, "holds", &holds) || !expect_figure(wire, "stuck_bytes", &stuck)) return false;
  *rests = holds == 0 && stuck == 0 && strstr(wire->body, "\"asleep\"") != NULL;
  return true;
}

/* The server may still be at work on requests that were broken off, and wake for them. */
static bool come_to_rest(struct wire *wire, const struct target *target) {
  enum { TRIES = 10 };
  struct figures unused;
  bool rests = false;
  for (int tries = 0; tries < TRIES && !rests; tries++) {
    if (!lie_down(wire, target, &rests)) return false;
    if (!rests && !watch_settle(target->pid, &unused)) return wrong("the server is gone");
  }
  return rests || wrong("it does not come to rest: a hold is open, or memory stuck: %s", wire->body);
}

static bool take_measure(const struct target *target, struct measure *measure) {
  struct wire wire;
  wire_make(&wire, target->port);
  bool done = come_to_rest(&wire, target) && expect_figure(&wire, "metadata_bytes", &measure->metadata_bytes) &&
              expect_figure(&wire, "host_bytes", &measure->host_bytes);
  wire_end(&wire);
  return done && (watch_settle(target->pid, &measure->figures) || wrong("the server is gone"));
}

/* ---- running and telling */

static struct amount part(const struct options *options, unsigned quarters) {
  return (struct amount){.requests = options->requests * quarters / 4, .seconds = (double)options->seconds * quarters / 4};
}

static void print_measure(const char *name, const struct measure *measure) {
  printf("%-22s %zu KiB resident, %zu threads, %zu files, %llu bytes of metadata, %llu KiB for backups\n", name,
         measure->figures.resident_kib, measure->figures.threads, measure->figures.files,
         (unsigned long long)measure->metadata_bytes, (unsigned long long)measure->host_bytes / 1024);
}

static void print_totals(struct totals *totals) {
  typedef unsigned long long count;
  printf("%-22s %llu, of which %llu for bytes\n", "requests", (count)totals->requests, (count)totals->ranges);
  printf("%-22s %llu\n", "broken off", (count)totals->aborts);
  printf("%-22s %llu asked for, %llu by itself\n", "sleeps", (count)totals->sleeps, (count)totals->naps);
  printf("%-22s %llu asked for, %zu by requests\n", "wakes", (count)totals->wakes, totals->first.count);
  printf("%-22s %llu\n", "stopped and continued", (count)totals->stops);
  printf("%-22s %llu\n", "refused (503)", (count)totals->refusals);
  printf("%-22s %llu\n", "failed (500)", (count)totals->failures);
  printf("%-22s %llu\n", "wrong bytes", (count)totals->wrong_bytes);
  printf("%-22s %llu\n", "wrong answers", (count)totals->wrong_answers);
  latency_print(&totals->latency, "latency");
  latency_print(&totals->first, "... first after sleep");
}

static bool judge(const struct options *options, const struct totals *totals, const struct measure *begin,
                  const struct measure *end) {
  bool good = totals->wrong_bytes == 0 && totals->wrong_answers == 0;
  if (end->figures.threads > begin->figures.threads) good = wrong("there are more threads than at the beginning");
  if (end->figures.files > begin->figures.files) good = wrong("there are more open files than at the beginning");
  if (options->growth_mib > 0 && end->figures.resident_kib > begin->figures.resident_kib + options->growth_mib * 1024)
    good = wrong("resident memory has grown by more than %llu MiB", (unsigned long long)options->growth_mib);
  return good;
}

static bool set_faults(const struct target *target, bool on) {
  if (target->faults == NULL) return true;
  int fd = on ? open(target->faults, O_WRONLY | O_CREAT | O_CLOEXEC, 0600) : -1;
  if (on ? fd < 0 : unlink(target->faults) != 0) return wrong("%s: %s", target->faults, strerror(errno));
  return !on || close(fd) == 0;
}

/* A part of the load, and what the server has of the system afterwards. */
static bool run_part(const struct options *options, unsigned quarters, struct totals *totals, struct measure *measure) {
  const struct target *target = &options->target;
  if (!set_faults(target, true)) return false;
  load_run(target, (unsigned)options->threads, part(options, quarters), options->seed + quarters * options->threads, totals);
  return set_faults(target, false) && take_measure(target, measure);
}

static bool run(const struct options *options) {
  struct totals totals = {0};
  struct measure begin, end;
  bool good = drill(&options->target) && run_part(options, 1, &totals, &begin) && run_part(options, 3, &totals, &end);
  print_totals(&totals);
  if (good) {
    print_measure("after the warm-up", &begin);
    print_measure("at the end", &end);
    good = judge(options, &totals, &begin, &end);
  }
  latency_end(&totals.latency);
  latency_end(&totals.first);
  return good;
}

int main(int argc, char **argv) {
  struct options options;
  if (!parse(&options, argc, argv)) {
    (void)fputs(help, stderr);
    return EXIT_USAGE;
  }
  if (!map_file(&options.target, options.file)) return EXIT_FAILURE;
  bool good = run(&options);
  puts(good ? "all is well" : "NOT all is well");
  return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
