# SPDX-License-Identifier: Apache-2.0
"""vLLM's sleep mode on drowse: its CuMemAllocator, and a backend for its plug point.

install() puts this module in the place of vllm.device_allocator.cumem, and registers the backend "drowse". Where the environment
has DROWSE_VLLM=1 vLLM's plugin loader does so in each of its processes, and nothing else need be changed.
"""

import os
import sys
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import torch

from . import torch as _torch
from ._heap import Action, State, Stats

try:
    from vllm.device_allocator.sleep_mode_backend import SleepModeBackend, SleepModeBackendFactory
except ImportError:  # no vLLM, or one before its plug point: the class stands by itself
    SleepModeBackend, SleepModeBackendFactory = object, None

cumem_available = True

# Tags of vLLM's own, which whoever says what shall sleep and wake does not name: what the engine runs with has to be there
# as soon as anything is, the first two with what was in them. "default" has what was allocated without a tag.
_RUNTIME = ("runtime", "cudagraph")
_INTERNAL = _RUNTIME + ("workspace", "default")
TagList = Union[str, Sequence[str]]


def _several(tags: TagList) -> Tuple[str, ...]:
    return (tags,) if isinstance(tags, str) else tuple(tags)


class CuMemAllocator:
    """The one of vLLM, of the process's current device. It sees the tags that were used through it, and leaves others alone.

    A tag that sleeps stays as it is when it is to sleep again, whatever for; one that is awake is awake whole. What fails raises
    drowse.Error, a RuntimeError, and can be done again: nothing is lost.
    """

    instance: Optional["CuMemAllocator"] = None
    default_tag = "default"

    @classmethod
    def get_instance(cls) -> "CuMemAllocator":
        """The only one."""
        if cls.instance is None:
            cls.instance = cls()
        return cls.instance

    def __init__(self) -> None:
        self._used: Dict[str, None] = {}  # in the order of their first use

    def tags(self) -> Dict[str, Stats]:
        """Its tags that have had memory."""
        known = _torch.heap().tags()
        return {tag: known[tag] for tag in self._used if tag in known}

    def _in(self, state: State) -> List[str]:
        return [tag for tag, stats in self.tags().items() if stats.state == state]

    def use_memory_pool(self, tag: Optional[str] = None) -> _torch.use_memory_pool:
        """A context manager: what this thread allocates inside has the tag."""
        name = self.default_tag if tag is None else tag
        self._used.setdefault(name)
        return _torch.use_memory_pool(name)

    def sleep(self, offload_tags: Optional[TagList] = None) -> None:
        """Puts every tag to sleep, all or none: those named (None: the default tag) with their contents, and vLLM's "runtime" and
        "cudagraph", the others without."""
        offload = _several(self.default_tag if offload_tags is None else offload_tags) + _RUNTIME
        awake = self._in(State.AWAKE)
        _torch.sleep({tag: Action.OFFLOAD if tag in offload else Action.DISCARD for tag in awake})

    def discard(self, tags: TagList) -> None:
        """Puts these to sleep without their contents."""
        awake = self._in(State.AWAKE)
        _torch.sleep({tag: Action.DISCARD for tag in _several(tags) if tag in awake})

    def wake_up(self, tags: Optional[TagList] = None) -> None:
        """Wakes these, what has no tag, and vLLM's "runtime", "cudagraph" and "workspace", or all. Each is awake whole, or asleep as
        it was when an error is raised."""
        asleep = self._in(State.ASLEEP)
        _torch.wake([tag for tag in asleep if tags is None or tag in _several(tags) + _INTERNAL])

    def release_pools(self) -> None:
        """Gives back what PyTorch keeps unused of the tags' memory, as a worker that ends does. Tensors stay."""
        _torch.empty_cache()

    def get_current_usage(self) -> int:
        """Bytes that PyTorch has for these tags, asleep or awake."""
        return sum(stats.live_bytes for stats in self.tags().values())

    def mapped_usage(self) -> int:
        """Bytes of device memory that they take now."""
        return sum(stats.mapped_bytes for stats in self.tags().values())


class DrowseBackend(SleepModeBackend):  # type: ignore[misc, unused-ignore]
    """vLLM's SleepModeBackend. Its state is that of the memory, so also after a call that failed half way."""

    def __init__(self) -> None:
        super().__init__()
        self._resuming = False

    def suspend(self, level: int = 1) -> None:
        """Level 1 offloads weights, level 2 discards them; all else is discarded."""
        CuMemAllocator.get_instance().sleep(("weights",) if level == 1 else ())

    def resume(self, tags: Optional[List[str]] = None) -> None:
        """Wakes these tags, or all."""
        self._resuming = True
        try:
            CuMemAllocator.get_instance().wake_up(tags)
        finally:
            self._resuming = False

    def discard(self, tags: TagList) -> None:
        """Discards these tags' contents."""
        CuMemAllocator.get_instance().discard(tags)

    def state(self) -> Any:
        """RUNNING: every tag is awake."""
        states = {stats.state for stats in CuMemAllocator.get_instance().tags().values()}
        return "RESUMING" if self._resuming else "SUSPENDED" if states - {State.AWAKE} else "RUNNING"

    @classmethod
    def is_supported(cls) -> bool:
        return bool(torch.cuda.is_available())

    @classmethod
    def preserves_communicators(cls) -> bool:
        return True

    @classmethod
    def preserves_compiled_artifacts(cls) -> bool:
        return True

    @classmethod
    def preserves_graphs_with_communicators(cls) -> bool:
        return False

    @classmethod
    def supports_durable_storage(cls) -> bool:
        return False


def install() -> None:
    """Has vLLM use drowse in this process, from here on. To be called before vLLM makes its workers."""
    sys.modules["vllm.device_allocator.cumem"] = sys.modules[__name__]
    package = sys.modules.get("vllm.device_allocator")
    if package is not None:
        package.cumem = sys.modules[__name__]  # type: ignore[attr-defined]
    if SleepModeBackendFactory is not None and "drowse" not in SleepModeBackendFactory._registry:
        SleepModeBackendFactory.register_backend("drowse", __name__, "DrowseBackend")


def plugin() -> None:
    """What vLLM's plugin loader calls."""
    if os.environ.get("DROWSE_VLLM") == "1":
        install()
