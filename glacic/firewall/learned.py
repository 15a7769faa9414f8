"""Where the roads meet, live: the learned sets in the kernel, kept as the store says.

    apply       changed flows become elements, in batches, each batch one transaction
    reconcile   what is in the kernel becomes what is in the store: the start of a service, and after somebody's reload
    counters    what each element has counted

A set and its lookup are made when the first element of their shape comes. Elements are deleted by adding and then
deleting them in one transaction, so that nothing depends on what was there; a flow that changes sides does so in one
transaction, and at no moment is it on both sides or on none. Where the kernel refuses a batch, somebody has changed the
table: what is there is looked up, sets and lookups are made anew, and the batch is tried once more.

Only one thread may change the sets; any thread may read counters. Refuses to list elements through libnftables, and to
know what a flow is: a key is a tuple, a state is a word.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple, Protocol, TypeVar

from glacic.config.policies import LearningPolicy
from glacic.errors import KernelRefused
from glacic.firewall.claims import FAMILY, TABLE
from glacic.firewall.shapes import (
    Key,
    Shape,
    element_text,
    kernel_key,
    key_from_kernel,
    rewrite_script,
    set_name,
    shape_of,
    shapes_of,
    uses_in,
)

BATCH = 5_000  # elements of one transaction: 20 MB and 35 ms in libnftables, however large the sets are

ALLOWED = "allowed"
REFUSED = frozenset({"denied", "ignored"})  # any other state has no element

T = TypeVar("T")
Use = tuple[Shape, bool]  # a learned set of a policy: its shape, and whether it holds what is allowed
Change = tuple[Key, str | None]


class Runs(Protocol):
    """What is needed of glacic.firewall.nft.Nft."""

    def run(self, script: str) -> None:
        """Run a script as one transaction. Raises KernelRefused."""


class Kernel(Protocol):
    """Reads sets without libnftables; glacic.ctlplane.elements implements it."""

    def names(self) -> list[str]:
        """The names of all sets of our table; none where there is no table. Raises KernelRefused."""

    def elements(self, name: str) -> Iterator[tuple[bytes, int]]:
        """(key as the kernel stores it, packets counted) of each element; none where there is no such set."""


class Reconciled(NamedTuple):
    """How many elements were missing, and how many were in the way."""

    added: int
    removed: int


class LearnedSets:
    """The learned sets of these policies. Nothing is asked of the kernel before the first call."""

    def __init__(self, nft: Runs, kernel: Kernel, policies: Iterable[LearningPolicy]) -> None:
        self._nft = nft
        self._kernel = kernel
        self._settled = False  # whether sets and lookups in the kernel are known to be there
        self._uses: dict[str, set[Use]] = {}  # by policy name, the sets that the kernel had when it was last looked at
        self._take(policies)

    def renew(self, policies: Iterable[LearningPolicy]) -> None:
        """A reload: these policies from now on. The next change begins with what the kernel has of them."""
        self._settled = False
        self._take(policies)

    def shapes(self) -> dict[str, frozenset[Shape]]:
        """By policy name, the shapes of which there is a set in the kernel. Changes nothing. Raises KernelRefused."""
        return {name: frozenset(shape for shape, _ in uses) for name, uses in self._known().items() if uses}

    def apply(self, changes: Sequence[Change]) -> None:
        """Have the kernel follow; of several changes of a flow the last counts. Raises KernelRefused.

        A flow that no packet can have any more (its policy is gone, or names sources otherwise) is left out. After an
        error some batches may be in the kernel: call again with the same changes.
        """
        if not self._settled:
            self._settle()
        last = {key: state for key, state in changes if self._use_of(key) is not None}
        for batch in _batches(last.items()):
            self._apply_batch(batch)

    def reconcile(self, stored: Iterable[Change], policy: str | None = None) -> Reconciled:
        """Make the sets hold what `stored` says, of all policies or of one, and keep the counters of what stays.

        Every lookup is written anew. stored: each flow once. The keys in the kernel are in memory meanwhile, some 150
        bytes each. Raises KernelRefused.
        """
        names = [policy] if policy is not None else list(self._policies)
        self._settle()
        present = {
            (name, use): {raw for raw, _ in self._kernel.elements(set_name(name, *use))}
            for name in names
            for use in self._uses.get(name, ())
        }
        added = 0
        for batch in _batches(self._missing(stored, present)):
            added += len(batch)
            self._apply_batch(batch)
        return Reconciled(added, self._remove(present))

    def lost(self) -> bool:
        """Whether a set that was there is gone: somebody has loaded the table anew. Raises KernelRefused."""
        known = {set_name(name, *use) for name, uses in self._uses.items() for use in uses}
        return bool(known) and not known <= set(self._kernel.names())

    def counters(self) -> Iterator[tuple[Key, int]]:
        """(key, packets) of every element that has counted any, as of this moment. Raises KernelRefused."""
        for name, uses in self._known().items():
            for shape, allowed in uses:
                for raw, packets in self._kernel.elements(set_name(name, shape, allowed)):
                    key = _key(name, shape, raw) if packets else None
                    if key is not None:
                        yield key, packets

    # ---- what is in the kernel

    def _take(self, policies: Iterable[LearningPolicy]) -> None:
        self._policies: dict[str, list[LearningPolicy]] = {}  # by name: the reserved ones come twice
        for policy in policies:
            self._policies.setdefault(policy.name, []).append(policy)
        self._possible = {
            name: {shape for policy in variants for shape in shapes_of(policy)}
            for name, variants in self._policies.items()
        }
        self._uses = {
            name: {use for use in self._uses.get(name, ()) if use[0] in possible}
            for name, possible in self._possible.items()
        }

    def _settle(self) -> None:
        """Take stock, and write every lookup anew: a set may be there without one, after somebody's reload."""
        self._uses = self._known()
        for name, uses in self._uses.items():
            if uses:
                self._make(name, uses)
        self._settled = True

    def _known(self) -> dict[str, set[Use]]:
        """By policy name, the learned sets that the kernel has."""
        names = frozenset(self._kernel.names())
        return {
            name: {use for policy in variants for use in uses_in(policy, names)}
            for name, variants in self._policies.items()
        }

    def _make(self, name: str, uses: Collection[Use]) -> None:
        """The lookups of a policy, exactly these, and their sets."""
        for policy in self._policies.get(name, ()):
            possible = shapes_of(policy)
            self._nft.run(rewrite_script(policy, [use for use in uses if use[0] in possible]))
        self._uses[name] = set(uses)

    # ---- elements

    def _use_of(self, key: Key) -> Shape | None:
        """The shape of a key that some packet can have; None for one that none can."""
        try:
            shape = shape_of(key)
        except ValueError:
            return None
        return shape if shape in self._possible.get(key[0], ()) else None

    def _apply_batch(self, batch: Sequence[Change]) -> None:
        try:
            self._run(batch)
        except KernelRefused:
            self._settle()
            self._run(batch)

    def _run(self, batch: Sequence[Change]) -> None:
        needed: dict[str, set[Use]] = {}
        for key, state in batch:
            side = _side(state)
            if side is not None:
                needed.setdefault(key[0], set()).add((shape_of(key), side))
        for name, uses in needed.items():
            if not uses <= self._uses[name]:
                self._make(name, self._uses[name] | uses)
        script = self._script(batch)
        if script:
            self._nft.run(script)

    def _script(self, batch: Iterable[Change]) -> str:
        """One transaction: out of the sets where a flow does not belong, into the one where it does."""
        leaving: dict[str, list[str]] = {}
        coming: dict[str, list[str]] = {}
        for key, state in batch:
            name, shape, text, side = key[0], shape_of(key), element_text(key), _side(state)
            for allowed in (False, True):
                if allowed is side:
                    coming.setdefault(set_name(name, shape, allowed), []).append(text)
                elif (shape, allowed) in self._uses[name]:
                    leaving.setdefault(set_name(name, shape, allowed), []).append(text)
        lines = [
            line
            for name, texts in leaving.items()
            for line in (_line("add", name, texts), _line("delete", name, texts))
        ]
        lines += [_line("add", name, texts) for name, texts in coming.items()]
        return "".join(lines)

    def _missing(self, stored: Iterable[Change], present: dict[tuple[str, Use], set[bytes]]) -> Iterator[Change]:
        """The flows whose element is not there; what is there as it should is taken out of `present`."""
        for key, state in stored:
            shape, side = self._use_of(key), _side(state)
            if shape is None or side is None:
                continue
            raw = kernel_key(key)
            present.get((key[0], (shape, not side)), set()).discard(raw)  # leaves with the change
            there = present.get((key[0], (shape, side)), set())
            if raw in there:
                there.discard(raw)
            else:
                yield key, state

    def _remove(self, extra: dict[tuple[str, Use], set[bytes]]) -> int:
        removed = 0
        for (name, (shape, allowed)), raws in extra.items():
            keys = (_key(name, shape, raw) for raw in raws)
            texts = (element_text(key) for key in keys if key is not None)
            chosen = set_name(name, shape, allowed)
            for batch in _batches(texts):
                self._nft.run(_line("add", chosen, batch) + _line("delete", chosen, batch))
                removed += len(batch)
        return removed


def _key(name: str, shape: Shape, raw: bytes) -> Key | None:
    """The flow key of an element; None where somebody else made the set, in another shape."""
    try:
        return key_from_kernel(name, shape, raw)
    except ValueError:
        return None


def _side(state: str | None) -> bool | None:
    """In which set a flow of this state is: True allowed, False refused, None neither."""
    return True if state == ALLOWED else False if state in REFUSED else None


def _line(verb: str, name: str, texts: Sequence[str]) -> str:
    return f"{verb} element {FAMILY} {TABLE} {name} {{ {', '.join(texts)} }}\n"


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(islice(rest, BATCH)):
        yield batch
