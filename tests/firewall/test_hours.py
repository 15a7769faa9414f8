"""The moments at which a rule holds: as a set, filled anew, and with real packets at the present."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from glacic.config.model import Action, Config, Policy, Rule, TimeWindow
from glacic.firewall.apply import apply
from glacic.firewall.compile import compile_config
from glacic.firewall.difference import difference
from glacic.firewall.hours import renewal, time_set
from glacic.firewall.render import render

from .conftest import ZONES, Place, udp

POLICY = Policy(source="lan", destination="wan", name="lan_wan")
NOW = datetime(2026, 3, 25, 12, tzinfo=UTC)
MONDAY_S, END_S = 1_774_224_000, 1_774_224_000 + 35 * 86_400
FRIDAY = TimeWindow(zone="UTC", days=(4,), from_min=480, to_min=1080)


def elements(action: Action, window: TimeWindow) -> tuple[str, ...]:
    found = time_set(POLICY, Rule(name="r", action=action, time=window), NOW)
    assert found is not None
    return found.elements


def test_a_rule_that_accepts_holds_at_its_times_in_five_weeks_and_never_else() -> None:
    found = elements(Action.ACCEPT, FRIDAY)
    assert len(found) == 5
    assert found[0] == f"{MONDAY_S + 4 * 86_400 + 8 * 3600}-{MONDAY_S + 4 * 86_400 + 18 * 3600}"


@pytest.mark.parametrize("action", [Action.DROP, Action.REJECT])
def test_a_rule_that_refuses_holds_outside_of_these_weeks_too(action: Action) -> None:
    found = elements(action, FRIDAY)
    assert (found[0], found[-1]) == (f"0-{MONDAY_S}", f"{END_S}-9000000000")
    assert found[1:-1] == elements(Action.ACCEPT, FRIDAY)
    weekend = TimeWindow(zone="UTC", days=(0, 6))
    found = elements(action, weekend)
    assert (found[0], found[-1]) == (f"0-{MONDAY_S + 86_400}", f"{END_S - 86_400}-9000000000")
    every = TimeWindow(zone="UTC", from_min=0, to_min=1440)
    assert elements(action, every) == ("0-9000000000",)


def test_a_rule_that_always_holds_has_no_set() -> None:
    assert time_set(POLICY, Rule(name="r", action=Action.ACCEPT), NOW) is None


def timed(lines: str, action: str = "accept") -> str:
    return f"""{ZONES}
    policy "lan" "wan" {{
      action = "{"drop" if action == "accept" else "accept"}"
      rule "now" {{
        proto  = "udp"
        action = "{action}"
        time {{
          {lines}
        }}
      }}
    }}
    """


def passes(place: Place) -> bool:
    return udp(place.laptop, place.server, "192.0.2.2", 443) == "open"


def hours(begin: float, end: float, zone: str, days: str = "") -> str:
    """A window from so many hours from now to so many, as clocks in the zone read it, to the minute."""
    now = datetime.now(ZoneInfo(zone))
    first, last = now + timedelta(hours=begin), now + timedelta(hours=end)
    return f'from = "{first:%H:%M}"\nto = "{last:%H:%M}"\nzone = "{zone}"\n{days}'


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/St_Johns", "Pacific/Kiritimati"])
def test_a_packet_passes_within_the_window_and_not_outside(place: Place, enforce: Callable, zone: str) -> None:
    enforce(timed(hours(-2, 2, zone)))
    assert passes(place)
    enforce(timed(hours(2, 4, zone)))
    assert not passes(place)
    enforce(timed(hours(-4, -2, zone)))
    assert not passes(place)


def test_a_packet_is_refused_within_the_window_and_passes_outside(place: Place, enforce: Callable) -> None:
    enforce(timed(hours(-2, 2, "UTC"), "drop"))
    assert not passes(place)
    enforce(timed(hours(2, 4, "UTC"), "reject"))
    assert passes(place)


def after_midnight() -> tuple[str, str, str]:
    """A zone where it is between midnight and one o'clock now, and the days that it is there and was just before."""
    hour = datetime.now(UTC).hour
    zone = f"Etc/GMT+{hour}" if hour <= 12 else f"Etc/GMT-{24 - hour}"  # the sign is POSIX's: west is plus
    clock = datetime.now(ZoneInfo(zone))
    return zone, f"{clock:%A}".lower(), f"{clock - timedelta(days=1):%A}".lower()


def test_a_night_that_began_yesterday_still_holds_and_todays_has_not_begun(place: Place, enforce: Callable) -> None:
    zone, today, yesterday = after_midnight()
    night = f'from = "21:00"\nto = "03:00"\nzone = "{zone}"\n'
    enforce(timed(f'{night}days = "{yesterday}"'))
    assert passes(place)
    enforce(timed(f'{night}days = "{today}"'))
    assert not passes(place)
    enforce(timed(f'zone = "{zone}"\ndays = "{today}"'))
    assert passes(place)
    enforce(timed(f'zone = "{zone}"\ndays = "{yesterday}"'))
    assert not passes(place)


def test_what_was_filled_long_ago_is_closed_until_it_is_filled_anew(
    place: Place, config: Callable[[str], Config]
) -> None:
    now = datetime.now(UTC)
    for ago in (timedelta(weeks=-9), timedelta(weeks=9)):  # the clock was wrong then, or nobody renewed it
        for action, closed_passes in (("accept", False), ("drop", False)):
            loaded = config(timed(hours(-2, 2, "UTC") if action == "accept" else hours(2, 4, "UTC"), action))
            apply(place.nft, compile_config(loaded, now=now - ago))
            assert passes(place) == closed_passes
            place.nft.run(renewal(loaded, now))
            assert passes(place)


def test_a_renewal_says_the_same_as_a_new_ruleset(place: Place, config: Callable[[str], Config]) -> None:
    def listed() -> str:
        return place.router.run(["nft", "list", "table", "inet", "glacic"]).stdout

    loaded = config(timed('from = "22:00"\nto = "06:00"\nzone = "Europe/Zurich"', "drop"))
    apply(place.nft, compile_config(loaded, now=NOW))
    fresh = listed()
    apply(place.nft, compile_config(loaded, now=NOW + timedelta(weeks=30)))
    assert listed() != fresh
    place.nft.run(renewal(loaded, NOW))
    assert listed() == fresh
    assert renewal(config(ZONES), NOW) == ""


def test_another_week_is_no_difference_and_other_hours_are(config: Callable[[str], Config]) -> None:
    text = timed('from = "22:00"\nto = "06:00"\nzone = "Europe/Zurich"')
    old = render(compile_config(config(text), now=NOW))
    assert difference(old, render(compile_config(config(text), now=NOW + timedelta(weeks=9)))) == ()
    (change,) = difference(old, render(compile_config(config(text.replace("22:00", "21:30")), now=NOW)))
    assert (change.kind, change.name) == ("set", "time_now_of_lan_wan")
    assert [line for line in change.lines if line[0] in "+-"] == [
        "-# lan_wan, now: every day, 22:00 to 06:00, Europe/Zurich",
        "+# lan_wan, now: every day, 21:30 to 06:00, Europe/Zurich",
    ]
