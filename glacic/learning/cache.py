"""Step 4 of road 2: the flows seen last, and every change that is not committed yet. What all packet threads share.

Two locks, always taken in this order:

    order  held for the whole of a change of a flow's state, and for the look into the database before it: changes
           happen one after the other, and are told to the kernel in that order. Never held during a write to disk.
    _lock  held for a few dictionary operations. A packet whose flow is cached takes only this one.

A flow is an Entry, and there is one Entry for it wherever it is found (kept.py), so two threads never see two states.
What a packet changes (when it was seen, how many) is added up in the Entry; the writer takes it from there: take()
hands out a batch of everything that has changed, settle() says that it is committed. A forgotten flow is an Entry
without a state until then.

Where the compiled part is built (glacic/native), its table stands in front: a flow of which a packet was found here is
put into it, and packets of it are answered there until anything about it changes. Two things hold at every moment in
which nobody has `_lock`: what is in the table is in the LRU too, with the same state; and whoever looks at an Entry's
counts has collected the table's share first.

When the writer cannot write, changes pile up. At MAX_UNWRITTEN a new one is refused (StoreError); known flows still get
their verdicts, and their counts wait in their entries, for as long as these are cached.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from glacic.errors import StoreError
from glacic.learning.census import Census
from glacic.learning.flow import Flow, FlowKey, FlowState, Jump, Transition
from glacic.learning.kept import Kept
from glacic.native import road

MAX_UNWRITTEN = 65_536  # changed flows held for the writer: a few seconds of the fastest learning, some 30 MB
MAX_ADDRESSES = 16  # remembered per flow, the newest

_CHUNK = 64  # entries copied for the writer under one lock: some 50 us that a packet may have to wait

ParsedKey = tuple[str, bytes, int, int, bytes]  # a FlowKey in all but its type; a plain tuple is made five times faster

# What states are called in the table (enum state in glacic/native/road.h).
TABLE_STATES = {FlowState.PENDING: 1, FlowState.ALLOWED: 2, FlowState.DENIED: 3, FlowState.IGNORED: 4}


class Written(NamedTuple):
    """A flow whose state is to be written. packets: since it was written last."""

    key: FlowKey
    state: FlowState
    first_seen_ns: int
    last_seen_ns: int
    packets: int
    origin: str


class Seen(NamedTuple):
    """A flow of which only more packets were seen."""

    key: FlowKey
    last_seen_ns: int
    packets: int


@dataclass(slots=True)
class Batch:
    """Everything that changed up to one moment, for one transaction, in the order of the fields."""

    deleted: list[FlowKey] = field(default_factory=list)
    added: list[Written] = field(default_factory=list)
    changed: list[Written] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    addresses: list[tuple[FlowKey, bytes, int]] = field(default_factory=list)  # (flow, address, when)
    transitions: list[Transition] = field(default_factory=list)


class Entry:
    """A flow in the cache. state None: forgotten, and its row not deleted yet. Guarded by the cache's lock."""

    __slots__ = (
        "added",
        "addresses",
        "batch",
        "changed",
        "first_seen_ns",
        "key",
        "last_seen_ns",
        "origin",
        "packets",
        "replaces",
        "state",
        "state_batch",
        "unsaved",
    )

    def __init__(
        self, key: FlowKey, state: FlowState | None, origin: str, first_seen_ns: int, last_seen_ns: int
    ) -> None:
        self.key = key
        self.state = state
        self.origin = origin
        self.first_seen_ns = first_seen_ns
        self.last_seen_ns = last_seen_ns
        self.packets = 0  # seen and not handed to the writer yet
        self.addresses: tuple[bytes, ...] = ()  # noted by this entry
        self.unsaved: tuple[tuple[bytes, int], ...] = ()  # those of them that the writer does not have yet, and when
        self.batch = 0  # the last batch that this entry is part of
        self.state_batch = 0  # the batch that its state is committed with
        self.added = False  # has no row yet
        self.changed = False  # its row has another state
        self.replaces = False  # its row, if any, is that of a forgotten flow


class FlowCache:
    """The flow cache of one service, shared by all its packet threads and by every Engine that it has in its life."""

    def __init__(self, capacity: int, census: Census, *, compiled: bool | None = None) -> None:
        """compiled: whether to have a table in front (None: where it is built)."""
        if compiled and road is None:
            raise ValueError("the compiled part of glacic is not built here")
        self.order = threading.Lock()
        self.census = census
        self.table = None if road is None or compiled is False else road.Table(capacity)
        self.misses = 0
        self._hits = 0
        self._lock = threading.Lock()
        self._flows: Kept[FlowKey | ParsedKey, Entry] = Kept(capacity, None if self.table is None else self._take_back)
        self._batch = 1
        self._writing_batch = 0  # the batch that was taken last
        self._committed = 0  # the last batch that is committed
        self.durable = False  # whether a flow whose state is not committed counts as not cached
        self._transitions: list[Transition] = []

    # ---- without `order`

    def hit(self, key: FlowKey | ParsedKey, address: bytes | None, now_ns: int) -> FlowState | None:
        """The state of the flow a packet belongs to, and the packet counted; None if it has to be looked up.

        address: where the packet came from, if the flow's source is a MAC.
        """
        with self._lock:
            lru = self._flows.lru
            if key in lru:
                entry = lru[key]
            else:
                found = self._flows.find_unwritten(key)
                if found is None or found.state is None:
                    self.misses += 1
                    return None
                entry = lru[key] = found
            if self.durable and entry.state_batch > self._committed:
                self.misses += 1
                return None
            self._hits += 1
            entry.packets += 1
            entry.last_seen_ns = now_ns
            if entry.batch != self._batch:
                self._mark(entry)
            if address is not None and address not in entry.addresses:
                _note_address(entry, address, now_ns)
            state = entry.state
            if self.table is not None and state is not None:
                self.table.put(key, entry, TABLE_STATES[state], entry.addresses)
            return state

    @property
    def hits(self) -> int:
        """Packets of flows that were cached."""
        return self._hits if self.table is None else self._hits + int(self.table.hits)

    @property
    def size(self) -> int:
        """Flows that are cached."""
        return len(self._flows.lru)

    @property
    def capacity(self) -> int:
        """Flows that can be cached."""
        return int(self._flows.lru.maxsize)

    @property
    def unwritten(self) -> int:
        """Flows with changes that are not committed."""
        return self._flows.unwritten

    def resize(self, capacity: int) -> None:
        """Make room for more or fewer flows."""
        if capacity != self.capacity:
            with self._lock:
                if self.table is not None:
                    for key in list(self._flows.lru):
                        packets, last_seen_ns = self.table.remove(key)
                        if packets:
                            self._add_up(self._flows.lru[key], packets, last_seen_ns)
                    self.table.resize(capacity)
                self._flows.resize(capacity)

    # ---- under `order`: one change at a time

    def find(self, key: FlowKey) -> Entry | None:
        """The entry of this key; None means that the database knows all about it. Its fields are for reading."""
        with self._lock:
            entry = self._flows.find(key)
            if entry is not None and self.table is not None:
                self._add_up(entry, *self.table.collect(key))
            return entry

    def check_room(self) -> None:
        """Raises StoreError if the writer is too far behind for a flow that only traffic asks for."""
        if max(self._flows.unwritten, len(self._transitions)) >= MAX_UNWRITTEN:
            raise StoreError("the flow database cannot be written, and no more changes can be held in memory")

    def committed(self, entry: Entry) -> bool:
        """Whether the state of this entry is in the database."""
        return entry.state_batch <= self._committed

    def load(self, flow: Flow) -> Entry:
        """Put in a flow as the database has it."""
        entry = Entry(flow.key, flow.state, flow.origin, flow.first_seen_ns, flow.last_seen_ns)
        with self._lock:
            self._flows.lru[flow.key] = entry
        return entry

    def note(self, entry: Entry, address: bytes | None, now_ns: int) -> None:
        """Count a packet of this flow, without counting a hit."""
        with self._lock:
            entry.packets += 1
            entry.last_seen_ns = now_ns
            self._flows.lru[entry.key] = entry
            self._mark(entry)
            if address is not None and address not in entry.addresses:
                _note_address(entry, address, now_ns)

    def add(self, transition: Transition, origin: str, packets: int = 0, address: bytes | None = None) -> Entry:
        """A new flow, in the state that the transition leads to.

        packets: that have been seen of it; address: where they came from, if the flow's source is a MAC.
        """
        if transition.after is None:
            raise ValueError("a flow is added in a state")
        key, now_ns = transition.key, transition.at_ns
        entry = Entry(key, transition.after, origin, now_ns, now_ns)
        entry.added = True
        entry.packets = packets
        if address is not None:
            _note_address(entry, address, now_ns)
        with self._lock:
            entry.replaces = key in self._flows.changed
            self._flows.lru[key] = entry
            self._keep_state(entry)
            self._transitions.append(transition)
        return entry

    def change(self, entry: Entry, transition: Transition, origin: str) -> None:
        """Another state for a known flow; after None, forget it."""
        key = entry.key
        with self._lock:
            self._take_back(entry)
            if transition.after is None:
                self._flows.lru.pop(key, None)
                self._keep_state(Entry(key, None, "", 0, 0))
            else:
                entry.state = transition.after
                entry.origin = origin
                entry.changed = True
                self._keep_state(entry)
            self._transitions.append(transition)

    def move_pending(self, jump: Jump) -> None:
        """The clock was set: pending flows were seen as long ago as before."""
        with self._lock:
            held = (*self._flows.lru.values(), *self._flows.changed.values(), *self._flows.writing.values())
            for entry in {id(entry): entry for entry in held}.values():
                if entry.state is FlowState.PENDING and jump.moves(entry.last_seen_ns):
                    entry.first_seen_ns += jump.by_ns
                    entry.last_seen_ns += jump.by_ns

    # ---- the writer's

    def take(self) -> Batch | None:
        """Everything that has changed, None if nothing has.

        The caller commits it and calls settle(), before it calls take() again.
        """
        self._collect()
        with self.order, self._lock:
            if not self._flows.changed and not self._transitions:
                return None
            entries = self._flows.swap()
            self.census.swap()
            batch = Batch(transitions=self._transitions)
            self._transitions = []
            self._writing_batch = self._batch
            self._batch += 1
        remaining = iter(entries.values())
        while chunk := list(islice(remaining, _CHUNK)):
            with self._lock:
                for entry in chunk:
                    _copy(entry, batch)
        return batch

    def settle(self) -> None:
        """The batch that was taken is committed."""
        with self.order, self._lock:
            self._flows.settle()
            self.census.settle()
            self._committed = self._writing_batch

    # ---- the table in front

    def _collect(self) -> None:
        """What the table has counted, a few flows under one lock. A flow that it has answered for counts as used."""
        drained = self.table is not None
        while drained:
            with self._lock:
                drained = self._collect_some()

    def _collect_some(self) -> bool:
        assert self.table is not None  # noqa: S101 - the only caller has looked
        rows = self.table.drain()
        for entry, packets, last_seen_ns in rows:
            self._flows.lru[entry.key] = entry
            self._add_up(entry, packets, last_seen_ns)
        return bool(rows)

    def _take_back(self, entry: Entry) -> None:
        """No packet of this flow is answered in the table any more."""
        if self.table is not None:
            self._add_up(entry, *self.table.remove(entry.key))

    def _add_up(self, entry: Entry, packets: int, last_seen_ns: int) -> None:
        if packets:
            entry.packets += packets
            entry.last_seen_ns = max(entry.last_seen_ns, last_seen_ns)
            self._mark(entry)

    # ---- below

    def _mark(self, entry: Entry) -> None:
        """Make the entry part of the next batch, if there is room."""
        if entry.batch != self._batch and self._flows.unwritten < MAX_UNWRITTEN:
            self._keep(entry)

    def _keep_state(self, entry: Entry) -> None:
        entry.state_batch = self._batch
        self._keep(entry)

    def _keep(self, entry: Entry) -> None:
        entry.batch = self._batch
        self._flows.changed[entry.key] = entry


def _note_address(entry: Entry, address: bytes, now_ns: int) -> None:
    entry.addresses = (*entry.addresses, address)[-MAX_ADDRESSES:]
    entry.unsaved = (*entry.unsaved, (address, now_ns))[-MAX_ADDRESSES:]


def _copy(entry: Entry, batch: Batch) -> None:
    """Move what has changed in an entry into the batch."""
    if entry.state is None:
        batch.deleted.append(entry.key)
        return
    if entry.replaces:
        batch.deleted.append(entry.key)
    if entry.added or entry.changed:
        written = Written(entry.key, entry.state, entry.first_seen_ns, entry.last_seen_ns, entry.packets, entry.origin)
        (batch.added if entry.added else batch.changed).append(written)
    elif entry.packets:
        batch.seen.append(Seen(entry.key, entry.last_seen_ns, entry.packets))
    batch.addresses += [(entry.key, address, seen_ns) for address, seen_ns in entry.unsaved]
    entry.packets = 0
    entry.unsaved = ()
    entry.added = entry.changed = entry.replaces = False
