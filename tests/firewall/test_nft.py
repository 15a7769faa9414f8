"""The seam to nf_tables: one transaction, refusals by line, and no listing of elements."""

from __future__ import annotations

import pytest

from glacic.errors import KernelRefused
from glacic.firewall.nft import FakeNft, Libnftables
from glacic.firewall.ruleset import Inventory
from glacic.lab.net import Host


def test_a_refusal_by_the_kernel_shows_the_line_and_changes_nothing(nft: Libnftables) -> None:
    nft.run("table inet glacic {\n\tchain kept { }\n}\n")
    with pytest.raises(KernelRefused) as refused:
        nft.run("table inet glacic {\n\tchain new { }\n\tchain kept {\n\t\tgoto nowhere\n\t}\n}\n")
    assert "\nline 4, column 8: " in str(refused.value)
    assert str(refused.value).endswith("\n        goto nowhere\n             ^^^^^^^")
    assert nft.inventory() == Inventory(chains=frozenset({"kept"}))


def test_every_syntax_error_is_shown_with_its_line(nft: Libnftables) -> None:
    with pytest.raises(KernelRefused) as refused:
        nft.run("table inet glacic {\n\tchain a {\n\t\ttcp dport 99999 accept\n\t\tfoo bar\n\t}\n}\n")
    assert "line 3, column 13: Service out of range\n        tcp dport 99999 accept\n" in str(refused.value)
    assert "line 4, column 3: " in str(refused.value)
    assert "/proc" not in str(refused.value)


def test_a_very_long_refusal_is_cut(nft: Libnftables) -> None:
    with pytest.raises(KernelRefused) as refused:
        nft.run("table inet glacic {\n\tchain a {\n" + "\t\ttcp dport 99999 accept\n" * 500 + "\t}\n}\n")
    assert len(str(refused.value)) < 5000


def test_the_inventory_is_of_our_table_only(nft: Libnftables) -> None:
    assert nft.inventory() is None
    nft.run("table inet theirs {\n\tset s { type mark; }\n\tchain c { }\n}\ntable ip glacic {\n\tchain d { }\n}\n")
    assert nft.inventory() is None
    nft.run("table inet glacic\n")
    assert nft.inventory() == Inventory()
    nft.run("table inet glacic {\n\tset s { type mark; }\n\tmap m { type mark : verdict; }\n\tchain c { }\n}\n")
    assert nft.inventory() == Inventory(chains=frozenset({"c"}), sets=frozenset({"s"}))


def test_rules_are_told_for_people(nft: Libnftables) -> None:
    assert nft.rules("missing") == {}
    script = (
        "table inet glacic {\n\tchain a {\n\t\ttype filter hook input priority 0; policy drop;\n"
        '\t\ttcp dport { 22, 80 } accept comment "x"\n\t\tdrop\n\t}\n}\n'
    )
    nft.run(script)
    assert list(nft.rules("a").values()) == ['tcp dport { 22, 80 } accept comment "x"', "drop"]
    assert nft.rules("a; flush ruleset") == {}
    present = nft.inventory()
    assert present is not None
    assert present.hooks == {"a": ("filter", "input", 0)}


def test_changes_by_others_are_seen(scratch: Host, nft: Libnftables) -> None:
    nft.run("table inet glacic {\n\tchain a { }\n}\n")
    assert nft.inventory() == Inventory(chains=frozenset({"a"}))
    scratch.run(["nft", "add chain inet glacic b; delete chain inet glacic a"])
    assert nft.inventory() == Inventory(chains=frozenset({"b"}))
    nft.run("add rule inet glacic b accept\n")


def test_the_fake_refuses_by_line_and_remembers_what_it_ran() -> None:
    fake = FakeNft(refuses=("queue",))
    with pytest.raises(KernelRefused, match="line 2"):
        fake.run("a\nqueue num 1\n")
    fake.run("b\n")
    assert fake.scripts == ["b\n"]
    assert fake.inventory() is None
