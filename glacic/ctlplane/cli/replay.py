"""Show what would be learned from a packet capture (pcap, pcapng): the service's own decoder and engine over a
throw-away store.

Every packet is taken as one that no rule decided: a policy's own rules are not consulted. No rights are needed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from glacic.config.source import printable
from glacic.ctlplane.cli.options import Options, add_common, table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`glacic replay CAPTURE...`."""
    add_common(parser)
    parser.add_argument(
        "captures", nargs="+", type=Path, metavar="CAPTURE", help="pcap or pcapng; Ethernet, raw IP, cooked"
    )
    parser.add_argument(
        "--policy", metavar="NAME", help="every packet asks this policy (default: by the zones' networks)"
    )
    parser.add_argument("--learning", choices=("on", "off"), help="default: learning_mode in the configuration")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, options: Options) -> int:
    """Replay, then report."""
    from glacic.config.load import load
    from glacic.learning.replay import replay

    learning = None if arguments.learning is None else arguments.learning == "on"
    bar = _Bar(arguments.captures) if sys.stderr.isatty() else None
    report = replay(
        arguments.captures,
        load(options.config),
        policy=arguments.policy,
        learning=learning,
        progress=bar.advance if bar else None,
    )
    if bar:
        bar.close()
    for line in report.notes:
        print(f"glacic: {printable(line)}", file=sys.stderr)
    document = report.as_dict()
    if options.json:
        options.emit(document)
    else:
        _print(document)
    return 0


def _print(document: dict[str, Any]) -> None:
    print(f"{document['packets']} packets")
    rows = [("decided", why, count) for why, count in document["decisions"].items()]
    rows += [("unreadable", reason, count) for reason, count in document["unreadable"].items()]
    table("packets", ("packets", "reason", "count"), rows)
    columns = ("policy", "source", "protocol", "port", "destination", "state", "packets")
    table(
        "flows",
        columns,
        [[flow[name] or ("" if name != "port" else 0) for name in columns] for flow in document["flows"]],
    )


class _Bar:
    """A progress bar on stderr, in bytes of capture."""

    def __init__(self, captures: list[Path]) -> None:
        from rich.console import Console
        from rich.progress import Progress

        total = sum(capture.stat().st_size for capture in captures if capture.is_file())
        self._progress = Progress(console=Console(stderr=True), transient=True)
        self._task = self._progress.add_task("replay", total=total)
        self._progress.start()

    def advance(self, done_bytes: int) -> None:
        self._progress.update(self._task, completed=done_bytes)

    def close(self) -> None:
        self._progress.stop()
