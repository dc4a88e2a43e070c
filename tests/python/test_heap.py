# SPDX-License-Identifier: Apache-2.0
"""Heaps on the host device: memory, sleep and wake, errors, callbacks."""

import os
import subprocess
import sys
import threading
import unittest

import drowse

MIB = 1 << 20
SIZE = 4 * MIB


def data(seed):
    return bytes((seed + number) % 251 for number in range(4096)) * (SIZE // 4096)


class Heaps(unittest.TestCase):
    def setUp(self):
        self.heap = drowse.Heap("host:64MiB")

    def tearDown(self):
        self.heap.close()

    def made(self, tag, seed):
        with drowse.scope(tag):
            address = self.heap.alloc(SIZE)
        self.heap.copy_in(address, data(seed))
        return address

    def state(self, tag):
        return self.heap.stats(tag).state

    def test_sleep_and_wake(self):
        weights, cache = self.made("weights", 1), self.made("kv_cache", 2)
        self.heap.sleep({"weights": drowse.OFFLOAD, None: drowse.DISCARD})
        stats = self.heap.stats()
        self.assertEqual((stats.mapped_bytes, stats.backup_bytes, stats.discarded_bytes), (0, SIZE, SIZE))
        self.assertEqual(self.heap.copy_out(weights, SIZE), data(1))  # of the backup
        with self.assertRaises(drowse.AsleepError) as failed:
            self.heap.copy_out(cache, 1)
        self.assertEqual(failed.exception.status, drowse.Status.ASLEEP)
        self.heap.wake("weights")
        self.assertEqual((self.state("weights"), self.state("kv_cache")), (drowse.State.AWAKE, drowse.State.ASLEEP))
        self.heap.wake(zero=True)
        self.assertEqual((self.heap.copy_out(weights, SIZE), self.heap.copy_out(cache, SIZE)), (data(1), bytes(SIZE)))
        self.assertEqual(list(self.heap.tags()), ["weights", "kv_cache"])

    def test_buffers(self):
        address = self.heap.alloc(SIZE)
        for source in (b"abcd", bytearray(b"efgh"), memoryview(b"ijkl"), b""):
            self.heap.copy_in(address + 5, source)
            self.assertEqual(self.heap.copy_out(address + 5, len(source)), bytes(source))
        with self.assertRaises(drowse.InvalidError):
            self.heap.copy_out(address, SIZE + 1)

    def test_in_files(self):
        address = self.made("weights", 3)
        self.heap.sleep("weights", backup=drowse.Backup.FILE, directory=os.environ.get("TMPDIR", "/tmp"))
        self.assertEqual(self.heap.stats("weights").file_bytes, SIZE)
        self.heap.wake()
        self.assertEqual(self.heap.copy_out(address, SIZE), data(3))
        with self.assertRaises(drowse.FileError):
            self.heap.sleep("weights", backup=drowse.Backup.FILE, directory="/nonexistent")
        self.assertEqual(self.state("weights"), drowse.State.AWAKE)

    def test_progress(self):
        self.made("weights", 1)
        seen = []
        self.heap.sleep("weights", progress=seen.append)
        self.assertEqual(seen[-1][:2], (SIZE, SIZE))
        self.heap.wake(progress=seen.append)
        self.assertEqual(seen[-1][:2], (SIZE, SIZE))

    def test_what_progress_raises_cancels(self):
        address = self.made("weights", 1)
        with self.assertRaises(ZeroDivisionError):
            self.heap.sleep("weights", progress=lambda now: 1 / 0)
        self.heap.wake()
        self.assertEqual(self.heap.copy_out(address, SIZE), data(1))

    def test_what_progress_raises_is_its_operations(self):
        self.made("weights", 1)
        op = self.heap.sleep_start("weights", progress=lambda now: 1 / 0)
        while not op.done():
            pass
        self.heap.alloc(SIZE, tag="other")
        self.heap.wake_start("other").wait()
        with self.assertRaises(ZeroDivisionError):
            op.wait()

    def test_an_operation_is_let_go_in_a_child(self):
        self.made("weights", 1)
        op = self.heap.sleep_start("weights", progress=lambda now: None)
        child = os.fork()
        if child == 0:
            problems = []
            sys.unraisablehook = problems.append
            del op
            os._exit(len(problems))
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        op.wait()

    def test_operations(self):
        address = self.made("weights", 1)
        with self.heap.sleep_start("weights") as op:
            pass
        self.assertTrue(op.done())
        self.assertEqual(op.progress(), (SIZE, SIZE))
        self.heap.wake_start().wait(timeout=60)
        self.assertEqual(self.heap.copy_out(address, SIZE), data(1))

    def test_sealed(self):
        self.made("weights", 1)
        self.heap.seal("weights")
        copied = []
        for _ in range(2):
            seen = [0]
            self.heap.sleep("weights", progress=lambda now: seen.append(now.done_bytes))
            copied.append(seen[-1])
            self.heap.wake()
        self.assertEqual(copied, [SIZE, 0])
        self.assertTrue(self.heap.stats("weights").sealed)
        self.heap.unseal("weights")

    def test_held(self):
        self.made("weights", 1)
        with self.heap.hold("weights"):
            with self.assertRaises(drowse.BusyError):
                self.heap.sleep("weights", drain_timeout=0.01)
        self.heap.sleep("weights")
        with self.assertRaises(drowse.TimedOutError), self.heap.hold("weights", timeout=0):
            pass

    def test_waiting_lets_other_threads_run(self):
        self.made("weights", 1)
        self.heap.sleep("weights")
        waits = threading.Thread(target=self.heap.tag_wait, args=("weights", drowse.State.AWAKE))
        waits.start()
        self.heap.wake()
        waits.join()

    def test_want_of_memory(self):
        with self.assertRaises(drowse.NoDeviceMemoryError) as failed:
            self.heap.alloc(60 * MIB << 4, tag="weights")
        error = failed.exception
        self.assertEqual((error.tag, error.wanted_bytes >= 60 * MIB << 4), ("weights", True))
        self.assertIn("weights", str(error))

    def test_a_wake_without_memory_can_be_tried_again(self):
        address = self.made("weights", 1)
        self.heap.sleep("weights")
        hog = self.heap.alloc(62 * MIB)
        for _ in range(2):
            with self.assertRaises(drowse.NoDeviceMemoryError):
                self.heap.wake()
            self.assertEqual(self.state("weights"), drowse.State.ASLEEP)
        self.heap.free(hog)
        self.heap.wake()
        self.assertEqual(self.heap.copy_out(address, SIZE), data(1))

    def test_no_text_is_cut(self):
        self.made("weights", 1)
        for call in (
            lambda: self.heap.alloc(SIZE, tag="weights\0"),
            lambda: self.heap.sleep({"weights\0": drowse.DISCARD}),
            lambda: self.heap.wake("weights\0"),
            lambda: drowse.Heap("host:64MiB\0"),
            lambda: drowse.Heap("host:64MiB", peers=["host:64MiB\0"]),
            lambda: drowse.settings_parse("expandable_segments:True\0,nonsense"),
            lambda: drowse.settings_edit("a:1", "a\0b", "2"),
        ):
            with self.assertRaisesRegex(drowse.InvalidError, "NUL"):
                call()
        self.assertEqual((self.state("weights"), self.heap.stats().live_blocks), (drowse.State.AWAKE, 1))

    def test_trim(self):
        self.heap.free(self.heap.alloc(SIZE))
        self.heap.trim(64 * MIB, wait=False)
        self.assertGreaterEqual(self.heap.stats().mapped_bytes, SIZE)
        self.heap.trim()
        self.assertEqual(self.heap.stats().mapped_bytes, 0)

    def test_blocks(self):
        address = self.made("weights", 1)
        self.assertEqual(self.heap.block(address + 100), (address, SIZE, "weights", 0, drowse.State.AWAKE))
        self.heap.clear("weights")
        with self.assertRaises(drowse.NotFoundError):
            self.heap.block(address)

    def test_hooks(self):
        woken, asked = [], []

        def pressure(missing):
            asked.append(missing)
            heap.free(hog)
            return True

        with drowse.Heap("host:64MiB", woken=woken.append, pressure=pressure) as heap:
            heap.alloc(SIZE, tag="weights")
            heap.sleep("weights")
            hog = heap.alloc(62 * MIB)
            heap.wake(deadline=None)
        self.assertEqual((woken, len(asked)), (["weights"], 1))

    def test_a_hook_that_raises(self):
        def pressure(missing):
            1 / 0

        with drowse.Heap("host:64MiB", pressure=pressure) as heap, self.assertRaises(ZeroDivisionError):
            heap.alloc(63 * MIB)
            heap.alloc(SIZE)

    def test_devices(self):
        self.assertIn("host", [device.device for device in drowse.devices()])
        self.assertEqual(self.heap.info().total_bytes, 64 * MIB)
        with self.assertRaises(drowse.Error):
            drowse.Heap("no such device")

    def test_settings(self):
        self.assertTrue(drowse.settings_parse("expandable_segments:True")["expandable_segments"])
        self.assertEqual(drowse.settings_edit("a:1,b:2", "b", "3"), "a:1,b:3")
        with self.assertRaises(drowse.SettingsError) as failed:
            drowse.settings_parse("expandable_segments:maybe")
        self.assertGreater(failed.exception.offset, 0)

    def test_forked(self):
        self.made("weights", 1)
        child = os.fork()
        if child == 0:
            try:
                self.heap.alloc(SIZE)
            except drowse.ForkedError:
                os._exit(7)
            os._exit(1)
        self.assertEqual(os.WEXITSTATUS(os.waitpid(child, 0)[1]), 7)

    def test_a_process_ends_while_asleep(self):
        code = "import drowse; heap = drowse.Heap('host:64MiB'); heap.alloc(1 << 20, tag='a'); heap.sleep('a'); print('asleep')"
        done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.assertEqual((done.returncode, done.stdout), (0, "asleep\n"))


if __name__ == "__main__":
    unittest.main()
