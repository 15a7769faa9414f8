"""Integrity, the table as it is: read by netlink, without what was learned, as values that can be compared.

    parts    table, chains, the rules of each chain, sets, their elements, counters: by Key, each with its definition

The elements of learned sets, and of sets that packets or time change, are left out: the first are many and known
otherwise, the others are nobody's. Anonymous sets are part of the rule that they belong to. Refuses libnftables, which
reads every element of every set for any listing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from glacic.ctlplane import tablecodec as codec
from glacic.ctlplane.nlsocket import NetlinkSocket, refused
from glacic.ctlplane.tablecodec import Key, Object
from glacic.errors import KernelRefused
from glacic.firewall.claims import TABLE

LEARNED = ("allowed_", "refused_")  # how the names of learned sets begin: firewall.shapes.set_name


_ANSWER_MAX = 65_536  # bytes


@dataclass(frozen=True, slots=True)
class RuleSeen:
    """One rule. Equal where it says the same: handles are given anew to a rule that comes back."""

    definition: bytes
    sets: tuple[str | frozenset[bytes], ...]  # names; of anonymous sets the elements
    handle: int = field(default=0, compare=False)
    expressions: tuple[str, ...] = field(default=(), compare=False)
    comment: str = field(default="", compare=False)


Definition = bytes | frozenset[bytes] | tuple[RuleSeen, ...]
Parts = dict[Key, Definition]


@dataclass(frozen=True, slots=True)
class Structure:
    """A table. parts: empty where there is none. learned: how many elements its learned sets have, None where the
    kernel does not say (before 6.16)."""

    parts: Parts
    learned: int | None = 0

    def in_force(self) -> bool:
        """Whether packets meet it: whether it has a base chain and is not dormant."""
        hooked = any(
            key.thing == "chain" and isinstance(part, bytes) and codec.hook_of(part) is not None
            for key, part in self.parts.items()
        )
        table = self.parts.get(Key("table", ""))
        return hooked and isinstance(table, bytes) and not codec.flags_of(table) & 1  # NFT_TABLE_F_DORMANT


def is_learned(name: str) -> bool:
    """Whether a set with this name is one of the learned sets."""
    return name.startswith(LEARNED)


def read_structure(table: str = TABLE) -> Structure:
    """The table as it is now. Raises KernelRefused.

    What is changed while it is read may be in it or not; its event tells of that.
    """
    try:
        with NetlinkSocket() as sock:
            return _read(sock, table)
    except OSError as error:
        raise KernelRefused(f"cannot read table inet {table}: {refused(error)}") from None


def remove(keys: Iterable[Key], table: str = TABLE) -> None:
    """Remove objects, maps and flow tables that somebody has put into our table, as far as nothing refers to them: of
    these nft can only tell by listing every element there is. Raises KernelRefused."""
    try:
        with NetlinkSocket() as sock:
            present = _read(sock, table).parts
            for key in keys:
                definition = present.get(key)
                if key.thing in ("object", "set", "flowtable") and isinstance(definition, bytes):
                    sock.socket.send(codec.removal(table, key, definition))
                    sock.socket.recv(_ANSWER_MAX)  # what it refuses stays, and is seen
    except OSError as error:
        raise KernelRefused(f"cannot change table inet {table}: {refused(error)}") from None


def _read(sock: NetlinkSocket, table: str) -> Structure:
    tables = list(_dumped(sock, codec.request(codec.GETTABLE), table))
    if not tables:
        return Structure({})
    parts: Parts = {Key("table", ""): tables[0].definition}
    chains = list(_dumped(sock, codec.request(codec.GETCHAIN), table))
    parts |= {chain.key: chain.definition for chain in chains}
    named = codec.text(1, table)
    sets = list(_dumped(sock, codec.request(codec.GETSET, named), table))
    parts |= {each.key: each.definition for each in sets if not each.anonymous}
    contents = {each.key.name: _elements(sock, table, each.key.name) for each in sets if _has_contents(each)}
    anonymous = {each.key.name for each in sets if each.anonymous}
    parts |= {Key("element", name): found for name, found in contents.items() if name not in anonymous}
    rules: dict[str, list[RuleSeen]] = {chain.key.name: [] for chain in chains}
    for rule in _dumped(sock, codec.request(codec.GETRULE, named), table):
        rules.setdefault(rule.key.name, []).append(_rule(rule, contents, anonymous))
    parts |= {Key("rule", chain): tuple(found) for chain, found in rules.items()}
    for kind in (codec.GETOBJ, codec.GETFLOWTABLE):
        parts |= {each.key: each.definition for each in _dumped(sock, codec.request(kind, named), table)}
    sizes = [each.size for each in sets if is_learned(each.key.name)]
    return Structure(parts, None if None in sizes else sum(size or 0 for size in sizes))


def _has_contents(each: Object) -> bool:
    """Whether a set's elements are the ruleset's own."""
    return not is_learned(each.key.name) and not each.changes_by_itself


def _rule(rule: Object, contents: dict[str, frozenset[bytes]], anonymous: Collection[str]) -> RuleSeen:
    sets = tuple(contents.get(name, frozenset()) if name in anonymous else name for name in rule.sets)
    return RuleSeen(rule.definition, sets, rule.handle, rule.expressions, rule.comment)


def _elements(sock: NetlinkSocket, table: str, name: str) -> frozenset[bytes]:
    dumped = _dumped(sock, codec.request(codec.GETSETELEM, codec.text(1, table), codec.text(2, name)), table)
    return frozenset(element.definition for element in dumped)


def _dumped(sock: NetlinkSocket, request: bytes, table: str) -> Iterator[Object]:
    """What a dump says of the table; nothing where what it names has just gone."""
    try:
        for message in sock.dump(request):
            yield from codec.objects_in(message, table)
    except FileNotFoundError:
        return


def merged(reference: Parts, actual: Parts, touched: Iterable[Key]) -> Parts:
    """The reference with what was touched as it is now."""
    parts = dict(reference)
    for key in touched:
        if key in actual:
            parts[key] = actual[key]
        else:
            parts.pop(key, None)
    return parts
