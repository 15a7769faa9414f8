"""The script, as text."""

from __future__ import annotations

from glacic.firewall.render import render, render_elements, render_live
from glacic.firewall.ruleset import Chain, Counter, Hook, Inventory, Part, Rule, Ruleset, Set

SMALL = Ruleset(
    (
        Counter("fail_open", "Counted"),
        Set("known", "type ipv4_addr; flags interval;", ("10.0.0.1", "10.0.0.3")),
        Set("learned", "typeof ip saddr; counter;", kept=True),
        Chain(
            "input",
            (Rule("accept"), Rule("ip saddr @known drop", "Why"), Rule("drop"), Rule("counter", apart=True)),
            Hook("filter", "input", "filter", "drop"),
            "Two\nlines",
        ),
        Chain("empty"),
    )
)

TABLE = """\
table inet glacic {
	# Counted
	counter fail_open { }

	set known {
		type ipv4_addr; flags interval;
		elements = { 10.0.0.1, 10.0.0.3 }
	}
	set learned { typeof ip saddr; counter; }

	# Two
	# lines
	chain input {
		type filter hook input priority filter; policy drop;

		accept

		# Why
		ip saddr @known drop
		drop

		counter
	}

	chain empty {
	}
}
"""


def test_the_script_replaces_the_table_in_one_go() -> None:
    script = render(SMALL)
    assert script.endswith(f"\ntable inet glacic\ndelete table inet glacic\n\n{TABLE}")
    assert all(line.startswith("#") for line in script.split("\n\n")[0].splitlines())


def test_the_live_script_deletes_what_is_stale_and_what_is_made_anew_but_nothing_learned() -> None:
    present = Inventory(frozenset({"input", "old", "older"}), frozenset({"known", "learned", "old_learned"}))
    assert render_live(SMALL, present) == (
        "table inet glacic\n"
        "flush table inet glacic\n"
        "delete chain inet glacic old\n"
        "delete chain inet glacic older\n"
        "delete set inet glacic known\n"
        "delete set inet glacic old_learned\n"
        f"\n{TABLE}"
    )


def test_a_chain_that_somebody_has_hung_elsewhere_is_made_anew() -> None:
    (chain,) = [chain for chain in SMALL.chains() if chain.hook]
    assert chain.hook is not None
    deletion = f"delete chain inet glacic {chain.name}\n"
    for place in (("filter", chain.hook.hook, 7), None):
        assert deletion in render_live(SMALL, Inventory(frozenset({chain.name}), hooks={chain.name: place}))
    there = Inventory(frozenset({chain.name}), hooks={chain.name: chain.hook.place})
    assert deletion not in render_live(SMALL, there)


def test_a_counter_that_is_not_wanted_is_deleted_and_one_that_stays_is_left_alone() -> None:
    present = Inventory(counters=frozenset({"fail_open", "rule_old"}))
    script = render_live(SMALL, present)
    assert "delete counter inet glacic rule_old\n" in script
    assert "delete counter inet glacic fail_open" not in script


def test_many_elements_are_written_in_lines() -> None:
    script = render(Ruleset((Set("s", "type inet_service;", tuple(str(n) for n in range(1000, 1100))),)))
    assert "\t\telements = {\n\t\t\t1000, 1001, " in script
    assert max(len(line) for line in script.splitlines()) <= 120


def test_only_elements_that_changed_are_rendered_and_in_one_command_for_each_set() -> None:
    learned = Set("learned", "typeof ip saddr; counter;", kept=True)
    more = Set("learned2", "typeof ip saddr; counter;", kept=True)

    def ruleset(*parts: Part, a: str = "10.0.0.1", b: tuple[str, ...] = ("1", "2"), rule: str = "accept") -> Ruleset:
        sets = (Set("a", "type ipv4_addr;", (a,)), Set("b", "type inet_service;", b))
        return Ruleset((*sets, *parts, Chain("input", (Rule(rule),)), Chain("learned_x", (Rule(f"@{len(parts)}"),))))

    before = ruleset(learned)
    flush, add = "flush set inet glacic", "add element inet glacic"
    assert render_elements(before, ruleset(learned, b=())) == f"{flush} b\n"
    assert render_elements(before, ruleset(learned, more, a="10.0.0.2", b=("3", "4"))) == (
        f"{flush} a\n{add} a {{\n\t10.0.0.2\n}}\n{flush} b\n{add} b {{\n\t3, 4\n}}\n"
    )
    for other in (
        before,  # nothing has changed
        ruleset(a="10.0.0.2"),  # a learned set goes
        ruleset(learned, a="10.0.0.2", rule="drop"),
        ruleset(learned, Counter("c"), a="10.0.0.2"),
        Ruleset((Set("a", "type ipv6_addr;"), *before.parts[1:])),
        Ruleset(before.parts[1:]),
    ):
        assert render_elements(before, other) == ""
