# SPDX-License-Identifier: Apache-2.0
"""What the tests share. Nothing here uses the device when it is imported."""

import os
import subprocess
import sys

import torch

import drowse.torch
from drowse.torch import use_memory_pool

MIB, GIB = 1 << 20, 1 << 30
CUDA = "cuda"


def pattern(size, seed=0):
    """A tensor of so many bytes that differ from place to place."""
    return (torch.arange(size // 4, device=CUDA, dtype=torch.int32) * 2654435 + seed).view(torch.uint8)


def same(tensor, seed=0):
    """Whether it holds that pattern, looked at in pieces: there may not be memory for two of it."""
    words, step = tensor.view(torch.int32), 16 * MIB
    for at in range(0, words.numel(), step):
        part = words[at : at + step]
        wanted = torch.arange(at, at + part.numel(), device=CUDA, dtype=torch.int32) * 2654435 + seed
        if not torch.equal(part, wanted):
            return False
    return True


def tag_of(tensor):
    """The tag of a tensor's memory; None: it is not drowse's."""
    try:
        return drowse.torch.heap().block(tensor.data_ptr()).tag
    except drowse.NotFoundError:
        return None


def free_bytes():
    torch.cuda.synchronize()
    return torch.cuda.mem_get_info()[0]


def hog_all_but(left):
    """Takes the device's memory but for so many bytes."""
    torch.cuda.empty_cache()
    return torch.empty(free_bytes() - left, dtype=torch.uint8, device=CUDA)


def live():
    """PyTorch's live settings."""
    return dict(torch.cuda.memory._snapshot()["allocator_settings"])


def set_settings(text):
    torch._C._accelerator_setAllocatorSettings(text)


def is_expandable(tensor):
    """Whether a tensor's memory is from one of PyTorch's expandable segments."""
    for segment in torch.cuda.memory_snapshot():
        if segment["address"] <= tensor.data_ptr() < segment["address"] + segment["total_size"]:
            return segment["is_expandable"]
    raise AssertionError("PyTorch does not know the tensor's segment")


def run(code, **environment):
    """Runs a program in a process that has never used PyTorch, with such an environment; what it prints must be all there is."""
    names = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
    clean = {name: value for name, value in os.environ.items() if name not in names}
    here = os.path.dirname(os.path.abspath(__file__))
    path = os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", "from shared import *\n" + code],
        env=dict(clean, PYTHONPATH=path, **environment),
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert (done.returncode, done.stderr) == (0, ""), "ended with %d\n%s%s" % (done.returncode, done.stdout, done.stderr)
    return done.stdout
