#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What bench/alloc measures, with PyTorch's CUDA allocator, with and without expandable segments (a process each).

  torch_alloc.py pair                 lines like those of `alloc pair`, without the head
  torch_alloc.py threads [THREADS]    likewise; default 16. of_loop is left to who knows the loop: "-"

Builds torch_alloc.cpp with $CXX (g++), so that Python has no part in what is timed. Where that fails it says so; pair then comes
from Python and says that in its name, and threads, which Python would not let run at once, is left out.
"""
import ctypes
import glob
import os
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
KINDS = {"PyTorch": "False", "PyTorch expandable": "True"}
PAIR_BYTES = 2 << 20
ROUNDS = 5
ROUND_SECONDS = 0.15


def settings(expandable):
    """The environment of a process in which PyTorch's allocator is so set."""
    text = "expandable_segments:" + expandable
    return dict(os.environ, PYTORCH_CUDA_ALLOC_CONF=text, PYTORCH_ALLOC_CONF=text)


def cuda_include():
    """Where cuda_runtime_api.h is: the toolkit's, or the one that PyTorch was installed with."""
    import torch

    packages = os.path.dirname(os.path.dirname(torch.__file__))
    nvcc = shutil.which("nvcc")
    homes = [os.environ.get("CUDA_HOME"), nvcc and os.path.dirname(os.path.dirname(nvcc)), "/usr/local/cuda"]
    homes += glob.glob(os.path.join(packages, "nvidia", "cu*"))
    for home in homes:
        if home and os.path.exists(os.path.join(home, "include", "cuda_runtime_api.h")):
            return os.path.join(home, "include")
    raise OSError("there is no cuda_runtime_api.h")


def build(path):
    """Makes the library at path and opens it. Raises what goes wrong."""
    import torch

    root = os.path.dirname(torch.__file__)
    includes = [os.path.join(root, "include"), cuda_include()]
    libraries = os.path.join(root, "lib")
    abi = "-D_GLIBCXX_USE_CXX11_ABI=%d" % torch._C._GLIBCXX_USE_CXX11_ABI
    command = [os.environ.get("CXX", "g++"), "-std=c++20", "-O2", "-fPIC", "-shared", "-pthread", abi]
    command += ["-I" + include for include in includes] + [os.path.join(HERE, "torch_alloc.cpp"), "-o", path]
    command += ["-L" + libraries, "-Wl,-rpath," + libraries, "-lc10_cuda", "-lc10"]
    subprocess.run(command, check=True, stdout=sys.stderr)
    library = ctypes.CDLL(path)
    library.bench_pairs.argtypes = [ctypes.c_uint, ctypes.c_size_t, ctypes.c_size_t, ctypes.POINTER(ctypes.c_void_p),
                                    ctypes.POINTER(ctypes.c_double), ctypes.POINTER(ctypes.c_double)]
    return library


def timed(library, streams, pairs):
    """(elapsed, processor) seconds of pairs on one thread for each stream."""
    handles = (ctypes.c_void_p * len(streams))(*streams)
    elapsed, processor = ctypes.c_double(), ctypes.c_double()
    if library.bench_pairs(len(streams), PAIR_BYTES, pairs, handles, ctypes.byref(elapsed), ctypes.byref(processor)) != 0:
        sys.exit("bench: PyTorch's allocator failed")
    return elapsed.value, processor.value


def timed_from_python(streams, pairs):
    from torch.cuda import caching_allocator_alloc as alloc, caching_allocator_delete as free

    begun = time.thread_time()
    for _ in range(pairs):
        free(alloc(PAIR_BYTES, 0, streams[0]))
    seconds = time.thread_time() - begun
    return seconds, seconds


def best(run, streams, which):
    """Least seconds a pair of some rounds: elapsed (0) or processor time (1)."""
    pairs = max(100, int(ROUND_SECONDS / (run(streams, 1000)[which] / 1000)))
    return min(run(streams, pairs)[which] / pairs for _ in range(ROUNDS))


def measure(name, what, threads_most):
    """In a process whose environment has the settings."""
    import torch

    torch.cuda.init()
    torch.empty(1, device="cuda")
    set_to = torch.cuda.memory._snapshot()["allocator_settings"]["expandable_segments"]
    if str(bool(set_to)) != KINDS[name]:
        sys.exit("bench: expandable_segments is %s, not %s" % (set_to, KINDS[name]))
    with tempfile.TemporaryDirectory() as directory:
        try:
            library = build(os.path.join(directory, "libtorch_alloc.so"))
            run = lambda streams, pairs: timed(library, streams, pairs)  # noqa: E731
        except (OSError, subprocess.CalledProcessError) as error:
            print("bench: torch_alloc.cpp cannot be built: %s" % error, file=sys.stderr)
            run, name = timed_from_python, name + " (from Python)"
    keep = [torch.cuda.Stream() for _ in range(threads_most)]
    streams = [stream.cuda_stream for stream in keep]
    if what == "pair":
        for stream_name, stream in (("default", 0), ("own", streams[0])):
            print("cuda:0\t%s\t%s\t%.2f" % (name, stream_name, best(run, [stream], 1) * 1e9))
    elif run is not timed_from_python:
        one, threads = None, 1
        while threads <= threads_most:
            each = best(run, streams[:threads], 0)
            rate = threads / each
            one = one or rate
            print("cuda:0\t%s\t%d\t%.3f\t%.2f\t%.3f\t-" % (name, threads, rate / 1e6, each * 1e9, rate / one), flush=True)
            threads *= 2


def main(arguments):
    if len(arguments) == 4 and arguments[0] == "--as":
        return measure(arguments[1], arguments[2], int(arguments[3]))
    if not 1 <= len(arguments) <= 2 or arguments[0] not in ("pair", "threads"):
        sys.exit(__doc__)
    threads = arguments[1] if len(arguments) == 2 else "16"
    for name, expandable in KINDS.items():
        subprocess.run([sys.executable, os.path.abspath(__file__), "--as", name, arguments[0], threads],
                       env=settings(expandable), check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
