"""Mutations: the seeds first, then changes of them, the same for the same chance."""

from __future__ import annotations

import random
from itertools import islice

from fuzz.mutation import inputs

SEEDS = [b"one", b"another seed"]


def some(count: int, seeds: list[bytes] = SEEDS, most: int = 20) -> list[bytes]:
    return list(islice(inputs(seeds, [b"WORD"], most, random.Random(1)), count))


def test_seeds_come_first_and_then_something_else() -> None:
    found = some(200)
    assert found[:2] == SEEDS
    assert len(set(found)) > 150
    assert any(b"WORD" in one for one in found)
    assert max(map(len, found)) <= 20


def test_the_same_chance_makes_the_same_inputs() -> None:
    assert some(100) == some(100)


def test_without_seeds_there_are_inputs_all_the_same() -> None:
    assert len(set(some(50, []))) > 25
