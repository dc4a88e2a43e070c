#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# On the host device memory is given back to the system for real: while a tag sleeps, its pages are not resident.
# shellcheck source=env.sh
. "${top_srcdir:?}/tests/tool/env.sh"

random_file file 67108864
MEDDLE=resident
export MEDDLE

for action in offload:file discard:64MiB; do
  try "$meddled" cycle -d host:256MiB "a=$action"
  # shellcheck disable=SC2046 # three numbers: before, asleep, after
  set -- $(cat err)
  if [ "$status" != 0 ] || [ "$#" != 3 ]; then
    complain "wanted: status 0, three numbers on stderr"
    show
    continue
  fi
  [ "$1" -ge 65536 ] || complain "$action: before the sleep $1 KiB are resident, of 65536"
  [ "$2" -le 2048 ] || complain "$action: asleep $2 KiB are still resident"
  # What was discarded becomes resident when it is written.
  [ "$action" = discard:64MiB ] || [ "$3" -ge 65536 ] || complain "$action: after waking $3 KiB are resident, of 65536"
done

finish
