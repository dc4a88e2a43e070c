/* SPDX-License-Identifier: Apache-2.0
 *
 * Sentences on stderr, and the last word about stdout.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "progress.h"
#include "tool.h"

static const char *command;

void dz_say_command(const char *name) {
  command = name;
}

/* One sentence is one write, so that sentences of several processes do not mix. */
__attribute__((format(printf, 2, 0))) static void say(const char *tail, const char *format, va_list arguments) {
  char line[4096 + 1024];
  size_t room = sizeof line - 1;
  size_t length = (size_t)snprintf(line, room, "drowse: %s%s", command == NULL ? "" : command, command == NULL ? "" : ": ");
  int wrote = vsnprintf(line + length, room - length, format, arguments);
  if (wrote > 0) length = length + (size_t)wrote < room ? length + (size_t)wrote : room - 1;
  if (tail != NULL) {
    wrote = snprintf(line + length, room - length, ": %s", tail);
    if (wrote > 0) length = length + (size_t)wrote < room ? length + (size_t)wrote : room - 1;
  }
  for (char *at = line; at < line + length; at++) {
    if ((unsigned char)*at < 0x20 || *at == 0x7f) *at = '?';
  }
  line[length++] = '\n';
  dz_progress_end();
  (void)fwrite(line, 1, length, stderr);
}

void dz_say(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  say(NULL, format, arguments);
  va_end(arguments);
}

void dz_say_last(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  say(drowse_last_error(), format, arguments);
  va_end(arguments);
}

bool dz_output_done(void) {
  bool failed_before = ferror(stdout) != 0;
  bool whole = fflush(stdout) == 0 && !failed_before;
  if (!whole) dz_say("cannot write the output: %s", failed_before ? "a write failed" : strerror(errno));
  return whole;
}
