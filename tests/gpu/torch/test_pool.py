# SPDX-License-Identifier: Apache-2.0
"""use_memory_pool: whose memory gets which tag, and where it goes when it is not used any more."""

import gc
import threading

import pytest
import torch

import drowse
import drowse.torch
from drowse.torch import use_memory_pool
from shared import CUDA, GIB, MIB, free_bytes, hog_all_but, is_expandable, pattern, run, same, set_settings, tag_of


def empty(size):
    return torch.empty(size, dtype=torch.uint8, device=CUDA)


def test_tags_nest_and_end():
    outside = empty(MIB)
    with use_memory_pool("outer"):
        first = empty(MIB)
        with use_memory_pool("inner"):
            second = empty(MIB)
            with use_memory_pool("outer"):
                third = empty(MIB)
        fourth = empty(MIB)
    after = empty(MIB)
    found = [tag_of(tensor) for tensor in (outside, first, second, third, fourth, after)]
    assert found == [None, "outer", "inner", "outer", "outer", None]
    assert drowse.current() == ("default", None, 0)


def test_as_a_decorator():
    @use_memory_pool("weights")
    def load():
        return empty(MIB)

    assert [tag_of(load()), tag_of(load())] == ["weights", "weights"]


def test_the_enclosing_frame_gives_the_tag():
    with drowse.scope("weights"), use_memory_pool():
        assert tag_of(empty(MIB)) == "weights"
    with use_memory_pool():
        assert tag_of(empty(MIB)) == "default"


def test_an_exception_ends_the_scope():
    """B1.12: what a body raises must not leave the pool open, nor what it allocated behind."""
    with pytest.raises(ZeroDivisionError), use_memory_pool("weights"):
        kept = empty(512 * MIB)
        1 / 0
    assert drowse.current() == ("default", None, 0) and tag_of(empty(MIB)) is None
    del kept
    gc.collect()
    drowse.torch.empty_cache()
    assert drowse.torch.heap().stats("weights").live_bytes == 0


def test_the_same_tag_again_and_again():
    """B1.12; facts, Measured (e): dropping the first pool of a tag ended the process. A thousand scopes take one segment."""
    before = free_bytes()
    kept = []
    for number in range(1000):
        with use_memory_pool("weights"):
            kept.append(torch.full((256,), number, device=CUDA))
    for _ in range(3):
        with use_memory_pool("weights"):
            kept.append(torch.zeros(128 * MIB, device=CUDA, dtype=torch.uint8))
        with use_memory_pool("weights"), use_memory_pool("weights"):
            kept.append(torch.zeros(128 * MIB, device=CUDA, dtype=torch.uint8))
    assert all(tag_of(tensor) == "weights" for tensor in kept)
    assert [int(tensor[0]) for tensor in kept[:1000]] == list(range(1000))
    assert before - free_bytes() < 6 * 128 * MIB + 150 * MIB


def test_threads_have_tags_of_their_own():
    """B1.10, B3.4: one tag for the process let a thread's memory get another's."""
    barrier = threading.Barrier(8)
    wrong = []

    def work(tag):
        for _ in range(20):
            barrier.wait()
            with use_memory_pool(tag):
                barrier.wait()  # all are inside
                tensors = [empty(size) for size in (1000, 3 * MIB, 30 * MIB)]
                barrier.wait()
            wrong.extend(tag_of(tensor) for tensor in tensors if tag_of(tensor) != tag)
            if tag_of(empty(MIB)) is not None:
                wrong.append("outside")

    threads = [threading.Thread(target=work, args=("thread %d" % number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_thread_started_inside_is_outside():
    with use_memory_pool("weights"):
        found = []
        thread = threading.Thread(target=lambda: found.append(tag_of(empty(MIB))))
        thread.start()
        thread.join()
        carried = threading.Thread(target=drowse.torch.carry(lambda: found.append(tag_of(empty(MIB)))))
        carried.start()
        carried.join()
    assert found == [None, "weights"]


def test_a_segment_has_one_tag():
    """B2.8: a cached segment of one tag was used for another, and slept with it."""
    with use_memory_pool("first"):
        kept, dropped = pattern(MIB, 1), empty(15 * MIB)
    del dropped
    with use_memory_pool("second"):
        other = pattern(15 * MIB, 2)
    assert [tag_of(kept), tag_of(other)] == ["first", "second"]
    drowse.torch.sleep("first")
    assert same(other, 2)
    drowse.torch.wake()
    assert same(kept, 1)


def test_no_bytes_and_a_first_allocation_on_a_thread():
    """B2.4: no bytes, and a thread that had no context yet, ended the process."""
    found = []

    def work():
        with use_memory_pool("weights"):
            found.append((empty(0).numel(), tag_of(empty(MIB))))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(0, "weights")]


def test_freed_on_another_thread_and_outside():
    """B2.3: freeing outside of a region, on another thread, ended the process."""
    box = []
    with use_memory_pool("weights"):
        box.append(empty(64 * MIB))
    thread = threading.Thread(target=box.clear)
    thread.start()
    thread.join()
    drowse.torch.empty_cache()
    assert drowse.torch.heap().stats("weights").live_bytes == 0


def test_other_streams():
    side = torch.cuda.Stream()
    with use_memory_pool("weights"):
        first = pattern(64 * MIB, 3)
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            second = first.clone()
            first.record_stream(side)
            del first
            third = second.clone()
        torch.cuda.current_stream().wait_stream(side)
        again = torch.zeros(64 * MIB, dtype=torch.uint8, device=CUDA)
    torch.cuda.synchronize()
    assert same(second, 3) and same(third, 3) and int(again.max()) == 0
    assert tag_of(third) == "weights"


def test_what_is_emptied_comes_back_inside():
    """PyTorch 159674: 60 percent, freed, then 70 percent, with the pool open all the time."""
    total = torch.cuda.mem_get_info()[1]
    with use_memory_pool("weights"):
        first = empty(int(total * 0.6))
        del first
        second = empty(int(total * 0.7))
        assert tag_of(second) == "weights"
        with use_memory_pool("kv_cache"):
            del second
            third = empty(int(total * 0.65))
            assert tag_of(third) == "kv_cache"


def test_what_is_emptied_comes_back_to_the_device():
    """B1.7, B1.18: what a pool had kept stayed reserved, or was unmapped behind PyTorch's back."""
    with use_memory_pool("weights"):
        empty(MIB)  # what is made at first use
    drowse.torch.empty_cache()
    before, reserved = free_bytes(), torch.cuda.memory_reserved()
    with use_memory_pool("weights"):
        inside = empty(4 * GIB)
        del inside
        drowse.torch.empty_cache()
        assert before - free_bytes() <= 32 * MIB, "inside"
        kept = empty(4 * GIB)
    del kept
    drowse.torch.empty_cache()
    assert before - free_bytes() <= 32 * MIB, "outside"
    assert torch.cuda.memory_reserved() - reserved <= 32 * MIB
    with use_memory_pool("weights"):
        assert same(pattern(GIB, 4), 4)


def test_what_is_emptied_is_there_for_memory_outside():
    """PyTorch, out of memory outside, lets go of what pools that have been left do not use: it must reach the device."""
    total = torch.cuda.mem_get_info()[1]
    with use_memory_pool("weights"):
        empty(int(total * 0.6))
    assert tag_of(empty(int(total * 0.6))) is None
    torch.cuda.empty_cache()
    with use_memory_pool("weights"):
        kept = empty(int(total * 0.6))
        assert tag_of(kept) == "weights"


def test_what_is_left_is_freed_while_other_pools_are_open():
    """Facts, Measured (e): a pool that was dropped while another was open ended the process."""
    opened, done = threading.Event(), threading.Event()

    def other():
        with use_memory_pool("other"):
            opened.set()
            done.wait()

    thread = threading.Thread(target=other)
    thread.start()
    opened.wait()
    for _ in range(3):
        with use_memory_pool("weights"):
            kept = empty(GIB)
        del kept
        gc.collect()
        torch.cuda.empty_cache()
    assert drowse.torch.heap().stats("weights").live_bytes == 0
    done.set()
    thread.join()


def test_load_then_replace():
    """vLLM 48680, 49151: tensors give way to slightly larger ones while the pool is open, with little memory to spare."""
    size, count = 256 * MIB, 24
    hog = hog_all_but(count * size + 3 * size)
    with use_memory_pool("weights"):
        model = [pattern(size, number) for number in range(count)]
        for number in range(count):
            larger = empty(size + 12 * MIB)
            larger[:size] = model[number]
            model[number] = larger
    assert all(same(tensor[:size], number) for number, tensor in enumerate(model))
    assert {tag_of(tensor) for tensor in model} == {"weights"}
    del hog


def test_want_of_memory_is_not_for_ever():
    """B1.4 to B1.6, B2.2: after one failed allocation all later ones failed, and the next wake raised that old error; entries and
    memory of it stayed behind; or the process ended."""
    total = torch.cuda.mem_get_info()[1]
    with use_memory_pool("weights"):
        kept = pattern(64 * MIB, 5)
        drowse.torch.empty_cache()
        before = drowse.torch.heap().stats()
        for _ in range(3):
            with pytest.raises(torch.OutOfMemoryError):
                empty(2 * total)
        assert drowse.torch.heap().stats()[:2] == before[:2]
        more = pattern(64 * MIB, 6)
    drowse.torch.sleep("weights")
    drowse.torch.wake()
    assert same(kept, 5) and same(more, 6)


def test_a_sleeping_tag_refuses_and_says_so():
    with use_memory_pool("weights"):
        kept = pattern(64 * MIB, 7)
    drowse.torch.sleep("weights")
    with use_memory_pool("weights"), pytest.raises(torch.OutOfMemoryError) as refused:
        empty(64 * MIB)
    assert isinstance(refused.value.__cause__, drowse.AsleepError) and "weights" in str(refused.value.__cause__)
    drowse.torch.wake()
    assert same(kept, 7)
    with use_memory_pool("weights"):
        assert tag_of(empty(64 * MIB)) == "weights"


def test_the_flag_stays_on_where_it_may():
    """B2.11, and 2.11 and later: a process with expandable segments keeps them, inside and outside."""
    set_settings("expandable_segments:True")
    outside = empty(30 * MIB)
    with use_memory_pool("weights"):
        inside = empty(30 * MIB)
        box = []
        thread = threading.Thread(target=lambda: box.append(empty(30 * MIB)))
        thread.start()
        thread.join()
    assert is_expandable(outside) and is_expandable(box[0]) and not is_expandable(inside)
    assert tag_of(inside) == "weights" and torch.cuda.memory._snapshot()["allocator_settings"]["expandable_segments"]


def test_ends_cleanly_while_asleep():
    code = """
with use_memory_pool("weights"):
    kept = pattern(256 * MIB, 8)
with use_memory_pool("kv_cache"):
    other = pattern(MIB, 9)
drowse.torch.sleep({"weights": drowse.OFFLOAD, "kv_cache": drowse.DISCARD})
print("asleep")
"""
    assert run(code) == "asleep\n"
    assert run(code.replace("print", "pool = use_memory_pool('weights'); pool.__enter__(); print")) == "asleep\n"


class Numbers(torch.utils.data.Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, index):
        with drowse.scope("workers"):
            return torch.tensor([index, len(drowse.current().tag)])


def test_data_loader_workers_are_forked_inside():
    with use_memory_pool("weights"):
        kept = pattern(64 * MIB, 9)
        loader = torch.utils.data.DataLoader(Numbers(), batch_size=8, num_workers=3, multiprocessing_context="fork")
        rows = torch.cat([batch.cuda() for batch in loader])
        assert tag_of(rows) == "weights"
    assert sorted(rows[:, 0].tolist()) == list(range(64)) and set(rows[:, 1].tolist()) == {7}
    drowse.torch.sleep("weights")
    drowse.torch.wake()
    assert same(kept, 9)
