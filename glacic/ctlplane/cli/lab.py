"""Watch a small network being learned: a router running the service, a laptop, a camera and a server outside.

All of it lives in network namespaces of its own; nothing of the host's firewall or network is touched, and everything
is removed at the end, also after Ctrl-C. Needs root. Where the kernel has no nft `queue` statement the same runs in a
virtual machine, and says so."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from glacic.config.source import printable
from glacic.ctlplane.cli.options import Options, add_common
from glacic.errors import LabError

VM_TIMEOUT_S = 900.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`glacic lab`."""
    add_common(parser)
    parser.add_argument("--svg", type=Path, metavar="FILE", help="also draw what is printed into FILE")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, options: Options) -> int:
    """0 where the inline mode kept the first packet."""
    from glacic.lab import vm

    if vm.needed():
        return _in_guest(arguments, options)
    from rich.console import Console

    from glacic.lab import scenario, table

    with tempfile.TemporaryDirectory(prefix="glacic-lab-") as folder:
        story = scenario.play(Path(folder), lambda line: print(f"... {printable(line)}", file=sys.stderr, flush=True))
    if options.json:
        options.emit(table.as_dict(story))
    else:
        table.show(story, Console(width=None if sys.stdout.isatty() else 110, highlight=False))
    if arguments.svg:
        table.draw(story, arguments.svg)
    first = story.firsts[-1].result
    return 0 if first.ok and first.retransmits == 0 else 1


def _in_guest(arguments: argparse.Namespace, options: Options) -> int:
    """The same command in a virtual machine with a stock Debian kernel."""
    from glacic.lab import vm

    print(
        "This kernel has no nft `queue` statement: running in a virtual machine (emulated: times are slow).",
        file=sys.stderr,
    )
    writable = []
    command = [sys.executable, "-m", "glacic", "lab"]
    if options.json:
        command.append("--json")
    if arguments.svg:
        target = arguments.svg.absolute()
        if not target.parent.is_dir():
            raise LabError(f"{target.parent} is no folder")
        writable.append(target.parent)
        command += ["--svg", str(target)]
    return vm.run(command, timeout_s=VM_TIMEOUT_S, writable=writable)
