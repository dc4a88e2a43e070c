#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Runs every benchmark of the allocator and writes a file of tab-separated values for each: pair, threads, random, growth and
# traces.tsv; machine.txt says on what. Where there are PyTorch and a GPU, PyTorch's allocator takes part, and traces of real
# programs are recorded and replayed too. Under ten minutes on a GPU. bench/plot.sh makes pictures of the results, bench/judge.sh
# compares them with what is asked for.
#
#   run.sh OUT [DEVICE [PROGRAMS]]     default: auto, and the folder that this script is in
#
# PROGRAMS has the programs alloc and replay, built, and may have libdrowse.so.1 and libjemalloc.so.2, which are taken before the
# system's. What fails is said, the rest is run all the same, and the status is 1.
set -u
if [ $# -lt 1 ] || [ $# -gt 3 ]; then
  sed -n 's/^#   //p' "$0" >&2
  exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
out=$1 device=${2:-auto}
programs=$(cd "${3:-$here}" && pwd) || exit 2
mkdir -p "$out" || exit 2
out=$(cd "$out" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# jemalloc wants more thread-local storage than a library that is opened late gets by default
export GLIBC_TUNABLES=glibc.rtld.optional_static_tls=16384 PYTHONDONTWRITEBYTECODE=1
export LD_LIBRARY_PATH="$programs${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
failed=0

step() { # FILE COMMAND...: appends its output to FILE of OUT
  file=$1
  shift
  begun=$(date +%s)
  "$@" >>"$out/$file" || {
    echo "run.sh: failed: $*" >&2
    failed=1
  }
  echo "run.sh: $file: $(basename "$1"), $(($(date +%s) - begun)) s" >&2
}

machine() {
  uname -srm
  sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | sort | uniq -c
  if command -v nvidia-smi >/dev/null; then nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader; fi
  if [ -n "$torch" ]; then python3 -c 'import torch; print("PyTorch", torch.__version__)'; fi
}

torch=
case $device in
auto | cuda:0) if python3 -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then torch=1; fi ;;
esac
for file in pair.tsv threads.tsv random.tsv growth.tsv traces.tsv; do : >"$out/$file"; done
machine >"$out/machine.txt"

step pair.tsv "$programs/alloc" -d "$device" pair
step threads.tsv "$programs/alloc" -d "$device" threads
if [ -n "$torch" ]; then
  step pair.tsv python3 "$here/torch_alloc.py" pair
  step threads.tsv python3 "$here/torch_alloc.py" threads
fi
step random.tsv "$programs/alloc" -d "$device" random
step growth.tsv "$programs/alloc" -d "$device" growth

if [ -n "$torch" ]; then
  mkdir -p "$out/recorded"
  : >"$out/recorded.txt"
  step recorded.txt python3 "$here/torch_record.py" "$out/recorded"
fi
for trace in "$here"/traces/*.trace.gz "$out"/recorded/*.trace.gz; do
  if [ ! -e "$trace" ]; then continue; fi
  name=$(basename "$trace" .gz)
  if [ -e "$work/$name" ]; then name=new-$name; fi # recorded before, and again now
  gzip -dc "$trace" >"$work/$name" || failed=1
done
step traces.tsv "$programs/replay" -d "$device" "$work"/*.trace
if [ -n "$torch" ]; then step traces.tsv python3 "$here/torch_replay.py" "$work"/*.trace; fi
exit $failed
