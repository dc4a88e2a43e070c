#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Holds the manual pages beside the headers, and takes them apart for tests/doc/man.sh.

usage: manual.py SOURCE OUT LIBRARY...

Says what the pages of these libraries, and those of none, leave out or invent, one complaint a line, and exits with 1 then.
Writes OUT/synopsis.c, which the compiler compares with the headers, OUT/names, what has to be installed as a page, and for every
example OUT/PAGE-N.c, .run (the commands) and .expected (what they print; where a page does not say that, there is none).

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
# libdrowse-jump declares nothing: it stands before the C library. libdrowse-tms has no header that is installed, and functions
# with another project's names: they have one page, under the library's.
HEADERS = {"libdrowse": "include/drowse.h", "libdrowse-torch": "include/drowse-torch.h", "libdrowse-tms": "src/torch/tms.h"}
HIDDEN = {"drowse_scope_loop", "drowse_scope", "drowse_mark"}  # not for direct use; values without members of interest
NO_CONSTANTS = {"DROWSE_H", "DROWSE_TORCH_H", "DROWSE_API", "DROWSE_CHECKED"}
VARIABLES = {"DROWSE_DEVICE", "DROWSE_SETTINGS", "DROWSE_DEBUG_SEAL", "DROWSE_DEBUG_POISON", "DROWSE_ERR_UNKNOWN"}
USUAL = "cc example.c $(pkg-config --cflags --libs drowse) -o example && ./example"

complaints = []


def complain(text):
    complaints.append(text)


def plain(line):
    for escape, text in ((r"\e", "\\"), (r"\&", ""), (r"\-", "-"), (r"\(aq", "'")):
        line = line.replace(escape, text)
    return line


class Library:
    """What its map exports, what its header declares, and which errors that says of what."""

    def __init__(self, source, name):
        self.name = name
        self.is_public = HEADERS[name].startswith("include/")
        self.exported = set(re.findall(r"^ +(\w+);$", (source / f"src/{name[3:]}.map").read_text(), re.M))
        text = (source / HEADERS[name]).read_text().partition("namespace drowse")[0]
        bare = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
        self.macros = {name for name in re.findall(r"^#define (drowse_\w+|DROWSE_\w+)\(", bare, re.M) if not name.endswith("_")}
        constants = re.findall(r"^#define (DROWSE_\w+)(?!\w|\()", bare, re.M) + re.findall(r"\b(DROWSE_\w+)(?: =|,|\s*\})", bare)
        self.constants = {name for name in constants if not name.endswith("_")} - NO_CONSTANTS - self.macros
        self.members = {}
        for name, body in re.findall(r"typedef struct (\w+) \{(.*?)\} \1;", bare, re.S):
            declarations = [part for part in body.split(";") if part.strip()]
            self.members[name] = [re.search(r"\(\*(\w+)\)|(\w+)(?:\[\w*\])?\s*$", part) for part in declarations]
            self.members[name] = [match.group(1) or match.group(2) for match in self.members[name]]
        self.names = self.exported | self.macros if self.is_public else set()
        self.errors = {}
        for comment, declarations in re.findall(r"/\*((?:(?!\*/).)*)\*/\s*((?:DROWSE_API [^;]*;\s*)+)", text, re.S):
            errors = set(re.findall(r"DROWSE_ERR_\w+", re.sub(r'"[^"]*"', "", comment)))
            for name in re.findall(r"DROWSE_API [^(;]*[ *](\w+)\(", declarations):
                self.errors[name] = errors


class Page:
    """One page: its names, sections, declarations and examples."""

    def __init__(self, path):
        self.name, self.number = path.name.rsplit(".", 1)
        self.file = path.name
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
        libraries = [line[4:].split(",")[0] for line in self.sections.get("LIBRARY", []) if line.startswith(".Pq ")]
        self.library = libraries[0] if libraries else None

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


def check_names(pages, library):
    names = [name for page in pages for name in page.names if page.library == library.name]
    for name in sorted(library.names - set(names)):
        complain(f"{name}: has no page")
    for name in sorted(set(names) - library.names):
        complain(f"{name}: has a page and is not in the header")
    for name in sorted(name for name in set(names) if names.count(name) > 1):
        complain(f"{name}: has several pages")


def check_constants(pages, libraries):
    constants = set().union(*(library.constants for library in libraries))
    macros = set().union(*(library.macros for library in libraries))
    text = "\n".join(plain(line) for page in pages for line in page.lines if not line.startswith(".Dt "))
    named = set(re.findall(r"\bDROWSE_[A-Z0-9_]+\b", text))
    for name in sorted(constants - named):
        complain(f"{name}: is on no page")
    for name in sorted(named - constants - macros - VARIABLES):
        complain(f"{name}: is on a page and not in a header")


def check_variables(pages, source):
    """The environment that libdrowse-tms looks at."""
    read = {name for path in source.glob("src/torch/*.c") for name in re.findall(r'"(TMS_\w+)"', path.read_text())}
    for page in pages:
        if page.library == "libdrowse-tms":
            named = {line.split()[2] for line in page.sections["ENVIRONMENT"] if line.startswith(".It Ev ")}
            if named != read:
                complain(f"{page.file}: variables that are not both read and on the page: {sorted(named ^ read)}")


def check_errors(pages, library):
    for page in pages:
        if page.library != library.name:
            continue
        said = set(re.findall(r"DROWSE_ERR_\w+", "\n".join(page.sections.get("ERRORS", []) + page.sections.get("FORK", []))))
        for name in page.names:
            for error in sorted(library.errors.get(name, set()) - said):
                complain(f"{page.file}: the header says {error} of {name}, and the page does not")


def check_header(library):
    """This program's own reading of it."""
    if set(library.errors) != library.exported:
        complain(f"{library.name}: the header's comments were not found for {sorted(set(library.errors) ^ library.exported)}")


def check_members(pages, libraries):
    """And what has the compiler compare their types."""
    members = {name: names for library in libraries for name, names in library.members.items()}
    listed = dict(entry for page in pages for entry in page.members())
    for name in sorted(set(members) - HIDDEN - set(listed)):
        complain(f"struct {name}: no page lists its members")
    lines = []
    for structure, declarations in listed.items():
        names = [(re.search(r"\(\*(\w+)\)", text) or re.search(r"(\w+)(?:\[\w*\])?$", text)).group(1) for text in declarations]
        if names != members.get(structure):
            complain(f"struct {structure}: the header has {members.get(structure)}, the page {names}")
        for name, text in zip(names, declarations):
            kind = f"page_{structure}_{name}"
            lines.append(f"struct {kind} {{ {text}; }};")
            lines.append(f"_Static_assert(__builtin_types_compatible_p(__typeof__(((struct {kind} *)0)->{name}),")
            lines.append(f'               __typeof__((({structure} *)0)->{name})), "{structure}.{name} is another type");')
    return lines


def check_synopses(pages, library):
    """And what has the compiler compare them: to declare a function twice, with other types, is an error."""
    lines, declared = [], []
    for page in pages:
        if page.library != library.name:
            continue
        names = [name for _, name, _ in page.prototypes()]
        if library.is_public and sorted(names) != sorted(page.names):
            complain(f"{page.file}: the synopsis has {names}, the names are {page.names}")
        for returns, name, arguments in page.prototypes():
            if returns is None:
                lines += [f"#ifndef {name}", f'#error "{name} is no macro"', "#endif"]
            else:
                lines.append(f"{returns} {name}({', '.join(arguments)});")
                declared.append(name)
    if set(declared) != library.exported:
        complain(f"{library.name}: functions in a synopsis, or not: {sorted(set(declared) ^ library.exported)}")
    return lines


def main():
    source, out, installed = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3:]
    pages = [Page(path) for path in sorted(source.glob("doc/man/*.[1357]")) if not path.read_text().startswith(".so ")]
    pages = [page for page in pages if page.library is None or page.library in installed]
    libraries = [Library(source, name) for name in HEADERS if name in installed]
    lines = [f"#include <{HEADERS[library.name].partition('/')[2]}>" for library in libraries]
    for page in pages:
        page.check_sections()
    for library in libraries:
        check_header(library)
        check_errors(pages, library)
        lines += check_synopses(pages, library)
        if library.is_public:
            check_names(pages, library)
    check_constants(pages, libraries)
    check_variables(pages, source)
    lines += check_members(pages, libraries)
    (out / "synopsis.c").write_text("\n".join(lines) + "\n")
    (out / "names").write_text("".join(f"{name}\n" for library in libraries for name in sorted(library.names)))
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
