/* SPDX-License-Identifier: Apache-2.0
 *
 * The options of the subcommands.
 */
#ifndef DZ_OPTIONS_LINE_H
#define DZ_OPTIONS_LINE_H

#include <stdbool.h>

struct options {
  const char *device; /* NULL: not given */
  unsigned rounds;
  bool json;
};

/* Parses argv up to its operands, which begin at *operands. allow_rounds: whether -n is one of them. False, and says so: the
 * command line makes no sense. */
bool dz_options_parse(struct options *options, int argc, char **argv, bool allow_rounds, int *operands);

#endif
