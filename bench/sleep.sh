#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Runs bench/sleep and compares what it finds with what is asked for: sleep.tsv, file.tsv and fio.tsv in OUT have the values,
# stdout the verdicts, tab-separated: what, found, asked for, verdict ("-": no data). Fails unless every verdict is "yes". Three
# minutes on a GPU; bench/plot.sh makes a picture.
#
#   sleep.sh OUT [DEVICE [PROGRAMS [GIB [DIRECTORY]]]]     default: auto, the folder that this script is in, 40, /tmp
#
# PROGRAMS has the program sleep, built, and may have libdrowse.so.1 and liburing.so.2. Files of 4 GiB are made in DIRECTORY and
# compared with fio's, where that is installed: blocks of 4 MiB, 16 at a time, one file, without checksums.
set -eu
if [ $# -lt 1 ] || [ $# -gt 5 ]; then
  sed -n 's/^#   //p' "$0" >&2
  exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
out=$1 device=${2:-auto} gib=${4:-40} directory=${5:-/tmp}
programs=$(cd "${3:-$here}" && pwd)
mkdir -p "$out"
export LD_LIBRARY_PATH="$programs${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"

"$programs/sleep" -d "$device" -g "$gib" -b 300 -m 100000 -n 7 >"$out/sleep.tsv"

# In turn, because what a disk gives changes from minute to minute. fio: the 48th and 7th fields are the rates, KiB a second.
has_fio=false file=
if command -v fio >/dev/null; then has_fio=true; fi
if $has_fio; then file=$(mktemp "$directory/drowse-fio-XXXXXX"); fi
trap 'rm -f "$file"' EXIT
fio_rate() { # read or write. A file that has been written before is written faster.
  if [ "$1" = write ]; then rm -f "$file"; fi
  env -u LD_LIBRARY_PATH fio --minimal --name=f --filename="$file" --direct=1 --bs=4M --iodepth=16 --ioengine=io_uring \
    --rw="$1" --size=4G --fallocate=posix 2>/dev/null |
    awk -F';' -v way="$1" '{ print way "\t" (way == "read" ? $7 : $48) / 1024 }'
}
: >"$out/file.tsv"
: >"$out/fio.tsv"
for _ in 1 2 3 4 5 6 7; do
  "$programs/sleep" -d "$device" -g 4 -b 30 -n 1 -f "$directory" >>"$out/file.tsv"
  if $has_fio; then
    fio_rate write >>"$out/fio.tsv"
    fio_rate read >>"$out/fio.tsv"
  fi
done

cd "$out"
awk -F'\t' '
  function judge(what, found, sign, asked) {
    verdict = found == "" || asked == "" ? "-" : (sign == "<=" ? found <= asked : found >= asked) ? "yes" : "NO"
    if (verdict != "yes") failed = 1
    printf "%s\t%s\t%s %.3f\t%s\n", what, found == "" ? "-" : sprintf("%.3f", found), sign, asked, verdict
  }
  function middle(way, n, i, j, t) {
    n = count[way]
    for (i = 2; i <= n; i++)
      for (j = i; j > 1 && rate[way, j] < rate[way, j - 1]; j--) {
        t = rate[way, j]
        rate[way, j] = rate[way, j - 1]
        rate[way, j - 1] = t
      }
    return n == 0 ? "" : rate[way, int(n / 2) + 1]
  }
  FILENAME == "fio.tsv" { rate[$1, ++count[$1]] = $2; next }
  FILENAME == "file.tsv" && $2 ~ /, file/ { rate[$2, ++count[$2]] = 4096 / ($5 / 1000) }
  FILENAME == "file.tsv" || FNR == 1 { next }
  { ms[$2, $4] = $5; limit[$2, $4] = $9; ratio[$2, $4] = $10; gib = $3; if ($4 > many) many = $4 }
  END {
    print "what\tfound\tasked\tmet"
    judge("first sleep, over the slowest of touch, pin, link", ratio["first sleep", 300], "<=", 1 / 0.6)
    judge("first sleep, reserved, over link and unmap", ratio["first sleep, reserved", 300], "<=", 1.03)
    judge("sleep, over link and unmap", ratio["sleep", 300], "<=", 1.03)
    judge("wake, over link and map", ratio["wake", 300], "<=", 1.03)
    split("sleep, sealed;sleep, discarding;wake, discarded", short, ";")
    for (i = 1; i <= 3; i++)
      judge(short[i] ", ms, to 1.10 of the driver and 5 ms", ms[short[i], 300], "<=", 1.10 * limit[short[i], 300] + 5)
    judge("host memory over payload", ratio["host memory", 300], "<=", 1.02 + 1 / 16 / gib)
    split("sleep;wake;sleep, sealed;sleep, discarding;wake, discarded", all, ";")
    for (i = 1; i <= 5; i++) judge(all[i] ", " many " blocks over 300", ms[all[i], many] / ms[all[i], 300], "<=", 1.2)
    split("sleep wake", ways, " ")
    for (i = 1; i <= 2; i++)
      judge(ways[i] ", " many " scattered blocks over 300", ms[ways[i] ", scattered", many] / ms[ways[i], 300], "<=", 1.2)
    split("write read", ways, " ")
    for (i = 1; i <= 2; i++) {
      found = middle(ways[i] == "write" ? "sleep, file" : "wake, file, usable")
      theirs = middle(ways[i])
      judge("file, " ways[i] ", over fio", theirs == "" || found == "" ? "" : found / theirs, ">=", 0.9)
    }
    exit failed
  }' fio.tsv file.tsv sleep.tsv
