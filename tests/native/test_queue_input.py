"""What else can come to the loop of the inline reader: errors, garbage, too much at once, a kernel that takes nothing.

Whatever has an id is answered, once, and never by the answer to another packet.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glacic import native

from .conftest import (
    ACCEPT,
    DROP,
    LAN,
    LAST,
    MAC,
    MARKS,
    NOT_BUILT,
    OPEN,
    SHUT,
    UNKNOWN,
    VPN,
    Answered,
    Asked,
    Kernel,
    Reader,
    attribute,
    held,
    message,
    packet,
    syn,
)


def test_what_came_before_it_ran_is_answered_first(kernel: Kernel, reader: Reader) -> None:
    kernel.send(packet(3, OPEN))
    assert reader.run([packet(1, OPEN), "no datagram", b"", b"x", packet(2, SHUT)]) == [
        [Answered(1, True, 0)],
        [Answered(2, False, None)],
        [Answered(3, True, 0)],
    ]


def test_stopped_before_it_runs_it_answers_only_what_came_before(kernel: Kernel, reader: Reader) -> None:
    kernel.send(packet(3, OPEN))
    reader.queue.stop()
    reader.queue.run([packet(1, OPEN)])
    assert kernel.read() == [[Answered(1, True, 0)]]


def test_errors_for_verdicts_are_counted(kernel: Kernel, reader: Reader) -> None:
    for error in (-2, 0, -1):  # ENOENT; an acknowledgement; EPERM
        kernel.send(message(2, struct.pack("=i", error) + bytes(16)))  # NLMSG_ERROR
    kernel.send(message(2, b"\xfe\xff"))
    assert reader.run() == []
    assert reader.figures()["verdict_errors"] == 2


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"\0" * 15,
        message(0x0300, b""),
        message(0x0300, b"\2\0\0\x64"),  # no attribute
        message(0x0300, b"\2\0\0\x64" + attribute(1, b"\0\0\1")),  # three bytes of an id
        message(0x0300, b"\2\0\0\x64" + b"\5\0\1\0\0"),  # an attribute of one byte
        message(0x0300, b"\2\0\0\x64" + struct.pack("=HH", 3, 1) + bytes(8)),  # shorter than itself
        message(0x0300, b"\2\0\0\x64" + struct.pack("=HH", 400, 1) + bytes(8)),  # longer than the rest
        message(0x0301, held(1, b"")[16:]),  # another type
        message(0x0300, held(1, b"")[16:], length=15),
        message(0x0300, held(1, b"")[16:], length=0),
    ],
)
def test_what_names_no_packet_is_passed_over(kernel: Kernel, reader: Reader, datagram: bytes) -> None:
    kernel.send(datagram or b"\0", packet(5, OPEN))
    assert reader.run([datagram]) == [[Answered(5, True, 0)]]
    assert reader.figures()["processed"] == 1


@pytest.mark.parametrize(
    "datagram",
    [
        held(1, syn(OPEN), MARKS[VPN])[:-10],  # cut: the payload is not whole
        held(1, b"", MARKS[VPN]),
        message(0x0300, b"\2\0\0\x64" + attribute(1, b"\0\0\0\1")),  # nothing but an id
        message(0x0300, b"\2\0\0\x64" + attribute(1, b"\0\0\0\1\x08\0\1") + attribute(3, b"\0\x83")),  # half a mark
        message(0x0300, b"\2\0\0\x64" + attribute(1, b"\0\0\0\1") + attribute(9, b"\0\6\0\0") + attribute(1, b"")),
        held(1, bytes(2000), MARKS[VPN]),  # more than is read of one
    ],
)
def test_what_has_an_id_is_answered(kernel: Kernel, reader: Reader, datagram: bytes) -> None:
    reader.answer = (DROP, -1, -1)
    kernel.send(datagram)
    assert reader.run() == [[Answered(1, False, None)]]
    assert len(reader.questions) == 1


def test_many_packets_in_one_datagram_are_all_answered(kernel: Kernel, reader: Reader) -> None:
    """The kernel sends one in each; who reads them relies on nothing."""
    small = [message(0x0300, b"\2\0\0\x64" + attribute(1, struct.pack("!I", number))) for number in range(1, 201)]
    reader.answer = lambda *_: (ACCEPT, next(marks), -1)
    marks = itertools.count(1)
    kernel.send(*(b"".join(small[at : at + 25]) for at in range(0, 200, 25)))
    answered = [one for sent in reader.run([b"".join(small)]) for one in sent]
    assert [one.number for one in answered] == [*range(1, 201)] * 2
    assert [one.mark for one in answered] == [*range(1, 401)]


def ids(datagram: bytes) -> Iterator[int]:
    """The slow twin: every id that can be read in a datagram."""
    while len(datagram) >= 16:
        length, kind = struct.unpack_from("=IH", datagram)
        length = min(length, len(datagram))
        if length < 16:
            return
        found = None
        body = datagram[20:length]
        while kind == 0x0300 and len(body) >= 4:
            size, name = struct.unpack_from("=HH", body)
            if size < 4 or size > len(body):
                break
            if name & 0x3FFF == 1 and size >= 8:
                found = int.from_bytes(body[4:8], "big")
            body = body[size + -size % 4 :]
        if found is not None:
            yield found
        datagram = datagram[length + -length % 4 :]


good = st.builds(
    held,
    st.integers(0, 0xFFFF_FFFF),
    st.sampled_from([b"", syn(OPEN), syn(443), bytes(1100)]),
    st.sampled_from([None, 0, MARKS[VPN], MARKS[LAN], UNKNOWN]),
    interface=st.sampled_from([None, 0, 3]),
    hardware=st.sampled_from([None, MAC + b"\0\0"]),
    hardware_length=st.sampled_from([6, 4, 0xFFFF]),
)
loose = st.builds(
    lambda kind, attributes, length: message(kind, b"\2\0\0\x64" + b"".join(attributes), length=length),
    st.sampled_from([0x0300, 0x0300, 0x0300, 0x0301, 2, 3]),
    st.lists(st.builds(attribute, st.sampled_from([1, 1, 2, 3, 5, 9, 10, 0x4001, 0x8001]), st.binary(max_size=16))),
    st.sampled_from([None, None, 0, 16, 20, 24, 400]),
)
datagrams = st.lists(
    st.one_of(
        good,
        loose,
        st.binary(min_size=1, max_size=100),
        st.builds(lambda one, cut: one[: 1 + cut % len(one)], good, st.integers(0, 2000)),
        st.builds(lambda *parts: b"".join(parts), loose, good, loose),
        st.lists(loose, min_size=1, max_size=40).map(b"".join),
    ),
    max_size=20,
)


@given(datagrams, datagrams)
@settings(max_examples=150)
def test_whatever_comes_each_readable_id_is_answered_once_and_in_order(come: list[bytes], early: list[bytes]) -> None:
    """All are put to Python, which answers each with another mark, so that no verdict is for several."""
    assert native.road is not None, NOT_BUILT
    marks = itertools.count(1)
    expected = [number for one in early for number in ids(one)] + [number for one in come for number in ids(one[:1024])]
    with Kernel() as kernel:
        reader = Reader(native.road, Asked(native.road), kernel)
        reader.asked.rules.clear()
        reader.answer = lambda *_: (ACCEPT, next(marks), -1)
        kernel.send(*come)
        answered = [one for sent in reader.run(early) for one in sent]
    assert answered == [Answered(number, True, mark) for mark, number in enumerate(expected, 1)]
    assert reader.figures()["processed"] == len(expected) == len(reader.questions)


# ---- trouble


class TestWhenAVerdictCannotBeSent:
    """The socket to the kernel takes nothing: its other end does not read."""

    @pytest.fixture(autouse=True)
    def full(self, kernel: Kernel) -> None:
        kernel.reader.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", 0, 1000))
        kernel.reader.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        with contextlib.suppress(BlockingIOError):
            while True:
                kernel.reader.send(b"x")

    def test_it_is_told_and_counted(self, kernel: Kernel, reader: Reader) -> None:
        kernel.send(packet(1, OPEN), packet(2, OPEN), held(LAST, b"", LAST))
        reader.queue.run([])
        assert reader.troubles == [11, 11]  # EAGAIN: for the two, for the last
        figures = reader.figures()
        assert (figures["processed"], figures["accepted"], figures["verdict_errors"]) == (2, 2, 3)

    def test_those_packets_are_dropped_and_never_get_the_answer_of_later_ones(
        self, kernel: Kernel, reader: Reader
    ) -> None:
        """They are held still; a batch verdict for what comes after them would be theirs too."""
        reader.on_trouble = kernel.receive
        for number in (1, 2, 3):
            kernel.hold(number, syn(SHUT), MARKS[VPN])
        kernel.hold(4, b"", UNKNOWN)
        for number in (5, 6, 7):
            kernel.hold(number, syn(OPEN), MARKS[VPN])
        kernel.hold(8, syn(SHUT), MARKS[VPN])
        reader.answer = (ACCEPT, 9, -1)
        kernel.hold(LAST, b"", LAST)
        reader.queue.run([])
        kernel.take_verdicts()
        assert [kernel.answers[number][0] for number in (1, 2, 3)] == [False] * 3
        assert kernel.answers[4] == (True, 9)
        assert [kernel.answers[number] for number in (5, 6, 7)] == [(True, 0)] * 3
        assert kernel.answers[8] == (False, None)
        assert not kernel.waiting

    def test_and_nobody_can_be_told_it_ends(self, kernel: Kernel, reader: Reader) -> None:
        def refuse() -> None:
            raise LookupError("full")

        reader.on_trouble = refuse
        kernel.send(packet(1, OPEN))
        with pytest.raises(LookupError, match="full"):
            reader.queue.run([])


class TestAnAskThatFails:
    @pytest.mark.parametrize(
        "answer", [None, 5, (), (1, 2), (1, 2, 0, 0, 0), ("a", 2, 3), (1, 1 << 70, 0), [1, 2, 0, 0]]
    )
    def test_ends_the_run(self, kernel: Kernel, reader: Reader, answer: Any) -> None:
        reader.answer = answer
        kernel.send(packet(1, OPEN), held(2, b"", UNKNOWN))
        with pytest.raises((TypeError, OverflowError, SystemError)):
            reader.queue.run([])
        assert kernel.read() == [[Answered(1, True, 0)]]

    def test_leaves_its_packet_to_be_dropped_if_another_run_comes(self, kernel: Kernel, reader: Reader) -> None:
        """And the packets that were read with it: a batch verdict for later ones would be theirs too."""
        reader.answer = None
        kernel.hold(1, b"", UNKNOWN)
        kernel.hold(2, syn(OPEN), MARKS[VPN])
        with pytest.raises((TypeError, SystemError)):
            reader.queue.run([])
        for number in (3, 4):
            kernel.hold(number, syn(OPEN), MARKS[VPN])
        kernel.hold(LAST, b"", LAST)
        reader.queue.run([])
        kernel.take_verdicts()
        assert [kernel.answers[number][0] for number in (1, 2, 3, 4)] == [False, False, True, True]
