"""The boot script: the same chains, closed, with the flows that fit."""

from __future__ import annotations

from glacic.config.load import examine_source
from glacic.config.model import Config
from glacic.config.policies import learning_policies
from glacic.config.source import Source
from glacic.firewall import boot
from glacic.firewall.boot import boot_script
from glacic.firewall.compile import compile_config

CONFIG = """\
rule_learning {
  enabled       = true
  inline_mode   = true
  rate_limit    = "10/minute"
  packet_window = 5
}
zone "lan" { interface = "lan0" }
zone "wan" {
  interface = "wan0"
  external  = true
}
policy "lan" "wan" { action = "reject" }
"""
MAC = bytes.fromhex("020000000001")


def config(text: str = CONFIG) -> Config:
    found, problems = examine_source(Source("a.hcl", text))
    assert found is not None, [one.render() for one in problems]
    return found


def script(flows: list[tuple[boot.Key, str]], text: str = CONFIG, *, panic: bool = False) -> str:
    return boot_script(config(text), learning_policies(config(text)), flows, panic=panic)


def test_in_place_of_each_hook_stands_a_counted_drop() -> None:
    for mode in ("true", "false"):
        text = CONFIG.replace("inline_mode   = true", f"inline_mode   = {mode}")
        closed = script([], text)
        assert "queue num" not in closed
        assert "log group" not in closed
        names = [chain.name for chain in compile_config(config(text)).chains()]
        assert [name for name in names if f"chain {name} {{" not in closed] in ([], ["inspect"])


def test_what_was_learned_is_in_its_sets() -> None:
    flows = [
        (("lan_wan", MAC, 6, 443, b""), "allowed"),
        (("lan_wan", MAC, 17, 53, b""), "denied"),
        (("lan_wan", bytes([10, 0, 0, 1]), 1, 8, b""), "ignored"),
        (("gone", MAC, 6, 80, b""), "allowed"),
        (("lan_wan", MAC, 6, 81, b""), "pending"),
    ]
    text = script(flows)
    assert "set allowed_lan_wan_mac_port" in text
    assert "elements = { 02:00:00:00:00:01 . 6 . 443 }" in text
    assert "elements = { 02:00:00:00:00:01 . 17 . 53 }" in text
    assert "elements = { 10.0.0.1 . 1 . 8 }" in text
    assert " . 80 }" not in text
    assert " . 81 }" not in text


def test_a_learned_flow_passes_although_nobody_counts_a_window() -> None:
    text = script([(("lan_wan", MAC, 6, 443, b""), "allowed")])
    assert "chain allow_learned {\n\t\taccept\n\t}" in text


def test_only_so_many_flows_are_written() -> None:
    flows = [(("lan_wan", MAC, 6, port, b""), "allowed") for port in range(1, 60_000)]
    assert script(flows).count("02:00:00:00:00:01 . 6 .") == boot.MOST_ELEMENTS


def test_in_a_panic_the_next_boot_is_one_too() -> None:
    text = script([(("lan_wan", MAC, 6, 443, b""), "allowed")], panic=True)
    assert "Panic" in text
    assert "02:00:00:00:00:01 . 6 . 443" in text
