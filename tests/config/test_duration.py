"""Durations as people write them."""

from __future__ import annotations

import pytest

from glacic.config.duration import duration_s


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("24h", 86_400), ("7d", 604_800), ("1w", 604_800), ("1h30m", 5400), ("3600s", 3600)],
)
def test_a_duration_is_read(text: str, seconds: int) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "24", "h", "0s", "-1h", "1.5h", "1 h", "24H", "1y", "99999d", "24hours", "\u0661h"]
)
def test_anything_else_is_refused_in_words(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|between"):
        duration_s(text)
