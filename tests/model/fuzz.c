/* SPDX-License-Identifier: Apache-2.0
 *
 * libFuzzer's entry: a sequence in the fuzzer's own process. `make tests/model/fuzz` builds it where clang has -fsanitize=fuzzer;
 * what it finds is a file for DROWSE_MODEL_FILE (test_model.c).
 */
#include <stdlib.h>
#include <string.h>

#include "model/model.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
  static bool prepared;
  struct sequence sequence = {.bytes = malloc(size + 1), .size = size};
  if (sequence.bytes == NULL) abort();
  memcpy(sequence.bytes, data, size);
  model_faults = true;
  if (!prepared) run_prepare();
  prepared = true;
  run_sequence(&sequence);
  free(sequence.bytes);
  return 0;
}
