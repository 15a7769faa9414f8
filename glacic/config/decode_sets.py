"""Step 3 of road 1, continued: set blocks become the model, with the files that their elements stand in.

As in decode.py every value is checked for itself; whether rules can use a set is validate_rules.py's.
"""

from __future__ import annotations

from pathlib import Path

from glacic.config import lists, values
from glacic.config.decode_rules import DESCRIPTION_MAX, address_element, port_element, text_element
from glacic.config.lists import Lists
from glacic.config.model import AddressRange, NamedSet, Network, PortRange, SetRef, SetType
from glacic.config.reader import Located, Reader, Report, label_key, labels
from glacic.config.source import listed
from glacic.config.syntax import Block
from glacic.config.texts import NotText
from glacic.config.values import Invalid

Element = Network | AddressRange | PortRange

SET_TYPE_ALIASES = {
    "ipv4": SetType.IPV4,
    "ipv6": SetType.IPV6,
    "ip": SetType.ADDRESS,
    "port": SetType.PORT,
}
_FAMILY = {SetType.IPV4: 4, SetType.IPV6: 6}


def decode_set(block: Block, report: Report, files: Lists) -> NamedSet | None:
    """One set block; `files` reads what elements_file names."""
    found = labels(block, ("NAME",), report, _set_name)
    reader = Reader(block.body, block.span, report, f'set "{found[0]}"' if found else "this set")
    reader.spans |= {label_key(index): label.span for index, label in enumerate(block.labels)}
    reader.require("type", f"write type = {listed(map(str, SetType))}")
    kind = reader.choice("type", SetType, SetType.ADDRESS, SET_TYPE_ALIASES)
    known = reader.has("type") and not reader.broken("type")

    def element(located: Located) -> Element:
        parsed = port_element(located) if kind is SetType.PORT else address_element(located)
        if isinstance(parsed, SetRef):
            raise Invalid("a set within a set", "write its elements here too")
        return _of_family(parsed, kind, str(located.value))

    named = NamedSet(
        name=found[0] if found else "",
        type=kind,
        elements=(
            *(part for part, _ in reader.items("elements", element if known else _anything)),
            *_from_files(reader, block, kind if known else None, report, files),
        ),
        description=reader.text("description", lambda text: values.line_of_text(text, DESCRIPTION_MAX)) or "",
        spans=reader.spans,
    )
    reader.finish()
    return named if found else None


def _from_files(reader: Reader, block: Block, kind: SetType | None, report: Report, files: Lists) -> list[Element]:
    """What stands in the files that elements_file names; nothing for a set of unknown type."""

    def line(text: str) -> Element:
        return values.port(text) if kind is SetType.PORT else _of_family(lists.address(text), kind, text)

    name, found = "elements_file", list[Element]()
    folder = Path(block.span.source.name).parent
    for path, span in reader.items(name, text_element(_path), empty="name a file, or leave it out"):
        if kind is None:
            continue
        try:
            elements, wrong = files.read(folder / path, line)
        except Invalid as invalid:
            report.error(span, invalid.summary, invalid.advice)
            continue
        except NotText as error:
            report.diagnostics.append(error.diagnostic)
            continue
        report.diagnostics += wrong
        found += elements
    return found


def _of_family(element: Element, kind: SetType | None, text: str) -> Element:
    family = _FAMILY.get(kind) if kind else None
    if family and not isinstance(element, PortRange):
        version = element.first.version if isinstance(element, AddressRange) else element.version
        if version != family:
            advice = f'this set holds IPv{family}; type = "address" holds both'
            raise Invalid(f'"{text}" is of the other family', advice)
    return element


def _anything(_: Located) -> PortRange:
    """For the elements of a set whose type is unknown: there is nothing to check them against."""
    return PortRange(0, 0)


def _path(text: str) -> str:
    if not text.strip():
        raise Invalid("an empty path", 'write "lists/blocked.txt"')
    return text


def _set_name(text: str) -> str:
    if not values.is_identifier(text):
        raise Invalid(
            f'"{text}" cannot be the name of a set', 'letters, digits and "_", no digit first: rules name it as @name'
        )
    return text
