# SPDX-License-Identifier: Apache-2.0
"""Scopes: with, decorators, exceptions, threads, tasks and generators."""

import asyncio
import contextlib
import threading
import unittest

import drowse


def tag():
    return drowse.current().tag


class Scopes(unittest.TestCase):
    def tearDown(self):
        self.assertEqual(drowse.current(), ("default", None, 0))

    def test_nested(self):
        with drowse.scope("a"):
            with drowse.scope("b", expandable=False):
                self.assertEqual(drowse.current(), ("b", False, 2))
            with drowse.scope():
                self.assertEqual(drowse.current(), ("a", None, 2))
            self.assertEqual(tag(), "a")

    def test_an_exception(self):
        with self.assertRaises(ZeroDivisionError), drowse.scope("a"):
            1 / 0

    def test_a_decorator(self):
        @drowse.scope("a")
        def function(depth):
            return [tag()] + (function(depth - 1) if depth else [])

        self.assertEqual(function(3), ["a"] * 4)

    def test_one_object_is_open_once(self):
        scope = drowse.scope("a")
        with scope, self.assertRaises(drowse.ScopeError), scope:
            pass
        with self.assertRaises(drowse.ScopeError):
            scope.__exit__(None, None, None)

    def test_left_on_another_thread(self):
        failed = []

        def leave(scope):
            try:
                scope.__exit__(None, None, None)
            except drowse.ScopeError as error:
                failed.append(error)

        scope = drowse.scope("a")
        scope.__enter__()
        token = scope._token
        thread = threading.Thread(target=leave, args=(scope,))
        thread.start()
        thread.join()
        self.assertEqual(len(failed), 1)
        scope._token = token
        scope.__exit__(None, None, None)

    def test_names(self):
        with drowse.scope("wörter"):
            self.assertEqual(tag(), "wörter")
        for name, error in (("", drowse.Error), ("a\0b", drowse.Error), ("a" * 99, drowse.Error), (7, TypeError)):
            with self.assertRaises(error):
                drowse.scope(name)

    def test_threads(self):
        found = []
        with drowse.scope("a"):
            for function in (lambda: found.append(tag()), drowse.carry(lambda: found.append(tag()))):
                thread = threading.Thread(target=function)
                thread.start()
                thread.join()
        self.assertEqual(found, ["default", "a"])


class Suspended(unittest.TestCase):
    """What runs in turns on one thread."""

    def test_tasks(self):
        found = []

        async def work(name):
            with drowse.scope(name):
                for _ in range(5):
                    found.append(tag() == name)
                    await asyncio.sleep(0)

        async def main():
            await asyncio.gather(*[drowse.task(work(name)) for name in "abc"])
            return tag()

        self.assertEqual(asyncio.run(main()), "default")
        self.assertEqual(found, [True] * 15)

    def test_a_task_that_is_canceled(self):
        @drowse.task
        async def work():
            with drowse.scope("a"):
                await asyncio.sleep(1000)

        async def main():
            running = asyncio.create_task(work())
            await asyncio.sleep(0)
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
            return drowse.current()

        self.assertEqual(asyncio.run(main()), ("default", None, 0))

    def test_generators(self):
        @drowse.generator
        def numbers(name):
            with drowse.scope(name):
                for number in range(3):
                    yield number, tag()

        found = [(pair, tag()) for pair in zip(numbers("a"), numbers("b"))]
        self.assertEqual(found, [(((number, "a"), (number, "b")), "default") for number in range(3)])
        half = numbers("a")
        next(half)
        half.close()
        self.assertEqual(drowse.current().depth, 0)

    def test_asynchronous_generators(self):
        @drowse.generator
        async def numbers():
            with drowse.scope("a"):
                for number in range(3):
                    await asyncio.sleep(0)
                    yield number, tag()

        async def main():
            return [(pair, tag()) async for pair in numbers()]

        self.assertEqual(asyncio.run(main()), [((number, "a"), "default") for number in range(3)])

    def test_open_across_an_await_is_refused(self):
        async def work():
            with drowse.scope("a"):
                await asyncio.sleep(0)

        with self.assertRaisesRegex(drowse.ScopeError, "await or a yield"):
            asyncio.run(work())

    def test_open_across_a_yield_is_refused(self):
        def numbers():
            with drowse.scope("a"):
                yield 1

        with self.assertRaisesRegex(drowse.ScopeError, "numbers .*test_scope.py"):
            next(numbers())

    def test_what_suspends_outside_is_not(self):
        def numbers():
            with drowse.scope("a"):
                name = tag()
            yield name

        async def work():
            with drowse.scope("b"):
                name = tag()
            await asyncio.sleep(0)
            return name

        self.assertEqual((list(numbers()), asyncio.run(work())), (["a"], "b"))

    def test_a_context_manager_made_of_a_generator(self):
        @contextlib.contextmanager
        def opened():
            with drowse.scope("a"):
                yield

        with opened():
            self.assertEqual(tag(), "a")
        self.assertEqual(tag(), "default")

    def test_stacks(self):
        with drowse.Stack() as stack, drowse.scope("outside"):
            scope = drowse.scope("inside")
            stack.run(scope.__enter__)
            self.assertEqual((tag(), stack.run(tag)), ("outside", "inside"))
        with self.assertRaisesRegex(drowse.ScopeError, "closed"):
            stack.run(tag)


if __name__ == "__main__":
    unittest.main()
