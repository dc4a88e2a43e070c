/* SPDX-License-Identifier: Apache-2.0
 *
 * The weights: a file's bytes in device memory, under one tag.
 */
#ifndef SERVER_MODEL_H
#define SERVER_MODEL_H

#include "device.h"

#define MODEL_TAG "weights"

struct model {
  drowse_heap *heap;
  uint64_t bytes;
  void **blocks; /* device addresses, which stay through every sleep */
  size_t block_count;
};

/* Loads a file. False: not all of it could be loaded, and why has been said. model_unload() ends it in either case. */
bool model_load(struct model *model, drowse_heap *heap, const char *path);

/* Gives the list of blocks back; the blocks go with the heap. */
void model_unload(struct model *model);

/* Has the device read a range, which lies in the model. The tag must be held. Returns a CUresult; 0: it is done. */
int model_read(const struct model *model, const struct device *device, void *out, uint64_t offset, size_t bytes);

#endif
