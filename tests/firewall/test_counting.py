"""What the table has counted, by policy and rule."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from glacic.config.load import load
from glacic.firewall.apply import apply
from glacic.firewall.compile import compile_config
from glacic.firewall.counting import RuleCount, counts
from glacic.firewall.dump import Counted, CountingRule
from glacic.firewall.nft import Libnftables
from glacic.firewall.quoting import identifier
from glacic.lab.net import Host

NONE = Counted(0, 0)


@pytest.mark.parametrize(
    ("chain", "policy"),
    [
        ("policy_lan_wan", "lan_wan"),
        ("rule_3_of_lan_wan", "lan_wan"),
        ("rule_3_limit_of_lan_wan", "lan_wan"),
        ("limit_lan_wan", "lan_wan"),
        (f"policy_{identifier('lan to wan')}", "lan to wan"),
        ("policy_unknown_limit", "unknown_limit"),
        ("end_of_input", "DROP_INPUT"),
        ("end_of_forward_ip", "DROP_FORWARD"),
        ("limit_DROP_INPUT", "DROP_INPUT"),
        ("input_lan", None),
        ("refuse", None),
    ],
)
def test_a_chain_tells_the_policy(chain: str, policy: str | None) -> None:
    names = ["lan_wan", "lan to wan", "unknown_limit"]
    (found,) = counts([CountingRule(chain, "", "drop", NONE, None)], {}, names)
    assert found.policy == policy


def test_a_named_counter_is_told_once_with_its_own_figures() -> None:
    rules = [
        CountingRule("policy_p", "web", "accept", None, "rule_web_of_p"),
        CountingRule("policy_p", "web", "accept", None, "rule_web_of_p"),
        CountingRule("policy_p", "gone", "accept", None, "rule_gone_of_p"),
        CountingRule("policy_p", "", "drop", Counted(3, 99), None),
    ]
    assert list(counts(rules, {"rule_web_of_p": Counted(5, 400)}, ["p"])) == [
        RuleCount("policy_p", "p", "web", "accept", 5, 400, kept=True),
        RuleCount("policy_p", "p", None, "drop", 3, 99, kept=False),
    ]


def test_the_command_reads_what_is_in_force(tmp_path: Path, scratch: Host, nft: Libnftables) -> None:
    path = tmp_path / "glacic.hcl"
    path.write_text(
        'zone "lan" { interface = "lan0" }\npolicy "lan" "firewall" {\n  name = "to us"\n  rule "ping me" {\n'
        '    proto = ["icmp", "icmpv6"]\n    counter = true\n    action = "accept"\n  }\n}\n'
    )
    command = [sys.executable, "-m", "glacic", "show", "--counters", "--json", "--config", str(path)]
    refused = scratch.run(command, check=False)
    assert refused.returncode == 1
    assert "there is no table inet glacic" in json.loads(refused.stdout)["error"]

    apply(nft, compile_config(load(path)))
    found = json.loads(scratch.run(command).stdout)["counters"]
    ours = [one for one in found if one["policy"]]
    assert [(one["policy"], one["rule"], one["verdict"], one["kept"]) for one in ours] == [
        ("to us", "ping me", "accept", True),
        ("to us", None, "drop", False),
    ]
    assert all(one["packets"] == one["bytes"] == 0 for one in found)
    path.write_text("nonsense")
    assert "ping me" in scratch.run([word for word in command if word != "--json"]).stdout
