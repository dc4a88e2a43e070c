#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Completion, as it is installed, in each shell that is there: bash and zsh with the tab key on a terminal, fish by asking it.
# shellcheck source=installed.sh
. "${top_srcdir:?}/tests/tool/installed.sh"
need_python

mkdir folder
: >README.md
: >'other file'
share=$(dirname "$(find "$root" -type d -path '*/share/man')")
command='drowse() { printf "<%s>" "$@"; echo; }; echo is ready'
tested=

completes() { # SETUP SHELL...; cases on stdin
  tested="$tested $2"
  if ! python3 "$top_srcdir/tests/tool/completing.py" "$@" >out 2>err; then complain "$2: $(cat out err)"; fi
}

cases() {
  cat <<'END'
drowse cy	<cycle>
drowse --ver	<--version>
drowse info --js	<info><--json>
drowse info -d au	<info><-d><auto>
drowse info --device=au	<info><--device=auto>
drowse cycle w=o	<cycle><w=offload:>
drowse cycle w=offload:REA	<cycle><w=offload:README.md>
drowse cycle -n 2 a=discard:8MiB w=keep:oth	<cycle><-n><2><a=discard:8MiB><w=keep:other file>
drowse info w=o	<info><w=o>
END
}

# What is a suffix of its own in zsh, which takes it away when the line is entered.
suffixes() {
  cat <<'END'
drowse cycle --ro	<cycle><--rounds=>
drowse cycle w=keep:fol	<cycle><w=keep:folder/>
END
}

helpers=$(pkg-config --variable=datadir bash-completion 2>/dev/null)/bash-completion/bash_completion
[ -e "$helpers" ] || helpers=/usr/share/bash-completion/bash_completion
if [ -e "$helpers" ]; then
  printf '. %s\n. %s\n%s\n' "$helpers" "$share/bash-completion/completions/drowse" "$command" >setup
  { cases && suffixes; } | completes ./setup bash --noprofile --norc -i
fi

if command -v zsh >/dev/null; then
  printf 'fpath+=(%s)\nautoload -Uz compinit\ncompinit -u -D\n%s\n' "$share/zsh/site-functions" "$command" >setup
  cases | completes ./setup zsh -f -i
fi

if command -v fish >/dev/null; then
  tested="$tested fish"
  while IFS='|' read -r line wanted; do
    got=$(fish --no-config -c "source $share/fish/vendor_completions.d/drowse.fish; complete -C '$line'" | cut -f 1 | tr '\n' ' ')
    [ "$got" = "$wanted " ] || complain "fish: \"$line\" becomes \"$got\", not \"$wanted \""
  done <<END
drowse |cycle info
drowse info --js|--json
drowse cycle --ro|--rounds
drowse cycle w=|w=discard: w=keep: w=offload:
drowse cycle w=offload:REA|w=offload:README.md
drowse cycle w=keep:fol|w=keep:folder/
END
fi

[ -n "$tested" ] || exit 77
finish
