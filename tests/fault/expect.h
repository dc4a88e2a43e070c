/* SPDX-License-Identifier: Apache-2.0
 *
 * What is expected of a case, in a process of its own: the first thing that is not so ends it.
 */
#ifndef FAULT_EXPECT_H
#define FAULT_EXPECT_H

#include "drowse.h"

/* Tells what was not so, and ends the process: each program has its own way to tell. */
void expect_fail(const char *file, int line, const char *format, ...) __attribute__((noreturn, format(printf, 3, 4)));
#define EXPECT(condition)                                                          \
  do {                                                                             \
    if (!(condition)) expect_fail(__FILE__, __LINE__, "%s is not so", #condition); \
  } while (0)
#define EXPECT_MSG(condition, ...)                                  \
  do {                                                              \
    if (!(condition)) expect_fail(__FILE__, __LINE__, __VA_ARGS__); \
  } while (0)
#define EXPECT_OK(call)                                                                                          \
  do {                                                                                                           \
    drowse_status expect_got = (call);                                                                           \
    if (expect_got != DROWSE_OK)                                                                                 \
      expect_fail(__FILE__, __LINE__, "%s: %s: %s", #call, drowse_status_name(expect_got), drowse_last_error()); \
  } while (0)

#endif
