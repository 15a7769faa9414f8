"""Other people's tables: byte for byte as they were, whatever Glacic does to the kernel."""

from __future__ import annotations

from pathlib import Path

from glacic.lab import foreign
from glacic.lab.net import Network


def test_tables_of_others_are_never_touched(tmp_path: Path) -> None:
    rows = foreign.foreign_tables(tmp_path)
    assert {row["table"] for row in rows} >= {
        "ip nat",
        "ip filter",
        "ip mangle",
        "ip6 filter",
        "inet f2b-table",
        "ip crowdsec",
        "ip6 crowdsec6",
        "inet firewalld",
        "ip libvirt_network",
        "ip glacic",
    }
    assert [row["table"] for row in rows if row["before"] != row["after"]] == []


def test_a_table_that_is_touched_has_another_sum() -> None:
    with Network() as network:
        host = network.host("host")
        foreign.load(host)
        before = foreign.sums(host)
        host.run(["nft", "add", "element", "inet", "f2b-table", "addr6-set-sshd", "{ 2001:db8:bad::2 }"])
        rule = "rule ip nat DOCKER iifname docker0 return"
        host.run(["nft", "add", *rule.split()])
        host.run(["nft", "delete", "table", "bridge", "filter"])
        after = foreign.sums(host)
        assert {table for table in before if before[table] != after.get(table)} == {
            "inet f2b-table",
            "ip nat",
            "bridge filter",
        }
