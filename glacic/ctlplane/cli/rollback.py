"""Put an earlier revision in force: the one before what is in force now, or the one with this number.

The configuration file stays as it is; the service does not take it again by itself, also not at its next start, until
it changes or somebody says `glacic apply`.
"""

from __future__ import annotations

import argparse

from glacic.ctlplane.cli.apply import ANSWERED, add_change_options, me, seconds, show_changes, show_trial, via, wish
from glacic.ctlplane.cli.options import Options, add_common, say
from glacic.errors import Unreachable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`glacic rollback`."""
    add_common(parser)
    parser.add_argument("number", metavar="N", nargs="?", type=int, help="the revision, as `glacic history` numbers it")
    parser.add_argument(
        "--confirm", type=seconds, metavar="SECONDS", help="as of `glacic apply`: only on trial for so many seconds"
    )
    add_change_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, options: Options) -> int:
    """Through the service where one runs, else straight into the kernel."""
    try:
        service = options.client()
    except Unreachable:
        service = None
    if service is not None:
        with service:
            result = service.call("rollback", number=arguments.number, **wish(arguments))
    else:
        from glacic.ctlplane.cli.audit import recorded
        from glacic.ctlplane.offline import rollback_offline
        from glacic.ctlplane.revisions import Origin

        what = f"rollback to {arguments.number}" if arguments.number is not None else "rollback"
        origin = Origin(who=me(), what=what, source=via())
        with recorded(options, "rollback", number=arguments.number):
            result = rollback_offline(
                options.state_dir,
                options.config,
                arguments.number,
                origin,
                arguments.confirm,
                arguments.force,
                keep_connections=arguments.keep_connections,
            )
    if options.json:
        options.emit({key: result[key] for key in ANSWERED})
        return 0
    show_changes(result["changes"])
    say(f"in force: revision {result['revision']}; the configuration file is what it was")
    show_trial(result)
    return 0
