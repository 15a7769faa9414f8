"""Let in management and nothing else, at once; `glacic panic off` puts back what was in force.

What the zones list under `management` stays open, with its answers. All other traffic ends, through the firewall and
to it, running connections too. A panic outlives restarts and reboots. What was learned is kept.
"""

from __future__ import annotations

import argparse

from glacic.ctlplane.cli.apply import via
from glacic.ctlplane.cli.options import Options, add_common, say
from glacic.ctlplane.client import Client
from glacic.errors import GlacicError, Unreachable

WAIT_S = 20.0  # for a service that stands still; then the panic goes straight into the kernel


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`glacic panic`."""
    add_common(parser)
    parser.add_argument("switch", choices=("on", "off"), nargs="?", default="on", help="default: on")
    parser.add_argument(
        "--force",
        action="store_true",
        help="even if that locks out everybody, or the connection this command came over",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, options: Options) -> int:
    """Through the service where one runs, else straight into the kernel."""
    on = arguments.switch == "on"
    try:
        with Client(options.socket, WAIT_S) as service:
            service.call("panic", on=on, force=arguments.force, via=via())
    except Unreachable:
        from glacic.ctlplane.cli.audit import recorded

        with recorded(options, "panic", on=on):
            _offline(options, on=on, force=arguments.force)
    if options.json:
        options.emit({"panic": on})
    else:
        say("panic: management and nothing else; `glacic panic off` ends it" if on else "the panic is over")
    return 0


def _offline(options: Options, *, on: bool, force: bool) -> None:
    from glacic.config.load import load
    from glacic.ctlplane.offline import panic_offline, standing_config
    from glacic.firewall.panic import managed

    try:
        config = standing_config(options.state_dir)
    except GlacicError:  # nothing was ever put in force: the file it is
        config = load(options.config)
    if on and not force and not managed(config):
        raise GlacicError(
            "no zone lists anything under `management`: a panic would lock everybody out;"
            " use --force if that is intended"
        )
    panic_offline(config, options.state_dir, on=on, source="" if force else via())
