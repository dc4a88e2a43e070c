#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Holds the manual pages beside the header, and takes them apart for tests/doc/man.sh.

usage: man.py PAGES HEADER MAP OUT

Says what the pages leave out or invent, one complaint a line, and exits with 1 then. Writes OUT/synopsis.c, which the compiler
compares with the header, and for every example OUT/PAGE-N.c, .run (the commands) and .expected (what they print; where a page
does not say that, there is none).

Beside mdoc pages have two comments: '.\\" members: TYPE' in front of a list of all members of a structure, and
'.\\" run: COMMAND' in front of a program that is not run in the usual way. A literal display with a main() is a program, the
next one what it prints; one that begins with "$ " is commands.
"""
import pathlib
import re
import shlex
import sys

SECTIONS = {
    "1": ["NAME", "SYNOPSIS", "DESCRIPTION", "EXIT STATUS", "EXAMPLES", "SEE ALSO"],
    "3": ["NAME", "LIBRARY", "SYNOPSIS", "DESCRIPTION", "RETURN VALUES", "EXAMPLES", "ERRORS", "THREADS", "FORK", "SEE ALSO"],
    "5": ["NAME", "DESCRIPTION", "THREADS", "FORK", "EXAMPLES", "SEE ALSO"],
    "7": ["NAME", "SYNOPSIS", "DESCRIPTION", "EXAMPLES", "DIAGNOSTICS", "THREADS", "FORK", "SEE ALSO"],
}
HIDDEN = {"drowse_scope_loop", "drowse_scope", "drowse_mark"}  # not for direct use; values without members of interest
NO_CONSTANTS = {"DROWSE_H", "DROWSE_API", "DROWSE_CHECKED"}
VARIABLES = {"DROWSE_DEVICE", "DROWSE_SETTINGS", "DROWSE_DEBUG_SEAL", "DROWSE_DEBUG_POISON", "DROWSE_ERR_UNKNOWN"}
USUAL = "cc example.c $(pkg-config --cflags --libs drowse) -o example && ./example"

complaints = []


def complain(text):
    complaints.append(text)


def plain(line):
    for escape, text in ((r"\e", "\\"), (r"\&", ""), (r"\-", "-"), (r"\(aq", "'")):
        line = line.replace(escape, text)
    return line


class Header:
    """What the header declares, and which errors it says of what."""

    def __init__(self, path):
        text = path.read_text()
        text = text[: text.index("namespace drowse")]
        bare = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
        self.macros = {name for name in re.findall(r"^#define (drowse_\w+|DROWSE_\w+)\(", bare, re.M) if not name.endswith("_")}
        constants = re.findall(r"^#define (DROWSE_\w+)(?!\w|\()", bare, re.M) + re.findall(r"\b(DROWSE_\w+)(?: =|,|\s*\})", bare)
        self.constants = {name for name in constants if not name.endswith("_")} - NO_CONSTANTS - self.macros
        self.members = {}
        for name, body in re.findall(r"typedef struct (\w+) \{(.*?)\} \1;", bare, re.S):
            declarations = [part for part in body.split(";") if part.strip()]
            self.members[name] = [re.search(r"\(\*(\w+)\)|(\w+)(?:\[\w*\])?\s*$", part) for part in declarations]
            self.members[name] = [match.group(1) or match.group(2) for match in self.members[name]]
        self.errors = {}
        for comment, declarations in re.findall(r"/\*((?:(?!\*/).)*)\*/\s*((?:DROWSE_API [^;]*;\s*)+)", text, re.S):
            errors = set(re.findall(r"DROWSE_ERR_\w+", re.sub(r'"[^"]*"', "", comment)))
            for name in re.findall(r"[ *](drowse_\w+)\(", declarations):
                self.errors[name] = errors


class Page:
    """One page: its names, sections, declarations and examples."""

    def __init__(self, path):
        self.name, self.number = path.name.rsplit(".", 1)
        self.file = path.name
        self.is_library = self.name.startswith("libdrowse-")  # beside libdrowse, with functions of its own
        self.lines = path.read_text().splitlines()
        self.sections = {}
        self.order = []
        for line in self.lines:
            if line.startswith(".Sh "):
                self.order.append(line[4:])
                self.sections[self.order[-1]] = []
            elif self.order:
                self.sections[self.order[-1]].append(line)
        self.names = [line.split()[1] for line in self.sections["NAME"] if line.startswith(".Nm ")]

    def check_sections(self):
        wanted = SECTIONS[self.number]
        if [name for name in self.order if name in wanted] != wanted:
            complain(f"{self.file}: its sections are {self.order}, without or in another order than {wanted}")
        for name in self.order:
            if not any(line and not line.startswith('.\\"') for line in self.sections[name]):
                complain(f"{self.file}: {name} is empty")

    def prototypes(self):
        """(return type, name, arguments) of the synopsis; the type of a macro is None."""
        returns, name, arguments = None, None, []
        for line in self.sections.get("SYNOPSIS", []):
            words = shlex.split(line[4:]) if line[:3] in (".Fn", ".Fo", ".Fa") else []
            if line.startswith(".Ft "):
                returns = line[4:]
            elif line.startswith(".Fn "):
                yield returns, words[0], words[1:]
                returns = None
            elif line.startswith(".Fo "):
                name, arguments = words[0], []
            elif line.startswith(".Fa "):
                arguments += words
            elif line.startswith(".Fc"):
                yield returns, name, arguments
                returns = None

    def members(self):
        """(structure, [declaration of a member])"""
        structure, found = None, []
        for line in self.lines:
            mark = re.match(r'\.\\" members: (\w+)$', line)
            if mark:
                structure, found = mark.group(1), []
            elif structure and line.startswith(".It Fa "):
                found.append(shlex.split(line[7:])[0])
            elif structure and line == ".El":
                yield structure, found
                structure = None

    def examples(self):
        """[program or None, commands, what is printed or None]"""
        commands, display, program = [], None, None
        examples = []
        for line in self.lines:
            mark = re.match(r'\.\\" run: (.*)$', line)
            if mark:
                commands.append(mark.group(1))
            elif line == ".Bd -literal":
                display = []
            elif line == ".Ed":
                text = "".join(plain(part) + "\n" for part in display)
                display = None
                if "int main(" in text:
                    program = text
                    examples.append([text, commands or [USUAL], None])
                    commands = []
                elif text.startswith("$ "):
                    examples.append([None, [part[2:] for part in text.splitlines() if part.startswith("$ ")], None])
                elif program is not None:
                    examples[-1][2] = text
                    program = None
            elif display is not None:
                display.append(line)
        return examples


def check_names(pages, header, exported):
    wanted = exported | header.macros
    names = [name for page in pages for name in page.names if page.number == "3" and not page.is_library]
    for name in sorted(wanted - set(names)):
        complain(f"{name}: has no page")
    for name in sorted(set(names) - wanted):
        complain(f"{name}: has a page and is not in the header")
    for name in sorted(name for name in set(names) if names.count(name) > 1):
        complain(f"{name}: has several pages")


def check_constants(pages, header):
    text = "\n".join(plain(line) for page in pages for line in page.lines if not line.startswith(".Dt "))
    named = set(re.findall(r"\bDROWSE_[A-Z0-9_]+\b", text))
    for name in sorted(header.constants - named):
        complain(f"{name}: is on no page")
    for name in sorted(named - header.constants - header.macros - VARIABLES):
        complain(f"{name}: is on a page and not in the header")


def check_errors(pages, header):
    for page in pages:
        if page.number != "3":
            continue
        said = set(re.findall(r"DROWSE_ERR_\w+", "\n".join(page.sections.get("ERRORS", []) + page.sections.get("FORK", []))))
        for name in page.names:
            for error in sorted(header.errors.get(name, set()) - said):
                complain(f"{page.file}: the header says {error} of {name}, and the page does not")


def check_header(header, exported):
    """This program's own reading of it."""
    if set(header.errors) != exported:
        complain(f"the header's comments were not found for {sorted(set(header.errors) ^ exported)}")


def check_members(pages, header):
    """And what has the compiler compare their types."""
    listed = dict(entry for page in pages for entry in page.members())
    for name in sorted(set(header.members) - HIDDEN - set(listed)):
        complain(f"struct {name}: no page lists its members")
    lines = []
    for structure, declarations in listed.items():
        names = [(re.search(r"\(\*(\w+)\)", text) or re.search(r"(\w+)(?:\[\w*\])?$", text)).group(1) for text in declarations]
        if names != header.members.get(structure):
            complain(f"struct {structure}: the header has {header.members.get(structure)}, the page {names}")
        for name, text in zip(names, declarations):
            kind = f"page_{structure}_{name}"
            lines.append(f"struct {kind} {{ {text}; }};")
            lines.append(f"_Static_assert(__builtin_types_compatible_p(__typeof__(((struct {kind} *)0)->{name}),")
            lines.append(f'               __typeof__((({structure} *)0)->{name})), "{structure}.{name} is another type");')
    return lines


def check_synopses(pages, exported):
    """And what has the compiler compare them: to declare a function twice, with other types, is an error."""
    lines, declared = [], []
    for page in pages:
        names = [name for _, name, _ in page.prototypes()]
        if page.is_library:
            continue
        if page.number == "3" and sorted(names) != sorted(page.names):
            complain(f"{page.file}: the synopsis has {names}, the names are {page.names}")
        for returns, name, arguments in page.prototypes():
            if returns is None:
                lines += [f"#ifndef {name}", f'#error "{name} is no macro"', "#endif"]
            else:
                lines.append(f"{returns} {name}({', '.join(arguments)});")
                declared.append(name)
    if set(declared) != exported:
        complain(f"functions in a synopsis, or not: {sorted(set(declared) ^ exported)}")
    return lines


def main():
    pages_at, header_at, map_at, out = (pathlib.Path(name) for name in sys.argv[1:])
    pages = [Page(path) for path in sorted(pages_at.glob("*.[1357]")) if not path.read_text().startswith(".so ")]
    header = Header(header_at)
    exported = set(re.findall(r"^ *(drowse_\w+);$", map_at.read_text(), re.M))
    for page in pages:
        page.check_sections()
    check_header(header, exported)
    check_names(pages, header, exported)
    check_constants(pages, header)
    check_errors(pages, header)
    lines = ["#include <drowse.h>"] + check_synopses(pages, exported) + check_members(pages, header)
    (out / "synopsis.c").write_text("\n".join(lines) + "\n")
    for page in pages:
        examples = page.examples()
        if not examples:
            complain(f"{page.file}: has no example")
        for number, (program, commands, printed) in enumerate(examples, 1):
            stem = f"{page.file}-{number}"
            if program is not None:
                (out / f"{stem}.c").write_text(program)
                if printed is None:
                    complain(f"{page.file}: example {number} does not say what it prints")
            if printed is not None:
                (out / f"{stem}.expected").write_text(printed)
            (out / f"{stem}.run").write_text("\n".join(commands) + "\n")
    for text in complaints:
        print(text)
    sys.exit(1 if complaints else 0)


main()
