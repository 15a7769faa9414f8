"""Step 3 of road 1, continued: nat blocks become the model.

As in decode.py every value is checked for itself; what two of them have to do with each other is validate_nat.py's.
"""

from __future__ import annotations

from collections.abc import Sequence

from glacic.config import values
from glacic.config.decode_rules import (
    DESCRIPTION_MAX,
    RULE_NAME_MAX,
    addresses,
    each,
    families_of,
    port_element,
    ports,
    protocols,
    text_element,
)
from glacic.config.model import Address, NamedSet, Nat, NatKind, PortRange, SetRef
from glacic.config.reader import Located, Reader, Report, label_key, labels
from glacic.config.source import did_you_mean, listed
from glacic.config.syntax import Block
from glacic.config.values import Invalid

NAT_ALIASES = {"port_forward": NatKind.DNAT, "port-forward": NatKind.DNAT, "forward": NatKind.DNAT}
FAMILIES = {"ipv4": 4, "ipv6": 6, "both": 0}


def decode_nat(block: Block, report: Report, sets: Sequence[NamedSet]) -> Nat | None:
    """One nat block; the sets say of which family their references are."""
    found = labels(block, ("NAME",), report, lambda text: values.name(text, RULE_NAME_MAX))
    reader = Reader(block.body, block.span, report, f'nat "{found[0]}"' if found else "this nat block")
    reader.spans |= {label_key(index): label.span for index, label in enumerate(block.labels)}
    reader.require("type", f"write type = {listed(map(str, NatKind))}")
    to_ip = reader.text("to_ip", _one_address, 'an address, "10.1.0.5"')
    family = reader.text("family", _family, listed(FAMILIES))
    kind = reader.choice("type", NatKind, NatKind.MASQUERADE, NAT_ALIASES)
    src_ip, dest_ip = addresses(reader, "src_ip"), addresses(reader, "dest_ip")
    nat = Nat(
        name=found[0] if found else "",
        kind=kind,
        family=_nat_family(family, to_ip, families_of(src_ip or dest_ip, sets)),
        in_interface=each(reader, "in_interface", text_element(values.interface)),
        out_interface=each(reader, "out_interface", text_element(values.interface)),
        src_ip=src_ip,
        dest_ip=dest_ip,
        protos=protocols(reader),
        dest_port=ports(reader, "dest_port"),
        to_ip=to_ip,
        to_port=_to_port(reader),
        hairpin=reader.flag("hairpin"),
        description=reader.text("description", lambda text: values.line_of_text(text, DESCRIPTION_MAX)) or "",
        spans=reader.spans,
    )
    reader.finish()
    return nat if found else None


def _to_port(reader: Reader) -> PortRange | None:
    """One port or one range; None where the port stays."""
    found = reader.items("to_port", _new_port)
    if len(found) != 1:
        if reader.has("to_port") and not reader.broken("to_port"):
            reader.refuse("to_port", "to_port must be one port or one range", "write one block for each port")
        return None
    return found[0][0]


def _new_port(located: Located) -> PortRange:
    found = port_element(located)
    if isinstance(found, SetRef):
        raise Invalid(f'"@{found.name}" is a set', "write the port, or the range, that packets go to")
    if found.first == 0:
        raise Invalid("nothing listens on port 0", "ports are 1 to 65535 here")
    return found


def _nat_family(written: int | None, to_ip: Address | None, found: frozenset[int]) -> int:
    """What the target says, else what is written, else what the addresses say, else IPv4."""
    if to_ip is not None:
        return to_ip.version
    if written is not None:
        return written
    return 0 if len(found) == 2 else next(iter(found), 4)


def _one_address(text: str) -> Address:
    if "/" in text or "-" in text:
        raise Invalid(f'"{text}" is not one address', "traffic is sent to, or from, one address")
    return values.address(text)


def _family(text: str) -> int:
    if text not in FAMILIES:
        raise Invalid(f'"{text}" is no family', did_you_mean(text, FAMILIES) or f"write {listed(FAMILIES)}")
    return FAMILIES[text]
