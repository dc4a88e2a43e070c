/* SPDX-License-Identifier: Apache-2.0
 *
 * The command line.
 */
#include "options.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache.h"
#include "say.h"

static const char help[] =
    "Usage: server [OPTION]... FILE\n"
    "\n"
    "Serves the bytes of FILE over HTTP on 127.0.0.1 from the memory of a GPU. When nobody asks it sleeps: the\n"
    "device has its memory back. The next request wakes it.\n"
    "\n"
    "  GET  /weights?offset=N&bytes=N   those bytes; 503 and Retry-After if the weights cannot be woken in time\n"
    "  GET  /health                     {\"state\": \"awake\"}, or asleep, or waking; with ?wait=awake or ?wait=asleep\n"
    "                                   answers when it is so, or the deadline is over\n"
    "  GET  /stats                      figures, as JSON\n"
    "  POST /sleep, POST /wake          now, and answers when it is done\n"
    "  POST /tenant?bytes=N&yields=1    with --tenant: has the tenant hold N bytes, and yield them when asked, or not\n"
    "\n"
    "  -p, --port=PORT          default: any that is free\n"
    "  -d, --device=DEVICE      cuda:N, host, host:SIZE, auto; default: $DROWSE_DEVICE, else cuda:0\n"
    "  -i, --idle=MS            sleeps when there has been no request for so long; 0: never by itself; default: 60000\n"
    "  -w, --deadline=MS        how long a request waits for the weights; default: 10000\n"
    "  -m, --patience=MS        how long waking waits for device memory that others have, before it says so; default: 1000\n"
    "  -c, --cache=SIZE         device memory for answers, lost when it sleeps; default: 4MiB, at least 64KiB\n"
    "  -s, --seal               keeps the backup: sleeps after the first one copy nothing\n"
    "  -b, --backup-limit=SIZE  host memory for the backup; default: what the machine can give\n"
    "  -D, --directory=DIR      what does not fit there goes to a file in DIR\n"
    "  -t, --tenant             has another user of the device in the process, for trying out what happens without memory\n"
    "  -h, --help               this text\n"
    "\n"
    "SIGTERM and SIGINT end it. Exit status: 0 it was told to end, 1 something failed, 2 the command line makes no sense.\n";

/* A decimal number of at most most. */
static bool parse_number(const char *name, const char *text, unsigned most, unsigned *number) {
  size_t length = strlen(text);
  unsigned long value = length > 0 && length < 10 ? strtoul(text, NULL, 10) : most + 1UL;
  if (strspn(text, "0123456789") != length || value > most) {
    say("--%s \"%s\": not a number from 0 to %u", name, text, most);
    return false;
  }
  *number = (unsigned)value;
  return true;
}

static bool unit_shift(const char *unit, unsigned *shift) {
  static const char *const units[] = {"", "KiB", "MiB", "GiB", "TiB"};
  for (unsigned i = 0; i < sizeof units / sizeof *units; i++) {
    if (strcmp(unit, units[i]) != 0) continue;
    *shift = 10 * i;
    return true;
  }
  return false;
}

/* "1048576", "4MiB". */
static bool parse_size(const char *name, const char *text, uint64_t *bytes) {
  size_t digits = strspn(text, "0123456789");
  unsigned shift = 0;
  uint64_t number = digits > 0 && digits < 19 ? strtoull(text, NULL, 10) : 0;
  if (number > 0 && unit_shift(text + digits, &shift) && number <= UINT64_MAX >> shift) {
    *bytes = number << shift;
    return true;
  }
  say("--%s \"%s\": not a size such as 512MiB or 1048576", name, text);
  return false;
}

static bool parse_cache(const char *text, uint64_t *bytes) {
  if (!parse_size("cache", text, bytes)) return false;
  if (*bytes >= CACHE_SLOT_BYTES) return true;
  say("--cache \"%s\": less than %d bytes", text, CACHE_SLOT_BYTES);
  return false;
}

/* One option; false: it is wrong, and that has been said. */
static bool take(struct options *options, int option, const char *word) {
  switch (option) {
  case 'p':
    return parse_number("port", optarg, 65535, &options->port);
  case 'i':
    return parse_number("idle", optarg, 86400000, &options->idle_ms);
  case 'w':
    return parse_number("deadline", optarg, 86400000, &options->deadline_ms);
  case 'm':
    return parse_number("patience", optarg, 86400000, &options->patience_ms);
  case 'c':
    return parse_cache(optarg, &options->cache_bytes);
  case 'b':
    return parse_size("backup-limit", optarg, &options->backup_limit);
  case 'd':
    options->device = optarg;
    return true;
  case 'D':
    options->directory = optarg;
    return true;
  case 's':
    return options->sealed = true;
  case 't':
    return options->tenant = true;
  case ':':
    say("%s: its argument is missing: try --help", word);
    return false;
  default:
    say("%s: no such option: try --help", word);
    return false;
  }
}

static enum parsed take_file(struct options *options, int count, char **operands) {
  if (count == 1) {
    options->file = operands[0];
    return PARSED_RUN;
  }
  if (count == 0)
    say("no FILE is given: try --help");
  else
    say("one FILE is served, not %d: try --help", count);
  return PARSED_WRONG;
}

enum parsed options_parse(struct options *options, int argc, char **argv) {
  static const struct option names[] = {{"port", required_argument, NULL, 'p'},
                                        {"device", required_argument, NULL, 'd'},
                                        {"idle", required_argument, NULL, 'i'},
                                        {"deadline", required_argument, NULL, 'w'},
                                        {"patience", required_argument, NULL, 'm'},
                                        {"cache", required_argument, NULL, 'c'},
                                        {"seal", no_argument, NULL, 's'},
                                        {"backup-limit", required_argument, NULL, 'b'},
                                        {"directory", required_argument, NULL, 'D'},
                                        {"tenant", no_argument, NULL, 't'},
                                        {"help", no_argument, NULL, 'h'},
                                        {0}};
  *options = (struct options){.idle_ms = 60000, .deadline_ms = 10000, .patience_ms = 1000, .cache_bytes = 4 << 20};
  opterr = 0;
  for (int option; (option = getopt_long(argc, argv, ":p:d:i:w:m:c:sb:D:th", names, NULL)) != -1;) {
    if (option == 'h') {
      (void)fputs(help, stdout);
      return PARSED_HELP;
    }
    if (!take(options, option, argv[optind - 1])) return PARSED_WRONG;
  }
  return take_file(options, argc - optind, argv + optind);
}
