#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# README.md, CONTRIBUTING.md and the guides in doc/: what they say to paste works as it stands there, from top to bottom, in an
# empty folder.
#
# A comment in front of a fenced block says what it is: <!-- file: NAME -->, <!-- run --> or, behind that, <!-- prints -->. What is
# to be run with <!-- run: source --> builds drowse, which one build of those that ./dev check makes does (DROWSE_SWEEP), where all
# is there that it needs.
# shellcheck source=../tool/installed.sh
. "${top_srcdir:?}/tests/tool/installed.sh"
SOURCE=$top_srcdir
export SOURCE

# Into the current folder: the files, 1.run, 1.prints, 2.run ...
take_apart() { # GUIDE
  awk '
    function complain(text) { print FILENAME ":" FNR ": " text; failed = 1 }
    /^<!-- (file: .*|run|run: source|prints) -->$/ {
      if (to != "") complain("two marks in a row")
      if ($2 == "file:") to = $3
      else if ($2 == "prints") to = number ".prints"
      else to = ++number ".run" ($3 == "source" ? ".source" : "")
      next
    }
    /^```/ && inside { inside = 0; close(to); to = ""; next }
    /^```/ && to != "" { inside = 1; printf "" > to; next }
    inside { print > to; next }
    /./ && to != "" { complain("a mark without a fenced block behind it"); to = "" }
    END { exit failed }' "$1"
}

own() { # COMMAND...: with the machine's own libraries
  env -u PKG_CONFIG_SYSROOT_DIR -u PKG_CONFIG_LIBDIR -u LD_LIBRARY_PATH "$@"
}

builds=no
if [ "${DROWSE_SWEEP:-yes}" = yes ] && own pkg-config --exists check; then builds=yes; fi

for path in "$top_srcdir"/README.md "$top_srcdir"/CONTRIBUTING.md "$top_srcdir"/doc/*.md; do
  guide=$(basename "$path" .md)
  mkdir "$work/$guide"
  cd "$work/$guide" || exit 99
  take_apart "$path" >marks || complain "$(cat marks)"
  number=1
  while run=$(ls "$number".run* 2>/dev/null); do
    status=0
    case $run in
      *.source) [ $builds = no ] || try own sh -e "$run" ;;
      *) try sh -e "$run" ;;
    esac
    if [ "$status" != 0 ]; then
      complain "$guide.md, block $number"
      show
    elif [ -e "$number.prints" ] && ! cmp -s out "$number.prints"; then
      complain "$guide.md, block $number does not print what is said there:" "$(diff out "$number.prints")"
    fi
    number=$((number + 1))
  done
  case $guide in
    README | CONTRIBUTING | servers | operators | packaging) [ "$number" -gt 1 ] || complain "$guide.md has nothing to run" ;;
  esac
done
cd "$work" || exit 99

finish
