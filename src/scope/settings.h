/* SPDX-License-Identifier: Apache-2.0
 *
 * A heap's settings: "expandable_segments:True". They are a settings string in the strict dialect, so that a user writes one kind
 * of string; a heap has one of the settings that a string can name.
 */
#ifndef DZ_SETTINGS_H
#define DZ_SETTINGS_H

#include "core/error.h"

struct settings {
  bool expandable_segments;
};

/* Parses text into *settings; what it does not name keeps its default, expandable_segments:True. NULL is as "".
 * DROWSE_ERR_SETTINGS: it does not parse, or names a setting that a heap has not, and *settings is as it was; the failure's text
 * has source and the offset. */
drowse_status dz_settings_parse(struct settings *settings, const char *text, const char *source);

#endif
