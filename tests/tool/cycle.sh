#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Whole cycles on the host device: every file comes back, the figures add up, and nothing else is said.
# shellcheck source=env.sh
. "${top_srcdir:?}/tests/tool/env.sh"
need_python

random_file tiny 1
random_file small 4097
random_file odd 12345677
random_file large 41943040
bytes=$((12345677 + 1 + 41943040))

run() {
  "$drowse" cycle -d host:512MiB "$@" weights=offload:odd cache=discard:33MiB kept=keep:large weights=offload:tiny \
    weights=offload:large other=offload:small
}

for settings in expandable_segments:True expandable_segments:False; do
  DROWSE_SETTINGS=$settings
  export DROWSE_SETTINGS

  accepted run
  printed '^weights  *offload .* whole$'
  printed '^cache  *discard  *33.0 MiB .* writable$'
  printed '^kept  *keep  *40.0 MiB .* whole$'
  printed '^other  *offload  *4.0 KiB .* whole$'
  printed '^all .* whole$'
  printed '^the device got .* back: of 512.0 MiB there were '
  [ "$(wc -l <out)" = 8 ] || complain "a round is a heading, a table of 6 lines and a last line: $(cat out)"

  accepted run -n 3 --json
  json_true 'it["whole"] is True and [r["round"] for r in it["rounds"]] == [1, 2, 3]'
  json_true 'all(r["whole"] and r["device"]["device"] == "host:512MiB" for r in it["rounds"])'
  json_true 'all(r["device"]["total_bytes"] == 512 << 20 for r in it["rounds"])'
  json_true 'all([t["tag"] for t in r["tags"]] == ["weights", "cache", "kept", "other"] for r in it["rounds"])'
  json_true "all(r['tags'][0]['bytes'] == $bytes and r['copied_bytes'] == $bytes + 4097 for r in it['rounds'])"
  json_true 'all(r["tags"][1]["bytes"] == 33 << 20 and r["tags"][1]["blocks"] > 1 for r in it["rounds"])'
  json_true 'all(t["mapped_before"] >= t["bytes"] and t["mapped_after"] >= t["bytes"] for r in it["rounds"] for t in r["tags"])'
  json_true 'all(t["mapped_asleep"] == 0 for r in it["rounds"] for t in r["tags"] if t["action"] != "keep")'
  json_true 'all(t["mapped_asleep"] == t["mapped_before"] for r in it["rounds"] for t in r["tags"] if t["action"] == "keep")'
  json_true 'all(t["backup_bytes"] >= t["bytes"] for r in it["rounds"] for t in r["tags"] if t["action"] == "offload")'
  json_true 'all(t["backup_bytes"] == 0 for r in it["rounds"] for t in r["tags"] if t["action"] != "offload")'
  json_true 'all((t["wake_seconds"] is None) == (t["action"] == "keep") for r in it["rounds"] for t in r["tags"])'
  json_true 'all(t["bad_blocks"] == 0 for r in it["rounds"] for t in r["tags"])'
  # What the tags gave back is what the device got.
  json_true 'all(sum(t["mapped_before"] - t["mapped_asleep"] for t in r["tags"]) ==
                 r["device"]["free_asleep"] - r["device"]["free_before"] for r in it["rounds"])'
  json_true 'all(sum(t["mapped_after"] - t["mapped_asleep"] for t in r["tags"]) ==
                 r["device"]["free_asleep"] - r["device"]["free_after"] for r in it["rounds"])'
done

# A tag's name is whatever UTF-8 the user likes; one action alone is fine; the same file may be loaded twice.
for tag in 'a tag with spaces' "Gewichte äöü" '"quoted"' total; do
  accepted "$drowse" cycle -d host:64MiB --json "$tag=offload:small" "$tag=offload:small"
  printf '%s' "$tag" >tag
  json_true 'it["rounds"][0]["tags"][0]["tag"] == open("tag").read() and it["rounds"][0]["tags"][0]["bytes"] == 8194'
done

# It fits exactly: 8 MiB of 8 MiB, and the backup is not on the device.
accepted "$drowse" cycle -d host:8MiB -n 2 a=discard:8MiB

accepted "$drowse" info -d host:64MiB --json
json_true 'it["heap"]["device"] == "host:64MiB" and it["heap"]["device_source"] == "-d"'
json_true 'it["heap"]["total_bytes"] == 64 << 20 and it["heap"]["free_bytes"] == 64 << 20 and it["heap"]["granularity"] == 2 << 20'
json_true 'it["heap"]["expandable_segments"] is False and it["heap"]["settings_source"] == "DROWSE_SETTINGS"'
json_true 'it["devices"][-1]["device"] == "host" and it["devices"][-1]["unusable"] == ""'
accepted "$drowse" info
printed '^host '

# Output that cannot be written is a failure.
if [ -w /dev/full ]; then
  for command in 'info -d host' 'info -d host --json' 'cycle -d host:64MiB a=keep:small' 'cycle -d host:64MiB --json a=keep:small' --help; do
    status=0
    # shellcheck disable=SC2086 # words
    "$drowse" $command >/dev/full 2>err || status=$?
    [ "$status" = 1 ] || complain "$command to a full device: status $status"
    grep -q 'cannot write the' err || complain "$command to a full device: $(cat err)"
  done
fi

finish
