"""No name, comment or description from HCL can break out of its place in the script.

The script of a configuration with hostile texts must have the same skeleton (all but strings, comments and the names of
chains) as that of the same configuration with plain ones; and a kernel must take it. Validation refuses many of these
texts: here they come past it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from glacic.config.model import (
    Action,
    Config,
    NamedSet,
    Nat,
    NatKind,
    Policy,
    Rate,
    Rule,
    RuleLearning,
    SetType,
    TimeWindow,
    Zone,
)
from glacic.firewall.compile import compile_config
from glacic.firewall.nft import Libnftables
from glacic.firewall.quoting import identifier, rule_identifier
from glacic.firewall.render import render
from glacic.lab.net import Network

hostile = st.one_of(
    st.text(min_size=1, max_size=40),
    st.text(alphabet="\"'\\#;{}$@*\n\r\t\0 \u2028accept", min_size=1, max_size=40),
    st.sampled_from(
        ['" ; accept ; #', "\\", '"\n\t}\n}\nflush ruleset\n#', "$(reboot)", "x" * 300, "☃" * 60, "accept"]
    ),
)
texts = st.lists(hostile, min_size=8, max_size=8)
PLAIN = ["plain"] * 8
NOW = datetime(2026, 3, 25, tzinfo=UTC)


@pytest.fixture(scope="module")
def kernel() -> Iterator[Libnftables]:
    with Network() as net:
        yield net.host("hostile").call(Libnftables)


def configuration(texts: list[str]) -> Config:
    lan, wan, policy, rule, comment, description, log, nat = texts
    lan, wan, policy = f"a{lan}", f"b{wan}", f"c{policy}"[:40]
    rules = (
        Rule(name=rule, action=Action.ACCEPT, protos=("tcp",), comment=comment, log=f"{log}: "),
        Rule(
            name=f"d{rule}",
            action=Action.ACCEPT,
            protos=("udp",),
            log="",
            limit_per_source=Rate(1, "hour"),
            connections_per_source=3,
            counter=True,
            time=TimeWindow(zone="UTC", days=(0,)),
        ),
    )
    return Config(
        path=Path("hostile.hcl"),
        rule_learning=RuleLearning(enabled=True),
        zones=(
            Zone(name=lan, interfaces=("lan0",), description=description),
            Zone(name=wan, interfaces=("wan0",), external=True),
        ),
        policies=(Policy(source=lan, destination=wan, name=policy, description=description, rules=rules),),
        sets=(NamedSet(name="s", type=SetType.ADDRESS, description=comment),),
        nats=(Nat(name=nat, kind=NatKind.MASQUERADE, out_interface=("wan0",), description=comment),),
    )


def skeleton(config: Config) -> list[str]:
    """The script's words without comments, strings and the names made of a zone's or a policy's."""
    names = [*(zone.name for zone in config.zones), *(policy.name for policy in config.policies)]
    script = "\n".join(
        line for line in render(compile_config(config, now=NOW)).split("\n") if not line.lstrip().startswith("#")
    )
    script = re.sub(r'"[^"]*"', '""', script)
    for policy in config.policies:
        for rule in policy.rules:
            script = re.sub(rf"(?<=_){re.escape(rule_identifier(policy.name, rule.name))}(?=\b|_)", "RULE", script)
    for name in names:
        script = re.sub(rf"(?<=_){re.escape(identifier(name))}(?=\b|_)", "NAME", script)
    return script.split()


@given(texts)
@example(['"', "\\", "#", "\n", "}", "{", ";", "'"])
def test_hostile_texts_leave_the_script_as_it_is(texts: list[str]) -> None:
    assert skeleton(configuration(texts)) == skeleton(configuration(PLAIN))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts)
@example(["☃" * 100] * 8)
def test_a_kernel_takes_hostile_texts(kernel: Libnftables, texts: list[str]) -> None:
    ruleset = compile_config(configuration(texts))
    kernel.run(render(ruleset))
    inventory = kernel.inventory()
    assert inventory is not None
    assert inventory.chains == {chain.name for chain in ruleset.chains()}
