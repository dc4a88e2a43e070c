#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Whether src/driver/abi.h declares what cuda.h does. Without cuda.h there is nothing to compare with: skipped. And whether abi_print.c
# has every name that abi.h has.
set -eu
builddir=${builddir:-.}
srcdir=${srcdir:-.}
ours=$builddir/tests/driver/abi_print
theirs=$builddir/tests/driver/abi_print_cuda

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$ours" >"$work/ours"
grep -oE '\b(CUDA_SUCCESS|CUDA_ERROR_[A-Z0-9_]+|CU_[A-Z0-9_]+) = ' "$srcdir/src/driver/abi.h" | cut -d' ' -f1 >"$work/names"
grep -oE '^#define CU_[A-Z0-9_]+ ' "$srcdir/src/driver/abi.h" | cut -d' ' -f2 >>"$work/names"
grep -oE '^} CU[A-Za-z_]+;' "$srcdir/src/driver/abi.h" | tr -d '} ;' >>"$work/names"
test -s "$work/names"
while read -r name; do
  grep -q "^$name: " "$work/ours" || { echo "abi_print.c does not print $name"; exit 1; }
done <"$work/names"

test -x "$theirs" || { echo "no cuda.h to compare with"; exit 77; }
"$theirs" >"$work/theirs"
diff -u --label cuda.h --label abi.h "$work/theirs" "$work/ours"
