# SPDX-License-Identifier: Apache-2.0
"""Settings strings: the grammar of PYTORCH_CUDA_ALLOC_CONF."""

import enum
from ctypes import byref, c_char_p, c_int, c_size_t, c_void_p, create_string_buffer
from typing import Any, Dict

from ._errors import check, last_error, text_bytes
from ._library import SettingsStruct, function

_parse = function("drowse_settings_parse", c_int, c_char_p, c_int, c_void_p, c_void_p)
_edit = function("drowse_settings_edit", c_int, c_char_p, c_char_p, c_char_p, c_char_p, c_void_p)


class Dialect(enum.IntEnum):
    """Whose rules hold."""

    STRICT = 0
    TORCH_2_9 = 1
    TORCH_2_10 = 2


def settings_parse(text: str, dialect: Dialect = Dialect.STRICT) -> Dict[str, Any]:
    """What a settings string says, by the names of drowse_settings. The SettingsError of one that is refused has the offset of
    the first byte that is wrong as its member `offset`."""
    settings, offset = SettingsStruct(), c_size_t()
    status = _parse(text_bytes(text), dialect, byref(settings), byref(offset))
    if status != 0:
        error: Any = last_error()
        error.offset = offset.value
        raise error
    values = {name: getattr(settings, name) for name, _type in SettingsStruct._fields_ if name != "struct_size"}
    values["roundup_power2_divisions"] = list(values["roundup_power2_divisions"])
    return values


def settings_edit(text: str, key: str, value: str) -> str:
    """The text with the key's value changed, or added; all the rest stays byte for byte."""
    given = [text_bytes(each) for each in (text, key, value)]
    room = c_size_t()
    check(_edit(*given, None, byref(room)))
    out = create_string_buffer(room.value)
    check(_edit(*given, out, byref(room)))
    return out.value.decode("utf-8")
