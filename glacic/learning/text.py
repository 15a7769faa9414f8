"""Road 2, where it meets people: addresses, protocols, times, flows and flow keys as text, and back.

Both directions live here, so that what the CLI prints can be given back to it. What is typed wrongly is a UsageError.
Refuses to escape anything for a terminal: the place that prints does.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Any, Final

from glacic.config.services import PROTOCOLS
from glacic.errors import UsageError
from glacic.learning.flow import Flow, FlowKey

# Those that rules can name, and some that only packets have (IANA "Assigned Internet Protocol Numbers").
_PROTOCOL_NAMES: Final = {number: name for name, number in PROTOCOLS.items()} | {
    33: "dccp",
    59: "ipv6-nonxt",
    135: "mobility",
    139: "hip",
}
_PROTOCOL_NUMBERS: Final = {name: number for number, name in _PROTOCOL_NAMES.items()}

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_NS: Final = int((datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC) - _EPOCH).total_seconds()) * 1_000_000_000

_KEY_FORM = "POLICY/SOURCE/PROTOCOL/PORT[/DESTINATION]"


def source_text(source: bytes) -> str:
    """`02:00:00:00:00:01` for 6 bytes, an IP address for 4 or 16. Raises ValueError for any other length."""
    if len(source) == 6:
        return source.hex(":")
    if len(source) == 4:
        return str(IPv4Address(source))
    if len(source) == 16:
        return str(IPv6Address(source))
    raise ValueError(f"{len(source)} bytes are no MAC and no IP address")


def source_bytes(text: str) -> bytes:
    """The 6, 4 or 16 bytes of a MAC or IP address. Raises UsageError."""
    pairs = text.replace("-", ":").split(":")
    if len(pairs) == 6 and all(len(pair) == 2 for pair in pairs):
        try:
            return bytes.fromhex("".join(pairs))
        except ValueError:
            raise UsageError(
                f"{text!r} is no MAC address: six pairs of hexadecimal digits, such as 02:00:00:00:00:01"
            ) from None
    return address_bytes(text, what="MAC or IP address")


def address_bytes(text: str, what: str = "IP address") -> bytes:
    """The 4 or 16 bytes of an IP address. Raises UsageError. A scope (`%eth0`) is part of no flow, and refused."""
    try:
        if "%" not in text:
            return IPv6Address(text).packed if ":" in text else IPv4Address(text).packed
    except AddressValueError:
        pass  # said below, for scopes too
    raise UsageError(f"{text!r} is no {what}")


def protocol_name(number: int) -> str:
    """`tcp` for 6; the number itself where there is no common name."""
    return _PROTOCOL_NAMES.get(number, str(number))


def protocol_number(name: str) -> int:
    """6 for `tcp` or `6`. Raises UsageError."""
    number = _PROTOCOL_NUMBERS.get(name.lower())
    if number is None:
        number = _decimal(name, 255)
    if number is None:
        raise UsageError(f"{name!r} is no protocol: a name such as tcp, udp, icmp, icmpv6, or a number up to 255")
    return number


def time_text(time_ns: int) -> str:
    """`2026-01-02T03:04:05.123456Z` (RFC 3339) for nanoseconds since the epoch, kept within 1970 and 9999."""
    within = min(max(time_ns, 0), _LAST_NS)
    moment = _EPOCH + timedelta(seconds=within // 1_000_000_000, microseconds=within % 1_000_000_000 // 1000)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def key_text(key: FlowKey) -> str:
    """`POLICY/SOURCE/PROTOCOL/PORT[/DESTINATION]`."""
    text = f"{key.policy}/{source_text(key.source)}/{protocol_name(key.protocol)}/{key.port}"
    return f"{text}/{source_text(key.destination)}" if key.destination else text


def parse_key(text: str) -> FlowKey:
    """The reverse of key_text. Raises UsageError.

    Read from its end, since a policy's name may hold a slash: a port is all digits, and no address is.
    """
    last = text.rpartition("/")[2]
    destination = b""
    rest = text
    if not (last.isascii() and last.isdecimal()):
        rest = text.rpartition("/")[0]
        destination = address_bytes(last) if rest.count("/") >= 3 else b""
    parts = rest.rsplit("/", 3)
    if len(parts) != 4 or not parts[0]:
        raise UsageError(f"{text!r} is no flow: give its id, or {_KEY_FORM}")
    policy, source, protocol, port_text = parts
    port = _decimal(port_text, 65535)
    if port is None:
        raise UsageError(
            f"{port_text!r} in {text!r} is no port: a number up to 65535 (for ICMP the type; 0 without ports)"
        )
    return FlowKey(policy, source_bytes(source), protocol_number(protocol), port, destination)


def flow_dict(flow: Flow) -> dict[str, Any]:
    """The JSON object of a flow, as `flows list --json` shows it; `key` is what its other commands take."""
    key = flow.key
    return {
        "id": flow.id,
        "policy": key.policy,
        "source": source_text(key.source),
        "protocol": protocol_name(key.protocol),
        "port": key.port,
        "destination": source_text(key.destination) if key.destination else None,
        "state": str(flow.state),
        "first_seen": time_text(flow.first_seen_ns),
        "last_seen": time_text(flow.last_seen_ns),
        "packets": flow.packets,
        "origin": flow.origin,
        "key": key_text(key),
    }


def _decimal(text: str, highest: int) -> int | None:
    """The number that `text` writes in plain digits, if it is not above `highest`."""
    if not (text.isascii() and text.isdecimal()) or len(text) > 9:
        return None
    number = int(text)
    return number if number <= highest else None
