/* SPDX-License-Identifier: Apache-2.0
 *
 * Steps that look, and a tenant, who takes what memory of the device is free.
 */
#include <stdlib.h>
#include <string.h>

#include "model/model.h"

/* The states of the reference that are this one. */
static unsigned states_of(drowse_state state) {
  static const unsigned states[] = {
      [DROWSE_AWAKE] = AWAKE, [DROWSE_FALLING_ASLEEP] = FALLING, [DROWSE_ASLEEP] = ASLEEP | LOST, [DROWSE_WAKING] = WAKING};
  return state <= DROWSE_WAKING ? states[state] : 0;
}

/* ---- counts */

static void compare_counts(const struct actor *actor, unsigned number, const drowse_stats *stats) {
  const struct ref_tag *tag = &actor->tags[number];
  uint64_t live_bytes, live_blocks = ref_live(actor, number, &live_bytes), backup_bytes = stats->backup_bytes + stats->file_bytes;
  EXPECT_MSG((states_of(stats->state) & tag->states) != 0, "the tag %s is in state %d", tag->name, (int)stats->state);
  if (tag->shared || tag->moving > 0) return;
  EXPECT_MSG(stats->live_blocks == live_blocks && stats->live_bytes == live_bytes,
             "the tag %s has %llu blocks of %llu bytes, not %llu of %llu", tag->name, (unsigned long long)stats->live_blocks,
             (unsigned long long)stats->live_bytes, (unsigned long long)live_blocks, (unsigned long long)live_bytes);
  EXPECT_MSG(stats->holds == tag->holds, "the tag %s has %u holds, not %u", tag->name, stats->holds, tag->holds);
  EXPECT_MSG((stats->sealed != 0) == tag->sealed, "the tag %s is %s", tag->name, stats->sealed ? "sealed" : "not sealed");
  EXPECT_MSG(tag->states != ASLEEP || backup_bytes == live_bytes, "the tag %s sleeps with %llu bytes of backups", tag->name,
             (unsigned long long)backup_bytes);
  EXPECT_MSG(tag->states != AWAKE || backup_bytes <= (tag->sealed ? live_bytes : 0),
             "the tag %s is awake with %llu bytes of backups", tag->name, (unsigned long long)backup_bytes);
  EXPECT_MSG(tag->states != LOST || (backup_bytes == 0 && stats->discarded_bytes == live_bytes), "the tag %s has lost %llu bytes",
             tag->name, (unsigned long long)stats->discarded_bytes);
  EXPECT(tag->states == AWAKE || stats->mapped_bytes == stats->stuck_bytes || model_faults);
}

static void compare_sums(const struct actor *actor, const drowse_stats *stats) {
  uint64_t live_bytes = 0, live_blocks = 0;
  for (unsigned i = 0; i < TAGS; i++) {
    uint64_t bytes;
    if (actor->tags[i].moving > 0) return;
    live_blocks += ref_live(actor, i, &bytes);
    live_bytes += bytes;
  }
  EXPECT(stats->live_blocks == live_blocks && stats->live_bytes == live_bytes);
}

void step_stats(struct actor *actor, const struct step *step) {
  const unsigned number = step->a % (TAGS + 1);
  const char *tag = number == TAGS ? NULL : actor->tags[number].name;
  drowse_stats stats = {.struct_size = sizeof stats};
  (void)ref_check(actor, drowse_stats_get(model_heap, tag, &stats), STATUS(OK), "stats_get %s",
                  tag == NULL ? "of the heap" : tag);
  if (tag != NULL)
    compare_counts(actor, number, &stats);
  else if (is_alone())
    compare_sums(actor, &stats);
  (void)ref_check(actor, drowse_stats_get(model_heap, "nobody", &stats), STATUS(ERR_NOT_FOUND), "stats_get nobody");
}

struct visit {
  const struct actor *actor;
  unsigned seen;
};

static int see_tag(void *context, const char *tag, const drowse_stats *stats) {
  struct visit *visit = context;
  for (unsigned i = 0; i < TAGS; i++) {
    if (strcmp(visit->actor->tags[i].name, tag) != 0) continue;
    visit->seen |= 1u << i;
    compare_counts(visit->actor, i, stats);
  }
  return 0;
}

void step_tags(struct actor *actor, const struct step *step) {
  struct visit visit = {.actor = actor};
  (void)step;
  (void)ref_check(actor, drowse_tags(model_heap, see_tag, &visit), STATUS(OK), "tags");
  EXPECT(visit.seen == (1u << TAGS) - 1);
}

void step_tag_wait(struct actor *actor, const struct step *step) {
  const struct ref_tag *tag = &actor->tags[step->a % TAGS];
  const drowse_state state = (drowse_state)(step->b % (DROWSE_WAKING + 1));
  const int64_t timeout_ms = step->c % 8 == 0;
  uint64_t allowed = (tag->states & states_of(state)) != 0 ? STATUS(OK) : 0;
  if ((tag->states & ~states_of(state)) != 0) allowed |= STATUS(ERR_TIMEOUT);
  (void)ref_check(actor, drowse_tag_wait(model_heap, tag->name, state, timeout_ms), allowed, "tag_wait %s, state %d, timeout %d",
                  tag->name, (int)state, (int)timeout_ms);
}

void step_block(struct actor *actor, const struct step *step) {
  const struct ref_block *block = &actor->blocks[step->a % SLOTS];
  drowse_block found = {.struct_size = sizeof found};
  if (block->ptr == NULL) {
    (void)ref_check(actor, drowse_block_get(model_heap, actor, &found), STATUS(ERR_NOT_FOUND), "block_get of what is none");
    return;
  }
  const size_t offset = block->bytes * step->b / 256;
  (void)ref_check(actor, drowse_block_get(model_heap, block->ptr + offset, &found), STATUS(OK), "block_get %u, at %zu",
                  step->a % SLOTS, offset);
  EXPECT(found.base == block->ptr && found.bytes == block->bytes);
  EXPECT(strcmp(found.tag, actor->tags[block->tag].name) == 0);
  EXPECT(block->retired || found.stream == block->stream);
  EXPECT((states_of(found.state) & actor->tags[block->tag].states) != 0);
}

static int see_device(void *context, const drowse_device *device) {
  *(bool *)context |= strcmp(device->device, "host") == 0;
  return 0;
}

void step_look(struct actor *actor, const struct step *step) {
  const struct ref_block *block = &actor->blocks[step->a % SLOTS];
  drowse_heap_info info = {.struct_size = sizeof info};
  drowse_export exported = {.struct_size = sizeof exported};
  bool has_host = false;
  (void)ref_check(actor, drowse_devices(see_device, &has_host), STATUS(OK), "devices");
  EXPECT(has_host);
  drowse_status status = drowse_heap_info_get(model_heap, &info);
  status = ref_check(actor, status, STATUS(OK), "heap_info_get");
  EXPECT(status != DROWSE_OK || info.free_bytes <= info.total_bytes);
  EXPECT(drowse_driver_entry(model_heap, "cuMemCreate") != NULL && drowse_driver_entry(model_heap, "cuNothing") == NULL);
  if (block->ptr == NULL) return;
  (void)ref_check(actor, drowse_export_get(model_heap, block->ptr, &exported), STATUS(ERR_UNSUPPORTED), "export_get");
}

/* ---- the tenant */

static drowse_heap *tenant;

bool ref_has_tenant(void) {
  return tenant != NULL;
}

static drowse_status close_tenant(void) {
  drowse_heap *leaving = tenant;
  tenant = NULL;
  return drowse_heap_close(leaving);
}

void tenant_leave(struct actor *actor) {
  if (tenant != NULL) (void)ref_check(actor, close_tenant(), STATUS(OK), "heap_close: the tenant");
}

drowse_status tenant_press(void *nothing, uint64_t bytes) {
  (void)nothing;
  (void)bytes;
  if (tenant == NULL) return DROWSE_ERR_NOT_FOUND;
  return close_tenant();
}

void step_tenant(struct actor *actor, const struct step *step) {
  drowse_heap_options options = {.struct_size = sizeof options, .device = model_device()};
  drowse_heap_info info = {.struct_size = sizeof info};
  void *all;
  (void)step;
  if (tenant != NULL) {
    tenant_leave(actor);
    return;
  }
  drowse_status status = drowse_heap_open(&tenant, &options);
  if (ref_check(actor, status, STATUS(OK), "heap_open: a tenant") != DROWSE_OK) return;
  status = drowse_heap_info_get(tenant, &info);
  if (ref_check(actor, status, STATUS(OK), "heap_info_get: the tenant's") != DROWSE_OK) return;
  status = drowse_alloc(tenant, info.free_bytes, NULL, &all);
  (void)ref_check(actor, status, STATUS(OK) | STATUS(ERR_NO_DEVICE_MEMORY), "alloc %llu bytes: the tenant",
                  (unsigned long long)info.free_bytes);
  for (struct ref_op *op = actor->ops; op < actor->ops + OPS; op++) op->is_short = true; /* those that wake tags meanwhile */
}
