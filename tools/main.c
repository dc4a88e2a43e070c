/* SPDX-License-Identifier: Apache-2.0
 *
 * drowse, the program: shows what is there, and puts files in device memory to sleep and wakes them.
 */
#include <getopt.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"

static const char help[] =
    "Usage: drowse info [-d DEVICE] [--json]\n"
    "       drowse cycle [-d DEVICE] [-n ROUNDS] [--json] TAG=ACTION:WHAT ...\n"
    "       drowse --help | --version\n"
    "\n"
    "info   shows the devices, their drivers and memory, and the settings in force.\n"
    "cycle  loads files into device memory under tags, puts the tags to sleep, wakes them, checks every\n"
    "       byte and every pointer, and says how long it took and what the device got back meanwhile.\n"
    "\n"
    "  TAG=offload:FILE     sleeps, and the file's bytes wait in host memory\n"
    "  TAG=discard:SIZE     SIZE bytes (64MiB, 1.5GiB) that sleep without contents\n"
    "  TAG=keep:FILE        stays awake\n"
    "  A tag may be given several times, with one action.\n"
    "\n"
    "  -d, --device=DEVICE  cuda:N, cuda:GPU-<uuid>, host, host:SIZE, or auto: cuda:0 where there is one,\n"
    "                       else host. Default: $DROWSE_DEVICE, else auto\n"
    "  -n, --rounds=ROUNDS  how many times to sleep and wake; default: 1\n"
    "      --json           exact bytes and seconds, as JSON\n"
    "  -h, --help           this text\n"
    "  -V, --version        the version\n"
    "\n"
    "Exit status: 0 all is whole, 1 something failed, 2 the command line makes no sense.\n"
    "\n"
    "Without a GPU, 256 MiB on the emulated device:\n"
    "  drowse cycle -d host:1GiB weights=offload:FILE kv_cache=discard:256MiB\n"
    "\n"
    "More: man drowse. The library: man 7 drowse.\n";

static int print(const char *text) {
  fputs(text, stdout);
  return dz_output_done() ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* Wherever it stands among a subcommand's words: who asks for help has tried something else before. */
static bool wants_help(int argc, char **argv) {
  for (int i = 2; i < argc && strcmp(argv[i], "--") != 0; i++) {
    if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) return true;
  }
  return false;
}

/* What stands before the subcommand: options, or nothing at all. */
static int run_without_command(int argc, char **argv) {
  static const struct option options[] = {{"help", no_argument, NULL, 'h'}, {"version", no_argument, NULL, 'V'}, {0}};
  opterr = 0;
  int option = getopt_long(argc, argv, "+:hV", options, NULL);
  if (option == 'h' || (argc > 1 && strcmp(argv[1], "help") == 0)) return print(help);
  if (option == 'V') {
    printf("drowse %s\n", drowse_version());
    return print("");
  }
  if (argc < 2)
    dz_say("info or cycle? Try drowse --help");
  else if (option != -1)
    dz_say("%s: no such option: try drowse --help", argv[1]);
  else
    dz_say("%s: no such command: there are info and cycle; try drowse --help", argv[1]);
  return DZ_EXIT_USAGE;
}

int main(int argc, char **argv) {
  setlocale(LC_CTYPE, "");
  static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
  } commands[] = {{"info", dz_info}, {"cycle", dz_cycle}};
  for (size_t i = 0; argc > 1 && i < sizeof commands / sizeof *commands; i++) {
    if (strcmp(argv[1], commands[i].name) != 0) continue;
    if (wants_help(argc, argv)) return print(help);
    dz_say_command(commands[i].name);
    return commands[i].run(argc - 1, argv + 1);
  }
  return run_without_command(argc, argv);
}
