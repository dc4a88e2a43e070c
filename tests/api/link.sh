#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A program that touches every function of a library, linked as a user's with the shared library and with the static one. It has
# the version that the package says.
# shellcheck source=../tool/installed.sh
. "${top_srcdir:?}/tests/tool/installed.sh"

# A name that is not there, or no function, does not compile or does not link.
program() { # PACKAGE
  printf '#include <%s.h>\n#include <stdio.h>\n\ntypedef void function(void);\nstatic function *const functions[] = {\n' "$1"
  sed -n 's/^ *\(drowse_[a-z_]*\);$/  (function *)\1,/p' "$top_srcdir/src/$1.map"
  printf '};\n\nint main(void) {\n  size_t count = sizeof functions / sizeof *functions, found = 0;\n'
  printf '  for (size_t i = 0; i < count; i++) found += functions[i] != NULL;\n'
  printf '  printf("%%zu of %%zu, version %%s\\n", found, count, drowse_version());\n  return drowse_heap_close(NULL) != DROWSE_OK;\n}\n'
}

links() { # NAME PACKAGE LIBRARY...
  name=$1 package=$2
  shift 2
  program "$package" >every.c
  wanted=$(grep -c '^ *drowse_[a-z_]*;$' "$top_srcdir/src/$package.map")
  # shellcheck disable=SC2046 # words
  try cc -Wno-cast-function-type $(pkg-config --cflags "$package") every.c "$@" -o "$name"
  [ "$status" = 0 ] || {
    complain "$package, $name: does not link"
    show
    return
  }
  accepted "./$name"
  printed "^$wanted of $wanted, version $(pkg-config --modversion "$package")$"
}

archives= # libdrowse-torch's needs libdrowse's behind it
for package in drowse drowse-torch; do
  shared=${library%/*}/lib$package.so archive=${library%/*}/lib$package.a
  if [ -e "$shared" ]; then
    # shellcheck disable=SC2046
    links shared "$package" $(pkg-config --libs "$package")
    ldd shared | grep -q "=> $root/.*lib$package\.so\.1 " ||
      complain "$package: does not load the library that is installed: $(ldd shared)"
  fi
  if [ -e "$archive" ]; then
    archives="$archive $archives"
    # shellcheck disable=SC2046,SC2086
    links static "$package" $archives $(pkg-config --libs-only-l --static "$package" | sed 's/-ldrowse[a-z-]*//g')
    if ldd static | grep libdrowse; then complain "$package, static: loads the library"; fi
  fi
done

finish
