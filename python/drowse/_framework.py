# SPDX-License-Identifier: Apache-2.0
"""A hosting framework's expandable_segments flag: drowse_framework with hooks in Python."""

from ctypes import byref, c_int, c_void_p
from typing import Any, Callable, Optional

from ._errors import check
from ._library import GET_EXPANDABLE, SET_EXPANDABLE, STAMP, FrameworkStruct, function

_attach = function("drowse_framework_attach", c_int, c_void_p)
_detach = function("drowse_framework_detach", c_int)

_PARENT_ONLY = 1
_attached: Optional[FrameworkStruct] = None  # its hooks may run until it is detached

failure: Optional[BaseException] = None  # why a hook failed last


def _guard(hook: Callable[..., Optional[int]]) -> Callable[..., int]:
    def call(*arguments: Any) -> int:
        global failure
        try:
            return hook(*arguments) or 0
        except BaseException as error:  # C cannot pass it on: the scope fails with HookError, for that reason
            failure = error
            return -1

    return call


def attach(get_expandable: Callable[[], bool], set_expandable: Callable[[bool], None], stamp: Callable[[], int]) -> None:
    """Keeps the framework's flag off while some stack's current frame says expandable=False: drowse_framework_attach(). In a
    forked child the framework is left alone."""
    global _attached

    def get(_context: Any, on: Any) -> None:
        on[0] = get_expandable()

    framework = FrameworkStruct(
        flags=_PARENT_ONLY,
        get_expandable=GET_EXPANDABLE(_guard(get)),
        set_expandable=SET_EXPANDABLE(_guard(lambda _context, on: set_expandable(on))),
        stamp=STAMP(_guard(lambda _context: stamp())),
    )
    check(_attach(byref(framework)))
    _attached = framework


def is_attached() -> bool:
    """Whether one is attached by this module."""
    return _attached is not None


def detach() -> None:
    """Turns the flag back to what it was; behind this no hook runs."""
    global _attached
    check(_detach())
    _attached = None
