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
    by = "service" if _by_service(options) else "command"
    if by == "command":
        from glacic.ctlplane.offline import apply_offline

        apply_offline(config, options.state_dir)
    if options.json:
        options.emit({"applied": True, "by": by})
    else:
        say(f"{options.config} is in force" + (" (no service runs: nothing new is learned)" if by == "command" else ""))
    return 0


def _by_service(options: Options) -> bool:
    """Have the running service apply it; False where none runs, or one that applies nothing (`run --no-apply`)."""
    try:
        with options.client() as service:
            status = service.call("status")
            if not status["applies"]:
                return False
            if status["config"] != str(options.config.absolute()):
                raise GlacicError(f"the service runs {status['config']}: reload that, or stop the service first")
            service.call("reload")
            return True
    except Unreachable:
        return False


def refuse_beside_service(options: Options, advice: str) -> None:
    """Raise where a service runs that this command would pull the ground from under."""
    try:
        with options.client() as service:
            service.call("status")
    except Unreachable:
        return
    raise GlacicError(f"a service runs at {options.socket}: {advice}")
