/* SPDX-License-Identifier: Apache-2.0
 *
 * Structs that start with their size, so that a program built with an older or a newer header works with this library.
 */
#ifndef DZ_OPTIONS_H
#define DZ_OPTIONS_H

#include <string.h>

#include "core/error.h"

/* Copies the caller's options, of which known bytes are known to this library, to *options; what he left out is zero. options
 * NULL: all zero. UNSUPPORTED: he sets something that is not known here. */
static inline drowse_status dz_options_read(void *options, size_t known, const void *given, const char *name) {
  memset(options, 0, known);
  if (given == NULL) return DROWSE_OK;
  size_t size;
  memcpy(&size, given, sizeof size);
  if (size < sizeof size) return dz_error(DROWSE_ERR_INVALID, "%s: struct_size is %zu; set it to sizeof(%s)", name, size, name);
  for (size_t at = known; at < size; at++) {
    if (((const unsigned char *)given)[at] != 0) {
      return dz_error(DROWSE_ERR_UNSUPPORTED, "%s: byte %zu is set, and this version knows %zu bytes", name, at, known);
    }
  }
  memcpy(options, given, size < known ? size : known);
  return DROWSE_OK;
}

/* Whether a result may be written to *to. */
static inline drowse_status dz_result_check(const void *to, const char *name) {
  if (to == NULL) return dz_error(DROWSE_ERR_INVALID, "%s is NULL", name);
  size_t size;
  memcpy(&size, to, sizeof size);
  if (size < sizeof size) return dz_error(DROWSE_ERR_INVALID, "%s: struct_size is %zu; set it to sizeof(%s)", name, size, name);
  return DROWSE_OK;
}

/* Writes a result of known bytes into the caller's struct, as much as he has room for, and zeroes what is not known here. */
static inline void dz_result_write(void *to, const void *result, size_t known) {
  size_t size;
  memcpy(&size, to, sizeof size);
  if (size > known) memset((char *)to + known, 0, size - known);
  memcpy(to, result, size < known ? size : known);
  memcpy(to, &size, sizeof size);
}

#endif
