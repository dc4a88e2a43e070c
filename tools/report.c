/* SPDX-License-Identifier: Apache-2.0
 *
 * A round of drowse cycle as a table and as JSON.
 */
#include "report.h"

#include <stdio.h>

#include "table.h"

static const char *action_text(drowse_action action) {
  return action == DROWSE_OFFLOAD ? "offload" : action == DROWSE_DISCARD ? "discard" : "keep";
}

const char *dz_verdict(const struct tag *tag, const struct tag_result *result) {
  if (result->bad_blocks > 0) return "DAMAGED";
  if (!result->slept) return tag->action == DROWSE_KEEP ? "NOT KEPT" : "NOT ASLEEP";
  return tag->action == DROWSE_DISCARD ? "writable" : "whole";
}

static bool tag_whole(const struct tag_result *result) {
  return result->bad_blocks == 0 && result->slept;
}

bool dz_round_whole(const struct job *job, const struct round *round) {
  for (size_t i = 0; i < job->tag_count; i++) {
    if (!tag_whole(&round->tags[i])) return false;
  }
  return true;
}

/* The sums over all tags, as if they were one. *copied: bytes that went to the host and back. */
static void sum(const struct job *job, const struct round *round, struct tag *tag, struct tag_result *result, uint64_t *copied) {
  *tag = (struct tag){0};
  *result = (struct tag_result){0};
  *copied = 0;
  for (size_t i = 0; i < job->tag_count; i++) {
    tag->bytes += job->tags[i].bytes;
    tag->blocks += job->tags[i].blocks;
    if (job->tags[i].action == DROWSE_OFFLOAD) *copied += job->tags[i].bytes;
    result->mapped_before += round->tags[i].mapped_before;
    result->mapped_asleep += round->tags[i].mapped_asleep;
    result->mapped_after += round->tags[i].mapped_after;
    result->backup_bytes += round->tags[i].backup_bytes;
    result->wake_seconds += round->tags[i].wake_seconds;
  }
}

static void time_cells(struct table *table, double seconds, uint64_t copied) {
  dz_table_cell(table, "%.3f s", seconds);
  dz_table_cell(table, "%s", dz_rate(copied, seconds).text);
}

static void no_time_cells(struct table *table) {
  dz_table_cell(table, "-");
  dz_table_cell(table, "-");
}

static void memory_cells(struct table *table, const struct tag_result *result) {
  dz_table_cell(table, "%s", dz_size(result->mapped_before).text);
  dz_table_cell(table, "%s", dz_size(result->mapped_asleep).text);
  dz_table_cell(table, "%s", dz_size(result->mapped_after).text);
  dz_table_cell(table, "%s", dz_size(result->backup_bytes).text);
}

static void tag_row(struct table *table, const struct tag *tag, const struct tag_result *result) {
  dz_table_row(table);
  dz_table_cell(table, "%s", tag->name);
  dz_table_cell(table, "%s", action_text(tag->action));
  dz_table_cell(table, "%s", dz_size(tag->bytes).text);
  dz_table_cell(table, "%zu", tag->blocks);
  no_time_cells(table);
  if (tag->action == DROWSE_KEEP)
    no_time_cells(table);
  else
    time_cells(table, result->wake_seconds, tag->action == DROWSE_OFFLOAD ? tag->bytes : 0);
  memory_cells(table, result);
  dz_table_cell(table, "%s", dz_verdict(tag, result));
}

static void total_row(struct table *table, const struct job *job, const struct round *round) {
  struct tag all;
  struct tag_result result;
  uint64_t copied;
  sum(job, round, &all, &result, &copied);
  dz_table_row(table);
  dz_table_cell(table, "all");
  dz_table_cell(table, "%s", "");
  dz_table_cell(table, "%s", dz_size(all.bytes).text);
  dz_table_cell(table, "%zu", all.blocks);
  time_cells(table, round->sleep_seconds, copied);
  time_cells(table, result.wake_seconds, copied);
  memory_cells(table, &result);
  dz_table_cell(table, "%s", dz_round_whole(job, round) ? "whole" : "NOT WHOLE");
}

bool dz_round_print(const struct job *job, const struct round *round) {
  printf("%sround %u of %u on %s: all tags fall asleep in one call, and wake one by one\n", round->number > 1 ? "\n" : "",
         round->number, round->count, round->device);
  struct table table;
  dz_table_begin(&table, "TAG ACTION >BYTES >BLOCKS >SLEEP >GiB/s >WAKE >GiB/s >BEFORE >ASLEEP >AFTER >BACKUP VERDICT");
  for (size_t i = 0; i < job->tag_count; i++) tag_row(&table, &job->tags[i], &round->tags[i]);
  total_row(&table, job, round);
  if (!dz_table_print(&table)) return false;
  uint64_t given_back = round->free_asleep > round->free_before ? round->free_asleep - round->free_before : 0;
  printf("the device got %s back: of %s there were %s free before, %s asleep, %s after\n", dz_size(given_back).text,
         dz_size(round->total_bytes).text, dz_size(round->free_before).text, dz_size(round->free_asleep).text,
         dz_size(round->free_after).text);
  return dz_output_done();
}

static json_t *tag_json(const struct tag *tag, const struct tag_result *result) {
  json_t *wake = tag->action == DROWSE_KEEP ? json_null() : json_real(result->wake_seconds);
  return json_pack("{s:s, s:s, s:I, s:I, s:o, s:I, s:I, s:I, s:I, s:I, s:s, s:b}", "tag", tag->name, "action",
                   action_text(tag->action), "bytes", (json_int_t)tag->bytes, "blocks", (json_int_t)tag->blocks, "wake_seconds",
                   wake, "mapped_before", (json_int_t)result->mapped_before, "mapped_asleep", (json_int_t)result->mapped_asleep,
                   "mapped_after", (json_int_t)result->mapped_after, "backup_bytes", (json_int_t)result->backup_bytes,
                   "bad_blocks", (json_int_t)result->bad_blocks, "verdict", dz_verdict(tag, result), "whole",
                   (int)tag_whole(result));
}

json_t *dz_round_json(const struct job *job, const struct round *round) {
  struct tag all;
  struct tag_result result;
  uint64_t copied;
  sum(job, round, &all, &result, &copied);
  json_t *tags = json_array();
  int failed = 0;
  for (size_t i = 0; i < job->tag_count; i++) failed |= json_array_append_new(tags, tag_json(&job->tags[i], &round->tags[i]));
  json_t *json = json_pack("{s:i, s:I, s:f, s:f, s:{s:s, s:I, s:I, s:I, s:I}, s:o, s:b}", "round", (int)round->number,
                           "copied_bytes", (json_int_t)copied, "sleep_seconds", round->sleep_seconds, "wake_seconds",
                           result.wake_seconds, "device", "device", round->device, "total_bytes", (json_int_t)round->total_bytes,
                           "free_before", (json_int_t)round->free_before, "free_asleep", (json_int_t)round->free_asleep,
                           "free_after", (json_int_t)round->free_after, "tags", tags, "whole", (int)dz_round_whole(job, round));
  if (failed == 0) return json;
  json_decref(json);
  return NULL;
}
