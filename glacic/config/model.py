"""What a configuration is: frozen values, no behaviour, no text of HCL or nftables.

Step 4 of road 1: decode.py makes these, validate.py checks them against each other, everything behind reads them.
Every block keeps `spans` for error messages: attribute name -> Span of that attribute, "" -> the block's header,
"label[0]" -> a label, "networks[2]" -> an element of a list.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

from glacic.config.source import Span

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address
Spans = Mapping[str, Span]

FIREWALL = "firewall"  # the reserved zone: the machine itself
DROP_INPUT = "DROP_INPUT"  # the reserved policies: what an internal zone sends and no policy claims
DROP_FORWARD = "DROP_FORWARD"

# Two numbers of firewall/claims.py, repeated because config imports nothing of ours; a test compares them.
LIMIT_CT_MARK = 0xFF00_0000  # connection mark bits by which engine shape tells downloads (claims.CT_LIMIT)
RESERVED_CT_MARK = 0x00C0_0000  # connection mark bits that are taken (CT_FAIL_OPEN, CT_INSPECT): not for offload_mark
MAX_LEARNING_POLICIES = 63 << 8  # what the packet mark can number


class Action(StrEnum):
    """What happens to a packet."""

    ACCEPT = "accept"
    DROP = "drop"
    REJECT = "reject"


class FailMode(StrEnum):
    """What happens to a packet that nobody can decide: accepted, or dropped."""

    OPEN = "open"
    CLOSED = "closed"


class Integrity(StrEnum):
    """What happens when somebody else changes our table: it is said, or said and put right."""

    REPORT = "report"
    RESTORE = "restore"


class Identity(StrEnum):
    """What names the source of a flow: the MAC address where there is one, or always the IP address."""

    MAC = "mac"
    IP = "ip"


class Granularity(StrEnum):
    """What a flow is made of besides source, protocol and port: nothing more, or the destination address too."""

    SERVICE = "service"
    DESTINATION = "destination"


class RejectWith(StrEnum):
    """How a rejected sender is told. TCP_RESET is a TCP segment, the others are ICMP and ICMPv6 errors, as nft pairs
    them for both families (icmpx)."""

    TCP_RESET = "tcp-reset"
    PORT_UNREACHABLE = "port-unreachable"
    HOST_UNREACHABLE = "host-unreachable"
    NO_ROUTE = "no-route"
    ADMIN_PROHIBITED = "admin-prohibited"


class LogLevel(StrEnum):
    """How urgent a line in the kernel log is: syslog's names, as nft writes them."""

    EMERG = "emerg"
    ALERT = "alert"
    CRIT = "crit"
    ERR = "err"
    WARN = "warn"
    NOTICE = "notice"
    INFO = "info"
    DEBUG = "debug"


@dataclass(frozen=True, slots=True)
class Rate:
    """`count` per `unit` ("second", "minute", "hour", "day")."""

    count: int
    unit: str

    def __str__(self) -> str:
        return f"{self.count}/{self.unit}"


@dataclass(frozen=True, slots=True)
class PortRange:
    """Ports first..last, both included; a single port has first == last. 0..65535, host byte order."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class AddressRange:
    """Addresses first..last, both included, of one family."""

    first: Address
    last: Address


@dataclass(frozen=True, slots=True)
class SetRef:
    """`@name`: a named set of the same configuration."""

    name: str


PortSpec = tuple[PortRange | SetRef, ...]
AddressSpec = tuple[Network | AddressRange | SetRef, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleLearning:
    """The `rule_learning` block. Times in seconds, None = no bound or not set."""

    enabled: bool = False
    learning_mode: bool = False
    inline_mode: bool = False
    log_group: int = 0  # inline: the first queue number; otherwise the nflog group
    queues: int = 1
    learn_for_s: int | None = None
    learn_max_per_source: int = 256
    learn_max: int = 100_000
    rate_limit: Rate | None = None  # None: the mode's default (nflog 10/minute, inline none)
    ignore_networks: tuple[Network, ...] = ()
    retention_days: int = 30
    cache_size: int = 10_000
    fail_mode: FailMode = FailMode.OPEN
    queue_full: FailMode = FailMode.CLOSED
    engine_error: FailMode = FailMode.CLOSED
    packet_window: int = 0
    offload_mark: int = 0x00200000  # bits of the connection mark
    database: Path | None = None
    durable: bool = False  # a verdict waits until what it learned is on disk
    fail_open_keep: bool = False  # connections that a fail mode let in go on when the engine is back
    integrity: Integrity = Integrity.REPORT  # read Config.integrity
    spans: Spans = field(default_factory=dict, compare=False, repr=False)

    @property
    def offload_bits(self) -> int:
        """The bits of the connection mark that offloaded connections get; 0 where none does."""
        return self.offload_mark if self.enabled and self.inline_mode and self.packet_window else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """A set of interfaces (names may end in `*`), of networks, or of both (then both must fit)."""

    name: str
    interfaces: tuple[str, ...] = ()
    networks: tuple[Network, ...] = ()
    external: bool = False
    antispoof: bool = False
    identity: Identity = Identity.MAC
    services: tuple[str, ...] = ()  # names from config/services.py
    management: tuple[str, ...] = ()
    description: str = ""
    spans: Spans = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeWindow:
    """The `time` block: what a clock in `zone` reads from `from_min` up to `to_min`, minutes since midnight, on `days`.

    days: 0 is Monday; never empty. A window that ends where it began or before goes over midnight, and its day is the
    one it begins on. zone: a name of the IANA time zone database.
    """

    zone: str
    days: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6)
    from_min: int = 0
    to_min: int = 1440


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule of a policy. An empty tuple or None matches everything."""

    name: str
    action: Action
    protos: tuple[str, ...] = ()  # names from config/services.py PROTOCOLS
    dest_port: PortSpec = ()
    source_port: PortSpec = ()
    src_ip: AddressSpec = ()
    dest_ip: AddressSpec = ()
    ct_state: tuple[str, ...] = ()
    icmp_type: tuple[str, ...] = ()  # nft's own names or numbers as text; which family: `protos`
    in_interface: tuple[str, ...] = ()
    out_interface: tuple[str, ...] = ()
    translated: bool = False  # only what a port forward, of anybody's table, has sent elsewhere
    limit: Rate | None = None
    limit_per_source: Rate | None = None
    connections_per_source: int = 0  # 0: as many as there are
    log: str | None = None  # None: no log; "": with the default prefix; else the prefix
    log_group: int | None = None  # the nflog group that gets the packets instead of the kernel log
    log_level: LogLevel | None = None  # None: the kernel's own, "warn"
    reject_with: RejectWith | None = None  # None: a reset for TCP, admin-prohibited for the rest
    counter: bool = False
    time: TimeWindow | None = None  # None: always
    comment: str = ""
    disabled: bool = False
    spans: Spans = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What zone `source` may send to zone `destination`: rules in order, then `action` for the rest."""

    source: str
    destination: str
    name: str
    action: Action = Action.DROP
    learn: bool | None = None  # None: as rule_learning says
    granularity: Granularity = Granularity.SERVICE
    description: str = ""
    rules: tuple[Rule, ...] = ()
    spans: Spans = field(default_factory=dict, compare=False, repr=False)


class SetType(StrEnum):
    """Element types of a named set. ADDRESS holds both families and becomes two nft sets."""

    IPV4 = "ipv4_addr"
    IPV6 = "ipv6_addr"
    ADDRESS = "address"
    PORT = "inet_service"


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedSet:
    """`set "name" { type, elements }`: addresses, networks and address ranges, or ports and port ranges."""

    name: str
    type: SetType
    elements: tuple[Network | AddressRange | PortRange, ...] = ()
    description: str = ""
    spans: Spans = field(default_factory=dict, compare=False, repr=False)


class NatKind(StrEnum):
    """What is translated: the source to the interface's address or to a given one, or the destination."""

    MASQUERADE = "masquerade"
    SNAT = "snat"
    DNAT = "dnat"  # a port forward


@dataclass(frozen=True, slots=True, kw_only=True)
class Nat:
    """One `nat "name"` block.

    MASQUERADE, SNAT: what leaves by `out_interface`, from `src_ip`, for `dest_ip`. DNAT: what comes in by
    `in_interface` from `src_ip` for `dest_ip` and `protos`/`dest_port` goes to `to_ip` (`to_port`, None = unchanged; a
    range is as long as that in `dest_port`), and is accepted on its way there. hairpin: so does what internal zones
    send to the firewall's other addresses.
    family: 4, 6 or 0 for both; addresses decide where there are any, masquerade alone means 4.
    """

    name: str
    kind: NatKind
    family: int = 4
    in_interface: tuple[str, ...] = ()
    out_interface: tuple[str, ...] = ()
    src_ip: AddressSpec = ()
    dest_ip: AddressSpec = ()
    protos: tuple[str, ...] = ()
    dest_port: PortSpec = ()
    to_ip: Address | None = None
    to_port: PortRange | None = None
    hairpin: bool = False
    description: str = ""
    spans: Spans = field(default_factory=dict, compare=False, repr=False)


class LimitKind(StrEnum):
    """What a limit names: a systemd unit, a slice, or a cgroup by its path relative to the cgroup2 mount."""

    UNIT = "unit"
    SLICE = "slice"
    CGROUP = "cgroup"


class LimitEngine(StrEnum):
    """Who holds a limit. POLICE limits an interface, with everything on it."""

    AUTO = "auto"
    NFT = "nft"
    SHAPE = "shape"
    BPF = "bpf"
    POLICE = "police"


class Traffic(StrEnum):
    """What counts against a limit. Loopback never does. LOCAL: the other end has a private, link-local, multicast or
    broadcast address (RFC 1918, 3927, 4193, 4291, 6598); INTERNET: everything else."""

    ALL = "all"
    INTERNET = "internet"
    LOCAL = "local"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One `limit "name"` block. upload, download: bytes per second, 0 where there is none; not both are 0.

    interface: for the engines that work on one (SHAPE, POLICE); "" means those of the default routes."""

    name: str
    kind: LimitKind
    target: str
    upload: int = 0
    download: int = 0
    engine: LimitEngine = LimitEngine.AUTO
    traffic: Traffic = Traffic.ALL
    interface: str = ""
    description: str = ""
    spans: Spans = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class DefaultLimit:
    """The `default_limit` block: every unit without a limit of its own gets a bucket of its own with these rates."""

    upload: int = 0
    download: int = 0
    engine: LimitEngine = LimitEngine.AUTO
    traffic: Traffic = Traffic.ALL
    interface: str = ""
    spans: Spans = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A whole configuration, valid when it comes from load.load(). Blocks in file order."""

    path: Path
    integrity: Integrity = Integrity.REPORT
    flowtable: bool = False
    rule_learning: RuleLearning = field(default_factory=RuleLearning)
    zones: tuple[Zone, ...] = ()
    policies: tuple[Policy, ...] = ()
    sets: tuple[NamedSet, ...] = ()
    nats: tuple[Nat, ...] = ()
    limits: tuple[Limit, ...] = ()
    default_limit: DefaultLimit | None = None
    spans: Spans = field(default_factory=dict, compare=False, repr=False)
