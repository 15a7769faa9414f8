"""The flow table: for which connections and devices, and what is said where the kernel has none."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from glacic.config.model import Config, Zone
from glacic.errors import KernelRefused
from glacic.firewall import offload
from glacic.firewall.apply import apply
from glacic.firewall.boot import boot_script
from glacic.firewall.compile import compile_config
from glacic.firewall.nft import FakeNft, Libnftables
from glacic.firewall.render import render, render_live
from glacic.firewall.ruleset import Inventory

TEXT = """
flowtable = true
zone "lan" { interfaces = ["lan0", "wl*"] }
zone "wan" {
  interface = "wan0"
  external  = true
}
policy "lan" "wan" { action = "accept" }
"""


def test_its_devices_are_the_zones_interfaces_that_there_are(config: Callable[[str], Config]) -> None:
    ruleset = compile_config(config(TEXT))
    (table,) = ruleset.flowtables()
    assert table.devices == ("lan0", "wl*", "wan0")
    (table,) = offload.on(ruleset, {"wlan1", "wan0", "eth0", "lan00", "wl0"}).flowtables()
    assert table.devices == ("wan0", "wl0", "wlan1")
    assert 'devices = { "wan0", "wl0", "wlan1" };' in render(offload.on(ruleset, {"wlan1", "wan0", "wl0"}))
    assert "devices" not in render(offload.on(ruleset, {"eth0"}))
    assert offload.flowtable([Zone(name="far")]).devices == ()


def test_connections_are_added_before_they_are_accepted_and_only_in_forward(config: Callable[[str], Config]) -> None:
    for chain in compile_config(config(TEXT)).chains():
        statements = [rule.statement for rule in chain.rules]
        if chain.name == "forward":
            assert statements[0] == (
                "meta l4proto { tcp, udp } ct state established ct mark & 0x00c00000 == 0x00000000 flow add @offloaded"
            )
            assert statements[1] == "ct state established,related accept"
        else:
            assert not any("flow add" in statement for statement in statements)


def test_without_it_nothing_of_it_is_left(config: Callable[[str], Config]) -> None:
    plain = compile_config(config(TEXT.replace("flowtable = true", "")))
    assert render(offload.without(compile_config(config(TEXT)))) == render(plain)
    assert offload.without(plain) == plain


def test_a_new_ruleset_makes_it_anew_and_one_without_takes_it_away(config: Callable[[str], Config]) -> None:
    present = Inventory(flowtables=frozenset({"offloaded"}))
    for text in (TEXT, TEXT.replace("flowtable = true", "")):
        assert "delete flowtable inet glacic offloaded\n" in render_live(compile_config(config(text)), present)


def test_a_kernel_that_has_none_is_told_from_another_mistake(config: Callable[[str], Config]) -> None:
    ruleset = compile_config(config(TEXT))
    with pytest.raises(KernelRefused, match=r"this kernel has no flow tables .* leave flowtable out"):
        apply(FakeNft(refuses=("flow add",)), ruleset)
    with pytest.raises(KernelRefused, match=r"^line "):
        apply(FakeNft(refuses=("goto forward_lan",)), ruleset)


def test_a_boot_is_without_it(config: Callable[[str], Config]) -> None:
    assert "offloaded" not in boot_script(config(TEXT), (), ())


def test_the_kernel_at_hand_is_tried_and_nothing_is_left_of_it(nft: Libnftables) -> None:
    lacks = offload.lacks(nft)
    assert not lacks or "CONFIG_NF_FLOW_TABLE" in lacks
    assert "glacic_probe" not in str(nft.dump.present())
    assert nft.inventory() is None
