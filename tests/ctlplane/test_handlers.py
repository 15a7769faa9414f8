"""What a request may say: filters and numbers are checked before anything is asked of worker or database."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glacic.ctlplane.handlers import Handlers, flow_filter
from glacic.ctlplane.limitrows import LimitRequests
from glacic.ctlplane.rights import CHANGE, READ, Request
from glacic.errors import UsageError
from glacic.learning.flow import FlowState
from glacic.learning.store import FlowFilter


def test_every_filter_is_read() -> None:
    args = {
        "policy": "lan_wan",
        "state": "pending",
        "source": "02:00:00:00:00:10",
        "protocol": "udp",
        "port": 53,
        "destination": "fd01::1",
        "origin": "traffic",
    }
    assert flow_filter(args) == FlowFilter(
        policy="lan_wan",
        state=FlowState.PENDING,
        source=b"\x02\0\0\0\0\x10",
        protocol=17,
        port=53,
        destination=bytes.fromhex("fd01" + "00" * 13 + "01"),
        origin="traffic",
    )


@pytest.mark.parametrize(
    "args",
    [
        [],
        "all",
        {"colour": "red"},
        {"state": "open"},
        {"state": ["pending"]},
        {"source": "somebody"},
        {"source": 7},
        {"protocol": "carrier-pigeon"},
        {"port": -1},
        {"port": "53"},
        {"port": True},
        {"destination": "02:00:00:00:00:10"},
        {"policy": 7},
        {"policy": "\udcff"},  # what is no UTF-8 on a command line
    ],
)
def test_what_is_no_filter_is_refused_in_words(args: Any) -> None:
    with pytest.raises(UsageError, match=r"\w"):
        flow_filter(args)


json_values: st.SearchStrategy[Any] = st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers())
names = st.sampled_from(["policy", "state", "source", "protocol", "port", "destination", "origin", "x"])


@given(st.dictionaries(names, json_values))
def test_nothing_but_a_usage_error_comes_of_any_filter(args: dict[str, Any]) -> None:
    try:
        assert isinstance(flow_filter(args), FlowFilter)
    except UsageError as error:
        assert str(error)  # noqa: PT017 - either outcome is fine, an empty message is not


def test_every_request_says_which_right_it_takes() -> None:
    table = Handlers(mock.Mock()).table()
    assert {name: request.right for name, request in table.items() if request.right is READ} == dict.fromkeys(
        (
            "status",
            "stats",
            "history",
            "difference",
            "connections",
            "flows.list",
            "flows.show",
            "learn.status",
            "audit",
            "database",
            "limits.list",
            "limits.show",
            "limits.engines",
            "limits.watch",
        ),
        READ,
    )
    assert all(isinstance(request, Request) and request.right in (READ, CHANGE) for request in table.values())
    asked = {name for name in vars(Handlers) if not name.startswith("_")} - {"table"}
    asked |= {name for name in vars(LimitRequests) if not name.startswith("_")}
    assert {request.handler.__name__ for request in table.values()} == asked  # and no handler is left out
