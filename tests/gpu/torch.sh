#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# The tests of drowse.torch and drowse.vllm on a GPU, with PyTorch and pytest:
#
#   torch.sh [FOLDER] [PYTEST'S ARGUMENTS]     FOLDER has libdrowse.so.1 and libdrowse-torch.so.1; default: where they are built
set -eu
here=$(cd "$(dirname "$0")" && pwd)
DROWSE_LIBRARY=${1:-$here/../../.build/release/.libs}
[ "$#" = 0 ] || shift
PYTHONPATH=$here/../../python${PYTHONPATH:+:$PYTHONPATH}
export DROWSE_LIBRARY PYTHONPATH
exec python3 -m pytest -q -p no:cacheprovider -rfEs "$here/torch" "$@"
