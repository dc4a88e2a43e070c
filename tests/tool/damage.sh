#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What the program must notice. In `meddled` something goes wrong on purpose between the program and the library: see meddle.c.
# shellcheck source=env.sh
. "${top_srcdir:?}/tests/tool/env.sh"

random_file first 5000000
random_file second 9000000
random_file third 3000

run() {
  "$meddled" cycle -d host:64MiB a=offload:first b=keep:second c=discard:5MiB d=offload:third
}

# damaged MEDDLE TEXT ROW: is noticed, told with TEXT, shown in a ROW of the table, and makes the exit status 1.
damaged() {
  MEDDLE=$1
  export MEDDLE
  try run
  if [ "$status" != 1 ] || ! grep -q -e "$2" err || ! grep -q 'not all is whole' err || ! grep -q -e "$3" out ||
    ! grep -q '^all .* NOT WHOLE$' out; then
    complain "MEDDLE=$1: wanted status 1, \"$2\" on stderr, \"$3\" on stdout"
    show
  fi
  unset MEDDLE
}

accepted run

# The blocks: 0 and 1 of first, 2 to 4 of second, 5 and 6 discarded, 7 of third.
damaged flip:0:0 'first: byte 0 differs after waking, tag "a"' '^a .* DAMAGED$'
damaged flip:0:4194303 'first: byte 4194303 differs after waking, tag "a"' '^a .* DAMAGED$'
damaged flip:1:5 'first: byte 4194309 differs after waking, tag "a"' '^a .* DAMAGED$'
damaged flip:4:611391 'second: byte 8999999 differs after waking, tag "b"' '^b .* DAMAGED$'
damaged flip:7:2999 'third: byte 2999 differs after waking, tag "d"' '^d .* DAMAGED$'
damaged drop 'of the tag "a" does not keep what is written' '^c .* DAMAGED$'
damaged move 'is now ' '^a .* DAMAGED$'
damaged awake 'not all is whole' '^a .* NOT ASLEEP$'

# Files that change while they are loaded are not mistaken for damage, and damage is found all the same.
for change in overwrite truncate; do
  cp first copy
  MEDDLE=$change:copy
  export MEDDLE
  try "$meddled" cycle -d host:64MiB -n 2 a=offload:copy
  if [ "$status" != 0 ] || [ "$(grep -c 'copy: is not the file that was loaded any more' err)" != 1 ] || [ "$(wc -l <err)" != 1 ]; then
    complain "a file that changes meanwhile ($change)"
    show
  fi
  cp first copy
  MEDDLE=$change:copy:flip
  try "$meddled" cycle -d host:64MiB a=offload:copy
  if [ "$status" != 1 ] || ! grep -q 'copy: the 4194304 bytes from 0 differ after waking, tag "a"' err; then
    complain "a file that changes meanwhile ($change), and damage"
    show
  fi
done
cp first copy
MEDDLE=remove:copy
accepted "$meddled" cycle -d host:64MiB a=offload:copy

# Ended by a signal while everything sleeps: nothing is printed and nothing stays behind.
mkdir tmp
TMPDIR=$work/tmp
export TMPDIR
for signal in 2 15; do
  MEDDLE=kill:$signal
  try run
  [ "$status" = $((128 + signal)) ] || complain "ended by signal $signal: status $status"
  [ ! -s out ] || complain "ended by signal $signal: it printed $(cat out)"
  [ -z "$(ls tmp)" ] || complain "ended by signal $signal: it left $(ls tmp)"
done

finish
