"""Print the nftables script of a configuration, as `nft -f` takes it. What was learned is not in it: see `flows
list`. With --diff print what the file would change in what is in force, with --counters what that has counted."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from typing import Any

from glacic.ctlplane.cli.apply import show_changes
from glacic.ctlplane.cli.options import Options, add_common, table
from glacic.errors import Unreachable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`glacic show`."""
    add_common(parser)
    parser.add_argument(
        "--diff", action="store_true", help="what the file would change in what is in force, by chain and set"
    )
    parser.add_argument("--counters", action="store_true", help="what the rules in force have counted, from the kernel")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, options: Options) -> int:
    """Compile and render; no rights are needed, and the kernel is not asked. With --counters it is, and only it."""
    if arguments.counters:
        return _counters(options)
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


def _counters(options: Options) -> int:
    from glacic.config.load import load
    from glacic.errors import ConfigError, GlacicError
    from glacic.firewall.claims import FAMILY, TABLE
    from glacic.firewall.counting import counts
    from glacic.firewall.dump import Dump

    dump = Dump(TABLE)
    if not dump.present():
        raise GlacicError(f"there is no table {FAMILY} {TABLE}: nothing is in force; see `glacic apply`")
    try:
        policies = [policy.name for policy in load(options.config).policies]
    except ConfigError:
        policies = []  # what is in force was made from another file, or an earlier one; chains say enough
    found = list(counts(dump.rules(), dump.counters(), policies))
    if options.json:
        options.emit({"counters": [asdict(one) for one in found]})
        return 0
    rows = [[one.policy or "", one.rule or "", one.chain, one.verdict, one.packets, one.bytes] for one in found]
    table("counters", ("policy", "rule", "chain", "verdict", "packets", "bytes"), rows)
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
