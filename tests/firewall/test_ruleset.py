"""The values that a table is made of."""

from __future__ import annotations

from glacic.firewall.ruleset import Chain, Counter, Hook, Ruleset, Set


def test_a_ruleset_gives_its_parts_by_kind_and_in_order() -> None:
    parts = (Chain("b"), Set("s", "type mark;"), Counter("c"), Chain("a"))
    ruleset = Ruleset(parts)
    assert [chain.name for chain in ruleset.chains()] == ["b", "a"]
    assert [set_.name for set_ in ruleset.sets()] == ["s"]
    assert [counter.name for counter in ruleset.counters()] == ["c"]


def test_a_hook_is_written_as_nft_writes_it() -> None:
    hook = Hook("filter", "input", "filter + 10", "accept")
    assert str(hook) == "type filter hook input priority filter + 10; policy accept;"
