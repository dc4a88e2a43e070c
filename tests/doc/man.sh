#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The manual pages: all functions have one, which says what their header says and is installed under the function's own name;
# their synopses are the headers', and their examples do what they say.
# shellcheck source=installed.sh
. "${top_srcdir:?}/tests/tool/installed.sh"
need_python
# Those of libraries that were not built are left out.
libraries=$(find "${library%/*}" -name 'libdrowse*.so' -o -name 'libdrowse*.a' | sed 's|.*/\(.*\)\.[a-z]*$|\1|' | sort -u)

mkdir examples
# shellcheck disable=SC2086 # words
python3 "$top_srcdir/tests/doc/manual.py" "$top_srcdir" examples $libraries >out || complain "$(cat out)"

# shellcheck disable=SC2046 # words
cc -std=gnu11 -fsyntax-only $(pkg-config --cflags drowse) -I "$top_srcdir/src" examples/synopsis.c 2>err ||
  complain "the synopses: $(cat err)"

# Installed: each function's page, or one that leads to it.
man=$(find "$root" -type d -path '*/share/man')
while read -r name; do
  page=$man/man3/$name.3
  target=$(sed -n 's/^\.so \(man3\/.*\)$/\1/p' "$page" 2>/dev/null)
  grep -qs "^\.Nm $name\( ,\)*$" "$man/${target:-man3/$name.3}" || complain "make install: no page of $name under its name"
done <examples/names

# Those of libraries that never close their heaps exit with a thread that is over.
TSAN_OPTIONS="${TSAN_OPTIONS:-} report_thread_leaks=0"
export TSAN_OPTIONS
cp "$top_srcdir/README.md" .
for run in examples/*.run; do
  example=${run%.run}
  if grep -q LD_PRELOAD "$run" && ! can_preload; then continue; fi
  # The program has the name that the commands say, which is the usual one but for one page.
  file=$(sed -n 's/^cc \([a-z]*\.c\) .*/\1/p' "$run")
  [ -z "$file" ] || cp "$example.c" "$file"
  try sh -e "$run"
  if [ "$status" != 0 ]; then
    complain "the example $example"
    show
  elif [ -e "$example.expected" ] && ! cmp -s out "$example.expected"; then
    complain "the example $example does not print what its page says:" "$(diff out "$example.expected")"
  fi
done
[ "$(find examples -name '*.expected' | wc -l)" -ge 20 ] || complain "only these examples were found: $(ls examples)"

finish
