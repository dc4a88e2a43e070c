#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The programs and commands in doc/cudamalloc.md, as they stand there, with what `make install` puts in place. The CUDA runtime is
# tests/torch/fake_libcudart.c.
#
# From the environment: CC, DZ_SANITIZE.
# shellcheck source=../tool/env.sh
. "${top_srcdir:?}/tests/tool/env.sh"

page=$top_srcdir/doc/cudamalloc.md
root=$top_builddir/tests/installed
tms=$(find "$root" -name 'libdrowse-tms.so.1')
[ -n "$tms" ] || exit 77

program() { # NAME: the block of code behind its comment
  sed -n "/^<!-- $1:/,/^\`\`\`\$/p" "$page" | sed -e '1,/^```c$/d' -e '/^```$/,$d' >"$1"
  [ "$(wc -l <"$1")" -gt 10 ] || complain "cudamalloc.md: $1 was not found"
}

command_with() { # TEXT: the line that begins with it
  sed -n "s/^    \\($1.*\\)\$/\\1/p" "$page"
}

runs() { # SAYS COMMAND
  try eval "$2"
  if [ "$status" != 0 ] || [ "$(cat out)" != "$1" ] || [ -s err ]; then
    complain "wanted: $1"
    show
  fi
}

# The commands say cc: here it is the compiler of this build.
cc() {
  # shellcheck disable=SC2086 # words
  ${CC:-gcc} ${DZ_SANITIZE:-} -Wall -Wextra -Werror "$@"
}
PKG_CONFIG_SYSROOT_DIR=$root
PKG_CONFIG_LIBDIR=$(find "$root" -name pkgconfig)
LD_LIBRARY_PATH=${tms%/*}:$work${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
LIBRARY_PATH=$work
export PKG_CONFIG_SYSROOT_DIR PKG_CONFIG_LIBDIR LD_LIBRARY_PATH LIBRARY_PATH

# It exits without closing its heaps, which still have a thread that is over.
TSAN_OPTIONS="${TSAN_OPTIONS:-} report_thread_leaks=0"
export TSAN_OPTIONS
# The server in small: the same answer twice, and its memory was another's meanwhile.
random_file file 3000000
try env DROWSE_DEVICE=host:64MiB "$top_builddir/examples/buffers/buffers" file
if [ "$status" != 0 ] || ! grep -q '^answers \([0-9a-f]*\) and \1; asleep 1[0-9] MiB more were free$' out; then
  complain "examples/buffers"
  show
fi
refused_as() { # TEXT VALUE-OF-DROWSE_DEVICE ARGUMENT...
  text=$1 device=$2
  shift 2
  try env DROWSE_DEVICE="$device" "$top_builddir/examples/buffers/buffers" "$@"
  if [ "$status" != 1 ] || [ -s out ] || ! grep -q "^buffers: $text" err; then
    complain "wanted: status 1 and $text"
    show
  fi
}
refused_as 'give a file' host:64MiB
refused_as 'loading: .*host:nonsense' host:nonsense file
refused_as 'loading: .*weights' host:2MiB file
refused_as 'making the cache: .*context' host:8MiB file

# A sanitizer's library must come first, and the preloaded one would.
if [ -z "${DZ_SANITIZE:-}" ]; then
  try cc -shared -fPIC -Wl,-soname,libcudart.so.13 -o libcudart.so.13 "$top_srcdir/tests/torch/fake_libcudart.c"
  [ "$status" = 0 ] || show
  ln -s libcudart.so.13 libcudart.so
  program nap.c
  runs '' "$(command_with 'cc nap')"
  DROWSE_DEVICE=host:128MiB
  export DROWSE_DEVICE
  runs slept "$(command_with 'LD_PRELOAD')"
  runs slept ./nap # the runtime's memory does not, and the program runs all the same
fi

# Links in place of the files that an installed package has beside it.
mkdir -p site/torch_memory_saver
: >site/torch_memory_saver/__init__.py
libraries='preload_cu12.abi3 torch_cu12.abi3'
for name in $libraries; do echo its own >"site/torch_memory_saver_hook_mode_$name.so"; done
need_python
PYTHONPATH=$work/site
export PYTHONPATH
sed -n '/^    package=/,/^    done/s/^    //p' "$page" >links.sh
[ "$(wc -l <links.sh)" = 5 ] || complain "cudamalloc.md: the links' commands were not found"
try sh links.sh
[ "$status" = 0 ] || show
for name in $libraries; do
  link=site/torch_memory_saver_hook_mode_$name.so
  [ "$(readlink -f "$link")" = "$(readlink -f "$tms")" ] || complain "$link: $(readlink "$link")"
  [ "$(cat "$link.own")" = 'its own' ] || complain "$link.own is not what was there"
done

finish
