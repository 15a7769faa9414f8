"""Fuzz targets: the text of a configuration, and the lists of elements that it names."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from fuzz.targets import Check
from glacic.config import cgroups, edit, rates, values
from glacic.config.files import Kept
from glacic.config.lists import TOLD_MAX, address, elements
from glacic.config.load import examine
from glacic.config.model import AddressRange, Config, Limit, Nat, Network, Policy, Rule, Zone
from glacic.config.source import Diagnostic, Source
from glacic.config.values import Invalid
from glacic.firewall.compile import compile_config
from glacic.firewall.match import network_elements
from glacic.firewall.nft import Libnftables
from glacic.firewall.quoting import identifier
from glacic.firewall.render import render
from glacic.lab.net import Network as Lab

BESIDE = {  # what an input may include and name
    "conf.d/a.hcl": b'zone "beside" {\n  interface = "beside0"\n}\n',
    "conf.d/loop.hcl": b'include = "../main.hcl"\n',
    "list.txt": b"10.1.0.0/24 # one\r\n2001:db8::1\n",
}
_GRAMMARS: tuple[Callable[[str], object], ...] = (
    *(values.interface, values.network, values.rate, values.duration, values.reference),
    lambda text: values.name(text, 100),
    *(rates.parse_rate, *cgroups.PARSERS.values()),
)


@contextmanager
def hcl() -> Iterator[Check]:
    """An input is a file. As root, what is valid is shown to a kernel."""

    def check(data: bytes) -> None:
        config, found = examine(Path("main.hcl"), Kept({**BESIDE, "main.hcl": data}))
        for one in found:
            _sound(one)
        assert (config is None) == any(one.severity == "error" for one in found)
        if config is not None:
            ruleset = compile_config(config)
            assert _skeleton(config) == _skeleton(_plain(config))
            _edits(data, config)
            takes(render(ruleset))

    with ExitStack() as stack:
        takes = stack.enter_context(_kernel()) if os.geteuid() == 0 else lambda _: None
        yield check


@contextmanager
def lists() -> Iterator[Check]:
    """An input is a file, of addresses or of ports."""

    def check(data: bytes) -> None:
        source = Source("a.txt", data.decode(errors="replace"))
        short, wrong = elements(source, address)
        long, as_wrong = elements(source, values.addresses)
        assert wrong == as_wrong
        assert [_interval(one) for one in short] == [_interval(one) for one in long]
        assert len(wrong) <= TOLD_MAX + 1
        for one in wrong:
            _sound(one)
        for family in (4, 6):
            assert network_elements(family, short) == network_elements(family, long)
        for one in elements(source, values.port)[1]:
            _sound(one)
        for line in source.text.split("\n"):
            for parse in _GRAMMARS:
                with suppress(Invalid):
                    parse(line)

    yield check


def _sound(one: Diagnostic) -> None:
    """A diagnostic has its place within its file, and can be shown on any terminal."""
    span = one.span
    assert span.line >= 0
    assert 0 <= span.start <= span.end <= len(span.source.text)
    assert span.line == 0 or span.source.text[: span.start].count("\n") == span.line - 1
    assert all(char.isprintable() or char in "\n\t" for char in one.render())
    assert all(value.isprintable() for value in one.as_dict().values() if isinstance(value, str))


def _edits(data: bytes, config: Config) -> None:
    """Each limit of the file can be changed and taken out, and nothing else is another then."""
    source = Source("main.hcl", data.decode("utf-8-sig"))
    for limit in config.limits[:3]:
        others = [other for other in config.limits if other is not limit]
        changed = edit.with_limit(source, limit.name, {str(limit.kind): limit.target, "download": "7 mbit"})
        wanted = Limit(
            **{name: getattr(limit, name) for name in ("name", "kind", "target", "description")}, download=875_000
        )
        for text, limits in ((changed, [*others, wanted]), (edit.without_limit(source, limit.name), others)):
            found, wrong = examine(Path("main.hcl"), Kept({**BESIDE, "main.hcl": text.encode()}))
            if found is None:
                assert [one.summary for one in wrong if one.severity == "error"] == ["the configuration is empty"]
                continue
            assert sorted(found.limits, key=_by_name) == sorted(limits, key=_by_name)
            assert replace(found, limits=()) == replace(config, limits=())


def _by_name(limit: Limit) -> str:
    return limit.name


def _interval(found: Network | AddressRange) -> tuple[int, int, int]:
    if isinstance(found, AddressRange):
        return found.first.version, int(found.first), int(found.last)
    return found.version, int(found.network_address), int(found.broadcast_address)


# ---- what text may do


def _skeleton(config: Config) -> list[str]:
    """The script's words without comments, strings, and the names made of a zone's or a policy's."""
    names = [*(zone.name for zone in config.zones), *(policy.name for policy in config.policies)]
    lines = render(compile_config(config)).split("\n")
    script = re.sub(r'"[^"]*"', '""', "\n".join(line for line in lines if not line.lstrip().startswith("#")))
    for name in sorted(map(identifier, names), key=len, reverse=True):
        script = re.sub(rf"(?<=_){re.escape(name)}(?=\b|_)", "NAME", script)
    return script.split()


def _plain(config: Config) -> Config:
    """The same configuration with harmless texts. Two names stay two names."""
    names = {name: f"plain{at}plain" for at, name in enumerate(_unique(zone.name for zone in config.zones))}
    names["firewall"] = "firewall"

    def zone(one: Zone) -> Zone:
        return replace(one, name=names[one.name], description=_word(one.description))

    def rule(at: int, one: Rule) -> Rule:
        return replace(one, name=f"rule{at}", comment=_word(one.comment), log=_word(one.log) if one.log else one.log)

    def policy(at: int, one: Policy) -> Policy:
        rules = tuple(rule(number, inner) for number, inner in enumerate(one.rules))
        source, destination = names[one.source], names[one.destination]
        plain = replace(one, name=f"policy{at}plain", description=_word(one.description), rules=rules)
        return replace(plain, source=source, destination=destination)

    def nat(at: int, one: Nat) -> Nat:
        return replace(one, name=f"nat{at}", description=_word(one.description))

    return replace(
        config,
        zones=tuple(map(zone, config.zones)),
        policies=tuple(policy(at, one) for at, one in enumerate(config.policies)),
        nats=tuple(nat(at, one) for at, one in enumerate(config.nats)),
        sets=tuple(replace(one, description=_word(one.description)) for one in config.sets),
    )


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _word(text: str) -> str:
    return "word" if text else ""


@contextmanager
def _kernel() -> Iterator[Callable[[str], None]]:
    """Loads a script into the kernel, in a namespace of its own. Raises KernelRefused.

    A queue statement is left out: not every kernel has it.
    """
    with Lab() as lab:
        nft = lab.host("fuzz").call(Libnftables)
        yield lambda script: nft.run(re.sub(r"^\t+queue num .*", "\t\tcounter drop", script, flags=re.MULTILINE))
