"""Road 2, below the store: the statements that run once per packet or once per changed flow, as SQL text.

What runs once per command is built with SQLAlchemy Core in store.py; these are on the way of every new flow,
thousands a second, and run by the driver with a row of values each, in the order of the `?`. A flow is named by its
five key columns (FLOW_KEY). Those that a new flow or a counter needs are Many: one statement for up to ROWS[0] rows.
Each run of a statement gives up the interpreter's lock and has to get it back from the packet threads, so fewer runs
matter to both sides (and they cost half, measured).

Refuses to hold a value: names and bytes are always bound, never written into the text.
"""

# ruff: noqa: S608 -- what is put into the texts are constants of this program

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from glacic.learning.cache import MAX_ADDRESSES
from glacic.learning.census import TOFU
from glacic.learning.flow import FlowState
from glacic.learning.schema import STATE_CODES

ROWS = (64, 8, 1)  # how many a statement is prepared for; a batch is made of these, the largest first


@dataclass(frozen=True, slots=True)
class Many:
    """A statement for many rows, `VALUES (?, ?), (?, ?)`: what stands before and behind them, and the width of each."""

    before: str
    width: int
    after: str

    def text(self, rows: int) -> str:
        """The statement for this many rows."""
        return _text(self, rows)


@cache
def _text(statement: Many, rows: int) -> str:
    row = f"({', '.join('?' * statement.width)})"
    return f"{statement.before}VALUES {', '.join([row] * rows)}{statement.after}"


_ALLOWED = STATE_CODES[FlowState.ALLOWED]
_PENDING = STATE_CODES[FlowState.PENDING]

FLOW_KEY = "policy = ? AND source = ? AND protocol = ? AND port = ? AND destination = ?"

# values: key
FIND = f"""
SELECT id, policy, source, protocol, port, destination, state, first_seen, last_seen, packets, origin
FROM flow WHERE {FLOW_KEY}"""

# values: source, source -> learned on first use, pending
COUNT_SOURCE = f"""
SELECT (SELECT count(*) FROM flow WHERE source = ? AND state = {_ALLOWED} AND origin = '{TOFU}'),
       (SELECT count(*) FROM flow WHERE source = ? AND state = {_PENDING})"""

# values: key -> the newest first
ADDRESSES = f"""
SELECT address FROM flow_address WHERE flow = (SELECT id FROM flow WHERE {FLOW_KEY})
ORDER BY seen DESC, address"""

ENFORCED_STATES = tuple(STATE_CODES[state] for state in (FlowState.ALLOWED, FlowState.DENIED, FlowState.IGNORED))
_ENFORCED_STATES = ", ".join(map(str, ENFORCED_STATES))

# values: the last id read, rows
KEYS = "SELECT policy, source, protocol, port, destination, id FROM flow WHERE id > ? ORDER BY id LIMIT ?"

HIGHEST_ID = "SELECT coalesce(max(id), 0) FROM flow"

# values: the last id read, the highest one wanted, rows
ENFORCED = f"""
SELECT policy, source, protocol, port, destination, state, id
FROM flow WHERE id > ? AND id <= ? AND state IN ({_ENFORCED_STATES}) ORDER BY id LIMIT ?"""

# values: policy, the rest of the last key read, rows
ENFORCED_OF_POLICY = f"""
SELECT policy, source, protocol, port, destination, state, id
FROM flow WHERE policy = ? AND (source, protocol, port, destination) > (?, ?, ?, ?) AND state IN ({_ENFORCED_STATES})
ORDER BY source, protocol, port, destination LIMIT ?"""

# values: key
DELETE_ADDRESSES = f"DELETE FROM flow_address WHERE flow = (SELECT id FROM flow WHERE {FLOW_KEY})"
DELETE_FLOW = f"DELETE FROM flow WHERE {FLOW_KEY}"

# values: key, state, first_seen, last_seen, packets, origin
ADD_FLOW = Many(
    """
INSERT INTO flow (policy, source, protocol, port, destination, state, first_seen, last_seen, packets, origin)
""",
    10,
    """
ON CONFLICT (policy, source, protocol, port, destination) DO UPDATE SET
    state = excluded.state, first_seen = excluded.first_seen, last_seen = excluded.last_seen,
    packets = excluded.packets, kernel_packets = 0, origin = excluded.origin""",
)

# values: state, origin, last_seen, packets to add, key. The new state has another element, whose counter begins at 0.
CHANGE_FLOW = f"""
UPDATE flow SET state = ?, origin = ?, last_seen = max(last_seen, ?), packets = packets + ?, kernel_packets = 0
WHERE {FLOW_KEY}"""

# In what is joined, SQLite calls the columns of the rows column1 and so on; the key comes first.
_OF_ROW = "policy = column1 AND source = column2 AND protocol = column3 AND port = column4 AND destination = column5"

# values: key, last_seen, packets to add; each flow once. Apart from CHANGE_FLOW, because that one rewrites an index.
SEE_FLOW = Many(
    "UPDATE flow SET last_seen = max(last_seen, column6), packets = packets + column7 FROM (",
    7,
    f") WHERE {_OF_ROW}",
)

# values: key, counter, moment. A counter that is less than at the last reading has begun anew, and counts whole. Of two
# of a flow either is taken: what was counted in between comes with the next reading.
ADD_KERNEL_COUNT = Many(
    """
UPDATE flow SET packets = packets + iif(column6 >= kernel_packets, column6 - kernel_packets, column6),
    last_seen = max(last_seen, column7), kernel_packets = column6
FROM (""",
    7,
    f") WHERE {_OF_ROW} AND kernel_packets <> column6",
)

# values: key, address, moment
ADD_ADDRESS = Many(
    "INSERT INTO flow_address (flow, address, seen) SELECT id, column6, column7 FROM (",
    7,
    f""") CROSS JOIN flow ON {_OF_ROW} WHERE true
ON CONFLICT (flow, address) DO UPDATE SET seen = max(seen, excluded.seen)""",
)

# values: key, key
PRUNE_ADDRESSES = f"""
DELETE FROM flow_address WHERE flow = (SELECT id FROM flow WHERE {FLOW_KEY}) AND address NOT IN (
    SELECT address FROM flow_address WHERE flow = (SELECT id FROM flow WHERE {FLOW_KEY})
    ORDER BY seen DESC, address LIMIT {MAX_ADDRESSES})"""

# values: key, before, after, at, who, why
ADD_TRANSITION = Many(
    'INSERT INTO "transition" (policy, source, protocol, port, destination, before, after, at, who, why) ', 10, ""
)

# values: key, value
SET = "INSERT INTO setting (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"

# values: policy, on, since, until, who
ADD_LEARNING = 'INSERT INTO learning (policy, "on", since, until, who) VALUES (?, ?, ?, ?, ?)'
