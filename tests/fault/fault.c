/* SPDX-License-Identifier: Apache-2.0
 *
 * The fault table itself.
 */
#include "fault/fault.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- names */

static const char *const points[FAULT_POINTS] = {
#define NAME(name, version, need, parameters) [FAULT_##name] = #name,
    DZ_DRIVER_ENTRIES(NAME)
#undef NAME
#define NAME(name) [FAULT_##name] = #name, [FAULT_host_##name] = "host-" #name,
        FAULT_LIBC(NAME)
#undef NAME
};

static const char *const modes[] = {"once", "on", "all"};
static const char *const variants[] = {"refused", "full", "done", "late", "sticky", "lost", "slow", "short"};

const char *fault_point_name(enum fault_point point) {
  return points[point];
}

const char *fault_mode_name(enum fault_mode mode) {
  return modes[mode];
}

const char *fault_variant_name(enum fault_variant variant) {
  return variants[variant];
}

/* The index of the name that text begins with, up to a colon or its end; count: none. */
static size_t find(const char *const *names, size_t count, const char **text) {
  size_t length = strcspn(*text, ":"), at = 0;
  while (at < count && (strlen(names[at]) != length || strncmp(names[at], *text, length) != 0)) at++;
  *text += length;
  if (**text == ':') ++*text;
  return at;
}

bool fault_parse(const char *text, struct fault_case *wanted) {
  char *end;
  size_t point = find(points, FAULT_POINTS, &text), mode = FAULT_ONCE, variant = FAULT_REFUSED;
  uint64_t k = strtoull(text, &end, 10);
  bool counted = *text == '\0' || (end != text && k > 0 && (*end == '\0' || *end == ':'));
  text = *end == ':' ? end + 1 : end;
  if (*text != '\0') mode = find(modes, FAULT_MODES, &text);
  if (*text != '\0') variant = find(variants, FAULT_VARIANTS, &text);
  if (point == FAULT_POINTS || !counted || mode == FAULT_MODES || variant == FAULT_VARIANTS || *text != '\0') return false;
  *wanted = (struct fault_case){(enum fault_point)point, k, (enum fault_mode)mode, (enum fault_variant)variant};
  return true;
}

/* ---- which points can fail how */

#define BIT(name) (UINT64_C(1) << FAULT_##name)

/* What they take away is gone or not when they fail; the manual does not say. */
static const uint64_t takers = BIT(MemUnmap) | BIT(MemRelease) | BIT(MemAddressFree) | BIT(MemHostUnregister) |
                               BIT(EventDestroy) | BIT(StreamDestroy) | BIT(DevicePrimaryCtxRelease);

/* What they do can be done again, or does no harm. */
static const uint64_t setters = BIT(MemSetAccess) | BIT(CtxSetCurrent) | BIT(MemcpyHtoDAsync) | BIT(MemcpyDtoHAsync) |
                                BIT(MemcpyBatchAsync) | BIT(MemsetD8Async) | BIT(EventRecord) | BIT(CtxRecordEvent) |
                                BIT(StreamWaitEvent);
/* They need memory of the driver's or the device's. */
static const uint64_t makers = BIT(MemCreate) | BIT(MemMap) | BIT(MemSetAccess) | BIT(MemAddressReserve) | BIT(MemHostRegister) |
                               BIT(StreamCreate) | BIT(EventCreate) | BIT(EventRecord) | BIT(CtxRecordEvent) |
                               BIT(DevicePrimaryCtxRetain) | BIT(MemcpyHtoDAsync) | BIT(MemcpyDtoHAsync) | BIT(MemcpyBatchAsync) |
                               BIT(MemsetD8Async);
static const uint64_t stream_work = BIT(MemcpyHtoDAsync) | BIT(MemcpyDtoHAsync) | BIT(MemcpyBatchAsync) | BIT(MemsetD8Async);

_Static_assert(FAULT_ENTRIES <= 64, "entries are bits");

static bool is_in(enum fault_point point, uint64_t set) {
  return fault_is_entry(point) && (set >> point & 1) != 0;
}

/* The host device looks at what it has inherited: nothing that a driver does. */
static bool is_of_emulation(enum fault_point point) {
  return point == FAULT_host_fstat;
}

/* These tell of errors, and of what is current, without looking at a device. */
static bool is_question(enum fault_point point) {
  return point == FAULT_GetErrorName || point == FAULT_GetErrorString;
}

static bool can_be_short(enum fault_point point) {
  return point == FAULT_pread || point == FAULT_pwrite || point == FAULT_io_uring_result || point == FAULT_open ||
         point == FAULT_posix_fallocate || point == FAULT_io_uring_submit || point == FAULT_io_uring_wait;
}

bool fault_has(enum fault_point point, enum fault_mode mode, enum fault_variant variant) {
  switch (variant) {
  case FAULT_REFUSED:
    return !is_of_emulation(point) && (point != FAULT_io_uring_result || mode != FAULT_ALL);
  case FAULT_FULL:
    return is_in(point, makers) && mode != FAULT_ALL;
  case FAULT_DONE:
    return is_in(point, takers | setters);
  case FAULT_LATE:
    return is_in(point, stream_work) && mode == FAULT_ONCE;
  case FAULT_STICKY:
  case FAULT_LOST:
    return fault_is_entry(point) && !is_question(point) && mode == FAULT_ON;
  case FAULT_SLOW:
    return fault_is_entry(point) && mode != FAULT_ALL;
  case FAULT_SHORT:
    return can_be_short(point) && mode == FAULT_ONCE;
  case FAULT_VARIANTS:
    break;
  }
  return false;
}

/* ---- the case at hand */

static struct fault_case armed_case;
static pthread_mutex_t armed_lock = PTHREAD_MUTEX_INITIALIZER; /* threads may still call from the case before */
static atomic_bool counting;
static atomic_uint_fast64_t calls[FAULT_POINTS];
static atomic_bool injected;
static void (*tell)(void);

void fault_arm(const struct fault_case *wanted) {
  (void)pthread_mutex_lock(&armed_lock);
  armed_case = *wanted;
  (void)pthread_mutex_unlock(&armed_lock);
  for (size_t i = 0; i < FAULT_POINTS; i++) atomic_store(&calls[i], 0);
  atomic_store(&injected, false);
  atomic_store(&counting, true);
}

void fault_rest(void) {
  atomic_store(&counting, false);
  fault_driver_rest();
}

void fault_forget(void) {
  fault_rest();
  fault_driver_forget();
}

bool fault_is_for_ever(void) {
  return fault_driver_is_lost();
}

uint64_t fault_calls(enum fault_point point) {
  return atomic_load(&calls[point]);
}

bool fault_injected(void) {
  return atomic_load(&injected);
}

void fault_tell(void (*told)(void)) {
  tell = told;
}

/* What takes something away works, where everything else has stopped to: else nothing could be said of leaks. And what has been
 * written is not said to have failed where nothing can be written any more. */
static bool fails_with_all(enum fault_point point) {
  return !is_in(point, takers) && point != FAULT_munmap && point != FAULT_host_munmap && point != FAULT_io_uring_result;
}

static struct fault_case case_at_hand(void) {
  (void)pthread_mutex_lock(&armed_lock);
  struct fault_case at_hand = armed_case;
  (void)pthread_mutex_unlock(&armed_lock);
  return at_hand;
}

bool fault_hits(enum fault_point point, enum fault_variant *variant) {
  if (!atomic_load(&counting)) return false;
  const struct fault_case armed = case_at_hand();
  uint64_t call = atomic_fetch_add(&calls[point], 1) + 1;
  bool hit = point == armed.point && (armed.mode == FAULT_ONCE ? call == armed.k : armed.k > 0 && call >= armed.k);
  if (!hit && !(armed.mode == FAULT_ALL && fault_injected() && fails_with_all(point))) return false;
  *variant = hit ? armed.variant : FAULT_REFUSED;
  if (!atomic_exchange(&injected, true) && tell != NULL) tell();
  return true;
}
