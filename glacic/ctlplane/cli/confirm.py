"""Keep the change that is on trial (`glacic apply --confirm`)."""

from __future__ import annotations

import argparse
from typing import Any

from glacic.ctlplane.cli.options import Options, add_common, say
from glacic.errors import Unreachable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`glacic confirm`."""
    add_common(parser)
    parser.set_defaults(run=run)


def run(_: argparse.Namespace, options: Options) -> int:
    """0 where it stays, 1 where nothing was on trial any more."""
    try:
        service = options.client()
    except Unreachable:
        service = None
    if service is not None:
        with service:
            result: dict[str, Any] = service.call("confirm")
    else:
        from glacic.ctlplane.cli.audit import recorded
        from glacic.ctlplane.offline import confirm_offline

        with recorded(options, "confirm"):
            revision = confirm_offline(options.state_dir)
        result = {"revision": revision.number, "state": revision.state}
    if options.json:
        options.emit(result)
    else:
        say(f"revision {result['revision']} stays")
    return 0
