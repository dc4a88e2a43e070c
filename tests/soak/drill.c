/* SPDX-License-Identifier: Apache-2.0
 *
 * One request after another, whose answers are known beforehand.
 */
#include "drill.h"

#include <stdio.h>
#include <string.h>

static bool right(struct wire *wire, const struct target *target, size_t offset, size_t bytes) {
  enum verdict verdict = expect_range(wire, target, offset, bytes);
  return verdict == RIGHT || (verdict == REFUSED && wrong("bytes %zu from %zu: refused: %s", bytes, offset, wire->body));
}

/* All of it, piece by piece. */
static bool right_everywhere(struct wire *wire, const struct target *target) {
  for (size_t offset = 0; offset < target->file_bytes; offset += WIRE_BODY_MOST) {
    size_t left = target->file_bytes - offset;
    if (!right(wire, target, offset, left < WIRE_BODY_MOST ? left : WIRE_BODY_MOST)) return false;
  }
  return true;
}

static bool nonsense(struct wire *wire, const struct target *target) {
  static const struct {
    const char *method, *path;
    unsigned status;
  } requests[] = {{"GET", "/", 404},
                  {"GET", "/weights", 400},
                  {"GET", "/weights?offset=0", 400},
                  {"GET", "/weights?offset=0&bytes=0", 400},
                  {"GET", "/weights?offset=-1&bytes=1", 400},
                  {"GET", "/weights?offset=0x1&bytes=1", 400},
                  {"GET", "/weights?offset=0&bytes=4194305", 400},
                  {"GET", "/weights?offset=99999999999999999999&bytes=1", 400},
                  {"GET", "/weights?offset=999999999999999999&bytes=1", 416},
                  {"GET", "/health?wait=dead", 400},
                  {"POST", "/weights?offset=0&bytes=1", 405},
                  {"GET", "/sleep", 405},
                  {"POST", "/health", 405}};
  for (size_t i = 0; i < sizeof requests / sizeof *requests; i++) {
    if (!expect_status(wire, requests[i].method, requests[i].path, requests[i].status)) return false;
  }
  char path[96];
  (void)snprintf(path, sizeof path, "/weights?offset=%zu&bytes=2", target->file_bytes - 1);
  return expect_status(wire, "GET", path, 416) && right(wire, target, target->file_bytes - 1, 1);
}

/* The first request after a sleep is told from others; what was in the cache before is not taken for what is there now. */
static bool sleep_and_wake(struct wire *wire, const struct target *target) {
  uint64_t hits, hits_awake, hits_woken;
  if (!right(wire, target, 5, 1000) || !expect_figure(wire, "cache_hits", &hits)) return false;
  if (!right(wire, target, 5, 1000) || !expect_figure(wire, "cache_hits", &hits_awake)) return false;
  if (hits_awake != hits + 1) return wrong("an answer that was just given is not in the cache");
  if (!expect_status(wire, "POST", "/sleep", 200) || !expect_state(wire, "/health", "asleep")) return false;
  if (!right(wire, target, 5, 1000)) return false;
  if (!wire->woke) return wrong("the first request after a sleep is not marked");
  if (!expect_figure(wire, "cache_hits", &hits_woken)) return false;
  if (hits_woken != hits_awake) return wrong("an answer came from a cache that had been discarded");
  if (!expect_state(wire, "/health?wait=awake", "awake") || !right(wire, target, 5, 1000)) return false;
  return !wire->woke || wrong("a request that found the weights awake is marked as the first after a sleep");
}

/* No memory: a refusal that says why, every time; then the tenant yields when the pressure hook asks it to. */
static bool scarce(struct wire *wire, const struct target *target) {
  uint64_t yielded, yielded_then;
  if (!expect_status(wire, "POST", "/sleep", 200) || !expect_tenant(wire, target->tenant_bytes, false)) return false;
  for (int i = 0; i < 2; i++) {
    if (expect_range(wire, target, 0, 100) != REFUSED) return wrong("woke without memory");
    if (strstr(wire->body, "waking the tag \"weights\" needs") == NULL)
      return wrong("a refusal without its reason: %s", wire->body);
    if (!expect_state(wire, "/health", "asleep")) return false;
  }
  if (!expect_tenant(wire, target->tenant_bytes, true) || !expect_figure(wire, "yielded", &yielded)) return false;
  if (!right(wire, target, 0, 100) || !expect_figure(wire, "yielded", &yielded_then)) return false;
  return yielded_then == yielded + 1 || wrong("the pressure hook was not asked");
}

/* Memory for the weights and not for the cache: the server does without the cache. */
static bool without_cache(struct wire *wire, const struct target *target) {
  const uint64_t some = 2 << 20;
  uint64_t mapped, free_bytes, mapped_then;
  if (!expect_figure(wire, "mapped_bytes", &mapped) || !expect_status(wire, "POST", "/sleep", 200)) return false;
  if (!expect_figure(wire, "device_free_bytes", &free_bytes)) return false;
  if (!expect_tenant(wire, free_bytes - mapped + some, false) || !right_everywhere(wire, target)) return false;
  if (!expect_figure(wire, "mapped_bytes", &mapped_then)) return false;
  if (mapped_then >= mapped) return wrong("the cache has memory that there is not");
  return expect_tenant(wire, 0, true) && expect_status(wire, "POST", "/wake", 200) &&
         expect_figure(wire, "mapped_bytes", &mapped_then) &&
         (mapped_then == mapped || wrong("the cache has not woken with memory for it"));
}

static bool nap(struct wire *wire, const struct target *target) {
  while (wire->status != 200 || strstr(wire->body, "asleep") == NULL) {
    if (!expect_status(wire, "GET", "/health?wait=asleep", 200)) return false;
  }
  return right_everywhere(wire, target);
}

bool drill(const struct target *target) {
  struct wire wire;
  wire_make(&wire, target->port);
  bool done = right_everywhere(&wire, target) && nonsense(&wire, target);
  if (target->naps)
    done = done && nap(&wire, target);
  else
    done = done && sleep_and_wake(&wire, target);
  if (target->tenant_bytes > 0 && !target->naps) done = done && scarce(&wire, target) && without_cache(&wire, target);
  wire_end(&wire);
  return done;
}
