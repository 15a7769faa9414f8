"""What nf_tables says about one table, message by message: rules that count, named counters, and nothing of sets."""

from __future__ import annotations

import pytest

from glacic.errors import KernelRefused
from glacic.firewall import dump
from glacic.firewall.dump import Counted, CountingRule, Dump
from glacic.firewall.nft import Libnftables
from glacic.lab.net import Host

TABLE = """
table inet glacic {
    counter web { packets 3 bytes 200 }
    counter idle { }
    set s { typeof ip saddr; counter; elements = { 192.0.2.1 counter packets 9 bytes 9 }; }
    chain other { }
    chain c {
        tcp dport 1 accept comment "uncounted"
        tcp dport 2 counter packets 5 bytes 300 drop comment "a \u2603"
        tcp dport 3 counter name "web" log prefix "x" accept comment "named"
        ip saddr @s counter goto other
        counter packets 7 bytes 8 reject with icmpx admin-prohibited
        counter
    }
}
table inet theirs {
    counter theirs { }
    chain c { counter accept; }
}
table ip glacic {
    counter theirs { }
    chain c { counter accept; }
}
"""


@pytest.fixture
def table(scratch: Host, nft: Libnftables) -> Dump:
    nft.run(TABLE)
    return scratch.call(Dump, "glacic")


def test_rules_that_count_are_read_with_chain_comment_and_verdict(table: Dump) -> None:
    assert table.rules() == [
        CountingRule("c", "a \u2603", "drop", Counted(5, 300), None),
        CountingRule("c", "named", "accept", None, "web"),
        CountingRule("c", "", "goto other", Counted(0, 0), None),
        CountingRule("c", "", "reject", Counted(7, 8), None),
        CountingRule("c", "", "", Counted(0, 0), None),
    ]


def test_named_counters_are_read_and_only_of_this_table(table: Dump) -> None:
    assert table.present()
    assert table.counters() == {"web": Counted(3, 200), "idle": Counted(0, 0)}


def test_where_there_is_no_table_there_is_nothing(scratch: Host) -> None:
    nothing = scratch.call(Dump, "glacic")
    assert not nothing.present()
    assert nothing.rules() == []
    assert nothing.counters() == {}
    assert nothing.flowtables() == frozenset()


def test_interfaces_are_those_of_its_namespace(scratch: Host) -> None:
    scratch.ip("link add lan0 type bridge", "link add wl-0 type bridge")
    assert scratch.call(Dump, "glacic").interfaces() == {"lo", "lan0", "wl-0"}


def test_many_rules_come_whole_and_in_order(scratch: Host, nft: Libnftables) -> None:
    rules = "".join(f'tcp dport {port} counter accept comment "{port}"\n' for port in range(1, 3001))
    nft.run(f"table inet glacic {{\n chain c {{\n{rules}}}\n}}\n")
    found = scratch.call(Dump, "glacic").rules()
    assert [rule.comment for rule in found] == [str(port) for port in range(1, 3001)]


def test_a_table_that_never_rests_is_said(table: Dump, monkeypatch: pytest.MonkeyPatch) -> None:
    def changed(*_: object) -> None:
        raise InterruptedError

    monkeypatch.setattr(dump, "_dump", changed)
    with pytest.raises(KernelRefused, match="keeps changing"):
        table.counters()
