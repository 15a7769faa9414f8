"""The loop of the inline reader, over a socket pair: packets made by hand, and the verdicts read back.

A run takes place in the test's own thread: a last packet that only Python knows has the loop stopped.
"""

from __future__ import annotations

import itertools
import random
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glacic import native
from glacic.firewall import claims

from .conftest import (
    ACCEPT,
    ALLOWED,
    CLIENT,
    DENIED,
    DROP,
    GUEST_SHUT,
    GUESTS,
    IGNORED,
    LAN,
    LAST,
    MAC,
    MARKS,
    NOT_BUILT,
    OPEN,
    PENDING,
    REJECT,
    ROUTED,
    SHUT,
    TCP,
    UNKNOWN,
    VPN,
    Answered,
    Asked,
    Kernel,
    Reader,
    held,
    know_all,
    packet,
    running,
    syn,
    until,
)

BATCH = 64  # packets read at once


# ---- what a verdict looks like


def test_an_allowed_packet_goes_on_with_its_field_cleared(kernel: Kernel, reader: Reader) -> None:
    kernel.send(packet(7, OPEN, ROUTED))
    assert reader.run() == [[Answered(7, True, ROUTED)]]


def test_a_refused_packet_is_dropped_and_its_mark_is_nobody_s_business(kernel: Kernel, reader: Reader) -> None:
    kernel.send(packet(7, SHUT, ROUTED))
    assert reader.run() == [[Answered(7, False, None)]]


def test_a_rejected_packet_goes_on_with_the_reject_bit_alone(kernel: Kernel, reader: Reader) -> None:
    kernel.send(packet(7, GUEST_SHUT, ROUTED))
    assert reader.run() == [[Answered(7, True, ROUTED | claims.REJECT)]]


@pytest.mark.parametrize("state", [PENDING, DENIED, IGNORED])
def test_whatever_is_not_allowed_is_refused(kernel: Kernel, asked: Asked, reader: Reader, state: int) -> None:
    asked.know(SHUT, state)
    kernel.send(packet(1, SHUT))
    assert reader.run() == [[Answered(1, False, None)]]
    assert reader.figures()["by_state"][state] == 1


@pytest.mark.parametrize("length", [2, 3, BATCH])
def test_a_run_of_one_answer_is_one_verdict(kernel: Kernel, reader: Reader, length: int) -> None:
    kernel.send(*(packet(number, OPEN) for number in range(1, length + 1)))
    assert reader.run() == [[Answered(length, True, 0, batch=True)]]
    assert reader.figures()["accepted"] == length


def test_where_the_answer_or_the_mark_differs_a_run_ends(kernel: Kernel, reader: Reader) -> None:
    kinds = [
        (OPEN, 0),
        (OPEN, 0),
        (SHUT, 0),
        (SHUT, ROUTED),  # a drop has no mark
        (OPEN, ROUTED),
        (OPEN, 1),
        (OPEN, 1),
        (GUEST_SHUT, 1),
        (GUEST_SHUT, 1),
        (SHUT, 0),
    ]
    kernel.send(*(packet(number, port, others) for number, (port, others) in enumerate(kinds, 1)))
    assert reader.run() == [
        [
            Answered(2, True, 0, batch=True),
            Answered(4, False, None, batch=True),
            Answered(5, True, ROUTED),
            Answered(7, True, 1, batch=True),
            Answered(9, True, 1 | claims.REJECT, batch=True),
            Answered(10, False, None),
        ]
    ]
    assert reader.figures() == {
        "processed": 10,
        "accepted": 5,
        "dropped": 5,
        "rejected": 2,
        "verdict_errors": 0,
        "by_state": (0, 0, 5, 5, 0),
    }


def test_more_than_can_be_read_at_once_is_answered_all_the_same(kernel: Kernel, reader: Reader) -> None:
    kernel.send(*(packet(number, OPEN) for number in range(1, 151)))
    assert [sent[-1].number for sent in reader.run()] == [64, 128, 150]


def test_ids_may_wrap_around(kernel: Kernel, reader: Reader) -> None:
    for number in (0xFFFF_FFFE, 0xFFFF_FFFF, 0, 1):
        kernel.hold(number, syn(OPEN), MARKS[VPN])
    kernel.hold(2, syn(SHUT), MARKS[VPN])
    assert reader.run() == [[Answered(1, True, 0, batch=True), Answered(2, False, None)]]


# ---- what is Python's


def test_what_python_is_asked(kernel: Kernel, reader: Reader) -> None:
    kernel.send(
        held(1, syn(443), MARKS[LAN] | ROUTED, interface=9, hardware=MAC + b"\7\7"),
        held(2, b"", UNKNOWN),
        held(3, b"\x45"),
        held(4, syn(OPEN), 0xFFFF_FFFF, interface=0xFFFF_FFFF),
    )
    reader.run()
    assert reader.questions == [
        (syn(443), MARKS[LAN] | ROUTED, 9, MAC + b"\7\7"),
        (b"", UNKNOWN, 0, None),
        (b"\x45", 0, 0, None),
        (syn(OPEN), 0xFFFF_FFFF, 0xFFFF_FFFF, None),
    ]


def test_every_packet_is_python_s_where_connections_are_counted(kernel: Kernel, asked: Asked, reader: Reader) -> None:
    asked.set(window=True)
    kernel.send(packet(1, OPEN), packet(2, SHUT))
    reader.run()
    assert len(reader.questions) == 2


@pytest.mark.parametrize(
    ("answer", "expected", "counted"),
    [
        ((ACCEPT, 5, -1), Answered(1, True, 5), "accepted"),
        ((ACCEPT, -1, -1), Answered(1, True, None), "accepted"),
        ((ACCEPT, 0, 1), Answered(1, True, 0), "accepted"),
        ((REJECT, 7, -1), Answered(1, True, 7), "rejected"),
        ((DROP, -1, 0), Answered(1, False, None), "dropped"),
        ((DROP, 5, 0), Answered(1, False, None), "dropped"),
        ((0, 5, -1), Answered(1, False, None), "dropped"),  # no verdict of ours: nothing is let in for it
        ((99, 5, -1), Answered(1, False, None), "dropped"),
    ],
)
def test_what_python_says(kernel: Kernel, reader: Reader, answer: Any, expected: Answered, counted: str) -> None:
    reader.answer = answer
    kernel.send(held(1, syn(443), UNKNOWN))
    assert reader.run() == [[expected]]
    figures = reader.figures()
    assert figures[counted] == 1
    assert (figures["accepted"] + figures["dropped"], sum(figures["by_state"])) == (1, 0)


def test_while_python_is_asked_what_came_before_is_answered_already(kernel: Kernel, reader: Reader) -> None:
    seen: list[list[list[Answered]]] = []

    def answer(*_: Any) -> tuple[int, int, int]:
        seen.append(kernel.read())
        return (DROP, -1, -1)

    reader.answer = answer
    kernel.send(packet(1, OPEN), packet(2, OPEN), held(3, b"", UNKNOWN), packet(4, OPEN), held(5, b"", UNKNOWN))
    kernel.send(held(6, b"", UNKNOWN), packet(7, SHUT))
    rest = reader.run()
    assert seen == [
        [[Answered(2, True, 0, batch=True)]],
        [[Answered(3, False, None), Answered(4, True, 0)]],
        [[Answered(5, False, None)]],
    ]
    assert rest == [[Answered(7, False, None, batch=True)]]  # and 6


class TestWhatChangedIsTold:
    """To those whom it wakes: once the packet is answered, because they would take the processor from its answer."""

    def test_when_its_packet_is_answered(self, kernel: Kernel, reader: Reader) -> None:
        reader.wants_to_tell, reader.on_tell = True, kernel.read
        kernel.send(packet(1, OPEN), held(2, b"", UNKNOWN), packet(3, OPEN), held(4, b"", UNKNOWN))
        reader.run()
        assert reader.told == [
            [[Answered(1, True, 0)], [Answered(2, True, 0)]],
            [[Answered(3, True, 0)], [Answered(4, True, 0)]],
        ]

    def test_where_anything_has(self, kernel: Kernel, reader: Reader) -> None:
        kernel.send(packet(1, OPEN), held(2, b"", UNKNOWN))
        reader.run()
        assert reader.told == []

    def test_or_the_run_ends(self, kernel: Kernel, reader: Reader) -> None:
        def on_tell() -> None:
            raise LookupError("boom")

        reader.wants_to_tell, reader.on_tell = True, on_tell
        kernel.send(held(1, b"", UNKNOWN), packet(2, OPEN))
        with pytest.raises(LookupError, match="boom"):
            reader.queue.run([])
        assert kernel.read() == [[Answered(1, True, 0)]]


@given(
    st.lists(st.sampled_from([OPEN, OPEN, SHUT, GUEST_SHUT, 443]), max_size=150),
    st.lists(st.sampled_from([0, 0, 0, ROUTED]), min_size=150, max_size=150),
    st.sampled_from([1, 0xFFFF_FFC0]),
    st.randoms(use_true_random=False),
)
def test_every_packet_gets_its_own_answer_whatever_its_neighbours_get(
    ports: list[int], others: list[int], first: int, choose: random.Random
) -> None:
    assert native.road is not None, NOT_BUILT
    expected: dict[int, tuple[bool, int | None]] = {}
    answers: list[tuple[int, int, int]] = []
    with Kernel() as kernel:
        reader = Reader(native.road, Asked(native.road), kernel)
        know_all(reader.asked)
        number = first
        for port, mark in zip(ports, others, strict=False):
            number = (number + choose.choice([1, 1, 2])) % (1 << 32)
            kernel.hold(number, syn(port), MARKS[GUESTS if port == GUEST_SHUT else VPN] | mark)
            known = {OPEN: (True, mark), SHUT: (False, None), GUEST_SHUT: (True, mark | claims.REJECT)}
            if port in known:
                expected[number] = known[port]
            else:
                answers.append(choose.choice([(ACCEPT, mark, -1), (ACCEPT, -1, -1), (DROP, -1, -1), (REJECT, 5, -1)]))
                expected[number] = (answers[-1][0] != DROP, None if answers[-1][1] < 0 else answers[-1][1])
        replies = iter(answers)
        reader.answer = lambda *_: next(replies)
        last = (number + 1) % (1 << 32)
        kernel.hold(last, b"", LAST)
        reader.queue.run([])
        kernel.take_verdicts()
    assert kernel.answers.pop(last) == (False, None)
    assert kernel.answers == expected
    assert not kernel.waiting
    figures = reader.figures()
    assert figures["processed"] == figures["accepted"] + figures["dropped"] == len(ports)
    assert sum(figures["by_state"]) == len(ports) - len(answers)
    assert sum(reader.queue.latency()[0].values()) == len(ports) + 1


# ---- hardware addresses


class TestAnInterface:
    """Asked for its type once, by Python; remembered for half a second."""

    @pytest.fixture
    def asked(self, asked: Asked) -> Asked:
        asked.table.put(("lan_wan", MAC, TCP, OPEN, b""), None, ALLOWED, (CLIENT,))
        asked.table.put(("lan_wan", CLIENT, TCP, OPEN, b""), None, DENIED, ())
        return asked

    def packet(self, number: int, interface: int, length: int = 6) -> bytes:
        hardware = MAC + b"\0\0"
        return held(number, syn(OPEN), MARKS[LAN], interface=interface, hardware=hardware, hardware_length=length)

    def test_of_ethernet_has_macs(self, kernel: Kernel, reader: Reader) -> None:
        reader.answer = (DROP, -1, 1)
        for number in (1, 2, 3):
            kernel.send(self.packet(number, 9))
        assert reader.run() == [[Answered(1, False, None), Answered(3, True, 0, batch=True)]]
        assert len(reader.questions) == 1

    def test_of_another_type_has_none(self, kernel: Kernel, reader: Reader) -> None:
        reader.answer = (ACCEPT, 9, 0)
        for number in (1, 2, 3):
            kernel.send(self.packet(number, 9))
        assert reader.run() == [[Answered(1, True, 9), Answered(3, False, None, batch=True)]]

    def test_is_asked_for_again_after_a_while(self, reader: Reader) -> None:
        def answer(_payload: bytes, mark: int, *_: Any) -> tuple[int, int, int]:
            if mark == UNKNOWN:
                time.sleep(0.51)
            return (DROP, -1, 1)

        reader.answer = answer
        reader.run([self.packet(1, 9), self.packet(2, 9), held(3, b"", UNKNOWN), self.packet(4, 9)])
        assert [question[1] for question in reader.questions] == [MARKS[LAN], UNKNOWN, MARKS[LAN]]

    def test_number_0_is_one_like_any_other(self, kernel: Kernel, reader: Reader) -> None:
        reader.answer = (DROP, -1, 1)
        kernel.send(self.packet(1, 0))
        kernel.send(self.packet(2, 0))
        assert reader.run() == [[Answered(1, False, None), Answered(2, True, 0)]]

    def test_of_whose_type_nothing_was_said_is_asked_for_each_time(self, kernel: Kernel, reader: Reader) -> None:
        reader.answer = (DROP, -1, -1)
        for number in (1, 2, 3):
            kernel.send(self.packet(number, 9))
        reader.run()
        assert len(reader.questions) == 3

    @pytest.mark.parametrize("length", [0, 4, 5, 7, 8, 20, 0xFFFF])
    def test_of_ethernet_with_an_address_of_another_length_is_python_s(
        self, kernel: Kernel, reader: Reader, length: int
    ) -> None:
        reader.answer = (DROP, -1, 1)
        kernel.send(self.packet(1, 9))
        kernel.send(self.packet(2, 9, length=length))
        reader.run()
        assert len(reader.questions) == 2

    def test_among_more_than_are_remembered_is_asked_for_again_and_never_mistaken(
        self, kernel: Kernel, reader: Reader
    ) -> None:
        reader.answer = lambda _payload, _mark, interface, _hardware: (DROP, -1, interface % 2)
        choose = random.Random(1)
        interfaces = [choose.randrange(40) for _ in range(200)]
        for number, interface in enumerate(interfaces):
            kernel.waiting.append(number)
            kernel.send(self.packet(number, interface))
        kernel.hold(LAST, b"", LAST)
        reader.queue.run([])
        kernel.take_verdicts()
        for number, interface in enumerate(interfaces):
            if kernel.answers[number] != (False, None):
                assert interface % 2  # ethernet: by MAC, allowed
        assert 40 <= len(reader.questions) < 200
        assert reader.figures()["by_state"][ALLOWED] > 0
        assert reader.figures()["by_state"][DENIED] > 0


def test_it_says_what_it_is_answering(kernel: Kernel, reader: Reader) -> None:
    said: list[int] = []

    def answer(*_: Any) -> tuple[int, int, int]:
        said.append(reader.queue.answering())
        return (DROP, -1, -1)

    reader.answer = answer
    assert reader.queue.answering() == 0
    kernel.send(held(2, b"", UNKNOWN), held(3, b"", UNKNOWN))
    reader.run([held(1, b"", UNKNOWN)])
    assert said[0] != 0
    assert said[1] == said[2] not in (0, said[0])
    assert reader.queue.answering() == 0


def test_no_answer_is_of_the_time_before_a_change(kernel: Kernel, reader: Reader) -> None:
    """A flow is denied and allowed to and fro: once that is done, and what was being answered then is answered, every
    packet gets the new answer."""
    numbers = itertools.count(1)
    accepted: dict[int, bool] = {}

    def flood(packets: int) -> list[int]:
        sent = list(itertools.islice(numbers, packets))
        kernel.send(*(packet(number, OPEN) for number in sent))
        return sent

    def take() -> None:
        for one in (one for sent in kernel.read() for one in sent):
            for number in range(max(accepted, default=0) + 1, one.number + 1):
                accepted[number] = one.accept

    with running(reader.queue):
        for turn in range(400):
            flood(20)
            reader.asked.table.remove(("vpn_wan", CLIENT, TCP, OPEN, b""))
            reader.asked.know(OPEN, (ALLOWED, DENIED)[turn % 2])
            answering = reader.queue.answering()
            until(lambda answering=answering: not answering or reader.queue.answering() != answering)
            before = take() or dict(accepted)
            late = flood(5)
            until(lambda late=late: late[-1] in accepted, take)
            assert {accepted[number] for number in late} == {turn % 2 == 0}, (turn, late, before)
    assert len(set(accepted.values())) == 2
