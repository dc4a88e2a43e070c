# SPDX-License-Identifier: Apache-2.0
"""The structures and numbers of the package are those of the header, as the C compiler has them."""

import ctypes
import os
import shlex
import subprocess
import tempfile
import unittest

from drowse import _errors, _heap, _library, _settings

STRUCTS = {
    _library.ErrorStruct: "drowse_error",
    _library.FrameStruct: "drowse_frame",
    _library.FrameworkStruct: "drowse_framework",
    _library.DeviceStruct: "drowse_device",
    _library.HeapOptionsStruct: "drowse_heap_options",
    _library.HeapInfoStruct: "drowse_heap_info",
    _library.AllocOptionsStruct: "drowse_alloc_options",
    _library.RuleStruct: "drowse_rule",
    _library.ProgressStruct: "drowse_progress",
    _library.SleepOptionsStruct: "drowse_sleep_options",
    _library.WakeOptionsStruct: "drowse_wake_options",
    _library.StatsStruct: "drowse_stats",
    _library.BlockStruct: "drowse_block",
    _library.SettingsStruct: "drowse_settings",
}
NUMBERS = {
    _heap.Action: "DROWSE_%s",
    _heap.Drain: "DROWSE_DRAIN_%s",
    _heap.Backup: "DROWSE_BACKUP_%s",
    _heap.State: "DROWSE_%s",
    _settings.Dialect: "DROWSE_SETTINGS_%s",
}


def wanted():
    """One line for each thing: its expression in C, and its value here."""
    lines = {"sizeof(drowse_scope)": ctypes.sizeof(_library.Token)}
    for struct, name in STRUCTS.items():
        lines["sizeof(%s)" % name] = ctypes.sizeof(struct)
        for member, *_type in struct._fields_:
            field = getattr(struct, member)
            lines["offsetof(%s, %s)" % (name, member)] = field.offset
            lines["sizeof(((%s *)0)->%s)" % (name, member)] = field.size
    for numbers, pattern in NUMBERS.items():
        lines.update((pattern % each.name, int(each)) for each in numbers)
    for each in _errors.Status:
        lines["DROWSE_OK" if each.name == "OK" else "DROWSE_ERR_" + each.name] = int(each)
    return lines


class Layout(unittest.TestCase):
    def test_as_the_compiler_has_it(self):
        lines = wanted()
        code = "#include <drowse.h>\n#include <stddef.h>\n#include <stdio.h>\nint main(void) {\n"
        code += "".join('printf("%%s %%lld\\n", "%s", (long long)(%s));\n' % (each, each) for each in lines) + "}\n"
        include = os.path.join(os.environ["top_srcdir"], "include")
        with tempfile.TemporaryDirectory() as folder:
            program = os.path.join(folder, "layout")
            compiler = shlex.split(os.environ.get("CC", "cc"))
            subprocess.run(compiler + ["-I", include, "-x", "c", "-", "-o", program], input=code, text=True, check=True)
            printed = subprocess.run([program], stdout=subprocess.PIPE, text=True, check=True).stdout
        found = dict(line.rsplit(" ", 1) for line in printed.splitlines())
        self.assertEqual({name: int(value) for name, value in found.items()}, lines)


if __name__ == "__main__":
    unittest.main()
