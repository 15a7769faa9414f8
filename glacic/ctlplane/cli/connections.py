"""List the connections that a fail mode let in and that go on, and what the ruleset would say of each now."""

from __future__ import annotations

import argparse

from glacic.ctlplane.cli.options import Options, add_common, say, table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`glacic connections`."""
    add_common(parser)
    parser.set_defaults(run=run)


def run(_: argparse.Namespace, options: Options) -> int:
    """Ask the service."""
    with options.client() as service:
        result = service.call("connections")
    if options.json:
        options.emit(result)
        return 0
    shown = ("source", "destination", "protocol", "port", "policy", "now")
    rows = [[row[name] if row[name] is not None else "" for name in shown] for row in result["connections"]]
    table("let in by a fail mode", shown, rows)
    if result["total"] > len(rows):
        say(f"and {result['total'] - len(rows)} more")
    return 0
