# SPDX-License-Identifier: Apache-2.0
"""The library, and its structures as ctypes has them.

Looked for in $DROWSE_LIBRARY, a folder or a file, then beside this package, then as the loader looks for libraries.
"""

import ctypes
import os
from ctypes import CFUNCTYPE, POINTER, c_bool, c_char, c_char_p, c_double, c_int, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from typing import Any, Type

SONAME = "libdrowse.so.1"


def path_of(name: str) -> str:
    """Where the library of that name is: a path, or the name for the loader to look for."""
    given = os.environ.get("DROWSE_LIBRARY", "")
    if given and not os.path.isdir(given):
        if name == SONAME:
            return given
        given = os.path.dirname(given)
    for folder in (given, os.path.dirname(os.path.abspath(__file__))):
        if folder and os.path.exists(os.path.join(folder, name)):
            return os.path.join(folder, name)
    return name


class Sized(ctypes.Structure):
    """What begins with struct_size."""

    def __init__(self, **members: Any) -> None:
        super().__init__(struct_size=ctypes.sizeof(self), **members)


class ErrorStruct(Sized):
    _fields_ = [
        ("struct_size", c_size_t),
        ("status", c_int),
        ("driver_code", c_int),
        ("system_errno", c_int),
        ("wanted_bytes", c_uint64),
        ("free_bytes", c_uint64),
        ("largest_free_bytes", c_uint64),
        ("tag", c_char * 64),
    ]


class FrameStruct(ctypes.Structure):
    _fields_ = [("tag", c_char_p), ("expandable", c_int), ("depth", c_size_t)]


GET_EXPANDABLE = CFUNCTYPE(c_int, c_void_p, POINTER(c_bool))
SET_EXPANDABLE = CFUNCTYPE(c_int, c_void_p, c_bool)
STAMP = CFUNCTYPE(c_uint64, c_void_p)


class FrameworkStruct(Sized):
    _fields_ = [
        ("struct_size", c_size_t),
        ("flags", c_uint32),
        ("context", c_void_p),
        ("get_expandable", GET_EXPANDABLE),
        ("set_expandable", SET_EXPANDABLE),
        ("stamp", STAMP),
    ]


class DeviceStruct(Sized):
    _fields_ = [
        ("struct_size", c_size_t),
        ("device", c_char * 64),
        ("name", c_char * 128),
        ("uuid", c_char * 64),
        ("total_bytes", c_uint64),
        ("granularity", c_uint64),
        ("driver_version", c_int),
        ("unusable", c_char * 128),
    ]


PRESSURE = CFUNCTYPE(c_int, c_void_p, c_uint64)
WOKEN = CFUNCTYPE(None, c_void_p, c_char_p)


class HeapOptionsStruct(Sized):
    _fields_ = [
        ("struct_size", c_size_t),
        ("device", c_char_p),
        ("settings", c_char_p),
        ("flags", c_uint32),
        ("cuda_context", c_void_p),
        ("backup_limit", c_uint64),
        ("pressure", PRESSURE),
        ("pressure_context", c_void_p),
        ("peers", POINTER(c_char_p)),
        ("peer_count", c_size_t),
        ("woken", WOKEN),
        ("woken_context", c_void_p),
        ("backup_keep", c_uint64),
    ]


class HeapInfoStruct(Sized):
    _fields_ = [
        ("struct_size", c_size_t),
        ("device", c_char * 64),
        ("device_source", c_char_p),
        ("expandable", c_bool),
        ("settings_source", c_char_p),
        ("granularity", c_uint64),
        ("total_bytes", c_uint64),
        ("free_bytes", c_uint64),
        ("backup_limit", c_uint64),
    ]


class AllocOptionsStruct(Sized):
    _fields_ = [
        ("struct_size", c_size_t),
        ("tag", c_char_p),
        ("expandable", c_int),
        ("alignment", c_size_t),
        ("flags", c_uint32),
    ]


class RuleStruct(ctypes.Structure):
    _fields_ = [("tag", c_char_p), ("action", c_int), ("flags", c_uint32), ("reserved", c_uint64 * 2)]


class ProgressStruct(ctypes.Structure):
    _fields_ = [("done_bytes", c_uint64), ("total_bytes", c_uint64), ("tag", c_char_p)]


PROGRESS: Any = CFUNCTYPE(None, c_void_p, POINTER(ProgressStruct))


class SleepOptionsStruct(Sized):
    _fields_ = [
        ("struct_size", c_size_t),
        ("flags", c_uint32),
        ("drain", c_int),
        ("streams", POINTER(c_void_p)),
        ("stream_count", c_size_t),
        ("drain_timeout_ms", c_int64),
        ("backup", c_int),
        ("directory", c_char_p),
        ("progress", PROGRESS),
        ("context", c_void_p),
    ]


class WakeOptionsStruct(Sized):
    _fields_ = [
        ("struct_size", c_size_t),
        ("flags", c_uint32),
        ("deadline_ms", c_int64),
        ("progress", PROGRESS),
        ("context", c_void_p),
    ]


class StatsStruct(Sized):
    _fields_ = [
        ("struct_size", c_size_t),
        ("live_bytes", c_uint64),
        ("live_blocks", c_uint64),
        ("mapped_bytes", c_uint64),
        ("reserved_bytes", c_uint64),
        ("backup_bytes", c_uint64),
        ("discarded_bytes", c_uint64),
        ("pinned_bytes", c_uint64),
        ("stuck_bytes", c_uint64),
        ("sleeps", c_uint64),
        ("wakes", c_uint64),
        ("state", c_int),
        ("holds", c_uint32),
        ("metadata_bytes", c_uint64),
        ("file_bytes", c_uint64),
        ("host_bytes", c_uint64),
        ("huge_bytes", c_uint64),
        ("pageable_bytes", c_uint64),
        ("sealed", c_uint32),
        ("reserved", c_uint32),
    ]


class BlockStruct(Sized):
    _fields_ = [
        ("struct_size", c_size_t),
        ("base", c_void_p),
        ("bytes", c_uint64),
        ("tag", c_char_p),
        ("stream", c_void_p),
        ("state", c_int),
    ]


class SettingsStruct(Sized):
    _fields_ = [
        ("struct_size", c_size_t),
        ("expandable_segments", c_bool),
        ("max_split_size", c_uint64),
        ("max_non_split_rounding", c_uint64),
        ("garbage_collection_threshold", c_double),
        ("roundup_power2_divisions", c_uint64 * 16),
        ("backend", c_int),
        ("release_lock_on_cudamalloc", c_bool),
        ("graph_capture_record_stream_reuse", c_bool),
        ("pinned_use_cuda_host_register", c_bool),
        ("pinned_use_background_threads", c_bool),
        ("pinned_num_register_threads", c_uint64),
        ("pinned_reserve_segment_size", c_uint64),
        ("per_process_memory_fraction", c_double),
    ]


EACH_DEVICE = CFUNCTYPE(c_int, c_void_p, POINTER(DeviceStruct))
EACH_TAG = CFUNCTYPE(c_int, c_void_p, c_char_p, POINTER(StatsStruct))

Token = c_uint64 * 2  # a drowse_scope. In memory of its own, so drowse never takes it for one on a C stack that was jumped out of

library = ctypes.CDLL(path_of(SONAME))


def function(name: str, result: Any, *arguments: Any) -> Any:
    """The library's function of that name. Each call gives Python's lock away: any may wait for a hook or for the device."""
    prototype: Type[Any] = CFUNCTYPE(result, *arguments)
    return prototype((name, library))


def quick(name: str) -> Any:
    """The same for what is called often: ctypes is a third faster where it need not convert. Arguments must be C's already."""
    found = ctypes.CDLL(library._name, handle=library._handle)[name]
    found.restype = c_int
    return found
