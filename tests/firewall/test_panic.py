"""Panic: management, answers to it, and nothing else."""

from __future__ import annotations

from glacic.config.load import examine_source
from glacic.config.model import Config
from glacic.config.policies import learning_policies
from glacic.config.source import Source
from glacic.firewall.panic import as_config, compile_panic, managed
from glacic.firewall.render import render
from glacic.firewall.shapes import Shape

CONFIG = """\
rule_learning { enabled = true }
zone "lan" {
  interface = "lan0"
  services { dns = true }
  management { ssh = true }
}
zone "wan" {
  interface = "wan0"
  external  = true
}
policy "lan" "wan" {}
policy "wan" "firewall" {
  action = "drop"
  rule "web" {
    proto     = "tcp"
    dest_port = 80
    action    = "accept"
  }
}
nat "out" {
  type          = "masquerade"
  out_interface = "wan0"
}
"""


def config(text: str = CONFIG) -> Config:
    found, problems = examine_source(Source("a.hcl", text))
    assert found is not None, [one.render() for one in problems]
    return found


def test_management_and_nothing_else_is_let_in() -> None:
    text = render(compile_panic(config()))
    assert 'tcp dport 22 accept comment "ssh"' in text
    assert "dport { 53" not in text
    assert "tcp dport 80" not in text
    assert "masquerade" not in text
    assert "wan0" not in text
    assert "ct state established,related accept" not in text
    assert text.count("policy drop") == 3


def test_what_was_learned_stays() -> None:
    policies = learning_policies(config())
    kept = [part.name for part in compile_panic(config(), policies, {"lan_wan": {Shape("mac", "port")}}).sets()]
    assert kept == ["refused_lan_wan_mac_port", "allowed_lan_wan_mac_port"]


def test_without_management_nobody_gets_in() -> None:
    assert managed(config(CONFIG.replace("  management { ssh = true }\n", ""))) == []
    assert [zone.name for zone in managed(config())] == ["lan"]


def test_as_a_configuration_it_opens_the_same() -> None:
    same = as_config(config())
    assert (same.policies, same.nats, same.rule_learning.enabled) == ((), (), False)
    assert [(zone.services, zone.management) for zone in same.zones] == [((), ("ssh",)), ((), ())]


def test_a_panic_of_a_machine_with_nothing_but_limits_still_closes_it() -> None:
    same = as_config(
        config('limit "a" {\n unit = "a.service"\n upload = "1 mbit"\n}\ndefault_limit { upload = "1 mbit" }')
    )
    assert (same.limits, same.default_limit) == ((), None)
    assert render(compile_panic(same)).count("policy drop") == 3
