/* SPDX-License-Identifier: Apache-2.0
 *
 * Sentences on stderr.
 */
#include "say.h"

#include <stdarg.h>
#include <stdio.h>

void say(const char *format, ...) {
  char line[1024];
  va_list arguments;
  va_start(arguments, format);
  (void)vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  (void)fprintf(stderr, "server: %s\n", line);
}

const char *reason(drowse_status status) {
  drowse_error error = {.struct_size = sizeof error};
  bool same = drowse_error_get(&error) == DROWSE_OK && error.status == status;
  return same ? drowse_last_error() : drowse_status_text(status);
}
