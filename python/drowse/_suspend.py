# SPDX-License-Identifier: Apache-2.0
"""Scopes that would stay open across an await or a yield.

A thread has one stack of frames. A coroutine or a generator that is suspended inside a scope would leave its frame to whatever
runs next on the thread. drowse.task and drowse.generator give each a stack of its own; where neither does, this finds out as
the scope is entered, from the code: does the with statement's body suspend?
"""

import contextlib
import dis
import inspect
from types import CodeType, FrameType
from typing import Dict, Iterator, List, Optional, Set, Tuple

SUSPENDABLE = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ITERABLE_COROUTINE | inspect.CO_ASYNC_GENERATOR
_AWAITING = inspect.CO_COROUTINE | inspect.CO_ITERABLE_COROUTINE
_SUSPENDING = {"YIELD_VALUE", "YIELD_FROM"}
_manager_enter = contextlib._GeneratorContextManager.__enter__.__code__
_found: Dict[Tuple[CodeType, int], bool] = {}

step_codes: Set[CodeType] = set()  # of what runs the steps of a coroutine or a generator on a stack of its own


def _exception_table(table: bytes) -> Iterator[Tuple[int, int, int]]:
    """A code object's table since Python 3.11, in bytes: start, end and handler of each range.

    Numbers have six bits a byte, the first of each entry is marked. (CPython: InternalDocs/exception_handling.md)
    """
    numbers: List[int] = []
    following = False
    for byte in table:
        if following:
            numbers[-1] = numbers[-1] << 6 | byte & 63
        else:
            numbers.append(byte & 63)
        following = bool(byte & 64)
    for start, length, target, _depth in zip(*[iter(numbers)] * 4):
        yield 2 * start, 2 * (start + length), 2 * target


def _body_by_table(code: CodeType, at: int) -> Set[int]:
    """Since Python 3.11: what raises to the with statement's handler, also by way of other handlers."""
    offsets = [each.offset for each in dis.get_instructions(code)]
    entries = sorted(_exception_table(code.co_exceptiontable))  # type: ignore[attr-defined, unused-ignore]
    own = next((entry for entry in entries if at < entry[0] <= at + 10), None)
    if own is None:
        return set()
    handlers, body = {own[2]}, set()  # type: Set[int], Set[int]
    while True:
        more = {each for each in offsets if any(start <= each < end and to in handlers for start, end, to in entries)}
        if more == body:
            return body
        body = more
        handlers |= {to for start, end, to in entries if to in body}


def _body_by_setup(code: CodeType, at: int) -> Set[int]:
    """Up to Python 3.10: what lies between SETUP_WITH and its handler."""
    instructions = list(dis.get_instructions(code))
    end = next((each.argval for each in instructions if each.offset == at and each.opname == "SETUP_WITH"), at)
    return {each.offset for each in instructions if at < each.offset < end}


def _suspends_inside(code: CodeType, at: int) -> bool:
    key = (code, at)
    if key not in _found:
        body = _body_by_table(code, at) if hasattr(code, "co_exceptiontable") else _body_by_setup(code, at)
        _found[key] = any(each.offset in body and each.opname in _SUSPENDING for each in dis.get_instructions(code))
    return _found[key]


def _takes_steps(frame: FrameType) -> bool:
    """Whether drowse.task or drowse.generator runs this. What awaits is suspended together with what it awaits."""
    above: Optional[FrameType] = frame.f_back
    if frame.f_code.co_flags & _AWAITING:
        while above is not None and above.f_code.co_flags & _AWAITING:
            above = above.f_back
    return above is not None and above.f_code in step_codes


def left_open(frame: FrameType, stacks: bool = True) -> Optional[FrameType]:
    """The frame that would be suspended inside the with statement that it is about to enter; None: there is none, or, with
    stacks, it has a stack of its own.

    A generator that contextlib made a context manager of has its scope open for whoever uses that: there the question is the
    same once more.
    """
    above = frame.f_back
    if above is not None and above.f_code is _manager_enter:
        user = above.f_back
        return left_open(user, stacks) if user is not None and user.f_code.co_flags & SUSPENDABLE else None
    return frame if _suspends_inside(frame.f_code, frame.f_lasti) and not (stacks and _takes_steps(frame)) else None
