#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The programs here at every level of optimisation: with libdrowse-jump linked, preloaded into the same program that is not
# linked with it, and without it.
#
# From the environment: top_srcdir, top_builddir, CC, CXX, DZ_SANITIZE.
set -u
libraries=$(cd "${top_builddir:?}" && pwd)/.libs
source=${top_srcdir:?}/tests/jump
[ -e "$libraries/libdrowse-jump.so" ] || exit 77
status=0
work=$(mktemp -d) || exit 99
trap 'rm -rf "$work"' EXIT

fail() {
  echo "FAILED: $*"
  status=1
}

build() { # PROGRAM SOURCE FLAG...
  program=$work/$1
  file=$source/$2
  shift 2
  case $file in *.cc) compiler=${CXX:-g++} ;; *) compiler=${CC:-gcc} ;; esac
  # shellcheck disable=SC2086 # words
  $compiler $level -g -Wall -Wextra -Werror -fexceptions -D_GNU_SOURCE -pthread ${DZ_SANITIZE:-} -I "$top_srcdir/include" \
    -o "$program" "$file" -L "$libraries" -Wl,-rpath,"$libraries" "$@" -ldrowse || fail "$level: $file does not compile"
}

passes() { # COMMAND...
  "$@" >"$work/output" 2>&1 && return
  fail "$level: $*: exit status $?"
  head -20 "$work/output"
}

# shellcheck disable=SC2317 # called by passes
preload() { # COMMAND...
  LD_PRELOAD=$libraries/libdrowse-jump.so "$@"
}

set -- -O0 -O1 -O2 -O3
case ${DZ_SANITIZE:-} in
*thread*) ;; # ThreadSanitizer does not know of the checked longjmp, and takes what comes behind it for the handler that jumped
*) set -- "$@" '-O2 -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2' ;;
esac

for level; do
  build linked exact.c -ldrowse-jump
  passes "$work/linked"

  build plain exact.c
  case $level in
  *FORTIFY*) ${NM:-nm} -D "$work/plain" | grep -q ' U __longjmp_chk' || fail "$level: longjmp is not the checked one" ;;
  esac
  # A sanitizer's library must come first, and the preloaded one would.
  [ -n "${DZ_SANITIZE:-}" ] || passes preload "$work/plain"
  "$work/plain" inlined >"$work/output" && fail "$level: exact, it seems, without libdrowse-jump: the test notices nothing"

  build public exact.c -DDROWSE_JUMPS
  passes "$work/public"
  build best best.c
  passes "$work/best"
  build exceptions exceptions.cc -ldrowse-jump
  passes "$work/exceptions"
done
exit "$status"
