/* SPDX-License-Identifier: Apache-2.0
 *
 * The copy pipeline. Copies are added to a flight until it is worth an event; before a flight is used again its event is waited
 * for, so that the link always has something to do, progress is told as flights land, and a cancel is noticed soon.
 */
#include "sleep/copy.h"

#include <inttypes.h>

/* 1.3 ms at 50 GiB/s: long beside the 5 us that starting a copy and waiting for it cost, short for a person. */
static const uint64_t flight_bytes = UINT64_C(64) << 20;

drowse_status dz_copier_begin(struct copier *copier, struct drowse_op *op, enum relay_way way) {
  const struct driver *driver = &op->heap->device.driver;
  *copier = (struct copier){.op = op, .way = way};
  dz_arena_begin_copies(&op->heap->arena);
  CUresult code = driver->StreamCreate(&copier->stream, CU_STREAM_NON_BLOCKING);
  for (unsigned i = 0; code == CUDA_SUCCESS && i < DZ_COPIES_IN_FLIGHT; i++) {
    code = driver->EventCreate(&copier->flights[i].event, CU_EVENT_DISABLE_TIMING);
  }
  dz_relay_init(&copier->relay, op, way, copier->stream);
  return code == CUDA_SUCCESS ? DROWSE_OK : dz_driver_error(driver, code, "creating a stream to copy on");
}

/* What is in flight still uses the backup, which may be given back next. */
void dz_copier_end(struct copier *copier) {
  const struct driver *driver = &copier->op->heap->device.driver;
  if (copier->stream != NULL) (void)driver->StreamSynchronize(copier->stream);
  dz_relay_end(&copier->relay);
  for (unsigned i = 0; i < DZ_COPIES_IN_FLIGHT; i++) {
    if (copier->flights[i].event != NULL) (void)driver->EventDestroy(copier->flights[i].event);
  }
  if (copier->stream != NULL) (void)driver->StreamDestroy(copier->stream);
  dz_arena_end_copies(&copier->op->heap->arena);
}

/* ---- flights */

static drowse_status land(struct copier *copier, struct flight *flight) {
  const struct driver *driver = &copier->op->heap->device.driver;
  if (!flight->away) return DROWSE_OK;
  CUresult code = driver->EventSynchronize(flight->event);
  if (code != CUDA_SUCCESS) return dz_driver_error(driver, code, "copying the tag \"%s\"", flight->tag->name->name);
  uint64_t bytes = flight->bytes;
  flight->away = false;
  flight->bytes = 0;
  flight->copies = 0;
  dz_op_copied(copier->op, flight->tag, bytes);
  return dz_op_check(copier->op);
}

static CUresult send_each(const struct copier *copier) {
  const struct driver *driver = &copier->op->heap->device.driver;
  const struct batch *batch = &copier->batch;
  CUresult code = CUDA_SUCCESS;
  for (unsigned i = 0; i < batch->count && code == CUDA_SUCCESS; i++) {
    code = copier->way == DZ_RELAY_OUT
               ? driver->MemcpyDtoHAsync((void *)(uintptr_t)batch->to[i], batch->from[i], batch->bytes[i], copier->stream)
               : driver->MemcpyHtoDAsync(batch->to[i], (const void *)(uintptr_t)batch->from[i], batch->bytes[i], copier->stream);
  }
  return code;
}

/* A call for each copy costs 2 to 4 us on an H100, one for many 0.4 us for each, where the link does not take longer: from 64 KiB
 * on it does. Drivers before 13.0 have no such call. */
static CUresult send_batch(struct copier *copier) {
  CUmemcpyAttributes attributes = {.srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM};
  size_t attributes_from = 0;
  struct batch *batch = &copier->batch;
  CUresult code = CUDA_ERROR_NOT_SUPPORTED;
  if (batch->count > 1)
    code = copier->op->heap->device.driver.MemcpyBatchAsync(batch->to, batch->from, batch->bytes, batch->count, &attributes,
                                                            &attributes_from, 1, copier->stream);
  if (code == CUDA_ERROR_NOT_SUPPORTED) code = send_each(copier);
  batch->count = 0;
  return code;
}

static drowse_status depart(struct copier *copier) {
  const struct driver *driver = &copier->op->heap->device.driver;
  struct flight *flight = &copier->flights[copier->next];
  if (flight->copies == 0) return DROWSE_OK;
  CUresult code = send_batch(copier);
  if (code == CUDA_SUCCESS) code = driver->EventRecord(flight->event, copier->stream);
  if (code != CUDA_SUCCESS) return dz_driver_error(driver, code, "copying the tag \"%s\"", flight->tag->name->name);
  flight->away = true;
  copier->next = (copier->next + 1) % DZ_COPIES_IN_FLIGHT;
  return land(copier, &copier->flights[copier->next]);
}

/* The flight that a copy of the tag can be added to. */
static drowse_status board(struct copier *copier, const struct tag *tag, struct flight **result) {
  const struct flight *flight = &copier->flights[copier->next];
  drowse_status status = flight->copies > 0 && flight->tag != tag ? depart(copier) : DROWSE_OK;
  *result = &copier->flights[copier->next];
  (*result)->tag = tag;
  return status;
}

/* Counts a copy that has been added to a flight. One that is full does not wait for the next copy, which may have to wait itself:
 * for memory to be pinned. */
static drowse_status count(struct copier *copier, struct flight *flight, uint64_t bytes) {
  flight->bytes += bytes;
  flight->copies++;
  return flight->bytes >= flight_bytes || flight->copies == DZ_FLIGHT_COPIES ? depart(copier) : DROWSE_OK;
}

drowse_status dz_copier_finish(struct copier *copier) {
  drowse_status status = depart(copier);
  for (unsigned i = 0; status == DROWSE_OK && i < DZ_COPIES_IN_FLIGHT; i++) {
    status = land(copier, &copier->flights[(copier->next + i) % DZ_COPIES_IN_FLIGHT]);
  }
  return status == DROWSE_OK ? dz_relay_finish(&copier->relay) : status;
}

/* ---- pieces */

/* Blocks in a row, whose backups are in a row too. */
struct row {
  const struct tag *tag;
  CUdeviceptr device;
  uint64_t bytes;
  const struct range *space; /* the first block's, in the arena, or */
  const struct filed *filed; /* its place in a file */
};

static drowse_status copy_directly(struct copier *copier, const struct row *row, uint64_t at, uint64_t bytes) {
  struct flight *flight;
  drowse_status status = board(copier, row->tag, &flight);
  if (status != DROWSE_OK) return status;
  struct batch *batch = &copier->batch;
  CUdeviceptr device = row->device + at, memory = (CUdeviceptr)(uintptr_t)dz_space_memory(row->space) + at;
  batch->to[batch->count] = copier->way == DZ_RELAY_OUT ? memory : device;
  batch->from[batch->count] = copier->way == DZ_RELAY_OUT ? device : memory;
  batch->bytes[batch->count++] = bytes;
  return count(copier, flight, bytes);
}

static drowse_status send(struct copier *copier, const struct row *row, uint64_t at, uint64_t bytes) {
  struct errand errand = {.tag = row->tag, .device = row->device + at, .bytes = bytes};
  if (row->space != NULL) {
    errand.memory = (char *)dz_space_memory(row->space) + at;
  } else {
    errand.file = row->filed->extent.file;
    errand.offset = row->filed->extent.offset + at;
  }
  return dz_relay_send(&copier->relay, &errand);
}

static uint64_t least(uint64_t a, uint64_t b) {
  return a < b ? a : b;
}

/* A piece of what is in the arena, where it may first have to be touched and pinned. */
static drowse_status copy_memory(struct copier *copier, const struct row *row, uint64_t at, uint64_t *bytes) {
  *bytes = least(row->bytes - at, flight_bytes);
  drowse_status status = dz_arena_wait(&copier->op->heap->arena, row->space, at + *bytes);
  if (status != DROWSE_OK) return status;
  *bytes = least(*bytes, dz_space_piece(row->space, at));
  if (copier->way != DZ_RELAY_COMPARE && dz_space_is_pinned(row->space, at)) return copy_directly(copier, row, at, *bytes);
  *bytes = least(*bytes, DZ_FILE_PIECE);
  return send(copier, row, at, *bytes);
}

static drowse_status copy_row(struct copier *copier, const struct row *row) {
  drowse_status status = DROWSE_OK;
  for (uint64_t at = 0, bytes; status == DROWSE_OK && at < row->bytes; at += bytes) {
    if (row->space != NULL) {
      status = copy_memory(copier, row, at, &bytes);
    } else {
      bytes = least(row->bytes - at, DZ_FILE_PIECE);
      status = send(copier, row, at, bytes);
    }
  }
  return status;
}

/* ---- blocks */

/* Out go those to new backups; with those that were there before, the device's contents are compared. */
static bool is_wanted(const struct copier *copier, const struct block *block) {
  return dz_block_is_backed_up(block) && (copier->way == DZ_RELAY_IN || block->is_new == (copier->way == DZ_RELAY_OUT));
}

/* Adds a block to a row that it continues on both sides; false: it does not. A file's pieces begin with each block. */
static bool add_to_row(struct row *row, const struct block *block) {
  if (row->bytes == 0) {
    *row =
        (struct row){.tag = dz_pool_of(block)->tag, .device = block->range.base, .space = block->backup, .filed = block->filed};
  } else if (row->space == NULL || block->backup == NULL || row->device + row->bytes != block->range.base ||
             !dz_space_follows(block->backup, row->space, row->bytes)) {
    return false;
  }
  row->bytes += block->range.bytes;
  return true;
}

drowse_status dz_copy_segment(struct copier *copier, const struct segment *segment) {
  drowse_status status = DROWSE_OK;
  struct row row = {0};
  for (const struct block *block = dz_segment_live(segment, NULL); status == DROWSE_OK && block != NULL;
       block = dz_segment_live(segment, block)) {
    if (!is_wanted(copier, block) || add_to_row(&row, block)) continue;
    status = copy_row(copier, &row);
    row.bytes = 0;
    (void)add_to_row(&row, block);
  }
  return status == DROWSE_OK ? copy_row(copier, &row) : status;
}

drowse_status dz_copy_tag(struct copier *copier, const struct tag *tag) {
  drowse_status status = DROWSE_OK;
  for (const struct pool *pool = tag->pools; pool != NULL; pool = pool->next) {
    for (const struct segment *segment = pool->segments; status == DROWSE_OK && segment != NULL; segment = segment->next)
      status = dz_copy_segment(copier, segment);
  }
  return status;
}

static drowse_status fill(struct copier *copier, const struct tag *tag, CUdeviceptr device, uint64_t bytes, unsigned char value) {
  const struct driver *driver = &copier->op->heap->device.driver;
  struct flight *flight;
  drowse_status status = board(copier, tag, &flight);
  if (status != DROWSE_OK) return status;
  CUresult code = driver->MemsetD8Async(device, value, bytes, copier->stream);
  if (code != CUDA_SUCCESS)
    return dz_driver_error(driver, code, "filling %" PRIu64 " bytes of the tag \"%s\"", bytes, tag->name->name);
  return count(copier, flight, bytes);
}

drowse_status dz_fill_segment(struct copier *copier, const struct segment *segment, unsigned char value) {
  drowse_status status = DROWSE_OK;
  const struct tag *tag = segment->pool->tag;
  const struct block *block = dz_segment_live(segment, NULL);
  while (status == DROWSE_OK && block != NULL) {
    CUdeviceptr base = block->range.base, end = base;
    for (; block != NULL && block->range.base == end; block = dz_segment_live(segment, block)) end = dz_range_end(&block->range);
    status = fill(copier, tag, base, end - base, value);
  }
  return status;
}
