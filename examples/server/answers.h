/* SPDX-License-Identifier: Apache-2.0
 *
 * What the server does for each kind of request.
 */
#ifndef SERVER_ANSWERS_H
#define SERVER_ANSWERS_H

#include <stddef.h>

#include "server.h"

struct MHD_Connection;

struct reply {
  unsigned status; /* of HTTP */
  const char *type;
  void *body; /* from malloc() */
  size_t bytes;
  bool woke; /* this request began to wake the weights */
};

/* Makes it a reply in words. */
void reply_text(struct reply *reply, unsigned status, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Each runs on the thread of its connection. */
void answer_weights(struct server *server, struct MHD_Connection *request, struct reply *reply);
void answer_health(struct server *server, struct MHD_Connection *request, struct reply *reply);
void answer_stats(struct server *server, struct MHD_Connection *request, struct reply *reply);
void answer_sleep(struct server *server, struct MHD_Connection *request, struct reply *reply);
void answer_wake(struct server *server, struct MHD_Connection *request, struct reply *reply);
void answer_tenant(struct server *server, struct MHD_Connection *request, struct reply *reply);

#endif
