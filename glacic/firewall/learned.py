"""Where the roads meet, live: the learned sets in the kernel, kept as the store says.

    apply       changed flows become elements, in batches, each batch one transaction
    reconcile   what is in the kernel becomes what is in the store: the start of a service, and after somebody's reload
    counters    what each element has counted

A set and its lookup are made when the first element of their shape comes. Elements are deleted by adding and then
deleting them in one transaction, so that nothing depends on what was there; a flow that changes sides does so in one
transaction, and at no moment is it on both sides or on none. Where the kernel refuses a batch, somebody has changed the
table: what is there is looked up, sets and lookups are made anew, and the batch is tried once more, by way of nft: five
times slower, but it says what is wrong, and where.

A reconcile adds everything that is stored, which changes nothing where it is there already, and then compares numbers:
a set that holds all that it should, and as many elements as that are, holds nothing else. Only a set with something in
the way is gone through; it is filled anew in one transaction, so no flow is without its element meanwhile. A kernel
before 6.16 does not say how many elements a set has: there every key is read and compared. Until it is compared, a flow
whose side has changed may be on both; the refused sets are looked up first.

Only one thread may change the sets; any thread may read counters. Refuses to list elements through libnftables, and to
know what a flow is: a key is a tuple, a state is a word.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple, Protocol, TypeVar

from glacic.config.policies import LearningPolicy
from glacic.errors import KernelRefused
from glacic.firewall.claims import FAMILY, TABLE
from glacic.firewall.shapes import (
    Key,
    Shape,
    element_text,
    key_from_kernel,
    key_length,
    packer,
    rewrite_script,
    set_name,
    shape_of,
    shapes_of,
    unpacker,
    uses_in,
)

BATCH = 5_000  # elements of one transaction: 8 ms in the kernel, and 35 where nft is needed, which then takes 20 MB

ALLOWED = "allowed"
REFUSED = frozenset({"denied", "ignored"})  # any other state has no element
_SIDES = {ALLOWED: True, **dict.fromkeys(REFUSED, False)}  # in which set a flow of this state is

T = TypeVar("T")
Use = tuple[Shape, bool]  # a learned set of a policy: its shape, and whether it holds what is allowed
Change = tuple[Key, str | None]


class Runs(Protocol):
    """What is needed of glacic.firewall.nft.Nft."""

    def run(self, script: str) -> None:
        """Run a script as one transaction. Raises KernelRefused."""


class Kernel(Protocol):
    """Elements without libnftables; glacic.ctlplane.elements implements it. Keys are as the kernel stores them. Every
    method raises KernelRefused."""

    def sizes(self) -> Mapping[str, int | None]:
        """Every set of our table, and how many elements it has, None where the kernel does not say; none where there
        is no table."""

    def elements(self, name: str) -> Iterator[tuple[bytes, int]]:
        """(key, packets counted) of each element; none where there is no such set."""

    def change(self, leaving: Mapping[str, Sequence[bytes]], coming: Mapping[str, Sequence[bytes]]) -> None:
        """One transaction: by set name, keys whose elements go, if they are there, and keys whose elements come, if
        they are not."""

    def refill(self, name: str, keys: Iterable[bytes]) -> None:
        """One transaction: the set holds exactly these keys, and they keep their counters."""


class Reconciled(NamedTuple):
    """How many elements were missing, and how many were in the way (of a flow whose side has changed, the old one)."""

    added: int
    removed: int


class _Place:
    """Where flows of one policy and one kind of key belong: all that is the same for every one of them."""

    __slots__ = ("names", "pack", "policy", "shape")

    def __init__(self, policy: str, shape: Shape) -> None:
        self.policy = policy
        self.shape = shape
        self.names = {allowed: set_name(policy, shape, allowed) for allowed in (False, True)}
        self.pack = packer(shape)


_Kind = tuple[str, int, int, int]  # of a key: policy, length of the source, protocol, length of the destination
_Groups = dict[tuple[_Place, bool | None], list[bytes]]  # by place and side, the kernel's keys
_Elements = dict[str, list[bytes]]  # by name of a set


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
        for batch in _batches(dict(changes).items()):
            self._put(self._grouped(batch), moving=True)

    def reconcile(self, stored: Iterable[Change], policy: str | None = None) -> Reconciled:
        """Make the sets hold what `stored` says, of all policies or of one, and keep the counters of what stays.

        Every lookup is written anew. stored: each flow once, since numbers are compared; gone through again where
        something is in the way, so an iterator is held in memory. Where sets have to be filled anew, their keys are in
        memory too, 40 to 120 bytes each with the message that they go in, or some 150 where the kernel does not say how
        many elements a set has. Raises KernelRefused.
        """
        names = [policy] if policy is not None else list(self._policies)
        again = list(stored) if isinstance(stored, Iterator) else stored
        self._settle()
        before = self._sizes(names)
        if None in before.values():
            return self._compare(again, names)
        wanted: Counter[tuple[str, Use]] = Counter()
        for batch in _batches(again):
            groups = self._grouped((key, state) for key, state in batch if state in _SIDES)
            self._put(groups, moving=False)
            for (place, side), raws in groups.items():
                if side is not None:
                    wanted[place.policy, (place.shape, side)] += len(raws)
        after = self._sizes(names)
        if None in after.values():  # and none was there before: what has been made just now holds nothing else
            return Reconciled(sum(wanted.values()), 0)
        wrong = {at: size or 0 for at, size in after.items() if size != wanted[at]}
        if wrong:
            self._refill(wrong, again)
        added = sum(size or 0 for size in after.values()) - sum(size or 0 for size in before.values())
        return Reconciled(added, sum(max(size - wanted[at], 0) for at, size in wrong.items()))

    def differing(self, stored: Iterable[Change]) -> dict[str, tuple[int, int]]:
        """Set name -> (elements in the kernel, flows that belong there) where the two differ; changes nothing.

        Nothing where the kernel does not say how many elements a set has. Raises KernelRefused.
        """
        wanted: Counter[str] = Counter()
        for key, state in stored:
            place, side = self._place_of(key), _SIDES.get(state) if state else None
            if place is not None and side is not None:
                wanted[place.names[side]] += 1
        sizes = self._kernel.sizes()
        known = {set_name(name, *use) for name, uses in self._uses.items() for use in uses}
        return {
            name: (size, wanted[name])
            for name, size in sizes.items()
            if size is not None and name in known and size != wanted[name]
        }

    def lost(self) -> bool:
        """Whether a set that was there is gone: somebody has loaded the table anew. Raises KernelRefused."""
        known = {set_name(name, *use) for name, uses in self._uses.items() for use in uses}
        return bool(known) and not known <= self._kernel.sizes().keys()

    def counters(self) -> Iterator[tuple[Key, int]]:
        """(key, packets) of every element that has counted any, as of this moment. Raises KernelRefused."""
        for name, uses in self._known().items():
            for shape, allowed in uses:
                read, length = unpacker(name, shape), key_length(shape)
                for raw, packets in self._kernel.elements(set_name(name, shape, allowed)):
                    if packets and len(raw) == length:  # else somebody else made the set, in another shape
                        yield read(raw), packets

    def present(self) -> Iterator[tuple[Key, bool]]:
        """(key, whether it is allowed) of every element that the kernel has now. Raises KernelRefused."""
        for name, uses in self._known().items():
            for shape, allowed in sorted(uses):
                read, length = unpacker(name, shape), key_length(shape)
                for raw, _ in self._kernel.elements(set_name(name, shape, allowed)):
                    if len(raw) == length:
                        yield read(raw), allowed

    # ---- what is in the kernel

    def _take(self, policies: Iterable[LearningPolicy]) -> None:
        self._policies: dict[str, list[LearningPolicy]] = {}  # by name: the reserved ones come twice
        for policy in policies:
            self._policies.setdefault(policy.name, []).append(policy)
        self._possible = {
            name: {shape for policy in variants for shape in shapes_of(policy)}
            for name, variants in self._policies.items()
        }
        self._places: dict[_Kind, _Place | None] = {}  # None: no packet can have such a key
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
        names = frozenset(self._kernel.sizes())
        return {
            name: {use for policy in variants for use in uses_in(policy, names)}
            for name, variants in self._policies.items()
        }

    def _sizes(self, names: Iterable[str]) -> dict[tuple[str, Use], int | None]:
        """How many elements each known set of these policies has in the kernel; None where it does not say."""
        sizes = self._kernel.sizes()
        return {(name, use): sizes.get(set_name(name, *use), 0) for name in names for use in self._uses.get(name, ())}

    def _make(self, name: str, uses: Collection[Use]) -> None:
        """The lookups of a policy, exactly these, and their sets."""
        for policy in self._policies.get(name, ()):
            possible = shapes_of(policy)
            self._nft.run(rewrite_script(policy, [use for use in uses if use[0] in possible]))
        self._uses[name] = set(uses)

    # ---- elements

    def _place_of(self, key: Key) -> _Place | None:
        """Where a key belongs that some packet can have; None for one that none can."""
        kind = (key[0], len(key[1]), key[2], len(key[4]))
        try:
            return self._places[kind]
        except KeyError:
            pass
        try:
            shape = shape_of(key)
        except ValueError:
            shape = None
        place = _Place(key[0], shape) if shape is not None and shape in self._possible.get(key[0], ()) else None
        self._places[kind] = place
        return place

    def _grouped(self, batch: Iterable[Change]) -> _Groups:
        """The flows that some packet can have, by where they belong."""
        groups: _Groups = defaultdict(list)
        for key, state in batch:
            place = self._place_of(key)
            if place is not None:
                groups[place, _SIDES.get(state)].append(place.pack(key))  # type: ignore[arg-type]  # None is no state
        return groups

    def _put(self, groups: _Groups, *, moving: bool) -> None:
        """One transaction: flows go into the sets where they belong and, `moving`, out of all others."""
        try:
            self._run(groups, moving, self._kernel.change)
        except KernelRefused:
            self._settle()
            self._run(groups, moving, self._change_by_nft)

    def _run(self, groups: _Groups, moving: bool, change: Callable[[_Elements, _Elements], None]) -> None:
        needed: dict[str, set[Use]] = {}
        for place, side in groups:
            if side is not None:
                needed.setdefault(place.policy, set()).add((place.shape, side))
        for name, uses in needed.items():
            if not uses <= self._uses[name]:
                self._make(name, self._uses[name] | uses)
        leaving: _Elements = {}
        coming: _Elements = {}
        for (place, side), raws in groups.items():
            for allowed, name in place.names.items():
                if allowed is side:
                    coming.setdefault(name, []).extend(raws)
                elif moving and (place.shape, allowed) in self._uses[place.policy]:
                    leaving.setdefault(name, []).extend(raws)
        if leaving or coming:
            change(leaving, coming)

    def _change_by_nft(self, leaving: _Elements, coming: _Elements) -> None:
        """What Kernel.change does, as a script: nft says what the kernel does not take, and in which line."""
        texts = {set_name(name, *use): (name, use[0]) for name, uses in self._uses.items() for use in uses}

        def line(verb: str, name: str, raws: Sequence[bytes]) -> str:
            elements = ", ".join(element_text(key_from_kernel(*texts[name], raw)) for raw in raws)
            return f"{verb} element {FAMILY} {TABLE} {name} {{ {elements} }}\n"

        out = (line(verb, name, raws) for name, raws in leaving.items() for verb in ("add", "delete"))
        self._nft.run("".join([*out, *(line("add", name, raws) for name, raws in coming.items())]))

    # ---- what is in the way

    def _refill(self, sets: Collection[tuple[str, Use]], stored: Iterable[Change]) -> None:
        """These sets hold what is stored and nothing else."""
        raws = {at: bytearray() for at in sets}  # a list of as many keys would have four times their size
        for key, state in stored:
            place, side = self._place_of(key), _SIDES.get(state) if state else None
            if place is not None and side is not None and (place.policy, (place.shape, side)) in raws:
                raws[place.policy, (place.shape, side)] += place.pack(key)
        for (name, (shape, allowed)), keys in raws.items():
            size = key_length(shape)
            each = (bytes(keys[at : at + size]) for at in range(0, len(keys), size))
            self._kernel.refill(set_name(name, shape, allowed), each)

    def _compare(self, stored: Iterable[Change], names: Iterable[str]) -> Reconciled:
        """What a reconcile does where the kernel tells no numbers: read every key, and find out what is missing and
        what is in the way."""
        present = {
            (name, use): {raw for raw, _ in self._kernel.elements(set_name(name, *use))}
            for name in names
            for use in self._uses.get(name, ())
        }
        added = 0
        for batch in _batches(self._missing(stored, present)):
            added += len(batch)
            self._put(self._grouped(batch), moving=True)
        removed = 0
        for (name, use), raws in present.items():
            for part in _batches(raws):
                self._kernel.change({set_name(name, *use): part}, {})
                removed += len(part)
        return Reconciled(added, removed)

    def _missing(self, stored: Iterable[Change], present: dict[tuple[str, Use], set[bytes]]) -> Iterator[Change]:
        """The flows whose element is not there; what is there as it should is taken out of `present`."""
        for key, state in stored:
            place, side = self._place_of(key), _SIDES.get(state) if state else None
            if place is None or side is None:
                continue
            raw = place.pack(key)
            present.get((place.policy, (place.shape, not side)), set()).discard(raw)  # leaves with the change
            there = present.get((place.policy, (place.shape, side)), set())
            if raw in there:
                there.discard(raw)
            else:
                yield key, state


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(islice(rest, BATCH)):
        yield batch
