"""Inputs made of seeds, by chance: for the test suite, and where atheris cannot be had. Knows nothing of coverage."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

_NUMBERS = (0, 1, 4, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_STEPS_MAX = 6  # changes of one input


def inputs(seeds: Sequence[bytes], words: Sequence[bytes], most: int, chance: random.Random) -> Iterator[bytes]:
    """The seeds as they are, then as many mutations of them as are asked for."""
    yield from seeds
    while True:
        data = bytearray(chance.choice(seeds) if seeds else b"")
        for _ in range(chance.randint(1, _STEPS_MAX)):
            _change(data, seeds, words, chance)
        yield bytes(data[:most])


def _change(data: bytearray, seeds: Sequence[bytes], words: Sequence[bytes], chance: random.Random) -> None:
    """One change, in place."""
    at = chance.randint(0, len(data))
    end = min(len(data), at + chance.choice((1, 1, 2, 4, 16, 64)))
    match chance.randrange(8):
        case 0 if data:
            data[at % len(data)] ^= 1 << chance.randrange(8)
        case 1 if data:
            data[at % len(data)] = chance.randrange(256)
        case 2:
            del data[at:end]
        case 3:
            data[at:at] = data[at:end]
        case 4:
            size = chance.choice((1, 2, 4))
            number = chance.choice(_NUMBERS) & (1 << 8 * size) - 1
            data[at : at + size] = number.to_bytes(size, chance.choice(("big", "little")))
        case 5 if seeds:
            other = chance.choice(seeds)
            start = chance.randint(0, len(other))
            data[at:end] = other[start : start + chance.randint(0, 64)]
        case 6 if words:
            data[at : chance.choice((at, end))] = chance.choice(words)
        case _:
            data[at:at] = chance.randbytes(chance.randint(1, 8))
