"""List what was put in force, when and by whom; with a number, print that revision's files."""

from __future__ import annotations

import argparse
from typing import Any

from glacic.ctlplane.cli.options import Options, add_common, say, table
from glacic.errors import Unreachable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`glacic history`."""
    add_common(parser)
    parser.add_argument("number", metavar="N", nargs="?", type=int, help="print the files of this revision")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, options: Options) -> int:
    """From the service, or from the state directory itself."""
    found = _asked(arguments, options)
    if options.json:
        options.emit(found)
    elif arguments.number is not None:
        for name, text in found["files"].items():
            say(f"# {name}")
            for line in text.splitlines():
                say(line)
    else:
        columns = ("", "revision", "at", "by", "from", "what", "state")
        rows = [
            (
                "*" if row["in_force"] else "",
                row["number"],
                row["at"],
                row["who"],
                row["source"].partition(" ")[0],
                row["what"],
                row["state"],
            )
            for row in found["revisions"]
        ]
        table("Revisions (* in force)" + (", and a panic" if found["panic"] else ""), columns, rows)
        if found["trial"]:
            say(f"revision {found['trial']['number']} is on trial for {found['trial']['seconds_left']} s more")
    return 0


def _asked(arguments: argparse.Namespace, options: Options) -> dict[str, Any]:
    try:
        with options.client() as service:
            found: dict[str, Any] = service.call("history", number=arguments.number)
            return found
    except Unreachable:
        from glacic.ctlplane.revisions import Revisions

        revisions = Revisions(options.state_dir)
        return revisions.standing().as_dict() if arguments.number is None else revisions.document(arguments.number)
