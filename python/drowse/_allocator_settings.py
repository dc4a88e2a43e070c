# SPDX-License-Identifier: Apache-2.0
"""PyTorch's live allocator settings, and how one of them is changed and the others are not.

PyTorch takes settings as one string, and a string that does not name max_split_size_mb, garbage_collection_threshold or
roundup_power2_divisions resets them; the others keep their values. So a string that changes expandable_segments must say all that
is live. It is made of the string that was set last, which need not say it: that one may have been refused half way, or may not
name a flag that an earlier one has set.
"""

import zlib
from typing import Any, Callable, Dict, Mapping, Optional, Tuple

from ._errors import SettingsError
from ._settings import Dialect, settings_edit, settings_parse

_FLAG = "expandable_segments"
_UNLIMITED = (1 << 64) - 1
Read = Callable[[], Mapping[str, Any]]


def _text_of(live: Mapping[str, Any]) -> str:
    """The string that was set last. PyTorch gives it the name of the variable that it might have come from."""
    return str(next((live[name] for name in ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF") if name in live), ""))


def _resettable(live: Mapping[str, Any]) -> Dict[str, Any]:
    """The live values of what a string resets by not naming it, as settings_parse() has them."""
    split = live.get("max_split_size", -1)
    divisions = live.get("roundup_power2_divisions", {})
    return {
        "max_split_size": _UNLIMITED if split < 0 else split,
        "garbage_collection_threshold": live.get("garbage_collection_threshold", 0.0),
        "roundup_power2_divisions": [divisions.get(str(1 << power), 0) for power in range(16)],
    }


def _parsed(text: str) -> Dict[str, Any]:
    """Nothing of one that PyTorch would refuse."""
    try:
        return settings_parse(text, Dialect.TORCH_2_10)
    except SettingsError:
        return {}


def _says(text: str, values: Mapping[str, Any]) -> bool:
    says = _parsed(text)
    return all(says.get(key) == value for key, value in values.items())


def _spelled(values: Mapping[str, Any]) -> str:
    """A string for these values."""
    text = ""
    if values["max_split_size"] != _UNLIMITED:
        text = settings_edit(text, "max_split_size_mb", str(values["max_split_size"] >> 20))
    if values["garbage_collection_threshold"]:
        text = settings_edit(text, "garbage_collection_threshold", repr(values["garbage_collection_threshold"]))
    divisions = values["roundup_power2_divisions"]
    if any(divisions):
        pairs = ["%s:%d" % (1 << power if power < 15 else ">", each) for power, each in enumerate(divisions)]
        text = settings_edit(text, "roundup_power2_divisions", "[%s]" % ",".join(pairs))
    return text


class AllocatorSettings:
    """The hooks of a drowse_framework. read() gives the live settings, write() sets a string."""

    def __init__(self, read: Read, write: Callable[[str], None]) -> None:
        self._read = read
        self._write = write
        self._turned: Optional[Tuple[str, str]] = None  # the string before the flag was turned off, and the one that did
        self._named = 0

    def expandable(self) -> bool:
        """The live flag."""
        return bool(self._read()[_FLAG])

    def set_expandable(self, on: bool) -> None:
        """Changes the flag alone."""
        live = self._read()
        text, values = _text_of(live), _resettable(live)
        changed = settings_edit(text if _says(text, values) else _spelled(values), _FLAG, str(on))
        self._write(changed)
        now = self._read()
        if bool(now[_FLAG]) != on or _resettable(now) != values:
            raise RuntimeError("PyTorch's settings are %r after %r was set" % (dict(now), changed))
        if not on:
            self._turned = (text, changed)
        elif self._turned is not None:
            before, off = self._turned
            # The string, too, is as before where it says the same: where it does not name the flag it leaves that as it is.
            if text == off and before != changed and _says(before, values) and (_FLAG not in before or _parsed(before)[_FLAG]):
                self._write(before)
            self._turned = None

    def stamp(self) -> int:
        """Changes when somebody else sets the flag, and not when he sets something else."""
        live = self._read()
        text = _text_of(live)
        if _FLAG in text:
            self._named = zlib.crc32(text.encode())
        return self._named << 1 | bool(live[_FLAG])
