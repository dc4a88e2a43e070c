#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Files that cannot be loaded: exit status 1, and one sentence with the file's name.
# shellcheck source=env.sh
. "${top_srcdir:?}/tests/tool/env.sh"

random_file file 1000
: >empty
mkdir directory
mkfifo fifo
ln -s loop loop
newline=$(printf 'new\nline')

cycle() {
  "$drowse" cycle -d host:64MiB "$@"
}

refused 1 'cycle: missing: No such file or directory' cycle a=keep:file a=keep:missing
refused 1 'cycle: missing/file: No such file or directory' cycle a=offload:missing/file
refused 1 'cycle: file/: Not a directory' cycle a=offload:file/
refused 1 'cycle: empty: is empty' cycle a=offload:empty
refused 1 'cycle: directory: is a directory' cycle a=offload:directory
refused 1 'cycle: fifo: is not a regular file' cycle a=keep:fifo
refused 1 'cycle: /dev/null: is not a regular file' cycle a=keep:/dev/null
refused 1 'cycle: loop: Too many levels of symbolic links' cycle a=keep:loop
refused 1 'cycle: new?line: No such file or directory' cycle "a=keep:$newline"
# A name is not a pattern, and an equals sign in it is a part of it.
cp file 'a=*'
accepted cycle 'a=keep:a=*'

if [ "$(id -u)" != 0 ]; then
  cp file secret
  chmod 0 secret
  refused 1 'cycle: secret: Permission denied' cycle a=keep:secret
fi

finish
