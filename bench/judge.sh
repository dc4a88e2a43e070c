#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Compares what bench/run.sh found with what is asked of the allocator. Tab-separated: what, found, asked for, verdict ("-": no
# data). Fails unless every verdict is "yes".
#
#   judge.sh RESULTS     the folder that run.sh wrote
set -eu
if [ $# -ne 1 ]; then
  sed -n 's/^#   //p' "$0" >&2
  exit 2
fi
cd "$1"
awk -F'\t' '
  function judge(what, found, sign, asked) {
    verdict = found == "" || asked == "" ? "-" : (sign == "<=" ? found <= asked : found >= asked) ? "yes" : "NO"
    if (verdict != "yes") failed = 1
    printf "%s\t%s\t%s %s\t%s\n", what, found == "" ? "-" : sprintf("%.4f", found), sign, asked == "" ? "-" : asked, verdict
  }
  function over(a, b) { return a == "" || b == "" ? "" : a / b }
  FNR == 1 { file = FILENAME; next }
  file == "pair.tsv" { ns[$2, $3] = $4 }
  file == "threads.tsv" { rate[$2, $3] = $4; of_loop[$2, $3] = $7 }
  file == "random.tsv" { random[$2, $3, $4] = $5; if ($4 > most) most = $4 }
  file == "traces.tsv" { ratio[$3, $4, $2] = $8; traces[$2] = 1 }
  function judge_trace(name, kind, ours, theirs) {
    ours = ratio["drowse", kind, name]
    theirs = ratio["PyTorch", kind, name]
    if (theirs == "oom") theirs = 1000
    judge(name ", " kind ", mapped over live, to PyTorch", ours, "<=", theirs)
    if (name ~ /replace/) judge(name ", " kind ", mapped over live", ours, "<=", kind == "discrete" ? 1.10 : 1.05)
  }
  END {
    print "what\tfound\tasked\tmet"
    split("default own", streams, " ")
    for (i = 1; i <= 2; i++) {
      on = streams[i]
      judge("pair, " on " stream, ns", ns["drowse", on], "<=", 100)
      judge("pair, " on " stream, PyTorch expandable over drowse", over(ns["PyTorch expandable", on], ns["drowse", on]), ">=", 4)
      judge("pair, " on " stream, cuMemAllocAsync over drowse", over(ns["cuMemAllocAsync", on], ns["drowse", on]), ">=", 10)
    }
    for (threads = 2; threads <= 16; threads *= 2)
      judge(threads " threads, gain over the loop'"'"'s", of_loop["drowse", threads], ">=", 0.8)
    judge("16 threads, million pairs a second", rate["drowse", 16], ">=", 40)
    judge("random of 1000, large, ns", random["drowse", "large", 1000], "<=", 150)
    judge("random of 1000, small, ns", random["drowse", "small", 1000], "<=", 150)
    theirs = over(random["jemalloc", "small", most], random["jemalloc", "small", 1000])
    judge("random of " most " over of 1000, to jemalloc", over(random["drowse", "small", most], random["drowse", "small", 1000]),
          "<=", theirs)
    count = 0
    for (name in traces) names[++count] = name
    for (i = 2; i <= count; i++) # by name
      for (j = i; j > 1 && names[j] < names[j - 1]; j--) { name = names[j]; names[j] = names[j - 1]; names[j - 1] = name }
    for (i = 1; i <= count; i++) { judge_trace(names[i], "expandable"); judge_trace(names[i], "discrete") }
    exit failed
  }' pair.tsv threads.tsv random.tsv traces.tsv
