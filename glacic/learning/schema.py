"""Road 2, below the store: the tables of the flow database, and how an older one becomes the present one.

The tables are written twice on purpose: as SQLAlchemy tables, which queries are built from, and as the migrations
that a database goes through, which never change once released. A test holds the two together.

Times are nanoseconds since the epoch, UTC. Addresses are bytes in network byte order. States are numbers (STATE_CODES).
"""

from __future__ import annotations

from sqlalchemy import Column, Index, Integer, LargeBinary, MetaData, Table, Text, UniqueConstraint, text

from glacic.learning.flow import FlowState

APPLICATION_ID = 0x474C4143  # "GLAC", in the file's header: tells our database from another program's

STATE_CODES = {FlowState.PENDING: 1, FlowState.ALLOWED: 2, FlowState.DENIED: 3, FlowState.IGNORED: 4}
STATES = {code: state for state, code in STATE_CODES.items()}

MAC_LENGTH = 6  # bytes; a source of any other length is an address itself

metadata = MetaData()

# One row per remembered flow. Ids are never used again (AUTOINCREMENT): an id on an administrator's screen must not
# come to mean another flow. kernel_packets: the element's counter when it was last read; packets already includes it.
flow = Table(
    "flow",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("policy", Text, nullable=False),
    Column("source", LargeBinary, nullable=False),
    Column("protocol", Integer, nullable=False),
    Column("port", Integer, nullable=False),
    Column("destination", LargeBinary, nullable=False, server_default=text("x''")),
    Column("state", Integer, nullable=False),
    Column("first_seen", Integer, nullable=False),
    Column("last_seen", Integer, nullable=False),
    Column("packets", Integer, nullable=False),
    Column("kernel_packets", Integer, nullable=False, server_default=text("0")),
    Column("origin", Text, nullable=False),
    UniqueConstraint("policy", "source", "protocol", "port", "destination"),
    sqlite_autoincrement=True,
)
Index("flow_by_source", flow.c.source, flow.c.state, flow.c.origin)  # what one source has learned, and what all have

# Every change of a flow's state, oldest first. before and after are NULL for "unknown".
transition = Table(
    "transition",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("policy", Text, nullable=False),
    Column("source", LargeBinary, nullable=False),
    Column("protocol", Integer, nullable=False),
    Column("port", Integer, nullable=False),
    Column("destination", LargeBinary, nullable=False),
    Column("before", Integer),
    Column("after", Integer),
    Column("at", Integer, nullable=False),
    Column("who", Text, nullable=False),
    Column("why", Text, nullable=False),
    sqlite_autoincrement=True,
)
Index(
    "transition_by_flow",
    transition.c.policy,
    transition.c.source,
    transition.c.protocol,
    transition.c.port,
    transition.c.destination,
)

# The addresses that a flow named by a MAC was seen from: conntrack knows addresses only.
flow_address = Table(
    "flow_address",
    metadata,
    Column("flow", Integer, primary_key=True, autoincrement=False),
    Column("address", LargeBinary, primary_key=True),
    Column("seen", Integer, nullable=False),
)

# Where learning was switched; policy "" is all others. until NULL: as the file's learn_for says.
learning = Table(
    "learning",
    metadata,
    Column("policy", Text, primary_key=True),
    Column("on", Integer, nullable=False),
    Column("since", Integer, nullable=False),
    Column("until", Integer),
    Column("who", Text, nullable=False),
)

# Small values by name: the file's learning_mode, the policies' numbers.
setting = Table(
    "setting",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

# MIGRATIONS[n] takes a database of version n (PRAGMA user_version) to n + 1. Version 0 is an empty file.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE flow (
            id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
            policy TEXT NOT NULL,
            source BLOB NOT NULL,
            protocol INTEGER NOT NULL,
            port INTEGER NOT NULL,
            destination BLOB NOT NULL DEFAULT x'',
            state INTEGER NOT NULL,
            first_seen INTEGER NOT NULL,
            last_seen INTEGER NOT NULL,
            packets INTEGER NOT NULL,
            kernel_packets INTEGER NOT NULL DEFAULT 0,
            origin TEXT NOT NULL,
            UNIQUE (policy, source, protocol, port, destination)
        )""",
        "CREATE INDEX flow_by_source ON flow (source, state, origin)",
        """CREATE TABLE "transition" (
            id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
            policy TEXT NOT NULL,
            source BLOB NOT NULL,
            protocol INTEGER NOT NULL,
            port INTEGER NOT NULL,
            destination BLOB NOT NULL,
            before INTEGER,
            after INTEGER,
            at INTEGER NOT NULL,
            who TEXT NOT NULL,
            why TEXT NOT NULL
        )""",
        'CREATE INDEX transition_by_flow ON "transition" (policy, source, protocol, port, destination)',
        """CREATE TABLE flow_address (
            flow INTEGER NOT NULL,
            address BLOB NOT NULL,
            seen INTEGER NOT NULL,
            PRIMARY KEY (flow, address)
        )""",
        """CREATE TABLE learning (
            policy TEXT NOT NULL PRIMARY KEY,
            "on" INTEGER NOT NULL,
            since INTEGER NOT NULL,
            until INTEGER,
            who TEXT NOT NULL
        )""",
        "CREATE TABLE setting (key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL)",
    ),
)

VERSION = len(MIGRATIONS)
