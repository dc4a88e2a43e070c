# SPDX-License-Identifier: Apache-2.0
"""Heaps: the memory that drowse owns on one device, and how its tags are put to sleep."""

import enum
import threading
from ctypes import byref, c_bool, c_char_p, c_double, c_int, c_int64, c_size_t, c_uint32, c_uint64, c_void_p, pointer
from typing import Any, Callable, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from ._errors import InvalidError, Status, check, last_error, text_bytes
from ._library import (
    EACH_DEVICE,
    EACH_TAG,
    PRESSURE,
    PROGRESS,
    WOKEN,
    AllocOptionsStruct,
    BlockStruct,
    DeviceStruct,
    HeapInfoStruct,
    HeapOptionsStruct,
    RuleStruct,
    SleepOptionsStruct,
    StatsStruct,
    WakeOptionsStruct,
    function,
)
from ._scope import EXPANDABLE, tag_pointer

_devices = function("drowse_devices", c_int, EACH_DEVICE, c_void_p)
_heap_open = function("drowse_heap_open", c_int, c_void_p, c_void_p)
_heap_close = function("drowse_heap_close", c_int, c_void_p)
_heap_info_get = function("drowse_heap_info_get", c_int, c_void_p, c_void_p)
_alloc_with = function("drowse_alloc_with", c_int, c_void_p, c_size_t, c_void_p, c_void_p, c_void_p)
_free = function("drowse_free", c_int, c_void_p, c_void_p)
_free_on = function("drowse_free_on", c_int, c_void_p, c_void_p, c_void_p)
_record_stream = function("drowse_record_stream", c_int, c_void_p, c_void_p, c_void_p)
_stream_retire = function("drowse_stream_retire", c_int, c_void_p, c_void_p)
_tag_clear = function("drowse_tag_clear", c_int, c_void_p, c_char_p)
_trim = function("drowse_trim", c_int, c_void_p, c_uint64)
_trim_idle = function("drowse_trim_idle", c_int, c_void_p, c_uint64)
_copy_in = function("drowse_copy_in", c_int, c_void_p, c_void_p, c_void_p, c_size_t)
_copy_out = function("drowse_copy_out", c_int, c_void_p, c_void_p, c_void_p, c_size_t)
_sleep_start = function("drowse_sleep_start", c_int, c_void_p, c_void_p, c_size_t, c_void_p, c_void_p)
_wake_start = function("drowse_wake_start", c_int, c_void_p, c_void_p, c_size_t, c_void_p, c_void_p)
_op_wait = function("drowse_op_wait", c_int, c_void_p, c_int64)
_op_progress = function("drowse_op_progress", c_int, c_void_p, c_void_p, c_void_p)
_op_cancel = function("drowse_op_cancel", c_int, c_void_p)
_op_release = function("drowse_op_release", None, c_void_p)
_hold_tag = function("drowse_hold_tag", c_int, c_void_p, c_void_p, c_int64)
_unhold_tag = function("drowse_unhold_tag", c_int, c_void_p, c_void_p)
_seal = function("drowse_seal", c_int, c_void_p, c_char_p)
_unseal = function("drowse_unseal", c_int, c_void_p, c_char_p)
_backup_reserve = function("drowse_backup_reserve", c_int, c_void_p, c_uint64)
_backup_reserve_start = function("drowse_backup_reserve_start", c_int, c_void_p, c_uint64)
_backup_trim = function("drowse_backup_trim", c_int, c_void_p, c_uint64)
_stats_get = function("drowse_stats_get", c_int, c_void_p, c_char_p, c_void_p)
_each_tag = function("drowse_tags", c_int, c_void_p, EACH_TAG, c_void_p)
_tag_wait = function("drowse_tag_wait", c_int, c_void_p, c_char_p, c_int, c_int64)
_block_get = function("drowse_block_get", c_int, c_void_p, c_void_p, c_void_p)


class Action(enum.IntEnum):
    """What becomes of a tag's contents."""

    KEEP = 0  # the tag stays awake
    OFFLOAD = 1  # it sleeps, its contents go to host memory
    DISCARD = 2  # it sleeps, its contents are lost


class Drain(enum.IntEnum):
    """What sleep waits for before it copies."""

    DEVICE = 0
    STREAMS = 1
    NONE = 2


class Backup(enum.IntEnum):
    """Where backups go."""

    HOST = 0
    FILE = 1
    HOST_THEN_FILE = 2


class State(enum.IntEnum):
    """Of a tag."""

    AWAKE = 0
    FALLING_ASLEEP = 1
    ASLEEP = 2
    WAKING = 3
    POISONED = 4


class Device(NamedTuple):
    """What devices() tells: drowse_device."""

    device: str
    name: str
    uuid: str
    total_bytes: int
    granularity: int
    driver_version: int
    unusable: str


class Info(NamedTuple):
    """What a heap runs on and with: drowse_heap_info."""

    device: str
    device_source: str
    expandable: bool
    settings_source: str
    granularity: int
    total_bytes: int
    free_bytes: int
    backup_limit: int


class Stats(NamedTuple):
    """Of a tag, or of a heap: drowse_stats."""

    live_bytes: int
    live_blocks: int
    mapped_bytes: int
    reserved_bytes: int
    backup_bytes: int
    discarded_bytes: int
    pinned_bytes: int
    stuck_bytes: int
    sleeps: int
    wakes: int
    state: State
    holds: int
    metadata_bytes: int
    file_bytes: int
    host_bytes: int
    huge_bytes: int
    pageable_bytes: int
    sealed: bool


class Block(NamedTuple):
    """What an address is in: drowse_block."""

    base: int
    bytes: int
    tag: str
    stream: int
    state: State


class Progress(NamedTuple):
    """How far an operation is: drowse_progress. tag: the one being copied."""

    done_bytes: int
    total_bytes: int
    tag: Optional[str]


Rules = Union[str, Iterable[str], Mapping[Optional[str], Action]]
Tags = Union[None, str, Iterable[str]]
OnProgress = Callable[[Progress], object]


def _text(value: Optional[bytes]) -> str:
    return (value or b"").decode("utf-8", "replace")


class _Raised(threading.local):
    """What a heap's callbacks raised on this thread: they run on the one that waits."""

    error: Optional[BaseException] = None

    def take(self) -> Optional[BaseException]:
        error, self.error = self.error, None
        return error


def _milliseconds(seconds: Optional[float]) -> int:
    """None: for ever. What is more than nothing does not become nothing."""
    return -1 if seconds is None else max(0, -int(-seconds * 1000 // 1))


def _members(struct: Any, names: Sequence[str]) -> List[Any]:
    """A structure's members, text as text."""
    values = (getattr(struct, name) for name in names)
    return [_text(value) if isinstance(value, bytes) else value for value in values]


def _stats(struct: StatsStruct) -> Stats:
    plain = Stats._make(_members(struct, Stats._fields))
    return plain._replace(state=State(plain.state), sealed=bool(plain.sealed))


def devices() -> List[Device]:
    """Every device there is, the host device last."""
    found: List[Device] = []

    def each(_context: Any, device: Any) -> int:
        found.append(Device._make(_members(device.contents, Device._fields)))
        return 0

    check(_devices(EACH_DEVICE(each), None))
    return found


class Op:
    """A sleep or a wake that goes on without being waited for. As a context manager it is waited for at the end."""

    def __init__(self, pointer: c_void_p, heap: "Heap", keep: Sequence[Any], raised: List[BaseException]) -> None:
        self._pointer = pointer
        self._heap = heap  # whose callbacks the operation may call
        self._keep = keep
        self._raised = raised

    def wait(self, timeout: Optional[float] = None) -> None:
        """Waits for the end and raises what it failed with; seconds, None: for ever. Callbacks run here; what one of them raises
        cancels the operation and is raised here. So does an interrupt, as of Ctrl-C."""
        left = _milliseconds(timeout)
        try:
            while True:
                slice_ms = 50 if left < 0 else min(left, 50)  # so that Python can look at its signals
                status = _op_wait(self._pointer, slice_ms)
                if self._raised or self._heap._raised.error is not None or status != Status.TIMEOUT:
                    break
                left -= slice_ms if left > 0 else 0
                if left == 0:
                    break
            error = last_error() if status != 0 else None
        except BaseException:
            self._end()
            raise
        raised = self._raised.pop() if self._raised else self._heap._raised.take()
        if raised is not None:
            self._end()
            raise raised
        if error is not None:
            raise error

    def _end(self) -> None:
        _op_cancel(self._pointer)
        _op_wait(self._pointer, -1)

    def done(self) -> bool:
        """Whether it has ended, however."""
        return bool(_op_wait(self._pointer, 0) != Status.TIMEOUT)

    def progress(self) -> Tuple[int, int]:
        """How many bytes have been copied, of how many."""
        done, total = c_uint64(), c_uint64()
        check(_op_progress(self._pointer, byref(done), byref(total)))
        return done.value, total.value

    def cancel(self) -> None:
        """Asks it to end as if it had not been begun: wait() then raises CanceledError, or it was too late."""
        check(_op_cancel(self._pointer))

    def __enter__(self) -> "Op":
        return self

    def __exit__(self, *error: object) -> None:
        self.wait()

    def __del__(self) -> None:
        if self._keep:  # callbacks must not outlive what they call
            self._end()
        _op_release(self._pointer)


class Hold:
    """with heap.hold("weights"): ... waits until the tag is awake, and keeps it awake."""

    __slots__ = ("_heap", "_tag", "_timeout")

    def __init__(self, heap: "Heap", tag: str, timeout: Optional[float]) -> None:
        self._heap = heap
        self._tag = tag_pointer(tag)
        self._timeout = _milliseconds(timeout)

    def __enter__(self) -> "Hold":
        check(_hold_tag(self._heap.pointer, self._tag, self._timeout))
        return self

    def __exit__(self, *error: object) -> None:
        check(_unhold_tag(self._heap.pointer, self._tag))


class Heap:
    """The memory that drowse owns on one device: "cuda:0", "host:4GiB", "auto"; None: $DROWSE_DEVICE, else "cuda:0".

    pressure(missing_bytes) is called when device memory is short, and returns whether it has freed some; woken(tag) is called
    for each tag that a wake has woken. Both run on the thread that waits. Close it, or use it as a context manager.
    """

    def __init__(
        self,
        device: Optional[str] = None,
        *,
        settings: Optional[str] = None,
        exportable: bool = False,
        rdma: bool = False,
        cuda_context: Optional[int] = None,
        backup_limit: int = 0,
        backup_keep: int = 0,
        peers: Sequence[str] = (),
        pressure: Optional[Callable[[int], object]] = None,
        woken: Optional[Callable[[str], object]] = None,
    ) -> None:
        self.pointer: Optional[int] = None  # the drowse_heap
        self._raised = _Raised()
        options = HeapOptionsStruct(
            device=text_bytes(device),
            settings=text_bytes(settings),
            flags=int(exportable) | int(rdma) << 1,
            cuda_context=cuda_context,
            backup_limit=backup_limit,
            backup_keep=backup_keep,
        )
        if pressure is not None:
            frees = pressure
            options.pressure = PRESSURE(self._guard(lambda _context, missing: 0 if frees(missing) else Status.NO_DEVICE_MEMORY))
        if woken is not None:
            hears = woken
            options.woken = WOKEN(self._guard(lambda _context, tag: hears(_text(tag)) and None))
        if peers:
            options.peers = (c_char_p * len(peers))(*[text_bytes(peer) for peer in peers])
            options.peer_count = len(peers)
        self._options = options  # its callbacks are called as long as the heap is open
        heap = c_void_p()
        check(_heap_open(byref(heap), byref(options)))
        self.pointer = heap.value
        self._owned = True

    @classmethod
    def borrowed(cls, pointer: int) -> "Heap":
        """One that somebody else has opened and closes."""
        heap = cls.__new__(cls)
        heap.pointer = pointer
        heap._raised = _Raised()
        heap._owned = False
        return heap

    def _guard(self, callback: Callable[..., Any]) -> Callable[..., Any]:
        """C cannot pass an exception on: it is kept for who waits. What a callback that failed returns is an error."""

        def call(*arguments: Any) -> Any:
            try:
                return callback(*arguments)
            except BaseException as error:
                self._raised.error = error
                return Status.CANCELED

        return call

    def _check(self, status: int) -> None:
        raised = self._raised.take()
        if status != 0 and raised is not None:
            raise raised
        check(status)

    def close(self) -> None:
        """Ends the heap and everything in it. Once closed nothing happens."""
        pointer, self.pointer = self.pointer, None
        if pointer is not None and self._owned:
            check(_heap_close(pointer))

    def __enter__(self) -> "Heap":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # ---- memory

    def alloc(
        self,
        size: int,
        stream: int = 0,
        *,
        tag: Optional[str] = None,
        expandable: Optional[bool] = None,
        alignment: int = 0,
    ) -> int:
        """The address of size bytes of device memory; what is not given is the current frame's."""
        options = AllocOptionsStruct(tag=text_bytes(tag), expandable=EXPANDABLE[expandable], alignment=alignment)
        address = c_void_p()
        self._check(_alloc_with(self.pointer, size, stream, byref(options), byref(address)))
        return address.value or 0

    def free(self, address: int, stream: Optional[int] = None) -> None:
        """Frees a block; it may be reused after the work now on its stream, or on the one given."""
        check(_free(self.pointer, address) if stream is None else _free_on(self.pointer, address, stream))

    def record_stream(self, address: int, stream: int) -> None:
        """Says that a stream other than the block's own uses it."""
        check(_record_stream(self.pointer, address, stream))

    def stream_retire(self, stream: int) -> None:
        """To be called before a stream is destroyed."""
        check(_stream_retire(self.pointer, stream))

    def copy_in(self, address: int, data: Any) -> None:
        """Copies from an object with a buffer (bytes, memoryview, array) to any range inside one block. Asleep: to the backup."""
        view = memoryview(data).cast("B")
        source = (c_char_p(data) if isinstance(data, bytes) else
                  c_void_p(0) if not len(view) else
                  byref((c_bool * len(view)).from_buffer(view)) if not view.readonly else c_char_p(bytes(view)))
        check(_copy_in(self.pointer, address, source, len(view)))

    def copy_out(self, address: int, size: int) -> bytes:
        """The bytes of any range inside one block. Asleep: of the backup."""
        data = bytearray(size)
        self.copy_into(data, address)
        return bytes(data)

    def copy_into(self, data: Any, address: int) -> None:
        """Copies from any range inside one block to a writable buffer, as much as fits there."""
        view = memoryview(data).cast("B")
        check(_copy_out(self.pointer, (c_bool * len(view)).from_buffer(view), address, len(view)))

    def clear(self, tag: str) -> None:
        """Frees every block of a tag."""
        check(_tag_clear(self.pointer, text_bytes(tag)))

    def trim(self, keep_bytes: int = 0, wait: bool = True) -> None:
        """Gives unused memory back to the device: of all streams, after the work on the device, or what is idle now."""
        check((_trim if wait else _trim_idle)(self.pointer, keep_bytes))

    # ---- sleep and wake

    def _watch(self, progress: Optional[OnProgress], raised: List[BaseException]) -> Any:
        if progress is None:
            return PROGRESS()
        shows = progress

        def call(_context: Any, now: Any) -> None:
            if not raised:
                try:
                    tag = now.contents.tag
                    shows(Progress(now.contents.done_bytes, now.contents.total_bytes, None if tag is None else _text(tag)))
                except BaseException as error:
                    raised.append(error)

        return PROGRESS(call)

    def sleep_start(
        self,
        rules: Rules,
        *,
        drain: Drain = Drain.DEVICE,
        streams: Sequence[int] = (),
        drain_timeout: Optional[float] = None,
        backup: Backup = Backup.HOST,
        directory: Optional[str] = None,
        progress: Optional[OnProgress] = None,
    ) -> Op:
        """Starts what sleep() does."""
        if isinstance(rules, str):
            rules = (rules,)
        if not isinstance(rules, Mapping):
            rules = {tag: Action.OFFLOAD for tag in rules}
        if drain_timeout is not None and drain_timeout <= 0:
            raise InvalidError("drain_timeout is %r: more than 0, or None" % drain_timeout)
        array = (RuleStruct * len(rules))(*[RuleStruct(text_bytes(tag), Action(action)) for tag, action in rules.items()])
        raised: List[BaseException] = []
        watch = self._watch(progress, raised)
        options = SleepOptionsStruct(
            drain=drain,
            streams=(c_void_p * len(streams))(*streams) if streams else None,
            stream_count=len(streams),
            drain_timeout_ms=_milliseconds(drain_timeout),
            backup=backup,
            directory=text_bytes(directory),
            progress=watch,
        )
        op = c_void_p()
        check(_sleep_start(self.pointer, array, len(array), byref(options), byref(op)))
        return Op(op, self, (watch,) if progress is not None else (), raised)

    def sleep(self, rules: Rules, **options: Any) -> None:
        """Puts tags to sleep, all of them or none. A tag, or several, are offloaded; else a mapping says what becomes of each,
        and None of every tag that it does not name. Options: those of sleep_start()."""
        self.sleep_start(rules, **options).wait()

    def wake_start(
        self,
        tags: Tags = None,
        *,
        deadline: Optional[float] = 0,
        together: bool = False,
        zero: bool = False,
        poison: bool = False,
        progress: Optional[OnProgress] = None,
    ) -> Op:
        """Starts what wake() does."""
        names = [] if tags is None else [tags] if isinstance(tags, str) else list(tags)
        raised: List[BaseException] = []
        watch = self._watch(progress, raised)
        options = WakeOptionsStruct(
            flags=int(together) | int(zero) << 1 | int(poison) << 2, deadline_ms=_milliseconds(deadline), progress=watch
        )
        array = (c_char_p * len(names))(*[text_bytes(name) for name in names])
        op = c_void_p()
        check(_wake_start(self.pointer, None if tags is None else array, len(names), byref(options), byref(op)))
        return Op(op, self, (watch,) if progress is not None else (), raised)

    def wake(self, tags: Tags = None, **options: Any) -> None:
        """Wakes tags in the order given; None: every tag. For want of device memory it is tried again for `deadline` seconds
        (0: once, None: for ever). Options: those of wake_start()."""
        self.wake_start(tags, **options).wait()

    def hold(self, tag: str, timeout: Optional[float] = None) -> Hold:
        """A context manager that keeps the tag awake."""
        return Hold(self, tag, timeout)

    def seal(self, tag: str) -> None:
        """Promises that the tag's contents do not change while it is awake, so that it is copied once."""
        check(_seal(self.pointer, text_bytes(tag)))

    def unseal(self, tag: str) -> None:
        """Takes the promise back."""
        check(_unseal(self.pointer, text_bytes(tag)))

    def backup_reserve(self, size: int, wait: bool = True) -> None:
        """Sees to it that so much host memory for backups is there, touched and pinned."""
        check((_backup_reserve if wait else _backup_reserve_start)(self.pointer, size))

    def backup_trim(self, keep_bytes: int = 0) -> None:
        """Gives unused host memory for backups back."""
        check(_backup_trim(self.pointer, keep_bytes))

    # ---- seeing

    def info(self) -> Info:
        """What the heap runs on and with."""
        info = HeapInfoStruct()
        check(_heap_info_get(self.pointer, byref(info)))
        return Info._make(_members(info, Info._fields))

    def stats(self, tag: Optional[str] = None) -> Stats:
        """Of a tag, or of the heap."""
        stats = StatsStruct()
        check(_stats_get(self.pointer, text_bytes(tag), byref(stats)))
        return _stats(stats)

    def tags(self) -> Dict[str, Stats]:
        """Every tag, in the order of their first allocation."""
        found: Dict[str, Stats] = {}

        def each(_context: Any, tag: bytes, stats: Any) -> int:
            found[_text(tag)] = _stats(stats.contents)
            return 0

        check(_each_tag(self.pointer, EACH_TAG(each), None))
        return found

    def tag_wait(self, tag: str, state: State, timeout: Optional[float] = None) -> None:
        """Waits until the tag is in that state."""
        check(_tag_wait(self.pointer, text_bytes(tag), state, _milliseconds(timeout)))

    def block(self, address: int) -> Block:
        """The live block that the address is in."""
        block = BlockStruct()
        check(_block_get(self.pointer, address, byref(block)))
        plain = Block._make(_members(block, Block._fields))
        return plain._replace(base=plain.base or 0, stream=plain.stream or 0, state=State(plain.state))
