/* SPDX-License-Identifier: Apache-2.0
 *
 * What the parts of the program `drowse` share. The program uses the public header alone.
 */
#ifndef DZ_TOOL_H
#define DZ_TOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "drowse.h"

/* Exit status, beside EXIT_SUCCESS and EXIT_FAILURE: the command line makes no sense. */
enum { DZ_EXIT_USAGE = 2 };

/* The subcommands: what main() returns. argv[0] is the subcommand's name. */
int dz_info(int argc, char **argv);
int dz_cycle(int argc, char **argv);

/* ---- say.c: sentences on stderr */

/* Prints "drowse: COMMAND: " and the sentence, with control characters as '?': file names and tags are anybody's. */
void dz_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The same with ": " and drowse_last_error() behind it. */
void dz_say_last(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The COMMAND of dz_say(), from here on. */
void dz_say_command(const char *name);

/* Flushes stdout; false, and says so, if not all of the output was written. */
bool dz_output_done(void);

/* ---- size.c: sizes for people */

/* Parses "1048576", "512MiB", "1.5GiB", "2GB"; K, M, G and T alone mean KiB to TiB. NULL, or what is wrong with text. */
const char *dz_size_parse(const char *text, uint64_t *bytes);

struct size_text {
  char text[24];
};

/* "512 B", "1.5 GiB". */
struct size_text dz_size(uint64_t bytes);

/* bytes in seconds as "12.34", in GiB/s; "-" where there is nothing to divide. */
struct size_text dz_rate(uint64_t bytes, double seconds);

/* ---- device.c: which device */

/* Opens a heap on option (-d's argument), else on $DROWSE_DEVICE, else on "auto"; *source tells which. NULL, and says why. */
drowse_heap *dz_open_heap(const char *option, const char **source);

#endif
