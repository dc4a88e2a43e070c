# SPDX-License-Identifier: Apache-2.0
# Completion of drowse for bash, with the functions of bash-completion.
# shellcheck shell=bash

_drowse_devices() {
  local gpu number=0
  echo auto host host:
  for gpu in /proc/driver/nvidia/gpus/*; do
    [ ! -e "$gpu" ] || echo "cuda:$((number++))"
  done
}

# readline replaces what is behind the last of its word breaks, so that is what it has to get.
_drowse_trim() { # WORD
  local char word=$1 stem
  for char in = :; do
    if [[ $COMP_WORDBREAKS != *$char* || $word != *$char* ]]; then continue; fi
    stem=${word%"${word##*"$char"}"}
    word=${word#"$stem"}
    COMPREPLY=("${COMPREPLY[@]#"$stem"}")
  done
}

_drowse_words() { # PREFIX WORDS WORD
  mapfile -t COMPREPLY < <(compgen -P "$1" -W "$2" -- "${3#"$1"}")
  _drowse_trim "$3"
}

_drowse() {
  local cur prev words cword options='--device= --json --help'
  _get_comp_words_by_ref -n =: cur prev words cword || return
  if [ "$cword" = 1 ]; then
    _drowse_words '' 'info cycle --help --version' "$cur"
    return
  fi
  [ "${words[1]}" != cycle ] || options="$options --rounds="
  case $prev in
    -d | --device)
      _drowse_words '' "$(_drowse_devices)" "$cur"
      return
      ;;
    -n | --rounds) return ;;
  esac
  case $cur in
    --device=*) _drowse_words --device= "$(_drowse_devices)" "$cur" ;;
    -*)
      _drowse_words '' "$options" "$cur"
      if [[ ${COMPREPLY[*]} == *= ]]; then compopt -o nospace; fi
      ;;
    *=offload:* | *=keep:*)
      [ "${words[1]}" = cycle ] || return
      compopt -o filenames
      mapfile -t COMPREPLY < <(compgen -P "${cur%%:*}:" -f -- "${cur#*:}")
      _drowse_trim "$cur"
      ;;
    *=*)
      [ "${words[1]}" = cycle ] || return
      compopt -o nospace
      _drowse_words "${cur%%=*}=" 'offload: discard: keep:' "$cur"
      ;;
  esac
}

complete -F _drowse drowse
