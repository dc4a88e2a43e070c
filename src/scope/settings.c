/* SPDX-License-Identifier: Apache-2.0
 *
 * A heap's settings string: key:value,key:value with spaces allowed around each.
 */
#include "scope/settings.h"

#include <string.h>

/* A piece of the text. */
struct piece {
  const char *start;
  size_t length;
};

/* The piece from start up to the first of the stops or the text's end, without spaces around it. */
static struct piece cut(const char *start, const char *stops) {
  struct piece piece = {start, strcspn(start, stops)};
  while (piece.length > 0 && piece.start[0] == ' ') piece.start++, piece.length--;
  while (piece.length > 0 && piece.start[piece.length - 1] == ' ') piece.length--;
  return piece;
}

static bool is(struct piece piece, const char *word) {
  return piece.length == strlen(word) && memcmp(piece.start, word, piece.length) == 0;
}

static drowse_status refuse(const char *text, struct piece piece, const char *source, const char *why) {
  return dz_error(DROWSE_ERR_SETTINGS, "%s: at byte %zu of \"%s\": \"%.*s\" %s", source, (size_t)(piece.start - text), text,
                  (int)piece.length, piece.start, why);
}

static drowse_status parse_pair(struct settings *settings, const char *pair, const char *text, const char *source) {
  struct piece key = cut(pair, ":,");
  if (!is(key, "expandable_segments")) return refuse(text, key, source, "is no setting: expandable_segments is the one there is");
  const char *colon = pair + strcspn(pair, ":,");
  if (*colon != ':')
    return refuse(text, key, source, "has no value: write expandable_segments:True or expandable_segments:False");
  struct piece value = cut(colon + 1, ",");
  if (!is(value, "True") && !is(value, "False")) return refuse(text, value, source, "is neither True nor False");
  settings->expandable_segments = is(value, "True");
  return DROWSE_OK;
}

drowse_status dz_settings_parse(struct settings *settings, const char *text, const char *source) {
  *settings = (struct settings){.expandable_segments = true};
  if (text == NULL || cut(text, "").length == 0) return DROWSE_OK;
  for (const char *pair = text;; pair++) {
    drowse_status status = parse_pair(settings, pair, text, source);
    if (status != DROWSE_OK) return status;
    pair += strcspn(pair, ",");
    if (*pair == '\0') return DROWSE_OK;
  }
}
