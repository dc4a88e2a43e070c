/* SPDX-License-Identifier: Apache-2.0
 *
 * Tables of handles. A handle says its kind, its place and how often that place was used before, so that one of something gone is
 * known as such. Only streams' handles are used again: CUDA's are addresses, which come back, and code that keys anything by them
 * has to show that it does not mind.
 *
 *   kind << 56 | generation << 24 | place + 1
 */
#include "driver/host/state.h"

#include <stdlib.h>

enum { PLACE_BITS = 24, KIND_SHIFT = 56, PLACES_MAX = (1 << PLACE_BITS) - 1 };

static bool grow(struct table *table) {
  uint32_t count = table->count == 0 ? 16 : table->count * 2;
  if (count > PLACES_MAX) return false;
  struct place *places = realloc(table->places, count * sizeof *places);
  if (places == NULL) return false;
  for (uint32_t at = table->count; at < count; at++) places[at] = (struct place){NULL, 0, at + 1};
  table->places = places;
  table->count = count;
  return true;
}

uint64_t dz_table_add(struct table *table, enum host_kind kind, void *object) {
  if (table->first_free == table->count && !grow(table)) return 0;
  uint32_t at = table->first_free;
  struct place *place = &table->places[at];
  table->first_free = place->next_free;
  table->used++;
  place->object = object;
  return (uint64_t)kind << KIND_SHIFT | (uint64_t)place->generation << PLACE_BITS | (at + 1);
}

static struct place *find(const struct table *table, enum host_kind kind, uint64_t handle) {
  uint32_t at = (uint32_t)(handle & PLACES_MAX) - 1;
  if (handle >> KIND_SHIFT != (uint64_t)kind || at >= table->count) return NULL;
  struct place *place = &table->places[at];
  return place->object != NULL && place->generation == (uint32_t)(handle >> PLACE_BITS) ? place : NULL;
}

void *dz_table_find(const struct table *table, enum host_kind kind, uint64_t handle) {
  struct place *place = find(table, kind, handle);
  return place == NULL ? NULL : place->object;
}

static void *take(struct table *table, enum host_kind kind, struct place *place) {
  void *object = place->object;
  place->object = NULL;
  if (kind != HOST_STREAM) place->generation++;
  place->next_free = table->first_free;
  table->first_free = (uint32_t)(place - table->places);
  table->used--;
  return object;
}

void *dz_table_remove(struct table *table, enum host_kind kind, uint64_t handle) {
  struct place *place = find(table, kind, handle);
  return place == NULL ? NULL : take(table, kind, place);
}

void *dz_table_take(struct table *table, enum host_kind kind, uint32_t *at) {
  for (; *at < table->count; ++*at) {
    if (table->places[*at].object != NULL) return take(table, kind, &table->places[*at]);
  }
  return NULL;
}
