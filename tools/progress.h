/* SPDX-License-Identifier: Apache-2.0
 *
 * One progress bar at a time, on stderr, and only where that is a terminal.
 */
#ifndef DZ_PROGRESS_H
#define DZ_PROGRESS_H

#include <stdint.h>

/* Starts a bar; text is a literal. */
void dz_progress_begin(const char *text);

/* Shows how far it is. */
void dz_progress_show(uint64_t done_bytes, uint64_t total_bytes);

/* Takes the bar away; nothing if there is none. */
void dz_progress_end(void);

#endif
