/* SPDX-License-Identifier: Apache-2.0
 *
 * What the server does for each kind of request.
 */
#include "answers.h"

#include <microhttpd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "say.h"

enum { BYTES_MOST = 4 << 20 };

/* ---- replies */

__attribute__((format(printf, 3, 0))) static void set_text(struct reply *reply, unsigned status, const char *format,
                                                           va_list arguments) {
  char *text;
  int length = vasprintf(&text, format, arguments);
  reply->status = length < 0 ? MHD_HTTP_INTERNAL_SERVER_ERROR : status;
  reply->body = length < 0 ? NULL : text;
  reply->bytes = length < 0 ? 0 : (size_t)length;
}

void reply_text(struct reply *reply, unsigned status, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  set_text(reply, status, format, arguments);
  va_end(arguments);
}

__attribute__((format(printf, 2, 3))) static void reply_json(struct reply *reply, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  set_text(reply, MHD_HTTP_OK, format, arguments);
  va_end(arguments);
  reply->type = "application/json";
}

/* What passes by itself, so that the client does well to try again; all else is the server's fault. */
static bool is_passing(drowse_status status) {
  return status == DROWSE_ERR_NO_DEVICE_MEMORY || status == DROWSE_ERR_NO_HOST_MEMORY || status == DROWSE_ERR_TIMEOUT ||
         status == DROWSE_ERR_BUSY || status == DROWSE_ERR_CANCELED;
}

static void reply_error(struct reply *reply, drowse_status status, const char *doing) {
  unsigned code = is_passing(status) ? MHD_HTTP_SERVICE_UNAVAILABLE : MHD_HTTP_INTERNAL_SERVER_ERROR;
  reply_text(reply, code, "%s: %s\n", doing, reason(status));
}

static int64_t deadline(const struct server *server) {
  return now_ns() + (int64_t)server->options.deadline_ms * 1000000;
}

/* ---- GET /weights */

/* A decimal number of the query string; false: it is not there, or is none. */
static bool get_number(struct MHD_Connection *request, const char *name, uint64_t *number) {
  const char *text = MHD_lookup_connection_value(request, MHD_GET_ARGUMENT_KIND, name);
  size_t length = text == NULL ? 0 : strlen(text);
  if (length == 0 || length > 18 || strspn(text, "0123456789") != length) return false;
  *number = strtoull(text, NULL, 10);
  return true;
}

static bool get_range(const struct server *server, struct MHD_Connection *request, struct reply *reply, uint64_t *offset,
                      uint64_t *bytes) {
  if (!get_number(request, "offset", offset) || !get_number(request, "bytes", bytes) || *bytes == 0 || *bytes > BYTES_MOST) {
    reply_text(reply, MHD_HTTP_BAD_REQUEST, "/weights?offset=N&bytes=N, of 1 to %d bytes\n", BYTES_MOST);
  } else if (*offset > server->model.bytes || *bytes > server->model.bytes - *offset) {
    reply_text(reply, MHD_HTTP_RANGE_NOT_SATISFIABLE, "there are %llu bytes\n", (unsigned long long)server->model.bytes);
  } else {
    return true;
  }
  return false;
}

/* With the weights held. Returns a CUresult. */
static int read_held(struct server *server, void *out, uint64_t offset, size_t bytes) {
  if (cache_get(&server->cache, out, offset, bytes)) return 0;
  int code = model_read(&server->model, &server->device, out, offset, bytes);
  if (code == 0) cache_put(&server->cache, out, offset, bytes);
  return code;
}

/* Holds the weights for as long as the device is at work on the request, and not for as long as the client takes to read. */
static void read_weights(struct server *server, struct reply *reply, uint64_t offset) {
  int64_t begun = now_ns();
  drowse_status status = keeper_hold(&server->keeper, deadline(server), &reply->woke);
  if (status != DROWSE_OK) {
    reply_error(reply, status, "the weights cannot be woken now");
    return;
  }
  if (reply->woke) tally_first(&server->tally, now_ns() - begun);
  int code = read_held(server, reply->body, offset, reply->bytes);
  keeper_let_go(&server->keeper);
  if (code == 0) return;
  reply_text(reply, MHD_HTTP_INTERNAL_SERVER_ERROR, "reading the weights: the driver of %s answers CUresult %d\n",
             server->device.name, code);
}

void answer_weights(struct server *server, struct MHD_Connection *request, struct reply *reply) {
  uint64_t offset, bytes;
  if (!get_range(server, request, reply, &offset, &bytes)) return;
  void *memory = malloc((size_t)bytes);
  if (memory == NULL) {
    reply_text(reply, MHD_HTTP_SERVICE_UNAVAILABLE, "no memory for the answer\n");
    return;
  }
  *reply = (struct reply){.status = MHD_HTTP_OK, .type = "application/octet-stream", .body = memory, .bytes = (size_t)bytes};
  nap_not_now(&server->nap);
  read_weights(server, reply, offset);
  nap_later(&server->nap);
  if (reply->body != memory) free(memory); /* an error's text has taken its place */
}

/* ---- GET /health, GET /stats */

/* Somebody who comes while it falls asleep will have to wait for it to wake. */
static const char *state_word(drowse_state state) {
  switch (state) {
  case DROWSE_AWAKE:
    return "awake";
  case DROWSE_WAKING:
    return "waking";
  case DROWSE_FALLING_ASLEEP:
  case DROWSE_ASLEEP:
    return "asleep";
  case DROWSE_POISONED:
    break;
  }
  return "broken";
}

static void reply_state(struct server *server, struct reply *reply) {
  reply_json(reply, "{\"state\": \"%s\"}\n", state_word(keeper_state(&server->keeper)));
}

void answer_health(struct server *server, struct MHD_Connection *request, struct reply *reply) {
  const char *wait = MHD_lookup_connection_value(request, MHD_GET_ARGUMENT_KIND, "wait");
  drowse_status status = DROWSE_OK;
  if (wait != NULL && strcmp(wait, "awake") != 0 && strcmp(wait, "asleep") != 0) {
    reply_text(reply, MHD_HTTP_BAD_REQUEST, "/health?wait=awake or /health?wait=asleep\n");
    return;
  }
  if (wait != NULL) {
    drowse_state wanted = strcmp(wait, "awake") == 0 ? DROWSE_AWAKE : DROWSE_ASLEEP;
    status = drowse_tag_wait(server->heap, MODEL_TAG, wanted, server->options.deadline_ms);
  }
  if (status == DROWSE_OK || status == DROWSE_ERR_TIMEOUT) /* the state tells which */
    reply_state(server, reply);
  else
    reply_error(reply, status, "waiting");
}

static struct drowse_stats look(drowse_heap *heap, const char *tag) {
  drowse_stats stats = {.struct_size = sizeof stats};
  (void)drowse_stats_get(heap, tag, &stats);
  return stats;
}

typedef unsigned long long figure;

void answer_stats(struct server *server, struct MHD_Connection *request, struct reply *reply) {
  drowse_heap_info info = {.struct_size = sizeof info};
  drowse_stats heap = look(server->heap, NULL), weights = look(server->heap, MODEL_TAG);
  struct counts counts = tally_look(&server->tally);
  uint64_t hits, misses;
  (void)request;
  (void)drowse_heap_info_get(server->heap, &info);
  cache_count(&server->cache, &hits, &misses);
  struct tenant_figures tenant = tenant_look(&server->tenant);
  reply_json(reply,
             "{\"state\": \"%s\", \"device\": \"%s\", \"bytes\": %llu,\n"
             " \"sleeps\": %llu, \"wakes\": %llu, \"holds\": %u, \"sealed\": %u,\n"
             " \"device_free_bytes\": %llu, \"mapped_bytes\": %llu, \"stuck_bytes\": %llu, \"metadata_bytes\": %llu,\n"
             " \"backup_bytes\": %llu, \"file_bytes\": %llu, \"host_bytes\": %llu, \"pinned_bytes\": %llu,\n"
             " \"answers\": %llu, \"refusals\": %llu, \"failures\": %llu, \"cache_hits\": %llu, \"cache_misses\": %llu,\n"
             " \"first_after_sleep\": {\"count\": %llu, \"last_ms\": %.3f, \"mean_ms\": %.3f, \"most_ms\": %.3f},\n"
             " \"tenant\": {\"bytes\": %llu, \"asked\": %llu, \"yielded\": %llu}}\n",
             state_word(weights.state), info.device, (figure)server->model.bytes, (figure)weights.sleeps, (figure)weights.wakes,
             weights.holds, weights.sealed, (figure)info.free_bytes, (figure)heap.mapped_bytes, (figure)heap.stuck_bytes,
             (figure)heap.metadata_bytes, (figure)heap.backup_bytes, (figure)heap.file_bytes, (figure)heap.host_bytes,
             (figure)heap.pinned_bytes, (figure)counts.answers, (figure)counts.refusals, (figure)counts.failures, (figure)hits,
             (figure)misses, (figure)counts.firsts, counts.first_last_ms,
             counts.firsts == 0 ? 0 : counts.first_sum_ms / (double)counts.firsts, counts.first_most_ms, (figure)tenant.bytes,
             (figure)tenant.asked, (figure)tenant.yielded);
}

/* ---- POST /sleep, /wake, /tenant */

void answer_sleep(struct server *server, struct MHD_Connection *request, struct reply *reply) {
  drowse_status status = keeper_sleep(&server->keeper, deadline(server), false);
  (void)request;
  if (status == DROWSE_OK)
    reply_state(server, reply);
  else
    reply_error(reply, status, "going to sleep");
}

void answer_wake(struct server *server, struct MHD_Connection *request, struct reply *reply) {
  (void)request;
  nap_not_now(&server->nap);
  drowse_status status = keeper_wake(&server->keeper, deadline(server), &reply->woke);
  if (status == DROWSE_OK)
    reply_state(server, reply);
  else
    reply_error(reply, status, "waking");
  nap_later(&server->nap);
}

void answer_tenant(struct server *server, struct MHD_Connection *request, struct reply *reply) {
  uint64_t bytes, yields;
  if (server->tenant.heap == NULL) {
    reply_text(reply, MHD_HTTP_NOT_FOUND, "there is no tenant: the server was started without --tenant\n");
  } else if (!get_number(request, "bytes", &bytes) || !get_number(request, "yields", &yields) || yields > 1) {
    reply_text(reply, MHD_HTTP_BAD_REQUEST, "/tenant?bytes=N&yields=0 or 1\n");
  } else {
    drowse_status status = tenant_hold(&server->tenant, bytes, yields == 1);
    if (status == DROWSE_OK)
      reply_json(reply, "{\"bytes\": %llu}\n", (figure)bytes);
    else
      reply_error(reply, status, "the tenant");
  }
}
