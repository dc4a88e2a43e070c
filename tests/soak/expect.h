/* SPDX-License-Identifier: Apache-2.0
 *
 * What the server is asked, and what its answer must be: used by the drill, one request after another, and by the load.
 */
#ifndef SOAK_EXPECT_H
#define SOAK_EXPECT_H

#include <stdint.h>
#include <sys/types.h>

#include "wire.h"

/* The server, as the soak knows it. */
struct target {
  unsigned port;
  pid_t pid;
  const unsigned char *file; /* what it serves */
  size_t file_bytes;
  uint64_t tenant_bytes; /* at most; 0: it has no tenant */
  bool naps;             /* it sleeps by itself */
  bool stops;            /* it may be stopped for moments */
  const char *faults;    /* while there is this file its driver fails now and then; NULL: never */
};

/* Says what is wrong; false. */
bool wrong(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* What an answer to GET /weights is. REFUSED: try again later; FAILED: the driver does, and that is said. */
enum verdict { RIGHT, REFUSED, FAILED, WRONG_BYTES, WRONG_ANSWER };

/* Asks for a range and compares every byte. */
enum verdict expect_range(struct wire *wire, const struct target *target, size_t offset, size_t bytes);

/* Asks and expects that HTTP status. */
bool expect_status(struct wire *wire, const char *method, const char *path, unsigned status);

/* Asks for something that may be refused for the moment: 200, or 503 with Retry-After and a reason; or 500, of a driver that
 * fails.
 */
bool expect_passing(struct wire *wire, const struct target *target, const char *method, const char *path);

/* GET /health says that state. */
bool expect_state(struct wire *wire, const char *path, const char *state);

/* Has the tenant hold as much. */
bool expect_tenant(struct wire *wire, uint64_t bytes, bool yields);

/* A number of GET /stats; it must be there. */
bool expect_figure(struct wire *wire, const char *name, uint64_t *figure);

#endif
