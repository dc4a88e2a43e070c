#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Sleep and wake through drowse.vllm, beside the limits that bench/sleep measures in the same run, and what it costs to allocate
in a pool and to enter a scope.

  torch_sleep.py FOLDER [ROUNDS]    FOLDER has bench/sleep, the real program, and the libraries; default 5 rounds

Tab-separated. Lines of sleep and wake are those of bench/sleep (its head says what the columns mean), of 16 GiB in 64 tensors and
40 GiB in 300. The others have what, nanoseconds, least and most: a pair is torch.empty() of 2 MiB, and letting it go.
"""
import json
import os
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
SIZES = [(16, 64), (40, 300)]
PAIR_BYTES = 2 << 20


def limits(folder, gib, rounds):
    """What bench/sleep says of the machine, in milliseconds; its lines go on to stdout."""
    command = [os.path.join(folder, "sleep"), "-d", "cuda:0", "-g", str(gib), "-n", str(rounds), "-l"]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[1:]
    print("\n".join(lines), flush=True)
    return {line.split("\t")[1]: float(line.split("\t")[4]) for line in lines}


def line(what, gib, blocks, seconds, name, limit):
    times = sorted(1e3 * each for each in seconds)
    middle = times[len(times) // 2]
    values = (what, gib, blocks, middle, times[0], times[-1], name, limit, middle / limit)
    print("cuda:0\t%s\t%.2f\t%d\t%.3f\t%.3f\t%.3f\t%s\t%.3f\t%.3f" % values, flush=True)


def timed(function, *arguments):
    begun = time.monotonic()
    function(*arguments)
    return time.monotonic() - begun


def measure_sleep(gib, blocks, rounds, limit):
    import torch

    import drowse.torch
    from drowse.vllm import CuMemAllocator

    allocator, heap = CuMemAllocator.get_instance(), drowse.torch.heap()
    with allocator.use_memory_pool("weights"):
        tensors = [torch.full(((gib << 30) // blocks // 512 * 512,), 1, dtype=torch.uint8, device="cuda") for _ in range(blocks)]

    def sleep(tags):
        seconds = timed(allocator.sleep, tags)
        time.sleep(0.3)  # the driver clears in the background what was released
        return seconds

    def cycles(tags):
        return zip(*[(sleep(tags), timed(allocator.wake_up)) for _ in range(rounds)])

    out, back = limit["link out"] + limit["unmap"], limit["link in"] + limit["map"]
    heap.backup_reserve(heap.stats("weights").live_bytes)
    line("first sleep, reserved", gib, blocks, [sleep("weights")], "link+unmap", out)
    stats = heap.stats()
    ratio = stats.host_bytes / sum(tensor.nbytes for tensor in tensors)
    print("cuda:0\thost memory\t%.2f\t%d\t-\t-\t-\tpayload\t-\t%.3f" % (gib, blocks, ratio))
    allocator.wake_up()
    sleeps, wakes = cycles("weights")
    line("sleep", gib, blocks, sleeps, "link+unmap", out)
    line("wake", gib, blocks, wakes, "link+map", back)
    heap.seal("weights")
    sleep("weights")
    allocator.wake_up()
    sleeps, wakes = cycles("weights")
    line("sleep, sealed", gib, blocks, sleeps, "unmap", limit["unmap"])
    heap.unseal("weights")
    assert all(int(tensor[::4096].min()) == int(tensor[::4096].max()) == 1 for tensor in tensors), "contents"
    sleeps, wakes = cycles(())
    line("sleep, discarding", gib, blocks, sleeps, "unmap", limit["unmap"])
    line("wake, discarded", gib, blocks, wakes, "map", limit["map"])


def repeated(what, function, count, rounds):
    """Nanoseconds of one of `count` calls."""
    function(100)
    times = sorted(timed(function, count) / count * 1e9 for _ in range(rounds))
    print("%s\t%.0f\t%.0f\t%.0f" % (what, times[len(times) // 2], times[0], times[-1]), flush=True)


def measure_calls(rounds):
    import torch

    import drowse
    from drowse.torch import use_memory_pool

    def pairs(count):
        for _ in range(count):
            torch.empty(PAIR_BYTES, dtype=torch.uint8, device="cuda")

    def scopes(count):
        for _ in range(count):
            with drowse.scope("weights"):
                pass

    def pools(count):
        for _ in range(count):
            with use_memory_pool("weights"):
                pass

    def fresh(count):
        with torch.device("cuda:0"):
            for _ in range(count):
                torch.empty(PAIR_BYTES, dtype=torch.uint8)

    torch.empty(PAIR_BYTES, dtype=torch.uint8, device="cuda")
    for on in (False, True):
        torch._C._accelerator_setAllocatorSettings("expandable_segments:%s" % on)
        torch.cuda.empty_cache()
        repeated("pair, PyTorch, expandable_segments:%s" % on, pairs, 100000, rounds)
        with use_memory_pool("weights"):
            repeated("pair in a pool, expandable_segments:%s" % on, pairs, 100000, rounds)
        with use_memory_pool("weights", retry=False):
            repeated("pair in a pool, retry=False, expandable_segments:%s" % on, pairs, 100000, rounds)
    repeated("pair, PyTorch, with torch.device", fresh, 100000, rounds)
    repeated("scope, entered and left", scopes, 100000, rounds)
    repeated("pool, entered and left", pools, 2000, rounds)


def main():
    folder, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 5
    if len(sys.argv) > 3:  # a process of its own for each size
        measure_sleep(int(sys.argv[3]), int(sys.argv[4]), rounds, json.loads(sys.argv[5]))
        return
    print("device\twhat\tgib\tblocks\tms\tleast\tmost\tlimit\tlimit_ms\tratio", flush=True)
    for gib, blocks in SIZES:
        found = limits(folder, gib, rounds)
        subprocess.run([sys.executable, __file__, folder, str(rounds), str(gib), str(blocks), json.dumps(found)], check=True)
    measure_calls(rounds)


main()
