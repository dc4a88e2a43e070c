#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The program in the README, as it stands there, compiled with the README's own command.
# shellcheck source=installed.sh
. "${top_srcdir:?}/tests/tool/installed.sh"

sed -n '/^<!-- app\.c/,/^```$/p' "$top_srcdir/README.md" | sed -e '1,/^```c$/d' -e '/^```$/,$d' >app.c
command=$(sed -n 's/^    \(cc app\.c .*\)$/\1/p' "$top_srcdir/README.md")
[ "$(wc -l <app.c)" -gt 10 ] || complain "README.md: no program was found"
[ -n "$command" ] || complain "README.md: no command to compile it was found"

if ! eval "$command" >out 2>err; then
  complain "the README's program: $(cat out err)"
elif [ "$(cat out)" != 'slept well' ]; then
  complain "the README's program says: $(cat out err)"
fi

# The installed program runs, and links the installed library.
accepted "$installed_bin/drowse" info -d host

finish
