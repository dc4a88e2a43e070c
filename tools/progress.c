/* SPDX-License-Identifier: Apache-2.0
 *
 * The progress bar. It is drawn again only when a step of it has changed, so a callback for every block costs nothing.
 */
#include "progress.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tool.h"

enum { WIDTH = 40 };

static const char *label; /* NULL: no bar */
static unsigned shown;    /* steps drawn, WIDTH + 1: none yet */

static bool wanted(void) {
  static int answer = -1;
  if (answer < 0) {
    const char *term = getenv("TERM");
    answer = isatty(STDERR_FILENO) && term != NULL && strcmp(term, "dumb") != 0;
  }
  return answer == 1;
}

void dz_progress_begin(const char *text) {
  dz_progress_end();
  if (!wanted()) return;
  label = text;
  shown = WIDTH + 1;
}

void dz_progress_show(uint64_t done_bytes, uint64_t total_bytes) {
  if (label == NULL || total_bytes == 0) return;
  if (done_bytes > total_bytes) done_bytes = total_bytes;
  unsigned steps = (unsigned)((double)done_bytes / (double)total_bytes * WIDTH);
  if (steps == shown) return;
  shown = steps;
  char bar[WIDTH + 1];
  memset(bar, ' ', WIDTH);
  memset(bar, '#', steps);
  bar[WIDTH] = '\0';
  fprintf(stderr, "\r%-9s [%s] %s of %s\033[K", label, bar, dz_size(done_bytes).text, dz_size(total_bytes).text);
  fflush(stderr);
}

void dz_progress_end(void) {
  if (label == NULL) return;
  label = NULL;
  fputs("\r\033[K", stderr);
  fflush(stderr);
}
