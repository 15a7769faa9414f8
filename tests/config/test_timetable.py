"""When a window holds, against what a clock on the wall reads."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from glacic.config.model import Action, Config, Policy, Rule, TimeWindow
from glacic.config.timetable import next_change, spans, weeks

ROOT = Path("glacic.hcl")
ZONES = [
    "UTC",
    "Europe/Zurich",
    "America/New_York",
    "America/Sao_Paulo",
    "Asia/Kathmandu",  # a quarter of an hour
    "Australia/Lord_Howe",  # puts its clocks forward by half an hour
    "Africa/Casablanca",  # puts its clocks back for Ramadan
    "Pacific/Chatham",
    "Pacific/Kiritimati",
]
# Weeks in which clocks change somewhere.
WEEKS = ["2026-03-23", "2026-10-19", "2026-11-01", "2026-04-04", "2026-02-14", "2027-03-10"]


def seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def on_the_wall(window: TimeWindow, at_s: int) -> bool:
    """The slow twin: what the clock reads at one moment."""
    clock = datetime.fromtimestamp(at_s, ZoneInfo(window.zone))
    minutes = clock.hour * 60 + clock.minute
    today, yesterday = clock.weekday(), (clock.weekday() - 1) % 7
    if window.from_min < window.to_min:
        return today in window.days and window.from_min <= minutes < window.to_min
    return (today in window.days and minutes >= window.from_min) or (
        yesterday in window.days and minutes < window.to_min
    )


@pytest.mark.parametrize("week", WEEKS)
@pytest.mark.parametrize("zone", ZONES)
def test_at_every_quarter_of_an_hour_it_is_what_the_clock_reads(zone: str, week: str) -> None:
    chance = random.Random(f"{zone} {week}")
    first = seconds(week)
    for _ in range(4):
        days = tuple(sorted(chance.sample(range(7), chance.randint(1, 7))))
        opens, closes = chance.sample(range(0, 1440, 15), 2)
        window = TimeWindow(zone=zone, days=days, from_min=opens, to_min=closes or 1440)
        found = spans(window, first, first + 8 * 86_400)
        for at in range(first, first + 8 * 86_400, 900):
            assert any(start <= at < end for start, end in found) == on_the_wall(window, at), (window, at)


def test_a_day_that_a_zone_left_out_is_in_no_window() -> None:
    friday = TimeWindow(zone="Pacific/Apia", days=(4,))
    assert spans(friday, seconds("2011-12-29"), seconds("2012-01-02")) == []  # Samoa went over the date line


def test_windows_are_half_open_in_order_and_apart() -> None:
    window = TimeWindow(zone="Europe/Zurich", days=(0, 1), from_min=8 * 60, to_min=18 * 60)
    assert spans(window, seconds("2026-03-23"), seconds("2026-03-31")) == [
        (seconds("2026-03-23T07:00"), seconds("2026-03-23T17:00")),
        (seconds("2026-03-24T07:00"), seconds("2026-03-24T17:00")),
        (seconds("2026-03-30T06:00"), seconds("2026-03-30T16:00")),  # summer time
    ]
    every = TimeWindow(zone="Europe/Zurich")
    assert spans(every, 1000, 90_000) == [(1000, 90_000)]


def test_a_night_begins_on_its_day_and_ends_on_the_next() -> None:
    window = TimeWindow(zone="UTC", days=(4,), from_min=22 * 60, to_min=6 * 60)
    found = spans(window, seconds("2026-03-23"), seconds("2026-03-30"))
    assert found == [(seconds("2026-03-27T22:00"), seconds("2026-03-28T06:00"))]


def test_an_hour_that_comes_twice_is_in_it_twice_and_one_that_is_left_out_not_at_all() -> None:
    window = TimeWindow(zone="Europe/Zurich", from_min=120, to_min=150)
    assert spans(window, seconds("2026-10-25"), seconds("2026-10-25T12:00")) == [
        (seconds("2026-10-25T00:00"), seconds("2026-10-25T00:30")),
        (seconds("2026-10-25T01:00"), seconds("2026-10-25T01:30")),
    ]
    assert spans(window, seconds("2026-03-29"), seconds("2026-03-29T12:00")) == []


def test_the_stretch_is_the_same_for_a_whole_week_and_ends_four_weeks_later_at_least() -> None:
    monday = datetime(2026, 3, 23, tzinfo=UTC)
    for moment in (monday, monday + timedelta(days=6, hours=23, minutes=59, seconds=59)):
        first, end = weeks(moment)
        assert first == monday.timestamp()
        assert end - moment.timestamp() > 28 * 86_400
    assert weeks(monday - timedelta(seconds=1)) != weeks(monday)


def test_the_next_change_is_next_monday_and_never_without_a_window() -> None:
    monday = datetime(2026, 3, 23, tzinfo=UTC)
    rule = Rule(name="r", action=Action.ACCEPT, time=TimeWindow(zone="UTC", days=(0,)))
    off = Rule(name="off", action=Action.ACCEPT, time=TimeWindow(zone="UTC", days=(0,)), disabled=True)

    def config(*rules: Rule) -> Config:
        policy = Policy(source="a", destination="b", name="p", rules=rules)
        return Config(path=ROOT, policies=(policy,))

    assert next_change(config(rule), monday) == monday + timedelta(days=7)
    assert next_change(config(rule), monday - timedelta(seconds=1)) == monday
    assert next_change(config(off), monday) is None
