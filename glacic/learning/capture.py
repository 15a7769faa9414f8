"""Step 1 of road 2, for captures: a pcap or pcapng file becomes records, in constant memory. The facade, and pcap.

pcap: both byte orders, microseconds and nanoseconds, and the variant with longer record headers. pcapng: pcapng.py.
Format: draft-ietf-opsawg-pcap.

What is damaged is read as far as it goes, and `damage` says where that was. What is no capture, or has none but link
types that frame.py does not know, is a CaptureError. Refuses to open files, and to believe a length.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import BinaryIO, Final

from glacic.errors import CaptureError
from glacic.learning import pcapng
from glacic.learning.frame import LINK_TYPES
from glacic.learning.stream import LAST_TIME_NS, MAX_FRAME, Damaged, Record, Stream, made

__all__ = ["LAST_TIME_NS", "MAX_FRAME", "Capture", "Record"]

_RECOGNISED_BY = 12  # bytes: a pcapng file's byte order is in the last four of them
_NS = 1_000_000_000

_HEADER = "IHHiIII"  # magic, version, time zone, accuracy, snap length, link type
_RECORD = "IIII"  # seconds, fraction, captured length, original length
_LINK_TYPE_BITS = 0x03FF_FFFF  # the bits above say whether frames end in a checksum
# magic -> (nanoseconds per unit of the fraction, bytes of a record's header)
_MAGICS: Final = {0xA1B2C3D4: (1000, 16), 0xA1B23C4D: (1, 16), 0xA1B2CD34: (1000, 24)}
_COMPRESSED: Final = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


class Capture:
    """One capture file. Go through records() once; `damage` then says what was lost, if anything was."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        """`name` is what messages call it. Raises CaptureError if the file is no capture."""
        self.name = name
        self.damage: str | None = None
        self._stream = Stream(file)
        self._any_known = False  # some interface has a link type that can be read
        self._unknown: int | None = None  # a link type that cannot
        self._order = self._recognise()

    @property
    def position(self) -> int:
        """Bytes of the file that have been used."""
        return self._stream.position

    def records(self) -> Iterator[Record]:
        """Every frame, in file order.

        Raises CaptureError at the first frame, or at the end, of a file that has no interface with a known link type.
        Where it has one, frames of the others come out too: decode_frame says what they are.
        """
        reader = self._pcap() if self._order else pcapng.records(self._stream, self._interface)
        try:
            first = next(reader, None)
            if first is not None and self._any_known:  # what is described once stays known
                yield first
                yield from reader
        except Damaged as damage:
            self.damage = f"{self.name}: damaged at byte {self.position}, and read up to there: {damage}"
        if self._unknown is not None and not self._any_known:
            known = "Ethernet, raw IP, Linux cooked and BSD loopback captures"
            raise CaptureError(f"{self.name}: link type {self._unknown} is not known; Glacic reads {known}")

    def _recognise(self) -> str:
        """The byte order of a pcap file ("" for pcapng, which may change it)."""
        try:
            self._stream.need(_RECOGNISED_BY)
        except Damaged as damage:
            raise CaptureError(f"{self.name}: {damage}") from damage
        start = self._stream.buffer[:_RECOGNISED_BY]
        if not start:
            raise CaptureError(f"{self.name}: the file is empty")
        if len(start) >= 4:
            for order in "<", ">":
                if Struct(order + "I").unpack_from(start)[0] in _MAGICS:
                    return order
            is_section = int.from_bytes(start[:4], "big") == pcapng.SECTION
            if is_section and (len(start) < _RECOGNISED_BY or pcapng.layout_of(start) is not None):
                return ""
        packed = next((kind for magic, kind in _COMPRESSED.items() if start.startswith(magic)), None)
        if packed is not None:
            raise CaptureError(f"{self.name}: the file is compressed ({packed}): unpack it first")
        raise CaptureError(f"{self.name}: the file is no packet capture (pcap or pcapng)")

    def _interface(self, link_type: int) -> None:
        if link_type in LINK_TYPES:
            self._any_known = True
        else:
            self._unknown = link_type

    def _pcap(self) -> Iterator[Record]:
        """Raises Damaged where the file makes no sense."""
        stream = self._stream
        header, record = Struct(self._order + _HEADER), Struct(self._order + _RECORD)
        if not stream.need(header.size):
            raise Damaged("it ends in its header")
        magic, major, minor, _, _, _, network = header.unpack_from(stream.buffer)
        unit_ns, size = _MAGICS[magic]
        link_type = network & _LINK_TYPE_BITS
        swapped = (major, minor) < (2, 4)  # some programs of that time wrote the two lengths the other way round
        self._interface(link_type)
        if not self._any_known:
            return
        stream.at = header.size
        buffer, at, unpack = stream.buffer, stream.at, record.unpack_from  # the loop below runs once a packet
        end = len(buffer)
        while True:
            data = at + size
            if data > end:
                if not stream.need(size):
                    break
                buffer, at, data = stream.buffer, stream.at, stream.at + size
                end = len(buffer)
            seconds, fraction, captured, original = unpack(buffer, at)
            if swapped and captured > original:
                captured, original = original, captured
            if captured > MAX_FRAME:
                raise Damaged(f"a packet of {captured} bytes is more than any capture holds")
            if data + captured > end:
                if not stream.need(size + captured):
                    break
                buffer, data = stream.buffer, stream.at + size
                end = len(buffer)
            at = stream.at = data + captured
            yield made((seconds * _NS + fraction * unit_ns, link_type, buffer[data:at], original))
        stream.end()
