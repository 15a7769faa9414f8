"""`glacic limits watch`: what each limit lets through now, against what it may, once a second.

The service counts, and this asks it four times a second: a rate is that of the last second, and the first second of a
transfer is told by itself, because that is when a limit lets its burst through.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from glacic.config.rates import bytes_text, rate_text
from glacic.ctlplane.cli.options import Options, add_common, say, table

DIRECTIONS = ("upload", "download")
SECOND_S = 1.0
STEPS = 4  # how often the service is asked in a second: so exact is the beginning of a transfer
_CLEAR = "\x1b[H\x1b[2J"  # ECMA-48: cursor home, erase display

Row = dict[str, Any]


def add_watch(commands: Any) -> None:
    """`limits watch`."""
    parser = commands.add_parser("watch", help="the rate of each limit now, against what it may")
    often = parser.add_mutually_exclusive_group()
    often.add_argument("--once", action="store_true", help="one second, and no more: --count 1")
    often.add_argument("--count", type=_count, metavar="N", help="N seconds (default: until Ctrl-C)")
    parser.set_defaults(run=run_watch)
    add_common(parser)


def run_watch(arguments: argparse.Namespace, options: Options) -> int:
    """A table, or with --json a line, for each second."""
    left = 1 if arguments.once else arguments.count
    meters = Meters()
    with options.client() as service:
        meters.feed(service.call("limits.watch"))
        begun = time.monotonic()
        step = 0
        while left is None or left > 0:
            step += 1
            time.sleep(max(0.0, begun + step * SECOND_S / STEPS - time.monotonic()))
            meters.feed(service.call("limits.watch"))
            if step % STEPS == 0:
                show(meters.rows(), options)
                left = None if left is None else left - 1
    return 0


@dataclass(slots=True)
class _Meter:
    """One limit in one direction: its counts of the last second, and its last beginning."""

    seen: deque[tuple[float, int, int]] = field(default_factory=deque)  # (when, bytes, dropped bytes), oldest first
    quiet_since: float | None = None  # None: something comes through
    began: tuple[float, int] | None = None  # when the last transfer did, and what was counted then
    first: int | None = None  # bytes of its first second

    def feed(self, now: float, count: int, dropped: int) -> None:
        """Another look at the counts. Counts that go back belong to a limit that was made anew."""
        if self.seen and (count < self.seen[-1][1] or dropped < self.seen[-1][2]):
            last = self.seen[-1][0]
            self.seen.clear()
            self.seen.append((last, 0, 0))
            self.began, self.quiet_since = None, last - SECOND_S
        if not self.seen:
            self.quiet_since = now - SECOND_S if count == 0 else None
        else:
            self._follow(now, count)
        self.seen.append((now, count, dropped))
        while len(self.seen) > 2 and now - self.seen[1][0] >= SECOND_S:
            self.seen.popleft()

    def _follow(self, now: float, count: int) -> None:
        """Whether a transfer begins, goes on or is over."""
        when, before, _ = self.seen[-1]
        if count > before:
            if self.quiet_since is not None and when - self.quiet_since >= SECOND_S:
                self.began, self.first = (when, before), None
            self.quiet_since = None
        elif self.quiet_since is None:
            self.quiet_since = when
        if self.began is not None and (self.first is None or now - self.began[0] <= SECOND_S + 0.01):
            self.first = count - self.began[1]

    def rates(self) -> tuple[float, float]:
        """Bytes let through and dropped, by the second."""
        (first, count, dropped), (last, count_now, dropped_now) = self.seen[0], self.seen[-1]
        if last <= first:
            return 0.0, 0.0
        return (count_now - count) / (last - first), (dropped_now - dropped) / (last - first)


class Meters:
    """All limits, as they were looked at last."""

    def __init__(self) -> None:
        self._meters: dict[tuple[str, str], _Meter] = {}
        self._limits: list[Row] = []
        self._at: float | None = None

    def feed(self, counted: Row) -> None:
        """What the service has counted: an answer to limits.watch."""
        now: float = counted["at_s"]
        self._limits = counted["limits"]
        there: dict[tuple[str, str], _Meter] = {}
        for limit in self._limits:
            for direction in DIRECTIONS:
                if limit[direction]:
                    key = limit["name"], direction
                    meter = there[key] = self._meters.get(key) or self._new()
                    meter.feed(now, limit[f"bytes_{direction}"] or 0, limit[f"dropped_bytes_{direction}"] or 0)
        self._meters, self._at = there, now

    def _new(self) -> _Meter:
        """Of a limit that was not there a moment ago, and so had counted nothing; at the first look nobody knows."""
        meter = _Meter()
        if self._at is not None:
            meter.feed(self._at, 0, 0)
        return meter

    def rows(self) -> list[Row]:
        """One for each limit, those with the most traffic first."""
        rows = [
            {
                **{name: limit[name] for name in ("name", "target", "state", "origin")},
                **{direction: self._direction(limit, direction) for direction in DIRECTIONS},
            }
            for limit in self._limits
        ]
        return sorted(rows, key=lambda row: -sum((row[direction] or {}).get("rate", 0) for direction in DIRECTIONS))

    def _direction(self, limit: Row, direction: str) -> Row | None:
        if not limit[direction]:
            return None
        meter = self._meters[limit["name"], direction]
        rate, dropped = meter.rates()
        return {
            "limit": limit[direction],
            "rate": round(rate),
            "of_limit": round(rate / limit[direction], 4),
            "dropped": round(dropped),
            "first_second": meter.first,
        }


def show(rows: list[Row], options: Options) -> None:
    """One second, as a table or a line."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    if options.json:
        print(json.dumps({"at": at, "limits": rows}, ensure_ascii=True, separators=(",", ":")), flush=True)
        return
    lines = [
        (
            row["name"] if direction == DIRECTIONS[0] or not row[DIRECTIONS[0]] else "",
            direction,
            *_cells(row[direction]),
        )
        for row in rows
        for direction in DIRECTIONS
        if row[direction]
    ]
    if sys.stdout.isatty():
        print(_CLEAR, end="")
    table(at[11:19] + " UTC", ("name", "direction", "now", "limit", "of it", "dropped", "first second"), lines)
    if not lines:
        say("no limit is in force now: `glacic limits list` says why")
    sys.stdout.flush()


def _cells(figures: Row) -> tuple[str, ...]:
    first = figures["first_second"]
    return (
        f"{bytes_text(figures['rate'])}/s",
        rate_text(figures["limit"]),
        f"{figures['of_limit']:.0%}",
        f"{bytes_text(figures['dropped'])}/s" if figures["dropped"] else "",
        "" if first is None else f"{bytes_text(first)}, {first / figures['limit']:.0%}",
    )


def _count(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 0 < int(text[:10]) < 1 << 31:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds, 1 or more")
    return int(text[:10])
