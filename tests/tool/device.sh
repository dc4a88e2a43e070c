#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Devices that are not there, nonsense in the environment, memory that does not suffice: exit status 1, one sentence with the culprit.
# shellcheck source=env.sh
. "${top_srcdir:?}/tests/tool/env.sh"

random_file file 5000000

for device in warp warp:0 cuda cuda: cuda:x cuda:-1 cuda:GPU- host: host:x host:0 host:-1 host:1x ' host' HOST ''; do
  refused 1 "opening the device \"$device\" (-d)" "$drowse" info -d "$device"
  refused 1 "opening the device \"$device\" (-d)" "$drowse" cycle -d "$device" a=keep:file
done
refused 1 'opening the device "cuda:4096" (-d): .*; -d host needs no GPU$' "$drowse" info -d cuda:4096

DROWSE_DEVICE=nonsense
export DROWSE_DEVICE
refused 1 'opening the device "nonsense" (DROWSE_DEVICE)' "$drowse" info
refused 1 'opening the device "nonsense" (DROWSE_DEVICE)' "$drowse" cycle a=keep:file
accepted "$drowse" info -d host
DROWSE_DEVICE=host:64MiB
accepted "$drowse" info
printed '^device .*host:64MiB (DROWSE_DEVICE)$'
accepted "$drowse" info -d host:128MiB
printed '^device .*host:128MiB (-d)$'
DROWSE_DEVICE=
accepted "$drowse" info
printed '^device .*(default: auto)$'
unset DROWSE_DEVICE

for settings in nonsense expandable_segments expandable_segments:maybe nothing:True; do
  DROWSE_SETTINGS=$settings
  export DROWSE_SETTINGS
  refused 1 'opening the device "host" (-d): .*DROWSE_SETTINGS' "$drowse" info -d host
done
DROWSE_SETTINGS=expandable_segments:False
accepted "$drowse" info -d host
printed '^settings  *expandable_segments:False (DROWSE_SETTINGS)$'
unset DROWSE_SETTINGS
accepted "$drowse" info -d host
printed '^settings  *expandable_segments:True (default)$'

# The device is too small: for a file, for several, for a size, for a size that no machine has.
refused 1 'allocating 4.8 MiB for file, tag "a": ' "$drowse" cycle -d host:4MiB a=offload:file
refused 1 'tag "[bcd]": ' "$drowse" cycle -d host:16MiB a=offload:file b=keep:file c=keep:file d=keep:file
refused 1 'allocating 1.0 GiB for the pattern, tag "b": ' "$drowse" cycle -d host:64MiB a=keep:file b=discard:1GiB
refused 1 'allocating 16.0 EiB for the pattern, tag "b": ' "$drowse" cycle -d host:64MiB a=keep:file b=discard:18446744073709551615
accepted "$drowse" cycle -d host:64MiB a=keep:file b=discard:8MiB

# There is no room for the backup: nothing has happened, and another heap of the machine still works.
MEDDLE=limit
export MEDDLE
refused 1 'putting the tags to sleep: ' "$meddled" cycle -d host:64MiB a=offload:file
accepted "$meddled" cycle -d host:64MiB a=discard:8MiB b=keep:file
unset MEDDLE
accepted "$meddled" cycle -d host:64MiB a=offload:file

finish
