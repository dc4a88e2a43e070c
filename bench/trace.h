/* SPDX-License-Identifier: Apache-2.0
 *
 * Allocation traces: what a program asked of its allocator, on one stream, in order. A text file, a line an event:
 *
 *   a ID BYTES     a block of BYTES is allocated and called ID from now on
 *   f ID           the block called ID is freed; the name may be given again
 *   # ...          is left out
 *
 * IDs are small numbers from 0. What is not freed at the end stays live.
 */
#ifndef BENCH_TRACE_H
#define BENCH_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct event {
  uint64_t bytes; /* 0: the block is freed */
  uint32_t id;
};

struct trace {
  struct event *events;
  size_t count;
  size_t ids;          /* all are below it */
  uint64_t peak_bytes; /* most that is live at once, each block rounded up to 512 */
};

/* Reads a file ("-": stdin); false: says why on stderr, with the line. trace_free() frees it. */
bool trace_read(struct trace *trace, const char *path);
void trace_free(struct trace *trace);

#endif
