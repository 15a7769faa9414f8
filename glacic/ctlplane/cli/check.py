"""Check a configuration: every error in it, each with its place and what to do. Nothing is applied, no rights are
needed."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from glacic.ctlplane.cli.options import Options, add_common, say

if TYPE_CHECKING:
    from glacic.config.model import Config
    from glacic.config.source import Diagnostic


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`glacic check`."""
    add_common(parser)
    parser.set_defaults(run=run)


def run(_: argparse.Namespace, options: Options) -> int:
    """0 where the configuration is valid, else 1."""
    from glacic.config import load

    config, found = load.examine(options.config)
    diagnostics = [*found, *_about_this_machine(config), *_about_this_kernel(config)]
    errors = [diagnostic for diagnostic in diagnostics if diagnostic.severity == "error"]
    notes = [diagnostic for diagnostic in diagnostics if diagnostic.severity != "error"]
    if options.json:
        options.emit(
            {
                "valid": config is not None,
                "errors": [diagnostic.as_dict() for diagnostic in errors],
                "notes": [diagnostic.as_dict() for diagnostic in notes],
            }
        )
        return 0 if config else 1
    for diagnostic in diagnostics:
        print(diagnostic.render(), end="\n\n")
    if config is None:
        say(f"{options.config}: {len(errors)} error{'s' if len(errors) != 1 else ''}")
        return 1
    counted = [f"{len(config.zones)} zones", f"{len(config.policies)} policies"]
    counted.append(f"{sum(len(policy.rules) for policy in config.policies)} rules")
    if config.limits or config.default_limit:
        limits = len(config.limits) + (config.default_limit is not None)
        counted.append(f"{limits} limit{'s' if limits != 1 else ''}")
    say(f"{options.config}: valid: {', '.join(counted)}")
    return 0


def _about_this_machine(config: Config | None) -> list[Diagnostic]:
    """Limits of units that look like slips of others; nothing where this machine's units cannot be seen."""
    from glacic.config.validate_limits import resembling
    from glacic.ctlplane.units import known_units

    return resembling(config, known_units()) if config is not None and config.limits else []


def _about_this_kernel(config: Config | None) -> list[Diagnostic]:
    """What a valid configuration asks for and this kernel has not, as notes; nothing where it cannot be tried."""
    from glacic.config.source import NOTE, Diagnostic
    from glacic.ctlplane.probes import lacks

    if config is None or not config.flowtable or not lacks("nft flowtable"):
        return []
    advice = "nothing of this configuration can be applied here until you leave it out; see `glacic doctor`"
    return [Diagnostic(config.spans["flowtable"], "this kernel has no flow tables", advice, NOTE)]
