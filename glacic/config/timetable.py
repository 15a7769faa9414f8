"""Road 1, beside the model: when a `time` block holds, as moments that do not depend on anybody's clock setting.

A window is what a wall clock in its zone reads: it holds while the clock reads a time from `from_min` up to `to_min`
on one of its days, or, where it goes over midnight, on the day after. So on the day when clocks are put back an hour
may be in it twice, and on the day when they are put forward one may be missing, as on the wall.

    weeks   what the kernel is given: five weeks from Monday 00:00 UTC on, the same for a whole week
    spans   a window's moments in a stretch of time: half-open, in seconds since 1970, in order, none touching another

Refuses to know the present: it is an argument.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from glacic.config.model import Config, TimeWindow

Span = tuple[int, int]

DAY_S = 86_400
_HOUR_S = 3_600
_WEEK_S = 7 * DAY_S
_WEEKS = 5
_FIRST_MONDAY_S = 4 * DAY_S  # 1970-01-05


def weeks(now: datetime) -> Span:
    """The stretch of time that windows are worked out for: from the Monday of this week on."""
    first = (int(now.timestamp()) - _FIRST_MONDAY_S) // _WEEK_S * _WEEK_S + _FIRST_MONDAY_S
    return first, first + _WEEKS * _WEEK_S


def next_change(config: Config, now: datetime) -> datetime | None:
    """When the kernel has to be given the windows anew at the earliest; None without any.

    Four weeks later, at the latest, what it was given ends.
    """
    if not any(rule.time and not rule.disabled for policy in config.policies for rule in policy.rules):
        return None
    return datetime.fromtimestamp(weeks(now)[0], UTC) + timedelta(seconds=_WEEK_S)


def spans(window: TimeWindow, first_s: int, end_s: int) -> list[Span]:
    """The moments of a window from first_s up to, not including, end_s."""
    found: list[Span] = []
    for low, high, offset_s in _same_offset(ZoneInfo(window.zone), first_s, end_s):
        for opens, closes in _on_the_wall(window, low + offset_s, high + offset_s):
            start, end = max(opens - offset_s, low), min(closes - offset_s, high)
            if start >= end:
                continue
            if found and found[-1][1] >= start:
                found[-1] = (found[-1][0], max(found[-1][1], end))
            else:
                found.append((start, end))
    return found


def _on_the_wall(window: TimeWindow, first: int, end: int) -> Iterator[Span]:
    """The window in seconds of a clock that never jumps, for every day that may reach into first..end."""
    length_min = window.to_min - window.from_min
    if length_min <= 0:
        length_min += 24 * 60  # over midnight
    for day in range(first // DAY_S - 1, end // DAY_S + 1):
        if (day + 3) % 7 in window.days:  # 1970-01-01 was a Thursday
            opens = day * DAY_S + window.from_min * 60
            yield opens, opens + length_min * 60


def _same_offset(zone: ZoneInfo, first_s: int, end_s: int) -> Iterator[tuple[int, int, int]]:
    """The stretches of first_s..end_s in which the zone's clocks go on without a jump, with their offset from UTC."""
    start, offset = first_s, _offset_s(zone, first_s)
    for hour in range(first_s + _HOUR_S, end_s + _HOUR_S, _HOUR_S):
        at = min(hour, end_s)
        if _offset_s(zone, at) == offset:
            continue
        low, high = at - _HOUR_S, at  # no zone has ever jumped twice within an hour
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if _offset_s(zone, middle) == offset else (low, middle)
        if high < end_s:
            yield start, high, offset
            start, offset = high, _offset_s(zone, high)
    yield start, end_s, offset


def _offset_s(zone: ZoneInfo, at_s: int) -> int:
    offset = datetime.fromtimestamp(at_s, zone).utcoffset()
    return int(offset.total_seconds()) if offset else 0
