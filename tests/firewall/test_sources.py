"""The limits per source of a rule: their sets, and what they match."""

from __future__ import annotations

from glacic.config.model import Action, Policy, Rate, Rule
from glacic.firewall.sources import per_source

POLICY = Policy(source="lan", destination="wan", name="lan_wan")


def test_a_rule_without_them_has_neither_sets_nor_matches() -> None:
    assert per_source(POLICY, Rule(name="web", action=Action.ACCEPT), [4, 6]) == ([], [])


def test_each_family_has_its_sets_and_an_ipv6_source_is_a_64() -> None:
    rule = Rule(name="web", action=Action.ACCEPT, limit_per_source=Rate(10, "minute"), connections_per_source=20)
    sets, found = per_source(POLICY, rule, [4, 6])
    assert found == [
        "update @rate_10_minute_web_of_lan_wan_ip { ip saddr limit rate 10/minute burst 10 packets } "
        "add @open_20_web_of_lan_wan_ip { ip saddr ct count 20 }",
        "update @rate_10_minute_web_of_lan_wan_ip6 "
        "{ ip6 saddr & ffff:ffff:ffff:ffff:: limit rate 10/minute burst 10 packets } "
        "add @open_20_web_of_lan_wan_ip6 { ip6 saddr & ffff:ffff:ffff:ffff:: ct count 20 }",
    ]
    assert [one.spec for one in sets[:2]] == [
        "typeof ip saddr; size 65535; flags dynamic,timeout; timeout 60s;",
        "typeof ip saddr; size 65535; flags dynamic;",
    ]
    assert all(one.kept for one in sets)


def test_a_set_of_other_limits_or_another_rule_is_another_set() -> None:
    rules = [
        Rule(name=name, action=Action.ACCEPT, limit_per_source=Rate(count, unit))
        for name in ("web", "ssh")
        for count, unit in ((10, "minute"), (10, "second"), (11, "minute"))
    ]
    names = [one.name for rule in rules for one in per_source(POLICY, rule, [4])[0]]
    assert len(set(names)) == len(rules)


def test_a_source_is_remembered_for_a_unit_of_its_rate_and_for_ten_seconds_at_least() -> None:
    found = [
        per_source(POLICY, Rule(name="r", action=Action.ACCEPT, limit_per_source=Rate(1, unit)), [6])[0][0].spec
        for unit in ("second", "hour", "day")
    ]
    assert [spec.split("timeout ")[1] for spec in found] == ["10s;", "3600s;", "86400s;"]
