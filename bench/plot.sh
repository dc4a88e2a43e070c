#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Makes a picture (SVG) of each file of values that bench/run.sh and bench/sleep.sh wrote: pair, threads, random, growth, traces
# with expandable segments and without, sleep. Needs gnuplot.
#
#   plot.sh RESULTS [PICTURES]     default: doc/bench beside the folder that this script is in
set -eu
if [ $# -lt 1 ] || [ $# -gt 2 ]; then
  sed -n 's/^#   //p' "$0" >&2
  exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
pictures=${2:-$here/../doc/bench}
mkdir -p "$pictures"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# gnuplot takes a column a series. pivot FILE ROW COLUMN VALUE [CONDITION]: from a line a value to a line a ROW and a column for
# each COLUMN, in the order in which they come; what is not there is "?". The arguments are awk's expressions of the line.
pivot() {
  awk -F'\t' "NR > 1 && (${5:-1}) {"'
      row = '"$2"'; column = '"$3"'; value[row, column] = '"$4"'
      if (!(row in rows)) { rows[row]; row_name[++row_count] = row }
      if (!(column in columns)) { columns[column]; column_name[++column_count] = column }
    }
    END {
      printf "what"
      for (c = 1; c <= column_count; c++) printf "\t%s", column_name[c]
      print ""
      for (r = 1; r <= row_count; r++) {
        printf "%s", row_name[r]
        for (c = 1; c <= column_count; c++) {
          key = row_name[r] SUBSEP column_name[c]
          printf "\t%s", key in value ? value[key] : "?"
        }
        print ""
      }
    }' "$1"
}

# shellcheck disable=SC2016 # $ is awk's
{
  pivot "$1/pair.tsv" '$3 " stream"' '$2' '$4' '$2 != "none"' >"$work/pair"
  pivot "$1/threads.tsv" '$3' '$2' '$4' '$2 != "loop"' >"$work/threads"
  pivot "$1/random.tsv" '$4 " live, " $3' '$2' '$5' '$2 != "none"' >"$work/random"
  pivot "$1/growth.tsv" '$2' '"ms"' '$4' >"$work/growth"
  awk -F'\t' 'BEGIN { OFS = FS; print "what", "drowse", "limit" }
    NR > 1 && $8 != "-" && $8 != "payload" && !seen[$2]++ { sub(/scattered/, $4 " scattered", $2); print $2, $5, $9 }' \
    "$1/sleep.tsv" >"$work/sleep"
  for kind in expandable discrete; do
    pivot "$1/traces.tsv" '$2' '$3' '$8' "\$4 == \"$kind\"" >"$work/traces-$kind"
  done
}
# The device that drowse ran on, of the first measurement: it is named in every picture.
device=$(sed -n '2s/\t.*//p' "$1/pair.tsv")
gpu=$(sed -n 's/^\(NVIDIA[^,]*\),.*/\1/p' "$1/machine.txt" 2>/dev/null | head -n 1)
gnuplot -c "$here/plot.gp" "$work" "$pictures" "${gpu:-$device}"
