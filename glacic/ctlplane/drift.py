"""Integrity, in words: what is different in a table from what was put there. Pure.

Text of rules and comments is somebody else's: all of it goes through `printable`, cut to a line. Refuses to read
anything: structure.py does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from difflib import SequenceMatcher
from ipaddress import ip_address

from glacic.ctlplane import tablecodec as codec
from glacic.ctlplane.structure import Parts, RuleSeen
from glacic.ctlplane.tablecodec import Key
from glacic.firewall.quoting import printable
from glacic.firewall.shapes import Shape, element_text, key_from_kernel, key_length

MAX_TEXT = 200  # characters of somebody else's rule
MAX_TOLD = 5  # elements of one set that are named, and rules of one chain; the rest is a number
_POLICIES = {0: "drop", 1: "accept"}
_HOOKS = {0: "prerouting", 1: "input", 2: "forward", 3: "output", 4: "postrouting", 5: "ingress"}  # NF_INET_*
_ADDRESS, _ADDRESS_6, _SERVICE = 7, 8, 13  # libnftables' types of a key, include/datatype.h

Texts = Callable[[str], dict[int, str]]  # chain -> handle -> a rule as nft writes it

_SHAPES = sorted(
    (
        Shape(source, kind, destination)
        for source in ("mac", "ip", "ip6")
        for kind in ("port", "icmp", "proto")
        for destination in ("", "ip", "ip6")
    ),
    key=lambda shape: -len(str(shape)),
)


def no_texts(_: str) -> dict[int, str]:
    """Where nft cannot be asked."""
    return {}


def differences(reference: Parts, actual: Parts, texts: Texts = no_texts) -> list[tuple[Key, str]]:
    """What has become of `reference`: (what it is about, in words). Empty where they are the same."""
    table = Key("table", "")
    if table in reference and table not in actual:
        return [(table, "table deleted")]
    rules = [key for key in reference if key.thing == "rule" and reference[key] and key in actual]
    if len(rules) > 1 and not any(actual[key] for key in rules):
        return [(table, "table flushed: every chain is empty")]
    found: list[tuple[Key, str]] = []
    for key in sorted({*reference, *actual}):
        before, after = reference.get(key), actual.get(key)
        if before != after:
            found += [(key, words) for words in _words(key, reference, actual, texts)]
    return found


def _words(key: Key, reference: Parts, actual: Parts, texts: Texts) -> Iterator[str]:
    before, after, name = reference.get(key), actual.get(key), printable(key.name)
    if key.thing == "rule":
        if Key("chain", key.name) in actual:
            yield from _rules(name, _rules_in(before), _rules_in(after), texts)
    elif key.thing == "element":
        if Key("set", key.name) in reference and Key("set", key.name) in actual:
            kind = actual[Key("set", key.name)]
            assert isinstance(kind, bytes)  # noqa: S101 - of a set
            yield from _elements(name, _bytes_in(before), _bytes_in(after), codec.key_type_of(kind))
    elif key.thing == "chain" and isinstance(before, bytes) and isinstance(after, bytes):
        yield from _chain(name, before, after)
    elif key.thing == "table":
        yield "table made dormant: nothing is filtered" if after else "table changed"
    else:
        thing = {"object": "counter"}.get(key.thing, key.thing)
        yield f"{thing} {'added' if before is None else 'deleted' if after is None else 'changed'}: {name}"


def _chain(name: str, before: bytes, after: bytes) -> Iterator[str]:
    old, new = codec.hook_of(before), codec.hook_of(after)
    if old is None or new is None:
        yield f"chain {name}: {'no longer hooked' if new is None else f'hooked to {_HOOKS.get(new[0], new[0])}'}"
        return
    if old[0] != new[0]:
        yield f"chain {name}: hook changed from {_HOOKS.get(old[0], old[0])} to {_HOOKS.get(new[0], new[0])}"
    if old[1] != new[1]:
        yield f"chain {name}: priority changed from {old[1]} to {new[1]}"
    if old[2] != new[2]:
        yield f"chain {name}: policy changed from {_POLICIES.get(old[2])} to {_POLICIES.get(new[2])}"
    if old == new:
        yield f"chain changed: {name}"


def _rules(chain: str, before: Sequence[RuleSeen], after: Sequence[RuleSeen], texts: Texts) -> Iterator[str]:
    words = texts(chain)
    told = 0
    for tag, i1, i2, j1, j2 in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        for at in range(max(i2 - i1, j2 - j1)):
            told += 1
            if told > MAX_TOLD:
                continue
            old, new = i1 + at < i2, j1 + at < j2
            text = rule_text(after[j1 + at], words) if new else ""
            place = f"number {i1 + at + 1} of {len(before)}"
            if old and new:
                yield f"rule replaced in chain {chain} ({place}), it is now: {text}"
            elif new:
                yield f"rule added to chain {chain}: {text}"
            else:
                yield f"rule deleted from chain {chain} ({place})"
    if told > MAX_TOLD:
        yield f"chain {chain}: {told - MAX_TOLD} more rules added, deleted or replaced"


def rule_text(rule: RuleSeen, words: dict[int, str]) -> str:
    """A rule for people: as nft writes it where that is known, else what it consists of."""
    text = words.get(rule.handle)
    if text is None:
        named = [name for name in rule.sets if isinstance(name, str)]
        text = " ".join([*rule.expressions, *(f"@{name}" for name in named)])
        text = f"({text})" + (f' comment "{rule.comment}"' if rule.comment else "")
    text = printable(text)
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}..."


def _elements(name: str, before: Collection[bytes], after: Collection[bytes], kind: int) -> Iterator[str]:
    for verb, some in (
        ("added to", set(after) - set(before)),
        ("deleted from", set(before) - set(after)),
    ):
        told = sorted(element for element in some if not codec.element_ends(element)) or sorted(some)
        for element in told[:MAX_TOLD]:
            yield f"element {verb} set {name}: {key_text(codec.element_key(element), kind)}"
        if len(told) > MAX_TOLD:
            yield f"{len(told) - MAX_TOLD} more elements {verb} set {name}"


def key_text(raw: bytes, kind: int) -> str:
    """The key of an element of a set whose keys are of this type."""
    if (kind == _ADDRESS and len(raw) == 4) or (kind == _ADDRESS_6 and len(raw) == 16):
        return str(ip_address(raw))
    return str(int.from_bytes(raw, "big")) if kind == _SERVICE and len(raw) == 2 else f"0x{raw.hex()}"


def learned_text(name: str, raw: bytes) -> str:
    """The key of an element of a learned set, by the shape that its name ends in."""
    for shape in _SHAPES:
        if name.endswith(f"_{shape}") and len(raw) == key_length(shape):
            return element_text(key_from_kernel("", shape, raw))
    return f"0x{raw.hex()}"


def _rules_in(part: object) -> tuple[RuleSeen, ...]:
    return part if isinstance(part, tuple) else ()


def _bytes_in(part: object) -> frozenset[bytes]:
    return part if isinstance(part, frozenset) else frozenset()
