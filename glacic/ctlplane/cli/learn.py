"""Switch learning on or off, for all policies or some. It takes effect on the next packet and survives a restart."""

from __future__ import annotations

import argparse
from typing import Any

from glacic.ctlplane.cli.options import Options, add_common, say, table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`glacic learn status|on|off`."""
    add_common(parser)
    commands = parser.add_subparsers(metavar="ACTION", required=True)

    status = commands.add_parser("status", help="which policies learn, and until when")
    status.set_defaults(run=run, call="learn.status")

    on = commands.add_parser("on", help="new flows are allowed and remembered")
    on.add_argument("policies", nargs="*", metavar="POLICY", help="only these (default: all that learn)")
    on.add_argument(
        "--for", dest="duration", metavar="TIME", help='how long, such as "24h" (default: as learn_for says)'
    )
    on.add_argument("--promote-pending", action="store_true", help="allow what is pending now, too")
    on.set_defaults(run=run, call="learn.on")

    off = commands.add_parser("off", help="new flows wait as pending")
    off.add_argument("policies", nargs="*", metavar="POLICY", help="only these (default: all that learn)")
    off.set_defaults(run=run, call="learn.off")
    for command in (status, on, off):
        add_common(command)


def run(arguments: argparse.Namespace, options: Options) -> int:
    """Ask the service, then show what is so now."""
    args: dict[str, Any] = {}
    if arguments.call != "learn.status":
        args["policies"] = arguments.policies
    if arguments.call == "learn.on":
        args.update(duration=arguments.duration, promote_pending=arguments.promote_pending)
    with options.client() as service:
        result = service.call(arguments.call, **args)
    if options.json:
        options.emit(result)
        return 0
    rows = [
        (
            row["policy"],
            "on" if row["on"] else "off",
            row["until"] or ("" if not row["on"] else "switched off"),
            row["who"],
        )
        for row in result["policies"]
    ]
    table("learning", ("policy", "learning", "until", "switched by"), rows)
    if "promoted" in result:
        say(f"{result['promoted']} pending flow(s) allowed")
    return 0
