"""The control socket's language: what is packed comes back, what is refused keeps its exit code, garbage is refused."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glacic import errors
from glacic.config.source import Diagnostic, Source, Span
from glacic.ctlplane import protocol

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.dictionaries(st.text(), json_values))
def test_a_message_is_one_line_and_comes_back(message: dict[str, Any]) -> None:
    line = protocol.pack(message)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert protocol.unpack(line) == message


@given(st.binary())
def test_garbage_is_refused_and_nothing_else_is_raised(line: bytes) -> None:
    with contextlib.suppress(errors.UsageError):
        assert isinstance(protocol.unpack(line), dict)


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(errors.UsageError):
        protocol.unpack(b'{"do":' + b"[" * 100_000)


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (errors.UnknownFlow("no such flow: 7"), 1),
        (errors.UsageError("what?"), 2),
        (errors.Unreachable("gone"), 3),
        (errors.KernelRefused("no"), 4),
    ],
)
def test_a_refusal_is_raised_at_the_other_end_with_its_exit_code_and_words(
    error: errors.GlacicError, exit_code: int
) -> None:
    with pytest.raises(errors.GlacicError, match=str(error)) as caught:
        protocol.result_of(protocol.unpack(protocol.pack(protocol.refusal(error))))
    assert caught.value.exit_code == exit_code


def test_a_refused_configuration_carries_its_diagnostics() -> None:
    span = Span(Source("x.hcl", "zone {}"), 1, 1, 0, 4)
    message = protocol.refusal(errors.ConfigError((Diagnostic(span, "wrong"),)))
    with pytest.raises(errors.GlacicError) as caught:
        protocol.result_of(message)
    assert caught.value.details["errors"][0]["summary"] == "wrong"


@pytest.mark.parametrize(
    "line",
    [
        b'{"do": "x", "args": {"a": NaN}}',
        b'{"do": "x", "args": {"a": -Infinity}}',
        b'{"do": "x", "args": {"a": 1e999}}',
        b'{"do": "x", "args": {"a": ' + b"9" * 21 + b"}}",
        b'{"do": "x", "args": {"a": 0.' + b"9" * 50 + b"}}",
        b'{"do": "x", "args": {"a": 1, "a": 2}}',
        b'{"do": "x", "do": "y"}',
        b'{"do": "x", "args": {"a": "\\ud800"}}',
        b'{"do": "x", "args": {"\\udfff": 1}}',
        b'{"do": "\xff"}',
        '{"do": "x"}'.encode("utf-16"),
        '{"do": "x"}'.encode("utf-32"),
        b'\xef\xbb\xbf{"do": "x"}',
        b'{"do": "x", "args": {"a": ' + b"[" * 9 + b"]" * 9 + b"}}",
        b'{"do": "x", "args": ' + b'{"a": ' * 100_000,
        b"[" * 200_000,
        b"[]",
        b'"x"',
        b"null",
        b"",
        b'{"do": ["x"]}',
        b'{"do": "x", "args": null}',
        b'{"do": "x", "from": 7}',
    ],
    ids=lambda line: repr(line[:40]),
)
def test_what_could_be_read_in_two_ways_or_is_no_request_is_refused(line: bytes) -> None:
    with pytest.raises(errors.UsageError, match=r"\w"):
        protocol.unpack_request(line)


@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text()), st.text())
def test_a_request_comes_through(args: dict[str, Any], told: str) -> None:
    asked = protocol.unpack_request(protocol.pack(protocol.request("flows.list", args, told)))
    assert asked == protocol.Asked("flows.list", args, told[: protocol.MAX_FROM])


@given(st.binary() | json_values.map(lambda value: protocol.pack({"do": "x", "args": value})))
def test_nothing_but_a_request_or_a_refusal_comes_of_any_line(line: bytes) -> None:
    with contextlib.suppress(errors.UsageError):
        assert isinstance(protocol.unpack_request(line), protocol.Asked)
