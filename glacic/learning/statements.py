"""Road 2, below the store: the statements that run once per packet or once per changed flow, as SQL text.

What runs once per command is built with SQLAlchemy Core in store.py; these are on the way of every new flow,
thousands a second, and run by the driver with a row of values each, in the order of the `?`. A flow is named by its
five key columns (FLOW_KEY).

Refuses to hold a value: names and bytes are always bound, never written into the text.
"""

# ruff: noqa: S608 -- what is put into the texts are constants of this program

from __future__ import annotations

from glacic.learning.cache import MAX_ADDRESSES
from glacic.learning.census import TOFU
from glacic.learning.flow import FlowState
from glacic.learning.schema import STATE_CODES

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

# values: key
DELETE_ADDRESSES = f"DELETE FROM flow_address WHERE flow = (SELECT id FROM flow WHERE {FLOW_KEY})"
DELETE_FLOW = f"DELETE FROM flow WHERE {FLOW_KEY}"

# values: key, state, first_seen, last_seen, packets, origin
ADD_FLOW = """
INSERT INTO flow (policy, source, protocol, port, destination, state, first_seen, last_seen, packets, origin)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (policy, source, protocol, port, destination) DO UPDATE SET
    state = excluded.state, first_seen = excluded.first_seen, last_seen = excluded.last_seen,
    packets = excluded.packets, kernel_packets = 0, origin = excluded.origin"""

# values: state, origin, last_seen, packets to add, key. The new state has another element, whose counter begins at 0.
CHANGE_FLOW = f"""
UPDATE flow SET state = ?, origin = ?, last_seen = max(last_seen, ?), packets = packets + ?, kernel_packets = 0
WHERE {FLOW_KEY}"""

# values: last_seen, packets to add, key. Apart from CHANGE_FLOW, because that one rewrites an index.
SEE_FLOW = f"UPDATE flow SET last_seen = max(last_seen, ?), packets = packets + ? WHERE {FLOW_KEY}"

# values: counter, counter, counter, moment, counter, key, counter (which may have begun anew, and then counts whole)
ADD_KERNEL_COUNT = f"""
UPDATE flow SET packets = packets + iif(? >= kernel_packets, ? - kernel_packets, ?), last_seen = max(last_seen, ?),
       kernel_packets = ?
WHERE {FLOW_KEY} AND kernel_packets <> ?"""

# values: address, moment, key
ADD_ADDRESS = f"""
INSERT INTO flow_address (flow, address, seen) SELECT id, ?, ? FROM flow WHERE {FLOW_KEY}
ON CONFLICT (flow, address) DO UPDATE SET seen = max(seen, excluded.seen)"""

# values: key, key
PRUNE_ADDRESSES = f"""
DELETE FROM flow_address WHERE flow = (SELECT id FROM flow WHERE {FLOW_KEY}) AND address NOT IN (
    SELECT address FROM flow_address WHERE flow = (SELECT id FROM flow WHERE {FLOW_KEY})
    ORDER BY seen DESC, address LIMIT {MAX_ADDRESSES})"""

# values: key, before, after, at, who, why
ADD_TRANSITION = """
INSERT INTO "transition" (policy, source, protocol, port, destination, before, after, at, who, why)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""

# values: key, value
SET = "INSERT INTO setting (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"

# values: policy, on, since, until, who
ADD_LEARNING = 'INSERT INTO learning (policy, "on", since, until, who) VALUES (?, ?, ?, ?, ?)'
