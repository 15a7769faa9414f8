from __future__ import annotations

import io

import pytest

from glacic.learning.stream import Damaged, Stream


class Trickle(io.RawIOBase):
    """A pipe that gives what it has, and then an error."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        data = self._data.read(size)
        if not data:
            raise OSError(5, "Input/output error")
        return data


def test_what_is_needed_is_there_or_it_says_that_it_is_not():
    stream = Stream(io.BytesIO(b"abcdef"))
    assert stream.need(4)
    assert stream.buffer[stream.at :].startswith(b"abcd")
    stream.at += 4
    assert stream.position == 4
    assert stream.need(2)
    assert not stream.need(3)


def test_stepping_over_holds_nothing():
    stream = Stream(io.BytesIO(bytes(5_000_000) + b"end"))
    stream.step_over(5_000_000)
    assert stream.position == 5_000_000
    assert len(stream.buffer) <= 2 << 20
    assert stream.need(3)
    assert stream.buffer[stream.at :] == b"end"


def test_stepping_over_the_end_is_damage():
    with pytest.raises(Damaged, match="in the middle of a block"):
        Stream(io.BytesIO(b"abc")).step_over(4_000_000_000)


def test_an_end_is_clean_only_if_nothing_is_left():
    stream = Stream(io.BytesIO(b"abc"))
    stream.need(3)
    with pytest.raises(Damaged, match="in the middle of a packet"):
        stream.end()
    stream.at += 3
    stream.end()


def test_a_file_that_cannot_be_read_any_more_is_damaged():
    stream = Stream(Trickle(b"abc"))
    assert stream.need(3)
    with pytest.raises(Damaged, match="Input/output error"):
        stream.need(4)
