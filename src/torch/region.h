/* SPDX-License-Identifier: Apache-2.0
 *
 * Regions as torch_memory_saver has them: what a thread has set says whether what it allocates is to be paused later, under which
 * tag, and what becomes of the contents then. Other than drowse's scopes they are not nested: whoever sets restores.
 *
 * Contents are kept, or not, for each allocation there, and for a whole tag here. So each of its tags is up to three of drowse's:
 * "weights" is "weights/host", "weights/file" and "weights/none".
 */
#ifndef DZ_REGION_H
#define DZ_REGION_H

#include "drowse.h"

enum dz_keep { DZ_KEEP_NONE, DZ_KEEP_HOST, DZ_KEEP_FILE };

/* Room for drowse's name of a tag. */
enum { DZ_TAG_ROOM = 64 };

/* What a thread can switch on and off, each off until the thread sets it, or as a variable of the environment says: "1", "true",
 * "TRUE", "yes", "YES", or "0", "false" ... What is set to something else counts as on, and the thread's allocations fail. */
enum dz_switch {
  DZ_SWITCH_REGION, /* TMS_INIT_ENABLE: a region is open */
  DZ_SWITCH_HOST,   /* TMS_INIT_ENABLE_CPU_BACKUP */
  DZ_SWITCH_FILE    /* TMS_INIT_ENABLE_DISK_BACKUP */
};
bool dz_region_is_on(enum dz_switch which);
void dz_region_switch(enum dz_switch which, bool on);

/* The tag's name as the thread has set it, "default" before. What cannot be copied for want of memory cannot be allocated for. */
const char *dz_region_tag(void);
void dz_region_tag_set(const char *tag);

/* "pinned", the default, or "mmap": a wish that drowse has no use for; it pins what it can. Other words change nothing. */
const char *dz_region_backend(void);
void dz_region_backend_set(const char *name);

/* Writes drowse's name of the tag for what this thread allocates. SCOPE: no region is open; INVALID: a setting is not valid, the
 * name is too long, or both backups are on; NO_HOST_MEMORY. */
drowse_status dz_region_name(char name[DZ_TAG_ROOM]);

/* Whether drowse's name is one of a tag's, NULL or "": of any's; and what it says of the contents. */
bool dz_region_owns(const char *tag, const char *name, enum dz_keep *keep);

/* A copy of a text, for the process's life; NULL: no memory. */
const char *dz_region_text(const char *text);

/* What a variable of the environment says; set to neither yes nor no counts as yes. */
bool dz_region_variable(const char *variable);

#endif
