"""Step 3 of road 1, continued: rules and nat blocks become the model; the elements that they share with sets.

As in decode.py every value is checked for itself; what two of them have to do with each other is validate_rules.py's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from glacic.config import values
from glacic.config.model import (
    Action,
    Address,
    AddressRange,
    AddressSpec,
    NamedSet,
    Nat,
    NatKind,
    Network,
    PortRange,
    PortSpec,
    Rule,
    SetRef,
    SetType,
)
from glacic.config.reader import Located, Reader, Report, describe, label_key, labels
from glacic.config.services import ICMP_TYPES, PROTOCOL_ALIASES, PROTOCOLS
from glacic.config.source import Span, did_you_mean, listed
from glacic.config.syntax import Block
from glacic.config.values import Invalid

T = TypeVar("T")

RULE_NAME_MAX = 100  # bytes
COMMENT_MAX = 128  # bytes, NFTNL_UDATA_COMMENT_MAXLEN of nft
LOG_PREFIX_MAX = 127  # bytes, NF_LOG_PREFIXLEN - 1, linux/netfilter/nf_log.h
DESCRIPTION_MAX = 1024  # bytes
CT_STATES = ("new", "established", "related", "invalid", "untracked")

EMPTY = "leave it out to match everything"
NAT_ALIASES = {"port_forward": NatKind.DNAT, "port-forward": NatKind.DNAT, "forward": NatKind.DNAT}
FAMILIES = {"ipv4": 4, "ipv6": 6, "both": 0}


def decode_rule(block: Block, report: Report) -> Rule | None:
    """One rule of a policy."""
    found = labels(block, ("NAME",), report, lambda text: values.name(text, RULE_NAME_MAX))
    reader = Reader(block.body, block.span, report, f'rule "{found[0]}"' if found else "this rule")
    reader.spans |= {label_key(index): label.span for index, label in enumerate(block.labels)}
    reader.require("action", f"write action = {listed(map(str, Action))}")
    rule = Rule(
        name=found[0] if found else "",
        action=reader.choice("action", Action, Action.DROP),
        protos=_protos(reader),
        dest_port=_ports(reader, "dest_port"),
        source_port=_ports(reader, "source_port"),
        src_ip=_addresses(reader, "src_ip"),
        dest_ip=_addresses(reader, "dest_ip"),
        ct_state=_each(reader, "ct_state", text_element(_ct_state)),
        icmp_type=_each(reader, "icmp_type", _icmp_type),
        in_interface=_each(reader, "in_interface", text_element(values.interface)),
        out_interface=_each(reader, "out_interface", text_element(values.interface)),
        limit=reader.text("limit", values.rate, 'a rate, "10/second"'),
        log=_log(reader),
        comment=reader.text("comment", lambda text: values.line_of_text(text, COMMENT_MAX)) or "",
        disabled=reader.flag("disabled"),
        spans=reader.spans,
    )
    reader.finish()
    return rule if found else None


def decode_nat(block: Block, report: Report, sets: Sequence[NamedSet]) -> Nat | None:
    """One nat block; the sets say of which family their references are."""
    found = labels(block, ("NAME",), report, lambda text: values.name(text, RULE_NAME_MAX))
    reader = Reader(block.body, block.span, report, f'nat "{found[0]}"' if found else "this nat block")
    reader.spans |= {label_key(index): label.span for index, label in enumerate(block.labels)}
    reader.require("type", f"write type = {listed(map(str, NatKind))}")
    to_ip = reader.text("to_ip", _one_address, 'an address, "10.1.0.5"')
    family = reader.text("family", _family, listed(FAMILIES))
    kind = reader.choice("type", NatKind, NatKind.MASQUERADE, NAT_ALIASES)
    src_ip, dest_ip = _addresses(reader, "src_ip"), _addresses(reader, "dest_ip")
    nat = Nat(
        name=found[0] if found else "",
        kind=kind,
        family=_nat_family(family, to_ip, families_of(src_ip or dest_ip, sets)),
        in_interface=_each(reader, "in_interface", text_element(values.interface)),
        out_interface=_each(reader, "out_interface", text_element(values.interface)),
        src_ip=src_ip,
        dest_ip=dest_ip,
        protos=_protos(reader),
        dest_port=_ports(reader, "dest_port"),
        to_ip=to_ip,
        to_port=reader.number("to_port", 0, 1, 65535),
        description=reader.text("description", lambda text: values.line_of_text(text, DESCRIPTION_MAX)) or "",
        spans=reader.spans,
    )
    reader.finish()
    return nat if found else None


def _nat_family(written: int | None, to_ip: Address | None, found: frozenset[int]) -> int:
    """What the target says, else what is written, else what the addresses say, else IPv4."""
    if to_ip is not None:
        return to_ip.version
    if written is not None:
        return written
    return 0 if len(found) == 2 else next(iter(found), 4)


def families_of(spec: AddressSpec, sets: Sequence[NamedSet]) -> frozenset[int]:
    """The address families that a list of addresses can match; 4 and 6 for a set that nobody knows."""
    of_type = {SetType.IPV4: {4}, SetType.IPV6: {6}}
    found: set[int] = set()
    for part in spec:
        if isinstance(part, SetRef):
            kind = next((known.type for known in sets if known.name == part.name), SetType.ADDRESS)
            found |= of_type.get(kind, {4, 6})
        else:
            found |= values.versions((part,))
    return frozenset(found)


# Elements


def text_element(parse: Callable[[str], T]) -> Callable[[Located], T]:
    """For elements that are strings."""

    def element(located: Located) -> T:
        if not isinstance(located.value, str):
            raise Invalid(f"{describe(located.value)} where text belongs", "write it in quotes")
        return parse(located.value)

    return element


def port_element(located: Located) -> PortRange | SetRef:
    """A port, a range of ports, or a set."""
    value = located.value
    if isinstance(value, bool | float):
        raise Invalid(f"{describe(value)} is not a port", 'write a number, a range "6000-6010", or a list of them')
    return (isinstance(value, str) and values.reference(value)) or values.port(value)


def address_element(located: Located) -> Network | AddressRange | SetRef:
    """A network, an address, a range of addresses, or a set."""
    return text_element(lambda text: values.reference(text) or values.addresses(text))(located)


def _each(reader: Reader, name: str, parse: Callable[[Located], T]) -> tuple[T, ...]:
    """The elements of a list that must not be empty, each once."""
    first: dict[T, Span] = {}
    for found, span in reader.items(name, parse, empty=EMPTY):
        first.setdefault(found, span)
    reader.keep_elements(name, first.items())
    return tuple(first)


def _ports(reader: Reader, name: str) -> PortSpec:
    return _each(reader, name, port_element)


def _addresses(reader: Reader, name: str) -> AddressSpec:
    return _each(reader, name, address_element)


def _protos(reader: Reader) -> tuple[str, ...]:
    """Names of protocols; () for "any"."""
    found = _each(reader, "proto", _protocol)
    if "any" in found and len(found) > 1:
        reader.refuse("proto", '"any" among other protocols', "it covers them: write it alone, or leave it out")
    return () if "any" in found else found


def _protocol(located: Located) -> str:
    value = located.value
    if isinstance(value, int) and not isinstance(value, bool):
        known = next((name for name, number in PROTOCOLS.items() if number == value), None)
        if known is None:
            raise Invalid(f"protocol number {value} has no name here", f"known are {', '.join(PROTOCOLS)}")
        return known
    if not isinstance(value, str):
        raise Invalid(f"{describe(value)} is not a protocol", f"write one of {', '.join(PROTOCOLS)}")
    if value in PROTOCOLS or value == "any":
        return value
    if value == "dccp":
        raise Invalid("dccp is not supported", "it has left the kernel: name another protocol")
    alias = PROTOCOL_ALIASES.get(value.lower())
    close = f'did you mean "{alias}"?' if alias else did_you_mean(value, [*PROTOCOLS, "any"])
    raise Invalid(f'unknown protocol "{value}"', close or f"known are {', '.join(PROTOCOLS)}, any")


def _ct_state(text: str) -> str:
    if text not in CT_STATES:
        raise Invalid(f'"{text}" is no ct_state', did_you_mean(text, CT_STATES) or f"write {listed(CT_STATES)}")
    return text


def _icmp_type(located: Located) -> str:
    """A name or a number, as text. Which protocol knows it is checked with `proto`."""
    value = located.value
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        if not 0 <= value <= 255:
            raise Invalid(f"ICMP type {value} is out of range", "types are 0 to 255")
        return str(value)
    names = sorted({name for types in ICMP_TYPES.values() for name in types})
    if value not in names:
        close = did_you_mean(value, names) if isinstance(value, str) else ""
        raise Invalid(f"{describe(value)} is no ICMP type", close or f"known are {', '.join(names)}, and numbers")
    return str(value)


def _log(reader: Reader) -> str | None:
    """None without, "" with the default prefix, else the prefix."""
    found = reader.items("log", _log_value, empty="write true, or a prefix in quotes")
    if len(found) > 1:
        reader.refuse("log", "log must be one value, not a list", "write true, or a prefix in quotes")
    return found[0][0] if found else None


def _log_value(located: Located) -> str | None:
    if isinstance(located.value, bool):
        return "" if located.value else None
    if not isinstance(located.value, str):
        raise Invalid(
            f"log must be true, false or a prefix, not {describe(located.value)}", "write true, or a prefix in quotes"
        )
    if not located.value.strip():
        raise Invalid("an empty log prefix", "write true for the default one")
    return values.line_of_text(located.value, LOG_PREFIX_MAX, quotes=False)


def _one_address(text: str) -> Address:
    if "/" in text or "-" in text:
        raise Invalid(f'"{text}" is not one address', "traffic is sent to, or from, one address")
    return values.address(text)


def _family(text: str) -> int:
    if text not in FAMILIES:
        raise Invalid(f'"{text}" is no family', did_you_mean(text, FAMILIES) or f"write {listed(FAMILIES)}")
    return FAMILIES[text]
