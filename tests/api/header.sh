#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Each public header stands alone: it is enough to include it, in strict C11 and in C++17, with every warning an error.
#
# From the environment: top_srcdir, CC, CXX.
set -u
include=${top_srcdir:?}/include
status=0

compiles() { # LANGUAGE COMPILER FLAG...
  language=$1
  shift
  # Included twice, to test its guard.
  if ! printf '#include <%s>\n#include <%s>\nint drowse_header_is_alone;\n' "$header" "$header" |
    "$@" -pedantic-errors -Wall -Wextra -Wundef -Wshadow -Werror -fsyntax-only -I "$include" -x "$language" -; then
    echo "FAILED: $header: $*"
    status=1
  fi
}

for header in drowse.h drowse-torch.h; do
  # shellcheck disable=SC2086 # words
  compiles c ${CC:-gcc} -std=c11 -Wstrict-prototypes -Wmissing-prototypes
  # shellcheck disable=SC2086
  compiles c ${CC:-gcc} -std=gnu17
  if command -v "${CXX:-g++}" >/dev/null; then
    # shellcheck disable=SC2086
    compiles c++ ${CXX:-g++} -std=c++17 -Wold-style-cast
    # shellcheck disable=SC2086
    compiles c++ ${CXX:-g++} -std=c++20
  fi
done

# No macro without a prefix.
macros() { # FLAG...
  # shellcheck disable=SC2086
  ${CC:-gcc} -E -dM -I "$include" -x c "$@" | sed -n 's/^#define \([A-Za-z0-9_]*\).*/\1/p' | sort
}
extra=$(
  {
    printf '#include <setjmp.h>\n#include <stdbool.h>\n#include <stddef.h>\n#include <stdint.h>\n' | macros - | sed 'p'
    printf '#include <drowse-torch.h>\n' | macros -
  } | sort | uniq -u | grep -v -i '^drowse_'
)
if [ -n "$extra" ]; then
  echo "FAILED: macros without a prefix: $extra"
  status=1
fi
exit "$status"
