/* SPDX-License-Identifier: Apache-2.0
 *
 * The relay. A slot's way:
 *
 *   out       FREE -> COPYING from the device -> checksum -> MOVING to the file -> FREE
 *   in        FREE -> MOVING from the file -> checksum -> COPYING to the device -> FREE
 *   compare   FREE -> COPYING from the device -> checksum -> FREE
 *
 * With memory in place of a file the processor does the moving, at once.
 */
#include "sleep/relay.h"

#include <inttypes.h>
#include <string.h>

#include "core/log.h"

void dz_relay_init(struct relay *relay, struct drowse_op *op, enum relay_way way, CUstream stream) {
  *relay = (struct relay){.op = op, .way = way, .stream = stream};
}

static const struct driver *driver_of(const struct relay *relay) {
  return &relay->op->heap->device.driver;
}

static drowse_status begin(struct relay *relay) {
  const struct driver *driver = driver_of(relay);
  drowse_status status = dz_ring_begin(&relay->ring, driver);
  if (status != DROWSE_OK) return status;
  relay->begun = true;
  for (unsigned i = 0; i < DZ_RING_SLOTS; i++) {
    CUresult code = driver->EventCreate(&relay->slots[i].event, CU_EVENT_DISABLE_TIMING);
    if (code != CUDA_SUCCESS) return dz_driver_error(driver, code, "creating an event to copy with");
  }
  return DROWSE_OK;
}

/* What is in flight still uses the slots. */
void dz_relay_end(struct relay *relay) {
  const struct driver *driver = driver_of(relay);
  if (!relay->begun) return;
  (void)driver->StreamSynchronize(relay->stream);
  dz_io_end(&relay->io);
  for (unsigned i = 0; i < DZ_RING_SLOTS; i++) {
    if (relay->slots[i].event != NULL) (void)driver->EventDestroy(relay->slots[i].event);
  }
  (void)dz_ring_end(&relay->ring);
  relay->begun = false;
}

/* ---- a slot's steps */

static void *memory_of(const struct relay *relay, const struct relay_slot *slot) {
  return relay->ring.slots[slot - relay->slots].memory;
}

/* Starts the copy between a slot and the device. */
static drowse_status copy(struct relay *relay, struct relay_slot *slot) {
  const struct driver *driver = driver_of(relay);
  const struct errand *errand = &slot->errand;
  void *memory = memory_of(relay, slot);
  CUresult code = relay->way == DZ_RELAY_IN ? driver->MemcpyHtoDAsync(errand->device, memory, errand->bytes, relay->stream)
                                            : driver->MemcpyDtoHAsync(memory, errand->device, errand->bytes, relay->stream);
  if (code == CUDA_SUCCESS) code = driver->EventRecord(slot->event, relay->stream);
  if (code != CUDA_SUCCESS)
    return dz_driver_error(driver, code, "copying %" PRIu64 " bytes of the tag \"%s\"", errand->bytes, errand->tag->name->name);
  slot->state = DZ_SLOT_COPYING;
  slot->turn = ++relay->turns;
  return DROWSE_OK;
}

static drowse_status begin_io(struct relay *relay) {
  drowse_status status = dz_io_begin(&relay->io, DZ_RING_SLOTS);
  if (status == DROWSE_OK) dz_log(DROWSE_LOG_INFO, "backups in files go by %s", dz_io_kind(&relay->io));
  return status;
}

/* Starts the transfer between a slot and the file. */
static drowse_status move(struct relay *relay, struct relay_slot *slot) {
  const struct errand *errand = &slot->errand;
  drowse_status status = relay->io.kind == NULL ? begin_io(relay) : DROWSE_OK;
  if (status != DROWSE_OK) return status;
  slot->state = DZ_SLOT_MOVING;
  return dz_io_start(&relay->io, relay->way == DZ_RELAY_OUT, errand->file, memory_of(relay, slot), errand->bytes, errand->offset,
                     slot);
}

static drowse_status arrive(struct relay *relay, struct relay_slot *slot) {
  slot->state = DZ_SLOT_FREE;
  if (relay->way != DZ_RELAY_COMPARE) dz_op_copied(relay->op, slot->errand.tag, slot->errand.bytes);
  return dz_op_check(relay->op);
}

static drowse_status tell_changed(const struct errand *errand) {
  dz_error(DROWSE_ERR_CORRUPT, "the tag \"%s\" is sealed, and %" PRIu64 " bytes at 0x%" PRIx64 " are not what its backup has",
           errand->tag->name->name, errand->bytes, (uint64_t)errand->device);
  dz_error_tag(errand->tag->name->name);
  return DROWSE_ERR_CORRUPT;
}

static drowse_status compare(struct relay *relay, struct relay_slot *slot) {
  const struct errand *errand = &slot->errand;
  const void *memory = memory_of(relay, slot);
  bool same = errand->file == NULL ? memcmp(errand->memory, memory, errand->bytes) == 0
                                   : dz_file_check(errand->file, errand->offset, memory, errand->bytes) == DROWSE_OK;
  return same ? arrive(relay, slot) : tell_changed(errand);
}

/* A copy from the device has landed. */
static drowse_status leave_device(struct relay *relay, struct relay_slot *slot) {
  const struct errand *errand = &slot->errand;
  if (relay->way == DZ_RELAY_COMPARE) return compare(relay, slot);
  if (errand->file != NULL) {
    dz_file_note(errand->file, errand->offset, memory_of(relay, slot), errand->bytes);
    return move(relay, slot);
  }
  memcpy(errand->memory, memory_of(relay, slot), errand->bytes);
  return arrive(relay, slot);
}

static drowse_status land(struct relay *relay, struct relay_slot *slot) {
  const struct driver *driver = driver_of(relay);
  CUresult code = driver->EventSynchronize(slot->event);
  if (code != CUDA_SUCCESS) return dz_driver_error(driver, code, "copying the tag \"%s\"", slot->errand.tag->name->name);
  return relay->way == DZ_RELAY_IN ? arrive(relay, slot) : leave_device(relay, slot);
}

/* The next transfer is done. */
static drowse_status end_move(struct relay *relay) {
  void *token;
  drowse_status status = dz_io_wait(&relay->io, &token);
  struct relay_slot *slot = token;
  if (status != DROWSE_OK) return status;
  if (relay->way == DZ_RELAY_OUT) return arrive(relay, slot);
  const struct errand *errand = &slot->errand;
  status = dz_file_check(errand->file, errand->offset, memory_of(relay, slot), errand->bytes);
  if (status != DROWSE_OK) {
    dz_error_tag(errand->tag->name->name);
    return status;
  }
  return copy(relay, slot);
}

/* ---- all slots */

/* The slot that has been in that state for longest; NULL: none is. */
static struct relay_slot *find(struct relay *relay, enum slot_state state) {
  struct relay_slot *found = NULL;
  for (unsigned i = 0; i < DZ_RING_SLOTS; i++) {
    struct relay_slot *slot = &relay->slots[i];
    if (slot->state == state && (found == NULL || slot->turn < found->turn)) found = slot;
  }
  return found;
}

/* Has one slot take its next step; does nothing if all are free. */
static drowse_status step(struct relay *relay) {
  struct relay_slot *copying = find(relay, DZ_SLOT_COPYING);
  if (copying != NULL) return land(relay, copying);
  return find(relay, DZ_SLOT_MOVING) != NULL ? end_move(relay) : DROWSE_OK;
}

drowse_status dz_relay_send(struct relay *relay, const struct errand *errand) {
  struct relay_slot *slot = NULL;
  drowse_status status = relay->begun ? DROWSE_OK : begin(relay);
  while (status == DROWSE_OK && (slot = find(relay, DZ_SLOT_FREE)) == NULL) status = step(relay);
  if (status != DROWSE_OK) return status;
  slot->errand = *errand;
  if (relay->way != DZ_RELAY_IN) return copy(relay, slot);
  if (errand->file != NULL) return move(relay, slot);
  memcpy(memory_of(relay, slot), errand->memory, errand->bytes);
  return copy(relay, slot);
}

drowse_status dz_relay_finish(struct relay *relay) {
  drowse_status status = DROWSE_OK;
  while (status == DROWSE_OK && (find(relay, DZ_SLOT_COPYING) != NULL || find(relay, DZ_SLOT_MOVING) != NULL))
    status = step(relay);
  return status;
}
