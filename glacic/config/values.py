"""Step 3 of road 1, the small half: the grammars of single values, text to typed value.

    port        80, "80", "6000-6010"                  address    "10.1.0.5", "10.1.0.0/24", "10.1.0.5-10.1.0.9", IPv6
    reference   "@name"                                rate       "10/second" (minute, hour, day; s, min, h, d)
    duration    "24h", "1h30m", "7d" (s m h d w)       interface  "lan0", "wl*"

Every function returns the value or raises Invalid with what is wrong and what to write. Refuses to know where the text
stood.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from ipaddress import IPv6Address, ip_address, ip_network
from types import MappingProxyType

from glacic.config.duration import duration_s
from glacic.config.model import Address, AddressRange, Network, PortRange, Rate, SetRef
from glacic.config.services import PORT_NAMES
from glacic.config.source import did_you_mean

INTERFACE_MAX = 15  # IFNAMSIZ - 1, linux/if.h
RATE_MAX = 1_000_000  # beyond it nft_limit's tokens of one nanosecond run out, and no network here needs it

_UNITS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("second", "sec", "s"), "second"),
        **dict.fromkeys(("minute", "min"), "minute"),
        **dict.fromkeys(("hour", "h"), "hour"),
        **dict.fromkeys(("day", "d"), "day"),
    }
)


class Invalid(Exception):
    """A value that cannot be: what is wrong, and what to write."""

    def __init__(self, summary: str, advice: str = "") -> None:
        super().__init__(summary)
        self.summary = summary
        self.advice = advice


def reference(text: str) -> SetRef | None:
    """`@name`, or None where the text is something else."""
    if not text.startswith("@"):
        return None
    if not is_identifier(text[1:]):
        raise Invalid(f'"{text}" names no set', 'write "@" and the name of a set block: letters, digits, "_"')
    return SetRef(text[1:])


def is_identifier(text: str) -> bool:
    """A name that can stand in a reference: ASCII letters, digits and `_`, no digit first, 64 at most."""
    return re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", text) is not None


def port(value: int | str) -> PortRange:
    """One port or a range, 0..65535, both ends included."""
    if isinstance(value, int):
        return PortRange(*[_port_number(value)] * 2)
    found = re.fullmatch(r"\s*([0-9]{1,20})\s*(?:[-:]\s*([0-9]{1,20})\s*)?", value, re.ASCII)
    if found is None:
        known = PORT_NAMES.get(value.lower())
        advice = f"write the number, {known}" if known else 'write a number, a range "6000-6010", or a list of them'
        raise Invalid(f'"{value}" is not a port', advice)
    first = _port_number(int(found[1]))
    last = _port_number(int(found[2])) if found[2] else first
    if last < first:
        raise Invalid(f'the range "{value}" runs backwards', f'write "{last}-{first}"')
    return PortRange(first, last)


def _port_number(number: int) -> int:
    if not 0 <= number <= 65535:
        raise Invalid(f"port {number} is out of range", "ports are 0 to 65535")
    return number


def network(text: str) -> Network:
    """A network in CIDR notation; a plain address is a network of one."""
    stripped = text.strip()
    if "%" in stripped:
        raise Invalid(f'"{text}" has a zone index', "write the address without it, and name the interface instead")
    address_text, slash, prefix = stripped.partition("/")
    parsed = address(address_text)
    if not slash:
        return ip_network(parsed)
    if not re.fullmatch(r"[0-9]{1,3}", prefix):
        raise Invalid(f'"{text}" is not a network', _mask_advice(stripped))
    if int(prefix) > parsed.max_prefixlen:
        advice = f"the prefix of an IPv{parsed.version} network is 0 to {parsed.max_prefixlen}"
        raise Invalid(f'"{text}" is not a network: prefix /{int(prefix)} is too long', advice)
    whole = ip_network(f"{parsed}/{prefix}", strict=False)
    if whole.network_address != parsed:
        raise Invalid(
            f'"{text}" is an address within a network', f'write "{whole}" for the network, or "{parsed}" for one host'
        )
    return whole


def address(text: str) -> Address:
    """One address."""
    try:
        parsed = ip_address(text.strip())
    except ValueError:
        raise Invalid(f'"{text}" is not an IP address or network', _address_advice(text)) from None
    if isinstance(parsed, IPv6Address):
        if parsed.scope_id is not None:
            raise Invalid(f'"{text}" has a zone index', "write the address without it, and name the interface instead")
        if parsed.ipv4_mapped is not None:
            raise Invalid(f'"{text}" never stands in a packet', f'write the IPv4 address, "{parsed.ipv4_mapped}"')
    return parsed


def addresses(text: str) -> Network | AddressRange:
    """A network, an address, or a range of addresses."""
    first_text, dash, last_text = text.partition("-")
    if not dash:
        return network(text)
    first, last = address(first_text), address(last_text)
    if first.version != last.version:
        raise Invalid(f'the range "{text}" begins in one family and ends in the other', "write two ranges")
    if int(first) > int(last):
        raise Invalid(f'the range "{text}" runs backwards', f'write "{last}-{first}"')
    return AddressRange(first, last)


def _address_advice(text: str) -> str:
    """What may be meant: a count of parts, a leading zero, a name."""
    stripped = text.strip()
    parts = stripped.split(".")
    if re.fullmatch(r"[0-9.]+", stripped):
        if len(parts) != 4 or not all(parts):
            return "an IPv4 address has four numbers, 192.0.2.1"
        if any(int(part[:9]) > 255 for part in parts):
            return "each of the four numbers is 0 to 255"
        return "write the numbers without leading zeros"
    if stripped.startswith("!"):
        return "there is no negation: write a rule with another action before this one"
    if re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", stripped) and not re.fullmatch(r"[0-9A-Fa-f.]+", stripped):
        return 'names are not resolved: write an address, a network, or a set as "@name"'
    return 'write "192.0.2.0/24", "192.0.2.7", "2001:db8::/64"'


def _mask_advice(text: str) -> str:
    """For `10.1.0.0/255.255.255.0`: the same as a prefix."""
    with suppress(ValueError):
        return f'write "{ip_network(text, strict=False)}"'
    return 'write the prefix as a number, "192.0.2.0/24"'


def rate(text: str) -> Rate:
    """`count/unit`."""
    found = re.fullmatch(r"\s*([0-9]{1,20})\s*/\s*([A-Za-z]+)\s*", text, re.ASCII)
    if found is None:
        raise Invalid(f'"{text}" is not a rate', 'write "10/minute": a number, and second, minute, hour or day')
    count, unit = int(found[1]), _UNITS.get(found[2].lower())
    if unit is None:
        advice = did_you_mean(found[2], _UNITS) or "units are second, minute, hour and day"
        raise Invalid(f'"{found[2]}" is not a unit of time', advice)
    if not 1 <= count <= RATE_MAX:
        raise Invalid(f"a rate of {count} is out of range", f"write 1 to {RATE_MAX}")
    return Rate(count, unit)


def duration(text: str) -> int:
    """Seconds, more than none."""
    try:
        return duration_s(text.strip())
    except ValueError as error:
        summary, _, advice = str(error).partition("; ")
        raise Invalid(summary, advice or 'write "24h", "90m", "7d" or "1h30m"') from None


def interface(text: str) -> str:
    """The name of a network interface as the kernel allows it (dev_valid_name), or a beginning and `*`."""
    if text == "*":
        raise Invalid('"*" names no interface in particular', "name the interfaces, or give the zone networks instead")
    if (
        not text
        or text in {".", ".."}
        or any(char.isspace() or char in '/:"\\' for char in text)
        or not text.isprintable()
    ):
        raise Invalid(
            f'"{text}" is not the name of an interface',
            'letters and digits, as "ip link" shows it; no spaces, "/" or ":"',
        )
    if "*" in text[:-1]:
        raise Invalid(f'"{text}" has a "*" before its end', 'write the beginning of the name and one "*", like "wl*"')
    if len(text.encode()) > INTERFACE_MAX:
        raise Invalid(f'"{text}" is longer than an interface name can be', f"at most {INTERFACE_MAX} characters")
    if text == "lo":
        raise Invalid('"lo" belongs to the firewall itself', "leave it out: loopback traffic is always accepted")
    return text


def line_of_text(text: str, limit: int, *, quotes: bool = True) -> str:
    """Text that fits one line: no control characters, at most `limit` bytes of UTF-8.

    quotes False: without double quotes, backslashes and dollar signs (which nftables expands) too, for text that must
    stand to the letter where nftables has no escapes.
    """
    if not text.isprintable():
        raise Invalid("control characters in this text", "write it as one line of plain text")
    if not quotes and any(char in text for char in '"\\$'):
        raise Invalid(
            "a double quote, a backslash or a dollar sign in this text", "leave it out: nftables has no way to write it"
        )
    if len(text.encode()) > limit:
        raise Invalid(f"text of {len(text.encode())} bytes", f"at most {limit} bytes fit")
    return text


def name(text: str, limit: int) -> str:
    """The name of a zone, policy or rule: some text, without space around it."""
    if not text.strip():
        raise Invalid("an empty name", "write a name between the quotes")
    if text != text.strip():
        raise Invalid("space around this name", f'write "{text.strip()}"')
    return line_of_text(text, limit, quotes=False)


def versions(spec: tuple[Network | AddressRange, ...]) -> frozenset[int]:
    """The address families of some networks and ranges."""
    return frozenset(part.first.version if isinstance(part, AddressRange) else part.version for part in spec)
