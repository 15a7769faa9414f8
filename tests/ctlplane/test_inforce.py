"""What is in force: elements alone where that is all, everything where somebody has been at the table."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from glacic.ctlplane.inforce import InForce, footprint
from glacic.errors import KernelRefused
from glacic.firewall.nft import FakeNft, Libnftables
from glacic.firewall.ruleset import Chain, Hook, Inventory, Rule, Ruleset, Set
from glacic.lab.net import Host, Network

HOOK = Hook("filter", "input", "filter", "accept")


def ruleset(*elements: str, rule: str = "ip saddr @s counter accept") -> Ruleset:
    return Ruleset((Set("s", "type ipv4_addr; flags interval;", elements), Chain("input", (Rule(rule),), HOOK)))


@pytest.fixture
def host() -> Iterator[Host]:
    with Network() as net:
        yield net.host("scratch")


def handles(host: Host) -> list[str]:
    listing = host.run(["nft", "-a", "list", "table", "inet", "glacic"]).stdout
    return [line.partition("# handle ")[2] for line in listing.splitlines() if "counter" in line]


def test_where_only_elements_change_no_rule_does() -> None:
    nft = FakeNft(Inventory())
    in_force = InForce(nft, lambda: "as it was")
    in_force.put(ruleset("10.0.0.1"))
    assert in_force.replaced == "ruleset"
    in_force.put(ruleset("10.0.0.2"))
    assert in_force.replaced == "elements"
    removed, added = "delete element inet glacic s {\n\t10.0.0.1\n}\n", "add element inet glacic s {\n\t10.0.0.2\n}\n"
    assert nft.scripts[-1] == removed + added
    in_force.put(ruleset())
    assert in_force.replaced == "elements"
    assert nft.scripts[-1] == removed.replace("10.0.0.1", "10.0.0.2")
    in_force.put(ruleset())
    assert in_force.replaced == "ruleset"  # nothing has changed: whoever reloads then wants things put right
    in_force.put(ruleset("10.0.0.3"), whole=True)
    assert in_force.replaced == "ruleset"
    in_force.put(ruleset("10.0.0.3", rule="ip saddr @s accept"))
    assert in_force.replaced == "ruleset"


def test_where_somebody_has_been_at_the_table_everything_is_replaced() -> None:
    seen: list[object] = ["one", "another", "another", None, "x"]
    in_force = InForce(FakeNft(Inventory()), lambda: seen.pop(0))  # type: ignore[arg-type,return-value]
    in_force.put(ruleset("10.0.0.1"))
    in_force.put(ruleset("10.0.0.2"))
    assert in_force.replaced == "ruleset"
    in_force.put(ruleset("10.0.0.3"))  # nobody could look
    assert in_force.replaced == "ruleset"


def test_a_refusal_leaves_what_is_known_as_it_was() -> None:
    nft = FakeNft(Inventory())
    in_force = InForce(nft, lambda: "as it was")
    in_force.put(ruleset("10.0.0.1"))
    nft.refuses = ("add element",)
    with pytest.raises(KernelRefused):
        in_force.put(ruleset("10.0.0.2"))
    nft.refuses = ()
    in_force.put(ruleset("10.0.0.2"))
    assert nft.scripts[-1].startswith("delete element inet glacic s")
    assert "add element inet glacic s" in nft.scripts[-1]


def test_rules_keep_their_handles_until_somebody_touches_them(host: Host) -> None:
    nft = host.call(Libnftables)
    in_force = InForce(nft, lambda: host.call(footprint))
    in_force.put(ruleset("10.0.0.1"))
    before = handles(host)
    in_force.put(ruleset("10.0.0.2", "10.0.0.0/31"))
    assert in_force.replaced == "elements"
    assert handles(host) == before
    assert "10.0.0.0/31, 10.0.0.2" in host.run(["nft", "list", "set", "inet", "glacic", "s"]).stdout


@pytest.mark.parametrize(
    "touch",
    [
        "flush chain inet glacic input",
        "insert rule inet glacic input accept",
        "add chain inet glacic input { policy drop; }",
        "add chain inet glacic more",
        "flush chain inet glacic input\nadd rule inet glacic input ip saddr @s counter accept",
        "delete table inet glacic",
    ],
)
def test_every_touch_is_seen(host: Host, touch: str) -> None:
    nft = host.call(Libnftables)
    in_force = InForce(nft, lambda: host.call(footprint))
    in_force.put(ruleset("10.0.0.1"))
    nft.run(f"{touch}\n")
    in_force.put(ruleset("10.0.0.2"))
    assert in_force.replaced == "ruleset"
    listing = host.run(["nft", "list", "table", "inet", "glacic"]).stdout
    assert listing.count("ip saddr @s") == 1
    assert "policy accept" in listing
    assert "10.0.0.2" in listing


def test_other_tables_and_learned_lookups_are_no_part_of_it(host: Host) -> None:
    nft = host.call(Libnftables)
    nft.run("add table inet glacic\nadd chain inet glacic learned_x\nadd chain inet glacic y\n")
    before = host.call(footprint)
    assert before is not None
    nft.run("add rule inet glacic learned_x accept\nadd table inet other\nadd chain inet other y\n")
    nft.run("add rule inet other y accept\n")
    assert host.call(footprint) == before
    nft.run("add rule inet glacic y accept\n")
    assert host.call(footprint) != before
