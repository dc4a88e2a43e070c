# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# What the tests of the program share. A test sources this, makes its checks, and ends with finish.
#
# From the environment: top_builddir, top_srcdir (either may be relative to the directory that the test starts in).

set -u
unset DROWSE_DEVICE DROWSE_SETTINGS MEDDLE
top_builddir=$(cd "${top_builddir:?}" && pwd)
top_srcdir=$(cd "${top_srcdir:?}" && pwd)
# shellcheck disable=SC2034 # for the tests
drowse=$top_builddir/drowse meddled=$top_builddir/tests/tool/meddled
failures=0

work=$(mktemp -d) || exit 99
trap 'rm -rf "$work"' EXIT
trap 'exit 99' HUP INT TERM
cd "$work" || exit 99

complain() {
  echo "FAILED: $*"
  failures=$((failures + 1))
}

# Runs a command; its status is in $status, its output in ./out and ./err.
try() {
  tried=$*
  status=0
  "$@" >out 2>err </dev/null || status=$?
}

show() {
  echo "  it was:  $tried"
  echo "  status:  $status"
  sed 's/^/  stdout:  /' out
  sed 's/^/  stderr:  /' err
}

# refused STATUS TEXT COMMAND...: exits with STATUS, prints nothing, and says one sentence with the basic regular expression TEXT in it.
refused() {
  wanted=$1 text=$2
  shift 2
  try "$@"
  if [ "$status" != "$wanted" ] || [ -s out ] || [ "$(wc -l <err)" != 1 ] || ! LC_ALL=C grep -q "^drowse: .*$text" err; then
    complain "wanted: status $wanted, nothing on stdout, one line on stderr with: $text"
    show
  fi
}

# accepted COMMAND...: exits with 0 and says nothing on stderr.
accepted() {
  try "$@"
  if [ "$status" != 0 ] || [ -s err ]; then
    complain "wanted: status 0, nothing on stderr"
    show
  fi
}

# printed TEXT: the last command's stdout has a line with the basic regular expression TEXT.
printed() {
  if ! grep -q -e "$1" out; then
    complain "wanted on stdout: $1"
    show
  fi
}

# json_true EXPRESSION: the last command's stdout is JSON, of which the Python expression on `it` is true.
json_true() {
  if ! python3 -c 'import json, sys
it = json.load(open("out"))
sys.exit(0 if eval(sys.argv[1]) else 1)' "$1"; then
    complain "not true of the JSON: $1"
    show
  fi
}

need_python() {
  command -v python3 >/dev/null || exit 77
}

# random_file NAME BYTES
random_file() {
  head -c "$2" /dev/urandom >"$1"
}

# The last command of a test: its status is the test's.
finish() {
  [ "$failures" = 0 ] || echo "$failures failed"
  [ "$failures" = 0 ]
}
