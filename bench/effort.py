"""How much is measured: rounds, and seconds for each contestant and round. Refuses to know what is measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Effort:
    """rounds: how often everything is measured, alternating. seconds: for one contestant in one round, without its
    warming up. long_s: for what has to hold out, once."""

    rounds: int = 3
    seconds: float = 2.0
    long_s: float = 60.0


FULL = Effort()
SHORT = Effort(rounds=2, seconds=1.0, long_s=5.0)  # to see that everything runs; its figures mean little
