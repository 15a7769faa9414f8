"""The command line: one file per command here, each a client of the control socket or a thin caller of one package.

Nothing is imported before the command that needs it is known: `glacic stats` must answer in well under 200 ms, and only
what runs the engine may import hcl2, sqlalchemy or scapy. Exit codes are those of errors.py.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import sys
import traceback
from collections.abc import Sequence
from types import TracebackType
from typing import NoReturn

import glacic
from glacic.config.source import printable
from glacic.ctlplane.cli.options import Options, add_common, options_from
from glacic.errors import GlacicError, UsageError

# command -> (module below this package, what it does)
COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("run", "run the service in the foreground"),
    "check": ("check", "check a configuration, and report every error in it"),
    "show": ("show", "print the nftables script of a configuration"),
    "apply": ("apply", "load the configuration's ruleset into the kernel"),
    "confirm": ("confirm", "keep the change that is on trial"),
    "rollback": ("rollback", "put an earlier revision in force"),
    "history": ("history", "list what was put in force, when and by whom"),
    "panic": ("panic", "let in management and nothing else"),
    "unload": ("unload", "remove Glacic's table from the kernel"),
    "reload": ("reload", "have the service read its configuration again"),
    "status": ("status", "say whether the service is running and in force"),
    "stats": ("stats", "show queues, cache, latency and flow counts"),
    "flows": ("flows", "list, show and decide learned flows"),
    "connections": ("connections", "list the connections that a fail mode let in"),
    "learn": ("learn", "switch learning on or off"),
    "limits": ("limits", "limit the bandwidth of services, and watch them"),
    "audit": ("audit", "show who changed which flow or ruleset, when, from where"),
    "backup": ("backup", "copy the flow database into one file"),
    "restore": ("restore", "put a backup in the flow database's place"),
    "replay": ("replay", "show what would be learned from a packet capture"),
    "doctor": ("doctor", "try what this kernel and machine can do"),
    "lab": ("lab", "watch a small network being learned"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    if argv is None:  # this process is the command: what ends it is shown harmlessly, too
        sys.excepthook = _crash
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that knows less than Unicode
    try:
        return _run(list(sys.argv[1:] if argv is None else argv))
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def _run(words: Sequence[str]) -> int:
    options = options_from(argparse.Namespace(json="--json" in words), os.environ)
    try:
        arguments = _parse(words, options)
        options = options_from(arguments, os.environ)
        code: int = arguments.run(arguments, options)
        if sys.stdout is not None:  # it was closed before we were started
            sys.stdout.flush()
    except GlacicError as error:
        return _fail(options, error)
    return code


def _parse(words: Sequence[str], options: Options) -> argparse.Namespace:
    """The words' meaning. Where they have none argparse says so and exits; with --json that is a UsageError instead."""
    if not options.json:
        return build_parser(words).parse_args(words)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return build_parser(words).parse_args(words)
    except SystemExit as ended:
        if ended.code != UsageError.exit_code:
            raise
        raise UsageError(said.getvalue().strip().rpartition("error: ")[2]) from None


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the words given, which may be the names of somebody else's files, harmlessly."""

    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


def build_parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser for these words: only the module of the command that they name is imported."""
    parser = _Parser(
        prog="glacic",
        description="A firewall service that learns: HCL in, nftables out, the first packet kept.",
        epilog="exit codes: 0 fine, 1 the answer is no, 2 usage, 3 the service cannot be reached, 4 the kernel refused",
    )
    parser.add_argument("--version", action="version", version=f"glacic {glacic.__version__}")
    add_common(parser)
    commands = parser.add_subparsers(metavar="COMMAND", dest="command", required=True)
    for name, (module_name, summary) in COMMANDS.items():
        if name in words:
            module = importlib.import_module(f"{__name__}.{module_name}")
            command = commands.add_parser(name, help=summary, description=module.__doc__)
            module.add_arguments(command)
        else:
            commands.add_parser(name, help=summary)
    return parser


def _fail(options: Options, error: GlacicError) -> int:
    if options.json:
        options.emit({"error": str(error), "exit": error.exit_code, **error.details})
    else:
        text = str(error) if error.details.get("errors") else f"glacic: {error}"
        print("\n".join(map(printable, text.split("\n"))), file=sys.stderr)
    return error.exit_code


def _crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A fault of ours, with its stack."""
    text = "".join(traceback.format_exception(kind, error, trace))
    print("\n".join(map(printable, text.rstrip("\n").split("\n"))), file=sys.stderr)
