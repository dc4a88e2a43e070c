# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# What tests of what a user gets share: programs are compiled and linked as a user's, against what `make install` puts in place.
#
# From the environment: CC, DZ_SANITIZE, and what env.sh wants.
# shellcheck source=env.sh
. "${top_srcdir:?}/tests/tool/env.sh"

root=$top_builddir/tests/installed
pc=$(find "$root" -name drowse.pc)
library=$(find "$root" -name 'libdrowse.so' -o -name libdrowse.a | head -n 1)
if [ -z "$pc" ] || [ -z "$library" ]; then
  echo "FAILED: make install: no drowse.pc, or no library"
  exit 1
fi

# Pages say cc: here it is the compiler of this build.
mkdir bin
cat >bin/cc <<END
#!/bin/sh
exec ${CC:-gcc} ${DZ_SANITIZE:-} -Wall -Wextra -Werror "\$@"
END
chmod +x bin/cc
installed_bin=$(dirname "$(find "$root" -type f -name drowse -perm -u+x)")
PATH=$work/bin:$installed_bin:$PATH
PKG_CONFIG_SYSROOT_DIR=$root
PKG_CONFIG_LIBDIR=${pc%/*}
LD_LIBRARY_PATH=${library%/*}${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
DROWSE_DEVICE=host:1GiB
export PATH PKG_CONFIG_SYSROOT_DIR PKG_CONFIG_LIBDIR LD_LIBRARY_PATH DROWSE_DEVICE

# A sanitizer's library has to come before one that is preloaded; libdrowse-jump is not for every machine.
can_preload() {
  [ -z "${DZ_SANITIZE:-}" ] && [ -n "$(find "$root" -name 'libdrowse-jump.so.1')" ]
}
