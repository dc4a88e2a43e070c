/* SPDX-License-Identifier: Apache-2.0
 *
 * Names of tags, interned: one struct drowse_tag for each name, for the life of the process.
 */
#ifndef DZ_NAME_H
#define DZ_NAME_H

#include <stdint.h>

#include "drowse.h"

/* A name has 1 to 63 bytes; numbers count from 0 in the order in which names came. */
enum { DZ_NAME_BYTES = 64, DZ_NAMES_MAX = 65535 };

struct drowse_tag {
  uint32_t number;
  uint32_t hash;
  char name[DZ_NAME_BYTES];
};

/* The name's tag if it has been interned; NULL, and no failure stored, if not. Takes no lock, allocates nothing. */
const drowse_tag *dz_name_find(const char *name);

#endif
