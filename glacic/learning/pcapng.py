"""Step 1 of road 2, for captures: the blocks of a pcapng file become records.

Sections in both byte orders, interfaces with their own link type and clock, enhanced, simple and obsolete packet
blocks; any other is stepped over, whatever its length. Format: draft-ietf-opsawg-pcapng.

Refuses to guess: a block that contradicts itself, or its section, raises Damaged, since what follows it means nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from struct import Struct
from typing import Final

from glacic.learning.stream import LAST_TIME_NS, MAX_FRAME, Damaged, Record, Stream, made

SECTION: Final = 0x0A0D0D0A  # a block type that reads the same in both byte orders
SECTION_MAGIC: Final = 0x1A2B3C4D
MAX_BLOCK: Final = 16 << 20  # bytes, of those blocks that are looked into: a frame and what is noted about it
MAX_INTERFACES: Final = 65_536  # of one section

_INTERFACE, _OLD_PACKET, _SIMPLE_PACKET, _PACKET = 1, 2, 3, 6
_READ = frozenset({_INTERFACE, _OLD_PACKET, _SIMPLE_PACKET, _PACKET})
_LEAST_SECTION, _LEAST_BLOCK, _LEAST_PACKET = 28, 12, 32  # bytes, the length at both ends included
_OPTION_END, _OPTION_RESOLUTION, _OPTION_OFFSET = 0, 9, 14  # if_tsresol, if_tsoffset
_NS = 1_000_000_000
_TWO_LENGTHS = "a block gives two different lengths"


@dataclass(frozen=True, slots=True)
class Interface:
    """What a pcapng interface says of its packets. Times are `units` per second, counted from `offset_s`."""

    link_type: int
    snap_length: int
    units: int = 1_000_000
    offset_s: int = 0

    def time_ns(self, high: int, low: int) -> int:
        """Nanoseconds since the epoch of a time in two halves."""
        time_ns = (high << 32 | low) * _NS // self.units + self.offset_s * _NS
        return time_ns if 0 <= time_ns <= LAST_TIME_NS else min(max(time_ns, 0), LAST_TIME_NS)


class Layout:
    """The fields of all blocks in one byte order."""

    def __init__(self, order: str) -> None:
        self.order = order
        self.block = Struct(order + "II")  # type, length
        self.section = Struct(order + "8xIHH")  # magic, version
        self.length = Struct(order + "I")
        self.interface = Struct(order + "HxxI")  # link type, snap length
        self.packet = Struct(order + "IIIII")  # interface, time (high, low), captured length, original length
        self.whole = Struct(order + "II IIIII")  # a block that holds such a packet
        self.old_packet = Struct(order + "HxxIIII")  # the same; drops in place of the upper half of the interface
        self.option = Struct(order + "HH")  # code, length
        self.offset = Struct(order + "q")  # seconds


LAYOUTS: Final = (Layout("<"), Layout(">"))


def layout_of(section: bytes) -> Layout | None:
    """The byte order of a section, from the first 12 bytes of its header."""
    return next((layout for layout in LAYOUTS if layout.length.unpack_from(section, 8)[0] == SECTION_MAGIC), None)


def records(stream: Stream, on_interface: Callable[[int], None]) -> Iterator[Record]:
    """Every packet. Raises Damaged where the file makes no sense.

    on_interface: told the link type of every interface that the file describes.
    """
    layout = LAYOUTS[0]
    interfaces: list[Interface] = []
    time_ns = 0  # of the last packet: simple packets have none of their own
    while stream.need(8):
        time_ns = yield from _plain_packets(stream, layout, interfaces, time_ns)
        if not stream.need(8):
            break
        kind, length = layout.block.unpack_from(stream.buffer, stream.at)
        if kind == SECTION:
            layout = _section(stream)
            interfaces = []
            continue
        if length < _LEAST_BLOCK or length % 4:
            raise Damaged(f"a block cannot have {length} bytes")
        if kind not in _READ:
            _step_over(stream, layout, length)
            continue
        if length > MAX_BLOCK:
            raise Damaged(f"a block of {length} bytes is more than any capture holds")
        if not stream.need(length):
            break
        buffer, start, end = stream.buffer, stream.at + 8, stream.at + length - 4
        if layout.length.unpack_from(buffer, end)[0] != length:
            raise Damaged(_TWO_LENGTHS)
        if kind == _INTERFACE:
            interfaces.append(_interface(layout, buffer, start, end))
            on_interface(interfaces[-1].link_type)
            if len(interfaces) > MAX_INTERFACES:
                raise Damaged("it has more interfaces than any machine")
        else:
            record = _packet(layout, kind, buffer, start, end, interfaces, time_ns)
            time_ns = record.time_ns
            yield record
        stream.at += length
    stream.end()


def _plain_packets(
    stream: Stream, layout: Layout, interfaces: list[Interface], time_ns: int
) -> Generator[Record, None, int]:
    """The enhanced packet blocks that come next, as far as they are in the buffer and nothing is wrong with them.

    That is nearly all of any capture, so this loop runs once a packet; `records` would say the same of each. Returns
    the time of the last packet, which is `time_ns` until there is one.
    """
    buffer, at, unpack, length_at = stream.buffer, stream.at, layout.whole.unpack_from, layout.length.unpack_from
    end, known = len(buffer), len(interfaces)
    while at + _LEAST_PACKET <= end:
        kind, length, number, high, low, captured, original = unpack(buffer, at)
        data, after = at + layout.whole.size, at + length
        if (
            kind != _PACKET
            or number >= known
            or length % 4
            or captured > MAX_FRAME
            or data + captured + 4 > after
            or after > end
            or length > MAX_BLOCK
            or length_at(buffer, after - 4)[0] != length
        ):
            break
        interface = interfaces[number]
        time_ns = interface.time_ns(high, low)
        yield made((time_ns, interface.link_type, buffer[data : data + captured], original))
        at = stream.at = after
    return time_ns


def _section(stream: Stream) -> Layout:
    """Step over a section's header. Its own length is not needed: the next section says that it begins."""
    if not stream.need(_LEAST_SECTION):
        raise Damaged("it ends in the middle of a section's header")
    layout = layout_of(stream.buffer[stream.at : stream.at + _LEAST_BLOCK])
    if layout is None:
        raise Damaged("a section's header has no byte order")
    _, length = layout.block.unpack_from(stream.buffer, stream.at)
    _, major, minor = layout.section.unpack_from(stream.buffer, stream.at)
    if major != 1:
        raise Damaged(f"a section is in version {major}.{minor} of the format, which is not known here")
    if length < _LEAST_SECTION or length % 4:
        raise Damaged(f"a section's header cannot have {length} bytes")
    _step_over(stream, layout, length)
    return layout


def _step_over(stream: Stream, layout: Layout, length: int) -> None:
    stream.step_over(length - layout.length.size)
    if not stream.need(layout.length.size):
        raise Damaged("it ends in the middle of a block")
    if layout.length.unpack_from(stream.buffer, stream.at)[0] != length:
        raise Damaged(_TWO_LENGTHS)
    stream.at += layout.length.size


def _interface(layout: Layout, buffer: bytes, start: int, end: int) -> Interface:
    if end - start < layout.interface.size:
        raise Damaged("an interface's block is too short")
    link_type, snap_length = layout.interface.unpack_from(buffer, start)
    units, offset_s = 1_000_000, 0
    at = start + layout.interface.size
    while at + 4 <= end:
        code, length = layout.option.unpack_from(buffer, at)
        value = at + 4
        if code == _OPTION_END or value + length > end:
            break
        if code == _OPTION_RESOLUTION and length == 1:  # a power of 10, or of 2 with the highest bit
            exponent = buffer[value] & 0x7F
            units = 2**exponent if buffer[value] & 0x80 else 10**exponent
        elif code == _OPTION_OFFSET and length == 8:
            (offset_s,) = layout.offset.unpack_from(buffer, value)
        at = value + (length + 3 & ~3)
    return Interface(link_type, snap_length, units, offset_s)


def _packet(
    layout: Layout, kind: int, buffer: bytes, start: int, end: int, interfaces: list[Interface], time_ns: int
) -> Record:
    """The record in a packet block of any kind. time_ns: for the kind that has no time."""
    fields = layout.old_packet if kind == _OLD_PACKET else layout.packet
    number, high, low = 0, 0, 0
    if kind == _SIMPLE_PACKET:
        if end - start < 4:
            raise Damaged("a packet's block is too short")
        (original,) = layout.length.unpack_from(buffer, start)
        data = start + 4
        captured = min(original, end - data)
    else:
        data = start + fields.size
        if data > end:
            raise Damaged("a packet's block is too short")
        number, high, low, captured, original = fields.unpack_from(buffer, start)
    if number >= len(interfaces):
        raise Damaged(f"a packet is from interface {number}, which the file does not describe")
    interface = interfaces[number]
    if kind == _SIMPLE_PACKET:
        captured = min(captured, interface.snap_length or captured)
    else:
        time_ns = interface.time_ns(high, low)
    if captured > end - data or captured > MAX_FRAME:
        raise Damaged(f"a packet of {captured} bytes does not fit its block")
    return Record(time_ns, interface.link_type, buffer[data : data + captured], original)
