"""Remove Glacic's table from the kernel: nothing is filtered by it any more. What was learned stays in the database."""

from __future__ import annotations

import argparse

from glacic.ctlplane.cli.options import Options, add_common, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`glacic unload`."""
    add_common(parser)
    parser.set_defaults(run=run)


def run(_: argparse.Namespace, options: Options) -> int:
    """Refused while the service runs, which would be left without its table."""
    from glacic.ctlplane.cli.apply import refuse_beside_service
    from glacic.ctlplane.cli.audit import recorded
    from glacic.ctlplane.revisions import Revisions
    from glacic.firewall.apply import unload
    from glacic.firewall.nft import Libnftables

    refuse_beside_service(options, "stop it first")
    with recorded(options, "unload"):
        was_there = unload(Libnftables())
        if options.state_dir.is_dir():
            Revisions(options.state_dir).unloaded()
    if options.json:
        options.emit({"unloaded": was_there})
    else:
        say("table inet glacic removed" if was_there else "table inet glacic was not loaded")
    return 0
