/* SPDX-License-Identifier: Apache-2.0
 *
 * The command line.
 */
#ifndef SERVER_OPTIONS_H
#define SERVER_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

struct options {
  const char *file;      /* the weights */
  const char *device;    /* NULL: $DROWSE_DEVICE, else cuda:0 */
  const char *directory; /* where backups go that do not fit in host memory; NULL: nowhere */
  uint64_t backup_limit; /* bytes of host memory for backups; 0: what there is */
  uint64_t cache_bytes;
  unsigned port;        /* 0: any that is free */
  unsigned idle_ms;     /* 0: sleeps only when told to */
  unsigned deadline_ms; /* how long a request waits for the weights */
  unsigned patience_ms; /* how long waking waits for device memory that others have */
  bool sealed;
  bool tenant;
};

enum parsed { PARSED_RUN, PARSED_HELP, PARSED_WRONG };

/* Reads the command line. PARSED_HELP: the help has been printed; PARSED_WRONG: what is wrong has been said. */
enum parsed options_parse(struct options *options, int argc, char **argv);

#endif
