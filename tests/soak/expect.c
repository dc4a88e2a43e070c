/* SPDX-License-Identifier: Apache-2.0
 *
 * What the server is asked, and what its answer must be.
 */
#include "expect.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool wrong(const char *format, ...) {
  char line[1024];
  va_list arguments;
  va_start(arguments, format);
  (void)vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  (void)fprintf(stderr, "soak: %s\n", line);
  return false;
}

static bool complain(const struct wire *wire, const char *path, const char *wanted) {
  return wrong("%s: status %u, and not %s: %.300s", path, wire->status, wanted, wire->body);
}

/* "Try again later" says when, and why. */
static bool is_refusal(const struct wire *wire) {
  return wire->status == 503 && wire->retry_after && wire->bytes > 0;
}

/* The driver fails because it is told to. */
static bool is_failure(const struct wire *wire, const struct target *target) {
  return target->faults != NULL && wire->status == 500 &&
         (strstr(wire->body, "CUDA_ERROR_INVALID_VALUE") != NULL || strstr(wire->body, "the driver of ") != NULL);
}

enum verdict expect_range(struct wire *wire, const struct target *target, size_t offset, size_t bytes) {
  char path[96];
  (void)snprintf(path, sizeof path, "/weights?offset=%zu&bytes=%zu", offset, bytes);
  if (!wire_ask(wire, "GET", path)) return WRONG_ANSWER;
  if (is_refusal(wire)) return REFUSED;
  if (is_failure(wire, target)) return FAILED;
  if (wire->status != 200 || wire->bytes != bytes) {
    (void)complain(wire, path, "these bytes, and no refusal");
    return WRONG_ANSWER;
  }
  if (memcmp(wire->body, target->file + offset, bytes) == 0) return RIGHT;
  size_t at = 0;
  while ((unsigned char)wire->body[at] == target->file[offset + at]) at++;
  (void)wrong("%s: wrong bytes, from byte %zu of the answer on: 0x%02x", path, at, (unsigned char)wire->body[at]);
  return WRONG_BYTES;
}

bool expect_status(struct wire *wire, const char *method, const char *path, unsigned status) {
  char wanted[24];
  (void)snprintf(wanted, sizeof wanted, "%u", status);
  return wire_ask(wire, method, path) && (wire->status == status || complain(wire, path, wanted));
}

bool expect_passing(struct wire *wire, const struct target *target, const char *method, const char *path) {
  return wire_ask(wire, method, path) && (wire->status == 200 || is_refusal(wire) || is_failure(wire, target) ||
                                          complain(wire, path, "200, or 503 with Retry-After and a reason"));
}

bool expect_state(struct wire *wire, const char *path, const char *state) {
  char wanted[64];
  (void)snprintf(wanted, sizeof wanted, "{\"state\": \"%s\"}\n", state);
  return expect_status(wire, "GET", path, 200) && (strcmp(wire->body, wanted) == 0 || complain(wire, path, wanted));
}

bool expect_tenant(struct wire *wire, uint64_t bytes, bool yields) {
  char path[96];
  (void)snprintf(path, sizeof path, "/tenant?bytes=%" PRIu64 "&yields=%d", bytes, (int)yields);
  return expect_status(wire, "POST", path, 200);
}

bool expect_figure(struct wire *wire, const char *name, uint64_t *figure) {
  char key[64];
  (void)snprintf(key, sizeof key, "\"%s\": ", name);
  if (!expect_status(wire, "GET", "/stats", 200)) return false;
  const char *at = strstr(wire->body, key);
  if (at == NULL) return complain(wire, "/stats", key);
  *figure = strtoull(at + strlen(key), NULL, 10);
  return true;
}
