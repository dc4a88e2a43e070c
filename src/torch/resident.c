/* SPDX-License-Identifier: Apache-2.0
 *
 * A list for each device, which only grows, of blocks by their addresses. An entry whose block is gone is used again. Without a
 * lock: a fork finds it whole.
 */
#include "torch/resident.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "torch/heaps.h"

struct resident {
  struct resident *next;
  _Atomic(const void *) base; /* NULL: to be used again */
};

static _Atomic(struct resident *) lists[DZ_DEVICES];

/* The entry that has it; of NULL, one that is free. */
static struct resident *entry_of(int device, const void *base) {
  struct resident *entry = atomic_load(&lists[device]);
  while (entry != NULL && atomic_load(&entry->base) != base) entry = entry->next;
  return entry;
}

static drowse_status remember(int device, const void *base) {
  if (entry_of(device, base) != NULL) return DROWSE_OK;
  for (struct resident *entry = entry_of(device, NULL); entry != NULL; entry = entry_of(device, NULL)) {
    const void *unused = NULL;
    if (atomic_compare_exchange_strong(&entry->base, &unused, base)) return DROWSE_OK;
  }
  struct resident *entry = malloc(sizeof *entry);
  if (entry == NULL) return drowse_error_set(DROWSE_ERR_NO_HOST_MEMORY, "no memory for what is to stay resident");
  atomic_init(&entry->base, base);
  entry->next = atomic_load(&lists[device]);
  while (!atomic_compare_exchange_weak(&lists[device], &entry->next, entry)) continue;
  return DROWSE_OK;
}

drowse_status dz_resident_keep(const void *ptr, uint64_t *bytes) {
  drowse_status status = DROWSE_ERR_NOT_FOUND;
  for (int device = dz_heaps_next(0); device < DZ_DEVICES; device = dz_heaps_next(device + 1)) {
    drowse_block block = {.struct_size = sizeof block};
    status = drowse_block_get(dz_heaps_opened(device), ptr, &block);
    if (status != DROWSE_OK) continue;
    if (block.state != DROWSE_AWAKE) return drowse_error_set(DROWSE_ERR_ASLEEP, "it is paused, and has no place to be kept in");
    *bytes = block.bytes;
    return remember(device, block.base);
  }
  return status;
}

/* Two threads that kept it at once may have made two entries. */
void dz_resident_forget(int device, const void *base) {
  if (base == NULL) return; /* the mark of entries that others are about to take */
  for (struct resident *entry; (entry = entry_of(device, base)) != NULL;) {
    const void *kept = base;
    (void)atomic_compare_exchange_strong(&entry->base, &kept, NULL);
  }
}

bool dz_resident_has(int device, const char *name) {
  for (struct resident *entry = atomic_load(&lists[device]); entry != NULL; entry = entry->next) {
    drowse_block block = {.struct_size = sizeof block};
    const void *base = atomic_load(&entry->base);
    if (base == NULL || drowse_block_get(dz_heaps_opened(device), base, &block) != DROWSE_OK) continue;
    if (strcmp(block.tag, name) == 0) return true;
  }
  return false;
}
