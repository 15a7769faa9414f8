"""Run the service in the foreground: apply the ruleset, read, learn, answer. SIGHUP reloads, SIGTERM stops cleanly.

A clean stop leaves the ruleset and what was learned in force; `glacic unload` removes them.
"""

from __future__ import annotations

import argparse

from glacic.ctlplane.cli.options import Options, add_common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`glacic run`."""
    add_common(parser)
    parser.add_argument(
        "--no-apply",
        action="store_true",
        help="load no ruleset: decide for a table that someone loaded from `glacic show`",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, options: Options) -> int:
    """Until told to stop."""
    from glacic.ctlplane.spawn import spawn

    spawned = spawn()  # it imports while this process does
    from glacic.ctlplane import service

    return service.run(
        config_path=options.config,
        state_dir=options.state_dir,
        socket_path=options.socket,
        apply_ruleset=not arguments.no_apply,
        spawned=spawned,
    )
