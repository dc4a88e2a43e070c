/* SPDX-License-Identifier: Apache-2.0
 *
 * drowse info: the devices there are, and what a heap gets on the one that was asked for.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "options.h"
#include "table.h"
#include "tool.h"

struct info {
  drowse_device *devices;
  size_t device_count;
  bool no_memory;
  drowse_heap_info heap;
  const char *device_source;
};

static int add_device(void *context, const drowse_device *device) {
  struct info *info = context;
  drowse_device *devices = realloc(info->devices, (info->device_count + 1) * sizeof *devices);
  info->no_memory = devices == NULL;
  if (info->no_memory) return -1;
  info->devices = devices;
  devices[info->device_count++] = *device;
  return 0;
}

/* What a heap gets: asked of one, which is closed again. */
static bool look_at_heap(struct info *info, const char *device) {
  drowse_heap *heap = dz_open_heap(device, &info->device_source);
  if (heap == NULL) return false;
  info->heap = (drowse_heap_info){.struct_size = sizeof info->heap};
  bool whole = drowse_heap_info_get(heap, &info->heap) == DROWSE_OK;
  if (!whole) dz_say_last("asking about the device");
  if (drowse_heap_close(heap) != DROWSE_OK) {
    if (whole) dz_say_last("closing the device \"%s\"", info->heap.device);
    whole = false;
  }
  return whole;
}

/* 13000 is 13.0. */
static void driver_version(const drowse_device *device, char text[16]) {
  if (device->driver_version == 0)
    snprintf(text, 16, "-");
  else
    snprintf(text, 16, "%d.%d", device->driver_version / 1000, device->driver_version % 1000 / 10);
}

static bool print_text(const struct info *info) {
  struct table table;
  dz_table_begin(&table, "DEVICE NAME DRIVER >MEMORY >GRANULARITY NOTE");
  for (const drowse_device *device = info->devices; device < info->devices + info->device_count; device++) {
    char version[16];
    driver_version(device, version);
    dz_table_row(&table);
    dz_table_cell(&table, "%s", device->device);
    dz_table_cell(&table, "%s", device->name);
    dz_table_cell(&table, "%s", version);
    dz_table_cell(&table, "%s", dz_size(device->total_bytes).text);
    dz_table_cell(&table, "%s", dz_size(device->granularity).text);
    dz_table_cell(&table, "%s", *device->unusable != '\0' ? device->unusable : device->uuid);
  }
  if (!dz_table_print(&table)) return false;
  const drowse_heap_info *heap = &info->heap;
  printf("\n");
  printf("device        %s (%s)\n", heap->device, info->device_source);
  printf("settings      expandable_segments:%s (%s)\n", heap->expandable ? "True" : "False", heap->settings_source);
  printf("granularity   %s\n", dz_size(heap->granularity).text);
  printf("memory        %s, %s free\n", dz_size(heap->total_bytes).text, dz_size(heap->free_bytes).text);
  printf("backup limit  %s\n", heap->backup_limit == 0 ? "what the machine can give" : dz_size(heap->backup_limit).text);
  printf("drowse        %s\n", drowse_version());
  return true;
}

static json_t *device_json(const drowse_device *device) {
  return json_pack("{s:s, s:s, s:s, s:I, s:I, s:i, s:s}", "device", device->device, "name", device->name, "uuid", device->uuid,
                   "total_bytes", (json_int_t)device->total_bytes, "granularity", (json_int_t)device->granularity,
                   "driver_version", device->driver_version, "unusable", device->unusable);
}

static bool print_json(const struct info *info) {
  const drowse_heap_info *heap = &info->heap;
  json_t *devices = json_array();
  int failed = 0;
  for (size_t i = 0; i < info->device_count; i++) failed |= json_array_append_new(devices, device_json(&info->devices[i]));
  json_t *root = json_pack("{s:s, s:o, s:{s:s, s:s, s:b, s:s, s:I, s:I, s:I, s:I}}", "version", drowse_version(), "devices",
                           devices, "heap", "device", heap->device, "device_source", info->device_source, "expandable_segments",
                           (int)heap->expandable, "settings_source", heap->settings_source, "granularity",
                           (json_int_t)heap->granularity, "total_bytes", (json_int_t)heap->total_bytes, "free_bytes",
                           (json_int_t)heap->free_bytes, "backup_limit", (json_int_t)heap->backup_limit);
  bool whole = failed == 0 && root != NULL && json_dumpf(root, stdout, JSON_INDENT(2)) == 0;
  json_decref(root);
  if (whole)
    putchar('\n');
  else
    dz_say("cannot write the JSON");
  return whole;
}

int dz_info(int argc, char **argv) {
  struct options options;
  int operands;
  if (!dz_options_parse(&options, argc, argv, false, &operands)) return DZ_EXIT_USAGE;
  if (operands < argc) {
    dz_say("\"%s\": info takes no operand", argv[operands]);
    return DZ_EXIT_USAGE;
  }
  struct info info = {0};
  bool whole = look_at_heap(&info, options.device);
  if (whole && drowse_devices(add_device, &info) != DROWSE_OK) {
    dz_say_last("listing the devices");
    whole = false;
  }
  if (info.no_memory) {
    dz_say("no memory for the list of devices");
    whole = false;
  }
  whole = whole && (options.json ? print_json(&info) : print_text(&info)) && dz_output_done();
  free(info.devices);
  return whole ? EXIT_SUCCESS : EXIT_FAILURE;
}
