#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every public header stands alone: it is enough to include it, in each C and C++ that it is for, by each compiler there is, with
# every warning an error.
#
# From the environment: top_srcdir, CC, CXX.
set -u
include=${top_srcdir:?}/include
status=0

compiles() { # LANGUAGE STANDARDS COMPILER FLAG...
  language=$1 standards=$2
  shift 2
  for path in "$include"/*.h; do
    header=${path##*/}
    for standard in $standards; do
      # Included twice, to test its guard.
      if ! printf '#include <%s>\n#include <%s>\nint drowse_header_is_alone;\n' "$header" "$header" |
        "$@" -std="$standard" -Wall -Wextra -Wpedantic -pedantic-errors -Wundef -Wshadow -Werror -fsyntax-only -I "$include" \
          -x "$language" -; then
        echo "FAILED: $header: $* -std=$standard"
        status=1
      fi
    done
  done
}

compile_c() { # COMPILER...
  compiles c 'c11 c17 c2x gnu17' "$@" -Wstrict-prototypes -Wmissing-prototypes
}

compile_cxx() { # COMPILER...
  compiles c++ 'c++17 c++20' "$@" -Wold-style-cast
}

is_other() { # COMPILER COMPILER: and is there
  [ "$1" != "$2" ] && command -v "$1" >/dev/null
}

# shellcheck disable=SC2086 # words
compile_c ${CC:-gcc}
for compiler in gcc clang; do
  if is_other $compiler "${CC:-gcc}"; then compile_c $compiler; fi
done
if command -v "${CXX:-g++}" >/dev/null; then
  # shellcheck disable=SC2086
  compile_cxx ${CXX:-g++}
fi
for compiler in g++ clang++; do
  if is_other $compiler "${CXX:-g++}"; then compile_cxx $compiler; fi
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
