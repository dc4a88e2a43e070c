# SPDX-License-Identifier: Apache-2.0
"""PyTorch's memory by tag.

    with drowse.torch.use_memory_pool("weights"):
        model = load().cuda()
    drowse.torch.sleep("weights")  # the device has the memory back
    drowse.torch.wake()  # every tensor, and every graph that uses them, is what it was

What this thread allocates inside comes from drowse, by way of a torch.cuda.MemPool: of it PyTorch asks for segments, of which it
cuts tensors. PyTorch keeps a pool's unused segments; what becomes of them is said at use_memory_pool and empty_cache. Nothing
here changes what PyTorch does with memory outside.

The threads that run a backward pass are PyTorch's own: inside a scope they allocate outside of it, as any other thread does.
backward_here() has the thread that calls backward() do the work; carry() takes the frame to any other thread.
"""

import ctypes
import functools
import gc
import sys
import threading
from types import TracebackType
from typing import Any, Callable, ContextManager, Dict, List, NamedTuple, Optional, Tuple, Type, TypeVar, Union

import torch
from torch.overrides import TorchFunctionMode

from . import _framework
from ._allocator_settings import AllocatorSettings
from ._errors import BusyError, ForkedError, NoDeviceMemoryError, NotFoundError, UnsupportedError, last_error
from ._heap import Heap, Rules, Tags
from ._library import path_of
from ._scope import current, decorate, scope

F = TypeVar("F", bound=Callable[..., Any])
DeviceLike = Union[None, int, str, torch.device]

_SMALL = 64 << 20
_version = tuple(int(part) for part in torch.__version__.split(".")[:2])

# Up to 2.10 a pool with an allocator of its own and expandable segments do not go together: 2.7 and later raise, 2.6 does not ask
# the allocator. Later versions take segments for such a pool from the allocator, whatever the flag says.
_NEEDS_FLAG_OFF = _version < (2, 11)

# For PyTorch it must be the same library that is loaded here, and stay so for as long as the process lives.
_path = path_of("libdrowse-torch.so.1")
_library = ctypes.CDLL(_path)
_torch_heap = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_int)(("drowse_torch_heap", _library))


@functools.lru_cache(maxsize=None)
def _allocator() -> Any:
    if _version < (2, 8):
        raise UnsupportedError("2.8 is needed: a thread's pool takes every thread's memory in PyTorch %s" % torch.__version__)
    allocator = torch.cuda.memory.CUDAPluggableAllocator(_path, "drowse_torch_malloc", "drowse_torch_free")
    return allocator.allocator()


def _index(device: DeviceLike) -> int:
    if isinstance(device, int):
        return device
    index = None if device is None else torch.device(device).index
    return torch.cuda.current_device() if index is None else index


_heaps: Dict[int, Heap] = {}  # those that have been opened


def _heap(index: int) -> Heap:
    if index not in _heaps:
        pointer = _torch_heap(index)
        if pointer is None:
            raise last_error()
        _heaps.setdefault(index, Heap.borrowed(pointer))
    return _heaps[index]


def heap(device: DeviceLike = None) -> Heap:
    """The heap that a device's memory comes from; None: the current device's."""
    return _heap(_index(device))


# ---- PyTorch's flag


def _live_settings() -> Any:
    return torch.cuda.memory._snapshot()["allocator_settings"]


def _set_settings(text: str) -> None:
    """The newer name first: the older one warns where both are there."""
    setter = getattr(torch._C, "_accelerator_setAllocatorSettings", None)
    (setter or torch.cuda.memory._set_allocator_settings)(text)


def attach() -> None:
    """Has PyTorch's expandable_segments follow scopes: off while one is open that says expandable=False, and what it was
    at all other times, whichever way it was set; the other settings stay. use_memory_pool does so where it has to."""
    with _lock:
        if not _framework.is_attached():
            settings = AllocatorSettings(_live_settings, _set_settings)
            _framework.attach(settings.expandable, settings.set_expandable, settings.stamp)


# ---- pools


class _Pool(NamedTuple):
    """A torch.cuda.MemPool for one tag. Blocks of two tags must not be cut from one segment."""

    memory: Any
    device: int
    tag: str
    bytes: int  # of the tag when the pool was made


class _Here(threading.local):
    """What this thread has open, the innermost last."""

    def __init__(self) -> None:
        self.open: List["use_memory_pool"] = []


_lock = threading.Lock()
_idle: Dict[Tuple[int, str], List[_Pool]] = {}
_here = _Here()


def _live_bytes(device: int, tag: str) -> int:
    try:
        return _heap(device).stats(tag).live_bytes
    except (NotFoundError, ForkedError):
        return 0


def _take(device: int, tag: str) -> _Pool:
    """An idle pool, or a new one: PyTorch lets nobody enter one that is open, be it by the same thread."""
    with _lock:
        idle = _idle.get((device, tag))
        if idle:
            return idle.pop()
    with torch.cuda.device(device):
        memory = torch.cuda.MemPool(_allocator())
    # Its destructor ends the process where any pool is open or any graph is being captured, on any thread, and where it has been
    # let go; at exit it would come too late. So it has none: one reference more than there are.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(memory))
    return _Pool(memory, device, tag, _live_bytes(device, tag))


def _let_go(pool: _Pool) -> None:
    """Its unused segments now go back as those of the default pool do: by torch.cuda.empty_cache(), and where memory is short.
    Its tensors stay. It cannot be entered again."""
    torch._C._cuda_releasePool(pool.device, pool.memory.id)


def _put_back(pool: _Pool) -> None:
    """One that has not grown much is used again, so that many short scopes do not take a segment each."""
    if _live_bytes(pool.device, pool.tag) > pool.bytes + _SMALL:
        _let_go(pool)
    else:
        with _lock:
            _idle.setdefault((pool.device, pool.tag), []).append(pool)


def _has_unused(pool: _Pool) -> bool:
    return any(segment["active_size"] == 0 for segment in pool.memory.snapshot())


class use_memory_pool(scope):
    """with use_memory_pool("weights"): ... what this thread allocates on the device comes from drowse and has that tag. Also a
    decorator. May be nested, entered on several threads at once, and entered again with the same tag.

    tag None is the enclosing frame's; device None the current one. expandable=False has PyTorch's flag off meanwhile, for the
    whole process (attach()), and the memory comes from discrete segments; it is the default where PyTorch needs it.

    When device memory runs out inside, what PyTorch keeps unused of this pool and others is given back (empty_cache()), and what
    failed is tried again if it makes new tensors (torch.empty, clone, to ...). What a tag's memory is refused for otherwise is
    the __cause__ of torch.OutOfMemoryError: AsleepError, for instance. PyTorch has no hook for that, so it takes a
    TorchFunctionMode, which costs each of PyTorch's functions that this thread calls inside about two microseconds, as `with
    torch.device(...)` does; retry=False goes without both.
    """

    __slots__ = ("device", "retry", "_frame_tag", "_pool", "_route", "_mode")

    suspendable = False  # PyTorch's routing is the thread's, whatever runs there

    def __init__(
        self, tag: Optional[str] = None, expandable: Optional[bool] = None, *, device: DeviceLike = None, retry: bool = True
    ) -> None:
        if expandable is None and _NEEDS_FLAG_OFF:
            expandable = False
        super().__init__(tag, expandable)
        self.device = device
        self.retry = retry
        self._pool: Optional[_Pool] = None
        self._route: Optional[ContextManager[Any]] = None
        self._mode: Optional[_TryAgain] = None

    def again(self) -> "use_memory_pool":
        return use_memory_pool(self.tag, self.expandable, device=self.device, retry=self.retry)

    def __enter__(self) -> "use_memory_pool":
        if self.expandable is False:
            attach()
        self._open(sys._getframe(1))
        try:
            self._frame_tag = current().tag
            self._begin(_index(self.device))
            if self.retry and not any(each._mode for each in _here.open):
                self._mode = _TryAgain()
                self._mode.__enter__()
        except BaseException:
            self._end()
            super().__exit__(None, None, None)
            raise
        _here.open.append(self)
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        try:
            if self in _here.open:
                _here.open.remove(self)
            if self._mode is not None:
                self._mode.__exit__(kind, error, trace)
                self._mode = None
            self._end()
        finally:
            super().__exit__(kind, error, trace)

    def _begin(self, device: int) -> None:
        pool = self._pool or _take(device, self._frame_tag)
        self._pool = pool
        route = torch.cuda.use_mem_pool(pool.memory, device=pool.device)
        route.__enter__()
        self._route = route

    def _pause(self) -> None:
        """Ends the routing."""
        route, self._route = self._route, None
        if route is not None:
            route.__exit__(None, None, None)

    def _end(self) -> None:
        self._pause()
        pool, self._pool = self._pool, None
        if pool is not None:
            _put_back(pool)


def empty_cache() -> None:
    """torch.cuda.empty_cache() for drowse's memory too: what PyTorch keeps unused of the pools that are not open, or open on this
    thread, goes back to drowse, and what drowse does not use goes back to the device. PyTorch does nothing of it while any other
    thread is inside a pool, but for pools that have grown beyond 64 MiB and been left."""
    with _lock:
        idle = [pool for pools in _idle.values() for pool in pools]
        _idle.clear()
    for pool in idle:
        _let_go(pool)
    opened = list(_here.open)
    for each in reversed(opened):
        each._pause()
    try:
        for each in opened:
            if each._pool is not None and _has_unused(each._pool):
                _let_go(each._pool)
                each._pool = each._pool._replace(memory=None)
        torch.cuda.empty_cache()
    finally:
        for each in opened:
            if each._pool is not None:
                device = each._pool.device
                if each._pool.memory is None:
                    each._pool = None
                each._begin(device)
    for known in list(_heaps.values()):
        try:
            known.trim()
        except BusyError:  # a stream captures: waiting for the device would destroy that
            pass


# Functions that make new tensors and change none: what failed for want of memory can be done again.
_REPEATABLE = frozenset(
    "arange as_tensor cat clone complex contiguous cuda empty empty_like empty_permuted empty_strided eye full full_like "
    "linspace logspace new_empty new_empty_strided new_full new_ones new_tensor new_zeros ones ones_like rand rand_like randint "
    "randint_like randn randn_like randperm repeat stack tensor to tril triu zeros zeros_like".split()
)


class _TryAgain(TorchFunctionMode):
    """Up to PyTorch 2.12 nothing is given back for want of memory while a pool is open: neither of that pool nor of others."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        try:
            return func(*args, **(kwargs or {}))
        except torch.OutOfMemoryError as error:
            reason = last_error()
            if getattr(func, "__name__", "") not in _REPEATABLE:
                raise
            if not isinstance(reason, NoDeviceMemoryError):
                raise error from (reason if reason.tag == current().tag else None)
        empty_cache()
        return func(*args, **(kwargs or {}))


class graph_pool(scope):
    """with graph_pool("graphs") as pool, torch.cuda.graph(graph, pool=pool): ... captures a graph whose memory is drowse's and
    has that tag. It comes back when all graphs that were captured into the pool are gone."""

    __slots__ = ("device", "_pool")

    def __init__(self, tag: Optional[str] = None, expandable: Optional[bool] = None, *, device: DeviceLike = None) -> None:
        super().__init__(tag, False if expandable is None and _NEEDS_FLAG_OFF else expandable)
        self.device = device
        self._pool: Optional[_Pool] = None

    def again(self) -> "graph_pool":
        return graph_pool(self.tag, self.expandable, device=self.device)

    def __enter__(self) -> Any:
        if self.expandable is False:
            attach()
        self._open(sys._getframe(1))
        try:
            self._pool = _take(_index(self.device), current().tag)
        except BaseException:
            super().__exit__(None, None, None)
            raise
        return self._pool.memory.id

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        pool, self._pool = self._pool, None
        try:
            if pool is not None:
                _let_go(pool)
        finally:
            super().__exit__(kind, error, trace)


# ---- other threads


def carry(function: F) -> F:
    """The function, run with the frame that is current now on whichever thread calls it; and, if that is inside a pool, with its
    memory from such a pool. For threads of an executor, and for hooks that a backward pass calls."""
    frame = current()
    if not _here.open:
        return decorate(lambda: scope(frame.tag, frame.expandable), function)
    pool = _here.open[-1]
    device = pool.device if pool._pool is None else pool._pool.device  # the thread may have another current one
    return decorate(lambda: use_memory_pool(frame.tag, frame.expandable, device=device, retry=pool.retry), function)


def backward_here() -> ContextManager[Any]:
    """A context manager: the thread that calls backward() inside runs all of it, so that what it allocates, gradients above all,
    has this thread's frame."""
    return torch.autograd.set_multithreading_enabled(False)


# ---- sleep and wake


def sleep(rules: Rules, *, device: DeviceLike = None, **options: Any) -> None:
    """Puts tags of a device to sleep: Heap.sleep(), of what PyTorch uses; what it keeps unused is given back first."""
    empty_cache()
    heap(device).sleep(rules, **options)


def wake(tags: Tags = None, *, device: DeviceLike = None, deadline: Optional[float] = 0, **options: Any) -> None:
    """Wakes tags of a device: Heap.wake(). If there is not enough memory, what PyTorch keeps unused, of garbage too, is given
    back and the wake is tried again."""
    try:
        heap(device).wake(tags, **options)
    except NoDeviceMemoryError:
        gc.collect()
        empty_cache()
        heap(device).wake(tags, deadline=deadline, **options)
