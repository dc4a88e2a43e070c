/* SPDX-License-Identifier: Apache-2.0
 *
 * A client's end of a connection to the server.
 */
#include "wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum { HEAD_MOST = 4096, PATIENCE_S = 120 };

void wire_make(struct wire *wire, unsigned port) {
  *wire = (struct wire){.port = port, .fd = -1, .body = malloc(WIRE_BODY_MOST + 1)};
  if (wire->body == NULL) abort();
}

void wire_end(struct wire *wire) {
  wire_close(wire);
  free(wire->body);
}

void wire_close(struct wire *wire) {
  if (wire->fd >= 0) (void)close(wire->fd);
  wire->fd = -1;
}

/* Says what went wrong, and breaks off. */
static bool fail(struct wire *wire, const char *target, const char *what) {
  (void)fprintf(stderr, "soak: %s: %s\n", target, what);
  wire_close(wire);
  return false;
}

static bool connect_it(struct wire *wire) {
  const struct sockaddr_in address = {
      .sin_family = AF_INET, .sin_port = htons((uint16_t)wire->port), .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
  const struct timeval patience = {.tv_sec = PATIENCE_S};
  const int on = 1;
  if (wire->fd >= 0) return true;
  wire->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (wire->fd < 0) return false;
  (void)setsockopt(wire->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience); /* a server that hangs is found out */
  (void)setsockopt(wire->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (connect(wire->fd, (const struct sockaddr *)&address, sizeof address) == 0) return true;
  int code = errno;
  wire_close(wire);
  errno = code;
  return false;
}

static bool send_all(struct wire *wire, const char *text, size_t bytes) {
  for (ssize_t sent; bytes > 0; text += sent, bytes -= (size_t)sent) {
    sent = send(wire->fd, text, bytes, MSG_NOSIGNAL);
    if (sent <= 0) return false;
  }
  return true;
}

/* keep: the connection is for further requests. */
static bool send_request(struct wire *wire, const char *method, const char *target, bool keep) {
  char head[HEAD_MOST];
  int length = snprintf(head, sizeof head, "%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n%s\r\n", method, target,
                        keep ? "" : "Connection: close\r\n");
  return connect_it(wire) && send_all(wire, head, (size_t)length);
}

/* Reads up to the empty line. Returns how many bytes there are, what follows the head included; *head_bytes: the head's. 0: the
 * server has closed the connection before it answered; < 0: there is no head. */
static ssize_t read_head(struct wire *wire, char *head, size_t *head_bytes) {
  size_t length = 0;
  while (length < HEAD_MOST) {
    ssize_t got = recv(wire->fd, head + length, HEAD_MOST - length, 0);
    if (got <= 0) return length == 0 && (got == 0 || errno == ECONNRESET) ? 0 : -1;
    length += (size_t)got;
    head[length] = '\0';
    const char *end = strstr(head, "\r\n\r\n");
    if (end == NULL) continue;
    *head_bytes = (size_t)(end - head) + 4;
    return (ssize_t)length;
  }
  return -1;
}

/* What stands behind a header's name; NULL: it is not there. */
static const char *find_header(const char *head, const char *name) {
  const char *at = strcasestr(head, name);
  return at == NULL ? NULL : at + strlen(name);
}

static bool read_body(struct wire *wire, size_t have) {
  while (have < wire->bytes) {
    ssize_t got = recv(wire->fd, wire->body + have, wire->bytes - have, 0);
    if (got <= 0) return false;
    have += (size_t)got;
  }
  wire->body[wire->bytes] = '\0';
  return true;
}

static bool read_answer(struct wire *wire, const char *target, char *head, size_t length, size_t head_bytes) {
  size_t have = length - head_bytes;
  memcpy(wire->body, head + head_bytes, have);
  head[head_bytes] = '\0';
  const char *size = find_header(head, "\r\nContent-Length: ");
  if (sscanf(head, "HTTP/1.1 %u ", &wire->status) != 1 || size == NULL) return fail(wire, target, "the answer is not HTTP/1.1");
  wire->bytes = strtoul(size, NULL, 10);
  if (wire->bytes > WIRE_BODY_MOST || have > wire->bytes) return fail(wire, target, "the answer is too long");
  wire->woke = find_header(head, "\r\nDrowse-Woke: ") != NULL;
  wire->retry_after = find_header(head, "\r\nRetry-After: ") != NULL;
  if (!read_body(wire, have)) return fail(wire, target, "the answer is cut off");
  if (find_header(head, "\r\nConnection: close") != NULL) wire_close(wire);
  return true;
}

bool wire_ask(struct wire *wire, const char *method, const char *target) {
  char head[HEAD_MOST + 1];
  size_t head_bytes = 0;
  bool reused = wire->fd >= 0;
  ssize_t length = send_request(wire, method, target, true) ? read_head(wire, head, &head_bytes) : 0;
  if (length == 0 && reused) { /* the server has closed it meanwhile, as it may */
    wire_close(wire);
    length = send_request(wire, method, target, true) ? read_head(wire, head, &head_bytes) : 0;
  }
  if (length <= 0) return fail(wire, target, "no answer");
  return read_answer(wire, target, head, (size_t)length, head_bytes);
}

bool wire_abort(struct wire *wire, const char *method, const char *target, size_t bytes) {
  const struct linger now = {.l_onoff = 1};
  wire_close(wire);
  if (!connect_it(wire)) return fail(wire, target, "nobody listens");
  if (send_request(wire, method, target, false)) {
    while (bytes > 0) {
      ssize_t got = recv(wire->fd, wire->body, bytes < WIRE_BODY_MOST ? bytes : WIRE_BODY_MOST, 0);
      if (got <= 0) break;
      bytes -= (size_t)got;
    }
  }
  (void)setsockopt(wire->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  wire_close(wire);
  return true;
}
