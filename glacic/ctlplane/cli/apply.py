"""Put the configuration in force, with what was learned, in one step; show what that changes.

With --confirm it is only on trial: unless `glacic confirm` follows in time, what was in force before comes back by
itself, whatever has become of this terminal, of the service, or of the network in between. Without the service nobody
listens behind the hooks: new flows get what `fail_mode` says.
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

from glacic.ctlplane.cli.options import Options, add_common, say
from glacic.ctlplane.protocol import TRIAL_MAX_S
from glacic.errors import GlacicError, Unreachable, UsageError

if TYPE_CHECKING:
    from glacic.config.model import Config

SHOWN = 400  # lines of a difference that are shown to a person
ANSWERED = ("revision", "trial", "changes", "connections_ended")  # what a change of the ruleset is answered with


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`glacic apply`."""
    add_common(parser)
    parser.add_argument(
        "--confirm",
        type=seconds,
        metavar="SECONDS",
        help="go back by itself unless `glacic confirm` comes within so many seconds (1 to 86400)",
    )
    add_change_options(parser)
    parser.set_defaults(run=run)


def add_change_options(parser: argparse.ArgumentParser) -> None:
    """What every command takes that puts another ruleset in force."""
    parser.add_argument(
        "--force", action="store_true", help="even if that cuts the connection that this command came over"
    )
    parser.add_argument(
        "--keep-connections", action="store_true", help="leave running connections that the new ruleset refuses"
    )


def seconds(text: str) -> int:
    """For argparse: how long a change may wait to be confirmed."""
    if not text.isdecimal() or not 0 < int(text) <= TRIAL_MAX_S:
        raise argparse.ArgumentTypeError(f"{text!r} is not 1 to {TRIAL_MAX_S} seconds")
    return int(text)


def wish(arguments: argparse.Namespace) -> dict[str, Any]:
    """The arguments of a request that changes the ruleset."""
    return {
        "confirm_s": getattr(arguments, "confirm", None),
        "force": arguments.force,
        "keep_connections": arguments.keep_connections,
        "via": via(),
    }


def via() -> str:
    """Where this command comes from, as far as that can be told: SSH_CONNECTION (sshd(8)), also through sudo."""
    from glacic.ctlplane.origin import ssh_connection

    return ssh_connection() or os.environ.get("SSH_CONNECTION", "")  # what cannot be read is refused, not left out


def run(arguments: argparse.Namespace, options: Options) -> int:
    """Through the service where one runs, else straight into the kernel."""
    from glacic.config.files import DISK, Recorder
    from glacic.config.load import load
    from glacic.ctlplane.cli.audit import recorded

    recorder = Recorder(DISK)
    config = load(options.config, recorder)
    result = _by_service(arguments, options)
    by = "service" if result is not None else "command"
    if result is None:
        with recorded(options, "apply", config=str(options.config.absolute())):
            result = _offline(arguments, options, config, recorder.contents)
    if options.json:
        options.emit({"applied": True, "by": by, **{key: result[key] for key in ANSWERED}})
        return 0
    show_changes(result["changes"])
    say(f"{options.config} is in force" + (_without_service(config) if by == "command" else ""))
    show_trial(result)
    return 0


def _without_service(config: Config) -> str:
    """What of a configuration is not held while no service runs."""
    limits = ", and no bandwidth is limited" if config.limits or config.default_limit else ""
    return f" (no service runs: nothing new is learned{limits})"


def show_changes(changes: list[dict[str, Any]]) -> None:
    """What a change makes different, chain by chain and set by set."""
    lines = []
    for change in changes:
        lines.append(f"{change['kind']} {change['name']}: {change['change']}")
        lines += [f"    {line}" for line in change["lines"]]
    for line in lines[:SHOWN]:
        say(line)
    if len(lines) > SHOWN:
        say(f"... and {len(lines) - SHOWN} lines more: --json has them all")
    if not changes:
        say("no difference to the ruleset in force")


def show_trial(result: dict[str, Any]) -> None:
    """Say what has to be done that a change on trial stays."""
    trial = result["trial"]
    if trial is not None:
        back = f"revision {trial['back_to']}" if trial["back_to"] is not None else "no ruleset at all"
        say(f"on trial as revision {trial['number']}: {back} comes back in {trial['seconds_left']} s")
        say("`glacic confirm` keeps it")


def _by_service(arguments: argparse.Namespace, options: Options) -> dict[str, Any] | None:
    """Have the running service apply it; None where none runs, or one that applies nothing (`run --no-apply`).

    Raises Unreachable where it goes away meanwhile: what it has done is not known, and is not to be done once more."""
    try:
        service = options.client()
    except Unreachable:
        return None
    with service:
        status = service.call("status")
        if not status["applies"]:
            return None
        if status["config"] != str(options.config.absolute()):
            raise GlacicError(f"the service runs {status['config']}: reload that, or stop the service first")
        result: dict[str, Any] = service.call("apply", **wish(arguments))
        return result


def _offline(arguments: argparse.Namespace, options: Options, config: Any, contents: Any) -> dict[str, Any]:
    from glacic.ctlplane import offline
    from glacic.ctlplane.revisions import Origin, Revisions, trial_dict
    from glacic.firewall.difference import as_rows, difference

    revisions = Revisions(options.state_dir)
    before = revisions.standing()
    if arguments.confirm is None and before.trial is not None:
        raise UsageError("a change is on trial: `glacic confirm` keeps it, `glacic rollback` takes it back")
    old = revisions.document(before.in_force)["script"] if before.in_force is not None else ""
    origin = Origin(who=me(), what="apply", source=via())
    revision, ended = offline.change_offline(
        config,
        contents,
        options.state_dir,
        origin,
        arguments.confirm,
        arguments.force,
        keep_connections=arguments.keep_connections,
    )
    after = revisions.standing()
    new = revisions.document(revision.number)["script"]
    return {
        "revision": revision.number,
        "trial": trial_dict(after.trial),
        "changes": as_rows(difference(old, new)),
        "connections_ended": ended,
    }


def me() -> str:
    """Who runs this command, as the service would say it."""
    from glacic.ctlplane.rights import name_of

    return f"user {name_of(os.getuid())}"


def refuse_beside_service(options: Options, advice: str) -> None:
    """Raise where a service runs that this command would pull the ground from under."""
    try:
        with options.client() as service:
            service.call("status")
    except Unreachable:
        return
    raise GlacicError(f"a service runs at {options.socket}: {advice}")
