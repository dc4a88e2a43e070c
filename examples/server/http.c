/* SPDX-License-Identifier: Apache-2.0
 *
 * The server's face: HTTP, by libmicrohttpd, on a thread for each connection.
 */
#include "http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "answers.h"
#include "say.h"

/* How many connections at once, and how many seconds one may be silent: each has a thread. */
enum { CONNECTIONS = 64, SILENCE = 30 };

static const struct route {
  const char *method, *path;
  void (*answer)(struct server *server, struct MHD_Connection *request, struct reply *reply);
} routes[] = {{"GET", "/weights", answer_weights}, {"GET", "/health", answer_health}, {"GET", "/stats", answer_stats},
              {"POST", "/sleep", answer_sleep},    {"POST", "/wake", answer_wake},    {"POST", "/tenant", answer_tenant}};

static const struct route *find_route(const char *path) {
  for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
    if (strcmp(path, routes[i].path) == 0) return &routes[i];
  }
  return NULL;
}

/* Headers that can be had of no memory are left out. */
static void add_headers(struct MHD_Response *response, const struct reply *reply, const struct route *route) {
  (void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, reply->type);
  if (reply->status == MHD_HTTP_SERVICE_UNAVAILABLE) (void)MHD_add_response_header(response, MHD_HTTP_HEADER_RETRY_AFTER, "1");
  if (reply->status == MHD_HTTP_METHOD_NOT_ALLOWED) (void)MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, route->method);
  if (reply->woke) (void)MHD_add_response_header(response, "Drowse-Woke", "1");
}

/* Takes the reply's body over. A slow client, or one that goes away, is no concern of the weights: they are not held any more. */
static enum MHD_Result send_reply(struct MHD_Connection *request, struct reply *reply, const struct route *route) {
  struct MHD_Response *response = MHD_create_response_from_buffer(reply->bytes, reply->body, MHD_RESPMEM_MUST_FREE);
  if (response == NULL) {
    free(reply->body);
    return MHD_NO;
  }
  add_headers(response, reply, route);
  enum MHD_Result queued = MHD_queue_response(request, reply->status, response);
  MHD_destroy_response(response);
  return queued;
}

/* Called when a request's head is there, for each piece of its body, and once more behind it. */
static enum MHD_Result on_request(void *context, struct MHD_Connection *request, const char *path, const char *method,
                                  const char *version, const char *data, size_t *data_bytes, void **seen) {
  static char once;
  struct server *server = context;
  (void)version;
  (void)data;
  if (*seen == NULL || *data_bytes > 0) { /* bodies say nothing here */
    *seen = &once;
    *data_bytes = 0;
    return MHD_YES;
  }
  struct reply reply = {.type = "text/plain; charset=utf-8"};
  const struct route *route = find_route(path);
  if (route == NULL)
    reply_text(&reply, MHD_HTTP_NOT_FOUND, "there is no such thing here\n");
  else if (strcmp(method, route->method) != 0)
    reply_text(&reply, MHD_HTTP_METHOD_NOT_ALLOWED, "%s takes %s\n", path, route->method);
  else
    route->answer(server, request, &reply);
  tally_answer(&server->tally, reply.status);
  return send_reply(request, &reply, route);
}

struct MHD_Daemon *http_start(struct server *server, unsigned *port) {
  const struct sockaddr_in address = {
      .sin_family = AF_INET, .sin_port = htons((uint16_t)server->options.port), .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
  errno = 0;
  /* ITC: a connection's thread and socket go when it ends, and not when the next one comes. */
  struct MHD_Daemon *daemon = MHD_start_daemon(
      MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL | MHD_USE_ITC, 0, NULL, NULL, on_request,
      server, MHD_OPTION_SOCK_ADDR, (const struct sockaddr *)&address, MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS,
      MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)SILENCE, MHD_OPTION_END);
  const union MHD_DaemonInfo *info = daemon == NULL ? NULL : MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_BIND_PORT);
  if (info != NULL) {
    *port = info->port;
    return daemon;
  }
  say("listening on port %u of 127.0.0.1: %s", server->options.port, errno != 0 ? strerror(errno) : "libmicrohttpd cannot");
  if (daemon != NULL) MHD_stop_daemon(daemon);
  return NULL;
}

void http_stop(struct MHD_Daemon *daemon) {
  MHD_stop_daemon(daemon);
}
