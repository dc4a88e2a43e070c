# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# What the tests of the example share, beside what those of the program do (tests/tool/env.sh): the server on the host device.
# shellcheck source=env.sh
. "${top_srcdir:?}/tests/tool/env.sh"

# shellcheck disable=SC2034 # for the tests
server=$top_builddir/examples/server/server soak=$top_builddir/tests/soak/soak
[ -x "$server" ] || exit 77 # it is not built without libmicrohttpd

pid=
trap '[ -z "$pid" ] || kill -s KILL "$pid"; rm -rf "$work"' EXIT

# serve OPTION...: starts the server and waits until it listens. Its process and port are in $pid and $port.
serve() {
  rm -f listening
  mkfifo listening
  "$server" "$@" >listening 2>server.err &
  pid=$!
  port=
  read -r line <listening && port=${line##*:}
  [ -n "$port" ] || complain "$*: it does not listen: $(cat server.err)"
}

# end_server SIGNAL: it ends by itself when it is told to, with status 0, and has not complained.
end_server() {
  kill -s "$1" "$pid"
  status=0
  wait "$pid" || status=$?
  pid=
  if [ "$status" != 0 ] || [ -s server.err ]; then complain "the server: status $status: $(tail -n 20 server.err)"; fi
}
