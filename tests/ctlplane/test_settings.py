"""What the worker is told: the same on both sides, and what a mode does not use is not in it."""

from __future__ import annotations

import json
from ipaddress import ip_network
from pathlib import Path

from glacic.config.model import Config, Identity, Policy, Rate, RuleLearning, Zone
from glacic.config.policies import learning_policies
from glacic.ctlplane.settings import Settings, from_message, settings_of, to_message

ZONES = (
    Zone(name="lan", interfaces=("lan0",)),
    Zone(name="dmz", interfaces=("dmz0",), identity=Identity.IP),
    Zone(name="wan", interfaces=("wan0",), external=True),
)


def settings(learning: RuleLearning) -> Settings:
    policies = (Policy(source="lan", destination="wan", name="lan_wan"),)
    config = Config(path=Path("x.hcl"), rule_learning=learning, zones=ZONES, policies=policies)
    return settings_of(config, learning_policies(config), Path("/state"))


def test_settings_come_back_from_a_message() -> None:
    sent = settings(RuleLearning(enabled=True, inline_mode=True, ignore_networks=(ip_network("fd01::/64"),)))
    assert from_message(json.loads(json.dumps(to_message(sent)))) == sent
    assert sent.networks() == (ip_network("fd01::/64"),)


def test_durable_is_told() -> None:
    assert [settings(RuleLearning(enabled=True, durable=durable)).durable for durable in (True, False)] == [True, False]


def test_inline_mode_has_queues_and_no_groups() -> None:
    told = settings(RuleLearning(enabled=True, inline_mode=True, log_group=100, queues=3))
    assert (told.queues, told.groups, told.sink) == ((100, 101, 102), (), None)


def test_an_inline_rate_limit_has_a_sink_behind_the_queues() -> None:
    told = settings(
        RuleLearning(enabled=True, inline_mode=True, log_group=100, queues=3, rate_limit=Rate(10, "minute"))
    )
    assert told.sink == 103


def test_nflog_mode_has_a_group_and_no_queues() -> None:
    told = settings(RuleLearning(enabled=True, log_group=5, queues=3, rate_limit=Rate(10, "minute")))
    assert (told.queues, told.groups, told.sink) == ((), (5,), None)


def test_nothing_is_bound_while_learning_is_disabled() -> None:
    told = settings(RuleLearning(enabled=False, inline_mode=True))
    assert (told.queues, told.groups, told.policies) == ((), (), ())


def test_the_database_is_in_the_state_directory_unless_the_file_says_otherwise() -> None:
    assert settings(RuleLearning(enabled=True)).database == "/state/flows.db"
    assert settings(RuleLearning(enabled=True, database=Path("/elsewhere/f.db"))).database == "/elsewhere/f.db"


def test_what_no_policy_claims_has_a_number_for_each_way_to_name_a_source() -> None:
    policies = settings(RuleLearning(enabled=True)).policies
    assert [(p.number, p.name, p.identity.value) for p in policies] == [
        (1, "DROP_INPUT", "mac"),
        (2, "DROP_FORWARD", "mac"),
        (3, "lan_wan", "mac"),
        (4, "DROP_INPUT", "ip"),
        (5, "DROP_FORWARD", "ip"),
    ]
