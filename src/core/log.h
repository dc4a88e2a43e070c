/* SPDX-License-Identifier: Apache-2.0
 *
 * What drowse has to say to whoever set a log. Call it with no lock held.
 */
#ifndef DZ_LOG_H
#define DZ_LOG_H

#include "drowse.h"

void dz_log(int level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
