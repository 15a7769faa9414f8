"""Putting a ruleset in force: fresh, live, refused, removed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from glacic.config.model import Config
from glacic.config.policies import learning_policies
from glacic.errors import KernelRefused
from glacic.firewall.apply import apply, prepare, unload
from glacic.firewall.compile import compile_config
from glacic.firewall.nft import FakeNft, Libnftables
from glacic.firewall.render import render, render_live
from glacic.firewall.ruleset import Chain, Inventory, Rule, Ruleset
from glacic.firewall.shapes import Shape, element_text, ensure_script, set_name
from glacic.lab.net import Host

LEARNS = """
rule_learning { enabled = true }
zone "lan" { interface = "lan0" }
zone "iot" { interface = "iot0" }
set "known" {
  type     = "ipv4_addr"
  elements = ["10.1.0.1"]
}
policy "lan" "iot" {
  rule "known" {
    src_ip = "@known"
    action = "accept"
  }
}
"""
PORT = Shape("mac", "port")


def test_a_kernel_without_our_table_gets_the_script_that_show_prints() -> None:
    nft, ruleset = FakeNft(), Ruleset((Chain("a"),))
    apply(nft, ruleset)
    assert nft.scripts == [render(ruleset)]


def test_a_kernel_with_our_table_gets_a_script_that_spares_what_was_learned() -> None:
    present = Inventory(chains=frozenset({"a", "b"}))
    nft, ruleset = FakeNft(present), Ruleset((Chain("a"),))  # without a hook there is nothing to switch
    apply(nft, ruleset)
    assert nft.scripts == [render_live(ruleset, present)]


def test_a_new_ruleset_keeps_learned_elements_and_counters_and_renews_everything_else(
    scratch: Host, nft: Libnftables, config: Callable[[str], Config]
) -> None:
    loaded = config(LEARNS)
    policy = next(policy for policy in learning_policies(loaded) if policy.name == "lan_iot")
    apply(nft, compile_config(loaded))
    for allowed, port in ((True, 443), (False, 23)):
        nft.run(ensure_script(policy, PORT, allowed))
        name, key = set_name("lan_iot", PORT, allowed), ("lan_iot", bytes(6), 6, port, b"")
        nft.run(f"add element inet glacic {name} {{ {element_text(key)} counter packets 7 bytes 9 }}\n")
    nft.run("add element inet glacic addresses_known { 10.9.9.9 }\n")
    changed = config(
        LEARNS.replace("10.1.0.1", "10.2.0.2")
        .replace('"iot" { interface', '"wan" { interface')
        .replace('"lan" "iot"', '"lan" "wan"')
        .replace('policy "lan" "wan" {', 'policy "lan" "wan" {\n  name = "lan_iot"')
    )
    apply(nft, compile_config(changed, shapes={"lan_iot": {PORT}}))
    table = scratch.run(["nft", "list", "table", "inet", "glacic"]).stdout
    assert "443 counter packets 7 bytes 9" in table
    assert "23 counter packets 7 bytes 9" in table
    assert "10.2.0.2" in table
    assert "10.1.0.1" not in table
    assert "10.9.9.9" not in table
    assert "forward_iot" not in table
    assert table.count("@allowed_lan_iot_mac_port") == table.count("@refused_lan_iot_mac_port") == 1


def test_a_policy_that_goes_takes_its_learned_sets_along(nft: Libnftables, config: Callable[[str], Config]) -> None:
    loaded = config(LEARNS)
    apply(nft, compile_config(loaded, shapes={"lan_iot": {PORT}, "DROP_INPUT": {PORT}}))
    apply(nft, compile_config(config(LEARNS.split("set")[0]), shapes={"lan_iot": {PORT}, "DROP_INPUT": {PORT}}))
    inventory = nft.inventory()
    assert inventory is not None
    assert {name for name in inventory.sets if name.startswith(("allowed", "refused"))} == {
        "allowed_DROP_INPUT_mac_port",
        "refused_DROP_INPUT_mac_port",
    }


def test_the_counter_of_the_fail_modes_survives_a_reload_and_goes_with_inline_mode(
    scratch: Host, nft: Libnftables, config: Callable[[str], Config]
) -> None:
    inline = compile_config(config(LEARNS.replace("{ enabled = true }", "{\n enabled = true\n inline_mode = true\n}")))
    counters = Ruleset(tuple(inline.counters()))
    nft.run("table inet glacic {\n\tcounter fail_open { packets 5 bytes 50 }\n}\n")
    apply(nft, counters)
    listing = ["nft", "list", "counters", "table", "inet", "glacic"]
    assert "packets 5 bytes 50" in scratch.run(listing).stdout
    apply(nft, compile_config(config(LEARNS)))
    assert "fail_open" not in scratch.run(listing).stdout


def test_a_refusal_changes_nothing(scratch: Host, nft: Libnftables, config: Callable[[str], Config]) -> None:
    good = compile_config(config(LEARNS))
    apply(nft, good)
    listing = ["nft", "list", "ruleset"]
    before = scratch.run(listing).stdout
    with pytest.raises(KernelRefused, match=r"line \d+"):
        apply(nft, Ruleset((*good.parts, Chain("bad", (Rule("goto nowhere"),)))))
    assert scratch.run(listing).stdout == before


def test_other_tables_are_left_alone(scratch: Host, nft: Libnftables, config: Callable[[str], Config]) -> None:
    nft.run("table inet theirs {\n\tchain c {\n\t\ttype filter hook input priority 0; policy accept;\n\t}\n}\n")
    listing = ["nft", "list", "table", "inet", "theirs"]
    before = scratch.run(listing).stdout
    apply(nft, compile_config(config(LEARNS)))
    apply(nft, compile_config(config(LEARNS)))
    assert unload(nft) is True
    assert unload(nft) is False
    assert scratch.run(listing).stdout == before
    assert nft.inventory() is None


def test_preparing_makes_a_table_once_and_leaves_one_that_is_there(nft: Libnftables) -> None:
    prepare(nft)
    assert nft.inventory() == Inventory()
    nft.run("add chain inet glacic a\n")
    prepare(nft)
    assert nft.inventory() == Inventory(chains=frozenset({"a"}))
