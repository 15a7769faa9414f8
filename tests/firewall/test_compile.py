"""What holds for the compiled table as a whole, whatever the configuration."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from glacic.config.load import load
from glacic.config.model import Config, NatKind
from glacic.config.policies import filters, learning_policies, learns, zone_is_external
from glacic.firewall import claims
from glacic.firewall.compile import compile_config
from glacic.firewall.quoting import identifier
from glacic.firewall.ruleset import Chain, Hook, Ruleset
from glacic.firewall.shapes import Shape, shapes_of

GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("[0-9]*/conf.hcl"))
EXAMPLES = sorted((Path(__file__).parents[2] / "configs").glob("*.hcl"))
FILTERS = [path for path in [*GOLDEN, *EXAMPLES] if filters(load(path))]
every_config = pytest.mark.parametrize("path", [*GOLDEN, *EXAMPLES], ids=lambda path: f"{path.parent.name}/{path.name}")


def chains(ruleset: Ruleset) -> dict[str, Chain]:
    return {chain.name: chain for chain in ruleset.chains()}


def targets(chain: Chain) -> set[str]:
    return {name for rule in chain.rules for name in re.findall(r"\b(?:goto|jump) (\w+)", unquoted(rule.statement))}


def unquoted(text: str) -> str:
    return re.sub(r'"[^"]*"', '""', text)


def reachable(ruleset: Ruleset, *starts: str) -> set[str]:
    """The chains a packet can get to from these."""
    table, found, waiting = chains(ruleset), set(), list(starts)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += targets(table[name])
    return found


def hooks(chain: Chain) -> list[str]:
    return [rule.statement for rule in chain.rules if re.search(r"queue num|log group", unquoted(rule.statement))]


@every_config
def test_every_chain_and_set_is_declared_once_and_every_chain_is_reached(path: Path) -> None:
    ruleset = compile_config(load(path))
    names = [part.name for part in ruleset.parts]
    assert len(set(names)) == len(names)
    bases = [chain.name for chain in ruleset.chains() if chain.hook]
    unreached = set(chains(ruleset)) - reachable(ruleset, *bases)
    assert unreached <= {"refuse", "allow_learned"}  # lookups that are made later go there
    referred = {
        name
        for chain in ruleset.chains()
        for rule in chain.rules
        for name in re.findall(r"@([a-z]\w+)", unquoted(rule.statement))
    }
    assert referred - {"th"} <= {part.name for part in (*ruleset.sets(), *ruleset.flowtables())}


@every_config
def test_what_comes_from_outside_reaches_no_hook(path: Path) -> None:
    config = load(path)
    ruleset = compile_config(config)
    asked_for = {policy.source for policy in config.policies if learns(config, policy)}
    for zone in config.zones:
        if zone.external and zone.name not in asked_for:
            for base in ("input", "forward"):
                reached = reachable(ruleset, f"{base}_{identifier(zone.name)}")
                assert not [hook for name in reached for hook in hooks(chains(ruleset)[name])]


@pytest.mark.parametrize("path", FILTERS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_comes_from_no_zone_is_dropped(path: Path) -> None:
    table = chains(compile_config(load(path)))
    for base in ("input", "forward"):
        assert table[base].hook is not None
        assert table[base].hook.policy == "drop"
        assert table[base].rules[-1].statement == "counter drop"


@every_config
def test_a_chain_with_a_hook_ends_in_it(path: Path) -> None:
    for chain in compile_config(load(path)).chains():
        if hooks(chain):
            assert hooks(chain)[-1] == chain.rules[-1].statement


@every_config
def test_every_packet_in_a_zones_chain_is_decided(path: Path) -> None:
    for chain in compile_config(load(path)).chains():
        if chain.name.startswith(("input_", "forward_", "policy_", "end_of_")):
            assert re.search(r"\b(drop|accept|goto \w+|queue num .*|reject with .*)$", chain.rules[-1].statement)


@every_config
def test_it_comes_out_the_same_every_time(path: Path) -> None:
    assert compile_config(load(path)) == compile_config(load(path))


@every_config
def test_learned_sets_in_use_are_declared_with_their_lookups(path: Path) -> None:
    config = load(path)
    shapes = {policy.name: set(shapes_of(policy)) for policy in learning_policies(config)}
    ruleset = compile_config(config, shapes=shapes)
    kept = {set_.name for set_ in ruleset.sets() if set_.kept and "dynamic" not in set_.spec}
    assert len(kept) == sum(2 * len(used) for used in shapes.values())
    looked_up = {
        name
        for chain in ruleset.chains()
        for rule in chain.rules
        for name in re.findall(r"@((?:allowed|refused)_\w+)", rule.statement)
    }
    assert looked_up == kept


def test_a_set_that_no_packet_can_meet_any_more_is_left_out(config: Callable[[str], Config]) -> None:
    loaded = config('rule_learning { enabled = true }\nzone "vpn" {\n interface = "wg0"\n identity = "ip"\n}')
    used = {Shape("ip", "port"), Shape("ip", "port", "ip")}
    ruleset = compile_config(loaded, shapes={"DROP_INPUT": used, "gone": {Shape("mac", "port")}})
    kept = [set_.name for set_ in ruleset.sets() if set_.kept]
    assert kept == ["refused_DROP_INPUT_ip_port", "allowed_DROP_INPUT_ip_port"]


def test_a_source_known_by_its_mac_is_nobody_where_sources_go_by_address(config: Callable[[str], Config]) -> None:
    loaded = config(
        'rule_learning { enabled = true }\nzone "lan" { interface = "lan0" }\n'
        'zone "vpn" {\n interface = "wg0"\n identity = "ip"\n}'
    )
    table = chains(compile_config(loaded, shapes={"DROP_INPUT": {Shape("mac", "port"), Shape("ip", "port")}}))
    assert len(table["learned_DROP_INPUT"].rules) == 4
    assert len(table["learned_DROP_INPUT_ip"].rules) == 2
    assert not [rule for rule in table["learned_DROP_INPUT_ip"].rules if "ether saddr" in rule.statement]


def test_numbers_in_force_are_kept(config: Callable[[str], Config]) -> None:
    loaded = config(
        "rule_learning {\n enabled = true\n inline_mode = true\n}\n"
        'zone "lan" { interface = "lan0" }\nzone "iot" { interface = "iot0" }\npolicy "lan" "iot" { action = "drop" }'
    )
    table = chains(compile_config(loaded, running={"lan_iot/mac": 42}))
    assert any("| 0x00aa0000" in rule.statement for rule in table["policy_lan_iot"].rules)


def test_more_than_63_policies_take_the_top_byte_as_well(config: Callable[[str], Config]) -> None:
    names = [f"z{number}" for number in range(9)]
    text = "rule_learning {\n enabled = true\n inline_mode = true\n}\n"
    text += "".join(f'zone "{name}" {{ interface = "{name}" }}\n' for name in names)
    text += "".join(f'policy "{a}" "{b}" {{ action = "drop" }}\n' for a in names for b in names)
    loaded = config(text)
    table = chains(compile_config(loaded))
    statements = [rule.statement for chain in table.values() for rule in chain.rules]
    highest = max(policy.number for policy in learning_policies(loaded))
    assert f"meta mark set meta mark & 0x0000ffff | 0x{claims.mark_of(highest):08x}" in statements
    assert "meta mark & 0xffff0000 != 0 ct state new,invalid,untracked goto answered" in statements
    assert not [statement for statement in statements if "& 0xff00ffff" in statement]


def test_without_port_forwards_and_source_translation_there_are_no_nat_chains() -> None:
    for path in [*GOLDEN, *EXAMPLES]:
        config = load(path)
        table = chains(compile_config(config))
        kinds = {nat.kind is NatKind.DNAT for nat in config.nats}
        assert ("prerouting" in table) is (True in kinds)
        assert ("postrouting" in table) is (False in kinds)
        assert ("output" in table) is any(policy.source == "firewall" for policy in config.policies)
        assert all(zone_is_external(config, zone.name) is zone.external for zone in config.zones)


def test_limits_alone_close_nothing(config: Callable[[str], Config]) -> None:
    limit = 'limit "a" {\n unit = "a.service"\n upload = "1 mbit"\n}\n'
    (only,) = compile_config(config(limit)).chains()
    assert (only.rules, only.hook) == ((), Hook("filter", "forward", "filter", "accept"))
    with_zone = compile_config(config(f'{limit}zone "lan" {{ interface = "lan0" }}'))
    assert with_zone == compile_config(config('zone "lan" { interface = "lan0" }'))
