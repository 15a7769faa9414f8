"""Fuzz target: capture files, as `glacic replay` is given them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from fuzz.packets import sound
from fuzz.targets import Check
from glacic.errors import CaptureError
from glacic.learning import stream
from glacic.learning.capture import LAST_TIME_NS, MAX_FRAME, Capture, Record
from glacic.learning.frame import decode_frame

_PIECE = 24  # bytes of a file that are read at once the second time; the first time it is a million


@contextmanager
def capture() -> Iterator[Check]:
    """An input is a file."""

    def check(data: bytes) -> None:
        whole = _read(data)
        with mock.patch.object(stream, "_CHUNK", _PIECE):
            assert _read(data) == whole
        for record in whole[0]:
            assert len(record.data) <= MAX_FRAME
            assert 0 <= record.time_ns <= LAST_TIME_NS
            sound(decode_frame(record.link_type, record.data)[1])

    yield check


def _read(data: bytes) -> tuple[list[Record], str]:
    """The records, and what was wrong."""
    records: list[Record] = []
    try:
        opened = Capture(io.BytesIO(data), "x")
        records.extend(opened.records())
    except CaptureError as error:
        assert str(error).startswith("x: ")
        return records, str(error)
    return records, opened.damage or ""
