"""Road 1: what the kernel is to hold, as frozen values: one table of sets, counters, chains and rules.

compile.py makes these, render.py writes them down. Refuses to be text: a rule's statement is the only nft text in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

_PRIORITIES = {
    "raw": -300,
    "dstnat": -100,
    "filter": 0,
    "srcnat": 100,
}  # nft(8), "standard priority names", of family inet


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `statement`: nft text, of several lines where it holds a long set.

    note: a comment for the reader of the script, above the rule. apart: an empty line sets it off, as a note does.
    """

    statement: str
    note: str = ""
    apart: bool = False


@dataclass(frozen=True, slots=True)
class Hook:
    """Where a base chain hangs. priority: nft text such as `filter + 10`. policy: `accept` or `drop`."""

    type: str
    hook: str
    priority: str
    policy: str

    @property
    def place(self) -> tuple[str, str, int]:
        """(type, hook, priority as a number): what the kernel does not let anybody change in a chain that is there."""
        word, _, offset = self.priority.partition(" + ")
        return self.type, self.hook, _PRIORITIES[word] + int(offset or 0)

    def __str__(self) -> str:
        return f"type {self.type} hook {self.hook} priority {self.priority}; policy {self.policy};"


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain; a base chain where it has a hook."""

    name: str
    rules: tuple[Rule, ...] = ()
    hook: Hook | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Set:
    """A set. `spec`: nft text of its properties (`typeof ...; counter;`), `elements`: nft text of each.

    kept: its elements come from elsewhere (learned flows, what sources have used up) and outlive a new ruleset.
    Everything else about a set is defined anew each time.
    """

    name: str
    spec: str
    elements: tuple[str, ...] = ()
    kept: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class Counter:
    """A named counter. It keeps its value when the ruleset is replaced."""

    name: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Flowtable:
    """A flow table: connections in it go from one of its devices to another past all chains. Names may end in `*`."""

    name: str
    devices: tuple[str, ...]
    note: str = ""


Part = Set | Counter | Flowtable | Chain


@dataclass(frozen=True, slots=True)
class Ruleset:
    """The whole table, in the order in which a reader meets it: `parts` follow the packet's road."""

    parts: tuple[Part, ...]

    def chains(self) -> Iterator[Chain]:
        """The chains, in order."""
        return (part for part in self.parts if isinstance(part, Chain))

    def sets(self) -> Iterator[Set]:
        """The sets, in order."""
        return (part for part in self.parts if isinstance(part, Set))

    def counters(self) -> Iterator[Counter]:
        """The named counters, in order."""
        return (part for part in self.parts if isinstance(part, Counter))

    def flowtables(self) -> Iterator[Flowtable]:
        """The flow tables, in order."""
        return (part for part in self.parts if isinstance(part, Flowtable))


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a kernel's table consists of, by name. Elements and rules are not in it: sets can be huge."""

    chains: frozenset[str] = frozenset()
    sets: frozenset[str] = frozenset()
    counters: frozenset[str] = frozenset()
    flowtables: frozenset[str] = frozenset()
    hooks: Mapping[str, tuple[str, str, int] | None] = field(
        default_factory=dict, compare=False
    )  # by chain: Hook.place
