"""The reference says what the code does: every name, default, option and reason stands in docs/, and nothing else."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from glacic.config import decode_rules, services
from glacic.config.load import examine_source
from glacic.config.model import RuleLearning
from glacic.config.reader import Reader
from glacic.config.services import Opening
from glacic.config.source import Source
from glacic.ctlplane import probes
from glacic.ctlplane.cli import COMMANDS, build_parser
from glacic.learning.flow import Why
from glacic.learning.packet import Reason

DOCS = Path(__file__).resolve().parent.parent / "docs"
CONFIGURATION = (DOCS / "configuration.md").read_text()
CLI = (DOCS / "cli.md").read_text()

BLOCKS = {
    "rule_learning": "rule_learning { }",
    "zone": 'zone "a" { interface = "a0" }',
    "policy": 'policy "a" "firewall" { }',
    "rule": 'policy "a" "firewall" {\n  rule "r" { action = "accept" }\n}',
    "time": 'policy "a" "firewall" {\n  rule "r" {\n  action = "accept"\n  time {\n zone = "UTC"\n days = "mon"\n'
    "  }\n }\n}",
    "set": 'set "s" { type = "port" }',
    "nat": 'nat "n" {\n  type = "masquerade"\n  out_interface = "a0"\n}',
    "limit": 'limit "l" {\n  unit = "a.service"\n  upload = "1 mbit"\n}',
    "default_limit": 'default_limit { upload = "1 mbit" }',
}
NAMES = {"services": services.SERVICES, "management": services.MANAGEMENT}


def section(document: str, title: str) -> str:
    """What stands below a heading, up to the next one of its level or above."""
    found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#{{1,2}} |\Z)", document, re.DOTALL | re.MULTILINE)
    assert found is not None, title
    return found[2]


def rows(text: str) -> Iterator[list[str]]:
    """The rows of the tables whose first column is code, as cells."""
    for line in text.splitlines():
        if line.startswith("| `"):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def documented(text: str) -> list[str]:
    return [cells[0].strip("`") for cells in rows(text)]


def words(openings: tuple[Opening, ...]) -> str:
    """`IPv4 UDP 67; TCP and UDP 53`: what a name opens, as the tables say it."""
    return "; ".join(_opening(opening) for opening in openings)


def _opening(opening: Opening) -> str:
    protos = " and ".join({"icmp": "ICMP", "icmpv6": "ICMPv6"}.get(name, name.upper()) for name in opening.protos)
    if opening.protos[0] in services.ICMP_TYPES:
        names = {number: name for name, number in services.ICMP_TYPES[opening.protos[0]].items()}
        return f"{protos} {', '.join(names[port] for port in opening.ports)}"
    family = f"IPv{opening.family} " if opening.family else ""
    return f"{family}{protos} {', '.join(map(str, opening.ports))}".strip()


def known_names(block: str, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The attributes and blocks that the decoder asks a block of this type for."""
    asked: dict[str, set[str]] = {}
    finish = Reader.finish

    def remember(reader: Reader) -> None:
        asked[reader._where.split(" ")[0]] = reader._names | reader._types
        finish(reader)

    monkeypatch.setattr(Reader, "finish", remember)
    text = BLOCKS[block] if block == "zone" else f"{BLOCKS[block]}\n{BLOCKS['zone']}"
    config, found = examine_source(Source("example", text + "\n"))
    assert config is not None, [diagnostic.summary for diagnostic in found]
    return asked[block]


@pytest.mark.parametrize("block", BLOCKS)
def test_every_attribute_that_a_block_can_have_is_described_and_no_other(
    block: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = documented(section(CONFIGURATION, f"`{block}`"))
    assert sorted(described) == sorted(known_names(block, monkeypatch))


@pytest.mark.parametrize("block", NAMES)
def test_every_name_that_a_zone_can_open_is_listed_with_what_it_opens(block: str) -> None:
    listed = {cells[0].strip("`"): cells[1] for cells in rows(section(CONFIGURATION, f"Names in `{block}`"))}
    assert listed == {name: words(openings) for name, openings in NAMES[block].items()}


def test_the_defaults_of_rule_learning_are_the_real_ones() -> None:
    absent = RuleLearning(enabled=True)  # `enabled` is true in a block that does not mention it
    for cell, _, default, _ in rows(section(CONFIGURATION, "`rule_learning`")):
        name = cell.strip("`")
        value = getattr(absent, {"learn_for": "learn_for_s"}.get(name, name))
        if value is None or value == ():
            assert "`" not in default or name == "database", name  # said in words
            continue
        text = f"0x{value:08x}" if name == "offload_mark" else str(value)
        assert default.strip("`").strip('"') == (text.lower() if isinstance(value, bool) else text), name


@pytest.mark.parametrize(
    ("title", "names"),
    [
        ("Protocols", services.PROTOCOLS),
        ("ICMP types", {name for types in services.ICMP_TYPES.values() for name in types}),
        ("`rule`", decode_rules.CT_STATES),
    ],
)
def test_every_word_that_a_rule_can_name_is_listed(title: str, names: set[str]) -> None:
    text = section(CONFIGURATION, title)
    assert [name for name in names if f"`{name}`" not in text] == []


def test_the_examples_are_one_valid_configuration_together() -> None:
    text = "\n".join(re.findall(r"```hcl\n(.*?)```", CONFIGURATION, re.DOTALL))
    config, found = examine_source(Source("docs/configuration.md", text))
    assert [diagnostic.render() for diagnostic in found] == []
    assert config is not None
    assert config.policies
    assert config.nats


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from parsers(child)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_described_with_all_its_options(command: str) -> None:
    text = section(CLI, f"`glacic {command}`")
    common = section(CLI, "Common options")
    for parser in parsers(build_parser([command])):
        if parser.prog.split()[1:2] not in ([command], []):
            continue
        for option in (option for action in parser._actions for option in action.option_strings):
            assert f"`{option}" in text or f"`{option}" in common, option
        for name in parser.prog.split()[2:]:
            assert f"`{name}" in text, name


@pytest.mark.parametrize("reason", [*Why, *Reason], ids=str)
def test_every_reason_that_is_shown_is_explained(reason: str) -> None:
    assert f"`{reason}`" in section(CLI, "Reasons")


def test_every_probe_of_doctor_is_listed_with_what_it_is_needed_for() -> None:
    listed = {cells[0].strip("`"): cells[1] for cells in rows(section(CLI, "`glacic doctor`"))}
    found = {probe.name: probe.needed_for for probe in (*probes._OUTSIDE, *probes._INSIDE)}
    assert {name: what for name, what in listed.items() if name in found} == found
