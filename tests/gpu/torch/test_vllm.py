# SPDX-License-Identifier: Apache-2.0
"""drowse.vllm: what vLLM's own tests of its allocator look at, said anew, and more."""

import sys
import types

import pytest
import torch

import drowse
import drowse.torch
from drowse.torch import use_memory_pool
from drowse.vllm import CuMemAllocator, DrowseBackend
from shared import CUDA, GIB, MIB, free_bytes, live, pattern, run, same, set_settings, tag_of


def test_sleep_and_wake():
    allocator = CuMemAllocator.get_instance()
    assert allocator is CuMemAllocator.get_instance() is CuMemAllocator.instance
    plain = torch.ones(1024, 1024, device=CUDA)
    with allocator.use_memory_pool():
        first = torch.full((1024, 1024), 1.0, device=CUDA)
        second = torch.full((1024, 1024), 2.0, device=CUDA)
    assert torch.equal(plain + first + second, torch.full_like(plain, 4))
    usage, mapped = allocator.get_current_usage(), allocator.mapped_usage()
    assert usage >= first.nbytes + second.nbytes and mapped >= usage
    allocator.sleep()
    assert (allocator.mapped_usage(), allocator.get_current_usage()) == (0, usage)
    allocator.wake_up()
    assert torch.equal(plain + first + second, torch.full_like(plain, 4))


def test_weights_and_cache():
    allocator = CuMemAllocator.get_instance()
    with allocator.use_memory_pool("weights"):
        weights = pattern(GIB, 1)
    with allocator.use_memory_pool(tag="kv_cache"):
        cache = pattern(GIB, 2)
    with use_memory_pool("trainer"):
        other = pattern(64 * MIB, 3)
    before = free_bytes()
    allocator.sleep(offload_tags=("weights",))
    assert free_bytes() - before >= 2 * GIB - 64 * MIB
    assert same(other, 3), "a tag that is not vLLM's"
    allocator.sleep(offload_tags=())  # what sleeps stays as it is
    allocator.wake_up(tags=["weights"])
    assert same(weights, 1) and drowse.torch.heap().stats("kv_cache").state == drowse.State.ASLEEP
    allocator.wake_up(["kv_cache", "no such tag"])
    cache.zero_()
    assert int(cache.max()) == 0
    allocator.sleep("weights")
    allocator.wake_up()
    assert same(weights, 1)


def test_discard():
    allocator = CuMemAllocator.get_instance()
    with allocator.use_memory_pool("weights"):
        weights = pattern(64 * MIB, 1)
    with allocator.use_memory_pool("kv_cache"):
        cache = pattern(64 * MIB, 2)
    mapped = allocator.mapped_usage()
    allocator.discard("kv_cache")
    assert mapped - allocator.mapped_usage() >= cache.nbytes and same(weights, 1)
    allocator.discard(("kv_cache",))
    allocator.wake_up()
    cache.fill_(3)
    assert int(cache.min()) == 3


def test_want_of_memory_is_an_error_and_can_be_tried_again():
    """vLLM's test_python_error; B1.1."""
    allocator = CuMemAllocator.get_instance()
    size = int(torch.cuda.mem_get_info()[1] * 0.7)
    with allocator.use_memory_pool():
        kept = torch.empty(size, dtype=torch.uint8, device=CUDA)
        kept[:MIB] = pattern(MIB, 1)
    allocator.sleep(offload_tags=())
    hog = torch.empty(size, dtype=torch.uint8, device=CUDA)
    for _ in range(2):
        with pytest.raises(RuntimeError):
            allocator.wake_up()
    del hog
    allocator.wake_up()
    kept[:MIB] = pattern(MIB, 2)
    assert same(kept[:MIB], 2)


def test_graph_before_and_after():
    allocator = CuMemAllocator.get_instance()
    with allocator.use_memory_pool():
        weight = torch.eye(1024, device=CUDA)
    with allocator.use_memory_pool(tag="cache"):
        cache = torch.empty(1024, 1024, device=CUDA)
    static = torch.ones(1, 1024, device=CUDA)

    def model():
        out = static @ weight
        cache[: out.size(0)].copy_(out)
        return cache[: out.size(0)] + 1

    model()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = model()
    for turn in range(3):
        allocator.sleep()
        allocator.wake_up()
        static.fill_(turn)
        graph.replay()
        assert torch.equal(out, torch.full_like(out, turn + 1)) and torch.equal(cache[:1], torch.full_like(out, turn))


def test_expandable_segments_may_be_on():
    assert run(
        """
import drowse.vllm
allocator = drowse.vllm.CuMemAllocator()
with allocator.use_memory_pool("weights"):
    kept = pattern(64 * MIB, 1)
allocator.sleep("weights"); allocator.wake_up()
print(tag_of(kept), same(kept, 1), live()["expandable_segments"])
""",
        PYTORCH_CUDA_ALLOC_CONF="expandable_segments:True",
    ) == "weights True True\n"


def test_the_backend_says_what_is():
    """B1.15: after an exception the state stayed in the middle, and a partial wake was told as running."""
    allocator, backend = CuMemAllocator.get_instance(), DrowseBackend()
    assert backend.state() == "RUNNING" and DrowseBackend.is_supported() and DrowseBackend.preserves_communicators()
    with allocator.use_memory_pool("weights"):
        weights = pattern(GIB, 1)
    with allocator.use_memory_pool("kv_cache"):
        cache = pattern(GIB, 2)
    backend.suspend(level=1)
    assert backend.state() == "SUSPENDED"
    hog = torch.empty(free_bytes() - GIB // 2, dtype=torch.uint8, device=CUDA)
    with pytest.raises(drowse.NoDeviceMemoryError):
        backend.resume()
    assert backend.state() == "SUSPENDED"
    del hog
    backend.resume(["weights"])
    assert backend.state() == "SUSPENDED" and same(weights, 1)
    backend.resume()
    assert backend.state() == "RUNNING"
    backend.discard(("kv_cache",))
    assert backend.state() == "SUSPENDED"
    backend.resume()
    backend.suspend(level=2)
    assert drowse.torch.heap().stats("weights").backup_bytes == 0
    backend.resume()
    cache.zero_()


def test_it_takes_the_place_of_vllms_module():
    package = types.ModuleType("vllm.device_allocator")
    sys.modules.update({"vllm": types.ModuleType("vllm"), "vllm.device_allocator": package})
    drowse.vllm.install()
    from vllm.device_allocator.cumem import CuMemAllocator as found

    assert found is CuMemAllocator and package.cumem is drowse.vllm
