# SPDX-License-Identifier: Apache-2.0
"""PyTorch's expandable_segments and its other settings. expandable=False has every version of PyTorch do what those do that need
the flag off. B1.11: vLLM's switch was turned back on inside a live pool, by whoever left first, and took other settings along."""

import threading

import pytest
import torch

import drowse
import drowse.torch
from drowse.torch import use_memory_pool
from shared import CUDA, MIB, is_expandable, live, run, set_settings, tag_of

OTHERS = "max_split_size_mb:128,garbage_collection_threshold:0.75,roundup_power2_divisions:[256:1,512:2,>:4]"

WALK = """
def flag(): return live()["expandable_segments"]
def tensor(): return torch.empty(30 * MIB, dtype=torch.uint8, device=CUDA)
torch.empty(1, device=CUDA)
%s
before = live()
seen = [flag()]
with use_memory_pool("a", expandable=False):
    seen.append(flag()); x = tensor()
    with use_memory_pool("b", expandable=False):
        seen.append(flag()); y = tensor()
    seen.append(flag()); z = tensor()
    try:
        with use_memory_pool("c", expandable=False):
            1 / 0
    except ZeroDivisionError:
        seen.append(flag())
seen.append(flag())
assert live() == before, (before, live())
assert [tag_of(each) for each in (x, y, z)] == ["a", "b", "a"]
assert is_expandable(tensor())
print(seen)
"""
RIGHT = "[True, False, False, False, False, True]\n"


@pytest.mark.parametrize(
    "name, text",
    [
        ("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True"),
        ("PYTORCH_HIP_ALLOC_CONF", "expandable_segments:True"),
        ("PYTORCH_ALLOC_CONF", "expandable_segments:True"),
        ("PYTORCH_CUDA_ALLOC_CONF", OTHERS + ", expandable_segments: True"),
        ("PYTORCH_ALLOC_CONF", "expandable_segments:False,expandable_segments:True,"),
    ],
)
def test_by_variable(name, text):
    assert run(WALK % "", **{name: text}) == RIGHT


@pytest.mark.parametrize(
    "call",
    [
        "import warnings; warnings.simplefilter('ignore'); torch.cuda.memory._set_allocator_settings('expandable_segments:True')",
        "set_settings('expandable_segments:True,%s')" % OTHERS,
        "set_settings('expandable_segments:True'); set_settings('%s')" % OTHERS,
        "set_settings('expandable_segments:True'); set_settings('')",
    ],
)
def test_at_run_time(call):
    assert run(WALK % call) == RIGHT


def test_a_refused_string_is_not_taken_for_what_is_live():
    set_settings("expandable_segments:True,max_split_size_mb:256")
    with pytest.raises(Exception):
        set_settings("max_split_size_mb:512,no_such_key:1")
    before = live()
    with use_memory_pool("a", expandable=False):
        assert not live()["expandable_segments"]
        inside = live()
    after = live()
    values = ("expandable_segments", "max_split_size", "garbage_collection_threshold", "roundup_power2_divisions")
    assert [after[key] for key in values] == [before[key] for key in values]
    assert [inside[key] for key in values[1:]] == [before[key] for key in values[1:]]


def test_threads_that_leave_in_any_order():
    """B1.11; facts, Measured (c): who left first turned it on for who was still inside."""
    set_settings("expandable_segments:True")
    torch.empty(MIB, device=CUDA)
    entered, leave = threading.Event(), threading.Event()

    def other():
        with use_memory_pool("b", expandable=False):
            entered.set()
            leave.wait()

    with use_memory_pool("a", expandable=False):
        thread = threading.Thread(target=other)
        thread.start()
        entered.wait()
    assert not live()["expandable_segments"], "another thread is inside"
    leave.set()
    thread.join()
    assert live()["expandable_segments"]


def test_many_threads():
    set_settings("expandable_segments:True," + OTHERS)
    torch.empty(MIB, device=CUDA)
    before, wrong = live(), []

    def work(number):
        for _ in range(10):
            with use_memory_pool("thread %d" % number, expandable=False):
                tensor = torch.empty(3 * MIB, dtype=torch.uint8, device=CUDA)
                if live()["expandable_segments"] or tag_of(tensor) != "thread %d" % number:
                    wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [] and live() == before


def test_settings_that_are_changed_inside():
    set_settings("expandable_segments:True")
    torch.empty(MIB, device=CUDA)
    with use_memory_pool("a", expandable=False):
        set_settings("max_split_size_mb:64")  # of something else: the flag stays off, and comes back
        assert not live()["expandable_segments"]
    assert live()["expandable_segments"] and live()["max_split_size"] == 64 * MIB
    with use_memory_pool("a", expandable=False):
        set_settings("expandable_segments:False")  # of the flag: who does that means it
    assert not live()["expandable_segments"]


def test_switched_off_at_run_time_it_stays_off():
    """Facts, Measured (c): a setting changed to False came back as True."""
    assert run(
        "set_settings('expandable_segments:False')\nwith use_memory_pool('a', expandable=False): pass\n"
        "print(live()['expandable_segments'])",
        PYTORCH_CUDA_ALLOC_CONF="expandable_segments:True",
    ) == "False\n"


def test_a_scope_alone_has_the_flag_off():
    """For memory that legacy IPC shares: PyTorch's own, from discrete segments."""
    set_settings("expandable_segments:True")
    drowse.torch.attach()
    with drowse.scope(expandable=False):
        inside = torch.empty(30 * MIB, dtype=torch.uint8, device=CUDA)
    outside = torch.empty(30 * MIB, dtype=torch.uint8, device=CUDA)
    assert not is_expandable(inside) and is_expandable(outside) and tag_of(inside) is None


def test_a_hook_that_fails_fails_the_scope(monkeypatch):
    set_settings("expandable_segments:True")
    torch.empty(MIB, device=CUDA)

    def refuse(text):
        raise ValueError("not today")

    monkeypatch.setattr(drowse.torch, "_set_settings", refuse)
    with pytest.raises(drowse.HookError) as failed:
        with use_memory_pool("a", expandable=False):
            raise AssertionError("the scope was entered")
    assert str(failed.value.__cause__) == "not today"
    assert drowse.current().depth == 0 and live()["expandable_segments"]
