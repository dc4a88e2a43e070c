# SPDX-License-Identifier: Apache-2.0
"""Scopes: which tag the next allocation of this thread gets, and stacks of frames for what a thread runs in turns."""

import functools
import inspect
import sys
from ctypes import byref, c_char_p, c_int, c_void_p
from types import TracebackType
from typing import Any, AsyncGenerator, Awaitable, Callable, Coroutine, Dict, Generator, NamedTuple, Optional, Type, TypeVar, cast

from . import _framework, _suspend
from ._errors import Error, HookError, ScopeError, check, last_error
from ._library import FrameStruct, Token, function, quick

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

EXPANDABLE = {None: 0, True: 1, False: 2}  # a drowse_expandable
_of_expandable = {number: value for value, number in EXPANDABLE.items()}

_tag_get = function("drowse_tag_get", c_void_p, c_char_p)
_scope_current = function("drowse_scope_current", FrameStruct)
_stack_create = function("drowse_stack_create", c_int, c_void_p)
_stack_swap = function("drowse_stack_swap", c_int, c_void_p, c_void_p)
_stack_destroy = function("drowse_stack_destroy", None, c_void_p)
_enter = quick("drowse_scope_enter_tag")
_leave = quick("drowse_scope_leave")
_getframe = sys._getframe
_SUSPENDABLE = _suspend.SUSPENDABLE

_tags: Dict[Optional[str], Optional[c_void_p]] = {None: None}


def tag_pointer(name: Optional[str]) -> Optional[c_void_p]:
    """The interned name, which lives as long as the process. None: the enclosing frame's."""
    if name not in _tags:
        if not isinstance(name, str):
            raise TypeError("a tag is a str, not " + type(name).__name__)
        pointer = None if "\0" in name else _tag_get(name.encode("utf-8"))
        if pointer is None:
            raise ScopeError("a tag has no NUL: %r" % name) if "\0" in name else last_error()
        _tags[name] = c_void_p(pointer)
    return _tags[name]


class Frame(NamedTuple):
    """What is current."""

    tag: str
    expandable: Optional[bool]  # None: the heap decides
    depth: int  # open scopes of this thread


def current() -> Frame:
    """The current frame of this thread."""
    frame = _scope_current()
    return Frame(frame.tag.decode("utf-8"), _of_expandable[frame.expandable], frame.depth)


def _failure() -> Error:
    """What entering or leaving a scope failed with."""
    error = last_error()
    if isinstance(error, HookError):
        error.__cause__ = _framework.failure
    return error


class scope:
    """with scope("weights"): ... runs the block with that tag; so does a function under @scope("weights").

    tag None is the enclosing frame's; expandable says whether memory comes from expandable segments: None is the enclosing
    frame's choice, or the heap's. One object can be used again, but is open once at a time.
    """

    __slots__ = ("_tag", "_expandable", "_token", "tag", "expandable")

    suspendable = True  # where a task or a generator has a stack of its own

    def __init__(self, tag: Optional[str] = None, expandable: Optional[bool] = None) -> None:
        self._tag = _tags[tag] if tag in _tags else tag_pointer(tag)
        self._expandable = EXPANDABLE[expandable]
        self._token: Optional[Any] = None
        self.tag = tag
        self.expandable = expandable

    def __enter__(self: T) -> T:
        return self._open(_getframe(1))  # type: ignore[attr-defined, no-any-return]

    def _open(self, caller: Any) -> Any:
        if self._token is not None:
            raise ScopeError("this scope %r is open already: use one object for each" % self.tag)
        if caller.f_code.co_flags & _SUSPENDABLE:
            _refuse_suspended(self, caller)
        token = Token()
        if _enter(token, self._tag, self._expandable):
            raise _failure()
        self._token = token
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        token, self._token = self._token, None
        if token is None:
            raise ScopeError("this scope %r is not open" % self.tag)
        if _leave(token):
            raise _failure()

    def again(self) -> "scope":
        """Another one like it."""
        return type(self)(self.tag, self.expandable)

    def __call__(self, function: F) -> F:
        return decorate(self.again, function)


def decorate(make: Callable[[], Any], function: F) -> F:
    """The function, each call of it inside a scope that make() makes. Coroutines and generators get a stack of their own."""
    wrapper: Callable[..., Any]
    if inspect.iscoroutinefunction(function):

        @task
        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            with make():
                return await function(*args, **kwargs)

    elif inspect.isgeneratorfunction(function):

        @generator
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with make():
                return (yield from function(*args, **kwargs))

    elif inspect.isasyncgenfunction(function):
        raise TypeError("%s: put the scope inside, and @drowse.generator here" % function.__qualname__)
    else:

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with make():
                return function(*args, **kwargs)

    return cast(F, wrapper)


def carry(function: F) -> F:
    """The function, run with the frame that is current now on whichever thread calls it."""
    frame = current()
    return decorate(lambda: scope(frame.tag, frame.expandable), function)


def _refuse_suspended(opened: scope, caller: Any) -> None:
    frame = _suspend.left_open(caller, opened.suspendable)
    if frame is not None:
        code, way = frame.f_code, "run the coroutine by drowse.task, or make it @drowse.generator"
        raise ScopeError(
            "the scope %r in %s (%s:%d) would stay open across an await or a yield, where others run: %s"
            % (opened.tag, code.co_name, code.co_filename, frame.f_lineno, way if opened.suspendable else "end it before")
        )


# ---- stacks of frames of their own


class Stack:
    """A stack of frames of its own, for what a thread runs in turns: fibers, tasks."""

    __slots__ = ("_stack",)

    def __init__(self) -> None:
        self._stack: Optional[int] = None
        stack = c_void_p()
        check(_stack_create(byref(stack)))
        self._stack = stack.value

    def run(self, function: Callable[..., T], *args: Any) -> T:
        """Calls the function with this stack current, and puts the one before back."""
        if self._stack is None:
            raise ScopeError("the stack is closed")
        before = c_void_p()
        check(_stack_swap(self._stack, byref(before)))
        try:
            return function(*args)
        finally:
            check(_stack_swap(before, None))

    def close(self) -> None:
        """Ends its scopes and itself."""
        stack, self._stack = self._stack, None
        if stack is not None:
            _stack_destroy(stack)

    def __enter__(self) -> "Stack":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class _Steps:
    """What runs something on a stack of its own, step by step: an awaitable, and what `yield from` takes."""

    __slots__ = ("_inner", "_stack")

    def __init__(self, inner: Any, stack: Stack) -> None:
        self._inner = inner
        self._stack = stack

    def __await__(self) -> Any:
        return self

    __iter__ = __await__

    def __next__(self) -> Any:
        return self.send(None)

    def send(self, value: Any) -> Any:
        return self._stack.run(self._inner.send, value)

    def throw(self, *error: Any) -> Any:
        return self._stack.run(self._inner.throw, *error)

    def close(self) -> None:
        self._stack.run(self._inner.close)


_suspend.step_codes.add(Stack.run.__code__)


async def _drive(coroutine: Coroutine[Any, Any, T]) -> T:
    with Stack() as stack:
        return cast(T, await _Steps(coroutine, stack))


def task(work: Any) -> Any:
    """A coroutine, or each that an async function makes, with a stack of frames of its own, so that its scopes may be open across
    an await: asyncio.create_task(drowse.task(work())), or @drowse.task above `async def`."""
    if inspect.iscoroutine(work):
        return _drive(work)
    if not inspect.iscoroutinefunction(work):
        raise TypeError("drowse.task takes a coroutine or an async function, not %r" % (work,))

    @functools.wraps(work)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return await _drive(work(*args, **kwargs))

    return wrapper


def generator(function: F) -> F:
    """The same for a generator function, or an asynchronous one: its scopes may be open across a yield."""
    wrapper: Callable[..., Any]
    if inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
            with Stack() as stack:
                inner = function(*args, **kwargs)
                step: Awaitable[Any] = inner.asend(None)
                try:
                    while True:
                        value = await _Steps(step, stack)
                        try:
                            step = inner.asend((yield value))
                        except GeneratorExit:
                            await _Steps(inner.aclose(), stack)
                            raise
                        except BaseException as error:
                            step = inner.athrow(error)
                except StopAsyncIteration:
                    return

    elif inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            with Stack() as stack:
                return (yield from _Steps(function(*args, **kwargs), stack))

    else:
        raise TypeError("drowse.generator takes a generator function, not %r" % (function,))
    return cast(F, wrapper)
