/* SPDX-License-Identifier: Apache-2.0
 *
 * Regions: what each thread has set.
 */
#include "torch/region.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/tls.h"

/* ---- texts: few, and kept */

struct text {
  struct text *next;
  char bytes[];
};

static _Atomic(struct text *) texts;

/* Two threads may both add the same one. */
const char *dz_region_text(const char *text) {
  struct text *first = atomic_load(&texts);
  for (const struct text *at = first; at != NULL; at = at->next) {
    if (strcmp(at->bytes, text) == 0) return at->bytes;
  }
  size_t bytes = strlen(text) + 1;
  struct text *added = malloc(sizeof *added + bytes);
  if (added == NULL) return NULL;
  memcpy(added->bytes, text, bytes);
  added->next = first;
  while (!atomic_compare_exchange_weak(&texts, &added->next, added)) continue;
  return added->bytes;
}

/* ---- switches */

enum setting { UNSET, OFF, ON, BAD };

static const char *const variables[] = {"TMS_INIT_ENABLE", "TMS_INIT_ENABLE_CPU_BACKUP", "TMS_INIT_ENABLE_DISK_BACKUP"};
enum { SWITCHES = sizeof variables / sizeof *variables };

static DZ_TLS unsigned char switches[SWITCHES]; /* enum setting: this thread's */

static bool is_one_of(const char *word, const char *const words[5]) {
  for (size_t at = 0; at < 5; at++) {
    if (strcmp(word, words[at]) == 0) return true;
  }
  return false;
}

static enum setting read_variable(const char *variable) {
  static const char *const on[] = {"1", "true", "TRUE", "yes", "YES"}, *const off[] = {"0", "false", "FALSE", "no", "NO"};
  const char *word = getenv(variable);
  if (word == NULL || is_one_of(word, off)) return OFF;
  return is_one_of(word, on) ? ON : BAD;
}

bool dz_region_variable(const char *variable) {
  return read_variable(variable) != OFF;
}

bool dz_region_is_on(enum dz_switch which) {
  if (switches[which] == UNSET) switches[which] = (unsigned char)read_variable(variables[which]);
  return switches[which] != OFF;
}

void dz_region_switch(enum dz_switch which, bool on) {
  switches[which] = on ? ON : OFF;
}

/* ---- the tag */

static const char no_text[] = "";  /* the address says that there was no memory */
static DZ_TLS const char *current; /* NULL: "default" */

const char *dz_region_tag(void) {
  return current == NULL ? "default" : current;
}

void dz_region_tag_set(const char *tag) {
  const char *text = dz_region_text(tag);
  current = text == NULL ? no_text : text;
}

/* ---- the backend */

static const char *const backends[] = {"pinned", "mmap"};
static DZ_TLS signed char backend = -1; /* as the environment says */

static signed char find_backend(const char *name, signed char otherwise) {
  if (name == NULL) return otherwise;
  if (strcmp(name, backends[1]) == 0) return 1;
  if (*name == '\0' || strcmp(name, backends[0]) == 0) return 0;
  return otherwise;
}

const char *dz_region_backend(void) {
  if (backend < 0) backend = find_backend(getenv("TMS_INIT_CPU_BACKUP_BACKEND"), 0);
  return backends[backend];
}

void dz_region_backend_set(const char *name) {
  backend = find_backend(name == NULL ? "" : name, backend);
}

/* ---- drowse's names */

enum { SUFFIX_BYTES = 5 };
static const char *const suffixes[] = {[DZ_KEEP_NONE] = "/none", [DZ_KEEP_HOST] = "/host", [DZ_KEEP_FILE] = "/file"};

/* What is wrong with what the thread has set. */
static drowse_status check_switches(void) {
  char text[128];
  bool open = dz_region_is_on(DZ_SWITCH_REGION), host = dz_region_is_on(DZ_SWITCH_HOST), file = dz_region_is_on(DZ_SWITCH_FILE);
  for (size_t at = 0; at < SWITCHES; at++) {
    const char *word = getenv(variables[at]);
    if (switches[at] != BAD) continue;
    (void)snprintf(text, sizeof text, "%s is \"%.60s\": neither 1 nor 0", variables[at], word == NULL ? "" : word);
    return drowse_error_set(DROWSE_ERR_INVALID, text);
  }
  if (!open) return drowse_error_set(DROWSE_ERR_SCOPE, "no region is open on this thread");
  if (host && file) return drowse_error_set(DROWSE_ERR_INVALID, "a region has a backup in host memory or on disk, not both");
  return DROWSE_OK;
}

drowse_status dz_region_name(char name[DZ_TAG_ROOM]) {
  const char *tag = dz_region_tag();
  drowse_status status = check_switches();
  if (status != DROWSE_OK) return status;
  if (tag == no_text) return drowse_error_set(DROWSE_ERR_NO_HOST_MEMORY, "no memory for the name of this thread's tag");
  if (strlen(tag) >= DZ_TAG_ROOM - SUFFIX_BYTES) {
    char text[DZ_TAG_ROOM + 64];
    (void)snprintf(text, sizeof text, "the tag \"%.*s...\" has more than %d bytes", SUFFIX_BYTES * 4, tag,
                   DZ_TAG_ROOM - SUFFIX_BYTES - 1);
    return drowse_error_set(DROWSE_ERR_INVALID, text);
  }
  enum dz_keep keep = dz_region_is_on(DZ_SWITCH_HOST)   ? DZ_KEEP_HOST
                      : dz_region_is_on(DZ_SWITCH_FILE) ? DZ_KEEP_FILE
                                                        : DZ_KEEP_NONE;
  (void)snprintf(name, DZ_TAG_ROOM, "%s%s", tag, suffixes[keep]);
  return DROWSE_OK;
}

bool dz_region_owns(const char *tag, const char *name, enum dz_keep *keep) {
  size_t length = strlen(name);
  if (length < SUFFIX_BYTES) return false;
  length -= SUFFIX_BYTES;
  for (int at = DZ_KEEP_NONE; at <= DZ_KEEP_FILE; at++) {
    if (strcmp(name + length, suffixes[at]) == 0) *keep = (enum dz_keep)at;
  }
  return tag == NULL || *tag == '\0' || (strlen(tag) == length && strncmp(tag, name, length) == 0);
}
