/* SPDX-License-Identifier: Apache-2.0
 *
 * The options of the subcommands.
 */
#include "options.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"

enum { ROUNDS_MAX = 1000000 };

static bool parse_rounds(const char *text, unsigned *rounds) {
  char *end;
  unsigned long value = strtoul(text, &end, 10);
  if (strspn(text, "0123456789") != strlen(text) || end == text || value < 1 || value > ROUNDS_MAX) {
    dz_say("-n \"%s\": not a number from 1 to %d", text, ROUNDS_MAX);
    return false;
  }
  *rounds = (unsigned)value;
  return true;
}

enum { JSON = 0x100 };

/* Names the option that getopt_long() stopped at with '?' or ':'. Only an unknown letter may stand in the middle of a word that
 * getopt_long() is not yet through with. */
static void say_bad_option(int stop, const char *word) {
  if (stop == ':')
    dz_say("%s: its argument is missing: try drowse --help", word);
  else if (optopt == JSON)
    dz_say("%s: it takes no argument: try drowse --help", word);
  else if (optopt == 0)
    dz_say("%s: no such option: try drowse --help", word);
  else
    dz_say("-%c: no such option: try drowse --help", optopt);
}

bool dz_options_parse(struct options *options, int argc, char **argv, bool allow_rounds, int *operands) {
  static const struct option names[] = {
      {"device", required_argument, NULL, 'd'}, {"json", no_argument, NULL, JSON}, {"rounds", required_argument, NULL, 'n'}, {0}};
  *options = (struct options){.rounds = 1};
  opterr = 0;
  for (int option; (option = getopt_long(argc, argv, allow_rounds ? ":d:n:" : ":d:", names, NULL)) != -1;) {
    if (option == 'd') {
      options->device = optarg;
    } else if (option == JSON) {
      options->json = true;
    } else if (option == 'n') {
      if (!parse_rounds(optarg, &options->rounds)) return false;
    } else {
      say_bad_option(option, argv[optind - 1]);
      return false;
    }
  }
  *operands = optind;
  return true;
}
