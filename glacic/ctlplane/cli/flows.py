"""List, show and decide learned flows. A FLOW is an id, or a key as the list shows it:
POLICY/SOURCE/PROTOCOL/PORT[/DESTINATION]."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from glacic.ctlplane.cli.options import Options, add_common, say, table
from glacic.ctlplane.client import Client
from glacic.errors import UsageError

PAGE = 1000  # flows asked for at a time
SCREEN = 100  # flows shown to a person who set no --limit

VERBS = {
    "approve": ("allow these flows, from the next packet on", "allowed"),
    "deny": ("drop these flows, and end their running connections", "denied"),
    "ignore": ("drop these flows, end their connections, and never report them again", "ignored"),
    "forget": ("forget these flows: their next packet is a new flow's", "forgotten"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`glacic flows list|show|approve|deny|ignore|forget`."""
    add_common(parser)
    commands = parser.add_subparsers(metavar="ACTION", required=True)

    listing = commands.add_parser("list", help="list flows, oldest first")
    _add_filters(listing)
    listing.add_argument("--limit", type=_count, metavar="N", help=f"at most N (for people {SCREEN}, with --json all)")
    listing.add_argument(
        "--after", type=_count, default=0, metavar="ID", help="only flows with a higher id: the next page"
    )
    listing.set_defaults(run=run_list)
    add_common(listing)

    show = commands.add_parser("show", help="everything known of one flow")
    show.add_argument("flow", metavar="FLOW")
    show.set_defaults(run=run_show)
    add_common(show)

    for verb, (summary, _) in VERBS.items():
        command = commands.add_parser(verb, help=summary, description=summary)
        command.add_argument("flows", nargs="*", metavar="FLOW")
        command.add_argument("--all", action="store_true", help="every flow that the filters match")
        _add_filters(command)
        if verb != "approve":
            command.add_argument("--keep-connections", action="store_true", help="do not end running connections")
        command.set_defaults(run=run_verb, verb=verb)
        add_common(command)


def run_list(arguments: argparse.Namespace, options: Options) -> int:
    """Page by page, so that neither side holds a hundred thousand flows."""
    limit = arguments.limit if arguments.limit is not None else (0 if options.json else SCREEN)
    with options.client() as service:
        flows = list(_pages(service, _filters(arguments), arguments.after, limit))
    if options.json:
        options.emit(flows)
        return 0
    columns = ("id", "policy", "source", "protocol", "port", "destination", "state", "packets", "last seen", "origin")
    rows = [
        (
            *(flow[name] for name in ("id", "policy", "source", "protocol", "port")),
            flow["destination"] or "any",
            flow["state"],
            flow["packets"],
            flow["last_seen"][:19].replace("T", " "),
            flow["origin"],
        )
        for flow in flows
    ]
    table("", columns, rows)
    if limit and len(flows) == limit:
        say(f"there may be more: --after {flows[-1]['id']}")
    return 0


def run_show(arguments: argparse.Namespace, options: Options) -> int:
    """One flow with its history."""
    with options.client() as service:
        flow = service.call("flows.show", flow=arguments.flow)
    if options.json:
        options.emit(flow)
        return 0
    history = flow.pop("history")
    table(
        "", ("what", "value"), [(name, ", ".join(v) if isinstance(v, list) else v or "-") for name, v in flow.items()]
    )
    columns = ("when", "from", "to", "who", "why")
    table("history", columns, [(h["at"], h["from"] or "-", h["to"] or "-", h["who"], h["why"]) for h in history])
    return 0


def run_verb(arguments: argparse.Namespace, options: Options) -> int:
    """Change flows; nothing is changed if one of them is not known."""
    filters = _filters(arguments)
    if bool(arguments.flows) == bool(arguments.all):
        raise UsageError(f"flows {arguments.verb}: name the flows, or say --all (with filters)")
    if filters and not arguments.all:
        raise UsageError(f"flows {arguments.verb}: filters go with --all")
    with options.client() as service:
        result = service.call(
            "flows.set",
            verb=arguments.verb,
            flows=arguments.flows,
            filters=filters if arguments.all else None,
            keep_connections=getattr(arguments, "keep_connections", False),
        )
    if options.json:
        options.emit(result)
        return 0
    ended = f", {result['connections_ended']} connection(s) ended" if arguments.verb != "approve" else ""
    say(f"{result['changed']} flow(s) {VERBS[arguments.verb][1]}{ended}")
    return 0


def _pages(service: Client, filters: dict[str, Any], after: int, limit: int) -> Iterator[dict[str, Any]]:
    left = limit or None
    while left is None or left > 0:
        page = service.call("flows.list", filters=filters, after=after, limit=min(PAGE, left or PAGE))
        yield from page["flows"]
        if page["next"] is None:
            return
        after = page["next"]
        if left is not None:
            left -= len(page["flows"])


def _add_filters(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("filters")
    group.add_argument("--policy", metavar="NAME")
    group.add_argument("--state", choices=("pending", "allowed", "denied", "ignored"))
    group.add_argument("--source", metavar="MAC|IP")
    group.add_argument("--protocol", metavar="NAME")
    group.add_argument("--port", type=_count, metavar="N", help="destination port, or ICMP type")
    group.add_argument("--destination", metavar="IP")
    group.add_argument("--origin", choices=("tofu", "user", "traffic", "recovered"))


def _filters(arguments: argparse.Namespace) -> dict[str, Any]:
    names = ("policy", "state", "source", "protocol", "port", "destination", "origin")
    return {name: value for name in names if (value := getattr(arguments, name)) is not None}


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) >= 1 << 63:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)
