"""From one ruleset to the next: what each step's script says, and what the kernel has after all of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from glacic.config.load import load
from glacic.config.model import Config
from glacic.errors import KernelRefused
from glacic.firewall import staging
from glacic.firewall.apply import apply, prepare
from glacic.firewall.compile import compile_config
from glacic.firewall.nft import FakeNft, Libnftables
from glacic.firewall.render import render
from glacic.firewall.ruleset import Chain, Counter, Hook, Inventory, Rule, Ruleset, Set
from glacic.lab.net import Host

IN = Hook("filter", "input", "filter", "drop")
OUT = Hook("filter", "output", "filter", "accept")
RULESET = Ruleset(
    (
        Counter("fail_open"),
        Set("ports", "type inet_service;", ("22",)),
        Set("learned", "typeof ip saddr;", kept=True),
        Chain(
            "policy", (Rule('tcp dport @ports accept comment "goto policy @ports"'), Rule("ip saddr @learned accept"))
        ),
        Chain("input", (Rule('iifname vmap { "lan0" : goto policy }'), Rule("jump policy")), IN),
    )
)
CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def test_the_staged_ruleset_has_names_of_its_own_but_for_what_stays() -> None:
    script = staging.stage(RULESET)
    assert "set staged_ports" in script
    assert "set learned {" in script
    assert "counter fail_open" in script
    assert 'tcp dport @staged_ports accept comment "goto policy @ports"' in script
    assert "ip saddr @learned accept" in script
    assert 'iifname vmap { "lan0" : goto staged_policy }' in script
    assert "jump staged_policy" in script


def test_a_staged_chain_hangs_nowhere_and_ends_as_its_hook_would() -> None:
    script = staging.stage(RULESET)
    assert "hook" not in script
    assert script.split("chain staged_input")[1].split("}\n}")[0].rstrip().endswith("drop")


def test_one_transaction_turns_to_the_staged_ruleset_and_from_hooks_that_go() -> None:
    present = Inventory(
        chains=frozenset({"input", "output", "old"}), hooks={"input": IN.place, "output": OUT.place, "old": None}
    )
    assert staging.switch(RULESET, present).splitlines() == [
        "insert rule inet glacic input goto staged_input",
        "insert rule inet glacic output accept",
    ]
    assert staging.switch(RULESET, Inventory()).splitlines() == [
        f"add chain inet glacic input {{ {IN} }}",
        "insert rule inet glacic input goto staged_input",
    ]


def test_a_refused_switch_leaves_nothing_staged() -> None:
    nft = FakeNft(Inventory(), refuses=("insert rule",))
    with pytest.raises(KernelRefused):
        apply(nft, RULESET)
    assert nft.scripts == [staging.stage(RULESET), staging.clear(RULESET)]


def test_where_the_kernel_has_no_room_for_the_rest_the_old_ruleset_decides_again(
    scratch: Host, nft: Libnftables
) -> None:
    old = Ruleset((Chain("input", (Rule("counter"),), IN), Chain("output", (), OUT)))
    new = Ruleset(
        (Chain("input", (Rule("accept"),), IN), Chain("forward", (), Hook("filter", "forward", "filter", "drop")))
    )
    listing = ["nft", "--stateless", "list", "ruleset"]
    apply(nft, old)
    before = scratch.run(listing).stdout

    class Full(Libnftables):
        def run(self, script: str) -> None:
            if script.startswith("flush chain inet glacic forward\n"):
                raise KernelRefused("no room")
            super().run(script)

    with pytest.raises(KernelRefused, match="no room"):
        apply(scratch.call(Full), new)
    assert scratch.run(listing).stdout.split() == before.split()


def test_what_an_interrupted_change_left_is_replaced_at_once() -> None:
    nft = FakeNft(Inventory(chains=frozenset({"staged_input"})))
    apply(nft, RULESET)
    assert len(nft.scripts) == 1
    assert "delete chain inet glacic staged_input" in nft.scripts[0]


def test_after_it_the_kernel_has_the_same_as_after_a_fresh_load(
    scratch: Host, nft: Libnftables, config: Callable[[str], Config]
) -> None:
    listing = ["nft", "--stateless", "list", "ruleset"]
    one = compile_config(load(CONFIGS / "home-nflog.hcl"))
    other = compile_config(config('zone "lan" { interface = "lan*" }\npolicy "firewall" "lan" { action = "reject" }\n'))
    for ruleset in (one, other, other, one):
        nft.run(render(ruleset))
        fresh = sorted(scratch.run(listing).stdout.splitlines())
        nft.run("delete table inet glacic\n")
        prepare(nft)
        for before in (other, one, ruleset):
            apply(nft, before)
        assert sorted(scratch.run(listing).stdout.splitlines()) == fresh


def test_each_chain_and_set_that_is_staged_is_cleared() -> None:
    for path in sorted(CONFIGS.glob("*.hcl")):
        ruleset = compile_config(load(path))
        staged = set(re.findall(rf"\b{staging.PREFIX}\w+", staging.stage(ruleset)))
        cleared = {line.split()[-1] for line in staging.clear(ruleset).splitlines()}
        assert staged <= cleared


def test_a_rule_that_is_first_at_a_hook_that_goes_is_a_base_chain_of_the_kernel(nft: Libnftables) -> None:
    nft.run(f"table inet glacic {{\n chain output {{ {OUT}; }}\n chain plain {{ }}\n}}\n".replace(";;", ";"))
    present = nft.inventory()
    assert present is not None
    assert present.bases == {"output"}
    assert present.chains == {"output", "plain"}
