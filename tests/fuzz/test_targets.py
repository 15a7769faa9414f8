"""Every target for a moment: its seeds, findings that were mended among them, and some hundred mutations of them."""

from __future__ import annotations

import random

import pytest

from fuzz.mutation import inputs
from fuzz.targets import TARGETS, Target
from glacic import native
from glacic.config.model import PortRange
from glacic.errors import KernelRefused

MUTATIONS = 300
HOSTILE = b'policy "a" "firewall" {\n  name = "x y"\n}\n'
NAMES = [target.name for target in TARGETS]


@pytest.mark.parametrize("target", TARGETS, ids=NAMES)
def test_no_input_breaks_a_promise(target: Target) -> None:
    seeds = [path.read_bytes() for path in target.seeds()]
    tried = inputs(seeds, target.words(), target.most, random.Random(target.name))
    with target.check() as check:
        for _ in range(len(seeds) + MUTATIONS):
            data = next(tried)
            try:
                check(data)
            except Exception as error:
                pytest.fail(f"{data!r}: {error!r}")


def test_there_is_a_compiled_decoder_to_compare() -> None:
    assert native.road is not None, "make setup builds it into the wheel, tools/native into the source tree"


@pytest.mark.parametrize("target", TARGETS, ids=NAMES)
def test_seeds_fit_what_is_tried(target: Target) -> None:
    assert all(path.stat().st_size <= target.most for path in target.seeds())
    assert all(0 < len(word) < 64 for word in target.words())


BROKEN = {  # what a check is there to see: a decoder that differs, a name that is no identifier, a list misread
    "packet": ("fuzz.packets.decode", lambda *_: None, b""),
    "hcl": ("glacic.firewall.policy.identifier", str, b'zone "a" {\n  interface = "a0"\n}\n' + HOSTILE),
    "lists": ("fuzz.configuration.address", lambda _: PortRange(0, 0), b"10.0.0.1\n"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_promise_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target = next(target for target in TARGETS if target.name == name)
    what, instead, data = BROKEN[name]
    with target.check() as check:
        check(data)
        monkeypatch.setattr(what, instead)
        with pytest.raises((AssertionError, AttributeError, KernelRefused)):
            check(data)
