/* SPDX-License-Identifier: Apache-2.0
 *
 * Settings strings: key:value,key:value, where a value is a word or a list, [1:2,4:8,>:16].
 *
 * PyTorch has two parsers, and both accept more than the grammar says. What is kept of that here was read in
 *
 *   2.9   c10/cuda/CUDAAllocatorConfig.cpp, a parser of its own;
 *   2.10  c10/core/AllocatorConfig.{h,cpp}, for all kinds of devices, and again CUDAAllocatorConfig.cpp, for the keys that only
 *         CUDA has: both go over the text, and each skips what is the other's.
 *
 * The strict dialect is drowse's own: the plain part of 2.10. One parser serves all three, and where they part, the comment says
 * why. A text is cut into tokens: the characters , : [ ] and the words between them. Both versions drop spaces even inside words,
 * so "max_split _size_mb" is a key; 2.10 drops the other white space as well.
 */
#include "scope/settings.h"

#include <errno.h>
#include <limits.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>

#include "core/options.h"

#define MIB ((uint64_t)1 << 20)
#define LARGE_SEGMENT_MIB 20 /* PyTorch's segments for what is larger than 1 MiB */
#define DIVISION_COUNT (sizeof((drowse_settings *)NULL)->roundup_power2_divisions / sizeof(uint64_t))
#define REGISTER_THREADS_MAX 128
#define FRACTION_CHARACTERS 1023

/* ---- tokens */

struct token {
  const char *start;
  size_t length; /* 0: the text's end */
};

struct parser {
  const char *text;
  const char *at; /* behind the last token taken */
  drowse_settings_dialect dialect;
  bool for_heap;
  drowse_settings settings;
  uint32_t named; /* bit i: the i-th of keys */
  struct token refused;
  const char *reason; /* why, as what follows the token in a sentence */
};

static bool is_space(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_delimiter(char c) {
  return c == ',' || c == ':' || c == '[' || c == ']';
}

static bool is_dropped(const struct parser *parser, char c) {
  return parser->dialect == DROWSE_SETTINGS_TORCH_2_10 ? is_space(c) : c == ' ';
}

/* A word reaches from its first character to its last, with what is dropped between them. */
static struct token peek(const struct parser *parser) {
  const char *at = parser->at;
  while (is_dropped(parser, *at)) at++;
  struct token token = {at, is_delimiter(*at)};
  if (token.length > 0) return token;
  for (; *at != '\0' && !is_delimiter(*at); at++) {
    if (!is_dropped(parser, *at)) token.length = (size_t)(at + 1 - token.start);
  }
  return token;
}

static struct token take(struct parser *parser) {
  struct token token = peek(parser);
  parser->at = token.start + token.length;
  return token;
}

/* Takes the first of a token's characters that are not dropped; '\0': none is left. */
static char take_character(const struct parser *parser, struct token *rest) {
  while (rest->length > 0) {
    char c = *rest->start;
    rest->start++, rest->length--;
    if (!is_dropped(parser, c)) return c;
  }
  return '\0';
}

static bool is(const struct parser *parser, struct token token, const char *word) {
  do {
    if (take_character(parser, &token) != *word) return false;
  } while (*word++ != '\0');
  return true;
}

/* Always false, for the caller to return. */
static bool refuse(struct parser *parser, struct token token, const char *reason) {
  parser->refused = token;
  parser->reason = reason;
  return false;
}

static drowse_status refused(const struct parser *parser, const char *source) {
  const struct token *token = &parser->refused;
  size_t offset = (size_t)(token->start - parser->text);
  if (token->length == 0) return dz_error(DROWSE_ERR_SETTINGS, "%s: at byte %zu, the end: %s", source, offset, parser->reason);
  int shown = token->length > 64 ? 64 : (int)token->length;
  return dz_error(DROWSE_ERR_SETTINGS, "%s: at byte %zu, \"%.*s\": %s", source, offset, shown, token->start, parser->reason);
}

/* Takes what separates two words. 2.10 looks whether it is what it should be and does nothing about it, so there any token will
 * do: "expandable_segments,True" is a setting. */
static bool take_separator(struct parser *parser, const char *separator, const char *reason) {
  struct token token = take(parser);
  bool any = parser->dialect == DROWSE_SETTINGS_TORCH_2_10 && token.length > 0;
  return any || is(parser, token, separator) || refuse(parser, token, reason);
}

/* A word that is one, for the strict dialect. */
static bool is_solid(const struct parser *parser, struct token token) {
  return parser->dialect != DROWSE_SETTINGS_STRICT || memchr(token.start, ' ', token.length) == NULL;
}

/* ---- numbers */

/* Whole numbers as strtoul() reads them: white space, a sign, digits; what stands behind them is ignored, so that 512MB is 512.
 * As there, -1 is the largest number. 2.9 reads an int and then converts it, which comes to the same for what fits; as_int: this
 * is one of those. The strict dialect takes digits only, and no 0 in front, which might mean that the number is octal. */
static bool read_whole(struct parser *parser, struct token token, bool as_int, uint64_t *value) {
  const char *reason = "not a whole number";
  bool strict = parser->dialect == DROWSE_SETTINGS_STRICT;
  if (!is_solid(parser, token)) return refuse(parser, token, "a space inside a number");
  struct token rest = token;
  char c = take_character(parser, &rest);
  bool negative = false;
  if (!strict) {
    while (is_space(c)) c = take_character(parser, &rest);
    negative = c == '-';
    if (c == '-' || c == '+') c = take_character(parser, &rest);
  }
  if (c < '0' || c > '9') return refuse(parser, token, reason);
  if (strict && c == '0' && rest.length > 0) return refuse(parser, token, reason);
  uint64_t limit = UINT64_MAX;
  if (as_int && parser->dialect == DROWSE_SETTINGS_TORCH_2_9) limit = (uint64_t)INT_MAX + negative;
  uint64_t magnitude = 0;
  for (; c >= '0' && c <= '9'; c = take_character(parser, &rest)) {
    uint64_t digit = (uint64_t)(c - '0');
    if (magnitude > (limit - digit) / 10) return refuse(parser, token, "too large a number");
    magnitude = magnitude * 10 + digit;
  }
  if (strict && c != '\0') return refuse(parser, token, reason);
  *value = negative ? 0 - magnitude : magnitude;
  return true;
}

/* digits[.digits] */
static bool is_plain_fraction(const char *text) {
  size_t whole = strspn(text, "0123456789");
  if (whole == 0) return false;
  if (text[whole] == '\0') return true;
  const char *behind = text + whole + 1;
  size_t digits = strspn(behind, "0123456789");
  return text[whole] == '.' && digits > 0 && behind[digits] == '\0';
}

/* Fractions as strtod() reads them where the decimal point is a point: 8e-1 and 0x1p-1 too, and what stands behind is ignored.
 * One that is too small to be told from 0 is none, as in std::stod(). */
static bool read_fraction(struct parser *parser, struct token token, double *value) {
  const char *reason = "not a number";
  if (!is_solid(parser, token)) return refuse(parser, token, "a space inside a number");
  char text[FRACTION_CHARACTERS + 1];
  size_t length = 0;
  struct token rest = token;
  while (length < FRACTION_CHARACTERS && (text[length] = take_character(parser, &rest)) != '\0') length++;
  text[length] = '\0';
  bool cut = take_character(parser, &rest) != '\0';
  bool strict = parser->dialect == DROWSE_SETTINGS_STRICT;
  if (strict && !is_plain_fraction(text)) return refuse(parser, token, reason);
  /* Asking for the "C" locale allocates nothing, needs no freeing and cannot fail. */
  locale_t c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
  int saved = errno;
  errno = 0;
  char *end;
  *value = strtod_l(text, &end, c_locale);
  bool out_of_range = errno == ERANGE;
  errno = saved;
  if (end == text) return refuse(parser, token, reason);
  if (cut && (strict || *end == '\0')) return refuse(parser, token, "too long a number");
  if (out_of_range) return refuse(parser, token, "too large a number, or too small");
  return true;
}

static bool is_power_of_2(uint64_t value) {
  return value != 0 && (value & (value - 1)) == 0;
}

/* ---- values. Each reader takes one and stores it in a member of the settings. */

static bool read_bool(struct parser *parser, void *member) {
  struct token token = take(parser);
  bool on = is(parser, token, "True");
  if (!is_solid(parser, token) || (!on && !is(parser, token, "False"))) return refuse(parser, token, "neither True nor False");
  *(bool *)member = on;
  return true;
}

/* Has to be at least as large as a large segment, in 2.9 larger. More than there are addresses is as much as there are. */
static bool read_split_size(struct parser *parser, void *member) {
  struct token token = take(parser);
  uint64_t value;
  if (!read_whole(parser, token, true, &value)) return false;
  if (value < LARGE_SEGMENT_MIB) return refuse(parser, token, "less than 20 (MiB)");
  if (value == LARGE_SEGMENT_MIB && parser->dialect == DROWSE_SETTINGS_TORCH_2_9)
    return refuse(parser, token, "not more than 20 (MiB)");
  if (value > UINT64_MAX / MIB) {
    if (parser->dialect == DROWSE_SETTINGS_STRICT) return refuse(parser, token, "more than there are addresses");
    value = UINT64_MAX / MIB;
  }
  *(uint64_t *)member = value * MIB;
  return true;
}

static bool read_reserve_size(struct parser *parser, void *member) {
  struct token token = take(parser);
  uint64_t value;
  if (!read_whole(parser, token, true, &value)) return false;
  if (value == 0) return refuse(parser, token, "not more than 0 (MiB)");
  bool fits = value <= UINT64_MAX / MIB;
  if (!fits && parser->dialect == DROWSE_SETTINGS_STRICT) return refuse(parser, token, "more than there are addresses");
  *(uint64_t *)member = fits ? value * MIB : UINT64_MAX;
  return true;
}

static bool read_thread_count(struct parser *parser, void *member) {
  struct token token = take(parser);
  uint64_t value;
  if (!read_whole(parser, token, true, &value)) return false;
  if (!is_power_of_2(value)) return refuse(parser, token, "not a power of 2");
  if (value > REGISTER_THREADS_MAX) return refuse(parser, token, "more than 128");
  *(uint64_t *)member = value;
  return true;
}

static bool read_threshold(struct parser *parser, void *member) {
  struct token token = take(parser);
  double value;
  if (!read_fraction(parser, token, &value)) return false;
  if (!(value > 0 && value < 1)) return refuse(parser, token, "not between 0 and 1");
  *(double *)member = value;
  return true;
}

static bool read_memory_fraction(struct parser *parser, void *member) {
  struct token token = take(parser);
  double value;
  if (!read_fraction(parser, token, &value)) return false;
  if (!(value >= 0 && value <= 1)) return refuse(parser, token, "not from 0 to 1");
  *(double *)member = value;
  return true;
}

/* PyTorch refuses one that is not the one it loaded, too, which cannot be known here. */
static bool read_backend(struct parser *parser, void *member) {
  struct token token = take(parser);
  bool async = is(parser, token, "cudaMallocAsync");
  if (!is_solid(parser, token) || (!async && !is(parser, token, "native")))
    return refuse(parser, token, "neither native nor cudaMallocAsync");
  *(drowse_settings_backend *)member = async ? DROWSE_SETTINGS_CUDA_MALLOC_ASYNC : DROWSE_SETTINGS_NATIVE;
  return true;
}

/* ---- the list of divisions: [BOUNDARY:DIVISIONS,...,>:DIVISIONS], boundaries in MiB */

struct division_list {
  uint64_t *divisions;
  size_t pairs;  /* read so far */
  bool bounded;  /* one of them had a boundary that is a number */
  size_t last;   /* the index of the last such, 0 before */
  bool complete; /* the last pair was that of > */
};

static void fill(uint64_t *divisions, size_t from, size_t to, uint64_t value) {
  for (size_t at = from; at < to; at++) divisions[at] = value;
}

/* ">": all that lies above the last boundary; 2.9 overwrites what was said for that boundary, too. */
static void set_above(const struct parser *parser, struct division_list *list, uint64_t value) {
  bool overwrites = parser->dialect == DROWSE_SETTINGS_TORCH_2_9;
  fill(list->divisions, overwrites ? list->last : list->last + 1, DIVISION_COUNT, value);
  list->complete = true;
}

/* The first boundary stands for all that lies below it as well. A boundary that is too large is taken for the largest. */
static bool set_at(struct parser *parser, struct division_list *list, struct token token, uint64_t value) {
  uint64_t boundary;
  if (!read_whole(parser, token, false, &boundary)) return false;
  if (!is_power_of_2(boundary)) return refuse(parser, token, "not a power of 2");
  size_t index = (size_t)__builtin_ctzll(boundary);
  if (parser->dialect == DROWSE_SETTINGS_STRICT) {
    if (index >= DIVISION_COUNT) return refuse(parser, token, "more than 32768 (MiB)");
    if (list->bounded && index <= list->last) return refuse(parser, token, "not larger than the boundary before");
  }
  if (index >= DIVISION_COUNT) index = DIVISION_COUNT - 1;
  fill(list->divisions, list->bounded ? index : 0, index + 1, value);
  list->bounded = true;
  list->last = index;
  return true;
}

static bool read_pair(struct parser *parser, struct division_list *list, struct token boundary) {
  /* Taken for a separator, a bracket would end the list for the one of 2.10's two parsers that skips it, and not for the other.
   */
  struct token bracket = peek(parser);
  if (is(parser, bracket, "]")) return refuse(parser, bracket, "a boundary without its divisions");
  if (!take_separator(parser, ":", "not the ':' behind a boundary")) return false;
  struct token divisions = take(parser);
  uint64_t value;
  if (!read_whole(parser, divisions, true, &value)) return false;
  if (value != 0 && !is_power_of_2(value)) return refuse(parser, divisions, "neither 0 nor a power of 2");
  if (is(parser, boundary, ">")) {
    if (parser->dialect == DROWSE_SETTINGS_STRICT && list->pairs == 0) return refuse(parser, boundary, "above no boundary");
    set_above(parser, list, value);
  } else if (!set_at(parser, list, boundary, value)) {
    return false;
  }
  list->pairs++;
  return true;
}

/* Takes the comma behind a pair, unless the list ends there. */
static bool read_comma(struct parser *parser, const struct division_list *list) {
  if (is(parser, peek(parser), "]")) return true;
  struct token comma = peek(parser);
  if (!take_separator(parser, ",", "not the ',' or ']' behind a pair")) return false;
  if (parser->dialect != DROWSE_SETTINGS_STRICT) return true;
  if (list->complete) return refuse(parser, comma, "'>' is not the last of the list");
  struct token next = peek(parser);
  return !is(parser, next, "]") || refuse(parser, next, "a list that ends with a ','");
}

static bool read_list(struct parser *parser, uint64_t *divisions) {
  struct division_list list = {.divisions = divisions};
  for (;;) {
    struct token boundary = take(parser);
    if (boundary.length == 0) {
      /* 2.9 does not miss the bracket where a pair would begin: it takes "[1:2," for a list. */
      return parser->dialect == DROWSE_SETTINGS_TORCH_2_9 || refuse(parser, boundary, "a list without its ']'");
    }
    if (is(parser, boundary, "]")) {
      bool empty = parser->dialect == DROWSE_SETTINGS_STRICT && list.pairs == 0;
      return !empty || refuse(parser, boundary, "an empty list");
    }
    if (!read_pair(parser, &list, boundary) || !read_comma(parser, &list)) return false;
  }
}

static bool read_divisions(struct parser *parser, void *member) {
  uint64_t *divisions = member;
  struct token token = take(parser);
  if (is(parser, token, "[")) return read_list(parser, divisions);
  uint64_t value;
  if (!read_whole(parser, token, true, &value)) return false;
  if (!is_power_of_2(value)) return refuse(parser, token, "not a power of 2");
  fill(divisions, 0, DIVISION_COUNT, value);
  return true;
}

/* ---- keys */

#define KEY(name, member, read, since) \
  { name, offsetof(drowse_settings, member), read, DROWSE_SETTINGS_##since }

/* Two with one member are two names of one key: PyTorch's builds for HIP have names of their own, and each build knows all. */
static const struct key {
  const char *name;
  size_t member;
  bool (*read)(struct parser *parser, void *member);
  drowse_settings_dialect since;
} keys[] = {
    KEY("expandable_segments", expandable_segments, read_bool, TORCH_2_9),
    KEY("max_split_size_mb", max_split_size, read_split_size, TORCH_2_9),
    KEY("max_non_split_rounding_mb", max_non_split_rounding, read_split_size, TORCH_2_9),
    KEY("garbage_collection_threshold", garbage_collection_threshold, read_threshold, TORCH_2_9),
    KEY("roundup_power2_divisions", roundup_power2_divisions, read_divisions, TORCH_2_9),
    KEY("backend", backend, read_backend, TORCH_2_9),
    KEY("release_lock_on_cudamalloc", release_lock_on_cudamalloc, read_bool, TORCH_2_9),
    KEY("release_lock_on_hipmalloc", release_lock_on_cudamalloc, read_bool, TORCH_2_9),
    KEY("graph_capture_record_stream_reuse", graph_capture_record_stream_reuse, read_bool, TORCH_2_9),
    KEY("pinned_use_cuda_host_register", pinned_use_cuda_host_register, read_bool, TORCH_2_9),
    KEY("pinned_use_hip_host_register", pinned_use_cuda_host_register, read_bool, TORCH_2_9),
    KEY("pinned_use_background_threads", pinned_use_background_threads, read_bool, TORCH_2_9),
    KEY("pinned_num_register_threads", pinned_num_register_threads, read_thread_count, TORCH_2_9),
    KEY("pinned_reserve_segment_size_mb", pinned_reserve_segment_size, read_reserve_size, TORCH_2_10),
    KEY("per_process_memory_fraction", per_process_memory_fraction, read_memory_fraction, TORCH_2_10),
};
#define KEY_COUNT (sizeof keys / sizeof keys[0])

static const struct key *find_key(const struct parser *parser, struct token token) {
  for (const struct key *key = keys; key < keys + KEY_COUNT; key++) {
    if (is(parser, token, key->name)) return key;
  }
  return NULL;
}

/* The bits of all of a key's names. */
static uint32_t key_bits(const struct key *key) {
  uint32_t bits = 0;
  for (size_t at = 0; at < KEY_COUNT; at++) {
    if (keys[at].member == key->member) bits |= (uint32_t)1 << at;
  }
  return bits;
}

/* ---- parsing */

static const drowse_settings defaults = {
    .max_split_size = UINT64_MAX,
    .max_non_split_rounding = LARGE_SEGMENT_MIB * MIB,
    .pinned_num_register_threads = 1,
    .per_process_memory_fraction = 1,
};

static bool is_known(const struct parser *parser, const struct key *key) {
  return key != NULL && !(parser->dialect == DROWSE_SETTINGS_TORCH_2_9 && key->since == DROWSE_SETTINGS_TORCH_2_10);
}

static bool parse_item(struct parser *parser, struct token token) {
  const struct key *key = find_key(parser, token);
  if (!is_known(parser, key)) return refuse(parser, token, "no setting");
  if (parser->dialect == DROWSE_SETTINGS_STRICT) {
    if (!is_solid(parser, token)) return refuse(parser, token, "a space inside a key");
    if (parser->for_heap && key->member != offsetof(drowse_settings, expandable_segments))
      return refuse(parser, token, "no setting of a heap, which has expandable_segments only");
    if (parser->named & key_bits(key)) return refuse(parser, token, "named a second time");
  }
  parser->named |= key_bits(key);
  if (!take_separator(parser, ":", "no value: the ':' behind the key is missing")) return false;
  return key->read(parser, (char *)&parser->settings + key->member);
}

static bool parse(struct parser *parser) {
  struct token key = take(parser);
  while (key.length > 0) {
    if (!parse_item(parser, key)) return false;
    /* Nobody but the strict dialect minds a comma at the end. */
    if (peek(parser).length == 0) return true;
    if (!take_separator(parser, ",", "not the ',' behind a value")) return false;
    key = take(parser);
    if (key.length == 0 && parser->dialect == DROWSE_SETTINGS_STRICT) return refuse(parser, key, "no key behind the last ','");
  }
  return true;
}

DROWSE_API drowse_status drowse_settings_parse(const char *text, drowse_settings_dialect dialect, drowse_settings *settings,
                                               size_t *error_offset) {
  drowse_status status = dz_result_check(settings, "drowse_settings");
  if (status != DROWSE_OK) return status;
  if ((unsigned)dialect > DROWSE_SETTINGS_TORCH_2_10)
    return dz_error(DROWSE_ERR_INVALID, "drowse_settings_parse: there is no dialect %d", (int)dialect);
  if (text == NULL) text = "";
  struct parser parser = {.text = text, .at = text, .dialect = dialect, .settings = defaults};
  if (!parse(&parser)) {
    if (error_offset != NULL) *error_offset = (size_t)(parser.refused.start - text);
    return refused(&parser, "settings");
  }
  dz_result_write(settings, &parser.settings, sizeof parser.settings);
  return DROWSE_OK;
}

drowse_status dz_settings_parse(struct settings *settings, const char *text, const char *source) {
  if (text == NULL) text = "";
  struct parser parser = {.text = text, .at = text, .dialect = DROWSE_SETTINGS_STRICT, .for_heap = true};
  parser.settings.expandable_segments = true;
  if (!parse(&parser)) return refused(&parser, source);
  settings->expandable_segments = parser.settings.expandable_segments;
  return DROWSE_OK;
}

/* ---- editing. The text is cut into items as 2.10 does it, by far the most tolerant, and what another dialect accepts is cut in
 * the same places. */

struct item {
  struct token key, value;
};

struct output {
  char *at; /* NULL: only counted */
  size_t bytes;
};

static void put(struct output *output, const char *start, size_t bytes) {
  if (output->at != NULL) memcpy(output->at + output->bytes, start, bytes);
  output->bytes += bytes;
}

static bool is_word(struct token token) {
  return token.length > 0 && !is_delimiter(token.start[0]);
}

/* Takes a word or a list. The list may lack its bracket, as 2.9 has it. */
static bool take_value(struct parser *parser, bool *whole) {
  struct token token = take(parser);
  *whole = true;
  if (is_word(token)) return true;
  if (!is(parser, token, "[")) return refuse(parser, token, "no value");
  while (token.length > 0 && !is(parser, token, "]")) token = take(parser);
  *whole = token.length > 0;
  return true;
}

/* Takes an item and the separator behind it. Its value is all between two separators but the spaces around it: for 2.9 a tab
 * beside a word is part of it, for 2.10 a word behind a list stands where it skips a comma, and would run into a word that takes
 * the list's place. */
static bool take_item(struct parser *parser, struct item *item) {
  item->key = take(parser);
  if (!is_word(item->key)) return refuse(parser, item->key, "no key");
  if (!take_separator(parser, ":", "no value: the ':' behind the key is missing")) return false;
  item->value.start = parser->at + strspn(parser->at, " ");
  bool whole;
  if (!take_value(parser, &whole)) return false;
  if (is_word(peek(parser))) (void)take(parser);
  const char *end = peek(parser).start;
  while (end[-1] == ' ') end--;
  item->value.length = (size_t)(end - item->value.start);
  (void)take(parser);
  return true;
}

/* Whether the item is the one that name names, by this or another of its key's names. */
static bool is_named(const struct parser *parser, const struct item *item, const char *name, const struct key *key) {
  if (key == NULL) return is(parser, item->key, name);
  const struct key *own = find_key(parser, item->key);
  return own != NULL && own->member == key->member;
}

/* Puts a pair in front of a text that lacks its key; not at the end, where a list without its bracket would take it in. A blank
 * text goes before it, or would count as part of the value; its length is returned. */
static size_t put_pair(struct output *output, const char *text, const char *name, struct token value) {
  size_t blank = strspn(text, " \t\n\v\f\r");
  bool alone = text[blank] == '\0';
  if (alone) put(output, text, blank);
  put(output, name, strlen(name));
  put(output, ":", 1);
  put(output, value.start, value.length);
  if (!alone) put(output, ",", 1);
  return alone ? blank : 0;
}

static bool edit(struct parser *parser, const char *name, struct token value, struct output *output) {
  const struct key *key = find_key(parser, (struct token){name, strlen(name)});
  const char *copied = parser->text;
  bool found = false;
  parser->at = parser->text;
  while (peek(parser).length > 0) {
    struct item item;
    if (!take_item(parser, &item)) return false;
    if (!is_named(parser, &item, name, key)) continue;
    put(output, copied, (size_t)(item.value.start - copied));
    put(output, value.start, value.length);
    copied = item.value.start + item.value.length;
    found = true;
  }
  if (!found) copied += put_pair(output, copied, name, value);
  put(output, copied, strlen(copied) + 1);
  return true;
}

/* One word, with nothing that a lexer drops. */
static bool is_key(const char *name) {
  return name[0] != '\0' && name[strcspn(name, ",:[] \t\n\v\f\r")] == '\0';
}

/* One word or one list, without the white space around it. */
static bool cut_value(const char *text, struct token *value) {
  struct parser parser = {.text = text, .at = text, .dialect = DROWSE_SETTINGS_TORCH_2_10};
  bool whole;
  value->start = peek(&parser).start;
  if (!take_value(&parser, &whole) || !whole) return false;
  value->length = (size_t)(parser.at - value->start);
  return peek(&parser).length == 0;
}

DROWSE_API drowse_status drowse_settings_edit(const char *text, const char *key, const char *value, char *out,
                                              size_t *out_bytes) {
  if (key == NULL || value == NULL || out_bytes == NULL)
    return dz_error(DROWSE_ERR_INVALID, "drowse_settings_edit: %s is NULL",
                    key == NULL     ? "key"
                    : value == NULL ? "value"
                                    : "out_bytes");
  if (!is_key(key)) return dz_error(DROWSE_ERR_INVALID, "drowse_settings_edit: \"%.64s\" is no key", key);
  struct token cut;
  if (!cut_value(value, &cut)) return dz_error(DROWSE_ERR_INVALID, "drowse_settings_edit: \"%.64s\" is no value", value);
  if (text == NULL) text = "";
  struct parser parser = {.text = text, .dialect = DROWSE_SETTINGS_TORCH_2_10};
  struct output output = {NULL, 0};
  if (!edit(&parser, key, cut, &output)) return refused(&parser, "settings");
  size_t room = *out_bytes;
  *out_bytes = output.bytes;
  if (out == NULL) return DROWSE_OK;
  if (room < output.bytes)
    return dz_error(DROWSE_ERR_INVALID, "drowse_settings_edit: %zu bytes are too few: it takes %zu", room, output.bytes);
  output = (struct output){out, 0};
  (void)edit(&parser, key, cut, &output);
  return DROWSE_OK;
}
