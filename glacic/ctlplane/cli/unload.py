"""Remove Glacic's tables from the kernel: nothing is filtered or limited by them. What was learned stays on disk."""

from __future__ import annotations

import argparse
from pathlib import Path

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
    from glacic.shaping.bpf.engine import BpfLimits
    from glacic.shaping.bpf.pins import PLACE
    from glacic.shaping.makers import on_interfaces
    from glacic.shaping.nftlimits import NftLimits

    refuse_beside_service(options, "stop it first")
    with recorded(options, "unload"):
        nft = Libnftables()
        was_there = unload(nft)
        NftLimits(nft).remove()
        for engine in on_interfaces(nft, options.state_dir).values():
            engine.remove()
        BpfLimits(Path("/"), place=PLACE).remove()  # what a service has pinned; cgroups are not looked for
        if options.state_dir.is_dir():
            Revisions(options.state_dir).unloaded()
    if options.json:
        options.emit({"unloaded": was_there})
    else:
        say("table inet glacic removed" if was_there else "table inet glacic was not loaded")
    return 0
