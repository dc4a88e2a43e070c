/* SPDX-License-Identifier: Apache-2.0
 *
 * Waking tags: one by one in the order given, or together.
 *
 *   create     memory for every live block of the tag                           may fail: given back, ASLEEP, backup whole
 *   map, copy  at its addresses; all backups                                    may fail: unmapped again, likewise
 *   ---- the commit point: the last copy has landed ----
 *   be awake   free space is put in bins, the backup is dropped, unless the tag is sealed   cannot fail: metadata is there
 */
#include <inttypes.h>
#include <stdlib.h>

#include "core/options.h"
#include "heap/backup.h"
#include "heap/reclaim.h"
#include "sleep/copy.h"

/* What is written to discarded memory with DROWSE_WAKE_POISON: odd, negative, and no valid address when repeated. */
static const unsigned char poison = 0xdb;

/* How long is waited between two tries, nanoseconds: a tenant who leaves takes milliseconds to give his memory back. */
static const int64_t pause_ns = 20000000;

/* Some tags of an operation: from first up to end. */
struct group {
  struct tag *first;
  const struct tag *end;
};

/* ---- memory: created for a whole group before anything is mapped, so that want of it is noticed first */

/* A run of a segment's live blocks whose extents touch, rounded to whole extents. */
struct run {
  uint64_t base, end;
  /* behind it */
  uint64_t next;
  const struct block *gap;
};

static struct run before_first(const struct segment *segment) {
  return (struct run){.next = segment->base, .gap = segment->gaps};
}

/* The next run; false: no more. Runs end at gaps, which are looked at rather than all that lives between them. */
static bool next_run(const struct segment *segment, struct run *run) {
  uint64_t end = segment->base + segment->reserved;
  do {
    uint64_t low, high;
    while (run->gap != NULL && !dz_hole_inside(run->gap, &low, &high)) run->gap = run->gap->gap_next;
    run->base = run->next;
    run->end = run->gap != NULL ? low : end;
    run->next = run->gap != NULL ? high : end;
    if (run->gap != NULL) run->gap = run->gap->gap_next;
  } while (run->base == run->end && run->next < end);
  return run->base < run->end;
}

static uint64_t needed_bytes(const struct tag *tag) {
  uint64_t bytes = 0;
  for (const struct pool *pool = tag->pools; pool != NULL; pool = pool->next) {
    for (const struct segment *segment = pool->segments; segment != NULL; segment = segment->next) {
      struct run run = before_first(segment);
      while (next_run(segment, &run)) bytes += run.end - run.base;
    }
  }
  return bytes;
}

/* Extents for a group, in the order in which they will be mapped. */
struct supply_list {
  struct extent *first, **end;
};

static drowse_status create_for_segment(const struct segment *segment, struct supply_list *list) {
  drowse_status status = DROWSE_OK;
  struct run run = before_first(segment);
  while (status == DROWSE_OK && next_run(segment, &run))
    status = dz_extents_create(segment->pool->tag->heap, run.end - run.base, DZ_WAKING_BYTES, &list->end);
  return status;
}

static drowse_status create_for_tag(const struct tag *tag, struct supply_list *list) {
  drowse_status status = DROWSE_OK;
  for (const struct pool *pool = tag->pools; pool != NULL; pool = pool->next) {
    for (const struct segment *segment = pool->segments; status == DROWSE_OK && segment != NULL; segment = segment->next)
      status = create_for_segment(segment, list);
  }
  return status;
}

/* Says of a tag for which the device has not enough memory how much is missing. */
static drowse_status tell_out_of_memory(const struct tag *tag) {
  const drowse_heap *heap = tag->heap;
  size_t free_bytes = 0, total_bytes = 0;
  uint64_t bytes = needed_bytes(tag);
  (void)heap->device.driver.MemGetInfo(&free_bytes, &total_bytes);
  dz_error(DROWSE_ERR_NO_DEVICE_MEMORY, "waking the tag \"%s\" needs %" PRIu64 " bytes on %s, which has %zu free of %zu",
           tag->name->name, bytes, heap->device.name, free_bytes, total_bytes);
  dz_error_tag(tag->name->name);
  dz_error_bytes(bytes, free_bytes, free_bytes);
  return DROWSE_ERR_NO_DEVICE_MEMORY;
}

/* All that the group needs, or nothing. */
static drowse_status create(drowse_heap *heap, struct group group, struct extent **result) {
  struct supply_list list = {.first = NULL};
  drowse_status status = DROWSE_OK;
  list.end = &list.first;
  for (const struct tag *tag = group.first; status == DROWSE_OK && tag != group.end; tag = tag->op_next) {
    status = create_for_tag(tag, &list);
    if (status != DROWSE_OK) dz_extents_release(heap, list.first);
    if (status == DROWSE_ERR_NO_DEVICE_MEMORY) status = tell_out_of_memory(tag);
  }
  *result = status == DROWSE_OK ? list.first : NULL;
  return status;
}

/* ---- for want of memory: unused memory of the heap's own, the user's hook, patience */

static uint64_t missing_bytes(const drowse_heap *heap, struct group group) {
  size_t free_bytes = 0, total_bytes = 0;
  uint64_t bytes = 0;
  (void)heap->device.driver.MemGetInfo(&free_bytes, &total_bytes);
  for (const struct tag *tag = group.first; tag != group.end; tag = tag->op_next) bytes += needed_bytes(tag);
  return bytes > free_bytes ? bytes - free_bytes : heap->granularity;
}

/* Gives unused memory of awake tags back; false: there was none, or a capture forbids it. */
static bool give_back_unused(drowse_heap *heap) {
  struct error error; /* what the tag wants stays the failure, whatever happens here */
  uint64_t given_bytes = 0;
  dz_error_save(&error);
  (void)dz_heap_give_back(heap, 0, &given_bytes);
  (void)dz_error_restore(&error);
  return given_bytes > 0;
}

/* Passes some time, less if the user's hook frees memory. */
static void wait_for_memory(struct drowse_op *op, struct group group) {
  int64_t until = dz_now() + pause_ns;
  (void)dz_op_ask_for_memory(op, missing_bytes(op->heap, group), until < op->deadline ? until : op->deadline);
}

static drowse_status create_or_make_room(drowse_heap *heap, struct group group, struct extent **list) {
  drowse_status status = create(heap, group, list);
  return status == DROWSE_ERR_NO_DEVICE_MEMORY && give_back_unused(heap) ? create(heap, group, list) : status;
}

/* op->deadline 0: nobody wants to wait. */
static drowse_status create_patiently(struct drowse_op *op, struct group group, struct extent **list) {
  drowse_status status = create_or_make_room(op->heap, group, list);
  while (status == DROWSE_ERR_NO_DEVICE_MEMORY && dz_now() < op->deadline) {
    drowse_status going_on = dz_op_check(op);
    if (going_on != DROWSE_OK) return going_on;
    wait_for_memory(op, group);
    status = create_or_make_room(op->heap, group, list);
  }
  return status;
}

/* ---- mapping and copying: while a segment's copies are on their way, the next one is mapped */

/* With them come the block nodes that each pool needs to be awake, so that past the commit point none is wanting. */
static drowse_status find_gaps(struct group group) {
  drowse_status status = DROWSE_OK;
  for (struct tag *tag = group.first; status == DROWSE_OK && tag != group.end; tag = tag->op_next) {
    dz_lock(&tag->heap->lock);
    for (struct pool *pool = tag->pools; pool != NULL && status == DROWSE_OK; pool = pool->next) {
      dz_pool_lock(pool);
      status = dz_pool_find_gaps(pool);
      dz_pool_unlock(pool);
    }
    dz_unlock(&tag->heap->lock);
  }
  return status;
}

/* Takes as many bytes off a list's beginning as a run has. */
static struct extent *take_extents(struct extent **list, uint64_t bytes) {
  struct extent *first = *list, **end = list;
  for (uint64_t taken = 0; taken < bytes; end = &(*end)->after) taken += (*end)->bytes;
  struct extent *rest = *end;
  *end = NULL;
  *list = rest;
  return first;
}

static drowse_status map_segment(struct segment *segment, struct extent **list) {
  drowse_status status = DROWSE_OK;
  struct run run = before_first(segment);
  (void)dz_segment_retry_stuck(segment, segment->base, segment->reserved);
  while (status == DROWSE_OK && next_run(segment, &run))
    status = dz_segment_place(segment, run.base, take_extents(list, run.end - run.base));
  return status;
}

static drowse_status copy_segment(struct copier *copier, const struct segment *segment) {
  const struct drowse_op *op = copier->op;
  if (!segment->pool->tag->discarded) return dz_copy_segment(copier, segment);
  if ((op->flags & (DROWSE_WAKE_ZERO | DROWSE_WAKE_POISON)) == 0) return DROWSE_OK;
  return dz_fill_segment(copier, segment, (op->flags & DROWSE_WAKE_ZERO) != 0 ? 0 : poison);
}

static drowse_status fill_tag(struct copier *copier, const struct tag *tag, struct extent **list) {
  drowse_status status = DROWSE_OK;
  for (const struct pool *pool = tag->pools; pool != NULL; pool = pool->next) {
    for (struct segment *segment = pool->segments; status == DROWSE_OK && segment != NULL; segment = segment->next) {
      status = map_segment(segment, list);
      if (status == DROWSE_OK) status = copy_segment(copier, segment);
    }
  }
  return status;
}

/* Takes the extents of the list; those that have not been mapped after a failure go back. */
static drowse_status fill_group(struct drowse_op *op, struct group group, struct extent *list) {
  struct copier copier;
  drowse_status status = dz_copier_begin(&copier, op, DZ_RELAY_IN);
  for (const struct tag *tag = group.first; status == DROWSE_OK && tag != group.end; tag = tag->op_next)
    status = fill_tag(&copier, tag, &list);
  if (status == DROWSE_OK) status = dz_copier_finish(&copier);
  dz_copier_end(&copier);
  dz_extents_release(op->heap, list);
  return status;
}

/* ---- being awake: past the commit point */

static void be_awake(struct tag *tag) {
  dz_lock(&tag->heap->lock);
  for (struct pool *pool = tag->pools; pool != NULL; pool = pool->next) dz_pool_wake(pool);
  if (tag->sealed)
    dz_tag_tie_backups(tag);
  else if (!tag->discarded)
    dz_tag_drop_backups(tag, false);
  tag->discarded = false;
  tag->wakes++;
  dz_tag_end(tag, DROWSE_AWAKE);
  dz_unlock(&tag->heap->lock);
}

static void stay_asleep(drowse_heap *heap, struct tag *first) {
  for (struct tag *tag = first, *next; tag != NULL; tag = next) {
    next = tag->op_next;
    dz_lock(&heap->lock);
    dz_tag_end(tag, tag->before);
    dz_unlock(&heap->lock);
  }
}

/* ---- the operation */

static drowse_status wake_group(struct drowse_op *op, struct group group) {
  struct extent *list;
  drowse_status status = find_gaps(group);
  if (status == DROWSE_OK) status = create_patiently(op, group, &list);
  if (status != DROWSE_OK) return status;
  status = fill_group(op, group, list);
  for (struct tag *tag = group.first, *next; tag != group.end; tag = next) {
    next = tag->op_next;
    if (status == DROWSE_OK) {
      be_awake(tag);
      dz_op_woken(op);
    } else {
      (void)dz_tag_unmap(tag);
    }
  }
  return status;
}

static void count_wake(drowse_heap *heap) {
  dz_lock(&heap->lock);
  heap->wakes++;
  dz_unlock(&heap->lock);
}

static drowse_status wake_all(struct drowse_op *op) {
  struct tag *first = op->tags;
  drowse_status status = DROWSE_OK;
  while (status == DROWSE_OK && first != NULL) {
    struct tag *end = (op->flags & DROWSE_WAKE_TOGETHER) != 0 ? NULL : first->op_next;
    status = wake_group(op, (struct group){first, end});
    if (status == DROWSE_OK) first = end;
  }
  if (first != op->tags) count_wake(op->heap);
  stay_asleep(op->heap, first);
  return status;
}

/* How much of a tag will be copied or filled. */
static uint64_t copied_bytes(const struct drowse_op *op, const struct tag *tag) {
  if (!tag->discarded) return tag->backup_bytes + tag->file_bytes;
  return (op->flags & (DROWSE_WAKE_ZERO | DROWSE_WAKE_POISON)) != 0 ? dz_tag_live_bytes(tag) : 0;
}

static drowse_status run(struct drowse_op *op) {
  struct guard guard;
  drowse_status status = dz_op_wait_idle(op, DZ_NEVER);
  if (status == DROWSE_OK) status = dz_guard_enter(&guard, op->heap);
  if (status != DROWSE_OK) {
    stay_asleep(op->heap, op->tags);
    return status;
  }
  (void)dz_heap_retry_stuck(op->heap);
  for (struct tag *tag = op->tags; tag != NULL; tag = tag->op_next) {
    (void)dz_tag_unmap(tag); /* what is stuck: there may be no memory beside it */
    dz_op_expect(op, copied_bytes(op, tag));
  }
  status = wake_all(op);
  dz_heap_close_files(op->heap);
  dz_heap_trim_backups(op->heap);
  (void)dz_guard_leave(&guard, status); /* this thread ends: what cannot be put back is nobody's */
  return status;
}

/* ---- beginning */

static drowse_status read_options(drowse_wake_options *options, const drowse_wake_options *given) {
  const uint32_t known = DROWSE_WAKE_TOGETHER | DROWSE_WAKE_ZERO | DROWSE_WAKE_POISON;
  const uint32_t fills = DROWSE_WAKE_ZERO | DROWSE_WAKE_POISON;
  drowse_status status = dz_options_read(options, sizeof *options, given, "drowse_wake_options");
  if (status != DROWSE_OK) return status;
  if ((options->flags & ~known) != 0)
    return dz_error(DROWSE_ERR_UNSUPPORTED, "drowse_wake_options: flags is 0x%x, and 0x%x are known", options->flags, known);
  if ((options->flags & fills) == fills)
    return dz_error(DROWSE_ERR_INVALID, "drowse_wake_options: memory cannot wake as zeros and as poison");
  return DROWSE_OK;
}

/* Whether a tag is to move; or why it cannot. */
static drowse_status look_at(const struct tag *tag, bool *moves) {
  *moves = tag->state == DROWSE_ASLEEP;
  if (*moves || tag->state == DROWSE_AWAKE) return DROWSE_OK;
  return tag->state == DROWSE_POISONED ? dz_tag_refuse(tag) : dz_tag_busy(tag);
}

static void begin(struct drowse_op *op, struct tag *tag) {
  dz_tag_begin_wake(tag, &op->operation);
  dz_op_add(op, tag);
}

static drowse_status begin_every(drowse_heap *heap, struct drowse_op *op) {
  bool moves;
  for (const struct tag *tag = heap->tags; tag != NULL; tag = tag->next) {
    drowse_status status = look_at(tag, &moves);
    if (status != DROWSE_OK) return status;
  }
  for (struct tag *tag = heap->tags; tag != NULL; tag = tag->next) {
    if (tag->state == DROWSE_ASLEEP) begin(op, tag);
  }
  return DROWSE_OK;
}

static drowse_status begin_named(drowse_heap *heap, struct drowse_op *op, const char *const *tags, size_t count) {
  bool moves;
  for (struct tag *tag = heap->tags; tag != NULL; tag = tag->next) tag->named = false;
  for (size_t i = 0; i < count; i++) {
    drowse_status status;
    struct tag *tag = dz_tag_named(heap, tags[i], &status);
    if (tag != NULL) status = look_at(tag, &moves);
    if (status != DROWSE_OK) return status;
    if (tag->named) return dz_error(DROWSE_ERR_INVALID, "the tag \"%s\" is named twice", tags[i]);
    tag->named = true;
  }
  for (size_t i = 0; i < count; i++) {
    drowse_status status;
    struct tag *tag = dz_tag_named(heap, tags[i], &status);
    if (tag->state == DROWSE_ASLEEP) begin(op, tag);
  }
  return DROWSE_OK;
}

/* Makes the operation, the tags' motion begun; NULL: failure in *status. */
static struct drowse_op *prepare(drowse_heap *heap, const char *const *tags, size_t count, const drowse_wake_options *given,
                                 drowse_status *status) {
  drowse_wake_options options;
  *status = dz_heap_check(heap);
  if (*status == DROWSE_OK) *status = read_options(&options, given);
  if (*status == DROWSE_OK && tags == NULL && count > 0)
    *status = dz_error(DROWSE_ERR_INVALID, "tags is NULL, and count %zu", count);
  if (*status != DROWSE_OK) return NULL;
  struct drowse_op *op = dz_op_make(heap, run, NULL);
  if (op == NULL) {
    *status = dz_error_last();
    return NULL;
  }
  op->flags = options.flags;
  op->on_woken = heap->woken;
  op->woken_context = heap->woken_context;
  op->deadline = options.deadline_ms == 0 ? 0 : dz_deadline(options.deadline_ms);
  op->progress = options.progress;
  op->context = options.context;
  dz_lock(&heap->lock);
  *status = tags == NULL ? begin_every(heap, op) : begin_named(heap, op, tags, count);
  dz_unlock(&heap->lock);
  return op;
}

DROWSE_API drowse_status drowse_wake(drowse_heap *heap, const char *const *tags, size_t count,
                                     const drowse_wake_options *options) {
  drowse_status status;
  struct drowse_op *op = prepare(heap, tags, count, options, &status);
  return op == NULL ? status : dz_op_run(op, status);
}

DROWSE_API drowse_status drowse_wake_start(drowse_heap *heap, const char *const *tags, size_t count,
                                           const drowse_wake_options *options, drowse_op **result) {
  drowse_status status = dz_op_result(result);
  if (status != DROWSE_OK) return status;
  struct drowse_op *op = prepare(heap, tags, count, options, &status);
  return op == NULL ? status : dz_op_start(op, status, result);
}
