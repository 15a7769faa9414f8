"""What a decision has changed is told when the packet is answered, in the order in which it happened."""

from __future__ import annotations

import threading

from glacic.ctlplane.news import Bulletin
from glacic.learning.flow import FlowKey, FlowState, Transition


def change(number: int) -> Transition:
    key = FlowKey("lan_wan", b"\2\0\0\0\0\1", 6, number)
    return Transition(key=key, before=None, after=FlowState.ALLOWED, at_ns=number, who="tofu", why="learned")


def test_nobody_hears_of_a_change_before_it_is_told() -> None:
    heard: list[Transition] = []
    news = Bulletin(heard.append)
    assert not news.waits
    news.put(change(1))
    assert (news.waits, heard) == (True, [])
    news.tell()
    assert (news.waits, heard) == (False, [change(1)])


def test_everybody_hears_everything_in_its_order() -> None:
    one: list[Transition] = []
    other: list[Transition] = []
    news = Bulletin(one.append, other.append)
    for number in range(5):
        news.put(change(number))
    news.tell()
    assert one == other == [change(number) for number in range(5)]


def test_many_threads_tell_and_the_order_stays() -> None:
    heard: list[Transition] = []
    news = Bulletin(heard.append)
    order = threading.Lock()
    numbers = iter(range(4000))

    def change_and_tell() -> None:
        for _ in range(1000):
            with order:  # as the engine's lock does
                news.put(change(next(numbers)))
            news.tell()

    threads = [threading.Thread(target=change_and_tell) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [transition.at_ns for transition in heard] == list(range(4000))
