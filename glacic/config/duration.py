"""Durations as people write them: "90s", "30m", "24h", "7d", "1h30m". Used by the configuration and by `learn on
--for`."""

from __future__ import annotations

import re

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_FORM = re.compile(r"(?:[0-9]{1,9}[smhdw])+")
_PART = re.compile(r"([0-9]+)([smhdw])")

LONGEST_S = 10 * 365 * 86_400  # ten years: anything longer is a slip of the pen


def duration_s(text: str) -> int:
    """Seconds in `text`. Raises ValueError, in words for the person, for anything else."""
    if not _FORM.fullmatch(text):
        raise ValueError(f'"{text}" is not a duration; write it as "24h", "90m", "7d" or "1h30m"')
    seconds = sum(int(count) * _UNITS[unit] for count, unit in _PART.findall(text))
    if not 0 < seconds <= LONGEST_S:
        raise ValueError(f'"{text}" is not between a second and ten years')
    return seconds
