# SPDX-License-Identifier: Apache-2.0
"""drowse.torch and drowse.vllm on the host device, beside a fake of PyTorch that has its allocator's rules. The real one is for
tests/gpu/torch."""

import asyncio
import gc
import itertools
import threading
import unittest
from unittest import mock

import torch  # the fake

import drowse
import drowse.torch
import drowse.vllm
from drowse.torch import use_memory_pool

MIB = 1 << 20
names = ("tag %d" % number for number in itertools.count())
LONG = "max_split_size_mb:128,garbage_collection_threshold:0.75,roundup_power2_divisions:[256:1,512:2,>:4]"


def tag_of(tensor):
    return drowse.torch.heap().block(tensor.data_ptr()).tag if tensor.data_ptr() else None


class Pools(unittest.TestCase):
    def tearDown(self):
        gc.collect()
        drowse.torch.empty_cache()
        self.assertEqual((torch.underway, torch.modes, drowse.current().depth), ([], [], 0))
        self.assertEqual(drowse.torch.heap().stats().live_bytes, 0)

    def test_tags(self):
        with use_memory_pool("a"):
            first = torch.empty(MIB)
            with use_memory_pool("b"), use_memory_pool("a"):
                second = torch.empty(MIB)
            third = torch.empty(MIB)
        self.assertEqual([tag_of(each) for each in (first, second, third, torch.empty(MIB))], ["a", "a", "a", None])

    def test_the_same_tag_again(self):
        """One pool serves short scopes; one that has grown is let go, so that its memory can come back."""
        name = next(names)
        before = len(torch.pools)
        for _ in range(100):
            with use_memory_pool(name):
                torch.empty(MIB)
        self.assertEqual((len(torch.pools), drowse.torch.heap().stats(name).live_blocks), (before + 1, 1))
        with use_memory_pool(name):
            large = torch.empty(80 * MIB)
        self.assertFalse(drowse.torch._idle.get((0, name)))
        del large
        torch.empty_cache()
        self.assertEqual(drowse.torch.heap().stats(name).live_bytes, 0)

    def test_exceptions(self):
        with self.assertRaises(ZeroDivisionError), use_memory_pool("a"):
            1 / 0
        with mock.patch.object(torch.cuda, "use_mem_pool", side_effect=ValueError), self.assertRaises(ValueError):
            use_memory_pool("a").__enter__()

    def test_want_of_memory_takes_what_is_unused(self):
        """Which PyTorch would not give back while a pool is open."""
        with use_memory_pool("a"):
            kept = torch.empty(MIB)
            torch.empty(150 * MIB)
            with use_memory_pool("b"):
                torch.empty(150 * MIB)
            self.assertEqual(tag_of(torch.empty(200 * MIB)), "a")
        self.assertEqual(tag_of(kept), "a")

    def test_what_changes_tensors_is_not_done_twice(self):
        with use_memory_pool("a"):
            torch.empty(150 * MIB)
            with self.assertRaises(torch.OutOfMemoryError):
                torch.add_(200 * MIB)

    def test_without_another_try(self):
        with use_memory_pool("a", retry=False):
            self.assertEqual(torch.modes, [])
            torch.empty(150 * MIB)
            with self.assertRaises(torch.OutOfMemoryError):
                torch.empty(200 * MIB)
            with use_memory_pool("b"):
                self.assertEqual(len(torch.modes), 1)

    def test_too_much_is_too_much(self):
        with use_memory_pool("a"), self.assertRaises(torch.OutOfMemoryError):
            torch.empty(300 * MIB)

    def test_a_sleeping_tag_refuses_and_says_so(self):
        with use_memory_pool("a"):
            kept = torch.empty(MIB)
        drowse.torch.sleep("a")
        with use_memory_pool("a"), self.assertRaises(torch.OutOfMemoryError) as failed:
            torch.empty(MIB)
        self.assertIsInstance(failed.exception.__cause__, drowse.AsleepError)
        drowse.torch.wake()
        self.assertEqual(tag_of(kept), "a")

    def test_threads(self):
        wrong = []

        def work(tag):
            for _ in range(20):
                with use_memory_pool(tag):
                    tensor = torch.empty(MIB)
                if tag_of(tensor) != tag:
                    wrong.append(tag)

        with use_memory_pool("outside"):
            threads = [threading.Thread(target=work, args=(tag,)) for tag in "abcdef"]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            found = []
            for function in (lambda: found.append(torch.empty(MIB)), drowse.torch.carry(lambda: found.append(torch.empty(MIB)))):
                thread = threading.Thread(target=function)
                thread.start()
                thread.join()
        self.assertEqual((wrong, [tag_of(each) for each in found]), ([], [None, "outside"]))

    def test_carried_to_a_thread_with_another_device(self):
        devices, enter, here = [], torch.cuda.use_mem_pool, threading.get_ident()

        def note(pool, device=None):
            devices.append(device)
            return enter(pool, device)

        with mock.patch.object(torch.cuda, "current_device", lambda: int(threading.get_ident() == here)), mock.patch.object(
            torch.cuda, "use_mem_pool", note
        ):
            with use_memory_pool("a"):
                thread = threading.Thread(target=drowse.torch.carry(lambda: None))
                thread.start()
                thread.join()
        self.assertEqual(devices, [1, 1])

    def test_none_is_open_across_an_await(self):
        @drowse.task
        async def work():
            with use_memory_pool("a"):
                await asyncio.sleep(0)

        with self.assertRaisesRegex(drowse.ScopeError, "end it before"):
            asyncio.run(work())

    def test_graphs(self):
        with drowse.torch.graph_pool("graphs") as pool, torch.use_mem_pool(torch.pools[pool]):
            between = torch.empty(MIB)
        self.assertEqual(tag_of(between), "graphs")

    def test_a_wake_gives_back_first(self):
        with use_memory_pool("weights"):
            kept = torch.empty(100 * MIB)
        drowse.torch.sleep("weights")
        with use_memory_pool("other"):
            torch.empty(200 * MIB)
        drowse.torch.wake()
        self.assertEqual(tag_of(kept), "weights")


class Flag(unittest.TestCase):
    """expandable_segments, and what else there is set."""

    def setUp(self):
        torch.set_settings("expandable_segments:False")

    def walk(self):
        before, flags = torch._snapshot(), []
        with use_memory_pool("a", expandable=False):
            flags.append(torch.settings["expandable_segments"])
            with use_memory_pool("b", expandable=False):
                flags.append(torch.settings["expandable_segments"])
            flags.append(torch.settings["expandable_segments"])
        self.assertEqual((flags, torch._snapshot()), ([False] * 3, before))

    def test_each_spelling(self):
        for text in (
            "expandable_segments:True",
            LONG + ", expandable_segments: True",
            "expandable_segments:False,expandable_segments:True",
            "expandable_segments:True,",
        ):
            with self.subTest(text=text):
                torch.set_settings(text)
                self.walk()

    def test_the_string_need_not_name_the_flag(self):
        torch.set_settings("expandable_segments:True")
        for text in (LONG, ""):
            with self.subTest(text=text):
                torch.set_settings(text)
                self.walk()

    def test_off_it_is_left_alone(self):
        writes = len(torch.writes)
        self.walk()
        self.assertEqual(len(torch.writes), writes)

    def test_not_needed_it_is_not_changed(self):
        torch.set_settings("expandable_segments:True")
        writes = len(torch.writes)
        with use_memory_pool("a"):
            self.assertTrue(torch.settings["expandable_segments"])
        self.assertEqual(len(torch.writes), writes)

    def test_a_refused_string(self):
        torch.set_settings("expandable_segments:True")
        with self.assertRaises(ValueError):
            torch.set_settings("max_split_size_mb:512,no_such_key:1")
        with use_memory_pool("a", expandable=False):
            self.assertFalse(torch.settings["expandable_segments"])
        self.assertTrue(torch.settings["expandable_segments"])

    def test_changed_inside(self):
        torch.set_settings("expandable_segments:True")
        with use_memory_pool("a", expandable=False):
            torch.set_settings("max_split_size_mb:64")
        self.assertEqual((torch.settings["expandable_segments"], torch.settings["max_split_size"]), (True, 64 * MIB))
        with use_memory_pool("a", expandable=False):
            torch.set_settings("expandable_segments:False")
        self.assertFalse(torch.settings["expandable_segments"])

    def test_a_hook_that_fails(self):
        torch.set_settings("expandable_segments:True")
        if drowse.torch._framework.is_attached():
            drowse.torch._framework.detach()
        with mock.patch.object(drowse.torch, "_set_settings", side_effect=ValueError("not today")):
            with self.assertRaises(drowse.HookError) as failed:
                use_memory_pool("a", expandable=False).__enter__()
        drowse.torch._framework.detach()
        self.assertEqual(str(failed.exception.__cause__), "not today")
        self.assertTrue(torch.settings["expandable_segments"])


class Vllm(unittest.TestCase):
    def tearDown(self):
        drowse.torch.wake()

    def test_allocator_and_backend(self):
        allocator, backend = drowse.vllm.CuMemAllocator.get_instance(), drowse.vllm.DrowseBackend()
        with allocator.use_memory_pool("weights"):
            weights = torch.empty(4 * MIB)
        with allocator.use_memory_pool("kv_cache"):
            cache = torch.empty(4 * MIB)
        with use_memory_pool("trainer"):
            other = torch.empty(4 * MIB)
        self.assertEqual((allocator.get_current_usage(), allocator.mapped_usage()), (8 * MIB, 8 * MIB))
        backend.suspend(level=1)
        self.assertEqual((allocator.get_current_usage(), allocator.mapped_usage()), (8 * MIB, 0))
        self.assertEqual(drowse.torch.heap().stats("weights").backup_bytes, 4 * MIB)
        self.assertEqual(drowse.torch.heap().stats("trainer").state, drowse.State.AWAKE)
        backend.resume(["weights"])
        self.assertEqual(backend.state(), "SUSPENDED")
        backend.resume()
        self.assertEqual(backend.state(), "RUNNING")
        allocator.discard("kv_cache")
        self.assertEqual(drowse.torch.heap().stats("kv_cache").discarded_bytes, 4 * MIB)
        allocator.wake_up()
        del weights, cache, other

    def test_what_the_engine_runs_with_wakes_first_as_it_was(self):
        allocator, heap = drowse.vllm.CuMemAllocator.get_instance(), drowse.torch.heap()
        tensors = []
        for tag in ("weights", "kv_cache", "runtime", "workspace", None):
            with allocator.use_memory_pool(tag):
                tensors.append(torch.empty(4 * MIB))
        allocator.sleep(())
        self.assertEqual(heap.stats("runtime").backup_bytes, 4 * MIB)
        self.assertEqual(heap.stats("workspace").discarded_bytes, 4 * MIB)
        allocator.wake_up(["kv_cache"])
        states = {tag: heap.stats(tag).state for tag in ("weights", "kv_cache", "runtime", "workspace", "default")}
        self.assertEqual({tag for tag, state in states.items() if state != drowse.State.AWAKE}, {"weights"})
        allocator.wake_up("weights")
        mapped = allocator.mapped_usage()
        tensors.clear()
        allocator.release_pools()
        self.assertEqual((mapped, allocator.mapped_usage()), (20 * MIB, 0))


if __name__ == "__main__":
    unittest.main()
