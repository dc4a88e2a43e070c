/* SPDX-License-Identifier: Apache-2.0
 *
 * Names of tags. The table is an array of pointers, hashed with linear probing; names are only ever added, and the array has
 * twice as many places as there can be names, so a look-up takes no lock and always ends at an empty place.
 */
#include "scope/name.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/fork.h"
#include "core/lock.h"

enum { PLACES = 2 * (DZ_NAMES_MAX + 1) };

static _Atomic(drowse_tag *) places[PLACES]; /* written under names_lock, read without */
static struct lock names_lock = DZ_LOCK_INIT(DZ_RANK_NAMES);
static uint32_t names; /* under names_lock */

static uint64_t load(const char *bytes, size_t count) {
  uint64_t word = 0;
  memcpy(&word, bytes, count);
  return word;
}

/* Up to 8 bytes without reading past them, and without a loop: two loads that overlap hold all of them. */
static uint64_t load_short(const char *bytes, size_t count) {
  if (count >= 4) return load(bytes, 4) << 32 | load(bytes + count - 4, 4);
  if (count >= 2) return load(bytes, 2) << 16 | load(bytes + count - 2, 2);
  return load(bytes, 1);
}

/* Multiplying by an odd constant (2^64 divided by the golden ratio) and folding the high half down spreads every bit over the low
 * ones. */
static uint64_t mix(uint64_t hash, uint64_t word) {
  hash = (hash ^ word) * UINT64_C(0x9e3779b97f4a7c15);
  return hash ^ hash >> 32;
}

static uint32_t hash_name(const char *name, size_t length) {
  uint64_t hash = length;
  for (; length > 8; name += 8, length -= 8) hash = mix(hash, load(name, 8));
  return (uint32_t)mix(hash, load_short(name, length));
}

/* The place of a name: its tag's, or the empty one where it belongs. */
static _Atomic(drowse_tag *) *find_place(const char *name, size_t length, uint32_t hash) {
  for (uint32_t at = hash;; at++) {
    _Atomic(drowse_tag *) *place = &places[at % PLACES];
    const drowse_tag *tag = atomic_load_explicit(place, memory_order_acquire);
    if (tag == NULL || (tag->hash == hash && memcmp(tag->name, name, length + 1) == 0)) return place;
  }
}

/* Length of the UTF-8 sequence that begins at text, of at most left bytes, if it is well formed and no control character; else 0.
 */
static size_t character(const unsigned char *text, size_t left) {
  /* lead byte from, to; the range of the byte behind it; length: table 3-7 of the Unicode standard, less the control characters
   */
  static const struct {
    unsigned char from, to, low, high, length;
  } forms[] = {
      {0x20, 0x7e, 0, 0, 1},       {0xc2, 0xc2, 0xa0, 0xbf, 2}, {0xc3, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
      {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3}, {0xf0, 0xf0, 0x90, 0xbf, 4},
      {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
  };
  for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
    if (text[0] < forms[i].from || text[0] > forms[i].to) continue;
    if (forms[i].length > left) return 0;
    if (forms[i].length > 1 && (text[1] < forms[i].low || text[1] > forms[i].high)) return 0;
    for (size_t at = 2; at < forms[i].length; at++) {
      if (text[at] < 0x80 || text[at] > 0xbf) return 0;
    }
    return forms[i].length;
  }
  return 0;
}

/* Whether name, of length bytes as strnlen() counts to DZ_NAME_BYTES, may name a tag; if not, says why. */
static bool check_name(const char *name, size_t length) {
  if (length == 0) {
    dz_error(DROWSE_ERR_INVALID, "a tag's name is empty");
    return false;
  }
  if (length == DZ_NAME_BYTES) {
    dz_error(DROWSE_ERR_INVALID, "the tag \"%.20s...\" is longer than %d bytes", name, DZ_NAME_BYTES - 1);
    return false;
  }
  for (size_t at = 0, step; at < length; at += step) {
    step = character((const unsigned char *)name + at, length - at);
    if (step == 0) {
      dz_error(DROWSE_ERR_INVALID, "byte %zu of a tag's name, 0x%02x, is a control character or not UTF-8", at,
               (unsigned char)name[at]);
      return false;
    }
  }
  return true;
}

/* A new tag, which has no number yet. */
static drowse_tag *make_tag(const char *name, size_t length, uint32_t hash) {
  drowse_tag *tag = calloc(1, sizeof *tag);
  if (tag == NULL) {
    dz_error(DROWSE_ERR_NO_HOST_MEMORY, "no memory for the tag \"%s\"", name);
    return NULL;
  }
  tag->hash = hash;
  memcpy(tag->name, name, length);
  return tag;
}

/* Adds tag, or frees it where another thread was faster or the table is full. */
static const drowse_tag *add_tag(drowse_tag *tag, size_t length) {
  dz_lock(&names_lock);
  _Atomic(drowse_tag *) *place = find_place(tag->name, length, tag->hash);
  drowse_tag *there = atomic_load_explicit(place, memory_order_relaxed);
  bool added = there == NULL && names < DZ_NAMES_MAX;
  if (added) {
    tag->number = names++;
    atomic_store_explicit(place, tag, memory_order_release);
    there = tag;
  }
  dz_unlock(&names_lock);
  if (there == NULL) dz_error(DROWSE_ERR_INVALID, "no room for the tag \"%s\": there are %d names", tag->name, DZ_NAMES_MAX);
  if (!added) free(tag);
  return there;
}

const drowse_tag *dz_name_find(const char *name) {
  size_t length = strnlen(name, DZ_NAME_BYTES);
  if (length == 0 || length == DZ_NAME_BYTES) return NULL;
  return atomic_load_explicit(find_place(name, length, hash_name(name, length)), memory_order_acquire);
}

DROWSE_API const drowse_tag *drowse_tag_get(const char *name) {
  if (name == NULL) {
    dz_error(DROWSE_ERR_INVALID, "a tag's name is NULL");
    return NULL;
  }
  const drowse_tag *found = dz_name_find(name);
  if (found != NULL) return found;
  size_t length = strnlen(name, DZ_NAME_BYTES);
  if (!check_name(name, length)) return NULL;
  drowse_tag *tag = make_tag(name, length, hash_name(name, length));
  return tag == NULL ? NULL : add_tag(tag, length);
}

/* ---- fork */

static void prepare(void) {
  dz_lock_for_fork(&names_lock);
}

static void parent(void) {
  dz_unlock_for_fork(&names_lock);
}

static void child(bool held) {
  /* The table is whole at every moment: a name is there or not; at worst its number is not given again. */
  dz_lock_remake(&names_lock, held);
}

static struct fork_part part = {.rank = DZ_RANK_NAMES, .prepare = prepare, .parent = parent, .child = child};

static __attribute__((constructor)) void begin(void) {
  dz_fork_register(&part);
}
