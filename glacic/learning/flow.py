"""The vocabulary of road 2: flow, state, verdict, decision. Types, and the table of reasons.

Refuses to know where a packet came from or where a flow is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import NamedTuple


class FlowKey(NamedTuple):
    """What makes two packets the same flow.

    policy: its name. source: 6 bytes MAC, 4 bytes IPv4 or 16 bytes IPv6, network byte order. protocol: IANA number.
    port: destination port for tcp/udp/udplite/sctp, the type for icmp/icmpv6, else 0; host byte order.
    destination: 4 or 16 bytes where the policy's granularity is "destination", else b"".
    """

    policy: str
    source: bytes
    protocol: int
    port: int
    destination: bytes = b""


class FlowState(StrEnum):
    """What is known of a flow. What is not known has no state, and no row."""

    PENDING = "pending"
    ALLOWED = "allowed"
    DENIED = "denied"
    IGNORED = "ignored"  # denied, and never reported


class Verdict(IntEnum):
    """What happens to the packet. REJECT is the drop of a policy whose action is reject."""

    ACCEPT = 1
    DROP = 2
    REJECT = 3


class Why(StrEnum):
    """Every reason a decision can have. Log, CLI and tests show the same phrase."""

    FIRST_USE = "learned on first use"
    CACHED_ALLOW = "cached allow"
    STORED_ALLOW = "stored allow"
    PENDING = "pending"
    NEW_PENDING = "new flow, pending"
    DENIED = "denied"
    IGNORED = "ignored"
    NOT_FIRST = "not a first packet"
    IGNORED_NETWORK = "ignored network"
    LEARNING_LIMIT = "learning limit reached"
    PENDING_LIMIT = "pending limit reached"
    STORE_UNAVAILABLE = "store unavailable"
    UNREADABLE = "unreadable packet"
    NO_POLICY = "no such policy"
    WINDOW = "packet window"
    NEIGHBOUR = "neighbour discovery"
    ESTABLISHED = "established"  # replay only: the kernel answers these
    OUTSIDE = "from outside"  # replay only: the kernel drops these
    NOT_LEARNING = "policy does not learn"  # replay only: the kernel decides these


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict and its reason. `learned`: this packet's flow has just become allowed. `waits`: not to be given before
    what it rests on is committed (`durable`)."""

    verdict: Verdict
    why: Why
    learned: bool = False
    waits: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """One remembered flow. Times in nanoseconds since the epoch, UTC. id 0: not in the database yet.

    packets: seen by the engine and by the kernel's learned set together. origin: who put it into its state: "tofu",
    "user", or "traffic" for a pending one."""

    key: FlowKey
    state: FlowState
    first_seen_ns: int
    last_seen_ns: int
    packets: int = 0
    origin: str = "traffic"
    id: int = 0


class Transition(NamedTuple):
    """One change of a flow's state. before None: it was unknown; after None: forgotten or expired.

    A tuple, because one is made while a new flow's first packet waits."""

    key: FlowKey
    before: FlowState | None
    after: FlowState | None
    at_ns: int
    who: str  # "tofu", "traffic", "expiry", or "user NAME"
    why: str


class Jump(NamedTuple):
    """The clock was set. by_ns: how far; now_ns: what it says since.

    A time that the old clock gave moves with it: at a step forward what is not later than the old clock was, at a step
    back what would be in the future now. Any other was given by a clock that went right.
    """

    by_ns: int
    now_ns: int

    @property
    def first_ns(self) -> int:
        """The first moment that moves."""
        return -(1 << 62) if self.by_ns > 0 else self.now_ns + 1

    @property
    def last_ns(self) -> int:
        """The last one."""
        return self.now_ns - self.by_ns if self.by_ns > 0 else 1 << 62

    def moves(self, time_ns: int) -> bool:
        """Whether this time moves."""
        return self.first_ns <= time_ns <= self.last_ns
