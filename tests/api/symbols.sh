#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The header, the symbol map and the library name the same functions, for each library, and in it each has the version that the
# map gives it; the packages for Debian name the same symbols; libdrowse has nothing of the build that has faults; and none of the
# libraries calls what prints or ends the process, unless it is a debug build.
#
# From the environment: top_srcdir, top_builddir, CC, NM.
set -u
status=0
work=$(mktemp -d) || exit 99
trap 'rm -rf "$work"' EXIT

fail() {
  echo "FAILED: $*"
  status=1
}

# Declarations, one a line: the name is the first one in front of a parenthesis.
declared() { # HEADER
  # shellcheck disable=SC2086 # words
  echo "#include <$1>" | ${CC:-gcc} -E -P -I "${top_srcdir:?}/include" -I "$top_srcdir/src" -x c - | tr '\n' ' ' | tr ';' '\n' |
    sed -n '/visibility("default")/s/.*visibility("default"))) *[^(]*[ *]\([a-zA-Z_]*\) *(.*/\1/p' | sort
}

mapped() { # MAP
  sed -n 's/^ *\([a-zA-Z_]*\);$/\1/p' "$top_srcdir/src/$1" | sort
}

versioned() { # MAP
  awk '/ [{]$/ { version = "@@" $1 } /^ *[a-zA-Z_]*;$/ { sub(";", ""); print $1 version }' "$top_srcdir/src/$1" | sort
}

exported() { # LIBRARY
  ${NM:-nm} -D --defined-only "$1" | sed -e '/ A /d' -e 's/.* //' | sort
}

same() { # FILE FILE OF
  diff "$work/$1" "$work/$2" && return
  fail "the $1 (<) and the $2 (>) of $3 name different functions"
}

check() { # LIBRARY FEWEST HEADER HEADER-BELOW
  declared "$3" >"$work/with"
  declared "$4" >"$work/below"
  comm -23 "$work/with" "$work/below" >"$work/header"
  mapped "${1#lib}.map" >"$work/map"
  [ "$(wc -l <"$work/header")" -ge "$2" ] || fail "only these were found in $3: $(cat "$work/header")"
  same header map "$1"
  library=${top_builddir:?}/.libs/$1.so
  if [ -e "$library" ] && [ -s "$work/map" ]; then
    versioned "${1#lib}.map" >"$work/versions"
    exported "$library" >"$work/library"
    same versions library "$1"
  fi
}

check libdrowse 30 drowse.h stddef.h
check libdrowse-torch 7 drowse-torch.h drowse.h
check libdrowse-tms 22 torch/tms.h drowse.h

# What a map exports as Debian's tools write it: with the node, or with Base where there is none, and a node is a symbol, too.
mapped_for_debian() { # MAP
  awk '/ [{]$/ { node = $1; print node "@" node } /^ *[a-zA-Z_]*;$/ { sub(";", ""); print $1 "@" (node ? node : "Base") }' \
    "$top_srcdir/src/$1" | sort
}

packaged() { # LIBRARY PACKAGE
  awk -v library="$1.so.1" '/^[^ *]/ { on = $1 == library } on && /^ / { sub("^[(].*[)]", "", $1); print $1 }' \
    "$top_srcdir/packaging/debian/$2.symbols" | sort
}

check_package() { # PACKAGE LIBRARY...
  package=$1
  shift
  for library; do
    mapped_for_debian "${library#lib}.map" >"$work/map"
    packaged "$library" "$package" >"$work/package"
    [ -s "$work/map" ] || fail "nothing was found in the map of $library"
    same map package "$library"
  done
}

check_package libdrowse1 libdrowse libdrowse-jump
check_package libdrowse-torch1 libdrowse-torch libdrowse-tms

# Symbols that are not exported count too, and words.
library=$top_builddir/.libs/libdrowse.so
if [ -e "$library" ]; then
  if ${NM:-nm} "$library" | grep -E ' (__wrap_|__real_)?fault_' || grep -a DROWSE_FAULT "$library"; then
    fail "the library that is installed has a part of tests/fault"
  fi
fi
if grep -q '^#define DZ_DEBUG 0$' "$top_builddir/config.h"; then
  for library in "$top_builddir"/.libs/libdrowse*.so; do
    [ -e "$library" ] || continue
    called=$(${NM:-nm} -D --undefined-only "$library" | sed 's/.* //; s/@.*//' |
      grep -xE 'abort|__assert_fail|_?exit|_Exit|quick_exit|raise|perror|(v|__v)?[fd]?printf(_chk)?|__[fd]?printf_chk|f?puts|f?putc|putchar|fwrite')
    [ -z "$called" ] || fail "${library##*/} calls" "$called"
  done
fi
exit "$status"
