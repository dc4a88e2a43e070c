#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Completes command lines in a real shell on a terminal of its own.

usage: completing.py SETUP SHELL [ARGUMENT]...

Reads lines from the standard input, "line<tab>wanted": types each line into the shell, then the tab key and enter, and compares
what the command then gets with what is wanted. SETUP, a file in the shell's language, is sourced first; it defines the command
as a function that prints its arguments, each between < and >, and a newline. Says what differs, and exits with 1 then.
"""
import os
import pty
import re
import select
import sys

LIMIT_S = 60  # a shell that does not answer


def read_until(terminal, pattern, seen):
    """What the shell printed up to the pattern; behind it is left in seen."""
    while True:
        match = re.search(pattern, bytes(seen))
        if match:
            del seen[: match.end()]
            return match
        if not select.select([terminal], [], [], LIMIT_S)[0]:
            sys.exit(f"no answer, but: {bytes(seen)!r}")
        try:
            seen += os.read(terminal, 4096)
        except OSError:
            sys.exit(f"the shell has ended: {bytes(seen)!r}")


def main():
    setup, shell = sys.argv[1], sys.argv[2:]
    process, terminal = pty.fork()
    if process == 0:
        os.execvpe(shell[0], shell, dict(os.environ, TERM="dumb", PS1="", HISTFILE="/dev/null"))
    seen = bytearray()
    os.write(terminal, f". {setup}\n".encode())
    read_until(terminal, rb"is ready\r?\n", seen)
    failed = 0
    for case in sys.stdin.read().splitlines():
        line, wanted = case.split("\t")
        os.write(terminal, line.encode() + b"\t\n")
        # What is typed is echoed, but never like this.
        got = read_until(terminal, rb"\r?\n((?:<[^<>\r\n]*>)+)\r?\n", seen).group(1).decode()
        if got != wanted:
            print(f"{shell[0]}: {line!r} becomes {got}, not {wanted}")
            failed = 1
    os.write(terminal, b"exit\n")
    os.waitpid(process, 0)
    sys.exit(failed)


main()
