/* SPDX-License-Identifier: Apache-2.0
 *
 * A client's end of a connection to the server: requests, answers, and connections that are broken off.
 */
#ifndef SOAK_WIRE_H
#define SOAK_WIRE_H

#include <stdbool.h>
#include <stddef.h>

/* No answer's body is larger. */
enum { WIRE_BODY_MOST = 4 << 20 };

struct wire {
  unsigned port;
  int fd; /* -1: not connected */
  unsigned status;
  bool woke;        /* it has the header Drowse-Woke */
  bool retry_after; /* ... Retry-After */
  size_t bytes;
  char *body; /* with a NUL behind it */
};

void wire_make(struct wire *wire, unsigned port);
void wire_end(struct wire *wire);

/* Closes the connection; the next request makes a new one. */
void wire_close(struct wire *wire);

/* Asks and fills in the answer. False: there was none, or none that is HTTP; why has been said. */
bool wire_ask(struct wire *wire, const char *method, const char *target);

/* Asks, reads at most bytes of the answer and breaks the connection off, as a client does that is killed. False: there is nobody
 * to ask. */
bool wire_abort(struct wire *wire, const char *method, const char *target, size_t bytes);

#endif
