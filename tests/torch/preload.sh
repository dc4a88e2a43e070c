#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# libdrowse-tms preloaded into a program that uses the CUDA runtime: linked with it, and in a library that alone has it loaded.
# The runtime is a fake one, over the host device; with CUDART=/usr/local/cuda/lib64 it is the real one, on a GPU.
#
# From the environment: top_srcdir, top_builddir, CC, DZ_SANITIZE.
# shellcheck source=../tool/env.sh
. "${top_srcdir:?}/tests/tool/env.sh"

tms=$top_builddir/.libs/libdrowse-tms.so
# A sanitizer's library must come first, and the preloaded one would.
if [ ! -e "$tms" ] || [ -n "${DZ_SANITIZE:-}" ]; then exit 77; fi

build() { # OUTPUT ARGUMENT...
  output=$1
  shift
  try "${CC:-gcc}" -std=gnu11 -Wall -Wextra -Werror -o "$output" "$@"
  [ "$status" = 0 ] || {
    complain "$output does not compile"
    show
    finish
    exit
  }
}

if [ -z "${CUDART:-}" ]; then
  # Symbols have versions, as those of the real one.
  printf 'libcudart.so.13 { global: *; };\n' >fake.map
  build libcudart.so.13 -shared -fPIC -Wl,-soname,libcudart.so.13 -Wl,--version-script=fake.map \
    "$top_srcdir/tests/torch/fake_libcudart.c"
  ln -s libcudart.so.13 libcudart.so
  CUDART=$work
  DROWSE_DEVICE=host:64MiB
  export DROWSE_DEVICE
fi
build linked "$top_srcdir/tests/torch/preloaded.c" -L "$CUDART" -Wl,-rpath,"$CUDART" -lcudart
build plugin.so -shared -fPIC "$top_srcdir/tests/torch/preloaded.c" -L "$CUDART" -Wl,-rpath,"$CUDART" -lcudart
cat >host.c <<'C'
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
int main(int argc, char **argv) {
  int (*plugin_main)(int, char **) = NULL;
  void *plugin = dlopen("./plugin.so", RTLD_NOW | RTLD_LOCAL), *found;
  if (plugin == NULL) return puts(dlerror()), 2;
  found = dlsym(plugin, "main");
  memcpy(&plugin_main, &found, sizeof found);
  return plugin_main(argc, argv);
}
C
build loaded host.c

preloaded() { # VARIABLE=VALUE... COMMAND ARGUMENT
  accepted env LD_PRELOAD="$tms" "$@"
}

preloaded ./linked set
preloaded ./loaded set
for program in ./linked ./loaded; do
  preloaded TMS_INIT_ENABLE=1 TMS_INIT_ENABLE_CPU_BACKUP=1 "$program" init
done

# Without it the same program knows that it is not there.
try ./linked set
[ "$status" = 3 ] || {
  complain "not preloaded, and not noticed"
  show
}

# As torch_memory_saver's package finds its library: by a link of another name.
ln -s "$tms" torch_memory_saver_hook_mode_preload_cu13.drowse.so
accepted env LD_PRELOAD=./torch_memory_saver_hook_mode_preload_cu13.drowse.so ./linked set

finish
