"""A flood, small: what is counted, and that nobody else notices it."""

from __future__ import annotations

import pytest

from bench.flood import flood


@pytest.mark.parametrize("learning", [True, False], ids=["on", "off"])
def test_a_quiet_host_is_answered(learning: bool) -> None:
    found = flood(learning=learning, keys=3000, seconds=3.0)
    assert found["sent"] == 3000
    assert found["known"]["answered"] == found["known"]["sent"] == 60
    assert found["new"]["answered"] == found["new"]["sent"] == 12
    assert found["flows"]["allowed"] == (5013 if learning else 13) - (found["kernel_dropped"] if learning else 0)
    assert found["moved"] < 50
    assert found["worker_starts"] == 1
