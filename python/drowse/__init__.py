# SPDX-License-Identifier: Apache-2.0
"""drowse: GPU memory by tag, and tags that can be put to sleep.

    import drowse

    with drowse.Heap("auto") as heap:
        with drowse.scope("weights"):
            address = heap.alloc(64 << 20)
        heap.copy_in(address, b"slept well")
        heap.sleep("weights")  # the device has its 64 MiB back
        heap.wake()  # the address is what it was
        print(heap.copy_out(address, 10))

drowse.torch puts PyTorch's memory under a tag, drowse.vllm is vLLM's sleep-mode allocator. Everything may be called from any
thread; what fails raises a drowse.Error of a class of its own for each status.
"""

from ctypes import c_char_p

from ._errors import (
    AsleepError,
    BusyError,
    CanceledError,
    CorruptError,
    DeviceLostError,
    DriverError,
    Error,
    FileError,
    ForkedError,
    HookError,
    InvalidError,
    NoAddressSpaceError,
    NoDeviceError,
    NoDeviceMemoryError,
    NoHostMemoryError,
    NotFoundError,
    PoisonedError,
    ScopeError,
    SettingsError,
    Status,
    SystemRefusedError,
    TimedOutError,
    UnsupportedError,
    last_error,
)
from ._heap import Action, Backup, Block, Device, Drain, Heap, Hold, Info, Op, Progress, State, Stats, devices
from ._library import function as _function
from ._scope import Frame, Stack, carry, current, generator, scope, task
from ._settings import Dialect, settings_edit, settings_parse

KEEP, OFFLOAD, DISCARD = Action.KEEP, Action.OFFLOAD, Action.DISCARD

__version__: str = _function("drowse_version", c_char_p)().decode()

__all__ = [
    "KEEP",
    "OFFLOAD",
    "DISCARD",
    "Action",
    "AsleepError",
    "Backup",
    "Block",
    "BusyError",
    "CanceledError",
    "CorruptError",
    "Device",
    "DeviceLostError",
    "Dialect",
    "Drain",
    "DriverError",
    "Error",
    "FileError",
    "ForkedError",
    "Frame",
    "Heap",
    "Hold",
    "HookError",
    "Info",
    "InvalidError",
    "NoAddressSpaceError",
    "NoDeviceError",
    "NoDeviceMemoryError",
    "NoHostMemoryError",
    "NotFoundError",
    "Op",
    "PoisonedError",
    "Progress",
    "ScopeError",
    "SettingsError",
    "Stack",
    "State",
    "Stats",
    "Status",
    "SystemRefusedError",
    "TimedOutError",
    "UnsupportedError",
    "carry",
    "current",
    "devices",
    "generator",
    "last_error",
    "scope",
    "settings_edit",
    "settings_parse",
    "task",
]
