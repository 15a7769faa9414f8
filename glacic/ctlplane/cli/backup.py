"""Copy the flow database into one file, as of one moment, also while the service runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from glacic.ctlplane.cli.options import Options, add_common, say
from glacic.errors import Unreachable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`glacic backup FILE`."""
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("--force", action="store_true", help="replace FILE where it is there already")
    add_common(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, options: Options) -> int:
    """The service is asked where its database is, and to write what it has just learned; the copy is made here."""
    from glacic.learning.backup import backup

    flows = backup(database(options), arguments.file, force=arguments.force)
    if options.json:
        options.emit({"file": str(arguments.file.absolute()), "flows": flows, "bytes": arguments.file.stat().st_size})
    else:
        say(f"{flows} flow(s) are in {arguments.file}")
    return 0


def database(options: Options) -> Path:
    """The flow database of the running service, else of the configuration. Raises GlacicError."""
    try:
        with options.client() as service:
            return Path(service.call("database")["path"])
    except Unreachable:
        from glacic.ctlplane.restoring import database_of

        return database_of(options.config, options.state_dir)
