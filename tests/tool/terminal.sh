#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Progress bars: on a terminal, and only there. script(1) provides the terminal.
# shellcheck source=env.sh
. "${top_srcdir:?}/tests/tool/env.sh"
script --version 2>/dev/null | grep -q util-linux || exit 77

random_file file 9000000
command="'$drowse' cycle -d host:64MiB a=offload:file"

TERM=xterm script -qec "$command" screen >/dev/null </dev/null || complain "on a terminal: status $?"
for label in loading sleeping waking checking; do
  grep -q "$label  *\[########################################\] 8.6 MiB of 8.6 MiB" screen || complain "on a terminal: no whole bar of $label"
done
grep -q 'a  *offload .* whole' screen || complain "on a terminal: no table"

# On a terminal that cannot move its cursor, and where only stdout is one, there is no bar.
TERM=dumb script -qec "$command" screen >/dev/null </dev/null || complain "on a dumb terminal: status $?"
! grep -q '\[##' screen || complain "on a dumb terminal: a bar"
TERM=xterm script -qec "$command 2>err" screen >/dev/null </dev/null || complain "with stderr in a file: status $?"
[ ! -s err ] || complain "with stderr in a file: $(cat err)"

finish
