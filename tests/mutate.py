#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Changes the library's sources in one place at a time and runs the tests on each: who finds it?

    tests/mutate.py [--seed N] [--count N] [--files GLOB] [--build DIR] [--list] [MUTANT...]

Of all mutants COUNT (200) are taken by SEED (1), or those named, as the list names them: FILE:LINE:KIND. They are made in a copy
of the tree, in DIR (.build/mutants), which is configured with debug checks. KIND is one of

    negate    a condition of if, while, for or ?: is turned round
    delete    a statement is left out
    unlock    a lock and the unlock that follows are left out
    swap      two statements change places

Tab-separated: mutant, what became of it (compiler, a test's name, time, or SURVIVED), the changed line. The last line has the
rate: of the mutants that compile, how many some test found. Unit tests come first and the fault sweep last; what comes behind a
group of tests with one that fails is not run. Takes minutes a mutant. Fails if a mutant survived.
"""

import argparse
import fnmatch
import pathlib
import random
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD_SECONDS, TEST_SECONDS = 300, 900

CONDITION = re.compile(r"^(\s*(?:\} else )?(?:if|while) )\((.*)\)(| \{| [^()]*;| return .*;| continue;| break;)$")
LOOP = re.compile(r"^(\s*for \([^;]*; )([^;]+)(;.*)$")
CHOICE = re.compile(r"^(\s*(?:return |[^=?]+ = ))([^?:]+)( \? .*;)$")
STATEMENT = re.compile(r"^\s+(?:\(void\))?[\w>.*\[\]-]+(?:\(.*\)| (?:=|\+=|-=|\|=|&=) .*|\+\+|--);$")
CHECK = re.compile(r"^\s+(?:assert|dz_lock_assert_held|dz_tag_assert|dz_log)\(")
LOCK = re.compile(r"^\s+dz_(?:pool_)?lock\((.*)\);$")


def balanced(text):
    depth = 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if depth < 0:
            return False
    return depth == 0


def negations(line):
    """The line with its condition turned round, if it has one."""
    match = CONDITION.match(line)
    if match and balanced(match[2]):
        yield f"{match[1]}(!({match[2]})){match[3]}"
    match = LOOP.match(line)
    if match and balanced(match[2]):
        yield f"{match[1]}!({match[2]}){match[3]}"
    match = CHOICE.match(line)
    if match and balanced(match[2]):
        yield f"{match[1]}!({match[2]}){match[3]}"


def unlock_of(lines, at):
    """Where what is locked on a line is let go, in the same function."""
    wanted = lines[at].strip().replace("lock(", "unlock(", 1)
    for there in range(at + 1, len(lines)):
        if lines[there].startswith("}"):
            return None
        if lines[there].strip() == wanted:
            return there
    return None


def indent(line):
    return len(line) - len(line.lstrip())


def changes(lines):
    """All mutants of a file: line number, kind, and the lines that change, by their place."""
    inside = False
    for at, line in enumerate(lines):
        if line.startswith("}"):
            inside = False
        elif line.endswith(") {") and not line.startswith((" ", "#")):
            inside = True
        if not inside:
            continue
        for negated in negations(line):
            yield at, "negate", {at: negated}
        if not STATEMENT.match(line) or CHECK.match(line):
            continue
        yield at, "delete", {at: ""}
        there = unlock_of(lines, at) if LOCK.match(line) else None
        if there is not None:
            yield at, "unlock", {at: "", there: ""}
        after = lines[at + 1]
        if STATEMENT.match(after) and indent(after) == indent(line) and after != line:
            yield at, "swap", {at: after, at + 1: line}


def all_mutants(pattern):
    mutants = {}
    for path in sorted((ROOT / "src").rglob("*.[ch]")):
        name = str(path.relative_to(ROOT))
        if not fnmatch.fnmatch(name, pattern):
            continue
        lines = path.read_text().split("\n")
        for at, kind, change in changes(lines):
            mutants.setdefault(f"{name}:{at + 1}:{kind}", (name, lines, change))
    return mutants


class Tree:
    """A copy of the sources, and a build of it."""

    def __init__(self, folder):
        self.source, self.build = folder / "source", folder / "build"
        if folder.exists():
            shutil.rmtree(folder)
        ignored = shutil.ignore_patterns(".build", ".git", "autom4te.cache")
        shutil.copytree(ROOT, self.source, ignore=ignored, symlinks=True)
        self.build.mkdir()
        self.run(["../source/bootstrap"], BUILD_SECONDS, cwd=self.source)
        self.run(["../source/configure", "-q", "--enable-debug", "CFLAGS=-g -O1"], BUILD_SECONDS)
        if not self.compiles():
            sys.exit("mutate.py: the sources do not compile as they are")

    def run(self, command, seconds, cwd=None):
        try:
            return subprocess.run(command, cwd=cwd or self.build, capture_output=True, text=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            return None

    def compiles(self):
        done = self.run(["make", "-s", "-j2", "check", "TESTS="], BUILD_SECONDS)
        return done is not None and done.returncode == 0

    def killer(self):
        """The first test that fails; None: none does."""
        for tests in ("$(unit_tests)", "$(plain_tests) $(cxx_tests) $(storm_tests)", "$(fault_tests)"):
            done = self.run(["make", "-j2", "check-TESTS", f"TESTS={tests}"], TEST_SECONDS)
            if done is None:
                return "time"
            failed = re.findall(r"^(?:FAIL|ERROR): (\S+)", done.stdout, re.MULTILINE)
            if failed or done.returncode != 0:
                return failed[0] if failed else "make"
        return None


def try_one(tree, mutant):
    name, lines, change = mutant
    path = tree.source / name
    path.write_text("\n".join(change.get(at, line) for at, line in enumerate(lines)))
    found = (tree.killer() or "SURVIVED") if tree.compiles() else "compiler"
    path.write_text("\n".join(lines))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--files", default="*", metavar="GLOB")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / ".build" / "mutants", metavar="DIR")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("mutants", nargs="*", metavar="MUTANT")
    asked = parser.parse_args()

    mutants = all_mutants(asked.files)
    names = asked.mutants or random.Random(asked.seed).sample(sorted(mutants), min(asked.count, len(mutants)))
    unknown = [name for name in names if name not in mutants]
    if unknown:
        parser.error(f"there is no mutant {unknown[0]}: --list has their names")
    if asked.list:
        print("\n".join(sorted(mutants)))
        return 0
    tree = Tree(asked.build.resolve())
    compiled = survived = 0
    for name in names:
        found = try_one(tree, mutants[name])
        line = mutants[name][1][int(name.split(":")[1]) - 1].strip()
        compiled += found != "compiler"
        survived += found == "SURVIVED"
        print(f"{name}\t{found}\t{line}", flush=True)
    print(f"{compiled - survived} of {compiled} found, {len(names) - compiled} did not compile")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
