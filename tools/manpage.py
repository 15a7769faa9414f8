"""The manual page glacic(8), from the command line's own words: python tools/manpage.py > glacic.8

What needs more words than an option has stands in the documents that are installed beside it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import glacic
from glacic.ctlplane.cli import COMMANDS, build_parser
from glacic.ctlplane.cli.options import CONFIG, SOCKET, STATE_DIR

FILES = {
    CONFIG: "the configuration",
    STATE_DIR: "what was learned, the revisions, and the ruleset for the next boot",
    SOCKET: "the control socket",
}


def page() -> Iterator[str]:
    """Its lines, in the macros of man(7)."""
    top = build_parser([])
    day = datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", datetime.now(UTC).timestamp())), UTC)
    yield f'.TH GLACIC 8 "{day:%Y-%m-%d}" "glacic {glacic.__version__}" "System administration"'
    yield ".SH NAME"
    yield r"glacic \- a firewall service that learns"
    yield ".SH SYNOPSIS"
    yield r".B glacic"
    yield r"[\fIoptions\fR] \fICOMMAND\fR [\fIoptions\fR]"
    yield ".SH DESCRIPTION"
    yield _text(top.description or "")
    yield ".SH OPTIONS"
    yield "Of every command, before or after its name; the words in brackets are the variable and the default."
    yield from _options(top)
    yield ".SH COMMANDS"
    for name in COMMANDS:
        yield from _command(["glacic", name], _below(build_parser([name]))[name])
    yield ".SH EXIT STATUS"
    yield _text((top.epilog or "").removeprefix("exit codes: ") + ".")
    yield ".SH FILES"
    for path, what in FILES.items():
        yield from (".TP", f".I {_text(str(path))}", what)
    yield ".SH SEE ALSO"
    yield r"/usr/share/doc/glacic, \fBnft\fR(8), \fBsystemctl\fR(1)"


def _command(words: list[str], parser: argparse.ArgumentParser) -> Iterator[str]:
    """A command with its options, then the commands below it."""
    positional = [
        action.metavar or action.dest for action in parser._get_positional_actions() if action.nargs != "A..."
    ]
    yield f".SS {_text(' '.join([*words, *map(str, positional)]))}"
    yield _text(" ".join((parser.description or "").split()))
    common = {option for action in build_parser([])._actions for option in action.option_strings}
    yield from _options(parser, common)
    for name, below in _below(parser).items():
        yield from _command([*words, name], below)


def _options(parser: argparse.ArgumentParser, known: set[str] | None = None) -> Iterator[str]:
    for action in parser._actions:
        if (
            isinstance(action, argparse._SubParsersAction)
            or not action.help
            or set(action.option_strings) & (known or set())
        ):
            continue
        names = ", ".join(action.option_strings) or str(action.metavar or action.dest)
        value = "" if action.nargs == 0 or not action.option_strings else f" {action.metavar or action.dest.upper()}"
        yield from (".TP", f".B {_text(names + value)}", _text(action.help.replace("%%", "%")))


def _below(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _text(words: str) -> str:
    r"""Text that troff prints as it is: a backslash is \e, a hyphen \-, and no line begins with a request."""
    escaped = words.replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{escaped}" if escaped[:1] in {".", "'"} else escaped


if __name__ == "__main__":
    print("\n".join(page()))
