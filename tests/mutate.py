#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Changes the library's sources in one place at a time and runs the tests on each: who finds it?

    tests/mutate.py [--seed N] [--count N] [--files GLOB] [--build DIR] [--flags FLAGS] [--jobs N] [--seconds N]
                    [--without PATTERNS] [--quick] [--list] [MUTANT...]

Of all mutants COUNT (200) are taken by SEED (1), or those named, as the list names them: FILE:LINE:KIND. They are made in copies of
the tree, in DIR (.build/mutants), which are configured with FLAGS (debug checks), N mutants at a time. A group of tests that takes
more than N SECONDS (900) counts as failed; tests that are no good on this machine are left out by make's PATTERNS. KIND is one of

    negate    a condition of if, while, for or ?: is turned round
    delete    a statement is left out
    unlock    a lock and the unlock that follows are left out
    swap      two statements change places

Tab-separated: mutant, what became of it (compiler, a test's name, what make says of one that cannot be made, time, or SURVIVED),
the changed line. The last line has the rate: of the mutants that compile, how many some test found. The tests of the file come
first, then those of its folder, then the others, and the fault sweep last, unless it shall be quick: what comes behind a group with
a test that fails is not run. Takes a minute of processor time a mutant, and nine one that survives. Fails if a mutant survived.
"""

import argparse
import concurrent.futures
import fnmatch
import pathlib
import queue
import random
import re
import shlex
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD_SECONDS = 300

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


def run(command, seconds, folder):
    """What a command printed and its status; None: it took too long, and is stopped with all that it has started."""
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                          start_new_session=True) as process:
        try:
            printed, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            subprocess.run(["pkill", "-KILL", "-s", str(process.pid)])  # tests that fork have groups of their own
            return None
        return process.returncode, printed


def groups(name, quick):
    """The tests in the order in which they are likely to find what has been changed in a file, as make's lists."""
    folder, subject = name.split("/")[1], pathlib.PurePath(name).stem
    own, near, most = f"tests/{folder}/test_{subject}", f"tests/{folder}/%", "$(unit_tests) $(plain_tests)"
    yield f"$(filter {own},{most})"
    yield f"$(filter-out {own},$(filter {near},{most}))"
    yield f"$(filter-out {near},{most}) $(cxx_tests) $(storm_tests) $(jump_tests) tests/torch/preload.sh"
    if not quick:
        yield "$(fault_tests)"


class Tree:
    """A copy of the sources, and a build of it."""

    def __init__(self, folder, seconds, without):
        self.source, self.build = folder / "source", folder / "build"
        self.seconds, self.without = seconds, without

    def make(self, seconds, *arguments):
        return run(["make", "-s", *arguments], seconds, self.build)

    def begin(self, flags, jobs):
        ignored = shutil.ignore_patterns(".*", "autom4te.cache")
        shutil.copytree(ROOT, self.source, ignore=ignored, symlinks=True)
        self.build.mkdir()
        if not (self.source / "configure").exists():
            run(["../source/bootstrap"], BUILD_SECONDS, self.source)
        run(["../source/configure", "-q", *shlex.split(flags)], BUILD_SECONDS, self.build)
        done = self.make(BUILD_SECONDS, f"-j{jobs}", "check", "TESTS=")
        if done is None or done[0] != 0:
            sys.exit(f"mutate.py: the sources do not compile as they are: {done[1] if done else 'it takes too long'}")
        failed = self.killer("src/core/error.c", True, jobs)
        if failed is not None:
            sys.exit(f"mutate.py: {failed} fails with the sources as they are")

    def copy(self, folder):
        """Another one, built, which knows where it is."""
        shutil.copytree(self.source.parent, folder, symlinks=True)
        copy = Tree(folder, self.seconds, self.without)
        run(["./config.status", "-q"], BUILD_SECONDS, copy.build)
        return copy

    def killer(self, name, quick, jobs=2):
        """The first test that fails; None: none does."""
        for tests in groups(name, quick):
            asked = [f"TESTS=$(filter-out {self.without},{tests})", "check_DATA="]  # nothing is installed for these
            if ".sh" not in tests:
                asked.append("check_PROGRAMS=$(TESTS)")  # no others need be linked
            done = self.make(self.seconds, f"-j{jobs}", "check-TESTS", *asked)
            if done is None:
                return "time"
            failed = re.findall(r"^(?:FAIL|ERROR): (\S+)", done[1], re.MULTILINE)
            if failed or done[0] != 0:
                return failed[0] if failed else done[1].rstrip().rpartition("\n")[2]  # not made
        return None

    def try_one(self, mutant, quick):
        name, lines, change = mutant
        path = self.source / name
        path.write_text("\n".join(change.get(at, line) for at, line in enumerate(lines)))
        done = self.make(BUILD_SECONDS, "libdrowse-all.la")
        found = (self.killer(name, quick) or "SURVIVED") if done is not None and done[0] == 0 else "compiler"
        path.write_text("\n".join(lines))
        return found


def try_all(names, mutants, asked):
    """What becomes of each, as soon as it is known. JOBS trees at a time have one."""
    folder = asked.build.resolve()
    if folder.exists():
        shutil.rmtree(folder)
    first = Tree(folder / "1", asked.seconds, asked.without)
    first.begin(asked.flags, asked.jobs)
    trees = queue.SimpleQueue()
    trees.put(first)
    with concurrent.futures.ThreadPoolExecutor(asked.jobs) as threads:
        for tree in threads.map(first.copy, [folder / str(number) for number in range(2, asked.jobs + 1)]):
            trees.put(tree)

        def try_one(name):
            tree = trees.get()
            found = tree.try_one(mutants[name], asked.quick)
            trees.put(tree)
            return name, found

        for done in concurrent.futures.as_completed([threads.submit(try_one, name) for name in names]):
            yield done.result()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--files", default="*", metavar="GLOB")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / ".build" / "mutants", metavar="DIR")
    parser.add_argument("--flags", default="--enable-debug 'CFLAGS=-g -O1'")
    parser.add_argument("--jobs", type=int, default=1, metavar="N")
    parser.add_argument("--seconds", type=int, default=900, metavar="N")
    parser.add_argument("--without", default="", metavar="PATTERNS")
    parser.add_argument("--quick", action="store_true")
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
    compiled = survived = 0
    for name, found in try_all(names, mutants, asked):
        line = mutants[name][1][int(name.split(":")[1]) - 1].strip()
        compiled += found != "compiler"
        survived += found == "SURVIVED"
        print(f"{name}\t{found}\t{line}", flush=True)
    print(f"{compiled - survived} of {compiled} found, {len(names) - compiled} did not compile")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
