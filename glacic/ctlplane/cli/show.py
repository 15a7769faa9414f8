"""Print the nftables script of a configuration, as `nft -f` takes it. What was learned is not in it: see `flows
list`. With --diff print what the file would change in what is in force."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from glacic.ctlplane.cli.apply import show_changes
from glacic.ctlplane.cli.options import Options, add_common
from glacic.errors import Unreachable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`glacic show`."""
    add_common(parser)
    parser.add_argument(
        "--diff", action="store_true", help="what the file would change in what is in force, by chain and set"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, options: Options) -> int:
    """Compile and render; no rights are needed, and the kernel is not asked."""
    from glacic.config.load import load
    from glacic.firewall.compile import compile_config
    from glacic.firewall.render import render

    config = load(options.config)
    if arguments.diff:
        found = _difference(config, options)
        if options.json:
            options.emit(found)
        else:
            show_changes(found["changes"])
        return 0
    script = render(compile_config(config))
    if options.json:
        options.emit({"script": script})
    else:
        sys.stdout.write(script)
    return 0


def _difference(config: Any, options: Options) -> dict[str, Any]:
    """By the service where one runs, else by the history."""
    try:
        with options.client() as service:
            if service.call("status")["config"] == str(options.config.absolute()):
                found: dict[str, Any] = service.call("difference")
                return found
    except Unreachable:
        pass
    from glacic.ctlplane.offline import difference_offline

    return difference_offline(config, options.state_dir)
