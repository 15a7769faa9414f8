"""The boot script: the same chains, closed, with the flows that fit."""

from __future__ import annotations

import re
from pathlib import Path

from glacic.config.load import examine_source, load
from glacic.config.model import Config
from glacic.config.policies import learning_policies
from glacic.config.source import Source
from glacic.firewall import boot
from glacic.firewall.apply import apply
from glacic.firewall.boot import boot_script
from glacic.firewall.compile import compile_config
from glacic.firewall.nft import Libnftables
from glacic.firewall.render import render
from glacic.lab.net import Host, Network

GOLDEN = Path(__file__).parents[1] / "golden"
CONFIGS = Path(__file__).parents[2] / "configs"
HOOK = re.compile(r"^\t+[^#]*\b(queue num|log group) ")  # a rule of a person's own logs with `log prefix` first

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


def test_the_kernel_takes_each_one_and_the_service_finds_what_it_would_have_made_itself() -> None:
    """In kernels without the nft `queue` statement, of the closed kind alone: it has none."""
    folders = list(GOLDEN.glob("[0-9]*/conf.hcl"))
    assert len(folders) > 10
    with Network() as network:
        host = network.host("machine")
        for path in (*folders, *CONFIGS.glob("*.hcl")):
            read = load(path)
            closed = boot_script(read, learning_policies(read), [])
            rules = [re.sub(r'"[^"]*"', '""', line) for line in closed.splitlines() if not line.strip().startswith("#")]
            assert not [line for line in rules if HOOK.search(line)], path
            host.run(["nft", "-f", "-"], text=closed)
            if not any(HOOK.search(line) and "queue" in line for line in render(compile_config(read)).splitlines()):
                over = made_by(host, read)
                host.run(["nft", "flush", "ruleset"])
                assert over == made_by(host, read), path
            host.run(["nft", "flush", "ruleset"])


def made_by(host: Host, read: Config) -> list[str]:
    """The parts of the table, after it was put in force over whatever was there: the oldest ones are listed first."""
    host.call(lambda: apply(Libnftables(), compile_config(read)))
    listing = host.run(["nft", "-s", "list", "table", "inet", "glacic"]).stdout
    return sorted(listing.removeprefix("table inet glacic {\n").removesuffix("\n}\n").split("\n\n"))


def test_the_kernel_takes_hostile_names_with_as_many_flows_as_there_may_be() -> None:
    text = CONFIG.replace('policy "lan" "wan" {', 'policy "lan" "wan" {\n  name = "a } ; drop # \' x"\n ').replace(
        'action = "reject" }', 'action = "reject"\n}'
    )
    read = config(text)
    (name,) = {policy.name for policy in learning_policies(read)} - {"DROP_INPUT", "DROP_FORWARD"}
    flows = [((name, bytes([2, 0, 0, 0, port >> 8, port & 255]), 6, 443, b""), "allowed") for port in range(60_000)]
    for panic in (False, True):
        filled = boot_script(read, learning_policies(read), flows, panic=panic)
        with Network() as network:
            host = network.host("machine")
            host.run(["nft", "-f", "-"], text=filled)
            listed = host.run(["nft", "list", "table", "inet", "glacic"]).stdout
            assert len(re.findall(r"02:00:00:00:\S+ \. \w+ \. (?:443|https)", listed)) == boot.MOST_ELEMENTS
