#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Sleep and wake through drowse.vllm, beside the limits that bench/sleep measures in the same run, and what it costs to allocate
in a pool and to enter a scope.

  torch_sleep.py FOLDER [ROUNDS]    FOLDER has bench/sleep, the real program, and the libraries; default 5 rounds

Tab-separated. Lines of sleep and wake are those of bench/sleep (its head says what the columns mean), of 16 GiB in 64 tensors and
40 GiB in 300. What the driver alone takes to map and to unmap varies so much that it takes turns with what it is the limit of:
those are the lines "map" and "unmap". The others have what, nanoseconds, least and most: a pair is torch.empty() of 2 MiB, and
letting it go.
"""
import ctypes
import json
import os
import subprocess
import sys
import time

SIZES = [(16, 64), (40, 300)]
PAIR_BYTES = 2 << 20


class Properties(ctypes.Structure):
    """CUmemAllocationProp: pinned memory of device 0."""

    _fields_ = [("kind", ctypes.c_int), ("handles", ctypes.c_int), ("where", ctypes.c_int), ("device", ctypes.c_int),
                ("metadata", ctypes.c_void_p), ("flags", ctypes.c_ulonglong)]


class Access(ctypes.Structure):
    """CUmemAccessDesc: device 0 reads and writes."""

    _fields_ = [("where", ctypes.c_int), ("device", ctypes.c_int), ("flags", ctypes.c_int)]


class Driver:
    """What the driver alone takes for as many bytes, in handles of 1 GiB."""

    def __init__(self, gib):
        self.cuda, self.gib = ctypes.CDLL("libcuda.so.1"), gib
        self.handles = [ctypes.c_ulonglong() for _ in range(gib)]
        self.base = ctypes.c_ulonglong()
        self.call("cuMemAddressReserve", ctypes.byref(self.base), ctypes.c_size_t(gib << 30), ctypes.c_size_t(0),
                  ctypes.c_ulonglong(0), ctypes.c_ulonglong(0))

    def call(self, name, *arguments):
        code = getattr(self.cuda, name)(*arguments)
        if code != 0:
            raise RuntimeError("%s: %d" % (name, code))

    def map(self):
        properties = Properties(kind=1, where=1)
        for number, handle in enumerate(self.handles):
            self.call("cuMemCreate", ctypes.byref(handle), ctypes.c_size_t(1 << 30), ctypes.byref(properties),
                      ctypes.c_ulonglong(0))
            self.call("cuMemMap", ctypes.c_ulonglong(self.base.value + (number << 30)), ctypes.c_size_t(1 << 30),
                      ctypes.c_size_t(0), handle, ctypes.c_ulonglong(0))
        access = Access(where=1, flags=3)
        self.call("cuMemSetAccess", self.base, ctypes.c_size_t(self.gib << 30), ctypes.byref(access), ctypes.c_size_t(1))

    def unmap(self):
        self.call("cuMemUnmap", self.base, ctypes.c_size_t(self.gib << 30))
        for handle in self.handles:
            self.call("cuMemRelease", handle)


def median(seconds):
    return sorted(seconds)[len(seconds) // 2]


def limits(folder, gib, rounds):
    """What bench/sleep says of the link, in seconds; its lines go on to stdout, but for those of the driver's mapping."""
    command = [os.path.join(folder, "sleep"), "-d", "cuda:0", "-g", str(gib), "-n", str(rounds), "-l"]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[1:]
    print("\n".join(line for line in lines if line.split("\t")[1] not in ("map", "unmap")), flush=True)
    return {line.split("\t")[1]: float(line.split("\t")[4]) / 1e3 for line in lines}


def line(what, gib, blocks, seconds, name="-", limit=None):
    times = [1e3 * each for each in seconds]
    against = "-\t-" if limit is None else "%.3f\t%.3f" % (1e3 * limit, median(seconds) / limit)
    values = (what, gib, blocks, median(times), min(times), max(times), name, against)
    print("cuda:0\t%s\t%.2f\t%d\t%.3f\t%.3f\t%.3f\t%s\t%s" % values, flush=True)


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

    driver = Driver(gib)

    def calmly(function, *arguments):
        seconds = timed(function, *arguments)
        time.sleep(0.3)  # the driver clears in the background what was released
        return seconds

    def cycles(tags):
        """Sleep, and while it lasts the driver's map and unmap, and wake: whoever takes memory does so when it has just been given
        back, and whoever gives it back has just taken it."""
        return zip(*[(calmly(allocator.sleep, tags), calmly(driver.map), calmly(driver.unmap), calmly(allocator.wake_up))
                     for _ in range(rounds)])

    def cycle(kind, tags, out=0.0, back=0.0, names=("unmap", "map")):
        sleeps, maps, unmaps, wakes = cycles(tags)
        line("map", gib, 1, maps)
        line("unmap", gib, 1, unmaps)
        line("sleep" + kind, gib, blocks, sleeps, names[0], out + median(unmaps))
        line("wake" + kind, gib, blocks, wakes, names[1], back + median(maps))

    def first_sleep(reserve):
        """With new host memory, as in a new process."""
        heap.backup_trim(0)
        if reserve:
            heap.backup_reserve(heap.stats("weights").live_bytes)
        asleep = calmly(allocator.sleep, "weights")
        driver.map()
        found = calmly(driver.unmap), asleep
        allocator.wake_up()
        return found

    _, firsts = zip(*[first_sleep(False) for _ in range(rounds)])
    line("first sleep", gib, blocks, firsts, "slowest", max(limit[part] for part in ("touch", "pin", "link out")))
    unmaps, firsts = zip(*[first_sleep(True) for _ in range(rounds)])
    line("first sleep, reserved", gib, blocks, firsts, "link+unmap", limit["link out"] + median(unmaps))
    ratio = heap.stats().host_bytes / sum(tensor.nbytes for tensor in tensors)
    print("cuda:0\thost memory\t%.2f\t%d\t-\t-\t-\tpayload\t-\t%.3f" % (gib, blocks, ratio))
    cycle("", "weights", limit["link out"], limit["link in"], ("link+unmap", "link+map"))
    heap.seal("weights")
    allocator.sleep("weights")
    allocator.wake_up()
    cycle(", sealed", "weights", 0.0, limit["link in"], ("unmap", "link+map"))
    heap.unseal("weights")
    assert all(int(tensor[::4096].min()) == int(tensor[::4096].max()) == 1 for tensor in tensors), "contents"
    cycle(", discarding", ())


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
