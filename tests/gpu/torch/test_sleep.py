# SPDX-License-Identifier: Apache-2.0
"""Tensors and graphs across sleep and wake, and what fails on the way."""

import resource
import threading

import pytest
import torch

import drowse
import drowse.torch
from drowse.torch import use_memory_pool
from shared import CUDA, GIB, MIB, free_bytes, hog_all_but, pattern, same, tag_of


def test_tensors():
    sizes = [4, 1000, 512 * 1024, 3 * MIB, 20 * MIB, 333 * MIB, GIB]
    with use_memory_pool("weights"):
        tensors = [pattern(size, number) for number, size in enumerate(sizes)]
        view = tensors[-1][4096:8192]
        half = torch.randn(1000, 1000, device=CUDA, dtype=torch.float16)
    copy, part, places = half.clone(), view.clone(), [tensor.data_ptr() for tensor in tensors]
    torch.cuda.empty_cache()
    before = free_bytes()
    for _ in range(3):
        drowse.torch.sleep("weights")
        assert free_bytes() - before > GIB + 333 * MIB
        assert drowse.torch.heap().stats("weights").state == drowse.State.ASLEEP
        drowse.torch.wake("weights")
    assert [tensor.data_ptr() for tensor in tensors] == places
    assert all(same(tensor, number) for number, tensor in enumerate(tensors))
    assert torch.equal(half, copy) and torch.equal(view, part)


def test_again_is_nothing():
    """B1.3, B2.1: a second sleep unmapped what was unmapped, or ended the process; so did a second wake."""
    with use_memory_pool("weights"):
        kept = pattern(64 * MIB, 1)
    for _ in range(2):
        drowse.torch.sleep("weights")
    for _ in range(2):
        drowse.torch.wake()
    for _ in range(2):
        drowse.torch.wake("weights")
    assert same(kept, 1)


def test_a_wake_without_memory_can_be_tried_again():
    """B1.1, B1.2, B2.1, B3.2: what could not be woken was lost, or half awake, or the process ended; a second wake was silent."""
    with use_memory_pool("weights"):
        weights = [pattern(512 * MIB, number) for number in range(4)]
    with use_memory_pool("kv_cache"):
        cache = pattern(512 * MIB, 9)
    drowse.torch.sleep(["weights", "kv_cache"])
    hog = hog_all_but(GIB)
    for _ in range(2):
        with pytest.raises(RuntimeError) as failed:
            drowse.torch.wake(["weights", "kv_cache"])
        error = failed.value
        assert isinstance(error, drowse.NoDeviceMemoryError) and error.tag == "weights" and error.wanted_bytes >= 2 * GIB
        assert {stats.state for stats in drowse.torch.heap().tags().values()} == {drowse.State.ASLEEP}
    drowse.torch.wake("kv_cache")
    assert same(cache, 9)
    del hog
    drowse.torch.wake()  # gives back what PyTorch keeps of it
    assert all(same(tensor, number) for number, tensor in enumerate(weights)) and same(cache, 9)


def test_freed_while_asleep():
    """B1.9, B2.12: a free while asleep unmapped what was not mapped, or released it twice."""
    with use_memory_pool("weights"):
        kept, freed = pattern(256 * MIB, 1), [pattern(256 * MIB, 2), pattern(5 * MIB, 3)]
    drowse.torch.sleep("weights")
    freed.clear()
    drowse.torch.empty_cache()
    assert drowse.torch.heap().stats("weights").backup_bytes <= 256 * MIB + 32 * MIB
    drowse.torch.wake()
    assert same(kept, 1) and drowse.torch.heap().stats("weights").live_bytes <= 256 * MIB + 32 * MIB


def test_work_in_flight_is_waited_for():
    """B1.13, B2.5: sleep unmapped, or copied, what kernels still wrote."""
    side = torch.cuda.Stream()
    with use_memory_pool("weights"):
        offloaded, discarded = torch.zeros(256 * MIB, dtype=torch.uint8, device=CUDA), None
        with use_memory_pool("kv_cache"):
            discarded = torch.zeros(256 * MIB, dtype=torch.uint8, device=CUDA)
    torch.cuda.synchronize()
    with torch.cuda.stream(side):
        torch.cuda._sleep(1_000_000_000)  # cycles: half a second
        offloaded.add_(7)
        discarded.add_(7)
    drowse.torch.sleep({"weights": drowse.OFFLOAD, "kv_cache": drowse.DISCARD})
    drowse.torch.wake()
    assert int(offloaded.min()) == int(offloaded.max()) == 7
    torch.cuda.synchronize()


def test_discarded_memory_wakes_as_asked():
    """B1.14: discarded pages came back with whatever was there."""
    with use_memory_pool("kv_cache"):
        cache = pattern(64 * MIB, 1)
    drowse.torch.sleep({"kv_cache": drowse.DISCARD})
    drowse.torch.wake(zero=True)
    assert int(cache.max()) == 0
    drowse.torch.sleep({"kv_cache": drowse.DISCARD})
    drowse.torch.wake(poison=True)
    assert int(cache.min()) == int(cache.max()) == 0xDB


def test_tags_not_named_are_kept():
    with use_memory_pool("weights"):
        weights = pattern(64 * MIB, 1)
    with use_memory_pool("kv_cache"):
        cache = pattern(64 * MIB, 2)
    drowse.torch.sleep({"kv_cache": drowse.DISCARD})
    assert same(weights, 1)
    drowse.torch.sleep({"weights": drowse.OFFLOAD, None: drowse.KEEP})
    drowse.torch.wake("weights")
    assert same(weights, 1) and drowse.torch.heap().stats("kv_cache").state == drowse.State.ASLEEP
    drowse.torch.wake()
    cache.zero_()
    torch.cuda.synchronize()


def test_host_memory_is_what_is_kept():
    """B1.16, B2.12: backups took up to twice their bytes of host memory, and kept them after waking."""
    with use_memory_pool("weights"):
        kept = [pattern(300 * MIB + 512 * number, number) for number in range(5)]
    payload, heap = sum(tensor.numel() for tensor in kept), drowse.torch.heap()
    drowse.torch.sleep("weights")
    assert heap.stats().host_bytes <= payload * 1.02 + 64 * MIB
    drowse.torch.wake()
    heap.backup_trim()
    assert heap.stats().host_bytes == heap.stats().pinned_bytes == 0
    assert all(same(tensor, number) for number, tensor in enumerate(kept))


def test_host_memory_that_is_short_loses_nothing():
    """B3.1, B2.1: what the host had no room for was released all the same, or the process ended."""
    with use_memory_pool("weights"):
        kept = pattern(2 * GIB, 1)
    with open("/proc/self/statm") as sizes:
        used = int(sizes.read().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    for _ in range(2):
        resource.setrlimit(resource.RLIMIT_AS, (used + GIB, limits[1]))
        with pytest.raises(drowse.NoHostMemoryError):
            drowse.torch.sleep("weights")
        resource.setrlimit(resource.RLIMIT_AS, limits)
        assert drowse.torch.heap().stats("weights").state == drowse.State.AWAKE and same(kept, 1)
    drowse.torch.sleep("weights")
    drowse.torch.wake()
    assert same(kept, 1)


def test_in_files(tmp_path):
    """B2.10: files of weights were left behind."""
    with use_memory_pool("weights"):
        kept = pattern(256 * MIB, 1)
    drowse.torch.sleep("weights", backup=drowse.Backup.FILE, directory=str(tmp_path))
    assert drowse.torch.heap().stats("weights").file_bytes >= 256 * MIB and list(tmp_path.iterdir()) == []
    drowse.torch.wake()
    assert same(kept, 1)


def test_others_allocate_meanwhile():
    """B1.10: sleep walked over a table that other threads changed, and stopped half way. B2.6: they waited for its copies."""
    with use_memory_pool("weights"):
        kept = [pattern(32 * MIB, number) for number in range(16)]
    done, wrong, turns = threading.Event(), [], []

    def work():
        while not done.is_set():
            with use_memory_pool("others"):
                tensor = pattern(3 * MIB, 77)
                if not same(tensor, 77) or tag_of(tensor) != "others":
                    wrong.append(tensor)
            turns.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(10):
        drowse.torch.sleep("weights", drain=drowse.Drain.NONE)
        drowse.torch.wake()
    done.set()
    for thread in threads:
        thread.join()
    assert wrong == [] and turns and all(same(tensor, number) for number, tensor in enumerate(kept))


def test_graphs():
    """A graph that was captured before, replayed after; its inputs and outputs in a pool, its own memory in another."""
    with use_memory_pool("weights"):
        weight = torch.full((1024, 1024), 2.0, device=CUDA)
        static = torch.ones(1024, 1024, device=CUDA)
        result = torch.zeros(1024, 1024, device=CUDA)
    graph = torch.cuda.CUDAGraph()
    with drowse.torch.graph_pool("graphs") as pool, torch.cuda.graph(graph, pool=pool):
        between = static * weight
        result.copy_(between + 1)
    assert tag_of(between) == "graphs"
    del between
    torch.cuda.empty_cache()  # the graph keeps its memory
    for turn in range(1, 4):
        drowse.torch.sleep(["weights", "graphs"])
        drowse.torch.wake()
        static.fill_(turn)
        graph.replay()
        assert torch.equal(result, torch.full_like(result, 2.0 * turn + 1))
    del graph
    drowse.torch.empty_cache()
    assert drowse.torch.heap().stats("graphs").live_bytes == 0


def test_memory_for_a_pool_during_a_capture():
    """A segment that is made, and one that is left, while a stream captures: neither may destroy the capture."""
    graph = torch.cuda.CUDAGraph()
    source = torch.ones(40 * MIB, dtype=torch.uint8, device=CUDA)
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        with use_memory_pool("inside"):
            kept = source + 1
        big = None
        with use_memory_pool("weights"):
            big = torch.empty(256 * MIB, dtype=torch.uint8, device=CUDA)
        del big
    graph.replay()
    torch.cuda.synchronize()
    assert tag_of(kept) == "inside" and int(kept.min()) == 2


def test_a_backup_is_read_while_asleep():
    with use_memory_pool("weights"):
        kept = pattern(64 * MIB, 3)
    wanted = bytes(kept[MIB : MIB + 4096].cpu().numpy())
    drowse.torch.sleep("weights")
    assert drowse.torch.heap().copy_out(kept.data_ptr() + MIB, 4096) == wanted
    drowse.torch.wake()
    assert same(kept, 3)


def test_sealed_weights_are_copied_once():
    def copied():
        seen = [0]
        drowse.torch.sleep("weights", progress=lambda now: seen.append(now.done_bytes))
        drowse.torch.wake()
        return seen[-1]

    with use_memory_pool("weights"):
        kept = pattern(512 * MIB, 3)
    drowse.torch.heap().seal("weights")
    assert copied() >= 512 * MIB
    assert copied() == 0 and same(kept, 3)


def test_a_backward_pass():
    """PyTorch's own threads run it: they are outside. backward_here() has this thread do it; a hook can be carried."""
    with use_memory_pool("weights"):
        weight = torch.nn.Parameter(torch.randn(2048, 2048, device=CUDA))
    data = torch.randn(64, 2048, device=CUDA)
    seen = []
    with use_memory_pool("training"):
        weight.register_hook(lambda grad: seen.append((drowse.current().tag, tag_of(torch.empty_like(grad)))))
        weight.register_hook(drowse.torch.carry(lambda grad: seen.append((drowse.current().tag, tag_of(torch.empty_like(grad))))))
        (data @ weight).sum().backward()
        elsewhere, weight.grad = weight.grad, None
        with drowse.torch.backward_here():
            (data @ weight).sum().backward()
    assert [tag_of(elsewhere), tag_of(weight.grad)] == [None, "training"]
    assert seen[:2] == [("default", None), ("training", "training")] and seen[2:] == [("training", "training")] * 2
    assert torch.equal(elsewhere, weight.grad)
    drowse.torch.sleep(["weights", "training"])
    drowse.torch.wake()
    assert torch.equal(elsewhere, weight.grad)


@pytest.mark.limit(120)
def test_compiled():
    with use_memory_pool("weights"):
        model = torch.nn.Sequential(torch.nn.Linear(256, 256), torch.nn.GELU(), torch.nn.Linear(256, 256)).to(CUDA)
    data = torch.randn(32, 256, device=CUDA)
    compiled = torch.compile(model)
    wanted = model(data)
    with use_memory_pool("activations"):
        first = compiled(data)
        first.square().mean().backward()
    assert tag_of(first) == "activations" and torch.allclose(first, wanted, atol=1e-4)
    drowse.torch.sleep(["weights", "activations"])
    drowse.torch.wake()
    assert torch.allclose(compiled(data), wanted, atol=1e-4)
