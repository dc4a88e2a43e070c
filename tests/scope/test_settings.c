/* SPDX-License-Identifier: Apache-2.0
 *
 * Settings strings: parsed in each dialect, edited, and given to a heap.
 */
#include "scope/settings.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "harness.h"

static const char *const dialect_names[] = {"STRICT", "TORCH_2_9", "TORCH_2_10"};

/* ---- what a parse did, in one line: each member that has not its default, as "name=value", or "!OFFSET REASON" */

static void append(char *line, size_t room, const char *name, const char *value) {
  size_t length = strlen(line);
  int written = snprintf(line + length, room - length, "%s%s=%s", length > 0 ? " " : "", name, value);
  ck_assert_int_lt(written, (int)(room - length));
}

static void append_whole(char *line, size_t room, const char *name, uint64_t value, uint64_t otherwise) {
  char text[32];
  (void)snprintf(text, sizeof text, "%" PRIu64, value);
  if (value != otherwise) append(line, room, name, text);
}

static void append_fraction(char *line, size_t room, const char *name, double value, double otherwise) {
  char text[32];
  (void)snprintf(text, sizeof text, "%.17g", value);
  if (value < otherwise || value > otherwise) append(line, room, name, text);
}

/* "2*3,0*13": 3 times 2, then 13 times 0. */
static void append_divisions(char *line, size_t room, const uint64_t *divisions) {
  char text[512] = "";
  bool any = false;
  for (size_t at = 0, end; at < 16; at = end) {
    for (end = at; end < 16 && divisions[end] == divisions[at]; end++) {
    }
    size_t length = strlen(text);
    (void)snprintf(text + length, sizeof text - length, "%s%" PRIu64 "*%zu", at > 0 ? "," : "", divisions[at], end - at);
    any = any || divisions[at] != 0;
  }
  if (any) append(line, room, "divisions", text);
}

static void describe(char *line, size_t room, const drowse_settings *settings) {
  line[0] = '\0';
  append_whole(line, room, "expandable", settings->expandable_segments, 0);
  append_whole(line, room, "max_split", settings->max_split_size, UINT64_MAX);
  append_whole(line, room, "rounding", settings->max_non_split_rounding, 20 << 20);
  append_fraction(line, room, "threshold", settings->garbage_collection_threshold, 0);
  append_divisions(line, room, settings->roundup_power2_divisions);
  append_whole(line, room, "backend", settings->backend, DROWSE_SETTINGS_NATIVE);
  append_whole(line, room, "release", settings->release_lock_on_cudamalloc, 0);
  append_whole(line, room, "reuse", settings->graph_capture_record_stream_reuse, 0);
  append_whole(line, room, "register", settings->pinned_use_cuda_host_register, 0);
  append_whole(line, room, "background", settings->pinned_use_background_threads, 0);
  append_whole(line, room, "threads", settings->pinned_num_register_threads, 1);
  append_whole(line, room, "reserve", settings->pinned_reserve_segment_size, 0);
  append_fraction(line, room, "fraction", settings->per_process_memory_fraction, 1);
}

static void ck_accepts(const char *text, drowse_settings_dialect dialect, const char *expected) {
  drowse_settings settings = {.struct_size = sizeof settings};
  size_t offset = 4711;
  drowse_status status = drowse_settings_parse(text, dialect, &settings, &offset);
  ck_assert_msg(status == DROWSE_OK, "%s refuses \"%s\": %s", dialect_names[dialect], text, drowse_last_error());
  ck_assert_uint_eq(offset, 4711);
  ck_assert_uint_eq(settings.struct_size, sizeof settings);
  char line[1024];
  describe(line, sizeof line, &settings);
  ck_assert_msg(strcmp(line, expected) == 0, "%s reads \"%s\" as \"%s\", not \"%s\"", dialect_names[dialect], text, line,
                expected);
}

static void ck_refuses(const char *text, drowse_settings_dialect dialect, size_t expected, const char *reason) {
  drowse_settings settings, before;
  memset(&settings, 0xa5, sizeof settings);
  settings.struct_size = sizeof settings;
  before = settings;
  size_t offset = 4711;
  drowse_status status = drowse_settings_parse(text, dialect, &settings, &offset);
  ck_assert_msg(status == DROWSE_ERR_SETTINGS, "%s: \"%s\": %s", dialect_names[dialect], text, drowse_status_name(status));
  ck_assert_msg(offset == expected, "%s: \"%s\": %zu, not %zu: %s", dialect_names[dialect], text, offset, expected,
                drowse_last_error());
  char place[64];
  (void)snprintf(place, sizeof place, "settings: at byte %zu, ", expected);
  const char *last = drowse_last_error();
  size_t length = strlen(last);
  ck_assert_msg(strncmp(last, place, strlen(place)) == 0, "%s", last);
  ck_assert_msg(length > strlen(reason) && strcmp(last + length - strlen(reason), reason) == 0, "%s: \"%s\": %s, not %s",
                dialect_names[dialect], text, last, reason);
  ck_assert_mem_eq(&settings, &before, sizeof settings);
}

static void ck_parse(const char *text, drowse_settings_dialect dialect, const char *expected) {
  if (expected[0] != '!') {
    ck_accepts(text, dialect, expected);
    return;
  }
  char *reason;
  size_t offset = strtoul(expected + 1, &reason, 10);
  ck_refuses(text, dialect, offset, reason + 1);
}

/* What each dialect makes of a text; NULL: the same as the one before. */
struct reading {
  const char *text, *strict, *torch_2_9, *torch_2_10;
};

#define CK_READINGS(readings) ck_readings(readings, sizeof readings / sizeof readings[0])
static void ck_readings(const struct reading *readings, size_t count) {
  for (const struct reading *reading = readings; reading < readings + count; reading++) {
    const char *torch_2_9 = reading->torch_2_9 != NULL ? reading->torch_2_9 : reading->strict;
    ck_parse(reading->text, DROWSE_SETTINGS_STRICT, reading->strict);
    ck_parse(reading->text, DROWSE_SETTINGS_TORCH_2_9, torch_2_9);
    ck_parse(reading->text, DROWSE_SETTINGS_TORCH_2_10, reading->torch_2_10 != NULL ? reading->torch_2_10 : torch_2_9);
  }
}

/* ---- parsing */

START_TEST(every_key) {
  static const struct reading readings[] = {
      {"", "", NULL, NULL},
      {"   ", "", NULL, NULL},
      {"expandable_segments:True", "expandable=1", NULL, NULL},
      {"expandable_segments:False", "", NULL, NULL},
      {"max_split_size_mb:64", "max_split=67108864", NULL, NULL},
      {"max_non_split_rounding_mb:64", "rounding=67108864", NULL, NULL},
      {"garbage_collection_threshold:0.75", "threshold=0.75", NULL, NULL},
      {"roundup_power2_divisions:4", "divisions=4*16", NULL, NULL},
      {"roundup_power2_divisions:[1:2,2:4,4:8]", "divisions=2*1,4*1,8*1,0*13", NULL, NULL},
      {"backend:native", "", NULL, NULL},
      {"backend:cudaMallocAsync", "backend=1", NULL, NULL},
      {"release_lock_on_cudamalloc:True", "release=1", NULL, NULL},
      {"release_lock_on_hipmalloc:True", "release=1", NULL, NULL},
      {"graph_capture_record_stream_reuse:True", "reuse=1", NULL, NULL},
      {"pinned_use_cuda_host_register:True", "register=1", NULL, NULL},
      {"pinned_use_hip_host_register:True", "register=1", NULL, NULL},
      {"pinned_use_background_threads:True", "background=1", NULL, NULL},
      {"pinned_num_register_threads:8", "threads=8", NULL, NULL},
      {"pinned_reserve_segment_size_mb:1", "reserve=1048576", "!0 no setting", "reserve=1048576"},
      {"per_process_memory_fraction:0.5", "fraction=0.5", "!0 no setting", "fraction=0.5"},
      {"max_split_size_mb:64,expandable_segments:True,garbage_collection_threshold:0.5",
       "expandable=1 max_split=67108864 threshold=0.5", NULL, NULL},
  };
  CK_READINGS(readings);
}
END_TEST

START_TEST(keys_that_are_none) {
  static const struct reading readings[] = {
      {"nonsense:1", "!0 no setting", NULL, NULL},
      {"Expandable_segments:True", "!0 no setting", NULL, NULL},
      {"expandable_segment:True", "!0 no setting", NULL, NULL},
      {"expandable_segmentss:True", "!0 no setting", NULL, NULL},
      {"expandable_segments=True", "!0 no setting", NULL, NULL},
      {"backend:native,  nonsense", "!17 no setting", NULL, NULL},
      {"backend:native;expandable_segments:True", "!8 neither native nor cudaMallocAsync", NULL, NULL},
      {"roundup_bypass_threshold_mb:1", "!0 no setting", NULL, NULL},
      {"large_segment_size_mb:20", "!0 no setting", NULL, NULL},
      {"throw_on_cudamalloc_oom:True", "!0 no setting", NULL, NULL},
  };
  CK_READINGS(readings);
}
END_TEST

START_TEST(separators) {
  static const struct reading readings[] = {
      {"expandable_segments", "!19 no value: the ':' behind the key is missing", NULL, NULL},
      {"expandable_segments   ", "!22 no value: the ':' behind the key is missing", NULL, NULL},
      {"expandable_segments:", "!20 neither True nor False", NULL, NULL},
      {"expandable_segments,", "!19 no value: the ':' behind the key is missing", NULL, "!20 neither True nor False"},
      {"expandable_segments::True", "!20 neither True nor False", NULL, NULL},
      {"expandable_segments,True", "!19 no value: the ':' behind the key is missing", NULL, "expandable=1"},
      {"expandable_segments[True]backend:native", "!19 no value: the ':' behind the key is missing", NULL, "expandable=1"},
      {"expandable_segments:True:max_split_size_mb:64", "!24 not the ',' behind a value", NULL,
       "expandable=1 max_split=67108864"},
      {"expandable_segments:True max_split_size_mb:64", "!20 neither True nor False", NULL, NULL},
      {"expandable_segments:True,", "!25 no key behind the last ','", "expandable=1", NULL},
      {"expandable_segments:True, ", "!26 no key behind the last ','", "expandable=1", NULL},
      {"expandable_segments:True:", "!24 not the ',' behind a value", NULL, "expandable=1"},
      {",", "!0 no setting", NULL, NULL},
      {",expandable_segments:True", "!0 no setting", NULL, NULL},
      {"expandable_segments:True,,", "!25 no setting", NULL, NULL},
      {"expandable_segments:[True]", "!20 neither True nor False", NULL, NULL},
  };
  CK_READINGS(readings);
}
END_TEST

START_TEST(white_space) {
  static const struct reading readings[] = {
      {"  expandable_segments  :  True  ,  backend  :  native  ", "expandable=1", NULL, NULL},
      {" roundup_power2_divisions : [ 1 : 2 , > : 4 ] ", "divisions=2*1,4*15", "divisions=4*16", "divisions=2*1,4*15"},
      {"expandable _segments:True", "!0 a space inside a key", "expandable=1", NULL},
      {"expandable_segments:Tr ue", "!20 neither True nor False", "expandable=1", NULL},
      {"backend:cuda MallocAsync", "!8 neither native nor cudaMallocAsync", "backend=1", NULL},
      {"max_split_size_mb:6 4", "!18 a space inside a number", "max_split=67108864", NULL},
      {"garbage_collection_threshold:0. 5", "!29 a space inside a number", "threshold=0.5", NULL},
      {"\texpandable_segments:True", "!0 no setting", NULL, "expandable=1"},
      {"expandable_segments:True\n", "!20 neither True nor False", NULL, "expandable=1"},
      {"expandable_segments:Tr\v\f\rue", "!20 neither True nor False", NULL, "expandable=1"},
      {"expandable_segments:True,\t", "!25 no setting", NULL, "expandable=1"},
      {"\t", "!0 no setting", NULL, ""},
      {"max_split_size_mb:\t64\t", "!18 not a whole number", "max_split=67108864", NULL},
      {"max_split_size_mb:6\t4", "!18 not a whole number", "!18 less than 20 (MiB)", "max_split=67108864"},
  };
  CK_READINGS(readings);
}
END_TEST

START_TEST(named_twice) {
  static const struct reading readings[] = {
      {"expandable_segments:True,expandable_segments:False", "!25 named a second time", "", NULL},
      {"max_split_size_mb:64,backend:native,max_split_size_mb:32", "!36 named a second time", "max_split=33554432", NULL},
      {"release_lock_on_cudamalloc:True,release_lock_on_hipmalloc:False", "!32 named a second time", "", NULL},
      /* A list changes what it names only. */
      {"roundup_power2_divisions:8,roundup_power2_divisions:[1:2,4:4]", "!27 named a second time", "divisions=2*1,8*1,4*1,8*13",
       NULL},
      {"backend:native,backend:no", "!15 named a second time", "!23 neither native nor cudaMallocAsync", NULL},
  };
  CK_READINGS(readings);
}
END_TEST

START_TEST(whole_numbers) {
  static const struct reading readings[] = {
      {"max_split_size_mb:19", "!18 less than 20 (MiB)", NULL, NULL},
      {"max_split_size_mb:20", "max_split=20971520", "!18 not more than 20 (MiB)", "max_split=20971520"},
      {"max_non_split_rounding_mb:20", "", "!26 not more than 20 (MiB)", ""},
      {"max_split_size_mb:21", "max_split=22020096", NULL, NULL},
      {"max_split_size_mb:2147483647", "max_split=2251799812636672", NULL, NULL},
      {"max_split_size_mb:2147483648", "max_split=2251799813685248", "!18 too large a number", "max_split=2251799813685248"},
      {"max_split_size_mb:17592186044415", "max_split=18446744073708503040", "!18 too large a number",
       "max_split=18446744073708503040"},
      {"max_split_size_mb:17592186044416", "!18 more than there are addresses", "!18 too large a number",
       "max_split=18446744073708503040"},
      {"max_split_size_mb:18446744073709551615", "!18 more than there are addresses", "!18 too large a number",
       "max_split=18446744073708503040"},
      {"max_split_size_mb:18446744073709551616", "!18 too large a number", NULL, NULL},
      {"max_split_size_mb:99999999999999999999999", "!18 too large a number", NULL, NULL},
      {"max_split_size_mb:-1", "!18 not a whole number", "max_split=18446744073708503040", NULL},
      {"max_split_size_mb:-2147483648", "!18 not a whole number", "max_split=18446744073708503040", NULL},
      {"max_split_size_mb:-2147483649", "!18 not a whole number", "!18 too large a number", "max_split=18446744073708503040"},
      {"max_split_size_mb:-18446744073709551552", "!18 not a whole number", "!18 too large a number", "max_split=67108864"},
      {"max_split_size_mb:+64", "!18 not a whole number", "max_split=67108864", NULL},
      {"max_split_size_mb:064", "!18 not a whole number", "max_split=67108864", NULL},
      {"max_split_size_mb:64MB", "!18 not a whole number", "max_split=67108864", NULL},
      {"max_split_size_mb:0x40", "!18 not a whole number", "!18 less than 20 (MiB)", NULL},
      {"max_split_size_mb:", "!18 not a whole number", NULL, NULL},
      {"max_split_size_mb:MB", "!18 not a whole number", NULL, NULL},
      {"max_split_size_mb:-", "!18 not a whole number", NULL, NULL},
      {"max_split_size_mb:,", "!18 not a whole number", NULL, NULL},
      {"max_non_split_rounding_mb:1", "!26 less than 20 (MiB)", NULL, NULL},
      {"pinned_num_register_threads:128", "threads=128", NULL, NULL},
      {"pinned_num_register_threads:256", "!28 more than 128", NULL, NULL},
      {"pinned_num_register_threads:0", "!28 not a power of 2", NULL, NULL},
      {"pinned_num_register_threads:3", "!28 not a power of 2", NULL, NULL},
      {"pinned_num_register_threads:x", "!28 not a whole number", NULL, NULL},
      {"pinned_reserve_segment_size_mb:0", "!31 not more than 0 (MiB)", "!0 no setting", "!31 not more than 0 (MiB)"},
      {"pinned_reserve_segment_size_mb:x", "!31 not a whole number", "!0 no setting", "!31 not a whole number"},
      {"pinned_reserve_segment_size_mb:17592186044415", "reserve=18446744073708503040", "!0 no setting",
       "reserve=18446744073708503040"},
      {"pinned_reserve_segment_size_mb:17592186044416", "!31 more than there are addresses", "!0 no setting",
       "reserve=18446744073709551615"},
  };
  CK_READINGS(readings);
}
END_TEST

START_TEST(fractions) {
  static const struct reading readings[] = {
      {"garbage_collection_threshold:0", "!29 not between 0 and 1", NULL, NULL},
      {"garbage_collection_threshold:1.0", "!29 not between 0 and 1", NULL, NULL},
      {"garbage_collection_threshold:0.9999999999999999", "threshold=0.99999999999999989", NULL, NULL},
      {"garbage_collection_threshold:-0.5", "!29 not a number", "!29 not between 0 and 1", NULL},
      {"garbage_collection_threshold:.5", "!29 not a number", "threshold=0.5", NULL},
      {"garbage_collection_threshold:5.", "!29 not a number", "!29 not between 0 and 1", NULL},
      {"garbage_collection_threshold:5e-1", "!29 not a number", "threshold=0.5", NULL},
      {"garbage_collection_threshold:0x1p-1", "!29 not a number", "threshold=0.5", NULL},
      {"garbage_collection_threshold:0.5GB", "!29 not a number", "threshold=0.5", NULL},
      {"garbage_collection_threshold:0;5", "!29 not a number", "!29 not between 0 and 1", NULL},
      {"garbage_collection_threshold:0.5.5", "!29 not a number", "threshold=0.5", NULL},
      {"garbage_collection_threshold:nan", "!29 not a number", "!29 not between 0 and 1", NULL},
      {"garbage_collection_threshold:inf", "!29 not a number", "!29 not between 0 and 1", NULL},
      {"garbage_collection_threshold:1e-310", "!29 not a number", "!29 too large a number, or too small", NULL},
      {"garbage_collection_threshold:1e400", "!29 not a number", "!29 too large a number, or too small", NULL},
      {"garbage_collection_threshold:half", "!29 not a number", NULL, NULL},
      {"garbage_collection_threshold:", "!29 not a number", NULL, NULL},
      {"per_process_memory_fraction:0", "fraction=0", "!0 no setting", "fraction=0"},
      {"per_process_memory_fraction:1", "", "!0 no setting", ""},
      {"per_process_memory_fraction:1.25", "!28 not from 0 to 1", "!0 no setting", "!28 not from 0 to 1"},
      {"per_process_memory_fraction:-1", "!28 not a number", "!0 no setting", "!28 not from 0 to 1"},
      {"per_process_memory_fraction:x", "!28 not a number", "!0 no setting", "!28 not a number"},
  };
  CK_READINGS(readings);
}
END_TEST

/* Of a fraction no more than 1,023 characters are looked at; what is not part of the number may be longer. */
START_TEST(long_numbers) {
  char text[2048];
  int prefix = snprintf(text, sizeof text, "garbage_collection_threshold:0.5");
  size_t offset = strlen("garbage_collection_threshold:");
  memset(text + prefix, '0', sizeof text - (size_t)prefix);
  text[offset + 1023] = '\0';
  for (drowse_settings_dialect dialect = 0; dialect <= DROWSE_SETTINGS_TORCH_2_10; dialect++)
    ck_accepts(text, dialect, "threshold=0.5");
  text[offset + 1023] = '0';
  text[offset + 1024] = '\0';
  for (drowse_settings_dialect dialect = 0; dialect <= DROWSE_SETTINGS_TORCH_2_10; dialect++)
    ck_refuses(text, dialect, offset, "too long a number");
  memset(text + prefix, 'x', 1500);
  text[prefix + 1500] = '\0';
  ck_refuses(text, DROWSE_SETTINGS_STRICT, offset, "not a number");
  ck_accepts(text, DROWSE_SETTINGS_TORCH_2_9, "threshold=0.5");
  ck_accepts(text, DROWSE_SETTINGS_TORCH_2_10, "threshold=0.5");
  prefix = snprintf(text, sizeof text, "max_split_size_mb:");
  memset(text + prefix, '0', 1500);
  memcpy(text + prefix + 1500, "64", sizeof "64");
  ck_refuses(text, DROWSE_SETTINGS_STRICT, 18, "not a whole number");
  ck_accepts(text, DROWSE_SETTINGS_TORCH_2_9, "max_split=67108864");
  ck_accepts(text, DROWSE_SETTINGS_TORCH_2_10, "max_split=67108864");
}
END_TEST

#define LIST "roundup_power2_divisions:" /* 25 bytes */

START_TEST(divisions) {
  static const struct reading readings[] = {
      {LIST "1", "divisions=1*16", NULL, NULL},
      {LIST "0", "!25 not a power of 2", NULL, NULL},
      {LIST "6", "!25 not a power of 2", NULL, NULL},
      {LIST "x", "!25 not a whole number", NULL, NULL},
      {LIST "", "!25 not a whole number", NULL, NULL},
      {LIST ">", "!25 not a whole number", NULL, NULL},
      {LIST "]", "!25 not a whole number", NULL, NULL},
      {LIST "4294967296", "divisions=4294967296*16", "!25 too large a number", "divisions=4294967296*16"},
      /* The first boundary also stands for what is below it; what no boundary names stays 0. */
      {LIST "[256:1,512:2,1024:4]", "divisions=1*9,2*1,4*1,0*5", NULL, NULL},
      {LIST "[4:8,32:2]", "divisions=8*3,0*2,2*1,0*10", NULL, NULL},
      {LIST "[32768:4]", "divisions=4*16", NULL, NULL},
      {LIST "[1:2,2:0,4:8]", "divisions=2*1,0*1,8*1,0*13", NULL, NULL},
      /* '>': 2.9 overwrites the last boundary's. */
      {LIST "[256:1,512:2,1024:4,>:8]", "divisions=1*9,2*1,4*1,8*5", "divisions=1*9,2*1,8*6", "divisions=1*9,2*1,4*1,8*5"},
      {LIST "[32768:4,>:8]", "divisions=4*16", "divisions=4*15,8*1", "divisions=4*16"},
      {LIST "[>:8]", "!26 above no boundary", "divisions=8*16", "divisions=0*1,8*15"},
      {LIST "[1:2,>:8,4:4]", "!33 '>' is not the last of the list", "divisions=8*2,4*1,8*13", "divisions=2*1,8*1,4*1,8*13"},
      {LIST "[1:2,>:8,>:4]", "!33 '>' is not the last of the list", "divisions=4*16", "divisions=2*1,4*15"},
      /* Boundaries. */
      {LIST "[65536:4]", "!26 more than 32768 (MiB)", "divisions=4*16", NULL},
      {LIST "[9223372036854775808:4]", "!26 more than 32768 (MiB)", "divisions=4*16", NULL},
      {LIST "[-9223372036854775808:4]", "!26 not a whole number", "divisions=4*16", NULL},
      {LIST "[18446744073709551616:4]", "!26 too large a number", NULL, NULL},
      {LIST "[3:4]", "!26 not a power of 2", NULL, NULL},
      {LIST "[0:4]", "!26 not a power of 2", NULL, NULL},
      {LIST "[x:4]", "!26 not a whole number", NULL, NULL},
      {LIST "[4:2,4:8]", "!30 not larger than the boundary before", "divisions=2*2,8*1,0*13", NULL},
      {LIST "[4:2,1:8]", "!30 not larger than the boundary before", "divisions=8*1,2*2,0*13", NULL},
      /* Divisions. */
      {LIST "[1:6]", "!28 neither 0 nor a power of 2", NULL, NULL},
      {LIST "[1:x]", "!28 not a whole number", NULL, NULL},
      {LIST "[1:-1]", "!28 not a whole number", "!28 neither 0 nor a power of 2", NULL},
      {LIST "[1:4294967296]", "divisions=4294967296*1,0*15", "!28 too large a number", "divisions=4294967296*1,0*15"},
      /* Separators. */
      {LIST "[]", "!26 an empty list", "", NULL},
      {LIST "[1:2,]", "!30 a list that ends with a ','", "divisions=2*1,0*15", NULL},
      {LIST "[,1:2]", "!27 not the ':' behind a boundary", NULL, "!28 not a whole number"},
      {LIST "[1:2,,4:8]", "!31 not the ':' behind a boundary", NULL, "!32 not a whole number"},
      {LIST "[1,2]", "!27 not the ':' behind a boundary", NULL, "divisions=2*1,0*15"},
      {LIST "[1:2:4:8]", "!29 not the ',' or ']' behind a pair", NULL, "divisions=2*1,0*1,8*1,0*13"},
      {LIST "[1]", "!27 a boundary without its divisions", NULL, NULL},
      {LIST "[1]2,4:8]", "!27 a boundary without its divisions", NULL, NULL},
      {LIST "[1:]", "!28 not a whole number", NULL, NULL},
      {LIST "[1:2]]", "!30 not the ',' behind a value", NULL, "divisions=2*1,0*15"},
      {LIST "[1:2]8", "!30 not the ',' behind a value", NULL, "divisions=2*1,0*15"},
      {LIST "[1:2]expandable_segments:True", "!30 not the ',' behind a value", NULL, "!49 no setting"},
      {LIST "[[1:2]]", "!27 not the ':' behind a boundary", NULL, "!28 not a whole number"},
      /* A list that is not closed. 2.9 reads past the end of its tokens behind a pair: that counts as refused. */
      {LIST "[", "!26 a list without its ']'", "", "!26 a list without its ']'"},
      {LIST "[1", "!27 not the ':' behind a boundary", NULL, NULL},
      {LIST "[1:", "!28 not a whole number", NULL, NULL},
      {LIST "[1:2", "!29 not the ',' or ']' behind a pair", NULL, NULL},
      {LIST "[1:2,", "!30 a list without its ']'", "divisions=2*1,0*15", "!30 a list without its ']'"},
  };
  CK_READINGS(readings);
}
END_TEST

START_TEST(no_text_is_an_empty_one) {
  for (drowse_settings_dialect dialect = 0; dialect <= DROWSE_SETTINGS_TORCH_2_10; dialect++) ck_accepts(NULL, dialect, "");
}
END_TEST

START_TEST(bad_arguments_of_parse) {
  drowse_settings settings = {.struct_size = sizeof settings};
  ck_status(drowse_settings_parse("", DROWSE_SETTINGS_STRICT, NULL, NULL), DROWSE_ERR_INVALID);
  ck_status(drowse_settings_parse("", (drowse_settings_dialect)3, &settings, NULL), DROWSE_ERR_INVALID);
  ck_status(drowse_settings_parse("", (drowse_settings_dialect)-1, &settings, NULL), DROWSE_ERR_INVALID);
  settings.struct_size = sizeof settings.struct_size - 1;
  ck_status(drowse_settings_parse("", DROWSE_SETTINGS_STRICT, &settings, NULL), DROWSE_ERR_INVALID);
  settings.struct_size = sizeof settings;
  ck_status(drowse_settings_parse("nonsense:1", DROWSE_SETTINGS_STRICT, &settings, NULL), DROWSE_ERR_SETTINGS);
}
END_TEST

START_TEST(structs_of_other_versions) {
  drowse_settings settings;
  memset(&settings, 0xa5, sizeof settings);
  settings.struct_size = offsetof(drowse_settings, max_split_size);
  ck_ok(drowse_settings_parse("expandable_segments:True,max_split_size_mb:64", DROWSE_SETTINGS_STRICT, &settings, NULL));
  ck_assert(settings.expandable_segments);
  ck_assert_uint_eq(settings.max_split_size, UINT64_C(0xa5a5a5a5a5a5a5a5));

  struct {
    drowse_settings known;
    uint64_t later;
  } larger = {.known.struct_size = sizeof larger, .later = 1};
  ck_ok(drowse_settings_parse("max_split_size_mb:64", DROWSE_SETTINGS_STRICT, &larger.known, NULL));
  ck_assert_uint_eq(larger.known.struct_size, sizeof larger);
  ck_assert_uint_eq(larger.known.max_split_size, 64 << 20);
  ck_assert_uint_eq(larger.later, 0);
}
END_TEST

START_TEST(errno_is_kept) {
  drowse_settings settings = {.struct_size = sizeof settings};
  errno = ENOTBLK;
  ck_ok(drowse_settings_parse("garbage_collection_threshold:0.5", DROWSE_SETTINGS_STRICT, &settings, NULL));
  ck_assert_int_eq(errno, ENOTBLK);
  ck_status(drowse_settings_parse("garbage_collection_threshold:1e400", DROWSE_SETTINGS_TORCH_2_10, &settings, NULL),
            DROWSE_ERR_SETTINGS);
  ck_assert_int_eq(errno, ENOTBLK);
}
END_TEST

START_TEST(reasons_quote_the_culprit) {
  drowse_settings settings = {.struct_size = sizeof settings};
  ck_status(drowse_settings_parse("backend:rmm,expandable_segments:True", DROWSE_SETTINGS_TORCH_2_9, &settings, NULL),
            DROWSE_ERR_SETTINGS);
  ck_assert_str_eq(drowse_last_error(), "settings: at byte 8, \"rmm\": neither native nor cudaMallocAsync");
  ck_status(drowse_settings_parse("backend", DROWSE_SETTINGS_TORCH_2_9, &settings, NULL), DROWSE_ERR_SETTINGS);
  ck_assert_str_eq(drowse_last_error(), "settings: at byte 7, the end: no value: the ':' behind the key is missing");
  /* No more than 64 bytes of it. */
  char text[101], expected[128];
  memset(text, 'x', sizeof text - 1);
  text[sizeof text - 1] = '\0';
  ck_status(drowse_settings_parse(text, DROWSE_SETTINGS_TORCH_2_9, &settings, NULL), DROWSE_ERR_SETTINGS);
  (void)snprintf(expected, sizeof expected, "settings: at byte 0, \"%.64s\": no setting", text);
  ck_assert_str_eq(drowse_last_error(), expected);
}
END_TEST

/* ---- editing */

struct edit {
  const char *text, *key, *value, *result;
};

START_TEST(edits) {
  static const struct edit table[] = {
      {NULL, "expandable_segments", "False", "expandable_segments:False"},
      {"", "expandable_segments", "False", "expandable_segments:False"},
      {"  ", "expandable_segments", "False", "  expandable_segments:False"},
      {"\t\n", "expandable_segments", "False", "\t\nexpandable_segments:False"},
      {"expandable_segments:True", "expandable_segments", "False", "expandable_segments:False"},
      {"expandable_segments:False", "expandable_segments", "False", "expandable_segments:False"},
      {"max_split_size_mb:64", "expandable_segments", "False", "expandable_segments:False,max_split_size_mb:64"},
      {"max_split_size_mb:64,", "expandable_segments", "False", "expandable_segments:False,max_split_size_mb:64,"},
      {" a : b , expandable_segments :  True  ,c:d", "expandable_segments", "False",
       " a : b , expandable_segments :  False  ,c:d"},
      {"a:[1:2,3:4],expandable_segments:True,b:[5:6]", "expandable_segments", "False",
       "a:[1:2,3:4],expandable_segments:False,b:[5:6]"},
      /* Lists for words, words for lists. */
      {"a:1,roundup_power2_divisions: [1:2, 4:8] ,b:2", "roundup_power2_divisions", "16",
       "a:1,roundup_power2_divisions: 16 ,b:2"},
      {"a:1,roundup_power2_divisions:16", "roundup_power2_divisions", "[1:2, >:8]", "a:1,roundup_power2_divisions:[1:2, >:8]"},
      {"a:1,b:[]", "b", "[]", "a:1,b:[]"},
      /* A key named twice is changed twice: whichever counts. Also by another name. */
      {"expandable_segments:True,a:b,expandable_segments:True", "expandable_segments", "False",
       "expandable_segments:False,a:b,expandable_segments:False"},
      {"release_lock_on_hipmalloc:True", "release_lock_on_cudamalloc", "False", "release_lock_on_hipmalloc:False"},
      {"pinned_use_cuda_host_register:True", "pinned_use_hip_host_register", "False", "pinned_use_cuda_host_register:False"},
      /* As PyTorch sees it. */
      {"expandable _segments:Tr ue", "expandable_segments", "False", "expandable _segments:False"},
      {"expandable_segments,True", "expandable_segments", "False", "expandable_segments,False"},
      {"max_split_size_mb:64:expandable_segments:True", "expandable_segments", "False",
       "max_split_size_mb:64:expandable_segments:False"},
      {"max_split_size_mb:\t64\t,a:b", "max_split_size_mb", "128", "max_split_size_mb:128,a:b"},
      {"roundup_power2_divisions:[1:2,", "expandable_segments", "False",
       "expandable_segments:False,roundup_power2_divisions:[1:2,"},
      {"roundup_power2_divisions:[1:2, ", "roundup_power2_divisions", "4", "roundup_power2_divisions:4 "},
      {"roundup_power2_divisions:[1:2] 8 ", "roundup_power2_divisions", "4", "roundup_power2_divisions:4 "},
      {"roundup_power2_divisions:[1:2]8", "expandable_segments", "False",
       "expandable_segments:False,roundup_power2_divisions:[1:2]8"},
      /* Keys of other versions. A key's name has to be the whole word. */
      {"later:1,latest:2", "later", "3", "later:3,latest:2"},
      {"latest:2", "later", "3", "later:3,latest:2"},
      {"lat:2", "later", "3", "later:3,lat:2"},
      /* The value's own spaces do not count. */
      {"a:1", "a", " 2\t", "a:2"},
  };
  for (const struct edit *edit = table; edit < table + sizeof table / sizeof table[0]; edit++) {
    char out[256];
    size_t needed = 0, room = sizeof out;
    ck_ok(drowse_settings_edit(edit->text, edit->key, edit->value, NULL, &needed));
    ck_ok(drowse_settings_edit(edit->text, edit->key, edit->value, out, &room));
    ck_assert_str_eq(out, edit->result);
    ck_assert_uint_eq(room, strlen(edit->result) + 1);
    ck_assert_uint_eq(needed, room);
  }
}
END_TEST

START_TEST(room_for_an_edit) {
  const char *result = "expandable_segments:False,max_split_size_mb:64";
  char out[64];
  memset(out, '#', sizeof out);
  size_t room = strlen(result) + 1;
  ck_ok(drowse_settings_edit("max_split_size_mb:64", "expandable_segments", "False", out, &room));
  ck_assert_str_eq(out, result);
  ck_assert_int_eq(out[strlen(result) + 1], '#');
  for (size_t less = 0; less <= strlen(result); less++) {
    memset(out, '#', sizeof out);
    room = less;
    ck_status(drowse_settings_edit("max_split_size_mb:64", "expandable_segments", "False", out, &room), DROWSE_ERR_INVALID);
    ck_assert_uint_eq(room, strlen(result) + 1);
    for (size_t at = 0; at < sizeof out; at++) ck_assert_int_eq(out[at], '#');
  }
}
END_TEST

/* word: what the reason must say. */
static void ck_no_edit(const char *text, const char *key, const char *value, drowse_status status, const char *word) {
  char out[64] = "before";
  size_t room = sizeof out;
  ck_status(drowse_settings_edit(text, key, value, out, &room), status);
  ck_assert_msg(strstr(drowse_last_error(), word) != NULL, "%s", drowse_last_error());
  ck_assert_str_eq(out, "before");
  ck_assert_uint_eq(room, sizeof out);
}

START_TEST(edits_that_are_refused) {
  ck_no_edit("", NULL, "1", DROWSE_ERR_INVALID, "key is NULL");
  ck_no_edit("", "a", NULL, DROWSE_ERR_INVALID, "value is NULL");
  ck_status(drowse_settings_edit("", "a", "1", NULL, NULL), DROWSE_ERR_INVALID);
  static const char *const no_keys[] = {"", "a b", "a:b", "a,b", "[", "a]", "a\t", " a"};
  for (size_t at = 0; at < sizeof no_keys / sizeof no_keys[0]; at++)
    ck_no_edit("a:1", no_keys[at], "1", DROWSE_ERR_INVALID, "is no key");
  static const char *const no_values[] = {"", " ", ":", ",", "]", "1,b:2", "1:2", "[1", "[1]]", "[1]2", "1]", "[1],", "1["};
  for (size_t at = 0; at < sizeof no_values / sizeof no_values[0]; at++)
    ck_no_edit("a:1", "a", no_values[at], DROWSE_ERR_INVALID, "is no value");
  ck_no_edit("b", "a", "1", DROWSE_ERR_SETTINGS, "at byte 1, the end: no value");
  ck_no_edit("b:", "a", "1", DROWSE_ERR_SETTINGS, "at byte 2, the end: no value");
  ck_no_edit("b:,a:2", "a", "1", DROWSE_ERR_SETTINGS, "at byte 2, \",\": no value");
  ck_no_edit("b:]", "a", "1", DROWSE_ERR_SETTINGS, "at byte 2, \"]\": no value");
  ck_no_edit("b:1,,a:2", "a", "1", DROWSE_ERR_SETTINGS, "at byte 4, \",\": no key");
  ck_no_edit(":a", "a", "1", DROWSE_ERR_SETTINGS, "at byte 0, \":\": no key");
}
END_TEST

/* ---- a heap's */

static void ck_heap(const char *text, bool expandable) {
  struct settings settings = {.expandable_segments = !expandable};
  ck_ok(dz_settings_parse(&settings, text, "here"));
  ck_assert_msg(settings.expandable_segments == expandable, "\"%s\"", text);
}

static void ck_no_heap(const char *text, const char *reason) {
  for (int before = 0; before < 2; before++) {
    struct settings settings = {.expandable_segments = before};
    ck_status(dz_settings_parse(&settings, text, "here"), DROWSE_ERR_SETTINGS);
    ck_assert_str_eq(drowse_last_error(), reason);
    ck_assert_int_eq(settings.expandable_segments, before);
  }
}

START_TEST(settings_of_a_heap) {
  ck_heap(NULL, true);
  ck_heap("", true);
  ck_heap("   ", true);
  ck_heap("expandable_segments:True", true);
  ck_heap("expandable_segments:False", false);
  ck_heap(" expandable_segments : False ", false);
}
END_TEST

START_TEST(what_a_heap_refuses) {
  static const char *const others[] = {"max_split_size_mb",
                                       "max_non_split_rounding_mb",
                                       "garbage_collection_threshold",
                                       "roundup_power2_divisions",
                                       "backend",
                                       "release_lock_on_cudamalloc",
                                       "release_lock_on_hipmalloc",
                                       "pinned_use_hip_host_register",
                                       "graph_capture_record_stream_reuse",
                                       "pinned_num_register_threads",
                                       "per_process_memory_fraction"};
  for (size_t at = 0; at < sizeof others / sizeof others[0]; at++) {
    char text[128], reason[256];
    (void)snprintf(text, sizeof text, "expandable_segments:True, %s:1", others[at]);
    (void)snprintf(reason, sizeof reason, "here: at byte 26, \"%s\": no setting of a heap, which has expandable_segments only",
                   others[at]);
    ck_no_heap(text, reason);
  }
  ck_no_heap("expandable_segments:False,garbage:1", "here: at byte 26, \"garbage\": no setting");
  ck_no_heap("expandable_segments:maybe", "here: at byte 20, \"maybe\": neither True nor False");
  ck_no_heap("expandable_segments", "here: at byte 19, the end: no value: the ':' behind the key is missing");
  ck_no_heap("expandable_segments:False,", "here: at byte 26, the end: no key behind the last ','");
  ck_no_heap("expandable_segments:False,expandable_segments:False",
             "here: at byte 26, \"expandable_segments\": named a second time");
}
END_TEST

int main(void) {
  Suite *suite = suite_create("settings");
  HARNESS_TEST(suite, every_key);
  HARNESS_TEST(suite, keys_that_are_none);
  HARNESS_TEST(suite, separators);
  HARNESS_TEST(suite, white_space);
  HARNESS_TEST(suite, named_twice);
  HARNESS_TEST(suite, whole_numbers);
  HARNESS_TEST(suite, fractions);
  HARNESS_TEST(suite, long_numbers);
  HARNESS_TEST(suite, divisions);
  HARNESS_TEST(suite, no_text_is_an_empty_one);
  HARNESS_TEST(suite, bad_arguments_of_parse);
  HARNESS_TEST(suite, structs_of_other_versions);
  HARNESS_TEST(suite, errno_is_kept);
  HARNESS_TEST(suite, reasons_quote_the_culprit);
  HARNESS_TEST(suite, edits);
  HARNESS_TEST(suite, room_for_an_edit);
  HARNESS_TEST(suite, edits_that_are_refused);
  HARNESS_TEST(suite, settings_of_a_heap);
  HARNESS_TEST(suite, what_a_heap_refuses);
  return harness_run(suite);
}
