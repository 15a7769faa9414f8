"""Which policies learn, and under which numbers: in file order, and kept while a ruleset runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glacic.config.model import Action, Config, DefaultLimit, Identity, Limit, LimitKind, Policy, RuleLearning, Zone
from glacic.config.policies import filters, label, learning_policies

LAN = Zone(name="lan", interfaces=("lan0",))
WAN = Zone(name="wan", interfaces=("wan0",), external=True, identity=Identity.IP)


def config(*policies: Policy, zones: tuple[Zone, ...] = (LAN, WAN), enabled: bool = True) -> Config:
    return Config(path=Path("x.hcl"), rule_learning=RuleLearning(enabled=enabled), zones=zones, policies=policies)


def policy(source: str, destination: str, name: str, action: Action = Action.DROP, learn: bool | None = None) -> Policy:
    return Policy(source=source, destination=destination, name=name, action=action, learn=learn)


def names(made: Config) -> list[str]:
    return [policy.name for policy in learning_policies(made)]


def test_nothing_learns_while_learning_is_disabled() -> None:
    assert names(config(policy("lan", "wan", "p"), enabled=False)) == []


@pytest.mark.parametrize(
    ("made", "learns"),
    [
        (policy("lan", "wan", "p"), True),
        (policy("lan", "wan", "p", Action.REJECT), True),
        (policy("lan", "wan", "p", Action.ACCEPT), False),
        (policy("lan", "wan", "p", learn=False), False),
        (policy("wan", "lan", "p"), False),
        (policy("wan", "lan", "p", learn=True), True),
        (policy("firewall", "wan", "p"), True),
    ],
)
def test_a_policy_learns_when_it_refuses_the_rest_and_faces_inside(made: Policy, learns: bool) -> None:
    assert ("p" in names(config(made))) is learns


def test_the_firewalls_own_packets_go_by_address() -> None:
    made = learning_policies(config(policy("firewall", "wan", "p")))
    assert made[-1].identity is Identity.IP


def test_numbers_count_up_in_file_order_behind_the_reserved_two() -> None:
    made = learning_policies(config(policy("lan", "wan", "b"), policy("lan", "firewall", "a")))
    assert [(p.number, p.name) for p in made] == [(1, "DROP_INPUT"), (2, "DROP_FORWARD"), (3, "b"), (4, "a")]


def test_a_running_rulesets_numbers_are_kept_and_new_policies_get_free_ones() -> None:
    before = learning_policies(config(policy("lan", "wan", "a"), policy("lan", "firewall", "b")))
    running = {label(p.name, p.identity): p.number for p in before}
    after = learning_policies(config(policy("lan", "lan", "new"), policy("lan", "firewall", "b")), running)
    assert {p.name: p.number for p in after} == {"DROP_INPUT": 1, "DROP_FORWARD": 2, "b": 4, "new": 5}


@given(st.dictionaries(st.sampled_from([f"p{n}/mac" for n in range(30)]), st.integers(1, 100), max_size=20))
def test_no_two_policies_share_a_number(running: dict[str, int]) -> None:
    unique = {name: number for number, name in {number: name for name, number in running.items()}.items()}
    made = learning_policies(config(*(policy("lan", f"z{n}", f"p{n}") for n in range(30))), unique)
    assert len({p.number for p in made}) == len(made)


def test_limits_alone_say_nothing_about_which_packets_pass() -> None:
    limits = (Limit(name="a", kind=LimitKind.UNIT, target="a.service", upload=1),)
    assert not filters(Config(path=Path("x"), limits=limits))
    assert not filters(Config(path=Path("x"), default_limit=DefaultLimit(upload=1)))
    assert filters(Config(path=Path("x")))
    assert filters(Config(path=Path("x"), limits=limits, zones=(LAN,)))
    assert filters(Config(path=Path("x"), limits=limits, rule_learning=RuleLearning(enabled=True)))
