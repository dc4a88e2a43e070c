#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The example server's command line, and what it cannot start with: one sentence each.
# shellcheck source=../soak/server.sh
. "${top_srcdir:?}/tests/soak/server.sh"

random_file file 1000
: >empty
mkdir directory

# refused_by_server STATUS TEXT ARGUMENT...: ends with STATUS, prints nothing, and says TEXT, a basic regular expression, in one line.
refused_by_server() {
  wanted=$1 text=$2
  shift 2
  try "$server" "$@"
  if [ "$status" != "$wanted" ] || [ -s out ] || [ "$(wc -l <err)" != 1 ] || ! grep -q "^server: .*$text" err; then
    complain "wanted: status $wanted, nothing on stdout, one line on stderr with: $text"
    show
  fi
}

refused_by_server 2 'no FILE is given'
refused_by_server 2 'one FILE is served, not 2' file file
refused_by_server 2 '--dance: no such option' --dance file
refused_by_server 2 '-x: no such option' -x file
refused_by_server 2 '--port: its argument is missing' --port
for number in 65536 -1 x '' 1x 99999999999999999999; do
  refused_by_server 2 "--port \"$number\": not a number from 0 to 65535" --port="$number" file
done
for option in idle deadline patience; do
  refused_by_server 2 "--$option \"86400001\": not a number" --"$option"=86400001 file
done
for size in 0 -1 x '' 1x 1.5MiB 99999999999999999999 17179869184TiB; do
  refused_by_server 2 "--cache \"$size\": not a size" --cache="$size" file
  refused_by_server 2 "--backup-limit \"$size\": not a size" --backup-limit="$size" file
done
refused_by_server 2 '--cache "65535": less than 65536 bytes' --cache=65535 file
accepted "$server" --help
printed '^Usage: server'

refused_by_server 1 'opening the device: .*"warp"' --device=warp file
refused_by_server 1 'missing: No such file' --device=host:32MiB missing
refused_by_server 1 'empty: not a regular file' --device=host:32MiB empty
refused_by_server 1 'directory: not a regular file' --device=host:32MiB directory
refused_by_server 1 'allocating the cache: ' --device=host:32MiB --cache=64MiB file
random_file large 5000000
refused_by_server 1 'allocating 5000000 bytes: ' --device=host:4MiB large

serve --device=host:32MiB file
refused_by_server 1 "listening on port $port of 127.0.0.1: Address already in use" --device=host:32MiB --port="$port" file
end_server TERM

finish
