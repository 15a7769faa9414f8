"""Closing: the same chains, nothing new comes in; what becomes of packets then is in test_changes.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from glacic.config.load import examine_source
from glacic.config.model import Config
from glacic.config.policies import learning_policies
from glacic.config.source import Source
from glacic.ctlplane.closing import close, refused, ruleset_for
from glacic.errors import KernelRefused
from glacic.firewall.nft import FakeNft
from glacic.firewall.render import render
from glacic.firewall.ruleset import Inventory

CONFIG = """\
rule_learning { enabled = true }
zone "lan" {
  interface = "lan0"
  management { ssh = true }
}
policy "lan" "firewall" { action = "drop" }
"""
LEARNED = "allowed_lan_firewall_mac_port"


def config() -> Config:
    found, problems = examine_source(Source("a.hcl", CONFIG))
    assert found is not None, [one.render() for one in problems]
    return found


def test_a_configuration_is_itself_or_closed_or_its_management_alone() -> None:
    policies = learning_policies(config())
    itself = render(ruleset_for(config(), policies, {}, panic=False))
    closed = render(ruleset_for(config(), policies, {}, panic=False, closed=True))
    panic = render(ruleset_for(config(), policies, {}, panic=True))
    assert ("log group" in itself, "log group" in closed, "log group" in panic) == (True, False, False)
    assert ("policy_lan_firewall" in closed, "policy_lan_firewall" in panic) == (True, False)


def test_what_the_kernel_has_against_it_is_told_and_nothing_is_loaded() -> None:
    nft = FakeNft(refuses=("lan0",))
    assert "lan0" in refused(nft, config(), learning_policies(config()), None, panic=False)
    assert refused(FakeNft(), config(), learning_policies(config()), Inventory(), panic=False) == ""
    assert nft.scripts == []


def test_over_a_table_what_was_learned_stays_and_without_one_the_boot_script_is_loaded(tmp_path: Path) -> None:
    policies = learning_policies(config())
    over = FakeNft(Inventory(sets=frozenset({LEARNED})))
    close(over, config(), policies, tmp_path, panic=False)
    assert f"delete set inet glacic {LEARNED}" not in "".join(over.scripts)
    assert f"set {LEARNED}" in "".join(over.scripts)
    fresh = FakeNft()
    close(fresh, config(), policies, tmp_path, panic=False)
    assert "delete table inet glacic" in fresh.scripts[0]
    assert "log group" not in "".join(over.scripts + fresh.scripts)


def test_where_even_that_is_refused_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(KernelRefused):
        close(FakeNft(refuses=("lan0",)), config(), learning_policies(config()), tmp_path, panic=False)
