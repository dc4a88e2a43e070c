#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# torch_memory_saver's own Python package on libdrowse-tms, in both of its modes, on a GPU with PyTorch: tests/gpu/tms.sh BUILD,
# the folder that drowse was built in. What is installed stays as it is: the package is copied. Exits with 77 where there is none.
set -euo pipefail
build=$(cd "${1:?the folder that drowse was built in}" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

package=$(python3 -c 'import importlib.util as u
spec = u.find_spec("torch_memory_saver")
print(spec.submodule_search_locations[0] if spec and u.find_spec("torch") else "")')
[ -n "$package" ] || {
  echo "skipped: torch or torch_memory_saver is not there"
  exit 77
}
cp -r "$package" "$work/torch_memory_saver"
for name in preload preload_cu12 preload_cu13 torch torch_cu12 torch_cu13; do
  ln -sf "$build/.libs/libdrowse-tms.so.1" "$work/torch_memory_saver/torch_memory_saver_hook_mode_$name.drowse.so"
done

# A second pause, and a second resume, end the process with the package's own library.
cat >"$work/cycle.py" <<'END_OF_PYTHON'
import sys

import torch
from torch_memory_saver import torch_memory_saver as saver

saver.hook_mode = sys.argv[1]
expected = torch.arange(5_000_000)
with saver.region(tag="kept", enable_cpu_backup=True):
    kept = expected.cuda()
with saver.region(tag="lost"):
    lost = torch.zeros(5_000_000, device="cuda")
torch.cuda.synchronize()
awake = torch.cuda.mem_get_info()[0]
for _ in range(2):
    saver.pause("kept")
    saver.pause()
    assert torch.cuda.mem_get_info()[0] >= awake + kept.nbytes + lost.nbytes
    assert torch.equal(saver.get_cpu_backup(kept), expected)
    saver.resume("kept")
    saver.resume()
    assert torch.equal(kept.cpu(), expected)
    lost.fill_(1)
    assert lost.sum().item() == lost.numel()
maps = open("/proc/self/maps").read()
assert "libdrowse-tms" in maps and "libdrowse.so" in maps
print("ok", sys.argv[1])
END_OF_PYTHON

export PYTHONPATH=$work${PYTHONPATH:+:$PYTHONPATH}
python3 "$work/cycle.py" torch
LD_PRELOAD=$work/torch_memory_saver/torch_memory_saver_hook_mode_preload_cu13.drowse.so python3 "$work/cycle.py" preload
