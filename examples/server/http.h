/* SPDX-License-Identifier: Apache-2.0
 *
 * The server's face: HTTP, by libmicrohttpd, on a thread for each connection, so that whoever waits for the weights keeps nobody
 * else waiting.
 */
#ifndef SERVER_HTTP_H
#define SERVER_HTTP_H

#include "server.h"

struct MHD_Daemon;

/* Listens on 127.0.0.1. NULL: it cannot, and why has been said. */
struct MHD_Daemon *http_start(struct server *server, unsigned *port);

/* Ends the connections; a request that is being worked on is waited for. */
void http_stop(struct MHD_Daemon *daemon);

#endif
