"""Step 3 of road 1, continued: the `time` block of a rule becomes the model.

    time {
      days = ["mon-fri", "sun"]
      from = "22:00"
      to   = "06:00"
      zone = "Europe/Zurich"
    }

Refuses to work out when that is: timetable.py does.
"""

from __future__ import annotations

import re
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from glacic.config.model import TimeWindow
from glacic.config.reader import HEADER, Located, Reader, Report, describe, labels
from glacic.config.source import did_you_mean
from glacic.config.values import Invalid

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_FULL = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_NUMBERS = {name: number for names in (DAYS, _FULL) for number, name in enumerate(names)}
_MIDNIGHT_MIN = 24 * 60


def decode_time(reader: Reader, report: Report) -> TimeWindow | None:
    """The window of a rule; None without one, or where it cannot be read."""
    found = [_window(Reader(block.body, block.span, report, "time"), report) for block in reader.only("time")]
    for block in reader.blocks("time"):
        labels(block, (), report, str)
        reader.spans.setdefault("time", block.span)
    return found[0] if found else None


def _window(reader: Reader, report: Report) -> TimeWindow | None:
    reader.require("zone", 'write zone = "Europe/Zurich", or "UTC"')
    zone = reader.text("zone", _zone, 'a time zone, "Europe/Zurich"')
    days = [day for days, _ in reader.items("days", _days, empty="leave it out for every day") for day in days]
    first, last = (reader.text(name, _time, 'a time of day, "08:00"') for name in ("from", "to"))
    reader.finish()
    for name, other in (("from", "to"), ("to", "from")):
        if reader.has(name) and not reader.has(other):
            reader.refuse(name, f"{name} without {other}", "write both, or neither for whole days")
    if first is not None and first == last:
        reader.refuse("to", "from and to are the same time", "leave both out for whole days")
    if first == _MIDNIGHT_MIN:
        reader.refuse("from", '"24:00" is the end of a day', 'write from = "00:00"')
    if zone and not {"days", "from", "to"} & reader.spans.keys():
        report.error(reader.spans[HEADER], "this time block holds always", "write days, or from and to")
    if zone is None or any(reader.broken(name) for name in ("zone", "days", "from", "to")):
        return None
    return TimeWindow(
        zone=zone,
        days=tuple(sorted(set(days))) or tuple(range(7)),
        from_min=first or 0,
        to_min=_MIDNIGHT_MIN if last is None else last,
    )


def _zone(text: str) -> str:
    try:
        return ZoneInfo(text).key
    except (ZoneInfoNotFoundError, ValueError, OSError):
        known = available_timezones()
        advice = did_you_mean(text, known) or 'write a name such as "Europe/Zurich"'
        if not known:
            advice = "this machine knows none: install tzdata"
        raise Invalid(f'"{text}" is no time zone', advice) from None


def _days(located: Located) -> tuple[int, ...]:
    """One day, or a range of days that may go over Sunday."""
    if not isinstance(located.value, str):
        raise Invalid(f"{describe(located.value)} is not a day", 'write "mon", or a range "mon-fri"')
    first, dash, last = (part.strip().lower() for part in located.value.partition("-"))
    for name in (first, last) if dash else (first,):
        if name not in _NUMBERS:
            raise Invalid(f'"{name}" is not a day', did_you_mean(name, _NUMBERS) or f"known are {', '.join(DAYS)}")
    start, end = _NUMBERS[first], _NUMBERS[last or first]
    return tuple((start + number) % 7 for number in range((end - start) % 7 + 1))


def _time(text: str) -> int:
    """Minutes since midnight, 0..1440."""
    found = re.fullmatch(r"([0-9]{1,2}):([0-9]{2})", text.strip(), re.ASCII)
    minutes = int(found[1]) * 60 + int(found[2]) if found and int(found[2]) < 60 else _MIDNIGHT_MIN + 1
    if minutes > _MIDNIGHT_MIN:
        raise Invalid(f'"{text}" is not a time of day', 'write hours and minutes, "08:00" to "24:00"')
    return minutes
