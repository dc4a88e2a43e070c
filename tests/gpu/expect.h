/* SPDX-License-Identifier: Apache-2.0
 *
 * What tests on a GPU share. They do not use Check: a driver that is initialised must not be forked.
 */
#ifndef TESTS_GPU_EXPECT_H
#define TESTS_GPU_EXPECT_H

#include <stdio.h>
#include <stdlib.h>

#include "drowse.h"

#define EXPECT(condition)                                                                                 \
  do {                                                                                                    \
    if (!(condition)) {                                                                                   \
      printf("FAILED %s:%d: %s (last error: %s)\n", __func__, __LINE__, #condition, drowse_last_error()); \
      exit(EXIT_FAILURE);                                                                                 \
    }                                                                                                     \
  } while (0)
#define EXPECT_OK(call) EXPECT((call) == DROWSE_OK)
#define EXPECT_CU(call) EXPECT((call) == CUDA_SUCCESS)

#define RUN(test)             \
  do {                        \
    test();                   \
    printf("ok %s\n", #test); \
  } while (0)

#endif
