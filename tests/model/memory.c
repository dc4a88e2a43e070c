/* SPDX-License-Identifier: Apache-2.0
 *
 * Steps that allocate, free, write, read, and use blocks.
 */
#include <stdlib.h>
#include <string.h>

#include "fault/fault.h"
#include "model/model.h"

static struct ref_block *block_of(struct actor *actor, const struct step *step) {
  return &actor->blocks[step->a % SLOTS];
}

static unsigned stream_of(const struct step *step) {
  return step->a / SLOTS % STREAMS;
}

static int number_of(const struct actor *actor, const struct ref_block *block) {
  return (int)(block - actor->blocks);
}

void memory_see(struct actor *actor, unsigned stream, drowse_status status) {
  if (status == DROWSE_OK)
    actor->seen[stream] = SEEN;
  else if (actor->seen[stream] == SEEN_NOT)
    actor->seen[stream] = SEEN_MAYBE;
}

/* ---- allocating */

static size_t choose_bytes(const struct step *step) {
  if (step->c < 128) return 1 + step->b * 37 + step->c;
  return 1 + step->b * (step->c < 224 ? 1200 : 2750);
}

static uint64_t allowed_of_alloc(const struct actor *actor, unsigned tag) {
  uint64_t short_of_memory = ref_is_short(true) ? STATUS(ERR_NO_DEVICE_MEMORY) : 0;
  return ref_allowed(CALL_ALLOC, actor->tags[tag].states) | short_of_memory;
}

static void note_allocated(struct actor *actor, const struct step *step, unsigned tag, drowse_status status, void *ptr,
                           size_t alignment) {
  const size_t bytes = choose_bytes(step);
  memory_see(actor, stream_of(step), status);
  EXPECT_MSG((status == DROWSE_OK) == (ptr != NULL), "%s, and the pointer is %p", drowse_status_name(status), ptr);
  if (status != DROWSE_OK) return;
  EXPECT_MSG((uintptr_t)ptr % alignment == 0, "%p is not aligned to %zu", ptr, alignment);
  EXPECT_MSG(ref_overlapping(actor, ptr, bytes) == NULL, "%p of %zu bytes overlaps block %d", ptr, bytes,
             number_of(actor, ref_overlapping(actor, ptr, bytes)));
  if (ptr == actor->stale) actor->stale = NULL;
  ref_add(block_of(actor, step), tag, ptr, bytes, actor->streams[stream_of(step)]);
}

void step_alloc(struct actor *actor, const struct step *step) {
  if (block_of(actor, step)->ptr != NULL) return;
  void *ptr = actor;
  const unsigned tag = frames_current(actor)->tag;
  const uint64_t allowed = allowed_of_alloc(actor, tag);
  drowse_status status = drowse_alloc(model_heap, choose_bytes(step), actor->streams[stream_of(step)], &ptr);
  status = ref_check(actor, status, allowed, "alloc %zu bytes on stream %u: block %u of tag %s", choose_bytes(step),
                     stream_of(step), step->a % SLOTS, actor->tags[tag].name);
  note_allocated(actor, step, tag, status, ptr, 512);
}

void step_alloc_with(struct actor *actor, const struct step *step) {
  if (block_of(actor, step)->ptr != NULL) return;
  void *ptr = actor;
  const unsigned tag = step->b % TAGS;
  drowse_alloc_options options = {.struct_size = sizeof options,
                                  .tag = actor->tags[tag].name,
                                  .expandable = (drowse_expandable)(step->c % 3),
                                  .alignment = step->c % 8 == 0 ? 64 * KIB : 0};
  const uint64_t allowed = allowed_of_alloc(actor, tag);
  drowse_status status = drowse_alloc_with(model_heap, choose_bytes(step), actor->streams[stream_of(step)], &options, &ptr);
  status = ref_check(actor, status, allowed, "alloc_with tag %s, %zu bytes, expandable %u, alignment %zu, on stream %u: block %u",
                     options.tag, choose_bytes(step), (unsigned)options.expandable, options.alignment, stream_of(step),
                     step->a % SLOTS);
  note_allocated(actor, step, tag, status, ptr, options.alignment == 0 ? 512 : options.alignment);
}

/* Nothing, more than there is, and what is no size, tag or alignment. */
void step_alloc_odd(struct actor *actor, const struct step *step) {
  static const struct {
    size_t bytes, alignment;
    const char *tag;
    uint64_t allowed;
  } odd[] = {
      {0, 0, "weights", STATUS(OK)},
      {UINT64_C(2) << 30, 0, "weights", STATUS(ERR_NO_DEVICE_MEMORY) | STATUS(ERR_ASLEEP)},
      {SIZE_MAX, 0, "weights", STATUS(ERR_NO_ADDRESS_SPACE)},
      {1, 3, "weights", STATUS(ERR_INVALID)},
      {1, 4 * MIB, "weights", STATUS(ERR_INVALID)},
      {1, 0, "\n", STATUS(ERR_INVALID)},
  };
  const size_t number = step->a % (sizeof odd / sizeof *odd);
  void *ptr = actor;
  drowse_alloc_options options = {.struct_size = sizeof options, .tag = odd[number].tag, .alignment = odd[number].alignment};
  drowse_status status = drowse_alloc_with(model_heap, odd[number].bytes, NULL, &options, &ptr);
  (void)ref_check(actor, status, odd[number].allowed, "alloc_with tag %s, %zu bytes, alignment %zu", options.tag,
                  odd[number].bytes, options.alignment);
  EXPECT(ptr == NULL);
}

/* ---- freeing */

static void note_freed(struct actor *actor, struct ref_block *block) {
  actor->stale = block->ptr;
  ref_remove(block);
}

void step_free(struct actor *actor, const struct step *step) {
  struct ref_block *block = block_of(actor, step);
  if (block->ptr == NULL) return;
  memory_compare(actor, block);
  (void)ref_check(actor, drowse_free(model_heap, block->ptr), STATUS(OK), "free block %d", number_of(actor, block));
  note_freed(actor, block);
}

void step_free_on(struct actor *actor, const struct step *step) {
  struct ref_block *block = block_of(actor, step);
  if (block->ptr == NULL) return;
  drowse_status status = drowse_free_on(model_heap, block->ptr, actor->streams[stream_of(step)]);
  memory_see(actor, stream_of(step), status);
  status = ref_check(actor, status, STATUS(OK), "free_on block %d, stream %u", number_of(actor, block), stream_of(step));
  if (status == DROWSE_OK) note_freed(actor, block);
}

/* What is no block's start; and NULL. One that has been freed may be somebody else's by now, where there is somebody else. */
void step_free_odd(struct actor *actor, const struct step *step) {
  const struct ref_block *block = block_of(actor, step);
  void *ptr = step->b % 4 == 0   ? NULL
              : step->b % 4 == 1 ? (void *)actor
              : step->b % 4 == 2 ? actor->stale
              : block->bytes > 1 ? block->ptr + 1
                                 : NULL;
  if (ptr == actor->stale && (!is_alone() || ref_overlapping(actor, ptr, 1) != NULL)) return;
  (void)ref_check(actor, drowse_free(model_heap, ptr), ptr == NULL ? STATUS(OK) : STATUS(ERR_NOT_FOUND), "free %s",
                  ptr == NULL            ? "NULL"
                  : ptr == (void *)actor ? "what is no memory of the heap's"
                  : ptr == actor->stale  ? "what has been freed"
                                         : "what is inside a block");
}

void step_record(struct actor *actor, const struct step *step) {
  const struct ref_block *block = block_of(actor, step);
  if (block->ptr == NULL) return;
  drowse_status status = drowse_record_stream(model_heap, block->ptr, actor->streams[stream_of(step)]);
  memory_see(actor, stream_of(step), status);
  (void)ref_check(actor, status, STATUS(OK), "record_stream block %d, stream %u", number_of(actor, block), stream_of(step));
}

void step_retire(struct actor *actor, const struct step *step) {
  static const uint64_t allowed[] = {
      [SEEN_NOT] = STATUS(ERR_NOT_FOUND), [SEEN_MAYBE] = STATUS(OK) | STATUS(ERR_NOT_FOUND), [SEEN] = STATUS(OK)};
  const unsigned stream = 1 + step->a % (STREAMS - 1);
  EXPECT(fault_real_driver()->StreamSynchronize(actor->streams[stream]) == CUDA_SUCCESS); /* its work is its owner's */
  drowse_status status = drowse_stream_retire(model_heap, actor->streams[stream]);
  status = ref_check(actor, status, allowed[actor->seen[stream]], "stream_retire %u", stream);
  if (status != DROWSE_OK) {
    if (status != DROWSE_ERR_NOT_FOUND) actor->seen[stream] = SEEN_MAYBE; /* a fault: retired or not */
    return;
  }
  fault_rest(); /* what is not the library's own works */
  for (struct ref_block *block = actor->blocks; block < actor->blocks + SLOTS; block++)
    block->retired |= block->ptr != NULL && block->stream == actor->streams[stream];
  EXPECT(fault_real_driver()->StreamDestroy(actor->streams[stream]) == CUDA_SUCCESS);
  EXPECT(fault_real_driver()->StreamCreate(&actor->streams[stream], CU_STREAM_NON_BLOCKING) == CUDA_SUCCESS);
  actor->seen[stream] = SEEN_NOT;
}

void step_clear(struct actor *actor, const struct step *step) {
  const unsigned tag = step->a % TAGS;
  if (actor->tags[tag].shared) return; /* others have blocks there */
  const uint64_t allowed = ref_allowed(CALL_CLEAR, actor->tags[tag].states);
  drowse_status status = drowse_tag_clear(model_heap, actor->tags[tag].name);
  status = ref_check(actor, status, allowed, "tag_clear %s", actor->tags[tag].name);
  if (status == DROWSE_OK) ref_clear(actor, tag);
}

void step_trim(struct actor *actor, const struct step *step) {
  const uint64_t keep_bytes = (uint64_t)(step->a % 8) * MIB;
  (void)ref_check(actor, drowse_trim(model_heap, keep_bytes), STATUS(OK), "trim to %u MiB", step->a % 8);
}

/* ---- contents */

struct part {
  size_t offset, count;
};

/* Of a block: the whole, or some of it. */
static struct part choose_part(const struct ref_block *block, const struct step *step) {
  if (step->c % 4 == 0) return (struct part){0, block->bytes};
  size_t offset = block->bytes * step->b / 256;
  return (struct part){offset, (block->bytes - offset) * step->c / 256};
}

static uint64_t allowed_of_copy(const struct actor *actor, const struct ref_block *block, struct part part) {
  return part.count == 0 ? STATUS(OK) : ref_allowed(CALL_COPY, actor->tags[block->tag].states);
}

static bool leaves_contents(drowse_status status) {
  return status == DROWSE_ERR_BUSY || status == DROWSE_ERR_ASLEEP;
}

static unsigned char *allocate(size_t bytes) {
  unsigned char *memory = malloc(bytes + 1);
  if (memory == NULL) abort();
  return memory;
}

void step_write(struct actor *actor, const struct step *step) {
  static _Thread_local uint64_t random;
  struct ref_block *block = block_of(actor, step);
  if (block->ptr == NULL) return;
  const struct part part = choose_part(block, step);
  const uint64_t allowed = allowed_of_copy(actor, block, part);
  unsigned char *bytes = allocate(part.count);
  for (size_t at = 0; at < part.count; at += sizeof random) {
    uint64_t word = next_random(&random);
    memcpy(bytes + at, &word, part.count - at < sizeof word ? part.count - at : sizeof word);
  }
  drowse_status status = drowse_copy_in(model_heap, block->ptr + part.offset, bytes, part.count);
  status =
      ref_check(actor, status, allowed, "copy_in block %d, %zu bytes at %zu", number_of(actor, block), part.count, part.offset);
  if (status == DROWSE_OK)
    ref_write(block, part.offset, bytes, part.count);
  else if (!leaves_contents(status))
    ref_dim(block, part.offset, part.count); /* a fault: it may be half written */
  free(bytes);
}

/* Others may have let a shared tag's contents go. */
static bool is_known(const struct actor *actor, const struct ref_block *block) {
  const struct ref_tag *tag = &actor->tags[block->tag];
  return !(tag->shared && tag->loses);
}

static void read_part(struct actor *actor, const struct ref_block *block, struct part part) {
  const uint64_t allowed = allowed_of_copy(actor, block, part);
  unsigned char *bytes = allocate(part.count);
  drowse_status status = drowse_copy_out(model_heap, bytes, block->ptr + part.offset, part.count);
  status =
      ref_check(actor, status, allowed, "copy_out block %d, %zu bytes at %zu", number_of(actor, block), part.count, part.offset);
  EXPECT_MSG(status != DROWSE_OK || !is_known(actor, block) || ref_has(block, part.offset, bytes, part.count),
             "thread %u: block %d of the tag %s has other bytes than were written", actor->number, number_of(actor, block),
             actor->tags[block->tag].name);
  free(bytes);
}

void memory_compare(struct actor *actor, const struct ref_block *block) {
  read_part(actor, block, (struct part){0, block->bytes});
}

void step_read(struct actor *actor, const struct step *step) {
  const struct ref_block *block = block_of(actor, step);
  unsigned char byte;
  if (block->ptr == NULL) return;
  if (step->c != 255) {
    read_part(actor, block, choose_part(block, step));
    return;
  }
  drowse_status status = drowse_copy_out(model_heap, &byte, block->ptr + step->b % block->bytes, block->bytes + 1);
  (void)ref_check(actor, status, STATUS(ERR_INVALID), "copy_out block %d, beyond its end", number_of(actor, block));
}

/* Whether the device may write to it: not where somebody may have promised that nobody does. */
static bool may_be_used(const struct actor *actor, const struct ref_block *block) {
  const struct ref_tag *tag = &actor->tags[block->tag];
  return !block->retired && !(tag->shared ? tag->seals : tag->sealed);
}

/* While a tag is held, the device may write to it. The work is not waited for: whoever reads, sleeps or frees does that. */
void step_use(struct actor *actor, const struct step *step) {
  struct ref_block *block = block_of(actor, step);
  if (block->ptr == NULL || !may_be_used(actor, block)) return;
  const char *tag = actor->tags[block->tag].name;
  drowse_status status = drowse_hold(model_heap, tag, 0);
  status = ref_check(actor, status, ref_allowed(CALL_HOLD, actor->tags[block->tag].states), "hold %s", tag);
  if (status != DROWSE_OK) return;
  CUdeviceptr address = (CUdeviceptr)(uintptr_t)block->ptr;
  fault_rest(); /* what is not the library's own works */
  model_say(actor, "the device fills block %d with %u", number_of(actor, block), step->b);
  EXPECT(fault_real_driver()->MemsetD8Async(address, (unsigned char)step->b, block->bytes, block->stream) == CUDA_SUCCESS);
  memset(block->contents, (int)step->b, block->bytes);
  block->dim_from = block->dim_to = 0;
  (void)ref_check(actor, drowse_unhold(model_heap, tag), STATUS(OK), "unhold %s", tag);
}
