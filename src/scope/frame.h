/* SPDX-License-Identifier: Apache-2.0
 *
 * The frame that is current, for those below who allocate by it.
 */
#ifndef DZ_FRAME_H
#define DZ_FRAME_H

#include "drowse.h"

struct frame {
  const drowse_tag *tag; /* NULL: the tag "default", which is interned when it is first needed */
  drowse_expandable expandable;
};

/* The calling thread's current frame. */
struct frame dz_frame_current(void);

#endif
