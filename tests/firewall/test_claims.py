"""What Glacic takes in the packet mark: numbers come back, other bits are nobody's business."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glacic.config.model import RuleLearning
from glacic.firewall import claims

numbers = st.integers(1, claims.MAX_POLICIES)


@given(numbers, st.integers(0, 0xFFFF), st.integers(0, claims.MAX_POLICIES))
def test_a_number_comes_back_from_a_mark_whatever_routing_put_beside_it(number: int, routing: int, more: int) -> None:
    highest = max(number, more)
    mark = claims.mark_of(number) | routing
    assert claims.number_in(mark, highest) == number
    assert mark & ~claims.field(highest) == routing


@given(st.integers(1, 63), st.integers(0, 0xFF))
def test_up_to_63_policies_leave_the_top_byte_alone(number: int, top: int) -> None:
    assert claims.field(63) == 0x00FF0000
    assert claims.number_in(claims.mark_of(number) | top << 24, 63) == number


@given(numbers, st.integers(1, claims.MAX_POLICIES))
def test_a_policy_is_never_taken_for_a_packet_window(number: int, highest: int) -> None:
    """A packet in a window is accepted; a mark from before a reload may be read with the other width."""
    assert claims.number_in(claims.mark_of(number), highest) != 0


def test_policy_three_has_the_mark_that_was_proven() -> None:
    assert claims.mark_of(3) == 0x00830000


def test_a_mark_that_nobody_asked_with_has_no_number() -> None:
    assert claims.number_in(0x00031234, 63) == 0


@pytest.mark.parametrize("number", [0, -1, claims.MAX_POLICIES + 1])
def test_a_number_that_does_not_fit_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match="policy number"):
        claims.mark_of(number)


def test_the_sink_is_behind_the_queues() -> None:
    assert claims.sink_queue(100, 4) == 104


def test_what_limits_write_into_the_connection_mark_is_theirs_alone() -> None:
    assert claims.CT_LIMIT == 0xFF << claims.CT_LIMIT_SHIFT
    assert claims.CT_LIMIT & (claims.CT_FAIL_OPEN | claims.CT_INSPECT | RuleLearning().offload_mark | 0xFFFF) == 0
