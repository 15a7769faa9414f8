"""Step 1 of road 2, for captures: what pcap and pcapng share. A file read through a bounded buffer, and records.

Refuses to seek, so that a capture may come through a pipe, and to hold more than was asked for and one chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import BinaryIO, Final, NamedTuple

MAX_FRAME: Final = 262_144  # what tcpdump and libpcap capture at most (MAXIMUM_SNAPLEN)
LAST_TIME_NS: Final = 1 << 62  # the year 2116: later times become this one, so that they fit a 64-bit database column

_CHUNK = 1 << 20


class Record(NamedTuple):
    """One captured frame. time_ns: since the epoch. data may be shorter than the frame was (original_length)."""

    time_ns: int
    link_type: int
    data: bytes
    original_length: int


# A Record of its four fields as one tuple, in half the time that Record() takes.
made: Final[Callable[[tuple[int, int, bytes, int]], Record]] = partial(tuple.__new__, Record)


class Damaged(Exception):
    """The capture cannot be read any further, and why."""


class Stream:
    """A file, read from front to end. `buffer` from `at` on is what is there and not used yet."""

    def __init__(self, file: BinaryIO) -> None:
        self.buffer = b""
        self.at = 0
        self._base = 0  # where in the file the buffer begins
        self._file = file

    @property
    def position(self) -> int:
        """Bytes of the file that have been used."""
        return self._base + self.at

    def need(self, count: int) -> bool:
        """Have `count` unused bytes in the buffer; False if the file ends before. Raises Damaged if reading fails."""
        missing = count - (len(self.buffer) - self.at)
        if missing <= 0:
            return True
        try:
            more = self._file.read(max(_CHUNK, missing))
        except OSError as error:
            raise Damaged(f"the file cannot be read: {error.strerror}") from error
        self.buffer = self.buffer[self.at :] + more
        self._base += self.at
        self.at = 0
        return len(self.buffer) >= count

    def step_over(self, count: int) -> None:
        """Use up `count` bytes without holding them. Raises Damaged if the file ends before."""
        while count > 0:
            if not self.need(1):
                raise Damaged("it ends in the middle of a block")
            step = min(count, len(self.buffer) - self.at)
            self.at += step
            count -= step

    def end(self) -> None:
        """The next thing did not fit. Raises Damaged unless the file ends right here."""
        if len(self.buffer) > self.at:
            raise Damaged("it ends in the middle of a packet")
