"""Show who changed which flow or ruleset, when, from where, and what came of it. Without the service, root reads the
trail from the state directory."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from glacic.config.duration import duration_s
from glacic.ctlplane.cli.options import Options, add_common, say, table, warn
from glacic.errors import AuditError, GlacicError, Unreachable

SCREEN = 50  # entries shown to a person who set no --limit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`glacic audit`."""
    add_common(parser)
    parser.add_argument(
        "--limit", type=_count, metavar="N", help=f"the newest N; 0: all (for people {SCREEN}, with --json all)"
    )
    parser.add_argument(
        "--since",
        type=_time,
        metavar="WHEN",
        help="a time such as 2026-01-31T18:00, in UTC, or 24h, 7d ago",
    )
    parser.add_argument("--who", default="", metavar="USER", help="a user's name or number; SIGHUP; service")
    parser.add_argument("--verify", action="store_true", help="read the whole trail, and check that nothing is missing")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, options: Options) -> int:
    """0; with --verify 1 where the trail is not whole."""
    limit = arguments.limit if arguments.limit is not None else (0 if options.json else SCREEN)
    asked = {"since": arguments.since or "", "who": arguments.who, "verify": arguments.verify}
    try:
        with options.client() as service:
            found = _paged(service.call, limit, asked)
    except Unreachable as error:
        found = _from_file(options, limit, asked, error)
    if options.json:
        options.emit(found)
    else:
        _print(found)
    return 1 if arguments.verify and not found["intact"] else 0


def _print(found: dict[str, Any]) -> None:
    columns = ("no", "when", "who", "from", "what", "with", "outcome")
    rows = [
        (
            entry["number"],
            entry["at"][:19].replace("T", " "),
            f"{entry['who']} (uid {entry['uid']}, pid {entry['pid']})",
            entry["source"] or "-",
            entry["action"],
            ", ".join(f"{name}={value}" for name, value in entry["args"].items() if value not in (None, "", [])) or "-",
            entry["outcome"],
        )
        for entry in found["entries"]
    ]
    table("", columns, rows)
    for problem in found["problems"]:
        say(f"NOT INTACT: {problem}")


def _paged(call: Any, limit: int, asked: dict[str, Any]) -> dict[str, Any]:
    """From the newest backwards, page by page."""
    result: dict[str, Any] = {"entries": [], "intact": True, "problems": []}
    before = None
    while True:
        left = limit - len(result["entries"]) if limit else None
        page = call("audit", before=before, **asked, **({"limit": left} if left else {}))
        asked = {**asked, "verify": False}  # once is enough
        result["entries"] = page["entries"] + result["entries"]
        result["problems"] += [problem for problem in page["problems"] if problem not in result["problems"]]
        result["intact"] = not result["problems"]
        if not page["entries"] or (limit and len(result["entries"]) >= limit):
            return result
        before = page["entries"][0]["number"]


def _from_file(options: Options, limit: int, asked: dict[str, Any], error: Unreachable) -> dict[str, Any]:
    from glacic.ctlplane import audit

    try:
        (options.state_dir / audit.NAME).stat()
    except OSError:
        raise error from None  # nobody to ask, and nothing to read
    return audit.report(*audit.AuditTrail(options.state_dir / audit.NAME).entries(limit=limit, **asked))


@contextmanager
def recorded(options: Options, action: str, **args: Any) -> Iterator[None]:
    """Put what a command does by itself, without the service, on the trail: done, or refused. One that cannot be
    written stops nothing, and is said. What it does in the state directory is done as that one's owner."""
    from glacic.ctlplane.owner import as_owner

    outcome = "interrupted"
    with as_owner(options.state_dir):
        try:
            yield
            outcome = "ok"
        except GlacicError as error:
            outcome = str(error)
            raise
        finally:
            _append(options, action, args, outcome)


def _append(options: Options, action: str, args: dict[str, Any], outcome: str) -> None:
    import os

    from glacic.ctlplane import audit
    from glacic.ctlplane.origin import found_of, told
    from glacic.ctlplane.rights import name_of

    who, source = f"user {name_of(os.getuid())}", found_of(os.getpid(), told())
    try:
        audit.AuditTrail(options.state_dir / audit.NAME).append(
            who=who, action=action, args=args, outcome=outcome, source=source
        )
    except AuditError as error:
        warn(str(error))


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def _time(text: str) -> str:
    """A time as entries have it, so that text compares as time does."""
    try:
        moment = datetime.now(UTC) - timedelta(seconds=duration_s(text))
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no time: 2026-01-31T18:00, or 24h, 7d ago") from None
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
