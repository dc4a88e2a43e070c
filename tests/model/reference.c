/* SPDX-License-Identifier: Apache-2.0
 *
 * The reference: what a call may say of a tag in a state (DESIGN, "A tag in motion"), and which blocks are alive with which
 * bytes.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/model.h"

/* ---- statuses */

/* Bit by bit of a set of states. */
static const uint64_t allowed_in[][5] = {
    /*                AWAKE                FALLING               ASLEEP               LOST                 WAKING */
    [CALL_ALLOC] = {STATUS(OK), STATUS(ERR_ASLEEP), STATUS(ERR_ASLEEP), STATUS(ERR_ASLEEP), STATUS(ERR_ASLEEP)},
    [CALL_COPY] = {STATUS(OK), STATUS(ERR_BUSY), STATUS(OK), STATUS(ERR_ASLEEP), STATUS(ERR_BUSY)},
    [CALL_MOVE] = {STATUS(OK), STATUS(ERR_BUSY), STATUS(OK), STATUS(OK), STATUS(ERR_BUSY)},
    [CALL_SEAL] = {STATUS(OK), STATUS(ERR_BUSY), STATUS(OK), STATUS(OK), STATUS(ERR_BUSY)},
    [CALL_CLEAR] = {STATUS(OK), STATUS(ERR_BUSY), STATUS(OK), STATUS(OK), STATUS(ERR_BUSY)},
    [CALL_HOLD] = {STATUS(OK), STATUS(ERR_TIMEOUT), STATUS(ERR_TIMEOUT), STATUS(ERR_TIMEOUT), STATUS(ERR_TIMEOUT)},
};

uint64_t ref_allowed(enum call call, unsigned states) {
  uint64_t allowed = 0;
  for (unsigned i = 0; i < 5; i++) {
    if ((states >> i & 1) != 0) allowed |= allowed_in[call][i];
  }
  return allowed;
}

const uint64_t ref_of_faults = STATUS(ERR_DRIVER) | STATUS(ERR_NO_DEVICE_MEMORY) | STATUS(ERR_NO_HOST_MEMORY) |
                               STATUS(ERR_NO_ADDRESS_SPACE) | STATUS(ERR_SYSTEM) | STATUS(ERR_IO);

/* This thread's last failure, as it was told. */
static _Thread_local char last_error[512];

/* A call that fails leaves its reason; one that succeeds leaves the one before. */
static void check_error(drowse_status status, const char *call) {
  drowse_error error = {.struct_size = sizeof error};
  if (status == DROWSE_OK) {
    EXPECT_MSG(strcmp(last_error, drowse_last_error()) == 0, "%s succeeds, but the last error is \"%s\"", call,
               drowse_last_error());
    return;
  }
  EXPECT(drowse_error_get(&error) == DROWSE_OK);
  EXPECT_MSG(error.status == status && drowse_last_error()[0] != '\0', "%s: %s, but the last error is %s: \"%s\"", call,
             drowse_status_name(status), drowse_status_name(error.status), drowse_last_error());
  (void)snprintf(last_error, sizeof last_error, "%s", drowse_last_error());
}

/* Other processes of the machine may have taken its memory; what the library makes of that has tests of its own. */
static bool is_short_by_others(drowse_status status) {
  return status == DROWSE_ERR_NO_HOST_MEMORY && strstr(drowse_last_error(), "the machine or its cgroup has") != NULL;
}

void ref_forgive(void) {
  (void)snprintf(last_error, sizeof last_error, "%s", drowse_last_error());
}

drowse_status ref_check(const struct actor *actor, drowse_status status, uint64_t allowed, const char *format, ...) {
  char call[160];
  va_list values;
  va_start(values, format);
  (void)vsnprintf(call, sizeof call, format, values);
  va_end(values);
  model_say(actor, "%s: %s", call, drowse_status_name(status));
  if (is_short_by_others(status)) allowed |= STATUS(ERR_NO_HOST_MEMORY);
  if (faults_met_in_step()) allowed |= ref_of_faults;
  EXPECT_MSG((allowed >> -status & 1) != 0, "thread %u: %s: %s cannot be: %s", actor->number, call, drowse_status_name(status),
             status == DROWSE_OK ? "it had to fail" : drowse_last_error());
  check_error(status, call);
  return status;
}

/* ---- tags */

static const char *const own_names[THREADS_MOST][2] = {{"a0", "b0"}, {"a1", "b1"}, {"a2", "b2"}};

void ref_begin(struct actor *actor, unsigned number, unsigned threads) {
  const bool shared = threads > 1;
  const unsigned states = shared ? ANY : AWAKE;
  actor->number = number;
  for (unsigned i = 0; i < 2; i++)
    actor->tags[i] = (struct ref_tag){.name = own_names[number][i], .loses = true, .seals = true, .states = AWAKE};
  actor->tags[TAG_DEFAULT] = (struct ref_tag){.name = "default", .shared = shared, .loses = !shared, .states = states};
  actor->tags[TAG_DEFAULT].seals = !shared;
  actor->tags[3] = (struct ref_tag){.name = "weights", .shared = shared, .seals = true, .loses = !shared, .states = states};
  actor->tags[4] = (struct ref_tag){.name = "scratch", .shared = shared, .loses = true, .seals = !shared, .states = states};
}

const char *ref_own_name(unsigned thread, unsigned number) {
  return own_names[thread][number];
}

/* ---- blocks */

const struct ref_block *ref_overlapping(const struct actor *actor, const void *ptr, size_t bytes) {
  const unsigned char *low = ptr, *high = low + bytes;
  for (const struct ref_block *block = actor->blocks; block < actor->blocks + SLOTS; block++) {
    if (block->ptr != NULL && low < block->ptr + block->bytes && block->ptr < high) return block;
  }
  return NULL;
}

void ref_add(struct ref_block *block, unsigned tag, void *ptr, size_t bytes, drowse_stream stream) {
  *block = (struct ref_block){.ptr = ptr, .bytes = bytes, .tag = tag, .stream = stream, .dim_to = bytes};
  block->contents = malloc(bytes);
  if (block->contents == NULL) abort();
}

void ref_write(struct ref_block *block, size_t offset, const void *bytes, size_t count) {
  memcpy(block->contents + offset, bytes, count);
  if (offset <= block->dim_from && block->dim_to <= offset + count) block->dim_to = block->dim_from = 0;
}

void ref_dim(struct ref_block *block, size_t offset, size_t count) {
  bool dim = block->dim_from < block->dim_to;
  if (!dim || offset < block->dim_from) block->dim_from = offset;
  if (!dim || block->dim_to < offset + count) block->dim_to = offset + count;
}

bool ref_has(const struct ref_block *block, size_t offset, const unsigned char *bytes, size_t count) {
  for (size_t i = 0; i < count; i++) {
    bool dim = block->dim_from <= offset + i && offset + i < block->dim_to;
    if (!dim && bytes[i] != block->contents[offset + i]) return false;
  }
  return true;
}

void ref_remove(struct ref_block *block) {
  free(block->contents);
  *block = (struct ref_block){.ptr = NULL};
}

void ref_fill(struct actor *actor, unsigned tag, int value) {
  for (struct ref_block *block = actor->blocks; block < actor->blocks + SLOTS; block++) {
    if (block->ptr == NULL || block->tag != tag) continue;
    block->dim_from = 0;
    block->dim_to = value < 0 ? block->bytes : 0;
    if (value >= 0) memset(block->contents, value, block->bytes);
  }
}

void ref_clear(struct actor *actor, unsigned tag) {
  for (struct ref_block *block = actor->blocks; block < actor->blocks + SLOTS; block++) {
    if (block->ptr != NULL && block->tag == tag) ref_remove(block);
  }
}

uint64_t ref_live(const struct actor *actor, unsigned tag, uint64_t *bytes) {
  uint64_t blocks = 0;
  *bytes = 0;
  for (const struct ref_block *block = actor->blocks; block < actor->blocks + SLOTS; block++) {
    if (block->ptr == NULL || block->tag != tag) continue;
    blocks++;
    *bytes += (block->bytes + 511) / 512 * 512;
  }
  return blocks;
}

/* ---- want of memory */

bool ref_is_short(bool presses) {
  return ref_has_tenant() && !(presses && model_setting.presses);
}

/* Spaces of different sizes may leave half of the room between them. */
bool ref_is_short_of_backups(const struct actor *actor) {
  uint64_t sum = 0, bytes;
  for (unsigned tag = 0; tag < TAGS; tag++) {
    (void)ref_live(actor, tag, &bytes);
    sum += bytes;
  }
  return model_setting.limited && (!is_alone() || sum > MODEL_LIMIT / 2);
}
