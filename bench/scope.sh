#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Instructions of one pair of enter and leave, loop and PLT included, as callgrind counts them: the difference between two runs
# that differ in nothing but the number of pairs. Tab-separated; fails if a kind takes more than its limit. For a build with
# optimization and without debug checks.
#
#   scope.sh [PROGRAM]     default: bench/scope. To be run in the build's root, where libtool is, which knows the real program.
set -eu
program=${1:-bench/scope}
if [ -x ./libtool ]; then run='./libtool --mode=execute'; else run=; fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

count() { # KIND PAIRS
  # shellcheck disable=SC2086 # no word or two
  $run valgrind --tool=callgrind --callgrind-out-file="$work/out" "$program" count "$1" "$2" >"$work/log" 2>&1 || {
    cat "$work/log" >&2
    return 1
  }
  sed -n 's/^totals: //p' "$work/out"
}

failed=0
printf 'kind\tinstructions\tlimit\n'
for pair in empty: tag:90 name7:130 name15:130 mutex:; do
  kind=${pair%%:*} limit=${pair#*:}
  few=$(count "$kind" 1000)
  many=$(count "$kind" 11000)
  each=$(((many - few + 5000) / 10000))
  if [ "$each" -eq 0 ]; then failed=1; fi # it was not the program that was counted
  printf '%s\t%s\t%s\n' "$kind" "$each" "${limit:--}"
  if [ -n "$limit" ] && [ "$each" -gt "$limit" ]; then failed=1; fi
done
exit $failed
