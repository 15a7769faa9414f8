"""Have the service read its configuration again. Returns when the new ruleset is live; an invalid one changes
nothing."""

from __future__ import annotations

import argparse

from glacic.ctlplane.cli.options import Options, add_common, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`glacic reload`."""
    add_common(parser)
    parser.set_defaults(run=run)


def run(_: argparse.Namespace, options: Options) -> int:
    """Ask the service, and wait for it."""
    with options.client() as service:
        result = service.call("reload")
    if options.json:
        options.emit(result)
    else:
        say(f"reloaded {result['config']}: {result['policies']} policies, {result['learning_policies']} of them learn")
    return 0
