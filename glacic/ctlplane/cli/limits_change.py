"""`glacic limits set` and `clear`: a limit while the service runs, until it is started anew; with --save in the
configuration too."""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from glacic.config import cgroups
from glacic.config.model import LimitEngine, LimitKind, Traffic
from glacic.config.rates import SLOW, bytes_text, exact_text, parse_rate, rate_text, why_rough
from glacic.config.values import Invalid
from glacic.ctlplane.cli.options import Options, add_common, say, warn
from glacic.ctlplane.client import Client
from glacic.errors import GlacicError, UsageError

Actions = Any  # argparse's own type for the parsers of subcommands has no public name

NO_LIMIT = "none"


def add_set(commands: Actions) -> None:
    """`limits set NAME`."""
    parser = commands.add_parser("set", help="set a limit, or change one, until the service is started anew")
    parser.add_argument("name", metavar="NAME", nargs="?", help="the limit's name, or that of what it limits")
    add_target(parser)
    add_rates(parser, none=True)
    parser.add_argument("--save", action="store_true", help="in the configuration, too; comments are kept")
    parser.set_defaults(run=run_set)
    add_common(parser)


def add_clear(commands: Actions) -> None:
    """`limits clear NAME`."""
    parser = commands.add_parser("clear", help="limit nothing by this name, until the service is started anew")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--save", action="store_true", help="take it out of the configuration, too")
    parser.set_defaults(run=run_clear)
    add_common(parser)


def add_target(parser: argparse.ArgumentParser) -> None:
    """What is limited."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--unit", metavar="UNIT", help="a service, scope or mount, backup.service")
    group.add_argument("--slice", metavar="SLICE", help="everything in a slice together, web.slice")
    group.add_argument("--cgroup", metavar="PATH", help="a path below the cgroup2 mount")


def add_rates(parser: argparse.ArgumentParser, *, none: bool) -> None:
    """To what, and how. none: whether a rate may be taken away."""
    also = f', or "{NO_LIMIT}"' if none else ""
    kind = _rate_or_none if none else rate
    for direction in ("upload", "download"):
        parser.add_argument(f"--{direction}", type=kind, metavar="RATE", help=f'"5 mbit", "2 MiB/s"{also}')
    parser.add_argument("--engine", choices=[str(engine) for engine in LimitEngine], help="what holds it")
    parser.add_argument("--traffic", choices=[str(traffic) for traffic in Traffic], help="what counts")
    parser.add_argument("--interface", metavar="NAME", help="for the engines shape and police")


def rate(text: str) -> int:
    """A rate of the command line, in bytes per second."""
    try:
        return parse_rate(text)
    except Invalid as invalid:
        raise argparse.ArgumentTypeError(f"{invalid.summary}: {invalid.advice}") from None


def _rate_or_none(text: str) -> int:
    return 0 if text == NO_LIMIT else rate(text)


def run_set(arguments: argparse.Namespace, options: Options) -> int:
    """Set it in the service, which holds it; then in the file."""
    with _alone(arguments, options):
        with options.client() as service:
            limit = _wanted(arguments, _meant(arguments, service.call("limits.list")["limits"]))
            change = None
            if arguments.save:
                from glacic.ctlplane import saving

                _same_file(service, options)
                change = saving.prepare_set(options.config, limit["name"], attributes(limit))
            result = service.call("limits.set", **limit)
        warnings = about(result)
        _save(change, "the limit holds until the service is started anew")
    if options.json:
        options.emit({**result, "saved": str(change.path) if change else None, "warnings": warnings})
        return 0
    say(_outcome(result) + (f"; written into {change.path}" if change else ", until the service is started anew"))
    return 0


def run_clear(arguments: argparse.Namespace, options: Options) -> int:
    """Clear it in the service; then in the file."""
    with _alone(arguments, options):
        with options.client() as service:
            change = None
            if arguments.save:
                from glacic.ctlplane import saving

                _same_file(service, options)
                change = saving.prepare_clear(options.config, arguments.name)
            gone = change is not None and not _holds(service, arguments.name)  # cleared before, not in the file
            result = {"cleared": arguments.name} if gone else service.call("limits.clear", name=arguments.name)
        _save(change, "the limit is cleared until the service is started anew")
    if options.json:
        options.emit({**result, "saved": str(change.path) if change else None})
        return 0
    say(
        f"limit {result['cleared']} is cleared"
        + (f", and taken out of {change.path}" if change else "")
        + (
            ""
            if change
            else "; the configuration has it not"
            if arguments.save
            else ", until the service is started anew"
        )
    )
    return 0


def about(limit: dict[str, Any]) -> list[str]:
    """What is worth knowing of a limit that was just set; it is said on stderr."""
    found = [
        f"{direction} is less than {bytes_text(SLOW)}/s, and held roughly: {why_rough(limit[direction])}"
        for direction in ("upload", "download")
        if limit[direction] and limit[direction] < SLOW
    ]
    if limit["state"] == "waiting" and limit["kind"] != LimitKind.CGROUP:
        from glacic.config.validate_limits import alike
        from glacic.ctlplane.units import known_units

        if meant := alike(limit["target"], known_units()):
            found.append(f"this machine has no unit {limit['target']}: did you mean {meant}?")
    for sentence in found:
        warn(f"warning: {sentence}")
    return found


def attributes(limit: dict[str, Any]) -> dict[str, str]:
    """The arguments of limits.set as attributes of a block."""
    found = {str(limit["kind"]): str(limit["target"])}
    for direction in ("upload", "download"):
        if limit[direction]:
            found[direction] = exact_text(limit[direction])
    return found | {name: str(limit[name]) for name in ("engine", "traffic", "interface") if limit.get(name)}


def _wanted(arguments: argparse.Namespace, known: dict[str, Any] | None) -> dict[str, Any]:
    """The arguments of limits.set: what is said, and of the rest what holds now."""
    kind, target = _target(arguments, known)
    name = known["name"] if known is not None else _new_name(arguments.name or target, kind, target)
    limit: dict[str, Any] = {"name": name, "kind": str(kind), "target": target}
    for direction in ("upload", "download"):
        said = getattr(arguments, direction)
        limit[direction] = (said if said is not None else (known or {}).get(direction)) or None
    if not limit["upload"] and not limit["download"]:
        raise UsageError(f"limit {name} would limit nothing: say --upload, --download or both, or `limits clear`")
    limit["engine"] = arguments.engine or (known or {}).get("engine") or str(LimitEngine.AUTO)
    limit["traffic"] = arguments.traffic or (known or {}).get("traffic") or str(Traffic.ALL)
    return limit | valid_interface(arguments, known, limit)


def valid_interface(
    arguments: argparse.Namespace, known: dict[str, Any] | None, limit: dict[str, Any]
) -> dict[str, str]:
    """The interface, where the engine works on one. Raises UsageError for one where it does not."""
    from glacic.config.validate_limits import ON_INTERFACES

    if limit["engine"] not in [str(engine) for engine in ON_INTERFACES]:
        if arguments.interface:
            raise UsageError(f"--interface cannot apply to engine {limit['engine']}: say --engine shape or police")
        return {"interface": ""}
    interface = arguments.interface or (known or {}).get("interface") or ""
    if limit["engine"] == LimitEngine.POLICE:
        if not interface:
            raise UsageError("engine police limits everybody on an interface: if that is wanted, say --interface NAME")
        if limit["traffic"] != Traffic.ALL:
            raise UsageError("engine police counts all of an interface: say --traffic all")
    return {"interface": _valid(interface) if interface else ""}


def _valid(interface: str) -> str:
    from glacic.config.decode_limits import one_interface

    try:
        return one_interface(interface)
    except Invalid as invalid:
        raise UsageError(f"--interface: {invalid.summary}: {invalid.advice}") from None


def _new_name(name: str, kind: LimitKind, target: str) -> str:
    """A name that is said, or what it limits."""
    from glacic.config.decode_limits import RESERVED

    try:
        return valid_name(name)
    except UsageError:
        if name != target or name.startswith(RESERVED):
            raise
        raise UsageError(f"a limit cannot be called {name}: say another NAME, and --{kind} '{target}'") from None


def valid_name(name: str) -> str:
    """A limit's name. Raises UsageError."""
    from glacic.config.decode_limits import limit_name

    try:
        return limit_name(name)
    except Invalid as invalid:
        raise UsageError(f"{invalid.summary}: {invalid.advice}") from None


def _target(arguments: argparse.Namespace, known: dict[str, Any] | None) -> tuple[LimitKind, str]:
    """What is said, else what the limit has now, else what its name says."""
    for kind in LimitKind:
        said = getattr(arguments, kind)
        if said is not None:
            return kind, _parsed(kind, said, f"--{kind}: ")
    if known is not None:
        return LimitKind(known["kind"]), str(known["target"])
    if arguments.name is None:
        raise UsageError(
            "say which limit, by its NAME or by what it limits: --unit backup.service, --slice or --cgroup"
        )
    try:
        kind = cgroups.kind_of(arguments.name)
        return kind, cgroups.PARSERS[kind](arguments.name)
    except Invalid:
        raise UsageError(
            f"there is no limit {arguments.name} yet: say what it limits, --unit backup.service, --slice or --cgroup"
        ) from None


def _parsed(kind: LimitKind, text: str, where: str) -> str:
    try:
        return cgroups.PARSERS[kind](text)
    except Invalid as invalid:
        raise UsageError(f"{where}{invalid.summary}: {invalid.advice}") from None


def _meant(arguments: argparse.Namespace, limits: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The limit that there is and that is said, by its name or else by its target, where nothing else is said of it."""
    mine = [limit for limit in limits if limit["origin"] != "default"]
    said = [target for kind in LimitKind if (target := getattr(arguments, kind)) is not None]
    target = arguments.name if not said else said[0] if arguments.name is None else None
    named = next((limit for limit in mine if limit["name"] == arguments.name), None)
    return named or next((limit for limit in mine if limit["target"] == target), None)


def _holds(service: Client, name: str) -> bool:
    """Whether the service has a limit by this name, or of this target."""
    return any(name in (limit["name"], limit["target"]) for limit in service.call("limits.list")["limits"])


def _alone(arguments: argparse.Namespace, options: Options) -> AbstractContextManager[None]:
    """What is read of the file is what is changed in it."""
    if not arguments.save:
        return nullcontext()
    from glacic.ctlplane import saving

    return saving.alone(options.config)


def _same_file(service: Client, options: Options) -> None:
    """Raise where the service runs another configuration than the one that would be edited."""
    runs = service.call("status")["config"]
    if _place(Path(runs)) != _place(options.config):
        raise GlacicError(f"the service runs {runs}: say --config {runs} to save a limit there")


def _place(path: Path) -> Path:
    """A file by its name, which may be a link, in the folder that it is really in."""
    return path.parent.resolve() / path.name


def _save(change: Any, so_far: str) -> None:
    """Write the file. Raises GlacicError, which says what holds nevertheless."""
    if change is None:
        return
    from glacic.ctlplane import saving

    try:
        saving.write(change)
    except GlacicError as error:
        raise GlacicError(f"{error} ({so_far})") from None


def _outcome(limit: dict[str, Any]) -> str:
    """One line about a limit that was set."""
    rates = [f"{name} {rate_text(limit[name])}" for name in ("upload", "download") if limit[name]]
    waits = "" if limit["state"] == "active" else f" (it waits: {limit['why']})"
    return f"{limit['target']}: {', '.join(rates)}{waits}"
