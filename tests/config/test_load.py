"""From a path to a Config, or to everything that is wrong; and no file makes it raise anything else."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from glacic.config.load import SIZE_MAX, examine, examine_source, load
from glacic.config.source import Source
from glacic.errors import ConfigError

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs").glob("*.hcl"))
TEXTS = [path.read_text() for path in CONFIGS]
LEARNING = """
rule_learning {
  enabled       = true
  learning_mode = true    # TOFU mode
  inline_mode   = true    # nfqueue: hold the first packet and ask
  log_group     = 100     # inline: the queue number; otherwise the nflog group (default 0)
}
"""


def refused(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert caught.value.exit_code == 1
    return str(caught.value)


def test_the_shortest_configuration_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "a.hcl"
    path.write_text(LEARNING)
    config = load(path)
    assert config.path == path
    learning = config.rule_learning
    assert (learning.enabled, learning.learning_mode, learning.inline_mode, learning.log_group) == (
        True,
        True,
        True,
        100,
    )
    assert examine(path) == (config, ())


def test_without_inline_mode_it_is_valid_too(tmp_path: Path) -> None:
    path = tmp_path / "a.hcl"
    path.write_text("\n".join(line for line in LEARNING.split("\n") if "inline_mode" not in line))
    assert load(path).rule_learning.inline_mode is False
    assert examine(path)[1] == ()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_examples_are_valid_and_without_notes(path: Path) -> None:
    config, diagnostics = examine(path)
    assert config is not None
    assert diagnostics == ()


def test_the_two_home_examples_differ_in_the_mode_only() -> None:
    inline, nflog = (load(path.with_name(name)) for path in CONFIGS[:1] for name in ("home.hcl", "home-nflog.hcl"))
    assert (inline.zones, inline.policies, inline.nats) == (nflog.zones, nflog.policies, nflog.nats)
    assert (inline.rule_learning.inline_mode, nflog.rule_learning.inline_mode) == (True, False)
    assert (inline.rule_learning.log_group, nflog.rule_learning.log_group) == (100, 0)


def test_all_errors_are_in_the_exception_and_notes_are_not(tmp_path: Path) -> None:
    path = tmp_path / "a.hcl"
    path.write_text('rule_learning {\n  queues = 0\n  fail_mode = "closed"\n}\nzone "a" {\n}\n')
    text = refused(path)
    assert f"{path}:2:3: error: queues = 0 is out of range" in text
    assert f'{path}:5:1: error: zone "a" has neither' in text
    assert "note" not in text


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (b"", "1:1: error: the configuration is empty"),
        (b"# nothing\n\n", "1:1: error: the configuration is empty"),
        (b'zone "a" {\n  interface = "\xff"\n}\n', "2:16: error: byte 0xff is not UTF-8"),
        (b'zone "\xc3\xa9\xff" {', "1:8: error: byte 0xff is not UTF-8"),
        (b"\xff\xfez\x00", "1:1: error: byte 0xff is not UTF-8"),
        (b"\xef\xbb\xbfzone {\n}", "1:1: error: zone has no labels"),
        (b"\x7fELF\x00", "1:1: error: control character U+007F"),
        (b"zone {\r\n}\r\nfoo\r\n", "3:1: error: neither an attribute nor a block"),
    ],
)
def test_bytes_that_are_no_configuration_are_located(tmp_path: Path, data: bytes, place: str) -> None:
    path = tmp_path / "a.hcl"
    path.write_bytes(data)
    assert refused(path).startswith(f"{path}:{place}")


def test_a_byte_order_mark_and_windows_line_ends_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "a.hcl"
    path.write_bytes(b"\xef\xbb\xbf" + LEARNING.replace("\n", "\r\n").encode())
    assert load(path).rule_learning.log_group == 100


def test_what_cannot_be_opened_is_told_by_its_name(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.hcl").startswith(
        f"{tmp_path}/none.hcl: error: cannot read the configuration: No such"
    )
    assert "Is a directory" in refused(tmp_path)
    assert "null byte" in refused(Path("a\0b"))


def test_a_file_too_large_is_refused_without_reading_all_of_it(tmp_path: Path) -> None:
    path = tmp_path / "a.hcl"
    with path.open("wb") as file:
        file.truncate(SIZE_MAX * 100)
    assert "larger than 4 MiB" in refused(path)


def test_a_large_set_is_read() -> None:
    elements = ",\n".join(f'"10.{n >> 8}.{n & 255}.0/24"' for n in range(4000))
    config, _ = examine_source(Source("a.hcl", f'set "x" {{\n type = "ipv4"\n elements = [\n{elements}\n]\n}}\n'))
    assert config is not None
    assert len(config.sets[0].elements) == 4000


@given(st.text())
def test_any_text_is_a_configuration_or_located_errors(text: str) -> None:
    config, diagnostics = examine_source(Source("a.hcl", text))
    assert (config is None) == any(found.severity == "error" for found in diagnostics)


BLOCKS = ("zone", "policy", "rule", "set", "nat", "services", '"lan"', '"wan"', '"firewall"', "{", "}")
ATTRIBUTES = (
    "interface",
    "networks",
    "learn",
    "action",
    "proto",
    "type",
    "dest_port",
    "src_ip",
    "elements",
    "=",
    "[",
    "]",
)
CONSTANTS = (
    "80",
    '"@x"',
    '"10.0.0.0/8"',
    '"fd00::/8"',
    "true",
    "null",
    '"dnat"',
    '"tcp"',
    '"icmp"',
    '"lan0"',
    "-",
    ",",
)
WORDS = st.sampled_from((*BLOCKS, *ATTRIBUTES, *CONSTANTS, "#", '"', "\n"))


@given(st.sampled_from(TEXTS), st.randoms(use_true_random=False), st.lists(WORDS, min_size=1, max_size=6))
@example(TEXTS[0], random.Random(0), ["}"])
def test_a_valid_file_with_words_thrown_in_never_raises(text: str, chance: random.Random, words: list[str]) -> None:
    pieces = text.split(" ")
    for word in words:
        at = chance.randrange(len(pieces))
        pieces[at : at + chance.randrange(3)] = [word]
    _, diagnostics = examine_source(Source("a.hcl", " ".join(pieces)))
    for found in diagnostics:
        assert found.span.line >= 1
        assert found.render()
