#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Has spin check the model beside this script in several worlds, each exhaustively, and that it finds the faults that the model
# can be broken with. 77: there is no spin, or no compiler.
#
#   check.sh        the compiler is $CC, else cc
set -eu
LC_ALL=C
export LC_ALL
model=$(cd "$(dirname "$0")" && pwd)/scopes.pml
cc=${CC:-cc}
if ! command -v spin >/dev/null || ! command -v "${cc%% *}" >/dev/null; then
  echo 'no spin, or no C compiler: the model is not checked'
  exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# The search of one world, in a directory of its own; pan's output is the directory's log. 0: pan ran to its end.
search() { # DIRECTORY FLAGS...
  mkdir "$work/$1"
  (
    cd "$work/$1" && shift
    cp "$model" scopes.pml
    spin -a "$@" scopes.pml
    # shellcheck disable=SC2086
    $cc -O2 -w -DSAFETY -DCOLLAPSE -DNOBOUNDCHECK -DNOFAIR -DMEMLIM=1000 -o pan pan.c
    ./pan -m2000000 -w24
  ) >"$work/$1/log" 2>&1
}

# The whole of it was searched, and nothing found.
is_clean() { # LOG
  grep -q 'errors: 0$' "$1" && grep -q '^Full statespace search' "$1" &&
    ! grep -Eq 'max search depth too small|out of memory|MEMLIM|Search not completed|aborted' "$1"
}

report() { # DIRECTORY RESULT TITLE
  states=$(sed -n 's/^ *\([0-9]*\) states, stored.*/\1/p' "$work/$1/log")
  depth=$(sed -n 's/.*depth reached \([0-9]*\).*/\1/p' "$work/$1/log")
  errors=$(sed -n 's/.*errors: \([0-9]*\).*/\1/p' "$work/$1/log")
  seconds=$(sed -n 's/.*elapsed time \([0-9.e+-]*\) seconds.*/\1/p' "$work/$1/log")
  printf '%-6s %9s %9s %6s %8s  %s\n' "$2" "${states:--}" "${depth:--}" "${errors:--}" "${seconds:--}" "$3"
}

# One that must be clean.
world() { # DIRECTORY TITLE FLAGS...
  name=$1 title=$2
  shift 2
  if search "$name" "$@" && is_clean "$work/$name/log"; then
    report "$name" ok "$title"
  else
    report "$name" FAILED "$title"
    tail -n 30 "$work/$name/log" >&2
    return 1
  fi
}

# One that is broken: pan must say what does not hold.
fault() { # BREAK FLAGS...
  name=$1
  shift
  search "$name" "-D$name" "$@" || :
  what=$(sed -n 's/^pan:1: \(assertion violated\|invalid end state\).*/\1/p' "$work/$name/log")
  if [ -n "$what" ]; then
    report "$name" found "$name: $what"
  else
    report "$name" MISSED "$name"
    tail -n 30 "$work/$name/log" >&2
    return 1
  fi
}

# CALLS bounds the number of calls: such a world is searched exhaustively, but is not all there is.
worlds() {
  all=0
  world nested 'scopes two deep' || all=1
  world usual 'scopes of either kind; hooks fail' -DDEPTH=1 -DUSUAL -DFAIL || all=1
  world hooks 'hooks fail, and enter scopes' -DDEPTH=1 -DFAIL -DHOOK || all=1
  world stamp 'a stamp, foreign changes; hooks fail' -DDEPTH=1 -DFAIL -DSTAMP || all=1
  world jump 'jumps' -DDEPTH=1 -DJUMP || all=1
  world jumpfail 'partly (2 calls a thread): jumps; hooks fail, and enter scopes' \
    -DDEPTH=1 -DJUMP -DFAIL -DHOOK -DCALLS=2 || all=1
  world attach 'partly (2 calls a thread): attach, detach; hooks fail' -DDEPTH=1 -DATTACH=2 -DFAIL -DCALLS=2 || all=1
  return $all
}

forks() {
  all=0
  world fork 'a fork, with handlers or bare' -DDEPTH=1 -DFORK=1 || all=1
  world forkfail 'partly (1 call a thread, 2 of the one that forks): a fork; hooks fail' \
    -DDEPTH=1 -DFORK=1 -DFAIL -DCALLS=1 || all=1
  world forkattach 'partly (the same calls): a fork; attach, detach' -DDEPTH=1 -DFORK=1 -DATTACH=2 -DCALLS=1 || all=1
  world forkstamp 'partly (the same calls): a fork; a stamp, foreign changes' -DDEPTH=1 -DFORK=1 -DSTAMP -DCALLS=1 || all=1
  world forkonly 'partly (the same calls): a fork, the framework is the parent'\''s' \
    -DDEPTH=1 -DFORK=1 -DONLY -DATTACH=2 -DCALLS=1 || all=1
  return $all
}

faults() {
  all=0
  fault BREAK_BUSY -DDEPTH=1 || all=1                    # a second thread counts 1 to 2 while the first one's hook runs
  fault BREAK_HOOK_COUNTS -DDEPTH=1 -DHOOK || all=1      # a hook's scope has counted the stack, and that is not looked at
  fault BREAK_DEBT -DDEPTH=1 -DFAIL || all=1             # the debt is dropped
  fault BREAK_FOREIGN -DDEPTH=1 -DSTAMP -DFAIL || all=1  # what somebody else has changed is taken for what we did
  fault BREAK_JUMP -DDEPTH=1 -DJUMP || all=1             # that a stack is still counted is not looked at
  # attaching looks at the frames before it stores the word
  fault BREAK_ATTACH_FENCE -DDEPTH=1 -DATTACH=2 -DFAIL -DCALLS=2 || all=1
  fault BREAK_THREAD_FENCE -DDEPTH=1 -DATTACH=2 -DFAIL -DCALLS=2 || all=1 # a thread loads the word before it stores its frame
  fault BREAK_NUMBER -DDEPTH=1 -DATTACH=2 -DFAIL -DCALLS=2 || all=1       # attachments have no numbers
  # who failed to enter is not busy any more when his frame goes
  fault BREAK_TAKE_BACK -DDEPTH=1 -DATTACH=2 -DFAIL -DCALLS=2 || all=1
  fault BREAK_RECOUNT -DDEPTH=1 -DFORK=1 || all=1        # the child does not count anew
  fault BREAK_CHILD_BUSY -DDEPTH=1 -DFORK=1 || all=1     # the child does not care that a hook was running
  fault BREAK_PEND -DDEPTH=1 -DFORK=1 || all=1           # its next call does not put the flag right
  fault BREAK_NOTICE -DDEPTH=1 -DFORK=1 || all=1         # a bare fork in the middle of a call is not noticed before the next
  fault BREAK_OURS -DDEPTH=1 -DFORK=1 || all=1           # that the flag is ours is noted behind the change
  fault BREAK_STAMP -DDEPTH=1 -DFORK=1 -DSTAMP -DCALLS=1 || all=1 # that there is a stamp is noted before the stamp
  # a framework that is the parent's only is touched in the child
  fault BREAK_ONLY -DDEPTH=1 -DFORK=1 -DONLY -DATTACH=2 -DCALLS=1 || all=1
  return $all
}

printf '%-6s %9s %9s %6s %8s  %s\n' result states depth errors seconds 'world, or fault'
(
  all=0
  worlds || all=1
  faults || exit 1
  exit $all
) &
other=$!
failed=0
forks || failed=1
wait $other || failed=1
exit $failed
