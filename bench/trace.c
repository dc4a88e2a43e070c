/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading traces. One that is read is whole: every block is freed at most once and after it was allocated.
 */
#include "trace.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ID_MAX = 1 << 24 };

struct reader {
  const char *path;
  unsigned long line;
  struct trace *trace;
  size_t room;
  uint64_t *live; /* by id: bytes of the block, 0: none */
  uint64_t live_bytes;
};

static bool refuse(const struct reader *reader, const char *why) {
  fprintf(stderr, "bench: %s:%lu: %s\n", reader->path, reader->line, why);
  return false;
}

static bool parse(const struct reader *reader, const char *text, struct event *event) {
  char kind, rest;
  int fields = sscanf(text, "%c %" SCNu32 " %" SCNu64 " %c", &kind, &event->id, &event->bytes, &rest);
  if (fields < 2 || event->id >= ID_MAX) return refuse(reader, "not \"a ID BYTES\" or \"f ID\"");
  if (kind == 'a' && fields == 3 && event->bytes > 0 && event->bytes < UINT64_C(1) << 48) return true;
  if (kind != 'f' || fields != 2) return refuse(reader, "not \"a ID BYTES\" or \"f ID\"");
  event->bytes = 0;
  return true;
}

static bool count_live(struct reader *reader, const struct event *event) {
  uint64_t *live = &reader->live[event->id], rounded = (event->bytes + 511) / 512 * 512;
  if (event->bytes > 0 && *live > 0) return refuse(reader, "allocated while it is live");
  if (event->bytes == 0 && *live == 0) return refuse(reader, "freed while it is not live");
  reader->live_bytes += rounded - *live;
  *live = rounded;
  struct trace *trace = reader->trace;
  if (reader->live_bytes > trace->peak_bytes) trace->peak_bytes = reader->live_bytes;
  if (event->id >= trace->ids) trace->ids = event->id + 1;
  return true;
}

static bool append(struct reader *reader, const struct event *event) {
  struct trace *trace = reader->trace;
  if (trace->count == reader->room) {
    size_t room = reader->room == 0 ? 4096 : reader->room * 2;
    struct event *events = realloc(trace->events, room * sizeof *events);
    if (events == NULL) return refuse(reader, "no memory");
    trace->events = events;
    reader->room = room;
  }
  trace->events[trace->count++] = *event;
  return true;
}

static bool read_lines(struct reader *reader, FILE *file) {
  char text[256];
  struct event event;
  while (fgets(text, sizeof text, file) != NULL) {
    reader->line++;
    if (*text == '#' || *text == '\n') continue;
    if (!parse(reader, text, &event) || !count_live(reader, &event) || !append(reader, &event)) return false;
  }
  if (ferror(file)) return refuse(reader, "cannot be read");
  return reader->trace->count > 0 || refuse(reader, "no events");
}

bool trace_read(struct trace *trace, const char *path) {
  *trace = (struct trace){0};
  struct reader reader = {.path = path, .trace = trace, .live = calloc(ID_MAX, sizeof(uint64_t))};
  FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "r");
  bool done = file == NULL || reader.live == NULL ? refuse(&reader, "cannot be opened") : read_lines(&reader, file);
  if (file != NULL && file != stdin) fclose(file);
  free(reader.live);
  if (!done) trace_free(trace);
  return done;
}

void trace_free(struct trace *trace) {
  free(trace->events);
  *trace = (struct trace){0};
}
