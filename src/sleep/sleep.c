/* SPDX-License-Identifier: Apache-2.0
 *
 * Putting tags to sleep: all of the call or none.
 *
 *   begin     the tags are FALLING: no allocations, copies, new holds; frees are noted    may fail: nothing has changed
 *   wait      for holds, then for the device                                              may fail: AWAKE again
 *   back up   a place for every live block that has no backup, then all copies            may fail: AWAKE again
 *   ---- the commit point: the last copy has landed ----
 *   let go    unmap, release; the tags are ASLEEP                                         cannot fail: what stays is stuck
 */
#include <inttypes.h>
#include <stdlib.h>

#include "core/log.h"
#include "core/options.h"
#include "heap/pending.h"
#include "heap/reclaim.h"
#include "heap/stream.h"
#include "sleep/copy.h"
#include "sleep/reserve.h"

/* ---- backing up */

/* Debug: a sealed tag's contents are what its backups have, or CORRUPT. */
static drowse_status check_seals(struct drowse_op *op) {
  struct copier copier;
  drowse_status status = dz_copier_begin(&copier, op, DZ_RELAY_COMPARE);
  for (const struct tag *tag = op->tags; status == DROWSE_OK && tag != NULL; tag = tag->op_next) {
    if (tag->sealed && tag->action == DROWSE_OFFLOAD) status = dz_copy_tag(&copier, tag);
  }
  if (status == DROWSE_OK) status = dz_copier_finish(&copier);
  dz_copier_end(&copier);
  return status;
}

static drowse_status copy_all(struct drowse_op *op, uint64_t bytes) {
  struct copier copier;
  dz_op_expect(op, bytes);
  drowse_status status = dz_copier_begin(&copier, op, DZ_RELAY_OUT);
  for (const struct tag *tag = op->tags; status == DROWSE_OK && tag != NULL; tag = tag->op_next) {
    if (tag->action == DROWSE_OFFLOAD) status = dz_copy_tag(&copier, tag);
  }
  if (status == DROWSE_OK) status = dz_copier_finish(&copier);
  dz_copier_end(&copier);
  return status;
}

/* Blocks that have a backup already, because their tag is sealed, are not copied. */
static drowse_status back_up(struct drowse_op *op) {
  uint64_t bytes;
  drowse_status status = op->heap->check_seals ? check_seals(op) : DROWSE_OK;
  if (status != DROWSE_OK) return status;
  op->has_backups = true;
  status = dz_reserve_backups(op, &bytes);
  if (status != DROWSE_OK) return status;
  op->has_backups = bytes > 0;
  return bytes > 0 ? copy_all(op, bytes) : DROWSE_OK;
}

/* ---- letting go: past the commit point */

/* Lets a tag's device memory go, and its backup if it is discarded. Returns by how many bytes more are stuck than before. */
static uint64_t let_go(const struct drowse_op *op, struct tag *tag) {
  drowse_heap *heap = op->heap;
  uint64_t stuck_before = tag->stuck_bytes, stuck_bytes = dz_tag_unmap(tag);
  if (op->has_backups) dz_tag_keep_backups(tag);
  dz_lock(&heap->lock);
  if (tag->action == DROWSE_DISCARD) {
    dz_tag_drop_backups(tag, false);
    tag->sealed = false;
  }
  dz_pending_forget(tag);
  for (struct pool *pool = tag->pools; pool != NULL; pool = pool->next) dz_pool_sleep(pool);
  tag->discarded = tag->action == DROWSE_DISCARD;
  if (tag->before == DROWSE_AWAKE) tag->sleeps++;
  dz_tag_end(tag, DROWSE_ASLEEP);
  dz_unlock(&heap->lock);
  return stuck_bytes > stuck_before ? stuck_bytes - stuck_before : 0;
}

static uint64_t unreleased_bytes(drowse_heap *heap) {
  dz_lock(&heap->lock);
  uint64_t bytes = heap->unreleased_bytes;
  dz_unlock(&heap->lock);
  return bytes;
}

/* What has been stuck since an earlier call is not this one's failure. */
static drowse_status let_all_go(struct drowse_op *op) {
  drowse_heap *heap = op->heap;
  uint64_t stuck_bytes = 0, unreleased_before = unreleased_bytes(heap);
  bool fell_asleep = false;
  for (struct tag *tag = op->tags, *next; tag != NULL; tag = next) {
    next = tag->op_next;
    fell_asleep |= tag->before == DROWSE_AWAKE;
    stuck_bytes += let_go(op, tag);
  }
  uint64_t unreleased_after = unreleased_bytes(heap);
  if (unreleased_after > unreleased_before) stuck_bytes += unreleased_after - unreleased_before;
  dz_heap_free_addresses(heap);
  dz_lock(&heap->lock);
  if (fell_asleep) heap->sleeps++;
  dz_unlock(&heap->lock);
  if (stuck_bytes == 0) return DROWSE_OK;
  return dz_error(DROWSE_ERR_DRIVER, "the tags are asleep and whole, but the driver of %s would not take %" PRIu64 " bytes back",
                  heap->device.name, stuck_bytes);
}

/* Blocks are looked at only if the operation had got so far that nobody else is at work on them. */
static void stay_awake(struct drowse_op *op) {
  for (struct tag *tag = op->tags, *next; tag != NULL; tag = next) {
    next = tag->op_next;
    dz_lock(&op->heap->lock);
    if (op->has_backups) dz_tag_drop_backups(tag, true);
    dz_tag_end(tag, tag->before);
    dz_unlock(&op->heap->lock);
  }
}

/* ---- the operation */

static drowse_status run(struct drowse_op *op) {
  struct guard guard;
  drowse_status status = dz_op_wait_idle(op, op->deadline);
  if (status != DROWSE_OK) {
    stay_awake(op);
    return status;
  }
  status = dz_guard_enter(&guard, op->heap);
  if (status == DROWSE_OK) status = dz_drain(op->heap, op->drain, op->deadline);
  if (status == DROWSE_OK) status = back_up(op);
  if (status != DROWSE_OK) {
    stay_awake(op);
  } else {
    /* The commit point. Every byte that is to be kept has a backup. */
    (void)dz_heap_retry_stuck(op->heap);
    status = let_all_go(op);
  }
  dz_heap_close_files(op->heap);
  dz_heap_trim_backups(op->heap);
  (void)dz_guard_leave(&guard, status); /* this thread ends: what cannot be put back is nobody's */
  return status;
}

/* ---- beginning */

static drowse_status read_options(drowse_sleep_options *options, const drowse_sleep_options *given) {
  drowse_status status = dz_options_read(options, sizeof *options, given, "drowse_sleep_options");
  if (status != DROWSE_OK) return status;
  if (options->flags != 0)
    return dz_error(DROWSE_ERR_UNSUPPORTED, "drowse_sleep_options: flags is 0x%x: this version has none", options->flags);
  if ((unsigned)options->drain > DROWSE_DRAIN_NONE)
    return dz_error(DROWSE_ERR_INVALID, "drain is %d, which is no drowse_drain", (int)options->drain);
  if (options->drain == DROWSE_DRAIN_STREAMS && options->streams == NULL && options->stream_count > 0) {
    return dz_error(DROWSE_ERR_INVALID, "streams is NULL, and stream_count %zu", options->stream_count);
  }
  if (options->drain != DROWSE_DRAIN_STREAMS) options->stream_count = 0;
  if ((unsigned)options->backup > DROWSE_BACKUP_HOST_THEN_FILE) {
    return dz_error(DROWSE_ERR_INVALID, "backup is %d, which is no drowse_backup", (int)options->backup);
  }
  if (options->backup != DROWSE_BACKUP_HOST && options->directory == NULL)
    return dz_error(DROWSE_ERR_INVALID, "directory is NULL, and backups are to go to a file");
  if (options->backup == DROWSE_BACKUP_HOST) options->directory = NULL;
  return DROWSE_OK;
}

static drowse_status check_rule(const drowse_rule *rule, size_t number) {
  if ((unsigned)rule->action > DROWSE_DISCARD) {
    return dz_error(DROWSE_ERR_INVALID, "rule %zu: action is %d, which is no drowse_action", number, (int)rule->action);
  }
  if (rule->flags != 0 || rule->reserved[0] != 0 || rule->reserved[1] != 0) {
    return dz_error(DROWSE_ERR_UNSUPPORTED, "rule %zu: flags and reserved must be 0 in this version", number);
  }
  return DROWSE_OK;
}

/* Notes in each tag what the rules say of it. */
static drowse_status apply_rules(drowse_heap *heap, const drowse_rule *rules, size_t count) {
  const drowse_rule *others = NULL;
  for (struct tag *tag = heap->tags; tag != NULL; tag = tag->next) tag->named = false;
  for (size_t i = 0; i < count; i++) {
    drowse_status status = check_rule(&rules[i], i);
    if (status != DROWSE_OK) return status;
    if (rules[i].tag == NULL) {
      if (others != NULL) return dz_error(DROWSE_ERR_INVALID, "rule %zu: another rule is for all other tags already", i);
      others = &rules[i];
      continue;
    }
    struct tag *tag = dz_tag_named(heap, rules[i].tag, &status);
    if (tag == NULL) return status;
    if (tag->named) return dz_error(DROWSE_ERR_INVALID, "rule %zu: another rule names the tag \"%s\" already", i, rules[i].tag);
    tag->named = true;
    tag->wanted = rules[i].action;
  }
  for (struct tag *tag = heap->tags; tag != NULL; tag = tag->next) {
    if (!tag->named) tag->wanted = others == NULL ? DROWSE_KEEP : others->action;
  }
  return DROWSE_OK;
}

/* Whether what is wanted of a tag moves it; or why it cannot be. */
static drowse_status look_at(const struct tag *tag, bool *moves) {
  *moves = false;
  if (tag->wanted == DROWSE_KEEP) return DROWSE_OK;
  switch (tag->state) {
  case DROWSE_AWAKE:
    *moves = true;
    return DROWSE_OK;
  case DROWSE_ASLEEP:
    *moves = tag->wanted == DROWSE_DISCARD && !tag->discarded;
    return DROWSE_OK;
  case DROWSE_POISONED:
    *moves = tag->wanted == DROWSE_DISCARD;
    return *moves ? DROWSE_OK : dz_tag_refuse(tag);
  case DROWSE_FALLING_ASLEEP:
  case DROWSE_WAKING:
    break;
  }
  return dz_tag_busy(tag);
}

/* Begins the motion of all tags that are to move, once it is certain that all can. */
static drowse_status begin_all(drowse_heap *heap, struct drowse_op *op) {
  bool moves;
  for (const struct tag *tag = heap->tags; tag != NULL; tag = tag->next) {
    drowse_status status = look_at(tag, &moves);
    if (status != DROWSE_OK) return status;
  }
  for (struct tag *tag = heap->tags; tag != NULL; tag = tag->next) {
    (void)look_at(tag, &moves);
    if (!moves) continue;
    dz_tag_begin_sleep(tag, &op->operation, tag->wanted);
    dz_op_add(op, tag);
  }
  return DROWSE_OK;
}

/* Whether the driver has not taken something back. With the heap's lock. */
static bool is_stuck(const drowse_heap *heap) {
  bool stuck = heap->unreleased != NULL;
  for (const struct tag *tag = heap->tags; tag != NULL && !stuck; tag = tag->next) stuck = tag->stuck_bytes > 0;
  return stuck;
}

/* With nothing to put to sleep: what an earlier call could not give back. */
static drowse_status retry_stuck(drowse_heap *heap) {
  struct guard guard;
  drowse_status status = dz_guard_enter(&guard, heap);
  if (status != DROWSE_OK) return status;
  (void)dz_heap_retry_stuck(heap);
  return dz_guard_leave(&guard, DROWSE_OK);
}

/* The heap knows them from now on: whoever retires one can be sure that the operation does not use it any more. */
static drowse_status see_streams(drowse_heap *heap, const drowse_stream *streams, size_t count) {
  struct guard guard;
  struct stream *stream;
  if (count == 0) return DROWSE_OK;
  drowse_status status = dz_guard_enter(&guard, heap);
  if (status != DROWSE_OK) return status;
  for (size_t i = 0; status == DROWSE_OK && i < count; i++) status = dz_stream_see(heap, streams[i], &stream);
  return dz_guard_leave(&guard, status);
}

/* Makes the operation, the tags' motion begun; NULL: failure in *status. */
static struct drowse_op *prepare(drowse_heap *heap, const drowse_rule *rules, size_t count, const drowse_sleep_options *given,
                                 drowse_status *status) {
  drowse_sleep_options options;
  *status = dz_heap_check(heap);
  if (*status == DROWSE_OK) *status = read_options(&options, given);
  if (*status == DROWSE_OK && rules == NULL && count > 0)
    *status = dz_error(DROWSE_ERR_INVALID, "rules is NULL, and count %zu", count);
  if (*status == DROWSE_OK) *status = see_streams(heap, options.streams, options.stream_count);
  if (*status != DROWSE_OK) return NULL;
  struct drowse_op *op = dz_op_make(heap, run, options.directory);
  if (op == NULL) {
    *status = dz_error_last();
    return NULL;
  }
  op->drain = options.drain;
  op->backup = options.backup;
  op->deadline = dz_deadline(options.drain_timeout_ms == 0 ? -1 : options.drain_timeout_ms);
  op->progress = options.progress;
  op->context = options.context;
  dz_lock(&heap->lock);
  *status = apply_rules(heap, rules, count);
  if (*status == DROWSE_OK) *status = begin_all(heap, op);
  bool sticks = op->tags == NULL && is_stuck(heap);
  dz_unlock(&heap->lock);
  if (*status == DROWSE_OK && sticks) *status = retry_stuck(heap);
  return op;
}

DROWSE_API drowse_status drowse_sleep(drowse_heap *heap, const drowse_rule *rules, size_t count,
                                      const drowse_sleep_options *options) {
  drowse_status status;
  struct drowse_op *op = prepare(heap, rules, count, options, &status);
  return op == NULL ? status : dz_op_run(op, status);
}

DROWSE_API drowse_status drowse_sleep_start(drowse_heap *heap, const drowse_rule *rules, size_t count,
                                            const drowse_sleep_options *options, drowse_op **result) {
  drowse_status status = dz_op_result(result);
  if (status != DROWSE_OK) return status;
  struct drowse_op *op = prepare(heap, rules, count, options, &status);
  return op == NULL ? status : dz_op_start(op, status, result);
}
