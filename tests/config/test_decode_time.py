"""The `time` block: what it means, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from glacic.config.model import Config, TimeWindow

Check = Callable[[str], list[str]]
Valid = Callable[[str], Config]


def in_time(lines: str) -> str:
    return (
        'zone "lan" {\n  interface = "lan0"\n}\npolicy "lan" "firewall" {\n  rule "r" {\n    action = "accept"\n'
        f"    time {{\n{lines}\n    }}\n  }}\n}}"
    )


def window(valid: Valid, *lines: str) -> TimeWindow | None:
    return valid(in_time("\n".join(lines))).policies[0].rules[0].time


def test_a_window_is_read(valid: Valid) -> None:
    assert window(
        valid, 'days = ["mon", "Fri"]', 'from = "8:00"', 'to = "18:30"', 'zone = "Europe/Zurich"'
    ) == TimeWindow(zone="Europe/Zurich", days=(0, 4), from_min=480, to_min=1110)
    assert window(valid, 'from = "22:00"', 'to = "06:00"', 'zone = "UTC"') == TimeWindow(
        zone="UTC", from_min=1320, to_min=360
    )
    assert window(valid, 'from = "22:00"', 'to = "24:00"', 'zone = "UTC"') == TimeWindow(
        zone="UTC", from_min=1320, to_min=1440
    )


@pytest.mark.parametrize(
    ("days", "meant"),
    [
        ('"mon-fri"', (0, 1, 2, 3, 4)),
        ('["sat-mon", "sunday"]', (0, 5, 6)),
        ('["fri-fri"]', (4,)),
        ('"wednesday - thu"', (2, 3)),
    ],
)
def test_days_are_names_and_ranges(valid: Valid, days: str, meant: tuple[int, ...]) -> None:
    assert window(valid, f"days = {days}", 'zone = "UTC"') == TimeWindow(zone="UTC", days=meant)


@pytest.mark.parametrize(
    "lines",
    [
        'zone = "UTC"\n¶days = "mo"',
        'zone = "UTC"\n¶days = []',
        'zone = "UTC"\ndays = ["mon", ¶5]',
        'zone = "UTC"\n¶from = "08:00"',
        'zone = "UTC"\n¶to = "08:00"',
        'zone = "UTC"\n¶from = "8"\nto = "09:00"',
        'zone = "UTC"\nfrom = "08:00"\n¶to = "24:01"',
        'zone = "UTC"\nfrom = "08:00"\n¶to = "08:60"',
        'zone = "UTC"\nfrom = "08:00"\n¶to = "08:00"',
        'zone = "UTC"\n¶from = "24:00"\nto = "08:00"',
        '¶zone = "Europe/Zuerich"\ndays = "mon"',
        '¶zone = "../../etc/passwd"\ndays = "mon"',
        '¶zone = "Europe"\ndays = "mon"',
        '¶zone = ""\ndays = "mon"',
        '¶zone = 1\ndays = "mon"',
        'zone = "UTC"\n¶dasy = "mon"',
    ],
)
def test_what_is_wrong_is_told_at_it_with_advice(errors: Check, lines: str) -> None:
    (found,) = errors(in_time(lines))
    assert not found.endswith(": ")


def test_a_zone_is_never_guessed_and_a_window_must_say_when(errors: Check) -> None:
    (found,) = errors(in_time('days = "mon"').replace("time {", "¶time {"))
    assert found == 'time has no zone: write zone = "Europe/Zurich", or "UTC"'
    (found,) = errors(in_time('zone = "UTC"').replace("time {", "¶time {"))
    assert found == "this time block holds always: write days, or from and to"
    (found,) = errors(in_time('¶zone = "Europe/Zuerich"\ndays = "mon"'))
    assert found == '"Europe/Zuerich" is no time zone: did you mean "Europe/Zurich"?'


def test_a_rule_has_one_window(errors: Check) -> None:
    one = 'time {\n zone = "UTC"\n days = "mon"\n}\n'
    (found,) = errors(in_time('zone = "UTC"\ndays = "mon"\n}\n¶' + one + "fake {").replace("fake {\n    }", ""))
    assert found.startswith("a second time block")
