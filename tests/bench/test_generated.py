"""What the bench makes up: configurations, captures, rulesets and flows; always the same, and what they claim to be."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from bench import rulesets
from bench.captures import write_capture
from bench.configurations import configuration
from glacic.config.load import load
from glacic.learning.capture import Capture
from glacic.learning.frame import decode_frame
from glacic.learning.packet import Packet


@pytest.mark.parametrize("rules", [28, 300])
def test_a_configuration_is_valid_and_has_so_many_rules(tmp_path: Path, rules: int) -> None:
    path = tmp_path / "glacic.hcl"
    path.write_text(configuration(rules))
    config = load(path)
    assert sum(len(policy.rules) for policy in config.policies) == rules
    assert len(config.zones) == 8
    assert configuration(rules) == configuration(rules)


def test_a_capture_has_so_many_readable_packets_of_few_flows(tmp_path: Path) -> None:
    path = tmp_path / "capture.pcap"
    write_capture(path, 3_000)
    with path.open("rb") as file:
        capture = Capture(file, "it")
        records = [(record, *decode_frame(record.link_type, record.data)) for record in capture.records()]
    assert capture.damage is None
    assert len(records) == 3_000
    packets = [packet for _, _, packet in records if isinstance(packet, Packet)]
    assert len(packets) == 3_000
    kinds = Counter((packet.version, packet.protocol) for packet in packets)
    assert set(kinds) == {(4, 6), (4, 17), (6, 6), (6, 17)}
    assert kinds[4, 6] > kinds[6, 6]
    assert sum(packet.first and packet.protocol == 6 for packet in packets) < 600
    assert all(len(record.data) <= 128 for record, _, _ in records)
    assert len({record.data for record, _, _ in records}) > 2_900  # no two frames are alike but by chance
    assert all(a.time_ns < b.time_ns for (a, _, _), (b, _, _) in pairwise(records))


@pytest.mark.parametrize("count", [10, 100, 1_000])
def test_flows_are_as_many_as_asked_for_each_once_and_in_no_order(count: int) -> None:
    flows = rulesets.keys(count)
    assert len(set(flows)) == count
    assert flows == rulesets.keys(count)
    assert flows != sorted(flows)
    assert rulesets.tcp_key() not in flows


@pytest.mark.parametrize(("inline", "output"), [(True, False), (False, False), (True, True)])
def test_glacics_ruleset_counts_and_drops_where_its_hook_was(inline: bool, output: bool) -> None:
    script, _ = rulesets.glacic_ruleset(inline, output)
    assert "queue" not in script.replace("Above the rate: a queue", "")
    assert "log group" not in script
    assert script.count(f"counter name {rulesets.ASKED} drop") == (1 if output else 3)
    assert script.index(f"counter {rulesets.ASKED} {{") < script.index("counter name")


def test_a_hand_written_set_has_the_key_of_a_learned_one() -> None:
    ruleset = rulesets.set_ruleset(counter=True)
    assert "set allowed { typeof ether saddr . meta l4proto . th dport; counter; }" in ruleset
    assert "size 7;" in rulesets.set_ruleset(counter=False, size=7)
    elements = rulesets.set_elements([rulesets.tcp_key()])
    assert elements == "add element inet static allowed { 02:00:00:00:00:01 . 6 . 10000 }\n"


def test_of_a_row_of_rules_the_last_one_matches() -> None:
    rules = [line for line in rulesets.linear_ruleset(50).splitlines() if "iifname" in line]
    assert len(rules) == 50
    assert "10.0.0.0/24" in rules[-1]
