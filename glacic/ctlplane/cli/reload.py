"""Have the service read its configuration again. Returns when the new ruleset is live; an invalid one changes
nothing."""

from __future__ import annotations

import argparse

from glacic.ctlplane.cli.apply import add_change_options, show_changes, wish
from glacic.ctlplane.cli.options import Options, add_common, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`glacic reload`."""
    add_common(parser)
    add_change_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, options: Options) -> int:
    """Ask the service, and wait for it."""
    with options.client() as service:
        result = service.call("reload", **wish(arguments))
    if options.json:
        options.emit(result)
    else:
        show_changes(result["changes"])
        counts = f"policies: {result['policies']}; that learn, DROP_INPUT and DROP_FORWARD among them"
        what = "; no rule has changed, only elements of sets" if result["replaced"] == "elements" else ""
        limits = f"; bandwidth limits: {result['limits']}" if result["limits"] else ""
        say(f"reloaded {result['config']}: {counts}: {result['learning_policies']}{limits}{what}")
        if result["connections_ended"]:
            say(f"{result['connections_ended']} connection(s) ended that it refuses")
    return 0
