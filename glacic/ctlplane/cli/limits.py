"""Limit what services of this machine may send and receive: list, show, set and clear limits, watch them, try the
engines, and run a command under a limit of its own."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

from glacic.config.rates import rate_text
from glacic.ctlplane.cli import limits_change, limits_run, limits_watch
from glacic.ctlplane.cli.options import Options, add_common, say, table, warn
from glacic.errors import GlacicError, KernelRefused, UsageError

DIRECTIONS = ("upload", "download")
FAIR = (0.9, 1.1)  # achieved / target: what an engine may be off by, in the self-test


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`glacic limits list|show|set|clear|engines|self-test|watch|run`."""
    add_common(parser)
    commands = parser.add_subparsers(metavar="ACTION", required=True)

    listing = commands.add_parser("list", help="what is limited, to what, and how")
    listing.set_defaults(run=run_list)
    add_common(listing)

    show = commands.add_parser("show", help="everything about one limit, and what it cannot do")
    show.add_argument("name", metavar="NAME")
    show.set_defaults(run=run_show)
    add_common(show)

    limits_change.add_set(commands)
    limits_change.add_clear(commands)

    engines = commands.add_parser("engines", help="which engines this kernel really has")
    engines.add_argument("--keep", action="store_true", help="in the state directory too, where the service reads it")
    engines.add_argument(
        "--if-needed",
        action="store_true",
        help="with --keep: only where the configuration has limits, and once for each boot",
    )
    engines.set_defaults(run=run_engines)
    add_common(engines)

    test = commands.add_parser("self-test", help="transfers in a scratch namespace: target against achieved")
    test.add_argument("--engine", action="append", metavar="ENGINE", help="only this one; may be said again")
    test.add_argument("--seconds", type=_seconds, default=4.0, metavar="N", help="of each transfer (default 4)")
    test.add_argument(
        "--rate", type=limits_change.rate, default=1 << 20, metavar="RATE", help='the target (default "1 MiB/s")'
    )
    test.set_defaults(run=run_self_test)
    add_common(test)

    limits_watch.add_watch(commands)
    limits_run.add_run(commands)


def run_list(_: argparse.Namespace, options: Options) -> int:
    """One line for each limit."""
    with options.client() as service:
        result = service.call("limits.list")
    if options.json:
        options.emit(result)
    else:
        show_list(result)
    return 0


def show_list(result: dict[str, Any]) -> None:
    """The answer to limits.list, for a person."""
    columns = ("name", "of", "upload", "download", "engine", "traffic", "from", "state")
    rows = [
        (
            *(limit["name"], limit["target"], *(_rate(limit[direction]) for direction in DIRECTIONS)),
            *(engines_of(limit), limit["traffic"], limit["origin"], limit["state"]),
        )
        for limit in result["limits"]
    ]
    table("", columns, rows)
    default = result.get("default")
    if default:
        rates = [f"{direction} {_rate(default[direction])}" for direction in DIRECTIONS if default[direction]]
        say(f"every unit without a limit of its own, each by itself: {', '.join(rates)}")
    if result.get("trouble"):
        warn(result["trouble"])
    if not rows and not default:
        say('nothing is limited: write a limit block, or `glacic limits set NAME --unit X.service --download "5 mbit"`')


def run_show(arguments: argparse.Namespace, options: Options) -> int:
    """One limit."""
    with options.client() as service:
        limit = service.call("limits.show", name=arguments.name)
    if options.json:
        options.emit(limit)
        return 0
    show_limit(limit)
    return 0


def show_limit(limit: dict[str, Any]) -> None:
    """All of it, for a person."""
    rows: list[tuple[str, object]] = []
    for name, value in limit.items():
        if name in DIRECTIONS:
            rows.append((name, _rate(value) or "no limit"))
        elif name != "cannot" and not name.endswith("_text"):
            rows.append((name, "-" if value in (None, "") else value))
    table("", ("what", "value"), rows)
    for sentence in limit.get("cannot", []):
        say(f"note: {sentence}")


def run_engines(arguments: argparse.Namespace, options: Options) -> int:
    """0 where some engine can limit each direction, or nothing need be tried, else 1."""
    if arguments.if_needed:
        if not arguments.keep:
            raise UsageError("--if-needed is about what is kept: say --keep as well")
        if not _needed(options):
            options.emit({"engines": None}) if options.json else say("nothing to try")
            return 0
    rows = _tried(arguments, options) if os.geteuid() == 0 else _told(arguments, options)
    if options.json:
        options.emit({"engines": rows})
    else:
        columns = ("engine", "direction", "available", "per cgroup", "accuracy", "missing")
        lines = [
            (
                *(row["engine"], row["direction"], "yes" if row["available"] else "no"),
                *(_yes_or_no(row["per_cgroup"]), _percent(row["accuracy"]), row["missing"] or ""),
            )
            for row in rows
        ]
        table("limit engines", columns, lines)
    able = {row["direction"] for row in rows if row["available"] and row["per_cgroup"]}
    return 0 if able >= set(DIRECTIONS) else 1


def _needed(options: Options) -> bool:
    """Whether there are limits in the configuration, and nothing is kept of this boot."""
    from glacic.config.load import load
    from glacic.shaping import probe

    if probe.recent(options.state_dir / probe.FILE):
        return False
    config = load(options.config)
    return bool(config.limits) or config.default_limit is not None


def _tried(arguments: argparse.Namespace, options: Options) -> list[dict[str, Any]]:
    """What comes of trying all of them, with what the self-test has measured before."""
    from glacic.shaping import probe

    path = options.state_dir / probe.FILE
    rows = probe.table()
    if arguments.keep:
        _keep(options, lambda: probe.keep(path, rows))
    measured = {(row["engine"], row["direction"]): row["accuracy"] for row in probe.kept(path)}
    for row in rows:
        if row["accuracy"] is None:
            row["accuracy"] = measured.get((row["engine"], row["direction"]))
    return rows


def _told(arguments: argparse.Namespace, options: Options) -> list[dict[str, Any]]:
    """What the service knows, for who may not try: it takes namespaces and cgroups of its own."""
    if arguments.keep:
        raise KernelRefused("limits engines --keep tries the engines, and so needs root")
    with options.client() as service:
        rows = service.call("limits.engines")["engines"]
    return [{"accuracy": None, **row, "missing": row["missing"] or ""} for row in rows]


def run_self_test(arguments: argparse.Namespace, options: Options) -> int:
    """0 where every engine that is available held its target, else 1."""
    from glacic.shaping import selftest
    from glacic.shaping.makers import MAKERS

    for engine in arguments.engine or ():
        if engine not in MAKERS:
            raise UsageError(f"no engine {engine} to test: there are {', '.join(MAKERS)}")
    wanted = {engine: MAKERS[engine] for engine in arguments.engine or MAKERS}
    makers = {engine: lambda made, make=make: make(lambda: made.mount) for engine, make in wanted.items()}
    rows = selftest.run(makers, arguments.seconds, arguments.rate)
    if options.state_dir.is_dir():
        from glacic.shaping import probe

        try:
            _keep(options, lambda: probe.measured(options.state_dir / probe.FILE, rows))
        except GlacicError as error:
            warn(str(error))
    if options.json:
        options.emit({"results": rows})
    else:
        columns = ("engine", "direction", "target", "achieved", "of target", "missing")
        lines = [
            (
                *(row["engine"], row["direction"], _rate(row["target"]), _rate(row["achieved"])),
                *(_percent(row["ratio"]), row["missing"] or ""),
            )
            for row in rows
        ]
        table("self-test", columns, lines)
    tried = [row["ratio"] for row in rows if row["available"]]
    fine = bool(tried) and all(ratio is not None and FAIR[0] <= ratio <= FAIR[1] for ratio in tried)
    if not options.json and not fine:
        say(f"not every engine was within {FAIR[0]:.0%} to {FAIR[1]:.0%} of the target" if tried else "no engine works")
    return 0 if fine else 1


def _keep(options: Options, write: Callable[[], None]) -> None:
    """Write in the state directory, as its owner. Raises GlacicError."""
    from glacic.ctlplane.owner import as_owner

    with as_owner(options.state_dir):
        write()


def engines_of(limit: dict[str, Any]) -> str:
    """Who holds it, in the directions that it limits."""
    used = [limit[f"engine_{direction}"] for direction in DIRECTIONS if limit[direction]]
    return " / ".join(dict.fromkeys(name or "none" for name in used)) or "none"


def _rate(rate: float | None) -> str:
    return rate_text(int(rate)) if rate else ""


def _yes_or_no(value: bool | None) -> str:
    return "" if value is None else "yes" if value else "no"


def _percent(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.1%}"


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.5 <= seconds <= 600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds, 0.5 to 600")
    return seconds
