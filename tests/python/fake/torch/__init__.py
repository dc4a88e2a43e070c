# SPDX-License-Identifier: Apache-2.0
"""As much of PyTorch as drowse.torch touches, with the rules that its allocator has for pools: what ends a process there raises
RuleBroken here. A tensor is a whole segment. Memory is the host device's, by way of libdrowse-torch, as PyTorch's would be."""

import contextlib
import ctypes
import itertools
import threading
import types

__version__ = "2.11.0+fake"


class OutOfMemoryError(RuntimeError):
    pass


class RuleBroken(AssertionError):
    pass


def rule(held, text):
    if not held:
        raise RuleBroken(text)


class device:
    def __init__(self, name):
        self.index = int(name.partition(":")[2]) if ":" in name else None


# ---- settings

settings = {
    "PYTORCH_CUDA_ALLOC_CONF": "",
    "expandable_segments": False,
    "max_split_size": -1,
    "garbage_collection_threshold": 0.0,
    "roundup_power2_divisions": {str(1 << power): 0 for power in range(16)},
}
writes = []


def set_settings(text):
    """The parser's ways: the string is noted first, what it does not name is reset, the flag is not."""
    from drowse import Dialect, SettingsError, settings_parse

    writes.append(text)
    settings["PYTORCH_CUDA_ALLOC_CONF"] = text
    try:
        parsed = settings_parse(text, Dialect.TORCH_2_10)
    except SettingsError as error:
        settings.update(max_split_size=-1, garbage_collection_threshold=0.0)
        raise ValueError(str(error))
    split = parsed["max_split_size"]
    settings["max_split_size"] = -1 if split == (1 << 64) - 1 else split
    settings["garbage_collection_threshold"] = parsed["garbage_collection_threshold"]
    divisions = parsed["roundup_power2_divisions"]
    settings["roundup_power2_divisions"] = {str(1 << power): each for power, each in enumerate(divisions)}
    if "expandable_segments" in text:
        settings["expandable_segments"] = parsed["expandable_segments"]


# ---- the allocator

pools = {}  # id: the pool, as long as the allocator knows it
underway = []  # pool id, thread
ids = itertools.count(1)


class MemPool:
    def __init__(self, allocator):
        self.id = (0, next(ids))
        self.allocator, self.use_count, self.cached, self.live = allocator, 1, [], 0
        pools[self.id] = self

    def snapshot(self):
        return [{"active_size": 0, "total_size": size} for _address, size in self.cached] + [{"active_size": 1}] * self.live


@contextlib.contextmanager
def use_mem_pool(pool, device=None):
    rule(pools.get(pool.id) is pool and pool.use_count > 0, "a pool that was let go is entered")
    rule(all(entry[0] != pool.id for entry in underway), "already recording to mempool_id")
    pool.use_count += 1
    underway.append((pool.id, threading.get_ident()))
    try:
        yield
    finally:
        underway.remove((pool.id, threading.get_ident()))
        release_pool(device, pool.id)


def release_pool(_device, pool_id):
    rule(pool_id in pools and pools[pool_id].use_count > 0, "a pool is released once too often")
    pools[pool_id].use_count -= 1


def empty_cache():
    for pool in [each for each in pools.values() if each.use_count == 0]:
        for address, size in pool.cached:
            pool.allocator.free(address, size, 0, None)
        pool.cached.clear()
        if pool.live == 0:
            del pools[pool.id]


class Tensor:
    def __init__(self, size):
        entry = next((each for each in reversed(underway) if each[1] == threading.get_ident()), None)
        self.pool = pools[entry[0]] if entry else None
        self.size, self.address = size, 0
        if self.pool is None:
            return
        fitting = [each for each in self.pool.cached if each[1] >= size]
        if fitting:
            best = min(fitting, key=lambda each: each[1])
            self.pool.cached.remove(best)
            self.address, self.size = best
        else:
            address = self.pool.allocator.malloc(size, 0, None)
            if not address:
                raise OutOfMemoryError("CUDA out of memory")
            self.address = address
        self.pool.live += 1

    def data_ptr(self):
        return self.address

    def __del__(self):
        if self.address:
            self.pool.live -= 1
            self.pool.cached.append((self.address, self.size))


class CUDAPluggableAllocator:
    def __init__(self, path, malloc, free):
        library = ctypes.CDLL(path)
        self.malloc = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p)((malloc, library))
        self.free = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p)((free, library))

    def allocator(self):
        return self


# ---- the modules

modes = []


def dispatched(function):
    def call(*args, **kwargs):
        if modes:
            mode = modes.pop()
            try:
                return mode.__torch_function__(call, (), args, kwargs)
            finally:
                modes.append(mode)
        return function(*args, **kwargs)

    call.__name__ = function.__name__
    return call


@dispatched
def empty(size):
    return Tensor(size)


@dispatched
def add_(size):
    return Tensor(size)


_C = types.SimpleNamespace(_cuda_releasePool=release_pool, _accelerator_setAllocatorSettings=set_settings)
autograd = types.SimpleNamespace(set_multithreading_enabled=lambda on: contextlib.nullcontext(on))
def _snapshot():
    return {key: dict(value) if isinstance(value, dict) else value for key, value in settings.items()}


cuda = types.SimpleNamespace(
    MemPool=MemPool,
    use_mem_pool=use_mem_pool,
    empty_cache=empty_cache,
    current_device=lambda: 0,
    device_count=lambda: 1,
    device=contextlib.nullcontext,
    is_available=lambda: True,
    memory=types.SimpleNamespace(
        CUDAPluggableAllocator=CUDAPluggableAllocator,
        _snapshot=lambda: {"allocator_settings": _snapshot()},
    ),
)
