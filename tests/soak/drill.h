/* SPDX-License-Identifier: Apache-2.0
 *
 * One request after another, whose answers are known beforehand.
 */
#ifndef SOAK_DRILL_H
#define SOAK_DRILL_H

#include "expect.h"

/* False: an answer was not what it must be, and that has been said. Afterwards the server is awake and the tenant holds nothing.
 */
bool drill(const struct target *target);

#endif
