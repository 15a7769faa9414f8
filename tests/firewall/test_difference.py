"""The difference of two scripts: by chain and set, with no word about what stays."""

from __future__ import annotations

from pathlib import Path

from glacic.config.load import examine_source
from glacic.config.source import Source
from glacic.firewall.compile import compile_config
from glacic.firewall.difference import as_rows, difference
from glacic.firewall.render import render

OLD = """\
zone "lan" { interface = "lan0" }
set "ports" {
  type     = "port"
  elements = [80, 81]
}
policy "lan" "firewall" {
  action = "drop"
  rule "web" {
    proto     = "tcp"
    dest_port = "@ports"
    action    = "accept"
  }
}
"""


def script(text: str) -> str:
    config, found = examine_source(Source("a.hcl", text))
    assert config is not None, [one.render() for one in found]
    return render(compile_config(config))


def test_the_same_script_is_no_difference() -> None:
    assert difference(script(OLD), script(OLD)) == ()


def test_a_comment_is_no_difference() -> None:
    described = OLD.replace('{ interface = "lan0" }', '{\n  interface   = "lan0"\n  description = "home"\n}')
    assert described != OLD
    assert difference(script(OLD), script(described)) == ()


def test_a_changed_rule_stands_below_its_chain_with_what_it_was() -> None:
    (change,) = difference(script(OLD), script(OLD.replace('action    = "accept"', 'action    = "reject"')))[:1]
    assert (change.kind, change.name, change.change) == ("chain", "policy_lan_firewall", "changed")
    marks = [line[0] for line in change.lines]
    assert marks.count("-") == 1
    assert marks.count("+") >= 1
    assert any(line.startswith("-") and "accept" in line for line in change.lines)


def test_parts_that_come_and_go_are_named() -> None:
    without = OLD[: OLD.index("set ")] + OLD[OLD.index("policy ") :].replace('"@ports"', "80")
    gone = {(change.kind, change.change) for change in difference(script(OLD), script(without))}
    assert gone == {("set", "removed"), ("chain", "changed")}
    back = {(change.kind, change.change) for change in difference(script(without), script(OLD))}
    assert back == {("set", "added"), ("chain", "changed")}


def test_against_nothing_everything_is_added() -> None:
    changes = difference("", script(OLD))
    assert {change.change for change in changes} == {"added"}
    assert as_rows(changes)[0]["lines"][0] == "@@"


def test_every_golden_script_is_split_into_its_parts() -> None:
    """What the parser of the layout misses would be a change that nobody is shown."""
    scripts = list(Path(__file__).parents[1].glob("golden/*/script.nft"))
    assert scripts
    for path in scripts:
        text = path.read_text()
        names = [
            line.split()[1]
            for line in text.splitlines()
            if line.startswith(("\tchain ", "\tset ", "\tcounter ", "\tflowtable "))
        ]
        assert [change.name for change in difference("", text)] == names, path


def test_a_set_is_told_element_by_element() -> None:
    one, other = OLD, OLD.replace("[80, 81]", "[81, 83, 90]")
    (change,) = difference(script(one), script(other))
    assert (change.kind, change.name, change.change) == ("set", "ports_ports", "changed")
    assert change.lines == ("@@", "-80-81", "+81", "+83", "+90")


def test_of_a_long_list_only_some_elements_are_told() -> None:
    def listed(first: int) -> str:
        return script(OLD.replace("[80, 81]", str(list(range(first, 60_000, 2)))))

    (change,) = difference(listed(1), listed(2))
    assert len(change.lines) == 41
    assert change.lines[1] == "-1"
    assert change.lines[-1] == f"@@ and {30_000 + 29_999 + 1 - 40} more"
    (inserted,) = difference(listed(1), listed(3))
    assert inserted.lines == ("@@", "-1")
    added = next(one for one in difference("", listed(1)) if one.kind == "set")
    assert len(added.lines) == 41
