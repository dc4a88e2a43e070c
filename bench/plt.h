/* SPDX-License-Identifier: Apache-2.0
 *
 * What bench/scope compares with, in a shared library of its own, so that every call goes through the PLT as drowse's do.
 */
#ifndef BENCH_PLT_H
#define BENCH_PLT_H

#define PLT_API __attribute__((visibility("default")))

/* Do nothing. */
PLT_API void plt_empty_enter(void);
PLT_API void plt_empty_leave(void);

/* A stack of names that the whole process shares, under a mutex. */
PLT_API void plt_mutex_enter(const char *name);
PLT_API void plt_mutex_leave(void);

#endif
