#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A soak of the example server: load, sleeps, wakes, clients that break off, and a tenant that takes its memory.
#
# From the environment: DZ_SANITIZE; SOAK, more options of the soak. ./dev soak has a long one.
# shellcheck source=../soak/server.sh
. "${top_srcdir:?}/tests/soak/server.sh"

# A file of 20 MB on a device of 32 MiB, of which the tenant wants 24.
random_file file 20000001
tenant=25165824
set -- --device=host:32MiB --tenant --patience=50 --deadline=60000

# A sanitizer keeps memory that was freed.
growth=32
[ -z "${DZ_SANITIZE:-}" ] || growth=0

soak() { # OPTION...
  # shellcheck disable=SC2086 # words
  "$soak" --pid="$pid" --port="$port" --file=file --tenant="$tenant" --growth="$growth" --stops "$@" ${SOAK:-} ||
    complain "the soak: $*"
}

# Told to sleep; the whole backup in host memory.
serve "$@" --idle=0 file
soak --requests=400
end_server TERM

# By itself; what does not fit in 8 MiB of host memory in a file.
serve "$@" --idle=2 --backup-limit=8MiB --directory=. file
soak --requests=400 --naps
end_server INT

# A sealed backup, which is kept: a sleep takes the memory away at once, and finds who uses it without a hold.
serve "$@" --idle=0 --seal file
soak --requests=800
end_server TERM

# With a driver that fails now and then.
fake=$top_builddir/tests/driver/fake12
if [ -e "$fake/libcuda.so.1" ]; then
  DROWSE_FAKE_DEVICES=32MiB DROWSE_FAKE_FAULTS=$work/faults LD_LIBRARY_PATH=$fake${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  export DROWSE_FAKE_DEVICES DROWSE_FAKE_FAULTS LD_LIBRARY_PATH
  serve "$@" --device=cuda:0 --idle=0 file
  soak --requests=400 --faults=faults
  end_server TERM
fi

finish
