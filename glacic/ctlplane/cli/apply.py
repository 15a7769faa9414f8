"""Load the configuration's ruleset into the kernel, with what was learned, in one step. The service does this by
itself.

Without the service nobody listens behind the hooks: new flows get what `fail_mode` says.
"""

from __future__ import annotations

import argparse

from glacic.ctlplane.cli.options import Options, add_common, say
from glacic.errors import GlacicError, Unreachable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`glacic apply`."""
    add_common(parser)
    parser.set_defaults(run=run)


def run(_: argparse.Namespace, options: Options) -> int:
    """Through the service where one runs, else straight into the kernel."""
    from glacic.config.load import load

    config = load(options.config)
    try:
        with options.client() as service:
            running = service.call("status")["config"]
            if running != str(options.config):
                raise GlacicError(f"the service runs {running}: reload that, or stop the service first")
            service.call("reload")
            by = "service"
    except Unreachable:
        from glacic.ctlplane.offline import apply_offline

        apply_offline(config, options.state_dir)
        by = "command"
    if options.json:
        options.emit({"applied": True, "by": by})
    else:
        say(
            f"{options.config} is in force" + (" (no service runs: new flows get fail_mode)" if by == "command" else "")
        )
    return 0


def refuse_beside_service(options: Options, advice: str) -> None:
    """Raise where a service runs that this command would pull the ground from under."""
    try:
        with options.client() as service:
            service.call("status")
    except Unreachable:
        return
    raise GlacicError(f"a service runs at {options.socket}: {advice}")
