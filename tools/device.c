/* SPDX-License-Identifier: Apache-2.0
 *
 * Which device the program uses. Unlike a server, which must not end up in host memory unasked, it takes what there is.
 */
#include <stdlib.h>

#include "tool.h"

drowse_heap *dz_open_heap(const char *option, const char **source) {
  drowse_heap_options options = {.struct_size = sizeof options, .device = option};
  const char *variable = getenv("DROWSE_DEVICE");
  *source = "-d";
  if (option == NULL && variable != NULL && *variable != '\0') {
    options.device = variable;
    *source = "DROWSE_DEVICE";
  } else if (option == NULL) {
    options.device = "auto";
    *source = "default: auto";
  }
  drowse_heap *heap;
  if (drowse_heap_open(&heap, &options) == DROWSE_OK) return heap;
  drowse_error error = {.struct_size = sizeof error};
  if (drowse_error_get(&error) == DROWSE_OK && error.status == DROWSE_ERR_NO_DEVICE)
    dz_say("opening the device \"%s\" (%s): %s; -d host needs no GPU", options.device, *source, drowse_last_error());
  else
    dz_say_last("opening the device \"%s\" (%s)", options.device, *source);
  return NULL;
}
