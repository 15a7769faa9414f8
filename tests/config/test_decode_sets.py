"""set blocks, and the files that their elements stand in."""

from __future__ import annotations

from pathlib import Path

import pytest

from glacic.config.files import Kept, Recorder
from glacic.config.load import examine, load
from glacic.config.model import Config, SetType
from glacic.firewall.compile import compile_config


def files(**contents: str | bytes) -> Kept:
    """`__` in a name stands for a slash, the last `_` for a dot."""
    named = {".".join(name.replace("__", "/").rsplit("_", 1)): text for name, text in contents.items()}
    return Kept({name: text.encode() if isinstance(text, str) else text for name, text in named.items()})


def block(kind: str, more: str, name: str = "s") -> str:
    return f'zone "lan" {{\n  interface = "lan0"\n}}\nset "{name}" {{\n  type = "{kind}"\n  {more}\n}}\n'


def in_kernel(config: Config) -> dict[str, tuple[str, ...]]:
    return {part.name: part.elements for part in compile_config(config).sets() if part.name.endswith("_s")}


def valid(hcl: str, **contents: str | bytes) -> dict[str, tuple[str, ...]]:
    return in_kernel(load(Path("main.hcl"), files(main_hcl=hcl, **contents)))


def told(hcl: str, **contents: str | bytes) -> list[str]:
    config, found = examine(Path("main.hcl"), files(main_hcl=hcl, **contents))
    assert config is None
    return [f"{one.span}: {one.summary}" for one in found]


def test_the_elements_of_block_and_files_are_one_set_without_overlaps() -> None:
    hcl = block("address", 'elements = ["10.1.0.0/24"]\n  elements_file = ["a.txt", "more/b.txt"]')
    found = valid(
        hcl, a_txt="10.1.0.7\n10.1.1.0/24\n2001:db8::/64\n", more__b_txt="2001:db8::1\n10.1.0.0/23\n192.0.2.1\n"
    )
    assert found == {"addresses_s": ("10.1.0.0/23", "192.0.2.1"), "addresses6_s": ("2001:db8::/64",)}


def test_each_type_reads_its_kind() -> None:
    assert valid(block("port", 'elements_file = "a.txt"'), a_txt="80\n443\n8000-8009\n8005\n") == {
        "ports_s": ("80", "443", "8000-8009")
    }
    assert valid(block("ipv6", 'elements_file = "a.txt"'), a_txt="2001:db8::5\n") == {"addresses6_s": ("2001:db8::5",)}
    assert told(block("ipv4", 'elements_file = "a.txt"'), a_txt="10.0.0.1\n2001:db8::5\n") == [
        'a.txt:2:1: "2001:db8::5" is of the other family'
    ]
    assert told(block("port", 'elements_file = "a.txt"'), a_txt="10.0.0.1\n70000\n") == [
        'a.txt:1:1: "10.0.0.1" is not a port',
        "a.txt:2:1: port 70000 is out of range",
    ]


def test_a_list_may_be_empty_and_must_be_there() -> None:
    assert valid(block("ipv4", 'elements_file = "a.txt"'), a_txt="# nobody\n") == {"addresses_s": ()}
    assert told(block("ipv4", 'elements_file = ["a.txt", "b.txt"]'), a_txt="") == [
        "main.hcl:6:29: cannot read b.txt: not among the files that were kept"
    ]
    assert told(block("ipv4", "elements_file = []")) == ["main.hcl:6:3: elements_file is an empty list"]
    assert told(block("ipv4", 'elements_file = ""')) == ["main.hcl:6:3: an empty path"]
    assert told(block("ipv4", "elements_file = 7")) == ["main.hcl:6:3: the number 7 where text belongs"]
    assert told(block("ipv4", 'elements_file = "a.txt"'), a_txt=b"# \xfc\n") == ["a.txt:1:3: byte 0xfc is not UTF-8"]


def test_a_path_is_relative_to_the_file_that_the_block_is_in() -> None:
    found = valid('include = "d/x.hcl"\n', d__x_hcl=block("ipv4", 'elements_file = "a.txt"'), d__a_txt="10.0.0.1\n")
    assert found == {"addresses_s": ("10.0.0.1",)}


def test_a_set_of_unknown_type_is_told_for_its_type_alone() -> None:
    found = told(block("what", 'elements_file = "a.txt"'), a_txt="x\n")
    assert found == ['main.hcl:5:3: "what" is no type']


def test_a_list_is_part_of_what_is_recorded() -> None:
    recorder = Recorder(files(main_hcl=block("ipv4", 'elements_file = "a.txt"'), a_txt="10.0.0.1\n"))
    config = load(Path("main.hcl"), recorder)
    assert load(Path("main.hcl"), Kept(recorder.contents)) == config
    assert in_kernel(config) == {"addresses_s": ("10.0.0.1",)}


@pytest.mark.parametrize("alias", ["ipv4", "ipv6", "ip", "port"])
def test_types_have_short_names(alias: str) -> None:
    config = load(Path("main.hcl"), files(main_hcl=block(alias, "")))
    assert config.sets[0].type in SetType
