/* SPDX-License-Identifier: Apache-2.0
 *
 * A heap's settings: "expandable_segments:True". The grammar is that of PYTORCH_CUDA_ALLOC_CONF, key:value pairs with commas
 * between, so that a user writes one kind of string.
 */
#ifndef DZ_SETTINGS_H
#define DZ_SETTINGS_H

#include "core/error.h"

struct settings {
  bool expandable_segments;
};

/* Parses text into *settings; what it does not name keeps its default, expandable_segments:True. DROWSE_ERR_SETTINGS: it does not
 * parse; the failure's text has source and the offset. */
drowse_status dz_settings_parse(struct settings *settings, const char *text, const char *source);

#endif
