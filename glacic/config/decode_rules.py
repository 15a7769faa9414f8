"""Step 3 of road 1, continued: the rules of a policy become the model; the elements that they share with sets and nat.

As in decode.py every value is checked for itself; what two of them have to do with each other is validate_rules.py's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from glacic.config import values
from glacic.config.decode_time import decode_time
from glacic.config.model import (
    Action,
    AddressRange,
    AddressSpec,
    LogLevel,
    NamedSet,
    Network,
    PortRange,
    PortSpec,
    RejectWith,
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
LOG_GROUP_MAX = 65535  # 16 bits, linux/netfilter/nfnetlink_log.h
CONNECTIONS_MAX = 65535  # the kernel walks the list of a source's connections for each new one (nf_conncount.c)
LEVEL_ALIASES = {"warning": LogLevel.WARN, "error": LogLevel.ERR, "emergency": LogLevel.EMERG}
REJECT_ALIASES = {"tcp reset": RejectWith.TCP_RESET, "rst": RejectWith.TCP_RESET}
CT_STATES = ("new", "established", "related", "invalid", "untracked")

EMPTY = "leave it out to match everything"


def decode_rule(block: Block, report: Report) -> Rule | None:
    """One rule of a policy."""
    found = labels(block, ("NAME",), report, lambda text: values.name(text, RULE_NAME_MAX))
    reader = Reader(block.body, block.span, report, f'rule "{found[0]}"' if found else "this rule")
    reader.spans |= {label_key(index): label.span for index, label in enumerate(block.labels)}
    reader.require("action", f"write action = {listed(map(str, Action))}")
    rule = Rule(
        name=found[0] if found else "",
        action=reader.choice("action", Action, Action.DROP),
        protos=protocols(reader),
        dest_port=ports(reader, "dest_port"),
        source_port=ports(reader, "source_port"),
        src_ip=addresses(reader, "src_ip"),
        dest_ip=addresses(reader, "dest_ip"),
        ct_state=each(reader, "ct_state", text_element(_ct_state)),
        icmp_type=each(reader, "icmp_type", _icmp_type),
        in_interface=each(reader, "in_interface", text_element(values.interface)),
        out_interface=each(reader, "out_interface", text_element(values.interface)),
        translated=reader.flag("translated"),
        limit=reader.text("limit", values.rate, 'a rate, "10/second"'),
        limit_per_source=reader.text("limit_per_source", values.rate, 'a rate, "10/minute"'),
        connections_per_source=reader.number("connections_per_source", 0, 1, CONNECTIONS_MAX),
        log=_log(reader),
        log_group=_optional(reader, "log_group", reader.number("log_group", 0, 0, LOG_GROUP_MAX)),
        log_level=_optional(reader, "log_level", reader.choice("log_level", LogLevel, LogLevel.WARN, LEVEL_ALIASES)),
        reject_with=_optional(
            reader, "reject_with", reader.choice("reject_with", RejectWith, RejectWith.ADMIN_PROHIBITED, REJECT_ALIASES)
        ),
        counter=reader.flag("counter"),
        time=decode_time(reader, report),
        comment=reader.text("comment", lambda text: values.line_of_text(text, COMMENT_MAX)) or "",
        disabled=reader.flag("disabled"),
        spans=reader.spans,
    )
    reader.finish()
    return rule if found else None


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


def _optional(reader: Reader, name: str, found: T) -> T | None:
    """What was found, or None where nothing is written, or nothing that can be read."""
    return found if reader.has(name) and not reader.broken(name) else None


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


def each(reader: Reader, name: str, parse: Callable[[Located], T]) -> tuple[T, ...]:
    """The elements of a list that must not be empty, each once."""
    first: dict[T, Span] = {}
    for found, span in reader.items(name, parse, empty=EMPTY):
        first.setdefault(found, span)
    reader.keep_elements(name, first.items())
    return tuple(first)


def ports(reader: Reader, name: str) -> PortSpec:
    """An attribute that names ports."""
    return each(reader, name, port_element)


def addresses(reader: Reader, name: str) -> AddressSpec:
    """An attribute that names addresses."""
    return each(reader, name, address_element)


def protocols(reader: Reader) -> tuple[str, ...]:
    """Names of protocols; () for "any"."""
    found = each(reader, "proto", _protocol)
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
