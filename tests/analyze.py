#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What static analysers find in src/ and tools/: gcc -fanalyzer, clang-tidy (.clang-tidy) and cppcheck.

Fails for a finding that tests/analyze.known does not list, and for a line of that list that stands for none any more.

  analyze.py BUILD      a folder that configure has run in; ./dev analyze calls it
"""
import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
KNOWN = ROOT / "tests/analyze.known"
FINDING = re.compile(r"^(?P<file>[^ :]+):(?P<line>\d+):\d+: (warning|error): (?P<text>.*) \[(?P<check>[^\]]+)\]$", re.MULTILINE)

# What cppcheck says of most files and is no fault: of one file it does not see who uses a member, a callback or a const parameter
# is as the driver's header has it, `while (...) continue;` is how loops without a body are written here, and a variable may have
# a function's name. tree.h it does not read.
CPPCHECK = ["cppcheck", "--quiet", "--std=c11", "--enable=warning,style,performance,portability", "-D__GNUC__=12", "-D__x86_64__",
            "-DRB_GENERATE_INTERNAL(name,type,field,cmp,attr)=", "--template={file}:{line}:{column}: warning: {message} [{id}]"]
CPPCHECK += ["--suppress=" + check for check in ("constParameter", "redundantContinue", "shadowFunction", "unusedStructMember")]


def output(command):
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def flags_of(build):
    packages = output(["pkg-config", "--cflags", "libxxhash", "smartcols", "jansson"])
    cuda = re.search(r"^CUDA_CPPFLAGS = (.*)$", (build / "Makefile").read_text(), re.MULTILINE)
    return ["-D_GNU_SOURCE", f"-I{build}", "-Isrc", "-Iinclude", *packages.stdout.split(), *cuda.group(1).split()]


def commands(build):
    flags = flags_of(build)
    headers = [flag.replace("-isystem", "") for flag in flags if flag != "-isystem"]
    ours = [flag for flag in headers if flag.startswith(("-D", f"-I{build}", "-Isrc", "-Iinclude"))]
    for file in sorted(output(["git", "ls-files", "src/*.c", "tools/*.c"]).stdout.split()):
        yield ["clang-tidy", "--quiet", file, "--", "-std=gnu11", *flags]
        yield ["gcc", "-std=gnu11", "-fanalyzer", "-O1", "-c", "-o", os.devnull, *flags, file]
        yield [*CPPCHECK, *ours, file]


def findings(command):
    """(analyser, check, file, the line itself, the message); a file that an analyser cannot read is a finding, too."""
    run = output(command)
    for match in FINDING.finditer(run.stdout):
        path = pathlib.Path(os.path.relpath(ROOT / match["file"], ROOT))
        line = (ROOT / path).read_text().splitlines()[int(match["line"]) - 1].strip()
        yield command[0], match["check"].split(" ")[-1].lstrip("-W"), str(path), line, match["text"]
    if run.returncode != 0 and not FINDING.search(run.stdout):
        yield command[0], "failed", " ".join(command), "", run.stdout[-2000:]


def known():
    """Lines `CHECK FILE: a part of the source line`, with the reason as a comment above."""
    for line in KNOWN.read_text().splitlines():
        if line and not line.startswith("#"):
            check, file, part = re.fullmatch(r"(\S+) (\S+): (.+)", line).groups()
            yield check, file, part


def main():
    build = pathlib.Path(sys.argv[1]).resolve()
    excused = {entry: False for entry in known()}
    bad = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for found in sorted({finding for result in pool.map(lambda c: list(findings(c)), commands(build)) for finding in result}):
            analyser, check, file, line, text = found
            matching = [entry for entry in excused if entry[:2] == (check, file) and entry[2] in line]
            for entry in matching:
                excused[entry] = True
            if not matching:
                bad += 1
                print(f"{analyser}: {file}: {text} [{check}]\n    {line}")
    for check, file, part in (entry for entry, seen in excused.items() if not seen):
        bad += 1
        print(f"{KNOWN.name}: nobody finds this any more: {check} {file}: {part}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
