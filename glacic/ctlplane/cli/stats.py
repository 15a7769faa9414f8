"""Show what the queues, the cache and the engine did, and how many flows there are."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from typing import Any

from glacic.ctlplane.cli.options import Options, add_common, table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`glacic stats`."""
    add_common(parser)
    parser.add_argument("--watch", action="store_true", help="again and again, until Ctrl-C")
    parser.add_argument("--interval", type=_seconds, default=2.0, metavar="SECONDS", help="with --watch (default 2)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, options: Options) -> int:
    """Once, or every --interval seconds; with --json --watch one document per line of time."""
    with options.client() as service:
        while True:
            stats = service.call("stats")
            if options.json:
                options.emit(stats)
            else:
                _print(stats, clear=arguments.watch and sys.stdout.isatty())
            if not arguments.watch:
                return 0
            time.sleep(arguments.interval)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0.1 to 86400")
    return seconds


def _print(stats: dict[str, Any], *, clear: bool) -> None:
    if clear:
        print("\x1b[2J\x1b[H", end="")
    for title, rows in (("queues", stats["queues"]), ("log groups", stats["log_groups"])):
        if rows:
            columns = [name for name, value in rows[0].items() if not isinstance(value, dict)]
            table(title, columns, [[row[name] for name in columns] for row in rows])
    reasons: Counter[str] = Counter()
    for row in (*stats["queues"], *stats["log_groups"]):
        reasons.update(row["decisions"])
        reasons.update({f"unreadable: {reason}": count for reason, count in row["unreadable"].items()})
    if reasons:
        table("decisions", ("why", "packets"), reasons.most_common())
    cache, latency, learning = stats["cache"], stats["latency_us"], stats["learning"]
    lines = [
        ("cache", f"{cache['size']} of {cache['capacity']}, {cache['hits']} hits, {cache['misses']} misses"),
        ("latency", f"p50 {latency['p50']} us, p99 {latency['p99']} us, max {latency['max']} us"),
        ("flows", ", ".join(f"{count} {state}" for state, count in stats["flows"].items())),
        (
            "learning",
            f"{'on' if learning['on'] else 'off'}{', until ' + learning['until'] if learning['until'] else ''}",
        ),
    ]
    table("engine", ("what", "figures"), lines)
