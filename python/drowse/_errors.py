# SPDX-License-Identifier: Apache-2.0
"""Errors: one class for each status."""

import enum
from ctypes import byref, c_char_p, c_int, c_void_p
from typing import Dict, Optional, Type

from ._library import ErrorStruct, function


class Status(enum.IntEnum):
    """What a call of the library returns."""

    OK = 0
    INVALID = -1
    NO_DEVICE = -2
    NO_DEVICE_MEMORY = -3
    NO_HOST_MEMORY = -4
    NO_ADDRESS_SPACE = -5
    DRIVER = -6
    DEVICE_LOST = -7
    ASLEEP = -8
    BUSY = -9
    NOT_FOUND = -10
    SCOPE = -11
    HOOK = -12
    SETTINGS = -13
    FORKED = -14
    POISONED = -15
    TIMEOUT = -16
    CANCELED = -17
    IO = -18
    CORRUPT = -19
    SYSTEM = -20
    UNSUPPORTED = -21


class Error(RuntimeError):
    """A call of the library failed. str() names what was wrong; members that say nothing about this failure are 0 or ""."""

    status: int = Status.INVALID
    driver_code: int = 0  # the CUresult of the driver call that failed
    system_errno: int = 0
    wanted_bytes: int = 0
    free_bytes: int = 0
    largest_free_bytes: int = 0
    tag: str = ""


class InvalidError(Error):
    """A bad argument."""


class NoDeviceError(Error):
    """No such device, or no driver."""

    status = Status.NO_DEVICE


class NoDeviceMemoryError(Error):
    """The device has not enough free memory."""

    status = Status.NO_DEVICE_MEMORY


class NoHostMemoryError(Error):
    """The host, its cgroup or the heap's backup_limit has not enough memory."""

    status = Status.NO_HOST_MEMORY


class NoAddressSpaceError(Error):
    """No range of device addresses could be reserved."""

    status = Status.NO_ADDRESS_SPACE


class DriverError(Error):
    """A driver call failed."""

    status = Status.DRIVER


class DeviceLostError(Error):
    """A sticky error or a lost device: restart the process; sleeping tags stay readable."""

    status = Status.DEVICE_LOST


class AsleepError(Error):
    """The tag is asleep, or on its way there or back."""

    status = Status.ASLEEP


class BusyError(Error):
    """Somebody else is at work on it: try again later."""

    status = Status.BUSY


class NotFoundError(Error):
    """No such tag, no such block."""

    status = Status.NOT_FOUND


class ScopeError(Error):
    """A scope left twice, on another thread, nested too deep, or open across an await or a yield."""

    status = Status.SCOPE


class HookError(Error):
    """A framework's hook failed: __cause__ says how."""

    status = Status.HOOK


class SettingsError(Error):
    """A settings string does not parse."""

    status = Status.SETTINGS


class ForkedError(Error):
    """Inherited through fork."""

    status = Status.FORKED


class PoisonedError(Error):
    """Where the tag's bytes are is not known."""

    status = Status.POISONED


class TimedOutError(Error):
    """What was waited for goes on."""

    status = Status.TIMEOUT


class CanceledError(Error):
    """An operation was canceled and everything is as before it."""

    status = Status.CANCELED


class FileError(Error):
    """A file could not be read or written."""

    status = Status.IO


class CorruptError(Error):
    """A checksum does not match."""

    status = Status.CORRUPT


class SystemRefusedError(Error):
    """The system refused: system_errno says why."""

    status = Status.SYSTEM


class UnsupportedError(Error):
    """This version, or this driver, cannot do it."""

    status = Status.UNSUPPORTED


_classes: Dict[int, Type[Error]] = {Status.INVALID: InvalidError}
_classes.update((int(each.status), each) for each in Error.__subclasses__())

_error_get = function("drowse_error_get", c_int, c_void_p)
_last_error = function("drowse_last_error", c_char_p)


def last_error() -> Error:
    """This thread's last failure, whichever code called the library. Not raised."""
    record = ErrorStruct()
    _error_get(byref(record))
    error = _classes.get(record.status, Error)((_last_error() or b"").decode("utf-8", "replace"))
    error.status = record.status
    error.driver_code = record.driver_code
    error.system_errno = record.system_errno
    error.wanted_bytes = record.wanted_bytes
    error.free_bytes = record.free_bytes
    error.largest_free_bytes = record.largest_free_bytes
    error.tag = record.tag.decode("utf-8", "replace")
    return error


def check(status: int) -> None:
    """Raises what a status says."""
    if status != 0:
        raise last_error()


def text_bytes(value: Optional[str]) -> Optional[bytes]:
    """A text as the library takes it, which would read a NUL as its end."""
    if value is not None and "\0" in value:
        raise InvalidError("a text has no NUL: %r" % value)
    return None if value is None else value.encode("utf-8")
