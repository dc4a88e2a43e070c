/* SPDX-License-Identifier: Apache-2.0
 *
 * From the command line to a job: TAG=offload:FILE, TAG=discard:SIZE, TAG=keep:FILE.
 */
#include "config.h" /* files may be larger than an off_t without it */

#include "job.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct {
  const char *text;
  drowse_action action;
} actions[] = {{"offload:", DROWSE_OFFLOAD}, {"discard:", DROWSE_DISCARD}, {"keep:", DROWSE_KEEP}};

/* Cuts "ACTION:WHAT": returns WHAT, or NULL. */
static const char *parse_action(const char *text, drowse_action *action) {
  for (size_t i = 0; i < sizeof actions / sizeof *actions; i++) {
    size_t length = strlen(actions[i].text);
    if (strncmp(text, actions[i].text, length) != 0) continue;
    *action = actions[i].action;
    return text + length;
  }
  return NULL;
}

/* The job's tag of that name, a new one if need be. Takes name over. */
static struct tag *find_tag(struct job *job, char *name, drowse_action action) {
  for (struct tag *tag = job->tags; tag < job->tags + job->tag_count; tag++) {
    if (strcmp(tag->name, name) != 0) continue;
    free(name);
    return tag;
  }
  struct tag *tag = &job->tags[job->tag_count++];
  *tag = (struct tag){.name = name, .action = action};
  return tag;
}

static int open_file(struct source *source) {
  struct stat info;
  /* Without O_NONBLOCK a FIFO would be waited for. */
  source->fd = open(source->path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  if (source->fd < 0 || fstat(source->fd, &info) != 0)
    dz_say("%s: %s", source->path, strerror(errno));
  else if (S_ISDIR(info.st_mode))
    dz_say("%s: is a directory, not a file", source->path);
  else if (!S_ISREG(info.st_mode))
    dz_say("%s: is not a regular file", source->path);
  else if (info.st_size == 0)
    dz_say("%s: is empty", source->path);
  else {
    source->bytes = (uint64_t)info.st_size;
    return EXIT_SUCCESS;
  }
  return EXIT_FAILURE;
}

static int parse_size(struct source *source, const char *operand, const char *text) {
  const char *problem = dz_size_parse(text, &source->bytes);
  if (problem == NULL && source->bytes == 0) problem = "is nothing to discard";
  if (problem == NULL) return EXIT_SUCCESS;
  dz_say("\"%s\": the size \"%s\" %s", operand, text, problem);
  return DZ_EXIT_USAGE;
}

static int parse_operand(struct job *job, const char *operand) {
  const char *equals = strchr(operand, '=');
  drowse_action action;
  const char *what = equals == NULL ? NULL : parse_action(equals + 1, &action);
  if (what == NULL || *what == '\0') {
    dz_say("\"%s\": not TAG=offload:FILE, TAG=discard:SIZE or TAG=keep:FILE", operand);
    return DZ_EXIT_USAGE;
  }
  char *name = strndup(operand, (size_t)(equals - operand));
  if (name == NULL) {
    dz_say("no memory for the tag of \"%s\"", operand);
    return EXIT_FAILURE;
  }
  if (drowse_tag_get(name) == NULL) {
    dz_say_last("\"%s\"", operand);
    free(name);
    return DZ_EXIT_USAGE;
  }
  struct tag *tag = find_tag(job, name, action);
  if (tag->action != action) {
    dz_say("\"%s\": the tag \"%s\" has another action already", operand, tag->name);
    return DZ_EXIT_USAGE;
  }
  struct source *source = &job->sources[job->source_count++];
  *source = (struct source){.tag = tag, .fd = -1, .path = action == DROWSE_DISCARD ? NULL : what};
  return source->path == NULL ? parse_size(source, operand, what) : open_file(source);
}

int dz_job_parse(struct job *job, int count, char **operands) {
  *job = (struct job){0};
  if (count == 0) {
    dz_say("no TAG=ACTION:WHAT is given: try drowse --help");
    return DZ_EXIT_USAGE;
  }
  job->tags = calloc((size_t)count, sizeof *job->tags);
  job->sources = calloc((size_t)count, sizeof *job->sources);
  job->memory = malloc(DZ_BLOCK_MAX);
  job->wanted = malloc(DZ_BLOCK_MAX);
  if (job->tags == NULL || job->sources == NULL || job->memory == NULL || job->wanted == NULL) {
    dz_say("no memory for the buffers");
    return EXIT_FAILURE;
  }
  int status = EXIT_SUCCESS;
  for (int i = 0; i < count && status == EXIT_SUCCESS; i++) status = parse_operand(job, operands[i]);
  return status;
}

void dz_job_free(struct job *job) {
  for (size_t i = 0; i < job->source_count; i++) {
    if (job->sources[i].fd >= 0) close(job->sources[i].fd);
  }
  for (size_t i = 0; i < job->tag_count; i++) free(job->tags[i].name);
  free(job->wanted);
  free(job->memory);
  free(job->blocks);
  free(job->sources);
  free(job->tags);
}
