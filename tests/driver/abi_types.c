/* SPDX-License-Identifier: Apache-2.0
 *
 * Compiles only if each entry of the driver's table has the type of the function of that name in cuda.h. There the name stands
 * for the form that is current, as cuMemcpyHtoD_v2: the one whose version the table asks for.
 */
#include <cuda.h>

#include "driver/driver.h"

#define SAME(name, version, need, parameters)                                                         \
  _Static_assert(__builtin_types_compatible_p(__typeof__(&cu##name), CUresult(CUDAAPI *) parameters), \
                 "cu" #name " has another type in cuda.h");
DZ_DRIVER_ENTRIES(SAME)
#undef SAME

int main(void) {
  return 0;
}
