"""Beside road 2: what the flow database forgets, and what it does where the clock was set. The writer's thread only.

    prune_transitions   history: of every flow the last TRANSITIONS changes stay; of a flow that is not known any more,
                        those since a given moment
    move_pending        pending flows were seen as long ago as before, and not in a future that never comes

Pending flows themselves are forgotten by the engine (Engine.expire): packets and the kernel must hear of it. Refuses to
read a clock.
"""

# ruff: noqa: S608 -- what is put into the texts are constants of this program

from __future__ import annotations

from glacic.learning.database import Database
from glacic.learning.flow import FlowState, Jump
from glacic.learning.schema import STATE_CODES

TRANSITIONS = 32  # changes remembered of one flow, the newest
PAGE = 5000  # changes looked at in one transaction: 20 ms

_HIGHEST = 'SELECT coalesce(max(id), 0) FROM "transition"'

_SAME_FLOW = (
    "policy = old.policy AND source = old.source AND protocol = old.protocol AND port = old.port"
    " AND destination = old.destination"
)

# values: the first id and the last, how many newer ones a flow keeps, the moment before which those of unknown flows go
_PRUNE = f"""
DELETE FROM "transition" WHERE id IN (
    SELECT id FROM "transition" AS old WHERE id BETWEEN ? AND ? AND (
        EXISTS (SELECT 1 FROM "transition" WHERE {_SAME_FLOW} AND id > old.id LIMIT 1 OFFSET ?)
        OR (at < ? AND NOT EXISTS (SELECT 1 FROM flow WHERE {_SAME_FLOW}))))"""

# values: nanoseconds, twice; the first and the last moment that moves
_MOVE = f"""
UPDATE flow SET first_seen = first_seen + ?, last_seen = last_seen + ?
WHERE state = {STATE_CODES[FlowState.PENDING]} AND last_seen BETWEEN ? AND ?"""


def prune_transitions(database: Database, after_id: int, before_ns: int) -> int:
    """Forget a page of history. Returns the id to go on after, 0 at the end. Raises StoreError."""
    highest = int(database.rows(_HIGHEST)[0][0])
    last = after_id + PAGE
    with database.transaction() as run:
        run(_PRUNE, [(after_id + 1, last, TRANSITIONS - 1, before_ns)])
    return last if last < highest else 0


def move_pending(database: Database, jump: Jump) -> None:
    """The clock was set. Raises StoreError."""
    with database.transaction() as run:
        run(_MOVE, [(jump.by_ns, jump.by_ns, jump.first_ns, jump.last_ns)])
