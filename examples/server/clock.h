/* SPDX-License-Identifier: Apache-2.0
 *
 * Time that only goes forward, and how much of it is left.
 */
#ifndef SERVER_CLOCK_H
#define SERVER_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline int64_t now_ns(void) {
  struct timespec time;
  (void)clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* Milliseconds up to a time, rounded up; 0: it is past. */
static inline int64_t left_ms(int64_t until_ns) {
  int64_t left = until_ns - now_ns();
  return left <= 0 ? 0 : left / 1000000 + (left % 1000000 != 0);
}

#endif
