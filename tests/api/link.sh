#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A program that touches every function of the library, linked as a user's with the shared library and with the static one. It has
# the version that the package says.
# shellcheck source=../tool/installed.sh
. "${top_srcdir:?}/tests/tool/installed.sh"

# A name that is not there, or no function, does not compile or does not link.
{
  printf '#include <drowse.h>\n#include <stdio.h>\n\ntypedef void function(void);\nstatic function *const functions[] = {\n'
  sed -n 's/^ *\(drowse_[a-z_]*\);$/  (function *)\1,/p' "$top_srcdir/src/drowse.map"
  printf '};\n\nint main(void) {\n  size_t count = sizeof functions / sizeof *functions, found = 0;\n'
  printf '  for (size_t i = 0; i < count; i++) found += functions[i] != NULL;\n'
  printf '  printf("%%zu of %%zu, version %%s\\n", found, count, drowse_version());\n  return drowse_heap_close(NULL) != DROWSE_OK;\n}\n'
} >every.c
wanted=$(grep -c '^ *drowse_[a-z_]*;$' "$top_srcdir/src/drowse.map")

links() { # NAME LIBRARY...
  name=$1
  shift
  # shellcheck disable=SC2046 # words
  try cc -Wno-cast-function-type $(pkg-config --cflags drowse) every.c "$@" -o "$name"
  [ "$status" = 0 ] || {
    complain "$name: does not link"
    show
    return
  }
  accepted "./$name"
  printed "^$wanted of $wanted, version $(pkg-config --modversion drowse)$"
}

if [ -e "${library%/*}/libdrowse.so" ]; then
  # shellcheck disable=SC2046
  links shared $(pkg-config --libs drowse)
  ldd shared | grep -q "=> $root/.*libdrowse\.so\.1 " || complain "shared: does not load the library that is installed: $(ldd shared)"
fi
if [ -e "${library%/*}/libdrowse.a" ]; then
  # shellcheck disable=SC2046
  links static "${library%/*}/libdrowse.a" $(pkg-config --libs-only-l --static drowse | sed 's/-ldrowse//')
  if ldd static | grep libdrowse; then complain "static: loads the library"; fi
fi

finish
