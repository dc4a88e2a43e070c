/* SPDX-License-Identifier: Apache-2.0
 *
 * Threads of the library's own.
 */
#ifndef DZ_THREAD_H
#define DZ_THREAD_H

#include <pthread.h>

/* Starts a thread to which no signal is delivered: they are the program's business, and its handlers run on its own threads. The
 * name has at most 15 bytes. 0 or errno. */
int dz_thread_start(pthread_t *thread, const char *name, void *(*run)(void *argument), void *argument);

/* Waits for its end, also in a thread that is being canceled, which would leave it unjoined. */
void dz_thread_join(pthread_t thread);

#endif
