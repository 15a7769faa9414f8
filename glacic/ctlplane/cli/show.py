"""Print the nftables script of a configuration, as `nft -f` takes it. What was learned is not in it: see `flows
list`."""

from __future__ import annotations

import argparse
import sys

from glacic.ctlplane.cli.options import Options, add_common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`glacic show`."""
    add_common(parser)
    parser.set_defaults(run=run)


def run(_: argparse.Namespace, options: Options) -> int:
    """Compile and render; no rights are needed, and the kernel is not asked."""
    from glacic.config.load import load
    from glacic.firewall.compile import compile_config
    from glacic.firewall.render import render

    script = render(compile_config(load(options.config)))
    if options.json:
        options.emit({"script": script})
    else:
        sys.stdout.write(script)
    return 0
