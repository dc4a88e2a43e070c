#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Replays allocation traces (trace.h) with PyTorch's CUDA allocator, with and without expandable segments (a process each).

  torch_replay.py TRACE...    lines like those of `replay`, without the head; a trace may end in .gz

Peak reserved, as PyTorch counts it, stands for peak mapped; peak live is the trace's, rounded as for every allocator. ns is "-":
most of the time would be Python's. A trace for which memory did not suffice has "oom" for a ratio.
"""
import gzip
import os
import subprocess
import sys

from torch_alloc import KINDS, settings


def events(path):
    """(ID, bytes) of each allocation, (ID, 0) of each free."""
    with (gzip.open if path.endswith(".gz") else open)(path, "rt") as file:
        for line in file:
            words = line.split()
            if words and words[0] == "a":
                yield int(words[1]), int(words[2])
            elif words and words[0] == "f":
                yield int(words[1]), 0


def peak_live(trace):
    live, sizes, peak = 0, {}, 0
    for name, size in trace:
        if size > 0:
            sizes[name] = -(-size // 512) * 512
            live += sizes[name]
        else:
            live -= sizes.pop(name)
        peak = max(peak, live)
    return peak


def replay(trace):
    """False: out of memory. What is live at the end goes."""
    import torch

    blocks = {}
    try:
        for name, size in trace:
            if size > 0:
                blocks[name] = torch.cuda.caching_allocator_alloc(size, 0, 0)
            else:
                torch.cuda.caching_allocator_delete(blocks.pop(name))
        return True
    except torch.cuda.OutOfMemoryError:
        return False
    finally:
        for block in blocks.values():
            torch.cuda.caching_allocator_delete(block)


def measure(kind, paths):
    """In a process whose environment has the settings."""
    import torch

    torch.cuda.init()
    for path in paths:
        trace = list(events(path))
        live = peak_live(trace)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        if torch.cuda.memory_reserved() != 0:
            sys.exit("bench: PyTorch still holds %d bytes before %s" % (torch.cuda.memory_reserved(), path))
        done = replay(trace)
        reserved = torch.cuda.max_memory_reserved()
        name = os.path.basename(path).split(".trace")[0]
        ratio = "%.4f" % (reserved / live) if done else "oom"
        print("cuda:0\t%s\tPyTorch\t%s\t%d\t%d\t%d\t%s\t-" % (name, kind, len(trace), live, reserved, ratio), flush=True)
    set_to = torch.cuda.memory._snapshot()["allocator_settings"]["expandable_segments"]
    if bool(set_to) != (kind == "expandable"):
        sys.exit("bench: expandable_segments is %s" % set_to)


def main(arguments):
    if len(arguments) >= 3 and arguments[0] == "--as":
        return measure(arguments[1], arguments[2:])
    if not arguments or arguments[0].startswith("-"):
        sys.exit(__doc__)
    for name, expandable in KINDS.items():
        kind = "expandable" if expandable == "True" else "discrete"
        subprocess.run([sys.executable, os.path.abspath(__file__), "--as", kind, *arguments], env=settings(expandable),
                       check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
