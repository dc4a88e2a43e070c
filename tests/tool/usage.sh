#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Command lines that make no sense: exit status 2, and one sentence that names the culprit.
# shellcheck source=env.sh
. "${top_srcdir:?}/tests/tool/env.sh"

random_file file 1000
bell=$(printf 'be\all')
long=$(printf '%064d' 0)
most=$(printf '%063d' 0)

refused 2 'info or cycle' "$drowse"
refused 2 'dance: no such command: there are info and cycle' "$drowse" dance
refused 2 '--dance: no such option' "$drowse" --dance
refused 2 'info: --dance: no such option' "$drowse" info --dance
refused 2 'info: -x: no such option' "$drowse" info -x
refused 2 'info: -d: its argument is missing' "$drowse" info -d
refused 2 'info: --device: its argument is missing' "$drowse" info --device
refused 2 'info: -n: no such option' "$drowse" info -n 3
refused 2 '"weights": info takes no operand' "$drowse" info weights
refused 2 'cycle: no TAG=ACTION:WHAT is given' "$drowse" cycle -d host
refused 2 'cycle: --json=yes: it takes no argument' "$drowse" cycle --json=yes a=keep:file

for rounds in 0 -1 1x x '' 1000001 99999999999999999999 ' 1' 0x10; do
  refused 2 "-n \"$rounds\": not a number from 1 to" "$drowse" cycle -n "$rounds" a=keep:file
done

for operand in a =keep a= a=keep a=keep: a=discard: a=shred:file a=KEEP:file keep:file ./file ''; do
  refused 2 "\"$operand\": not TAG=offload:FILE, TAG=discard:SIZE or TAG=keep:FILE" "$drowse" cycle "$operand"
done

refused 2 '"=keep:file": .*empty' "$drowse" cycle =keep:file
refused 2 'longer than 63 bytes' "$drowse" cycle "$long=keep:file"
refused 2 '"be?ll=keep:file": .*control character' "$drowse" cycle "$bell=keep:file"
refused 2 'control character or not UTF-8' "$drowse" cycle "$(printf 'a\377')=keep:file"
accepted "$drowse" cycle -d host:64MiB "$most=keep:file"

for size in x 1x 1.5 1..5MiB .5GiB 1.MiB -1 +1 ' 1' '1 MiB' 1mib 1PiB 1.5B 0.0000001GiB; do
  refused 2 "\"a=discard:$size\": the size \"$size\" is not" "$drowse" cycle "a=discard:$size"
done
refused 2 'is not a whole number of bytes' "$drowse" cycle a=discard:0.0001KiB
for size in 18446744073709551616 16777216TiB 99999999999999999999999999KiB; do
  refused 2 "the size \"$size\" does not fit 64 bits" "$drowse" cycle "a=discard:$size"
done
refused 2 'is nothing to discard' "$drowse" cycle a=discard:0
refused 2 'is nothing to discard' "$drowse" cycle a=discard:0GiB

refused 2 '"a=keep:file": the tag "a" has another action' "$drowse" cycle a=offload:file a=keep:file
refused 2 '"a=discard:1MiB": the tag "a" has another action' "$drowse" cycle b=keep:file a=offload:file a=discard:1MiB

accepted "$drowse" --version
printed '^drowse [0-9]*\.[0-9]*\.[0-9]*$'
for help in --help -h help 'info --help' 'cycle -h' 'info --json --help' 'cycle -n 2 a=keep:missing -h'; do
  # shellcheck disable=SC2086 # words
  accepted "$drowse" $help
  printed '^Usage: drowse info'
done

refused 2 '"--help": not TAG=' "$drowse" cycle -- --help

finish
