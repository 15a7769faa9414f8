"""Step 5 of road 2: the flows that outlive the process. Returns Flow, never rows.

Read by many threads (a packet whose flow is not in the cache asks `find`) and by the control process
(`open(read_only=True)`), written by one: writer.py. What is committed here may be older than what the cache knows,
never the other way round.

Refuses to decide anything, and to hold a transaction open between two calls: every list comes in pages.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from sqlalchemy import Select, func, select, tuple_
from sqlalchemy.sql import ColumnElement

from glacic.learning import schema
from glacic.learning import statements as sql
from glacic.learning.cache import Batch, ParsedKey, Written
from glacic.learning.census import TOFU
from glacic.learning.database import Database, Row
from glacic.learning.flow import Flow, FlowKey, FlowState, Transition
from glacic.learning.schema import STATE_CODES, STATES
from glacic.learning.switch import LearningRow, SavedLearning
from glacic.native import road

LEAST_KNOWN = 500_000  # keys that are made room for in any case
PAGE = 5000  # rows read at once by what goes through everything; also what one kernel transaction takes

_FLOW = schema.flow.c
_KEY = (_FLOW.policy, _FLOW.source, _FLOW.protocol, _FLOW.port, _FLOW.destination)
_COLUMNS = (_FLOW.id, *_KEY, _FLOW.state, _FLOW.first_seen, _FLOW.last_seen, _FLOW.packets, _FLOW.origin)
_FILE_MODE = "learning_mode"  # names of settings
_NUMBERS = "policy_numbers"

Elements = list[tuple[FlowKey, FlowState]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowFilter:
    """Which flows to list; None matches everything. Bytes and numbers as in FlowKey.

    text: part of the policy's name (case does not matter), or the hexadecimal digits that a source or destination
    begins with.
    not_seen_since_ns: only flows last seen before that moment.
    """

    policy: str | None = None
    state: FlowState | None = None
    source: bytes | None = None
    protocol: int | None = None
    port: int | None = None
    destination: bytes | None = None
    origin: str | None = None
    text: str | None = None
    not_seen_since_ns: int | None = None


class Enforced(Iterable[tuple[FlowKey, FlowState]]):
    """The flows that the kernel is to enforce, each once, read in pages whenever somebody goes through them.

    Each page is read as of its own moment, and shows what is committed. Whoever keeps the kernel's sets flushes the
    writer first, and then takes on what `on_change` has told since: so the last word is the newest. That is why flows
    with ids above the highest of the beginning may be left out, and a flow cannot come again under a new id.
    """

    def __init__(self, database: Database, policy: str | None) -> None:
        self._database = database
        self._policy = policy

    def __iter__(self) -> Iterator[tuple[FlowKey, FlowState]]:
        for rows in self._everybodys() if self._policy is None else self._ones(self._policy):
            for policy, source, protocol, port, destination, state, _ in rows:
                yield FlowKey(policy, source, protocol, port, destination), STATES[state]

    def _everybodys(self) -> Iterator[list[Row]]:
        """In the order of the table, which is read at a third of the cost of any other order."""
        highest, last = self._database.rows(sql.HIGHEST_ID)[0][0], 0
        while rows := self._database.rows(sql.ENFORCED, (last, highest, PAGE)):
            yield rows
            last = rows[-1][6]

    def _ones(self, policy: str) -> Iterator[list[Row]]:
        last: Row = (b"", 0, 0, b"")
        while rows := self._database.rows(sql.ENFORCED_OF_POLICY, (policy, *last, PAGE)):
            yield rows
            last = rows[-1][1:5]


class Store:
    """The flow database. Every method raises StoreError if the file cannot be read or written."""

    def __init__(self, database: Database, folder: tempfile.TemporaryDirectory[str] | None = None) -> None:
        self._database = database
        self._folder = folder
        self._known: Any = None  # keys that may be in the database, all of them; None: nobody has read them

    @classmethod
    def open(cls, path: Path, *, read_only: bool = False) -> Store:
        """The store in the file `path`, made or brought up to date unless read_only. Raises StoreError."""
        return cls(Database(path, read_only=read_only))

    @classmethod
    def temporary(cls) -> Store:
        """An empty store in a temporary folder, which close() removes."""
        folder = tempfile.TemporaryDirectory(prefix="glacic-")
        return cls(Database(Path(folder.name) / "flows.db", throw_away=True), folder)

    @property
    def path(self) -> Path:
        """The database file."""
        return self._database.path

    @property
    def database(self) -> Database:
        """The file, for who keeps it (ageing.py)."""
        return self._database

    def set_durable(self, durable: bool) -> None:
        """Whether what is committed from now on is on disk when write() returns; else a power cut may undo it."""
        self._database.durable = durable

    @property
    def replaced(self) -> bool:
        """Whether another file has taken the place of the one that was opened."""
        return self._database.replaced

    @property
    def damage(self) -> str:
        """What SQLite said when it met a damaged page, "" as long as it has not."""
        return self._database.damage

    def close(self) -> None:
        """Close the file. No other thread may be using the store any more."""
        self._database.close()
        if self._folder is not None:
            self._folder.cleanup()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- one flow

    def remember(self) -> None:
        """Read every key, so that a new flow is not looked for on disk; where there is a compiled part.

        For whoever is the only one to write this database. A million flows take a second, and 4 MB.
        """
        if road is None:
            return
        known, last_id = road.Known(2 * max(self.count(), LEAST_KNOWN)), 0
        while rows := self._database.rows(sql.KEYS, (last_id, PAGE)):
            for row in rows:
                known.add(row[:5])
            last_id = rows[-1][5]
        self._known = known

    def find(self, key: FlowKey) -> Flow | None:
        """The flow of this key, as committed."""
        if self._known is not None and not self._known.may_have(key):
            return None
        rows = self._database.rows(sql.FIND, key)
        return _flow(rows[0]) if rows else None

    def get(self, flow_id: int) -> Flow | None:
        """The flow of this id."""
        rows = self._database.select(select(*_COLUMNS).where(_FLOW.id == flow_id))
        return _flow(rows[0]) if rows else None

    def transitions(self, key: FlowKey) -> list[Transition]:
        """What became of the flow of this key, oldest first; also of one that has been forgotten."""
        table = schema.transition.c
        query = (
            select(table.before, table.after, table.at, table.who, table.why)
            .where(tuple_(table.policy, table.source, table.protocol, table.port, table.destination) == tuple_(*key))
            .order_by(table.id)
        )
        return [
            Transition(key=key, before=STATES.get(before), after=STATES.get(after), at_ns=at, who=who, why=why)
            for before, after, at, who, why in self._database.select(query)
        ]

    def addresses(self, key: FlowKey) -> list[bytes]:
        """The addresses this flow was seen from, the newest first, at most 16; its own where its source is one."""
        if len(key.source) != schema.MAC_LENGTH:
            return [key.source]
        return [address for (address,) in self._database.rows(sql.ADDRESSES, key)]

    # ---- many flows

    def list(self, wanted: FlowFilter | None = None, *, after_id: int = 0, limit: int = 100) -> list[Flow]:
        """A page of flows in the order they were first written: at most `limit`, with ids above `after_id`."""
        query = select(*_COLUMNS).where(_FLOW.id > after_id).order_by(_FLOW.id).limit(limit)
        return [_flow(row) for row in self._database.select(_filtered(query, wanted))]

    def count(self, wanted: FlowFilter | None = None) -> int:
        """How many flows there are."""
        return int(self._database.select(_filtered(select(func.count()).select_from(schema.flow), wanted))[0][0])

    def counts(self) -> dict[FlowState, int]:
        """How many flows are in each state."""
        counted: dict[int, int] = dict(self._database.select(select(_FLOW.state, func.count()).group_by(_FLOW.state)))
        return {state: counted.get(code, 0) for state, code in STATE_CODES.items()}

    def count_learned(self) -> int:
        """How many flows are allowed because learning was on, and nobody has confirmed them."""
        return int(self._database.select(_learned(select(func.count()).select_from(schema.flow)))[0][0])

    def count_source(self, source: bytes) -> tuple[int, int]:
        """Of one source, in all policies: flows allowed because learning was on, and pending ones."""
        rows = self._database.rows(sql.COUNT_SOURCE, (source, source))
        return rows[0][0], rows[0][1]

    def elements(self, policy: str | None = None) -> Enforced:
        """Every flow that the kernel is to enforce (allowed, denied, ignored), or those of one policy; read anew each
        time it is gone through."""
        return Enforced(self._database, policy)

    def recent(self, limit: int) -> Elements:
        """Enforced flows, those seen last first, at most `limit`."""
        query = select(*_KEY, _FLOW.state).where(_FLOW.state.in_(sql.ENFORCED_STATES))
        rows = self._database.select(query.order_by(_FLOW.last_seen.desc()).limit(limit))
        return [(FlowKey(*row[:5]), STATES[row[5]]) for row in rows]

    def samples(self) -> Elements:
        """One enforced flow for every policy, length of source and destination, protocol and state there is.

        Its parts are each some flow's of that kind, not necessarily the same one's.
        """
        kind = (_FLOW.policy, func.length(_FLOW.source), _FLOW.protocol, func.length(_FLOW.destination), _FLOW.state)
        query = (
            select(
                _FLOW.policy,
                func.min(_FLOW.source),
                _FLOW.protocol,
                func.min(_FLOW.port),
                func.min(_FLOW.destination),
                _FLOW.state,
            )
            .where(_FLOW.state.in_(sql.ENFORCED_STATES))
            .group_by(*kind)
        )
        return [(FlowKey(*row[:5]), STATES[row[5]]) for row in self._database.select(query)]

    # ---- writing: the writer's thread only

    def write(self, batch: Batch) -> None:
        """Commit a batch of changes, all or nothing."""
        if self._known is not None:
            for flow in batch.added:
                self._known.add(flow.key)
        with self._database.transaction() as run:
            run(sql.DELETE_ADDRESSES, batch.deleted)
            run(sql.DELETE_FLOW, batch.deleted)
            run(sql.ADD_FLOW, (_added_row(flow) for flow in batch.added))
            run(sql.CHANGE_FLOW, (_changed_row(flow) for flow in batch.changed))
            run(sql.SEE_FLOW, ((*_bound(seen.key), seen.last_seen_ns, seen.packets) for seen in batch.seen))
            run(sql.ADD_ADDRESS, ((*_bound(key), _blob(address), at_ns) for key, address, at_ns in batch.addresses))
            crowded = {key for key, _, _ in batch.addresses} - {flow.key for flow in batch.added}
            run(sql.PRUNE_ADDRESSES, ((*key, *key) for key in crowded))
            run(sql.ADD_TRANSITION, (_transition_row(transition) for transition in batch.transitions))

    def add_kernel_counts(self, counts: Iterable[tuple[ParsedKey, int]], now_ns: int) -> None:
        """Take over the counters of learned elements, as read from the kernel: (key, packets since the element was
        made).

        What is more than at the last reading is added; less means that the element was made anew, and all of it is
        added.
        """
        with self._database.transaction() as run:
            run(sql.ADD_KERNEL_COUNT, ((*_bound(key), packets, now_ns) for key, packets in counts))

    def reset_kernel_counts(self) -> None:
        """Every element was made anew (a fresh table): the next reading counts from 0."""
        with self._database.transaction() as run:
            run("UPDATE flow SET kernel_packets = 0 WHERE kernel_packets > 0", [()])

    def save_learning(self, saved: SavedLearning) -> None:
        """Keep what LearningSwitch.saved() gives."""
        with self._database.transaction() as run:
            run("DELETE FROM learning", [()])
            run(sql.ADD_LEARNING, ((row.policy, row.on, row.since_ns, row.until_ns, row.who) for row in saved.rows))
            run(sql.SET, [(_FILE_MODE, json.dumps(saved.file_mode))])

    def save_numbers(self, numbers: Mapping[str, int]) -> None:
        """Keep the numbers of the policies in force (label -> number, config/policies.py)."""
        with self._database.transaction() as run:
            run(sql.SET, [(_NUMBERS, json.dumps(dict(numbers)))])

    # ---- small things

    def learning(self) -> SavedLearning | None:
        """What save_learning kept; None in a new database."""
        file_mode = self._setting(_FILE_MODE)
        if file_mode is None:
            return None
        rows = self._database.select(select(*schema.learning.c).order_by(schema.learning.c.policy))
        return SavedLearning(
            bool(file_mode),
            tuple(LearningRow(policy, bool(on), since, until, who) for policy, on, since, until, who in rows),
        )

    def numbers(self) -> dict[str, int]:
        """What save_numbers kept; empty in a new database."""
        return dict(self._setting(_NUMBERS) or {})

    def _setting(self, name: str) -> Any:
        rows = self._database.select(select(schema.setting.c.value).where(schema.setting.c.key == name))
        return json.loads(rows[0][0]) if rows else None


def _flow(row: Row) -> Flow:
    flow_id, policy, source, protocol, port, destination, state, first_seen, last_seen, packets, origin = row
    return Flow(
        key=FlowKey(policy, source, protocol, port, destination),
        state=STATES[state],
        first_seen_ns=first_seen,
        last_seen_ns=last_seen,
        packets=packets,
        origin=origin,
        id=flow_id,
    )


_blob = (
    bytearray  # the driver binds it at once, and looks for an adapter of bytes, each time for longer than that takes
)


def _bound(key: ParsedKey) -> Row:
    policy, source, protocol, port, destination = key
    return policy, _blob(source), protocol, port, _blob(destination)


def _added_row(flow: Written) -> Row:
    key, state, first_seen_ns, last_seen_ns, packets, origin = flow
    return *_bound(key), STATE_CODES[state], first_seen_ns, last_seen_ns, packets, origin


def _changed_row(flow: Written) -> Row:
    return STATE_CODES[flow.state], flow.origin, flow.last_seen_ns, flow.packets, *flow.key


def _transition_row(transition: Transition) -> Row:
    before, after = transition.before, transition.after
    return (
        *_bound(transition.key),
        None if before is None else STATE_CODES[before],
        None if after is None else STATE_CODES[after],
        transition.at_ns,
        transition.who,
        str(transition.why),  # not the name of a reason, which an adapter would be looked for, either
    )


def _filtered(query: Select[Any], wanted: FlowFilter | None) -> Select[Any]:
    if wanted is None:
        return query
    exact: tuple[tuple[ColumnElement[Any], Any], ...] = (
        (_FLOW.policy, wanted.policy),
        (_FLOW.state, None if wanted.state is None else STATE_CODES[wanted.state]),
        (_FLOW.source, wanted.source),
        (_FLOW.protocol, wanted.protocol),
        (_FLOW.port, wanted.port),
        (_FLOW.destination, wanted.destination),
        (_FLOW.origin, wanted.origin),
    )
    for column, value in exact:
        if value is not None:
            query = query.where(column == value)
    if wanted.not_seen_since_ns is not None:
        query = query.where(_FLOW.last_seen < wanted.not_seen_since_ns)
    if wanted.text is not None:
        query = query.where(_matches(wanted.text))
    return query


def _matches(text: str) -> ColumnElement[bool]:
    found = _FLOW.policy.icontains(text, autoescape=True)
    digits = text.replace(":", "").upper()
    if digits and all(digit in "0123456789ABCDEF" for digit in digits):
        for column in (_FLOW.source, _FLOW.destination):
            found |= func.hex(column).startswith(digits)
    return found


def _learned(query: Select[Any]) -> Select[Any]:
    return query.where(_FLOW.state == STATE_CODES[FlowState.ALLOWED], _FLOW.origin == TOFU)
