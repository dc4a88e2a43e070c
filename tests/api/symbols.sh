#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The header, the symbol map and the library name the same functions, and the library has nothing of the build that has faults.
#
# From the environment: top_srcdir, top_builddir, CC, NM.
set -u
status=0
work=$(mktemp -d) || exit 99
trap 'rm -rf "$work"' EXIT

# Declarations, one a line: the name is the first one in front of a parenthesis.
# shellcheck disable=SC2086 # words
echo '#include <drowse.h>' | ${CC:-gcc} -E -P -I "${top_srcdir:?}/include" -x c - | tr '\n' ' ' | tr ';' '\n' |
  sed -n '/visibility("default")/s/.*visibility("default"))) *[^(]*[ *]\(drowse_[a-z_]*\) *(.*/\1/p' | sort >"$work/header"
sed -n 's/^ *\(drowse_[a-z_]*\);$/\1/p' "$top_srcdir/src/drowse.map" | sort >"$work/map"

same() { # FILE FILE
  diff "$work/$1" "$work/$2" && return
  echo "FAILED: the $1 (<) and the $2 (>) name different functions"
  status=1
}

[ "$(wc -l <"$work/header")" -ge 30 ] || {
  echo "FAILED: only these were found in the header: $(cat "$work/header")"
  status=1
}
same header map

library=${top_builddir:?}/.libs/libdrowse.so
if [ -e "$library" ] && [ -s "$work/map" ]; then
  ${NM:-nm} -D --defined-only "$library" | sed -e '/ A /d' -e 's/.* \([^ @]*\).*/\1/' | sort >"$work/library"
  same map library
  # Symbols that are not exported count too, and words.
  if ${NM:-nm} "$library" | grep -E ' (__wrap_|__real_)?fault_' || grep -a DROWSE_FAULT "$library"; then
    echo "FAILED: the library that is installed has a part of tests/fault"
    status=1
  fi
fi
exit "$status"
