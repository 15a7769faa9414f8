"""Road 1: the times at which a rule holds, as a set of moments that the rule looks the packet's up in.

nft's own `meta hour` and `meta day` do not do: nft shifts the hour by what its process takes for the local offset when
the rule is loaded, so it is wrong after the next change of clocks, and does not shift the day at all (measured with
nft 1.0.6: at 00:30 in Tokyo `meta day` is still the day before). A `meta time` is a moment, and no setting can be wrong
about it; but moments pass, so the set holds five weeks and is filled anew each week (`renewal`, config/timetable.py).

Whatever lies outside these weeks, because nobody filled it or because this machine's clock is wrong, is closed: a rule
that accepts does not match there, and one that refuses does.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from glacic.config.model import Action, Config, Policy, Rule, TimeWindow
from glacic.config.timetable import spans, weeks
from glacic.firewall.claims import FAMILY, TABLE
from glacic.firewall.difference import TIMES
from glacic.firewall.quoting import remark, rule_identifier
from glacic.firewall.ruleset import Set

_EVER_S = 9_000_000_000  # year 2255; nft counts nanoseconds in 64 bits with a sign, which end in 2262
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def time_set(policy: Policy, rule: Rule, now: datetime) -> Set | None:
    """The moments at which a rule holds; None where it holds always."""
    if rule.time is None:
        return None
    until = datetime.fromtimestamp(weeks(now)[1], UTC)
    note = (
        f"{remark(policy.name)}, {remark(rule.name)}: {_words(rule.time)}\n"
        f"In seconds since 1970, until {until:%Y-%m-%d}; the service fills it anew each week"
    )
    elements = tuple(f"{first}-{end}" for first, end in _moments(rule, rule.time, now))
    name = f"{TIMES}{rule_identifier(policy.name, rule.name)}"
    return Set(name, "typeof meta time; flags interval;", elements, note=note)


def renewal(config: Config, now: datetime) -> str:
    """The script, one transaction, that fills the sets of a ruleset in force anew; "" without any."""
    lines: list[str] = []
    for policy, rule in _timed(config):
        filled = time_set(policy, rule, now)
        if filled is not None:
            lines.append(f"flush set {FAMILY} {TABLE} {filled.name}")
            if filled.elements:
                lines.append(f"add element {FAMILY} {TABLE} {filled.name} {{ {', '.join(filled.elements)} }}")
    return "".join(f"{line}\n" for line in lines)


def _timed(config: Config) -> Iterator[tuple[Policy, Rule]]:
    return ((policy, rule) for policy in config.policies for rule in policy.rules if rule.time and not rule.disabled)


def _moments(rule: Rule, window: TimeWindow, now: datetime) -> list[tuple[int, int]]:
    """Intervals in seconds. An interval set holds both its ends; one nanosecond too much is nobody's loss."""
    first, end = weeks(now)
    found = spans(window, first, end)
    if rule.action is Action.ACCEPT:
        return found
    before = found.pop(0)[1] if found and found[0][0] == first else first
    after = found.pop()[0] if found and found[-1][1] == end else end
    if before >= after:
        return [(0, _EVER_S)]
    return [(0, before), *found, (after, _EVER_S)]


def _words(window: TimeWindow) -> str:
    days = "every day" if len(window.days) == 7 else ", ".join(_DAYS[day] for day in window.days)
    return f"{days}, {_clock(window.from_min)} to {_clock(window.to_min)}, {window.zone}"


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"
