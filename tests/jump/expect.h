/* SPDX-License-Identifier: Apache-2.0
 *
 * What the programs here share. They are compiled at every level of optimisation, so they use the public header alone and need no
 * test library, whose own jumps would be in the way.
 */
#ifndef EXPECT_H
#define EXPECT_H

#include <drowse.h>
#include <stdio.h>
#include <string.h>

#define NOINLINE __attribute__((noinline))
#define INHERIT DROWSE_EXPANDABLE_INHERIT

/* ThreadSanitizer runs handlers itself, when it suits it and with a mask of its own. */
#ifndef __has_feature
#define __has_feature(feature) 0
#endif
#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
#define WITH_TSAN 1
#else
#define WITH_TSAN 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define WITH_ASAN 1
#else
#define WITH_ASAN 0
#endif

static int failures; /* several threads count */

static inline void expect(const char *what, bool holds) {
  if (holds) return;
  printf("FAILED: %s\n", what);
  __atomic_add_fetch(&failures, 1, __ATOMIC_RELAXED);
}

/* That the current frame is tag's, depth deep. */
static inline void expect_frame(const char *what, const char *tag, size_t depth) {
  drowse_frame frame = drowse_scope_current();
  if (strcmp(frame.tag, tag) == 0 && frame.depth == depth) return;
  printf("FAILED: %s: tag \"%s\", depth %zu, not \"%s\", %zu\n", what, frame.tag, frame.depth, tag, depth);
  __atomic_add_fetch(&failures, 1, __ATOMIC_RELAXED);
}

static inline void expect_ok(const char *what, drowse_status status) {
  if (status == DROWSE_OK) return;
  printf("FAILED: %s: %s: %s\n", what, drowse_status_name(status), drowse_last_error());
  __atomic_add_fetch(&failures, 1, __ATOMIC_RELAXED);
}

/* An open scope whose object is nowhere near the stack, so that nothing but an exact ending ends it. */
static inline void enter_at(drowse_scope *elsewhere, const char *tag) {
  expect_ok("enter", drowse_scope_enter(elsewhere, tag, INHERIT));
}

#endif
