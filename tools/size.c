/* SPDX-License-Identifier: Apache-2.0
 *
 * Sizes as people write and read them.
 */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "tool.h"

static const struct unit {
  const char *name;
  uint64_t bytes;
} units[] = {
    {"", 1},
    {"B", 1},
    {"K", UINT64_C(1) << 10},
    {"KiB", UINT64_C(1) << 10},
    {"kB", 1000},
    {"KB", 1000},
    {"M", UINT64_C(1) << 20},
    {"MiB", UINT64_C(1) << 20},
    {"MB", 1000000},
    {"G", UINT64_C(1) << 30},
    {"GiB", UINT64_C(1) << 30},
    {"GB", 1000000000},
    {"T", UINT64_C(1) << 40},
    {"TiB", UINT64_C(1) << 40},
    {"TB", UINT64_C(1000000000000)},
};

static const struct unit *find_unit(const char *name) {
  for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
    if (strcmp(name, units[i].name) == 0) return &units[i];
  }
  return NULL;
}

/* Up to six digits, so that their product with a unit fits 64 bits. */
static const char *parse_fraction(const char *text, uint64_t *numerator, uint64_t *denominator) {
  *numerator = 0;
  *denominator = 1;
  while (isdigit((unsigned char)*text) && *denominator < 1000000) {
    *numerator = *numerator * 10 + (uint64_t)(*text++ - '0');
    *denominator *= 10;
  }
  return text;
}

const char *dz_size_parse(const char *text, uint64_t *bytes) {
  static const char not_a_size[] = "is not a size such as 4GiB, 1.5GiB or 1048576";
  static const char too_large[] = "does not fit 64 bits";
  if (!isdigit((unsigned char)*text)) return not_a_size;
  uint64_t whole = 0;
  bool fits = true;
  for (; isdigit((unsigned char)*text); text++) {
    fits = fits && !__builtin_mul_overflow(whole, 10, &whole) && !__builtin_add_overflow(whole, (uint64_t)(*text - '0'), &whole);
  }
  uint64_t numerator = 0, denominator = 1;
  if (*text == '.') {
    if (!isdigit((unsigned char)*++text)) return not_a_size;
    text = parse_fraction(text, &numerator, &denominator);
  }
  const struct unit *unit = find_unit(text);
  if (unit == NULL) return not_a_size;
  if (numerator * unit->bytes % denominator != 0) return "is not a whole number of bytes";
  if (!fits || __builtin_mul_overflow(whole, unit->bytes, &whole) ||
      __builtin_add_overflow(whole, numerator * unit->bytes / denominator, &whole))
    return too_large;
  *bytes = whole;
  return NULL;
}

struct size_text dz_size(uint64_t bytes) {
  static const char names[] = "KMGTPE";
  struct size_text out;
  if (bytes < 1024) {
    snprintf(out.text, sizeof out.text, "%u B", (unsigned)bytes);
    return out;
  }
  double value = (double)bytes / 1024;
  size_t unit = 0;
  for (; value >= 1023.95 && names[unit + 1] != '\0'; unit++) value /= 1024;
  snprintf(out.text, sizeof out.text, "%.1f %ciB", value, names[unit]);
  return out;
}

struct size_text dz_rate(uint64_t bytes, double seconds) {
  struct size_text out = {"-"};
  if (bytes > 0 && seconds > 0) snprintf(out.text, sizeof out.text, "%.2f", (double)bytes / (1 << 30) / seconds);
  return out;
}
