#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Instructions of one pair of allocate and free on the host device, as callgrind counts them: the difference between two runs that
# differ in nothing but the number of pairs. Tab-separated; ratio is to 1000 live. Fails if a random block of LIVE takes more than
# 1.2 times the instructions of one of 1000, what the benchmark itself does left out. For a build with optimization and without
# debug checks.
#
#   alloc.sh [PROGRAM [LIVE]]     default: bench/alloc 1000000, which takes minutes. To be run in the build's root, where libtool
#                                 is, which knows the real program.
set -eu
program=${1:-bench/alloc}
most=${2:-1000000}
if [ -x ./libtool ]; then run='./libtool --mode=execute'; else run=; fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

count() { # KIND PAIRS [LIVE]
  # shellcheck disable=SC2086 # no word or two
  $run valgrind --tool=callgrind --callgrind-out-file="$work/out" "$program" -d host:100GiB count "$@" >"$work/log" 2>&1 || {
    cat "$work/log" >&2
    return 1
  }
  sed -n 's/^totals: //p' "$work/out"
}

each() { # KIND [LIVE]
  kind=$1
  shift
  few=$(count "$kind" 1000 "$@")
  many=$(count "$kind" 101000 "$@")
  each=$(((many - few + 50000) / 100000))
  if [ "$each" -eq 0 ]; then
    echo "alloc.sh: it was not $program that was counted" >&2
    exit 1
  fi
}

random() { # LIVE: what it takes without the benchmark's own part
  each none "$1"
  none=$each
  each random "$1"
  each=$((each - none))
}

printf 'kind\tlive\tinstructions\tratio\n'
each loop # which the benchmark takes for 650
printf 'loop\t-\t%s\t-\n' "$each"
each pair
printf 'pair\t1\t%s\t-\n' "$each"
random 1000
base=$each
printf 'random\t1000\t%s\t1.00\n' "$base"
random "$most"
ratio=$((each * 100 / base))
printf 'random\t%s\t%s\t%d.%02d\n' "$most" "$each" $((ratio / 100)) $((ratio % 100))
[ $((each * 10)) -le $((base * 12)) ]
