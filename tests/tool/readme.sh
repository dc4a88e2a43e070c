#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The program in the README, as it stands there: compiled with the README's own command against what `make install` puts in place.
#
# From the environment: CC, DZ_SANITIZE.
# shellcheck source=env.sh
. "${top_srcdir:?}/tests/tool/env.sh"

sed -n '/^<!-- app\.c/,/^```$/p' "$top_srcdir/README.md" | sed -e '1,/^```c$/d' -e '/^```$/,$d' >app.c
command=$(sed -n 's/^    \(cc app\.c .*\)$/\1/p' "$top_srcdir/README.md")
[ "$(wc -l <app.c)" -gt 10 ] || complain "README.md: no program was found"
[ -n "$command" ] || complain "README.md: no command to compile it was found"

root=$top_builddir/tests/installed
pc=$(find "$root" -name drowse.pc)
library=$(find "$root" -name 'libdrowse.so' -o -name libdrowse.a | head -n 1)
if [ -z "$pc" ] || [ -z "$library" ]; then
  echo "FAILED: make install: no drowse.pc, or no library"
  exit 1
fi

# The command says cc: here it is the compiler of this build.
cc() {
  # shellcheck disable=SC2086 # words
  ${CC:-gcc} ${DZ_SANITIZE:-} -Wall -Wextra -Werror "$@"
}
PKG_CONFIG_SYSROOT_DIR=$root
PKG_CONFIG_LIBDIR=${pc%/*}
LD_LIBRARY_PATH=${library%/*}${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export PKG_CONFIG_SYSROOT_DIR PKG_CONFIG_LIBDIR LD_LIBRARY_PATH
if ! eval "$command" >out 2>err; then
  complain "the README's program: $(cat out err)"
elif [ "$(cat out)" != 'slept well' ]; then
  complain "the README's program says: $(cat out err)"
fi

# The installed program runs, and links the installed library.
accepted "$(find "$root" -type f -name drowse -perm -u+x)" info -d host

finish
