/* SPDX-License-Identifier: Apache-2.0
 *
 * drowse cycle: files in device memory, put to sleep, woken and checked, round by round.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "job.h"
#include "options.h"
#include "progress.h"
#include "report.h"
#include "tool.h"

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void show_progress(void *context, const drowse_progress *progress) {
  (void)context;
  dz_progress_show(progress->done_bytes, progress->total_bytes);
}

static bool look_at_device(const struct job *job, struct round *round, uint64_t *free_bytes) {
  drowse_heap_info info = {.struct_size = sizeof info};
  if (drowse_heap_info_get(job->heap, &info) != DROWSE_OK) {
    dz_say_last("asking about the device");
    return false;
  }
  snprintf(round->device, sizeof round->device, "%s", info.device);
  round->total_bytes = info.total_bytes;
  *free_bytes = info.free_bytes;
  return true;
}

static bool look_at_tag(const struct job *job, const struct tag *tag, drowse_stats *stats) {
  *stats = (drowse_stats){.struct_size = sizeof *stats};
  if (drowse_stats_get(job->heap, tag->name, stats) == DROWSE_OK) return true;
  dz_say_last("asking about the tag \"%s\"", tag->name);
  return false;
}

static bool look_before(const struct job *job, struct round *round) {
  for (size_t i = 0; i < job->tag_count; i++) {
    drowse_stats stats;
    if (!look_at_tag(job, &job->tags[i], &stats)) return false;
    round->tags[i].mapped_before = stats.mapped_bytes;
  }
  return look_at_device(job, round, &round->free_before);
}

static bool look_asleep(const struct job *job, struct round *round) {
  for (size_t i = 0; i < job->tag_count; i++) {
    struct tag_result *result = &round->tags[i];
    drowse_stats stats;
    if (!look_at_tag(job, &job->tags[i], &stats)) return false;
    result->mapped_asleep = stats.mapped_bytes;
    result->backup_bytes = stats.backup_bytes;
    if (job->tags[i].action == DROWSE_KEEP)
      result->slept = stats.state == DROWSE_AWAKE && stats.mapped_bytes > 0;
    else
      result->slept = stats.state == DROWSE_ASLEEP && stats.mapped_bytes == 0;
  }
  return look_at_device(job, round, &round->free_asleep);
}

static bool look_after(const struct job *job, struct round *round) {
  for (size_t i = 0; i < job->tag_count; i++) {
    drowse_stats stats;
    if (!look_at_tag(job, &job->tags[i], &stats)) return false;
    round->tags[i].mapped_after = stats.mapped_bytes;
  }
  return look_at_device(job, round, &round->free_after);
}

static bool put_to_sleep(const struct job *job, struct round *round) {
  drowse_rule *rules = calloc(job->tag_count, sizeof *rules);
  if (rules == NULL) {
    dz_say("no memory for the rules");
    return false;
  }
  for (size_t i = 0; i < job->tag_count; i++) {
    rules[i].tag = job->tags[i].name;
    rules[i].action = job->tags[i].action;
  }
  drowse_sleep_options options = {.struct_size = sizeof options, .progress = show_progress};
  dz_progress_begin("sleeping");
  double start = now();
  drowse_status status = drowse_sleep(job->heap, rules, job->tag_count, &options);
  round->sleep_seconds = now() - start;
  dz_progress_end();
  if (status != DROWSE_OK) dz_say_last("putting the tags to sleep");
  free(rules);
  return status == DROWSE_OK;
}

static bool wake_tag(const struct job *job, const struct tag *tag, struct tag_result *result) {
  const char *name = tag->name;
  drowse_wake_options options = {.struct_size = sizeof options, .progress = show_progress};
  dz_progress_begin("waking");
  double start = now();
  drowse_status status = drowse_wake(job->heap, &name, 1, &options);
  result->wake_seconds = now() - start;
  dz_progress_end();
  if (status != DROWSE_OK) dz_say_last("waking the tag \"%s\"", tag->name);
  return status == DROWSE_OK;
}

/* Sleeps and wakes once. False: it could not be done, and says why. */
static bool run_round(struct job *job, struct round *round) {
  if (!look_before(job, round) || !put_to_sleep(job, round) || !look_asleep(job, round)) return false;
  for (size_t i = 0; i < job->tag_count; i++) {
    if (job->tags[i].action != DROWSE_KEEP && !wake_tag(job, &job->tags[i], &round->tags[i])) return false;
  }
  if (!look_after(job, round)) return false;
  for (size_t i = 0; i < job->tag_count; i++) {
    if (!dz_tag_check(job, &job->tags[i], &round->tags[i].bad_blocks)) return false;
  }
  return true;
}

/* Shows a round: on stdout at once, or at the end of *json. */
static bool report_round(const struct job *job, const struct round *round, json_t *json) {
  if (json == NULL) return dz_round_print(job, round);
  if (json_array_append_new(json, dz_round_json(job, round)) == 0) return true;
  dz_say("no memory for the JSON");
  return false;
}

/* Every round; *whole: whether nothing was wrong in any. False: one could not be done or shown. */
static bool run_rounds(struct job *job, unsigned count, json_t *json, bool *whole) {
  struct tag_result *results = calloc(job->tag_count, sizeof *results);
  if (results == NULL) dz_say("no memory for the results");
  bool done = results != NULL;
  *whole = true;
  for (unsigned number = 1; number <= count && done; number++) {
    memset(results, 0, job->tag_count * sizeof *results);
    struct round round = {.number = number, .count = count, .tags = results};
    done = run_round(job, &round) && report_round(job, &round, json);
    if (done && !dz_round_whole(job, &round)) *whole = false;
  }
  free(results);
  return done;
}

static bool print_json(json_t *rounds, bool whole) {
  json_t *root = json_pack("{s:s, s:O, s:b}", "version", drowse_version(), "rounds", rounds, "whole", (int)whole);
  bool done = root != NULL && json_dumpf(root, stdout, JSON_INDENT(2)) == 0;
  json_decref(root);
  if (done)
    putchar('\n');
  else
    dz_say("cannot write the JSON");
  return done && dz_output_done();
}

/* With the heap open: loads, runs and unloads. True if all was done and is whole. */
static bool run_job(struct job *job, const struct options *options) {
  json_t *json = options->json ? json_array() : NULL;
  bool whole = false;
  bool done = !options->json || json != NULL;
  if (!done) dz_say("no memory for the JSON");
  done = done && dz_job_load(job) && run_rounds(job, options->rounds, json, &whole) && dz_job_unload(job);
  if (done && options->json) done = print_json(json, whole);
  if (done && !whole) dz_say("not all is whole");
  json_decref(json);
  return done && whole;
}

int dz_cycle(int argc, char **argv) {
  struct options options;
  int operands;
  if (!dz_options_parse(&options, argc, argv, true, &operands)) return DZ_EXIT_USAGE;
  struct job job;
  int status = dz_job_parse(&job, argc - operands, argv + operands);
  if (status != EXIT_SUCCESS) goto free_job;
  status = EXIT_FAILURE;
  const char *source;
  job.heap = dz_open_heap(options.device, &source);
  if (job.heap == NULL) goto free_job;
  if (run_job(&job, &options)) status = EXIT_SUCCESS;
  if (drowse_heap_close(job.heap) != DROWSE_OK) {
    dz_say_last("closing the device");
    status = EXIT_FAILURE;
  }
free_job:
  dz_job_free(&job);
  return status;
}
