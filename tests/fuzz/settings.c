/* SPDX-License-Identifier: Apache-2.0
 *
 * Fuzzes drowse_settings_parse() and drowse_settings_edit(). An input is "KEY\nVALUE\nTEXT": the text is parsed, and the key's
 * value changed in it. Built with -DFUZZER -fsanitize=fuzzer this is libFuzzer's entry. Built without, it is a program that goes
 * over the files and folders given, or over tests/fuzz/settings.corpus, and over all prefixes of each: a test of what was found
 * once.
 */
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "drowse.h"

#define DIALECT_COUNT 3
#define BLANKS " \t\n\v\f\r"

#define REQUIRE(condition)                                                                                              \
  do {                                                                                                                  \
    if (!(condition)) {                                                                                                 \
      fprintf(stderr, "%s:%d: %s\nkey \"%s\", value \"%s\", text \"%s\"\n", __FILE__, __LINE__, #condition, input->key, \
              input->value, input->text);                                                                               \
      abort();                                                                                                          \
    }                                                                                                                   \
  } while (0)

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

struct input {
  char *key, *value, *text; /* each in memory of its own that ends with its NUL, so that a sanitizer sees who reads on */
};

/* What a dialect says of a text. */
struct reading {
  bool accepted;
  drowse_settings settings;
};

/* ---- parsing */

static bool is_power_of_2(uint64_t value) {
  return value != 0 && (value & (value - 1)) == 0;
}

static void check_ranges(const struct input *input, const drowse_settings *settings) {
  REQUIRE(settings->max_split_size >= 20 << 20);
  REQUIRE(settings->max_non_split_rounding >= 20 << 20);
  REQUIRE(settings->garbage_collection_threshold >= 0 && settings->garbage_collection_threshold < 1);
  REQUIRE(settings->per_process_memory_fraction >= 0 && settings->per_process_memory_fraction <= 1);
  REQUIRE(is_power_of_2(settings->pinned_num_register_threads) && settings->pinned_num_register_threads <= 128);
  for (size_t at = 0; at < 16; at++) {
    uint64_t divisions = settings->roundup_power2_divisions[at];
    REQUIRE(divisions == 0 || is_power_of_2(divisions));
  }
}

static struct reading parse(const struct input *input, const char *text, drowse_settings_dialect dialect) {
  drowse_settings before;
  memset(&before, 0xa5, sizeof before);
  before.struct_size = sizeof before;
  struct reading reading = {.settings = before};
  size_t offset = SIZE_MAX;
  drowse_status status = drowse_settings_parse(text, dialect, &reading.settings, &offset);
  reading.accepted = status == DROWSE_OK;
  if (reading.accepted) {
    REQUIRE(offset == SIZE_MAX);
    check_ranges(input, &reading.settings);
  } else {
    REQUIRE(status == DROWSE_ERR_SETTINGS);
    REQUIRE(offset <= strlen(text));
    REQUIRE(memcmp(&reading.settings, &before, sizeof before) == 0);
  }
  return reading;
}

static void parse_all(const struct input *input, const char *text, struct reading readings[DIALECT_COUNT]) {
  for (int dialect = 0; dialect < DIALECT_COUNT; dialect++)
    readings[dialect] = parse(input, text, (drowse_settings_dialect)dialect);
  const struct reading *strict = &readings[DROWSE_SETTINGS_STRICT], *tolerant = &readings[DROWSE_SETTINGS_TORCH_2_10];
  if (!strict->accepted) return;
  REQUIRE(tolerant->accepted);
  REQUIRE(memcmp(&strict->settings, &tolerant->settings, sizeof strict->settings) == 0);
}

/* ---- keys: which member each one sets */

static const struct member {
  const char *key;
  size_t offset, bytes;
} members[] = {
#define MEMBER(key, name) \
  { key, offsetof(drowse_settings, name), sizeof((drowse_settings *)NULL)->name }
    MEMBER("expandable_segments", expandable_segments),
    MEMBER("max_split_size_mb", max_split_size),
    MEMBER("max_non_split_rounding_mb", max_non_split_rounding),
    MEMBER("garbage_collection_threshold", garbage_collection_threshold),
    MEMBER("roundup_power2_divisions", roundup_power2_divisions),
    MEMBER("backend", backend),
    MEMBER("release_lock_on_cudamalloc", release_lock_on_cudamalloc),
    MEMBER("release_lock_on_hipmalloc", release_lock_on_cudamalloc),
    MEMBER("graph_capture_record_stream_reuse", graph_capture_record_stream_reuse),
    MEMBER("pinned_use_cuda_host_register", pinned_use_cuda_host_register),
    MEMBER("pinned_use_hip_host_register", pinned_use_cuda_host_register),
    MEMBER("pinned_use_background_threads", pinned_use_background_threads),
    MEMBER("pinned_num_register_threads", pinned_num_register_threads),
    MEMBER("pinned_reserve_segment_size_mb", pinned_reserve_segment_size),
    MEMBER("per_process_memory_fraction", per_process_memory_fraction),
#undef MEMBER
};

static const struct member *find_member(const char *key) {
  for (const struct member *member = members; member < members + sizeof members / sizeof members[0]; member++) {
    if (strcmp(member->key, key) == 0) return member;
  }
  return NULL;
}

/* Whether what stands from start to end, blanks apart, is the key or another name of it. */
static bool is_key(const char *start, const char *end, const char *key) {
  char name[64];
  size_t length = 0;
  for (const char *at = start; at < end; at++) {
    if (strchr(BLANKS, *at) != NULL) continue;
    if (length == sizeof name - 1) return (size_t)(end - start) == strlen(key) && memcmp(start, key, strlen(key)) == 0;
    name[length++] = *at;
  }
  name[length] = '\0';
  const struct member *one = find_member(name), *other = find_member(key);
  return strcmp(name, key) == 0 || (one != NULL && other != NULL && one->offset == other->offset);
}

/* ---- editing */

/* The edited text, in memory of its very size; NULL: refused, and *status says how. */
static char *edit(const struct input *input, const char *text, drowse_status *status) {
  size_t needed = SIZE_MAX;
  *status = drowse_settings_edit(text, input->key, input->value, NULL, &needed);
  if (*status != DROWSE_OK) {
    REQUIRE(*status == DROWSE_ERR_INVALID || *status == DROWSE_ERR_SETTINGS);
    REQUIRE(needed == SIZE_MAX);
    return NULL;
  }
  char *out = malloc(needed);
  if (out == NULL) abort();
  memset(out, '#', needed);
  size_t room = needed - 1;
  REQUIRE(drowse_settings_edit(text, input->key, input->value, out, &room) == DROWSE_ERR_INVALID);
  REQUIRE(room == needed);
  for (size_t at = 0; at < needed; at++) REQUIRE(out[at] == '#');
  REQUIRE(drowse_settings_edit(text, input->key, input->value, out, &room) == DROWSE_OK);
  REQUIRE(room == needed);
  REQUIRE(strlen(out) == needed - 1);
  return out;
}

/* Behind a value that begins at start: where the separator is, or the end. */
static const char *behind_value(const char *start) {
  const char *at = start + strspn(start, BLANKS);
  if (*at == '[') at += strcspn(at, "]");
  if (*at == ']') at++;
  return at + strcspn(at, ",:[]");
}

/* The edited text is the text, but for the values of the key. value: as it was put in. */
static void check_rest(const struct input *input, const char *edited, const char *value) {
  const char *old = input->text, *new = edited;
  bool found = false;
  while (old[strspn(old, BLANKS)] != '\0') {
    size_t key = strcspn(old, ",:[]");
    bool ours = is_key(old, old + key, input->key);
    REQUIRE(strncmp(old, new, key + 1) == 0);
    const char *old_value = old + key + 1, *new_value = new + key + 1;
    const char *old_end = behind_value(old_value), *new_end = behind_value(new_value);
    if (ours) {
      size_t before = strspn(old_value, " "), behind = 0;
      while (old_end - behind > old_value + before && old_end[-1 - (ptrdiff_t)behind] == ' ') behind++;
      REQUIRE((size_t)(new_end - new_value) == before + strlen(value) + behind);
      REQUIRE(strspn(new_value, " ") == before && memcmp(new_value + before, value, strlen(value)) == 0);
      REQUIRE(strspn(new_end - behind, " ") == behind);
    } else {
      REQUIRE(old_end - old_value == new_end - new_value);
      REQUIRE(memcmp(old_value, new_value, (size_t)(old_end - old_value)) == 0);
    }
    REQUIRE(*old_end == *new_end);
    old = *old_end == '\0' ? old_end : old_end + 1;
    new = *new_end == '\0' ? new_end : new_end + 1;
    found = found || ours;
  }
  REQUIRE(found);
  REQUIRE(strcmp(old, new) == 0);
}

/* Whether the pair stands in front of the text, or behind it if that is blank. */
static bool is_put_in(const struct input *input, const char *edited, const char *pair) {
  size_t length = strlen(pair), blank = strspn(input->text, BLANKS);
  if (input->text[blank] == '\0') return strncmp(edited, input->text, blank) == 0 && strcmp(edited + blank, pair) == 0;
  return strncmp(edited, pair, length) == 0 && edited[length] == ',' && strcmp(edited + length + 1, input->text) == 0;
}

static bool names_key(const struct input *input) {
  const char *at = input->text;
  while (*at != '\0') {
    size_t key = strcspn(at, ",:[]");
    if (is_key(at, at + key, input->key)) return true;
    if (at[key] == '\0') return false;
    at = behind_value(at + key + 1);
    if (*at != '\0') at++;
  }
  return false;
}

/* What a dialect accepted it accepts with the new value, if it accepts that; the key has it, and no other key has changed. */
static void check_values(const struct input *input, const struct reading *text, const struct reading *pair,
                         const struct reading *edited) {
  if (!text->accepted || !pair->accepted) return;
  REQUIRE(edited->accepted);
  const struct member *member = find_member(input->key);
  REQUIRE(member != NULL);
  drowse_settings expected = text->settings;
  memcpy((char *)&expected + member->offset, (const char *)&pair->settings + member->offset, member->bytes);
  REQUIRE(memcmp(&expected, &edited->settings, sizeof expected) == 0);
}

static void check_edit(const struct input *input) {
  drowse_status status;
  char *pair = edit(input, "", &status);
  char *edited = edit(input, input->text, &status);
  char *again = NULL;
  struct reading texts[DIALECT_COUNT], pairs[DIALECT_COUNT], results[DIALECT_COUNT];
  parse_all(input, input->text, texts);
  bool accepted = false;
  for (int dialect = 0; dialect < DIALECT_COUNT; dialect++) accepted = accepted || texts[dialect].accepted;
  if (pair == NULL) {
    REQUIRE(edited == NULL && status == DROWSE_ERR_INVALID);
    goto end;
  }
  if (edited == NULL) {
    REQUIRE(status == DROWSE_ERR_SETTINGS && !accepted);
    goto end;
  }
  again = edit(input, edited, &status);
  REQUIRE(again != NULL && strcmp(edited, again) == 0);
  parse_all(input, pair, pairs);
  parse_all(input, edited, results);
  for (int dialect = 0; dialect < DIALECT_COUNT; dialect++)
    check_values(input, &texts[dialect], &pairs[dialect], &results[dialect]);
  if (!accepted) goto end;
  if (names_key(input)) {
    check_rest(input, edited, pair + strlen(input->key) + 1);
  } else {
    REQUIRE(is_put_in(input, edited, pair));
  }

end:
  free(again);
  free(edited);
  free(pair);
}

/* ---- the entry */

/* The input up to the first newline, which is taken too, or a NUL, or its end. */
static char *take_line(const unsigned char **data, size_t *size, bool to_newline) {
  size_t length = 0, taken;
  while (length < *size && (*data)[length] != '\0' && !(to_newline && (*data)[length] == '\n')) length++;
  taken = length < *size ? length + 1 : length;
  char *line = malloc(length + 1);
  if (line == NULL) abort();
  if (length > 0) memcpy(line, *data, length);
  line[length] = '\0';
  *data += taken;
  *size -= taken;
  return line;
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
  struct input input;
  input.key = take_line(&data, &size, true);
  input.value = take_line(&data, &size, true);
  input.text = take_line(&data, &size, false);
  check_edit(&input);
  free(input.text);
  free(input.value);
  free(input.key);
  return 0;
}

/* ---- the program */

#ifndef FUZZER
static size_t runs;

static void run_file(const char *name) {
  unsigned char data[4096];
  FILE *file = fopen(name, "rb");
  size_t size = file != NULL ? fread(data, 1, sizeof data, file) : 0;
  if (file == NULL || ferror(file) || fclose(file) != 0) {
    perror(name);
    exit(EXIT_FAILURE);
  }
  for (size_t length = 0; length <= size; length++) (void)LLVMFuzzerTestOneInput(data, length);
  runs++;
}

static void run_folder(const char *name, DIR *folder) {
  for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
    char path[PATH_MAX];
    if (entry->d_name[0] == '.') continue;
    if ((size_t)snprintf(path, sizeof path, "%s/%s", name, entry->d_name) < sizeof path) run_file(path);
  }
}

static void run(const char *name) {
  DIR *folder = opendir(name);
  if (folder == NULL) {
    run_file(name);
    return;
  }
  run_folder(name, folder);
  (void)closedir(folder);
}

int main(int count, char **names) {
  for (int at = 1; at < count; at++) run(names[at]);
  if (count == 1) {
    const char *top = getenv("top_srcdir");
    char corpus[PATH_MAX];
    (void)snprintf(corpus, sizeof corpus, "%s/tests/fuzz/settings.corpus", top != NULL ? top : ".");
    run(corpus);
  }
  printf("%zu files\n", runs);
  return runs > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
#endif
