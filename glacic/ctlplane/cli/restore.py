"""Put a backup in the place of the flow database. What it replaces is kept beside it."""

from __future__ import annotations

import argparse
from pathlib import Path

from glacic.ctlplane.cli.options import Options, add_common, say
from glacic.errors import Unreachable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`glacic restore FILE`."""
    parser.add_argument("file", type=Path, metavar="FILE")
    add_common(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, options: Options) -> int:
    """Through the service where one runs, so that the kernel follows; else the files are swapped here."""
    from glacic.ctlplane.cli.backup import database
    from glacic.ctlplane.owner import as_owner
    from glacic.learning import backup

    path = database(options)
    with as_owner(path.parent):  # the service takes over what is laid there
        flows = backup.prepare(arguments.file, path)
        try:
            with options.client() as service:
                replaced = service.call("restore")["replaced"]
        except Unreachable:
            from glacic.ctlplane.startup import only_one

            with only_one(options.state_dir / "lock"):
                kept = backup.swap(path)
            replaced = str(kept) if kept is not None else None
    if options.json:
        options.emit({"file": str(arguments.file.absolute()), "flows": flows, "replaced": replaced})
    else:
        said = f"; what was there is {replaced}" if replaced else ""
        say(f"{flows} flow(s) are restored from {arguments.file}{said}")
    return 0
