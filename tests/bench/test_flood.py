"""A flood, small: what is counted, and that nobody else notices it."""

from __future__ import annotations

import pytest

from bench.flood import flood


@pytest.mark.parametrize("learning", [True, False], ids=["on", "off"])
def test_a_quiet_host_is_answered(learning: bool) -> None:
    found = flood(learning=learning, keys=3000, seconds=3.0)
    assert found["sent"] == 3000
    assert found["known"]["answered"] == found["known"]["sent"] == 60
    assert 0 < found["new"]["answered"] <= found["new"]["sent"] == 12  # on a busy machine a full queue takes some
    assert found["moved"] < 50
    assert found["worker_starts"] == 1
